//! Which extended attributes of an archive a layer carries.

use super::model::Content;
use crate::tar::Xattr;

/// Marks a directory of an overlay's layer as opaque.
pub const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Tells overlay that a directory may hold whiteouts although no layer below has it: without, they show in listings.
/// The empty value stands for "copied from somewhere unknown".
pub const ORIGIN: &[u8] = b"trusted.overlay.origin";

/// Whether an attribute is kept on a file of this kind.
///
/// Overlay's own attributes are not: an archive could redirect a directory to another layer's. Labels of SELinux are the
/// host's matter (layers are mounted with a context). What the kernel refuses on the kind of file (user attributes on
/// links and devices, a default ACL on a file) is dropped, as GNU tar does with a warning.
pub fn is_kept(name: &[u8], content: &Content) -> bool {
    let is_directory = matches!(content, Content::Directory { .. });
    let is_file = matches!(content, Content::File { .. });
    match name {
        b"system.posix_acl_access" => !matches!(content, Content::Symlink(_)),
        b"system.posix_acl_default" => is_directory,
        b"security.capability" => is_file,
        _ if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") => false,
        _ if name.starts_with(b"user.") => is_directory || is_file,
        _ => name.starts_with(b"trusted."),
    }
}

/// Checks what the kernel would: names of 1 to 255 bytes, values and their sum within 64 KiB.
pub fn check(xattrs: &[Xattr]) -> Result<(), &'static str> {
    let total: usize = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len() + 8).sum();
    if total > 65_535 {
        return Err("has extended attributes of more than 64 KiB");
    }
    if xattrs.iter().any(|xattr| xattr.name.len() > 255 || xattr.name.contains(&0)) {
        return Err("has an extended attribute with an impossible name");
    }
    if xattrs.iter().any(|xattr| xattr.name.ends_with(b".")) {
        return Err("has an extended attribute without a name");
    }
    Ok(())
}
