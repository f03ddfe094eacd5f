//! Compiles OCI seccomp profiles to classic BPF, pure and without libseccomp.
//!
//! ```text
//! LinuxSeccomp -> rules (checked, per ABI: number -> answer) -> ranges (whole number space, ENOSYS stub, x32)
//!              -> assemble (search tree, comparisons) -> Filter -> load
//! ```
//! The meaning is runc's: what its filter, made by libseccomp and its ENOSYS stub, answers to a call, ours answers too; the
//! tests compare both on numbers, architectures and arguments. The form is ours: a tree of ranges instead of a chain.

mod arch;
mod assemble;
mod cache;
mod error;
mod filter;
#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod oracle_runc;
#[cfg(test)]
mod oracle_tests;
mod ranges;
mod rules;
mod syscalls;
#[cfg(test)]
mod tests;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

use arch::Abi;
pub use cache::compile_cached;
pub use error::Error;
pub use filter::{Filter, SockFilter};
use ranges::Defaults;

/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_FILTER_FLAG_LOG`.
const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, Linux 5.19.
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// What the compiler must know of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Machine as uname(2) or Rust names it: `x86_64`, `aarch64`, `s390x`, `ppc64le`, `riscv64`, ...
    pub machine: String,
    /// Kernel release, part of the cache's key.
    pub kernel: String,
}

impl Host {
    /// The machine that this program runs on.
    #[must_use]
    pub fn current() -> Self {
        let machine = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            machine => machine,
        };
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Self { machine: machine.to_owned(), kernel }
    }
}

/// Compiles `profile` for `host`.
///
/// # Errors
/// What runc refuses is refused: see [`Error`].
pub fn compile(profile: &LinuxSeccomp, host: &Host) -> Result<Filter, Error> {
    let native = Abi::of_machine(&host.machine).ok_or_else(|| Error::HostArch(host.machine.clone()))?;
    let rules = rules::resolve(profile)?;
    let (flags, notify) = flags(profile)?;
    let (abis, mut warnings) = architectures(profile, native);
    warnings.extend(
        rules::unknown_names(&rules).iter().map(|name| format!("unknown seccomp syscall {name:?} ignored")),
    );

    let default = rules::action(profile.default_action(), profile.default_errno_ret());
    let defaults = Defaults { action: default, enosys: wants_enosys(profile) };
    let program = assemble::program(&number_spaces(&rules, &abis, defaults), default);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong(program.len()));
    }
    Ok(Filter {
        program,
        flags,
        notify,
        listener_path: profile.listener_path().clone(),
        listener_metadata: profile.listener_metadata().clone(),
        warnings,
    })
}

/// The ABIs of the filter, the native one first and always, as libseccomp has it.
fn architectures(profile: &LinuxSeccomp, native: Abi) -> (Vec<Abi>, Vec<String>) {
    let mut abis = vec![native];
    let mut warnings = Vec::new();
    for arch in profile.architectures().iter().flatten() {
        match Abi::of_profile(*arch, native) {
            Some(abi) if !abis.contains(&abi) => abis.push(abi),
            Some(_) => {}
            // A foreign call is killed with or without rules for it, and this kernel can't make one.
            None => {
                warnings.push(format!("seccomp architecture {arch} ignored: this host never presents it"))
            }
        }
    }
    (abis, warnings)
}

/// runc's rule: no stub where the default lets new calls through (or to a tracer) or answers ENOSYS anyway.
fn wants_enosys(profile: &LinuxSeccomp) -> bool {
    let permissive = matches!(
        profile.default_action(),
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
    );
    !permissive && profile.default_errno_ret() != Some(rules::RET_ENOSYS & 0xffff)
}

/// The ranges of each audit architecture, in the order of `abis`.
fn number_spaces(
    rules: &[rules::Resolved<'_>],
    abis: &[Abi],
    defaults: Defaults,
) -> Vec<(u32, Vec<ranges::Range>)> {
    let mut audits: Vec<u32> = Vec::new();
    for abi in abis {
        if !audits.contains(&abi.audit()) {
            audits.push(abi.audit());
        }
    }
    let space = |audit: u32| {
        let members = abis.iter().filter(|abi| abi.audit() == audit);
        let answers: Vec<_> =
            members.map(|abi| (*abi, rules::answers(rules, *abi, defaults.action))).collect();
        (audit, ranges::cut(&answers, defaults))
    };
    audits.into_iter().map(space).collect()
}

/// The flags for seccomp(2), and whether the filter has a listener.
///
/// TSYNC is accepted and has nothing to do: the process that loads the filter has one thread, and together with
/// NEW_LISTENER the kernel refuses it. Without any `flags` in the profile SPEC_ALLOW is the default, an empty list has none.
fn flags(profile: &LinuxSeccomp) -> Result<(u32, bool), Error> {
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
    };
    let mut flags = match profile.flags() {
        None => FLAG_SPEC_ALLOW,
        Some(list) => list.iter().map(bit).fold(0, |flags, bit| flags | bit),
    };
    let notify =
        profile.syscalls().iter().flatten().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    if notify {
        flags |= FLAG_NEW_LISTENER;
    } else if flags & FLAG_WAIT_KILLABLE_RECV != 0 {
        return Err(Error::WaitKillableWithoutListener);
    }
    Ok((flags, notify))
}
