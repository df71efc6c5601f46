//! Who asks for compression.

use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// Whether the client takes gzip (RFC 9110, 12.5.3).
pub(super) fn accepted(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(ACCEPT_ENCODING).into_iter();
    let offers = offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let mut any = false;
    for offer in offers {
        let (coding, parameters) = offer.split_once(';').unwrap_or((offer, ""));
        let coding = coding.trim();
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            return wanted(parameters);
        }
        any |= coding == "*" && wanted(parameters);
    }
    any
}

/// Whether the weight is above zero; without a weight it is 1.
fn wanted(parameters: &str) -> bool {
    let weight = parameters.trim().to_ascii_lowercase();
    match weight.strip_prefix("q=") {
        Some(weight) => weight.trim().parse().is_ok_and(|weight: f32| weight > 0.0),
        None => weight.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_weights() {
        for (value, expected) in [
            ("gzip", true),
            ("GZIP", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip; q=0", false),
            ("gzip;q=0.000, *", false),
            ("*", true),
            ("*;q=0", false),
            ("br, identity", false),
            ("gzip;q=much", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(accepted(&headers), expected, "{value}");
        }
        assert!(!accepted(&HeaderMap::new()));
    }
}
