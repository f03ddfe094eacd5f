//! Assembles a filter from its end to its start, so that every jump's target is already there when the jump is written.
//!
//! Positions count from the end of the program. A conditional jump reaches 255 instructions; where a target is farther
//! away a `ret` is repeated or a `ja` is put in between. The part that looks at the architecture and the number uses only
//! `ld` of these two, `jeq`, `jge` and `ja`: what the kernel can emulate when it builds its bitmap of calls that are always
//! allowed (`seccomp_is_const_allow`), for which the filter is not run at all.

use std::collections::HashMap;

use oci_spec::runtime::LinuxSeccompOperator as Op;

use super::SockFilter;
use super::arch::Abi;
use super::ranges::Range;
use super::rules::{Answer, Compare, RET_KILL_THREAD, Rule};

const LD_ABS: u16 = 0x20;
const ALU_AND: u16 = 0x54;
const RET: u16 = 0x06;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;

/// Offsets in `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

/// How far a target may be when two instructions may still be put in between.
const REACH: usize = 250;

/// An instruction, counted from the end of the program.
type Position = usize;

/// The program for these audit architectures, the native one first; all others are killed.
pub(super) fn program(archs: &[(u32, Vec<Range>)], default: u32) -> Vec<SockFilter> {
    let mut assembler =
        Assembler { reversed: Vec::new(), default, rets: HashMap::new(), leaves: HashMap::new() };
    let mut entries = Vec::with_capacity(archs.len());
    for (audit, ranges) in archs.iter().rev() {
        assembler.leaves.clear();
        let tree = assembler.tree(ranges);
        let _ = tree;
        assembler.push(LD_ABS, OFFSET_NR);
        entries.push((*audit, assembler.last()));
    }
    let mut otherwise = assembler.ret(RET_KILL_THREAD);
    for (audit, entry) in entries {
        otherwise = assembler.branch(JEQ, audit, entry, otherwise);
    }
    assembler.push(LD_ABS, OFFSET_ARCH);
    assembler.reversed.reverse();
    assembler.reversed
}

struct Assembler<'p> {
    reversed: Vec<SockFilter>,
    default: u32,
    /// The `ret` written last for a value.
    rets: HashMap<u32, Position>,
    /// Code of calls with comparisons, shared by all numbers with the same ones.
    leaves: HashMap<(&'p Answer, Abi), Position>,
}

impl<'p> Assembler<'p> {
    fn last(&self) -> Position {
        self.reversed.len() - 1
    }

    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(SockFilter { code, jt: 0, jf: 0, k });
    }

    fn reaches(&self, target: Position) -> bool {
        self.reversed.len() - target <= REACH
    }

    /// A `ret value` within reach.
    fn ret(&mut self, value: u32) -> Position {
        if let Some(&there) = self.rets.get(&value).filter(|there| self.reaches(**there)) {
            return there;
        }
        self.push(RET, value);
        self.rets.insert(value, self.last());
        self.last()
    }

    /// A position within reach that leads to `target`.
    fn near(&mut self, target: Position) -> Position {
        if self.reaches(target) {
            return target;
        }
        let far = self.reversed[target];
        if far.code == RET {
            return self.ret(far.k);
        }
        let skip = self.reversed.len() - target - 1;
        self.push(JA, u32::try_from(skip).unwrap_or(u32::MAX));
        self.last()
    }

    /// `if A <op> k goto yes else goto no`.
    fn branch(&mut self, op: u16, k: u32, yes: Position, no: Position) -> Position {
        let no = self.near(no);
        let yes = self.near(yes);
        if yes == no {
            return yes;
        }
        let skip = |target| u8::try_from(self.reversed.len() - target - 1).unwrap_or(u8::MAX);
        let jump = SockFilter { code: op, jt: skip(yes), jf: skip(no), k };
        self.reversed.push(jump);
        self.last()
    }

    /// The search tree over `ranges`, entered at the position returned, which is the last written: the load of the number
    /// can stand right before it.
    fn tree(&mut self, ranges: &'p [Range]) -> Position {
        for range in ranges {
            self.leaf(range);
        }
        let root = self.subtree(ranges);
        // What falls in from the load must be the root; a tree of one range may be somewhere else.
        if root != self.last() {
            let skip = self.reversed.len() - root - 1;
            self.push(JA, u32::try_from(skip).unwrap_or(u32::MAX));
        }
        self.last()
    }

    fn subtree(&mut self, ranges: &'p [Range]) -> Position {
        match ranges {
            [] => self.ret(RET_KILL_THREAD),
            [only] => self.leaf(only),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let high_entry = self.subtree(high);
                let low_entry = self.subtree(low);
                self.branch(JGE, high[0].start, high_entry, low_entry)
            }
        }
    }

    /// The code of a range: a `ret`, or the comparisons of its call.
    fn leaf(&mut self, range: &'p Range) -> Position {
        let rules = match &range.answer {
            Answer::Always(action) => return self.ret(*action),
            Answer::Rules(rules) => rules,
        };
        let key = (&range.answer, range.abi);
        if let Some(&there) = self.leaves.get(&key) {
            return there;
        }
        let mut otherwise = self.ret(self.default);
        for rule in rules.iter().rev() {
            otherwise = self.rule(rule, range.abi, otherwise);
        }
        self.leaves.insert(key, otherwise);
        otherwise
    }

    fn rule(&mut self, rule: &Rule, abi: Abi, otherwise: Position) -> Position {
        let mut entry = self.ret(rule.action);
        for compare in rule.compares.iter().rev() {
            entry = self.compare(compare, abi, entry, otherwise);
        }
        entry
    }

    fn compare(&mut self, compare: &Compare, abi: Abi, yes: Position, no: Position) -> Position {
        match compare.op {
            Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => self.equal(compare, abi, yes, no),
            Op::ScmpCmpNe => self.equal(compare, abi, no, yes),
            Op::ScmpCmpGe => self.greater(JGE, compare, abi, yes, no),
            Op::ScmpCmpGt => self.greater(JGT, compare, abi, yes, no),
            Op::ScmpCmpLt => self.greater(JGE, compare, abi, no, yes),
            Op::ScmpCmpLe => self.greater(JGT, compare, abi, no, yes),
        }
    }

    fn equal(&mut self, compare: &Compare, abi: Abi, yes: Position, no: Position) -> Position {
        let low = self.masked_equal(abi, compare, Half::Low, yes, no);
        if abi.is_32bit() {
            return low;
        }
        self.masked_equal(abi, compare, Half::High, low, no)
    }

    fn masked_equal(
        &mut self,
        abi: Abi,
        compare: &Compare,
        half: Half,
        yes: Position,
        no: Position,
    ) -> Position {
        let (value, mask) = (half.of(compare.value), half.of(compare.mask));
        if mask == 0 {
            return yes;
        }
        let test = self.branch(JEQ, value, yes, no);
        if yes == no {
            return yes;
        }
        debug_assert_eq!(test, self.last());
        if mask != u32::MAX {
            self.push(ALU_AND, mask);
        }
        self.push(LD_ABS, half.offset(abi, compare.index));
        self.last()
    }

    /// `jge` or `jgt` of the lower halves where the upper ones are equal.
    fn greater(&mut self, op: u16, compare: &Compare, abi: Abi, yes: Position, no: Position) -> Position {
        if yes == no {
            return yes;
        }
        self.branch(op, Half::Low.of(compare.value), yes, no);
        self.push(LD_ABS, Half::Low.offset(abi, compare.index));
        let low = self.last();
        if abi.is_32bit() {
            return low;
        }
        let value = Half::High.of(compare.value);
        let not_above = self.branch(JEQ, value, low, no);
        self.branch(JGT, value, yes, not_above);
        self.push(LD_ABS, Half::High.offset(abi, compare.index));
        self.last()
    }
}

/// Half of an argument.
#[derive(Clone, Copy)]
enum Half {
    Low,
    High,
}

impl Half {
    fn of(self, value: u64) -> u32 {
        let shifted = match self {
            Self::Low => value & 0xffff_ffff,
            Self::High => value >> 32,
        };
        u32::try_from(shifted).unwrap_or_default()
    }

    fn offset(self, abi: Abi, index: usize) -> u32 {
        let second = matches!((self, abi.is_big_endian()), (Self::High, false) | (Self::Low, true));
        OFFSET_ARGS + 8 * u32::try_from(index).unwrap_or_default() + if second { 4 } else { 0 }
    }
}
