//! Histograms, and how families are written in the Prometheus text format.
use std::fmt::{Display, Write as _};

/// Of Prometheus' own library.
pub const DEFAULT_LIMITS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counts of values, by the limits that they stay under.
#[derive(Clone, Debug)]
pub struct Histogram {
    limits: &'static [f64],
    /// One for each limit, of the values above the limit before; what is above all limits is in `count` alone.
    buckets: Box<[u64]>,
    count: u64,
    sum: f64,
}

impl Histogram {
    pub fn new(limits: &'static [f64]) -> Self {
        Self { limits, buckets: vec![0; limits.len()].into(), count: 0, sum: 0.0 }
    }

    /// One that was counted otherwise.
    pub fn read(limits: &'static [f64], buckets: impl Into<Box<[u64]>>, count: u64, sum: f64) -> Self {
        Self { limits, buckets: buckets.into(), count, sum }
    }

    pub fn observe(&mut self, value: f64) {
        if let Some(bucket) = self.buckets.get_mut(self.limits.partition_point(|limit| *limit < value)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += value;
    }

    /// All that the other one, of the same limits, holds.
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(bucket, more)| *bucket += more);
        self.count += other.count;
        self.sum += other.sum;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its samples; `labels` without braces.
    pub fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bucket, limit) in self.buckets.iter().zip(self.limits) {
            below += bucket;
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{limit}\"}} {below}");
        }
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", self.count);
        sample(out, &format!("{name}_sum"), labels, self.sum);
        sample(out, &format!("{name}_count"), labels, self.count);
    }
}

/// What stands before the samples of a family.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// `labels` without braces.
pub fn sample(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = match labels.is_empty() {
        true => writeln!(out, "{name} {value}"),
        false => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// A family of one sample.
pub fn single(out: &mut String, name: &str, kind: &str, help: &str, value: impl Display) {
    head(out, name, kind, help);
    sample(out, name, "", value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_all_that_is_not_above_them() {
        let mut histogram = Histogram::new(&[0.5, 1.0]);
        [0.25, 0.5, 0.75, 2.0].into_iter().for_each(|value| histogram.observe(value));
        let mut out = String::new();
        histogram.write(&mut out, "a", "b=\"c\"");
        assert_eq!(
            out,
            "a_bucket{b=\"c\",le=\"0.5\"} 2\na_bucket{b=\"c\",le=\"1\"} 3\na_bucket{b=\"c\",le=\"+Inf\"} 4\na_sum{b=\"c\"} 3.5\na_count{b=\"c\"} 4\n"
        );
    }
}
