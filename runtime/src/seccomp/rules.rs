//! Turns a profile's rules into what each system call number of one ABI answers, the way runc hands them to libseccomp.
//!
//! - A rule whose action is the default one is dropped, an unknown name is ignored.
//! - A rule that compares an argument more than once is a rule a comparison (OR), as runc does since it has had tests.
//! - The first rule without comparisons decides about its call; only where there is none the others are asked in order.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::Error;
use super::arch::{Abi, Syscall};

/// `SECCOMP_RET_KILL_THREAD`, also the answer to a foreign architecture.
pub(super) const RET_KILL_THREAD: u32 = 0;
/// `SECCOMP_RET_ERRNO` with ENOSYS.
pub(super) const RET_ENOSYS: u32 = 0x0005_0000 | 38;

/// One comparison of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compare {
    pub(super) index: usize,
    pub(super) op: LinuxSeccompOperator,
    /// The value compared with; for a masked comparison it is already masked.
    pub(super) value: u64,
    /// All ones but for a masked comparison.
    pub(super) mask: u64,
}

impl std::hash::Hash for Compare {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.index, self.op as u32, self.value, self.mask).hash(state);
    }
}

/// Comparisons that must all hold, and what is answered then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) compares: Vec<Compare>,
    pub(super) action: u32,
}

/// What a system call number gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    /// This, whatever the arguments.
    Always(u32),
    /// The action of the first rule that matches, else the default.
    Rules(Vec<Rule>),
}

/// The answers of one ABI.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// By number, where they differ from the default.
    pub(super) by_number: BTreeMap<u32, Answer>,
    /// The greatest number that any rule names; numbers beyond it did not exist when the profile was written.
    pub(super) newest: Option<u32>,
}

/// A rule of the profile with its action resolved and its comparisons split, before any ABI is looked at.
pub(super) struct Resolved<'p> {
    calls: Vec<Syscall>,
    unknown: Vec<&'p str>,
    alternatives: Vec<Vec<Compare>>,
    action: u32,
}

/// The `SECCOMP_RET_*` value of an action; without `errno` EPERM, as runc.
pub(super) fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(errno.map(|errno| errno & 0xffff))
}

/// Checks the profile's rules as runc does and resolves them.
pub(super) fn resolve(profile: &LinuxSeccomp) -> Result<Vec<Resolved<'_>>, Error> {
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(Error::NotifyDefault);
    }
    profile.syscalls().iter().flatten().map(resolve_rule).collect()
}

fn resolve_rule(rule: &LinuxSyscall) -> Result<Resolved<'_>, Error> {
    if rule.names().iter().any(String::is_empty) {
        return Err(Error::EmptyName);
    }
    // The runtime writes the listener to the agent's socket after the filter is in force.
    if rule.action() == LinuxSeccompAction::ScmpActNotify && rule.names().iter().any(|name| name == "write") {
        return Err(Error::NotifyWrite);
    }
    let args = rule.args().as_deref().unwrap_or_default();
    if let Some(arg) = args.iter().find(|arg| arg.index() > 5) {
        let syscall = rule.names().first().cloned().unwrap_or_default();
        return Err(Error::ArgumentIndex { syscall, index: arg.index() });
    }
    let compares: Vec<Compare> = args.iter().map(compare).collect();
    let indices: BTreeSet<usize> = compares.iter().map(|compare| compare.index).collect();
    let alternatives = if indices.len() < compares.len() {
        compares.into_iter().map(|compare| vec![compare]).collect()
    } else {
        vec![compares]
    };
    let mut resolved = Resolved {
        calls: Vec::new(),
        unknown: Vec::new(),
        alternatives,
        action: action(rule.action(), rule.errno_ret()),
    };
    for name in rule.names() {
        match Syscall::named(name) {
            Some(call) => resolved.calls.push(call),
            None => resolved.unknown.push(name),
        }
    }
    Ok(resolved)
}

fn compare(arg: &LinuxSeccompArg) -> Compare {
    let (value, mask) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpMaskedEq => (arg.value_two().unwrap_or(0) & arg.value(), arg.value()),
        LinuxSeccompOperator::ScmpCmpNe
        | LinuxSeccompOperator::ScmpCmpLt
        | LinuxSeccompOperator::ScmpCmpLe
        | LinuxSeccompOperator::ScmpCmpEq
        | LinuxSeccompOperator::ScmpCmpGe
        | LinuxSeccompOperator::ScmpCmpGt => (arg.value(), u64::MAX),
    };
    Compare { index: arg.index(), op: arg.op(), value, mask }
}

/// Names in `rules` that no ABI has.
pub(super) fn unknown_names<'p>(rules: &[Resolved<'p>]) -> Vec<&'p str> {
    rules.iter().flat_map(|rule| rule.unknown.iter().copied()).collect()
}

/// What the calls of `abi` get under `rules`.
pub(super) fn answers(rules: &[Resolved<'_>], abi: Abi, default: u32) -> Answers {
    let mut answers = Answers::default();
    for rule in rules {
        for call in &rule.calls {
            let number = abi.number(*call);
            let multiplexed = abi.multiplexed(*call);
            // libseccomp resolves a call that can be multiplexed to a pseudo number, which runc's search for the newest skips.
            if multiplexed.is_none() {
                answers.newest = answers.newest.max(number);
            }
            if rule.action == default {
                continue;
            }
            for compares in &rule.alternatives {
                if let Some((multiplexer, index)) = multiplexed {
                    answers.add(multiplexer, with_index(compares, index), rule.action);
                }
                if let Some(number) = number {
                    answers.add(number, compares.clone(), rule.action);
                }
            }
        }
    }
    answers
}

impl Answers {
    fn add(&mut self, number: u32, compares: Vec<Compare>, action: u32) {
        let answer = self.by_number.entry(number).or_insert_with(|| Answer::Rules(Vec::new()));
        match answer {
            Answer::Always(_) => {}
            Answer::Rules(_) if compares.is_empty() => *answer = Answer::Always(action),
            Answer::Rules(rules) => {
                // Of equal comparisons the later is never reached.
                if !rules.iter().any(|rule| rule.compares == compares) {
                    rules.push(Rule { compares, action });
                }
            }
        }
    }
}

/// The comparisons of a multiplexed call: the index takes the first argument's place, the others stay as libseccomp leaves them.
fn with_index(compares: &[Compare], index: u32) -> Vec<Compare> {
    let first =
        Compare { index: 0, op: LinuxSeccompOperator::ScmpCmpEq, value: u64::from(index), mask: u64::MAX };
    let others = compares.iter().filter(|compare| compare.index != 0).copied();
    std::iter::once(first).chain(others).collect()
}
