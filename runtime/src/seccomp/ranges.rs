//! The whole space of system call numbers of one audit architecture, cut into ranges with one answer each.
//!
//! Here runc's stub is merged in: a number beyond the newest that the profile names is answered by ENOSYS, so that libc
//! falls back to an older call, unless the default action is permissive or answers ENOSYS itself.

use std::collections::BTreeMap;

use super::arch::{Abi, X32_BIT};
use super::rules::{Answer, Answers, RET_ENOSYS, RET_KILL_THREAD};

/// From this number up to the next range's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) abi: Abi,
    pub(super) answer: Answer,
}

/// What answers the numbers that no rule names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    /// The profile's default action.
    pub(super) action: u32,
    /// ENOSYS for what is newer than the profile.
    pub(super) enosys: bool,
}

/// The ranges of one audit architecture, in order, from 0, none equal to its neighbour. x86_64's come with x32's.
pub(super) fn cut(abis: &[(Abi, Answers)], defaults: Defaults) -> Vec<Range> {
    let mut space = Space { starts: BTreeMap::new() };
    let native = abis.iter().find(|entry| entry.0 != Abi::X32);
    let x32 = abis.iter().find(|entry| entry.0 == Abi::X32);
    if let Some((abi, answers)) = native {
        space.fill(*abi, answers, defaults);
    } else {
        space.set(0, Abi::X32, Answer::Always(RET_KILL_THREAD));
    }
    if let Some((abi, answers)) = x32 {
        space.fill_x32(*abi, answers, defaults, native.is_some());
    } else if let Some((abi @ Abi::X86_64, answers)) = native {
        space.refuse_x32(*abi, newest(answers, defaults), defaults);
    }
    space.into_ranges()
}

fn newest(answers: &Answers, defaults: Defaults) -> Option<u32> {
    // runc takes 0 for "none found".
    answers.newest.filter(|newest| defaults.enosys && *newest != 0)
}

struct Space {
    /// Start of a range to its answer; what starts later replaces what is there.
    starts: BTreeMap<u32, (Abi, Answer)>,
}

impl Space {
    fn set(&mut self, start: u32, abi: Abi, answer: Answer) {
        self.starts.insert(start, (abi, answer));
    }

    fn fill(&mut self, abi: Abi, answers: &Answers, defaults: Defaults) {
        self.set(0, abi, Answer::Always(defaults.action));
        let newest = newest(answers, defaults);
        if let Some(next) = newest.and_then(|newest| newest.checked_add(1)) {
            self.set(next, abi, Answer::Always(RET_ENOSYS));
        }
        self.points(abi, answers, newest);
        // s390's setup(2) is where calls with numbers unknown to the kernel end up.
        if newest.is_some() && matches!(abi, Abi::S390 | Abi::S390x) {
            self.set(0, abi, Answer::Always(RET_ENOSYS));
            self.starts.entry(1).or_insert((abi, Answer::Always(defaults.action)));
        }
    }

    /// x32's half: numbers with bit 30, which are two blocks of the space.
    fn fill_x32(&mut self, abi: Abi, answers: &Answers, defaults: Defaults, with_native: bool) {
        let newest = newest(answers, defaults);
        let beyond = Answer::Always(if newest.is_some() { RET_ENOSYS } else { defaults.action });
        // Above: bit 31 and not bit 30, of the native ABI again.
        let native = self.answer_of_last();
        self.set(X32_BIT, abi, Answer::Always(defaults.action));
        if let Some(next) = newest.map(|newest| newest + 1) {
            self.set(next, abi, beyond.clone());
        }
        self.points(abi, answers, newest);
        if with_native {
            self.set(1 << 31, Abi::X86_64, native);
        }
        self.set(0b11 << 30, abi, beyond);
    }

    /// Without x32 in the profile its numbers are a foreign architecture, but for -1, by which a tracer skips a call.
    fn refuse_x32(&mut self, abi: Abi, newest: Option<u32>, defaults: Defaults) {
        self.set(X32_BIT, abi, Answer::Always(RET_KILL_THREAD));
        if newest.is_some() {
            self.set(1 << 31, abi, Answer::Always(RET_ENOSYS));
            self.set(0b11 << 30, abi, Answer::Always(RET_KILL_THREAD));
        }
        self.set(u32::MAX, abi, Answer::Always(defaults.action));
    }

    /// The numbers that have answers of their own, each a range of one.
    fn points(&mut self, abi: Abi, answers: &Answers, newest: Option<u32>) {
        for (number, answer) in &answers.by_number {
            if newest.is_some_and(|newest| *number > newest) {
                continue;
            }
            let after = self.at(*number);
            self.set(*number, abi, answer.clone());
            if let Some(next) = number.checked_add(1) {
                self.starts.entry(next).or_insert(after);
            }
        }
    }

    /// What `number` gets so far, points left aside: numbers are added in rising order, so this is the default around it.
    fn at(&self, number: u32) -> (Abi, Answer) {
        let around = self.starts.range(..=number).next_back();
        around.map_or((Abi::X86_64, Answer::Always(RET_KILL_THREAD)), |(_, answer)| answer.clone())
    }

    fn answer_of_last(&self) -> Answer {
        let last = self.starts.last_key_value();
        last.map_or(Answer::Always(RET_KILL_THREAD), |(_, (_, answer))| answer.clone())
    }

    fn into_ranges(self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::with_capacity(self.starts.len());
        for (start, (abi, answer)) in self.starts {
            let same = ranges.last().is_some_and(|last| same_code(last, abi, &answer));
            if !same {
                ranges.push(Range { start, abi, answer });
            }
        }
        ranges
    }
}

/// Rules compile to the same code only on the same ABI, as x32 compares half words.
fn same_code(range: &Range, abi: Abi, answer: &Answer) -> bool {
    range.answer == *answer && (range.abi == abi || matches!(answer, Answer::Always(_)))
}
