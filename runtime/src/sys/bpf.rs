//! bpf(2), as far as device filters of cgroups need it: load, attach with replacement, query, detach.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::cgroup::Instruction;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// The kernel's limit of programs attached to one group.
const ATTACHED_LIMIT: usize = 64;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a prefix of union bpf_attr of exactly the size given (the kernel takes the rest as zero), alive
    // and exclusively ours during the call; pointers inside were made from slices that the callers keep alive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    super::check(result)
}

fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel returned this descriptor to us just now, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a device program (Linux 4.15, CAP_BPF or CAP_SYS_ADMIN).
///
/// # Errors
/// The kernel's; EPERM in a user namespace.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache";
    let mut attr = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        expected_attach_type: ATTACH_CGROUP_DEVICE,
        ..LoadAttr::default()
    };
    owned(bpf(PROG_LOAD, &mut attr)?)
}

/// The device programs attached to the group itself.
///
/// # Errors
/// The kernel's.
pub fn attached_device_programs(group: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; ATTACHED_LIMIT];
    let mut attr = QueryAttr {
        target_fd: number(group),
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: u32::try_from(ids.len()).unwrap_or(0),
        ..QueryAttr::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    let mut programs = Vec::new();
    for id in ids.iter().take(usize::try_from(attr.prog_cnt).unwrap_or(0)) {
        match bpf(PROG_GET_FD_BY_ID, &mut [*id, 0, 0]) {
            Ok(fd) => programs.push(owned(fd)?),
            // Detached in the meantime.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

/// Attaches a program; `replaced` goes in the same step (Linux 5.5).
///
/// # Errors
/// The kernel's.
pub fn attach_device_program(
    group: impl AsFd,
    program: impl AsFd,
    replaced: Option<&OwnedFd>,
) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: number(group),
        attach_bpf_fd: number(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replace_bpf_fd: replaced.map_or(0, number),
    };
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches a program.
///
/// # Errors
/// The kernel's.
pub fn detach_device_program(group: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: number(group),
        attach_bpf_fd: number(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        ..AttachAttr::default()
    };
    bpf(PROG_DETACH, &mut attr).map(drop)
}
