//! Counters of a pod's interfaces, read inside its network namespace.

use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// One interface since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    /// Bytes, packets, errors, dropped.
    pub(super) received: [u64; 4],
    pub(super) sent: [u64; 4],
}

/// The interfaces but the loopback; blocking. A thread enters the namespace and ends there.
pub(super) fn interfaces(netns: &Path) -> io::Result<Vec<Interface>> {
    let namespace = std::fs::File::open(netns)?;
    let read = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        std::fs::read_to_string("/proc/thread-self/net/dev")
    };
    let thread = std::thread::Builder::new().name("netns".into()).stack_size(256 * 1024).spawn(read)?;
    let text = thread.join().map_err(|_| io::Error::other("the thread in the namespace died"))??;
    Ok(text.lines().filter_map(parse).filter(|interface| interface.name != "lo").collect())
}

/// proc_pid_net(5): eight numbers received, eight sent.
fn parse(line: &str) -> Option<Interface> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
    let four = |at: usize| {
        Some([*numbers.get(at)?, *numbers.get(at + 1)?, *numbers.get(at + 2)?, *numbers.get(at + 3)?])
    };
    Some(Interface { name: name.trim().to_owned(), received: four(0)?, sent: four(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_titles_are_not() {
        let line = "  eth0: 1296 16 1 2 0 0 0 0 516 6 3 4 0 0 0 0";
        let expected = Interface { name: "eth0".into(), received: [1296, 16, 1, 2], sent: [516, 6, 3, 4] };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("face |bytes packets errs: x"), None);
    }
}
