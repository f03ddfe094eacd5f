//! Runs classic BPF as the kernel does for seccomp: our own programs, libseccomp's and runc's.

use super::SockFilter;

/// What a filter sees of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
    pub big_endian: bool,
}

impl Call {
    fn words(&self) -> [u32; 16] {
        let mut words = [self.nr, self.arch, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (index, arg) in self.args.into_iter().enumerate() {
            let (high, low) = ((arg >> 32) as u32, arg as u32);
            let [first, second] = if self.big_endian { [high, low] } else { [low, high] };
            words[4 + 2 * index] = first;
            words[5 + 2 * index] = second;
        }
        words
    }
}

/// The program's answer; panics on an instruction that no seccomp filter needs.
pub fn run(program: &[SockFilter], call: &Call) -> u32 {
    let data = call.words();
    let (mut pc, mut a) = (0, 0);
    loop {
        let SockFilter { code, jt, jf, k } = program[pc];
        pc += 1;
        let holds = match code {
            0x06 => return k,
            0x20 => {
                assert!(k.is_multiple_of(4));
                a = data[(k / 4) as usize];
                continue;
            }
            0x54 => {
                a &= k;
                continue;
            }
            0x05 => {
                pc += k as usize;
                continue;
            }
            0x15 => a == k,
            0x25 => a > k,
            0x35 => a >= k,
            0x45 => a & k != 0,
            _ => panic!("instruction {code:#x}"),
        };
        pc += usize::from(if holds { jt } else { jf });
    }
}
