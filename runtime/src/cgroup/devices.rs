//! Device rules: the configuration's list, reduced to a default and its exceptions, as the kernel's own controller keeps it.
//!
//! The list is read in order. A rule for all types sets the default and forgets the exceptions before it; a rule that
//! agrees with the default takes exceptions away, one that disagrees adds one. What every container needs (mknod,
//! `/dev/null` and its kin, terminals) is allowed after the configuration's rules, as in runc.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Error;

/// A number, or all (`*`).
pub type Number = Option<u32>;

/// Kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    /// Block.
    Block,
    /// Character.
    Char,
}

/// Permission bits as `BPF_DEVCG_ACC_*`: mknod 1, read 2, write 4.
pub type Access = u8;

const ALL: Access = 7;

/// A default and its exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceRules {
    /// Devices without an exception are allowed.
    pub allow_by_default: bool,
    /// What is denied (or, with deny by default, allowed).
    pub exceptions: BTreeMap<(DeviceKind, Number, Number), Access>,
}

struct Rule {
    kind: Option<DeviceKind>,
    major: Number,
    minor: Number,
    access: Access,
    allow: bool,
}

/// What runc allows each container: mknod of everything, the standard devices, terminals.
const ALWAYS: [(DeviceKind, Number, Number, Access); 10] = [
    (DeviceKind::Char, None, None, 1),
    (DeviceKind::Block, None, None, 1),
    (DeviceKind::Char, Some(1), Some(3), ALL),
    (DeviceKind::Char, Some(1), Some(8), ALL),
    (DeviceKind::Char, Some(1), Some(7), ALL),
    (DeviceKind::Char, Some(5), Some(0), ALL),
    (DeviceKind::Char, Some(1), Some(5), ALL),
    (DeviceKind::Char, Some(1), Some(9), ALL),
    (DeviceKind::Char, Some(136), None, ALL),
    (DeviceKind::Char, Some(5), Some(2), ALL),
];

impl DeviceRules {
    /// The rules of a container.
    ///
    /// # Errors
    /// A rule that takes a part of what a wildcard gives, which neither kernel interface can express.
    pub fn from_spec(list: &[LinuxDeviceCgroup]) -> Result<Self, Error> {
        let mut rules = Self::default();
        for device in list {
            rules.apply(&Rule::from_spec(device)?)?;
        }
        for (kind, major, minor, access) in ALWAYS {
            rules.apply(&Rule { kind: Some(kind), major, minor, access, allow: true })?;
        }
        Ok(rules)
    }

    /// The state that `devices.list` shows.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        let mut rules = Self::default();
        for line in list.lines() {
            let mut words = line.split([' ', ':']);
            let (Some(kind), Some(major), Some(minor), Some(access)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            let kind = match kind {
                "a" => {
                    rules.allow_by_default = true;
                    continue;
                }
                "b" => DeviceKind::Block,
                _ => DeviceKind::Char,
            };
            rules.exceptions.insert((kind, major.parse().ok(), minor.parse().ok()), parse_access(access));
        }
        rules
    }

    fn apply(&mut self, rule: &Rule) -> Result<(), Error> {
        let Some(kind) = rule.kind else {
            self.allow_by_default = rule.allow;
            self.exceptions.clear();
            return Ok(());
        };
        let key = (kind, rule.major, rule.minor);
        if rule.allow == self.allow_by_default {
            return self.take(key, rule.access);
        }
        *self.exceptions.entry(key).or_default() |= rule.access;
        Ok(())
    }

    fn take(&mut self, key: (DeviceKind, Number, Number), access: Access) -> Result<(), Error> {
        let (kind, major, minor) = key;
        for wider in [(kind, None, minor), (kind, major, None), (kind, None, None)] {
            let covered = self.exceptions.get(&wider).is_some_and(|had| had & access != 0);
            if wider != key && covered {
                return Err(Error::Invalid(format!(
                    "device rule for {} matches a part of the rule for {}",
                    render(key, access),
                    render(wider, self.exceptions[&wider])
                )));
            }
        }
        if let Some(had) = self.exceptions.get_mut(&key) {
            *had &= !access;
            if *had == 0 {
                self.exceptions.remove(&key);
            }
        }
        Ok(())
    }

    /// The lines for `devices.deny` and `devices.allow` that lead from `current` to these rules.
    #[must_use]
    pub fn transition(&self, current: &Self) -> Vec<(&'static str, String)> {
        let file = |allow: bool| if allow { "devices.allow" } else { "devices.deny" };
        let mut lines = Vec::new();
        let empty = BTreeMap::new();
        let mut old = &current.exceptions;
        if current.allow_by_default != self.allow_by_default {
            lines.push((file(self.allow_by_default), "a *:* rwm".to_owned()));
            old = &empty;
        }
        for (key, had) in old {
            let gone = had & !self.exceptions.get(key).copied().unwrap_or(0);
            if gone != 0 {
                lines.push((file(self.allow_by_default), render(*key, gone)));
            }
        }
        for (key, access) in &self.exceptions {
            let new = access & !old.get(key).copied().unwrap_or(0);
            if new != 0 {
                lines.push((file(!self.allow_by_default), render(*key, new)));
            }
        }
        lines
    }
}

impl Rule {
    fn from_spec(device: &LinuxDeviceCgroup) -> Result<Self, Error> {
        let kind = match device.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(DeviceKind::Block),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(DeviceKind::Char),
            Some(LinuxDeviceType::P) => {
                return Err(Error::Invalid("fifos have no device rules".to_owned()));
            }
        };
        let access = device.access().as_deref().unwrap_or("rwm");
        Ok(Self {
            kind,
            major: number(device.major())?,
            minor: number(device.minor())?,
            access: parse_access(access),
            allow: device.allow(),
        })
    }
}

/// The specification's -1 is "all", and so is what it leaves out.
fn number(value: Option<i64>) -> Result<Number, Error> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| Error::Invalid(format!("device number {value} is out of range"))),
    }
}

fn parse_access(text: &str) -> Access {
    text.chars().fold(0, |access, c| {
        access
            | match c {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            }
    })
}

fn render((kind, major, minor): (DeviceKind, Number, Number), access: Access) -> String {
    let kind = match kind {
        DeviceKind::Block => 'b',
        DeviceKind::Char => 'c',
    };
    let number = |n: Number| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let letters: String =
        [(2, 'r'), (4, 'w'), (1, 'm')].iter().filter(|(bit, _)| access & bit != 0).map(|(_, c)| *c).collect();
    format!("{kind} {}:{} {letters}", number(major), number(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> Result<DeviceRules, Error> {
        let list: Vec<LinuxDeviceCgroup> = serde_json::from_value(json).unwrap();
        DeviceRules::from_spec(&list)
    }

    #[test]
    fn default_container_from_an_unrestricted_parent() {
        let rules = spec(serde_json::json!([{"allow": false, "access": "rwm"}])).unwrap();
        assert!(!rules.allow_by_default);
        let lines = rules.transition(&DeviceRules::parse("a *:* rwm\n"));
        assert_eq!(lines[0], ("devices.deny", "a *:* rwm".to_owned()));
        assert!(lines.contains(&("devices.allow", "c 1:3 rwm".to_owned())));
        assert!(lines.contains(&("devices.allow", "b *:* m".to_owned())));
        assert_eq!(lines.len(), 11);
        let shown: String = lines[1..].iter().map(|(_, line)| format!("{line}\n")).collect();
        assert!(rules.transition(&DeviceRules::parse(&shown)).is_empty());
    }

    #[test]
    fn allow_all_keeps_denials_after_it() {
        let rules = spec(serde_json::json!([
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rw"}
        ]))
        .unwrap();
        assert!(rules.allow_by_default);
        assert_eq!(
            rules.transition(&DeviceRules::parse("a *:* rwm")),
            [("devices.deny", "c 10:229 rw".to_owned())]
        );
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused() {
        let error = spec(serde_json::json!([
            {"allow": true, "type": "c", "major": 10, "access": "rw"},
            {"allow": false, "type": "c", "major": 10, "minor": 3, "access": "r"}
        ]))
        .unwrap_err();
        assert!(error.to_string().contains("c 10:3 r matches a part of the rule for c 10:* rw"));
    }
}
