//! The selectors of a query: as much of `PromQL` as the rules need. Prometheus itself says whether a query is valid.

/// A selector such as `rate(name{matchers}[range])`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector<'a> {
    /// The function whose first argument it is, or nothing.
    pub(crate) function: &'a str,
    /// The metric.
    pub(crate) metric: &'a str,
    /// The matchers between braces.
    pub(crate) matchers: &'a str,
    /// The range between brackets, or nothing.
    pub(crate) range: &'a str,
}

/// Returns all selectors in a query, each of which must have braces.
pub(crate) fn selectors(query: &str) -> Vec<Selector<'_>> {
    let opened = query.match_indices('{').map(|(at, _)| at);
    opened
        .map(|at| {
            let (before, rest) = (&query[..at], &query[at + 1..]);
            let (matchers, after) = rest.split_once('}').expect("braces are closed");
            let range = after
                .strip_prefix('[')
                .and_then(|after| after.split_once(']'));
            let metric = last_name(before);
            let call = before[..before.len() - metric.len()].strip_suffix('(');
            Selector {
                function: call.map_or("", last_name),
                metric,
                matchers,
                range: range.map_or("", |(range, _)| range),
            }
        })
        .collect()
}

/// Returns the name at the end of a text.
fn last_name(text: &str) -> &str {
    let other = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    &text[text.rfind(other).map_or(0, |at| at + 1)..]
}

/// Returns the metrics that a query names without braces.
pub(crate) fn bare(query: &str) -> Vec<&str> {
    let starts = [
        "linger_",
        "process_",
        "scrape_",
        "unit:",
        "unit_",
        "instance:",
        "instance_",
    ];
    let other = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let mut words = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find(|c| !other(c)) {
        let end = rest[at..].find(other).map_or(rest.len(), |end| at + end);
        let word = &rest[at..end];
        let is_metric = starts.iter().any(|start| word.starts_with(start));
        // A name in quotation marks is the value of a label.
        if is_metric && !rest[end..].starts_with('{') && !rest[..at].ends_with(['"', '|']) {
            words.push(word);
        }
        rest = &rest[end..];
    }
    words
}

#[test]
fn selectors_are_found_with_what_is_around_them() {
    let query = r#"sum by (le) (rate(a_total{x="1",y=~"$y"}[5m])) / b:c{z="2"}"#;
    let found = selectors(query);
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0],
        Selector {
            function: "rate",
            metric: "a_total",
            matchers: r#"x="1",y=~"$y""#,
            range: "5m",
        }
    );
    assert_eq!((found[1].function, found[1].metric), ("", "b:c"));
    assert_eq!(
        bare("sum(linger_orphans_active) / linger_x{}"),
        ["linger_orphans_active"]
    );
    assert!(bare(r#"x{outcome=~"linger_failed|linger_aborted"}"#).is_empty());
}
