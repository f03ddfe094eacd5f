//! The ABIs that a filter can tell apart: their audit value, word size, byte order and multiplexed calls.

use oci_spec::runtime::Arch;

use super::syscalls::{N, SYSCALLS};

/// A system call ABI. Two of them share one audit architecture: x86_64 and x32, told apart by bit 30 of the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Abi {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
    S390x,
    S390,
    Ppc64,
    Ppc64le,
    Loongarch64,
}

/// Set in every number of an x32 call.
pub(super) const X32_BIT: u32 = 1 << 30;

impl Abi {
    /// The ABI of a machine as uname(2) or Rust names it.
    pub(super) fn of_machine(machine: &str) -> Option<Self> {
        Some(match machine {
            "x86_64" => Self::X86_64,
            "x86" | "i386" | "i686" => Self::X86,
            "aarch64" => Self::Aarch64,
            "arm" | "armv7l" => Self::Arm,
            "riscv64" => Self::Riscv64,
            "s390x" => Self::S390x,
            "ppc64" | "powerpc64" => Self::Ppc64,
            "ppc64le" | "powerpc64le" => Self::Ppc64le,
            "loongarch64" => Self::Loongarch64,
            _ => return None,
        })
    }

    /// The ABI that a profile names; `None` for those without a table here, which none of our hosts present.
    pub(super) fn of_profile(arch: Arch, native: Self) -> Option<Self> {
        Some(match arch {
            Arch::ScmpArchNative => native,
            Arch::ScmpArchX86_64 => Self::X86_64,
            Arch::ScmpArchX86 => Self::X86,
            Arch::ScmpArchX32 => Self::X32,
            Arch::ScmpArchAarch64 => Self::Aarch64,
            Arch::ScmpArchArm => Self::Arm,
            Arch::ScmpArchRiscv64 => Self::Riscv64,
            Arch::ScmpArchS390x => Self::S390x,
            Arch::ScmpArchS390 => Self::S390,
            Arch::ScmpArchPpc64 => Self::Ppc64,
            Arch::ScmpArchPpc64le => Self::Ppc64le,
            Arch::ScmpArchLoongarch64 => Self::Loongarch64,
            Arch::ScmpArchMips
            | Arch::ScmpArchMips64
            | Arch::ScmpArchMips64n32
            | Arch::ScmpArchMipsel
            | Arch::ScmpArchMipsel64
            | Arch::ScmpArchMipsel64n32
            | Arch::ScmpArchPpc
            | Arch::ScmpArchParisc
            | Arch::ScmpArchParisc64
            | Arch::ScmpArchM68k
            | Arch::ScmpArchSh
            | Arch::ScmpArchSheb => return None,
        })
    }

    /// `AUDIT_ARCH_*`, what the kernel puts into `seccomp_data.arch`.
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::S390x => 0x8000_0016,
            Self::S390 => 0x0000_0016,
            Self::Ppc64 => 0x8000_0015,
            Self::Ppc64le => 0xc000_0015,
            Self::Loongarch64 => 0xc000_0102,
        }
    }

    /// Only the lower half of an argument is compared. That includes x32, as libseccomp does it.
    pub(super) const fn is_32bit(self) -> bool {
        matches!(self, Self::X86 | Self::X32 | Self::Arm | Self::S390)
    }

    /// The upper half of an argument comes first in `seccomp_data`.
    pub(super) const fn is_big_endian(self) -> bool {
        matches!(self, Self::S390 | Self::S390x | Self::Ppc64)
    }

    /// System calls V that arrive as `socketcall` or `ipc` with V's index as first argument.
    const fn multiplexes(self) -> bool {
        matches!(self, Self::X86 | Self::S390 | Self::S390x | Self::Ppc64 | Self::Ppc64le)
    }

    const fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
            Self::Riscv64 => 5,
            Self::S390x => 6,
            Self::S390 => 7,
            Self::Ppc64 | Self::Ppc64le => 8,
            Self::Loongarch64 => 9,
        }
    }

    /// The number of a system call, without regard to multiplexing.
    pub(super) fn number(self, call: Syscall) -> Option<u32> {
        let number = SYSCALLS[call.row].1[self.column()];
        if number == N {
            return None;
        }
        let number = number.unsigned_abs();
        Some(if self == Self::X32 { number | X32_BIT } else { number })
    }

    /// The multiplexer's number and index under which `call` arrives on this ABI.
    pub(super) fn multiplexed(self, call: Syscall) -> Option<(u32, u32)> {
        let (multiplexer, index) = call.multiplexer.filter(|_| self.multiplexes())?;
        Some((self.number(Syscall::named(multiplexer)?)?, index))
    }
}

/// A system call that some ABI has: its row of the table, looked up once for all ABIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syscall {
    row: usize,
    /// The call that multiplexes it on some ABIs, and its index there.
    multiplexer: Option<(&'static str, u32)>,
}

impl Syscall {
    /// Looks a name up; an unknown one is ignored by the compiler.
    pub(super) fn named(name: &str) -> Option<Self> {
        let row = SYSCALLS.binary_search_by_key(&name, |row| row.0).ok()?;
        let index = |calls: &[(&str, u32)]| calls.iter().find(|call| call.0 == name).map(|call| call.1);
        let socketcall = index(SOCKETCALL).map(|index| ("socketcall", index));
        Some(Self { row, multiplexer: socketcall.or_else(|| index(IPC).map(|index| ("ipc", index))) })
    }
}

/// First argument of socketcall(2), `linux/net.h`.
const SOCKETCALL: &[(&str, u32)] = &[
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// First argument of ipc(2), `linux/ipc.h`.
const IPC: &[(&str, u32)] = &[
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_name_twice() {
        assert!(SYSCALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn numbers_that_everybody_knows() {
        let table = [
            (Abi::X86_64, "read", Some(0)),
            (Abi::X86, "read", Some(3)),
            (Abi::X32, "execve", Some(X32_BIT + 520)),
            (Abi::Aarch64, "read", Some(63)),
            (Abi::Arm, "set_tls", Some(0xf0005)),
            (Abi::Riscv64, "open", None),
            (Abi::S390x, "setup", None),
            (Abi::Ppc64le, "socketcall", Some(102)),
        ];
        for (abi, name, number) in table {
            assert_eq!(Syscall::named(name).and_then(|call| abi.number(call)), number, "{abi:?} {name}");
        }
        let multiplexed = |abi: Abi, name| Syscall::named(name).and_then(|call| abi.multiplexed(call));
        assert_eq!(multiplexed(Abi::X86, "accept"), Some((102, 5)));
        assert_eq!(multiplexed(Abi::S390x, "shmat"), Some((117, 21)));
        assert_eq!(multiplexed(Abi::X86_64, "accept"), None);
    }
}
