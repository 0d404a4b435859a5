//! The kubelet's `/metrics/resource`, in the Prometheus text format.
//!
//! Models metrics-server pkg/scraper/client/resource/decode.go. A line: `name{label="value",...} value [milliseconds]`.
use std::collections::HashMap;

/// One reading of a counter and a gauge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// When it was read; milliseconds since 1970.
    pub at_millis: i64,
    pub cpu_seconds: f64,
    pub memory_bytes: f64,
    /// When the container started; seconds since 1970, zero where that is not said.
    pub started_seconds: f64,
    has_cpu: bool,
    has_memory: bool,
}

impl Point {
    pub fn is_whole(&self) -> bool {
        self.has_cpu && self.has_memory
    }
}

/// Namespace, pod, container.
pub type ContainerKey = (String, String, String);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub node: Point,
    pub containers: HashMap<ContainerKey, Point>,
}

/// What cannot be read is passed over: a kubelet of another version has lines of its own. `now_millis` is for lines without a time.
pub fn sample(text: &str, now_millis: i64) -> Sample {
    let mut sample = Sample::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(Line { name, labels, value, at_millis }) = line_of(line) else { continue };
        let label = |key: &str| labels.iter().find(|(k, _)| *k == key).map_or_else(String::new, |(_, v)| v.clone());
        let (point, what) = match name.split_once('_') {
            Some(("node", what)) => (&mut sample.node, what),
            Some(("container", what)) => {
                let key = (label("namespace"), label("pod"), label("container"));
                (sample.containers.entry(key).or_default(), what)
            }
            _ => continue,
        };
        match what {
            "cpu_usage_seconds_total" => {
                point.cpu_seconds = value;
                point.has_cpu = true;
                point.at_millis = at_millis.unwrap_or(now_millis);
            }
            "memory_working_set_bytes" => {
                point.memory_bytes = value;
                point.has_memory = true;
            }
            "start_time_seconds" => point.started_seconds = value,
            _ => {}
        }
    }
    sample
}

struct Line<'t> {
    name: &'t str,
    labels: Vec<(&'t str, String)>,
    value: f64,
    at_millis: Option<i64>,
}

fn line_of(line: &str) -> Option<Line<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            inside = inside.trim_start_matches([',', ' ']);
            if let Some(after) = inside.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = inside.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((key, value));
            inside = after;
        }
    }
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
    Some(Line { name, labels, value, at_millis: words.next().and_then(|at| at.parse().ok()) })
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_points_and_others_are_passed_over() {
        let text = "# HELP x\ncontainer_cpu_usage_seconds_total{container=\"a\\\"b\",namespace=\"n\",pod=\"p\"} 1.5 1700000000123\n\
            container_memory_working_set_bytes{container=\"a\\\"b\",namespace=\"n\",pod=\"p\"} 4096 1700000000123\n\
            container_start_time_seconds{container=\"a\\\"b\",namespace=\"n\",pod=\"p\"} 1.7e9\n\
            pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 2\nnode_cpu_usage_seconds_total 7\nnode_memory_working_set_bytes 1e6\n\
            node_swap_usage_bytes NaN\nbroken{a=\"b} 1\n\n";
        let sample = sample(text, 5);
        assert!(sample.node.is_whole());
        assert_eq!((sample.node.cpu_seconds, sample.node.memory_bytes, sample.node.at_millis), (7.0, 1e6, 5));
        let key = ("n".to_owned(), "p".to_owned(), "a\"b".to_owned());
        let point = sample.containers[&key];
        assert!(point.is_whole() && sample.containers.len() == 1);
        assert_eq!((point.cpu_seconds, point.memory_bytes, point.at_millis, point.started_seconds), (1.5, 4096.0, 1_700_000_000_123, 1.7e9));
    }
}
