//! Who `user[:group]` is, by the passwd and group files of the image: hostile files, read by handle within the image's
//! root and bounded.

use std::io::Read as _;
use std::path::Path;

use pathrs::Root;
use pathrs::flags::OpenFlags;

use super::Error;

const FILE_LIMIT: u64 = 1 << 20;

/// A user of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// The other groups that list it.
    pub additional_gids: Vec<u32>,
    /// Its home directory, `/` where nothing says another.
    pub home: String,
}

/// Looks `user`, `uid`, `user:group` or any mix of names and numbers up in the tree at `rootfs`; the empty text is root.
pub fn look_up(rootfs: &Path, wanted: &str) -> Result<User, Error> {
    let root = Root::open(rootfs)
        .map_err(|error| Error::User { name: wanted.to_owned(), what: error.to_string() })?;
    resolve(wanted, &read(&root, "etc/passwd"), &read(&root, "etc/group"))
}

// A file that is missing, not a file or not readable is an empty one: numbers need none.
fn read(root: &Root, name: &str) -> String {
    let flags = OpenFlags::O_RDONLY | OpenFlags::O_NONBLOCK;
    let Ok(file) = root.open_subpath(name, flags) else { return String::new() };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return String::new();
    }
    let mut content = Vec::new();
    let _ = file.take(FILE_LIMIT).read_to_end(&mut content);
    String::from_utf8_lossy(&content).into_owned()
}

fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<User, Error> {
    let unknown = |what: &str| Error::User { name: wanted.to_owned(), what: what.to_owned() };
    let (user, own_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd.lines().map(fields).find(|entry| {
        entry.first() == Some(&user)
            || (number.is_some() && entry.get(2).and_then(|uid| uid.parse().ok()) == number)
    });
    let field = |at: usize| entry.as_ref().and_then(|entry| entry.get(at)).copied();
    let uid = field(2).and_then(|uid| uid.parse().ok()).or(number);
    let uid = uid.ok_or_else(|| unknown("not in the image's /etc/passwd"))?;
    let gid = match own_group {
        None => field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0),
        Some(name) => {
            gid_of(name, group).ok_or_else(|| unknown("the group is not in the image's /etc/group"))?
        }
    };
    // Docker: a group that is named replaces all others.
    let additional_gids = match (own_group, field(0)) {
        (None, Some(name)) => groups_of(name, gid, group),
        _ => Vec::new(),
    };
    let home = field(5).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
    Ok(User { uid, gid, additional_gids, home })
}

fn fields(line: &str) -> Vec<&str> {
    line.trim_end().split(':').collect()
}

fn gid_of(name: &str, group: &str) -> Option<u32> {
    let named = group.lines().map(fields).find(|entry| entry.first() == Some(&name));
    named.and_then(|entry| entry.get(2)?.parse().ok()).or_else(|| name.parse().ok())
}

fn groups_of(user: &str, primary: u32, group: &str) -> Vec<u32> {
    let lists = |entry: &Vec<&str>| entry.get(3).is_some_and(|members| members.split(',').any(|m| m == user));
    let mut gids: Vec<u32> =
        group.lines().map(fields).filter(lists).filter_map(|entry| entry.get(2)?.parse().ok()).collect();
    gids.retain(|gid| *gid != primary);
    gids.sort_unstable();
    gids.dedup();
    gids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/var/www:/bin/false\nbroken\n";
        let group = "root:x:0:\nweb:x:34:\nlogs:x:40:www,other\nadm:x:4:www\n";
        let of =
            |wanted: &str| resolve(wanted, passwd, group).map(|u| (u.uid, u.gid, u.additional_gids, u.home));
        assert_eq!(of("").unwrap(), (0, 0, vec![], "/root".into()));
        assert_eq!(of("www").unwrap(), (33, 34, vec![4, 40], "/var/www".into()));
        assert_eq!(of("33").unwrap(), (33, 34, vec![4, 40], "/var/www".into()));
        assert_eq!(of("www:logs").unwrap(), (33, 40, vec![], "/var/www".into()));
        assert_eq!(of("1000").unwrap(), (1000, 0, vec![], "/".into()));
        assert_eq!(of("1000:1000").unwrap(), (1000, 1000, vec![], "/".into()));
        assert!(of("nobody").is_err() && of("www:none").is_err() && of("4294967296").is_err());
    }
}
