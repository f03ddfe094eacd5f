//! Paths as archives write them, made into lists of names.

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `..` leads above the root.
    #[error("leads out of the layer")]
    Escapes,
    /// A name that no file system takes.
    #[error("has a name of more than 255 bytes")]
    NameTooLong,
    /// More than the kernel's PATH_MAX.
    #[error("has more than 4095 bytes")]
    TooLong,
    /// A NUL byte (PAX values can hold one).
    #[error("holds a NUL byte")]
    Nul,
}

/// The longest path that the kernel takes, without its NUL.
pub const PATH_MAX: usize = 4095;

const NAME_MAX: usize = 255;

/// Splits an archive's path into its names: relative to the root of the layer whether it begins with a slash or not,
/// `.` and empty names dropped, `..` resolved in the text as all other engines do; an empty list is the root.
pub fn names(path: &[u8]) -> Result<Vec<&[u8]>, PathError> {
    if path.len() > PATH_MAX {
        return Err(PathError::TooLong);
    }
    let mut names = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop().ok_or(PathError::Escapes)?;
            }
            _ if name.contains(&0) => return Err(PathError::Nul),
            _ => names.push(name),
        }
    }
    // The name that a whiteout hides may be as long as any: its own file is never made.
    let is_too_long = |(nth, name): (usize, &&[u8])| {
        let hidden = name.strip_prefix(b".wh.").filter(|_| nth + 1 == names.len());
        hidden.unwrap_or(name).len() > NAME_MAX
    };
    if names.iter().enumerate().any(is_too_long) { Err(PathError::NameTooLong) } else { Ok(names) }
}

/// What the last name of an archive's path says to an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// A file of the layer.
    File(&'a [u8]),
    /// `.wh.<name>`: the name is gone from the layers below.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: nothing of the directory shows through from below.
    Opaque,
    /// `.wh..wh.<anything>`: aufs's own records, of no meaning here.
    Ignored,
}

/// Reads the meaning of a last name; `None` for a whiteout of `.`, `..` or nothing.
pub fn meaning(name: &[u8]) -> Option<Meaning<'_>> {
    if name == b".wh..wh..opq" {
        return Some(Meaning::Opaque);
    }
    if name.starts_with(b".wh..wh.") {
        return Some(Meaning::Ignored);
    }
    match name.strip_prefix(b".wh.") {
        Some(b"" | b"." | b"..") => None,
        Some(hidden) => Some(Meaning::Whiteout(hidden)),
        None => Some(Meaning::File(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_names() {
        let long = [b'x'; 256];
        for (path, expected) in [
            (&b"./a//b/./c/"[..], Ok(vec![&b"a"[..], b"b", b"c"])),
            (b"/a/../b", Ok(vec![&b"b"[..]])),
            (b"", Ok(vec![])),
            (b"./", Ok(vec![])),
            (b"../a", Err(PathError::Escapes)),
            (b"a/../../b", Err(PathError::Escapes)),
            (b"a\0b", Err(PathError::Nul)),
            (&long[..], Err(PathError::NameTooLong)),
            (&long[..255], Ok(vec![&long[..255]])),
        ] {
            assert_eq!(names(path), expected, "{}", String::from_utf8_lossy(path));
        }
        let whiteout = [b".wh.", &long[..255]].concat();
        assert_eq!(names(&whiteout), Ok(vec![&whiteout[..]]));
        assert_eq!(names(&[&whiteout[..], b"/a"].concat()), Err(PathError::NameTooLong));
        assert_eq!(names(&b"a/".repeat(3000)), Err(PathError::TooLong));
    }

    #[test]
    fn whiteouts() {
        assert_eq!(meaning(b"a"), Some(Meaning::File(b"a")));
        assert_eq!(meaning(b".wh.a"), Some(Meaning::Whiteout(b"a")));
        assert_eq!(meaning(b".wh..wh..opq"), Some(Meaning::Opaque));
        assert_eq!(meaning(b".wh..wh.plnk"), Some(Meaning::Ignored));
        for breakout in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(meaning(breakout), None);
        }
    }
}
