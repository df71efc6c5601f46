//! Parses the metrics of a real lingerd into the pattern of those of simulated hosts.

use anyhow::{Result, ensure};

/// Label of the group that serves as the pattern of a group, the one of `lingerd exercise`.
const COMM: &str = "comm=\"lingerd\"";

/// A family of metrics.
pub(super) struct Family {
    /// Its `# HELP` and `# TYPE` lines.
    pub(super) head: String,
    /// Its series of the whole host, as lines.
    pub(super) of_host: Vec<String>,
    /// Its series of the pattern group.
    pub(super) of_group: Vec<Series>,
}

/// A series of a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// The name, with its suffix, such as `_bucket`.
    pub(super) metric: String,
    /// Its labels as exposed, except those of the group.
    pub(super) labels: String,
}

impl Series {
    /// Returns the value of a label.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let (_, value) = self.labels.split_once(&format!("{name}=\""))?;
        value.split('"').next()
    }
}

/// Parses the metrics of a lingerd that has the labels `unit` and `comm` and has counted an exercise.
pub(super) fn parse(text: &str) -> Result<Vec<Family>> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if line.starts_with("# HELP") {
            families.push(Family {
                head: String::new(),
                of_host: Vec::new(),
                of_group: Vec::new(),
            });
        }
        let Some(family) = families.last_mut() else {
            continue;
        };
        if line.starts_with('#') {
            family.head += line;
            family.head.push('\n');
        } else if !line.contains(",comm=\"") {
            family.of_host.push(format!("{line}\n"));
        } else if let Some(series) = of_group(line) {
            family.of_group.push(series);
        }
    }
    let any = families.iter().any(|family| !family.of_group.is_empty());
    ensure!(any, "lingerd has counted nothing of {COMM}");
    Ok(families)
}

/// Parses a line; returns `None` if it is of another group.
fn of_group(line: &str) -> Option<Series> {
    let (metric, rest) = line.split_once('{')?;
    let (_, labels) = rest.split_once(COMM)?;
    let (labels, _) = labels.rsplit_once('}')?;
    Some(Series {
        metric: metric.to_owned(),
        labels: labels.trim_start_matches(',').to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_belong_to_the_host_or_to_the_group() {
        let families = parse(
            "# HELP a_total What.\n# TYPE a_total counter\n\
             a_total{unit=\"/\",comm=\"sshd\",outcome=\"x\"} 9\n\
             a_total{unit=\"/\",comm=\"lingerd\",outcome=\"x\"} 7\n\
             a_total{unit=\"/\",comm=\"lingerd\"} 7\n\
             # HELP b What.\n# TYPE b gauge\nb 1\nb{what=\"y\"} 2\n",
        );
        let [a, b] = &families.unwrap()[..] else {
            panic!("two families");
        };
        assert_eq!(a.head, "# HELP a_total What.\n# TYPE a_total counter\n");
        assert_eq!((a.of_group.len(), b.of_group.len()), (2, 0));
        assert_eq!(b.of_host, ["b 1\n", "b{what=\"y\"} 2\n"]);
        let [with, without] = &a.of_group[..] else {
            panic!("two series");
        };
        assert_eq!(
            (with.metric.as_str(), with.labels.as_str()),
            ("a_total", "outcome=\"x\"")
        );
        assert_eq!((with.label("outcome"), with.label("le")), (Some("x"), None));
        assert_eq!(without.labels, "");
    }

    #[test]
    fn without_the_group_there_is_no_pattern() {
        assert!(parse("# HELP b What.\nb 1\n").is_err());
    }
}
