//! The device filter of version 2: device rules as a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! The kernel calls it with `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`, where the low 16 bits
//! of `access_type` are the kind and the high ones the access wanted; it returns 1 to allow. One block an exception:
//! whatever differs jumps to the next block, the last block is the default.

use super::devices::{Access, DeviceKind, DeviceRules, Number};

/// One eBPF instruction as the kernel reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    /// Destination in the low, source in the high four bits (little endian; the reverse on big endian machines).
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LDX_MEM_W: u8 = 0x61;
const MOV32_IMM: u8 = 0xb4;
const MOV32_REG: u8 = 0xbc;
const AND32_IMM: u8 = 0x54;
const RSH32_IMM: u8 = 0x74;
const JNE_IMM: u8 = 0x55;
const JNE_REG: u8 = 0x5d;
const JEQ_IMM: u8 = 0x15;
const EXIT: u8 = 0x95;

/// The return value, the context (then scratch), kind, access, major, minor.
const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    let registers = if cfg!(target_endian = "little") { to | from << 4 } else { to << 4 | from };
    Instruction { code, registers, offset, immediate }
}

/// The program for `rules`.
#[must_use]
pub fn assemble(rules: &DeviceRules) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LDX_MEM_W, KIND, R1, 0, 0),
        instruction(MOV32_REG, ACCESS, KIND, 0, 0),
        instruction(AND32_IMM, KIND, 0, 0, 0xffff),
        instruction(RSH32_IMM, ACCESS, 0, 0, 16),
        instruction(LDX_MEM_W, MAJOR, R1, 4, 0),
        instruction(LDX_MEM_W, MINOR, R1, 8, 0),
    ];
    for (&(kind, major, minor), &access) in &rules.exceptions {
        program.extend(block(kind, major, minor, access, !rules.allow_by_default));
    }
    program.extend(answer(rules.allow_by_default));
    program
}

fn answer(allow: bool) -> [Instruction; 2] {
    [instruction(MOV32_IMM, R0, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

fn block(kind: DeviceKind, major: Number, minor: Number, access: Access, allow: bool) -> Vec<Instruction> {
    let kind = match kind {
        DeviceKind::Block => 1,
        DeviceKind::Char => 2,
    };
    let mut tests = vec![instruction(JNE_IMM, KIND, 0, 0, kind)];
    if access != 7 || !allow {
        tests.push(instruction(MOV32_REG, R1, ACCESS, 0, 0));
        tests.push(instruction(AND32_IMM, R1, 0, 0, access.into()));
        // Allowed is what asks for nothing beyond the rule; denied is what asks for anything of the rule.
        tests.push(if allow {
            instruction(JNE_REG, R1, ACCESS, 0, 0)
        } else {
            instruction(JEQ_IMM, R1, 0, 0, 0)
        });
    }
    for (register, number) in [(MAJOR, major), (MINOR, minor)] {
        tests.extend(number.map(|n| instruction(JNE_IMM, register, 0, 0, n.cast_signed())));
    }
    let end = tests.len() + 2;
    for (at, test) in tests.iter_mut().enumerate() {
        if matches!(test.code, JNE_IMM | JNE_REG | JEQ_IMM) {
            test.offset = i16::try_from(end - at - 1).unwrap_or(i16::MAX);
        }
    }
    tests.extend(answer(allow));
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, for the instructions that we use.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut r = [0_u32; 6];
        let mut at = 0;
        loop {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let immediate = i.immediate.cast_unsigned();
            at += 1;
            let jump = match i.code {
                LDX_MEM_W => {
                    r[to] = context[usize::try_from(i.offset).unwrap() / 4];
                    false
                }
                MOV32_IMM => {
                    r[to] = immediate;
                    false
                }
                MOV32_REG => {
                    r[to] = r[from];
                    false
                }
                AND32_IMM => {
                    r[to] &= immediate;
                    false
                }
                RSH32_IMM => {
                    r[to] >>= immediate;
                    false
                }
                JNE_IMM => r[to] != immediate,
                JEQ_IMM => r[to] == immediate,
                JNE_REG => r[to] != r[from],
                EXIT => return r[0] == 1,
                code => panic!("code {code:#x}"),
            };
            if jump {
                at += usize::try_from(i.offset).unwrap();
            }
        }
    }

    #[test]
    fn allow_list() {
        let rules = DeviceRules::from_spec(&[]).unwrap();
        let program = assemble(&rules);
        for (kind, access, major, minor, want) in [
            (2, 6, 1, 3, true),
            (2, 6, 1, 1, false),
            (2, 1, 1, 1, true),
            (1, 1, 8, 0, true),
            (1, 2, 8, 0, false),
            (1, 3, 8, 0, false),
            (2, 6, 136, 77, true),
        ] {
            assert_eq!(run(&program, kind, access, major, minor), want, "{kind} {access} {major}:{minor}");
        }
    }

    #[test]
    fn deny_list() {
        let mut rules = DeviceRules { allow_by_default: true, ..DeviceRules::default() };
        rules.exceptions.insert((DeviceKind::Char, Some(10), Some(229)), 4);
        let program = assemble(&rules);
        assert!(run(&program, 2, 2, 10, 229));
        assert!(!run(&program, 2, 4, 10, 229));
        assert!(!run(&program, 2, 6, 10, 229));
        assert!(run(&program, 2, 6, 10, 200));
    }
}
