//! What the process tells its caller when it ends.
use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Success = 0,
    /// Something failed while running; the last line on standard error says what.
    Failure = 1,
    /// A flag, a configuration key or a value is wrong (EX_USAGE of sysexits.h); nothing was done.
    Usage = 64,
    /// What the machine lacks, or somebody else holds (EX_UNAVAILABLE).
    Unavailable = 69,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
