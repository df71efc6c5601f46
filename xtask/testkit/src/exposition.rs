//! The Prometheus text format, as far as the daemon writes it.

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of its metric.
    pub name: String,
    /// Its labels in their order, unescaped.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
    /// The value as written.
    text: String,
}

impl Sample {
    /// Returns the value of a label; empty if the label is missing.
    pub fn label(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Returns the value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut labels = self.labels.iter();
        let found = labels.find(|(label, _)| label == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the exact value if it is a whole number, however large.
    pub fn whole(&self) -> Option<u64> {
        self.text.parse().ok()
    }
}

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape(
    /// The samples in the order of the exposition.
    pub Vec<Sample>,
);

impl Scrape {
    /// Parses an exposition.
    ///
    /// # Errors
    ///
    /// If a line is not a sample; the error has the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Not lines(), which would strip a carriage return.
        text.split('\n')
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| sample(line).ok_or_else(|| format!("not a sample: {line}")))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Returns the value of a metric without labels.
    pub fn value(&self, name: &str) -> Option<f64> {
        let mut samples = self.of(name).filter(|sample| sample.labels.is_empty());
        samples.next().map(|sample| sample.value)
    }

    /// Returns the samples of a metric.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }
}

/// Parses a line; returns `None` if it is malformed.
pub fn sample(line: &str) -> Option<Sample> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            if !label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            {
                return None;
            }
            let (text, after) = unquote(quoted)?;
            labels.push((label.to_owned(), text));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let text = rest.strip_prefix(' ')?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: text.parse().ok()?,
        text: text.to_owned(),
    })
}

/// Returns the unescaped text up to the closing quote, and the rest after it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            }),
            plain => text.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_name_labels_and_value() {
        let text = "# TYPE a gauge\na_b 1\na 0.5\nc{d=\"e \\\"\\n\",f_g=\"\"} 3\n";
        let scrape = Scrape::parse(text).unwrap();
        assert_eq!(scrape.0.len(), 3);
        assert_eq!(scrape.value("a"), Some(0.5));
        assert_eq!(scrape.value("c"), None);
        let whole = |name| scrape.of(name).next().unwrap().whole();
        assert_eq!((whole("a_b"), whole("a")), (Some(1), None));
        let c = scrape.of("c").next().unwrap();
        assert_eq!((c.label("d"), c.label("none")), ("e \"\n", ""));
    }

    #[test]
    fn the_error_has_the_line_that_is_not_a_sample() {
        for line in ["a", "a{b=\"c} 1", "a{B=\"c\"} 1", "a{b=\"\\x\"} 1", "a x"] {
            let error = Scrape::parse(line).unwrap_err();
            assert!(error.contains(line), "{error}");
        }
    }
}
