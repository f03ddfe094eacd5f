//! Users and groups of a container, from the request and the image's `/etc/passwd` and `/etc/group`.

use k8s_cri::v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};

use super::Invalid;

/// Who the container's process is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

/// The two files of the image, read with a bound by the caller; empty where the image has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passwd<'a> {
    pub passwd: &'a str,
    pub group: &'a str,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// Resolves `run_as_user`, `run_as_username` or the image's `User` (`name`, `uid`, each with `:group`).
pub fn resolve(
    security: &LinuxContainerSecurityContext,
    image_user: &str,
    files: Passwd<'_>,
) -> Result<User, Invalid> {
    let asked = match (&security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => id(uid.value)?.to_string(),
        (None, "") => image_user.to_owned(),
        (None, name) => name.to_owned(),
    };
    let (user, group) = asked.split_once(':').map_or((asked.as_str(), None), |(u, g)| (u, Some(g)));
    let entry = find_user(user, files.passwd)?;
    let (uid, mut gid, name) = entry;
    if let Some(group) = group {
        gid = find_group(group, files.group)?;
    }
    if let Some(asked) = &security.run_as_group {
        if security.run_as_user.is_none() && security.run_as_username.is_empty() {
            return Err(Invalid::Field {
                field: "run_as_group",
                why: "needs run_as_user or run_as_username".into(),
            });
        }
        gid = id(asked.value)?;
    }
    let mut additional_gids = vec![gid];
    if let Some(name) =
        name.filter(|_| security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge)
    {
        additional_gids.extend(groups_of(&name, files.group));
    }
    for &extra in &security.supplemental_groups {
        additional_gids.push(id(extra)?);
    }
    additional_gids.sort_unstable();
    additional_gids.dedup();
    Ok(User { uid, gid, additional_gids })
}

/// `uid`, primary `gid`, and the name where the image knows one. An unknown number is that uid with group 0.
fn find_user(user: &str, passwd: &str) -> Result<(u32, u32, Option<String>), Invalid> {
    if user.is_empty() {
        let root = entries(passwd).find(|e| e.uid == 0);
        return Ok((0, root.as_ref().map_or(0, |e| e.gid), root.map(|e| e.name.to_owned())));
    }
    let number = parse_id(user)?;
    let found = entries(passwd).find(|e| e.name == user || (number.is_some() && number == Some(e.uid)));
    match (found, number) {
        (Some(e), _) => Ok((e.uid, e.gid, Some(e.name.to_owned()))),
        (None, Some(uid)) => Ok((uid, 0, None)),
        (None, None) => Err(Invalid::NoUser { name: user.into(), file: "/etc/passwd" }),
    }
}

fn find_group(group: &str, file: &str) -> Result<u32, Invalid> {
    if let Some(gid) = parse_id(group)? {
        return Ok(gid);
    }
    let found = file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then(|| fields.nth(1)?.parse().ok())?
    });
    found.ok_or_else(|| Invalid::NoUser { name: group.into(), file: "/etc/group" })
}

fn groups_of(name: &str, file: &str) -> Vec<u32> {
    file.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let gid = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(gid)
        })
        .collect()
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Entry { name, uid, gid })
    })
}

/// `Some` for a number, `None` for a name; a number out of range is an error and never wraps to root (CVE-2024-40635).
fn parse_id(text: &str) -> Result<Option<u32>, Invalid> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(value) if value <= i32::MAX as u32 => Ok(Some(value)),
        _ => Err(Invalid::Field { field: "user", why: format!("{text} is beyond {}", i32::MAX) }),
    }
}

fn id(value: i64) -> Result<u32, Invalid> {
    match u32::try_from(value) {
        Ok(value) if value <= i32::MAX as u32 => Ok(value),
        _ => Err(Invalid::Field { field: "user", why: format!("{value} is not within 0 to {}", i32::MAX) }),
    }
}
