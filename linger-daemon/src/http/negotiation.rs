//! Content negotiation: compression of the body, and format of the metrics (RFC 9110, section 12.5).

use hyper::header::{ACCEPT, ACCEPT_ENCODING, AsHeaderName, HeaderMap};

use crate::metrics::Format;

pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    for offer in offers(headers, ACCEPT_ENCODING) {
        if offer.is("gzip") || offer.is("x-gzip") {
            return offer.weight > 0.0;
        }
        any |= offer.is("*") && offer.weight > 0.0;
    }
    any
}

/// Returns the format that the client prefers; the text format if it names neither of the two.
///
/// The names of all metrics and labels are the same in every `escaping` that Prometheus 3 requests.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let weight = |name, version| {
        let offers = offers(headers, ACCEPT).filter(|offer| offer.is(name));
        let offers = offers.filter(|offer| {
            let asked = parameter(offer.parameters, "version");
            asked.is_none_or(|asked| asked == version)
        });
        offers.map(|offer| offer.weight).fold(0.0, f32::max)
    };
    let open_metrics = weight("application/openmetrics-text", "1.0.0");
    if open_metrics > 0.0 && open_metrics >= weight("text/plain", "0.0.4") {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// One of the values that a client accepts.
struct Offer<'a> {
    name: &'a str,
    /// Parameters with their values, separated by semicolons.
    parameters: &'a str,
    /// The client's weight (`q`): 1 if it is missing, 0 if it is not a number.
    weight: f32,
}

impl<'a> Offer<'a> {
    fn parse(offer: &'a str) -> Self {
        let (name, parameters) = offer.split_once(';').unwrap_or((offer, ""));
        let weight = parameter(parameters, "q").map_or(Ok(1.0), str::parse);
        Self {
            name: name.trim(),
            parameters,
            weight: weight.unwrap_or(0.0),
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Returns everything that the client accepts, by this header.
fn offers(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = Offer<'_>> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(Offer::parse)
}

/// Returns the value of a parameter, without its quotes.
fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let pairs = parameters
        .split(';')
        .filter_map(|pair| pair.split_once('='));
    let mut pairs = pairs.map(|(found, value)| (found.trim(), value.trim()));
    let (_, value) = pairs.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
    let inside = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    Some(inside.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn gzip_follows_the_weights() {
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
            assert_eq!(
                takes_gzip(&headers(ACCEPT_ENCODING, value)),
                expected,
                "{value}"
            );
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    /// `Accept` headers as these clients send them.
    const PROMETHEUS_2_42: &str = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_2_53: &str = "application/openmetrics-text;version=1.0.0;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const PROMETHEUS_3_5: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    /// With the feature `created-timestamp-zero-ingestion`.
    const PROMETHEUS_3_5_PROTOBUF: &str = "application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
        application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
        text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    const FIREFOX: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    #[test]
    fn the_format_follows_the_weights_and_is_text_for_browsers() {
        for (open_metrics, values) in [
            (
                true,
                &[
                    PROMETHEUS_2_42,
                    PROMETHEUS_2_53,
                    PROMETHEUS_3_5,
                    PROMETHEUS_3_5_PROTOBUF,
                    "application/openmetrics-text",
                    "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
                    "application/openmetrics-text; q = 0.1 ; version=1.0.0",
                    "text/plain, application/openmetrics-text",
                    "text/plain;version=1.0.0, application/openmetrics-text;q=0.1",
                ][..],
            ),
            (
                false,
                &[
                    FIREFOX,
                    "*/*",
                    "text/*",
                    "application/json",
                    "",
                    "\u{e9}",
                    "text/plain;q=0.5, application/openmetrics-text;q=0.4",
                    "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.9",
                    "application/openmetrics-text;version=0.0.1",
                    "application/openmetrics-text;version=2.0.0",
                    "application/openmetrics-text;q=0",
                    "application/openmetrics-text;q=much",
                    "application/openmetrics",
                ],
            ),
        ] {
            for value in values {
                let is_open_metrics = format(&headers(ACCEPT, value)) == Format::OpenMetrics;
                assert_eq!(is_open_metrics, open_metrics, "{value}");
            }
        }
        assert_eq!(format(&HeaderMap::new()), Format::Text);
        let mut lines = headers(ACCEPT, "text/plain;q=0.5");
        lines.append(ACCEPT, "application/openmetrics-text".parse().unwrap());
        assert_eq!(format(&lines), Format::OpenMetrics);
    }
}
