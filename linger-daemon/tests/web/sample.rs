//! Reads the text format, as its specification has it.

/// One line of the text format.
pub(crate) struct Sample<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: Vec<(&'a str, String)>,
    pub(crate) value: &'a str,
}

/// Reads one line; `None` if it is broken.
pub(crate) fn parse(line: &str) -> Option<Sample<'_>> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            if !label.bytes().all(|byte| byte.is_ascii_lowercase()) {
                return None;
            }
            let (text, after) = unquote(quoted)?;
            labels.push((label, text));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    Some(Sample {
        name,
        labels,
        value: rest.strip_prefix(' ')?,
    })
}

/// The text up to the closing quote, escapes undone, and what follows.
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
