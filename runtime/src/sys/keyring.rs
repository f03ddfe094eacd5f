//! A session keyring of its own for a container. keyctl(2), Linux 2.6.10.

use std::ffi::CStr;
use std::io;

use super::check;

const KEYCTL_SETPERM: libc::c_int = 5;
const KEYCTL_DESCRIBE: libc::c_int = 6;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Joins the session keyring `name`, making it, and gives the user's processes the search right, as runc does.
///
/// # Errors
/// ENOSYS without keyrings, EDQUOT when the user has too many.
pub fn join_session(name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    let key = check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    let Some(permissions) = describe(key)? else { return Ok(()) };
    // 0x080000 is KEY_USR_SEARCH.
    // SAFETY: values only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, permissions | 0x0008_0000) })
        .map(drop)
}

/// The permission bits of `key`: `type;uid;gid;perm;description`.
fn describe(key: libc::c_long) -> io::Result<Option<u32>> {
    let mut text = [0_u8; 1024];
    // SAFETY: the kernel writes at most `text.len()` bytes to `text`.
    let length = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key, text.as_mut_ptr(), text.len())
    })?;
    let length = usize::try_from(length).unwrap_or(0).min(text.len());
    let text = String::from_utf8_lossy(&text[..length]);
    Ok(text.split(';').nth(3).and_then(|field| u32::from_str_radix(field, 16).ok()))
}
