//! The runtime's suites on a real kernel, each on `coracle` with runc as the oracle.
//!
//! `CORACLE_TEST_RUNTIME=runc` runs the same suites on runc: an expectation that runc fails is a question.

mod attacks;
mod attacks_rootfs;
mod callers;
mod differential;
mod faults;
mod forced;
mod groups;
mod habits;
mod inherited;
mod lifecycle;
mod namespaces;
mod unified;
