/// The protobuf numbers on the way to a field: its own, behind those of the embedded messages that hold it. Upstream nests two at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbers {
    steps: [u32; 3],
    length: u8,
}

impl Numbers {
    /// Reads `2:bytes/1:bytes`. The wire type is not to be believed (`propagationPolicy` says varint and is a string): the node decides.
    pub(super) fn parse(text: &str) -> Self {
        let mut numbers = Self::default();
        for step in text.split('/').filter(|step| !step.is_empty()) {
            let number = step.split(':').next().and_then(|n| n.parse().ok()).expect("codegen writes numbers");
            numbers.steps[usize::from(numbers.length)] = number;
            numbers.length += 1;
        }
        numbers
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The number at a depth; 0 beyond the field itself.
    pub fn at(&self, depth: usize) -> u32 {
        self.steps.get(depth).copied().unwrap_or(0)
    }

    pub fn is_last(&self, depth: usize) -> bool {
        usize::from(self.length) == depth + 1
    }

    /// The numbers of the embedded messages, outermost first, and the field's own.
    pub fn split(&self) -> Option<(&[u32], u32)> {
        let (own, way) = self.steps[..usize::from(self.length)].split_last()?;
        Some((way, *own))
    }
}
