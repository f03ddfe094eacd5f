//! The operator's command: images without a daemon, and what runs on the node.

use std::process::ExitCode;

fn main() -> ExitCode {
    coracle_cri::ctl::main()
}
