//! Device rules as systemd keeps them: `DevicePolicy` and `DeviceAllow`.
//!
//! Our own program is attached as well, and a device must pass both: systemd's list may be wider than the rules, never
//! narrower. It is given so that `systemctl show` tells the truth and on version 1 a reload does not open what we closed.

use super::devices::{Access, DeviceKind, DeviceRules, Number};
use super::scope::Value;

/// The properties of a scope with these rules.
pub fn properties(rules: &DeviceRules) -> Vec<(String, Value)> {
    let policy = if rules.allow_by_default { "auto" } else { "strict" };
    let mut allowed: Vec<(String, String)> = Vec::new();
    if !rules.allow_by_default {
        allowed.extend(
            rules
                .exceptions
                .iter()
                .map(|((kind, major, minor), access)| (specifier(*kind, *major, *minor), letters(*access))),
        );
    }
    vec![
        ("DevicePolicy".to_owned(), Value::Text(policy.to_owned())),
        ("DeviceAllow".to_owned(), Value::Pairs(allowed)),
    ]
}

/// A node by number (systemd 240 takes it without looking), a whole major by number, or all of a kind; a minor of every
/// major can't be said and becomes the latter.
fn specifier(kind: DeviceKind, major: Number, minor: Number) -> String {
    let kind = match kind {
        DeviceKind::Block => "block",
        DeviceKind::Char => "char",
    };
    match (major, minor) {
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => format!("{kind}-{major}"),
        (None, _) => format!("{kind}-*"),
    }
}

fn letters(access: Access) -> String {
    [(2, 'r'), (4, 'w'), (1, 'm')]
        .iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, letter)| *letter)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_container_has_is_in_systemds_words() {
        let rules = DeviceRules::from_spec(&[]).unwrap();
        let properties = properties(&rules);
        assert_eq!(properties[0].1, Value::Text("strict".to_owned()));
        let Value::Pairs(allowed) = &properties[1].1 else { panic!("{properties:?}") };
        for (specifier, access) in
            [("/dev/char/1:3", "rwm"), ("char-136", "rwm"), ("block-*", "m"), ("char-*", "m")]
        {
            assert!(allowed.contains(&(specifier.to_owned(), access.to_owned())), "{specifier}: {allowed:?}");
        }
    }
}
