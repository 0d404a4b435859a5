//! What is issued to a pod, and runs out: its tokens and its certificates.

use jiff::Timestamp;

use super::certificates::Certificates;
use super::token::Tokens;

#[derive(Clone, Default)]
pub struct Credentials {
    pub tokens: Tokens,
    pub certificates: Certificates,
}

impl Credentials {
    /// When the first of them is due.
    pub fn renew_at(&self) -> Option<Timestamp> {
        [self.tokens.renew_at(), self.certificates.wake_at()].into_iter().flatten().min()
    }
}
