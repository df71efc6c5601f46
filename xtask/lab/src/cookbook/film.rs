//! A film: the counts at each moment while cases ran.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::svg::count;

/// Number of columns of a picture over time.
const COLUMNS: usize = 40;

/// How a metric is shown.
pub(super) enum What {
    /// A counter: its growth over time.
    Grown(&'static str),
    /// A gauge: its value over time.
    Value(&'static str),
    /// A histogram: its counts by size.
    Buckets(&'static str),
}

/// All films of a run.
#[derive(Deserialize)]
pub(super) struct Films {
    pub(super) plan: String,
    pub(super) kernel: String,
    #[serde(rename = "films")]
    all: Vec<Film>,
}

#[derive(Deserialize)]
struct Film {
    case: String,
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
struct Frame {
    seconds: f64,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    name: String,
    labels: Labels,
    value: f64,
}

type Labels = BTreeMap<String, String>;

/// The columns of one series.
pub(super) struct Series {
    pub(super) labels: Labels,
    pub(super) columns: Vec<f64>,
}

/// The axis below the columns.
#[derive(Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) unit: &'static str,
    /// Positions, 0 to 1, and texts.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Films {
    pub(super) fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).context("a film")
    }

    fn of<'a>(&'a self, cases: &'a [&str]) -> Result<Vec<&'a Film>> {
        let find = |case: &&str| {
            let film = self.all.iter().find(|film| film.case == **case);
            film.with_context(|| format!("{case} was not filmed"))
        };
        cases.iter().map(find).collect()
    }

    /// Returns the series of these cases, as if they had begun together; within a case, in the order in which their
    /// units first appeared.
    pub(super) fn series(&self, cases: &[&str], what: &What) -> Result<Vec<Series>> {
        let films = self.of(cases)?;
        let end = end(&films);
        let all = films.into_iter().flat_map(|film| {
            let mut series = match what {
                What::Grown(name) => film.over_time(name, end, true),
                What::Value(name) => film.over_time(name, end, false),
                What::Buckets(name) => film.buckets(name),
            };
            series.sort_by_key(|series| film.entrance(series.labels.get("unit")));
            series
        });
        // Films omit series that are always zero.
        Ok(all.collect())
    }

    pub(super) fn axis(&self, what: &What, cases: &[&str]) -> Result<Axis> {
        let films = self.of(cases)?;
        if let What::Buckets(name) = what {
            let bounds = films.iter().flat_map(|film| film.bounds(name));
            let bounds: Vec<_> = sorted(bounds.collect());
            let middle = |index: usize| (count(index) + 0.5) / count(bounds.len());
            let ticks = bounds.iter().enumerate();
            return Ok(Axis {
                unit: "seconds blocked, at most",
                ticks: ticks
                    .map(|(index, bound)| (middle(index), bound.clone()))
                    .collect(),
            });
        }
        let end = end(&films);
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0]
            .into_iter()
            .find(|step| end / step <= 8.0)
            .unwrap_or(600.0);
        let ticks = (0..=8).map(|number| f64::from(number) * step);
        let ticks = ticks.take_while(|seconds| *seconds <= end);
        Ok(Axis {
            unit: "seconds",
            ticks: ticks
                .map(|seconds| (seconds / end, seconds.to_string()))
                .collect(),
        })
    }
}

/// Returns the time at which the last of these ended, seconds.
fn end(films: &[&Film]) -> f64 {
    let last = films.iter().filter_map(|film| film.frames.last());
    last.map(|frame| frame.seconds).fold(f64::EPSILON, f64::max)
}

impl Film {
    /// Returns each series of a metric: in each column its last value or, if `grown`, its growth.
    fn over_time(&self, name: &str, end: f64, grown: bool) -> Vec<Series> {
        let width = end / count(COLUMNS);
        let mut all: BTreeMap<&Labels, Vec<f64>> = BTreeMap::new();
        for column in 0..COLUMNS {
            let until = count(column + 1) * width;
            let frames = self.frames.iter().rev();
            let frame = frames
                .clone()
                .find(|frame| frame.seconds <= until + f64::EPSILON);
            let samples = frame.into_iter().flat_map(|frame| &frame.samples);
            for sample in samples.filter(|sample| sample.name == name) {
                let values = all.entry(&sample.labels);
                values.or_insert_with(|| vec![0.0; COLUMNS])[column] = sample.value;
            }
        }
        let growth = |values: Vec<f64>| differences(&values).map(|more| more.max(0.0)).collect();
        let series = all.into_iter().map(|(labels, values)| Series {
            labels: labels.clone(),
            columns: if grown { growth(values) } else { values },
        });
        series.collect()
    }

    /// Returns the index of the first frame that has a unit.
    fn entrance(&self, unit: Option<&String>) -> Option<usize> {
        self.frames.iter().position(|frame| {
            let mut units = frame.samples.iter().map(|sample| sample.labels.get("unit"));
            units.any(|one| one == unit)
        })
    }

    /// Returns the upper bounds of a histogram's buckets.
    fn bounds(&self, name: &str) -> BTreeSet<String> {
        let samples = self.frames.iter().flat_map(|frame| &frame.samples);
        let buckets = samples.filter(|sample| is_bucket(sample, name));
        buckets
            .filter_map(|sample| sample.labels.get("le").cloned())
            .collect()
    }

    /// Returns the final count of each bucket of a histogram alone, by the other labels.
    fn buckets(&self, name: &str) -> Vec<Series> {
        let bounds = sorted(self.bounds(name));
        let mut all: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
        let samples = self
            .frames
            .last()
            .into_iter()
            .flat_map(|frame| &frame.samples);
        for sample in samples.filter(|sample| is_bucket(sample, name)) {
            let mut labels = sample.labels.clone();
            let bound = labels.remove("le");
            let place = bounds.iter().position(|one| Some(one) == bound.as_ref());
            let values = all.entry(labels).or_insert_with(|| vec![0.0; bounds.len()]);
            if let Some(value) = place.and_then(|place| values.get_mut(place)) {
                *value = sample.value;
            }
        }
        let series = all.into_iter().map(|(labels, values)| Series {
            labels,
            columns: differences(&values).collect(),
        });
        series.collect()
    }
}

/// Returns what each value is more than the one before it.
fn differences(values: &[f64]) -> impl Iterator<Item = f64> {
    let before = std::iter::once(&0.0).chain(values);
    values.iter().zip(before).map(|(now, before)| now - before)
}

fn is_bucket(sample: &Sample, name: &str) -> bool {
    sample.name.strip_suffix("_bucket") == Some(name)
}

/// Sorts bounds by size, `+Inf` last.
fn sorted(bounds: BTreeSet<String>) -> Vec<String> {
    let mut bounds: Vec<_> = bounds.into_iter().collect();
    let size = |bound: &String| bound.parse().unwrap_or(f64::INFINITY);
    bounds.sort_by(|a, b| size(a).total_cmp(&size(b)));
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILM: &str = r#"{"plan": "fentry", "kernel": "6.12", "films": [{"case": "a", "frames": [
        {"seconds": 0.0, "samples": []},
        {"seconds": 2.0, "samples": [{"name": "n", "labels": {"unit": "u"}, "value": 3}]},
        {"seconds": 4.0, "samples": [
            {"name": "n", "labels": {"unit": "u"}, "value": 4},
            {"name": "h_bucket", "labels": {"le": "1"}, "value": 1},
            {"name": "h_bucket", "labels": {"le": "10"}, "value": 3},
            {"name": "h_bucket", "labels": {"le": "+Inf"}, "value": 3}]}]}]}"#;

    fn columns(what: &What) -> Vec<f64> {
        let films = Films::parse(FILM).unwrap();
        let mut series = films.series(&["a"], what).unwrap();
        assert_eq!(series.len(), 1);
        series.remove(0).columns
    }

    #[test]
    fn a_counter_shows_where_it_grew() {
        let columns = columns(&What::Grown("n"));
        assert_eq!(columns.len(), COLUMNS);
        assert_eq!(columns.iter().sum::<f64>().to_string(), "4");
        assert_eq!((columns[19], columns[39]), (3.0, 1.0));
    }

    #[test]
    fn a_gauge_shows_its_value() {
        let columns = columns(&What::Value("n"));
        assert_eq!((columns[18], columns[19], columns[39]), (0.0, 3.0, 4.0));
    }

    #[test]
    fn a_histogram_shows_each_bucket_alone() {
        assert_eq!(columns(&What::Buckets("h")), [1.0, 2.0, 0.0]);
        let films = Films::parse(FILM).unwrap();
        let ticks = films.axis(&What::Buckets("h"), &["a"]).unwrap().ticks;
        let bounds: Vec<_> = ticks.into_iter().map(|(_, bound)| bound).collect();
        assert_eq!(bounds, ["1", "10", "+Inf"]);
    }

    #[test]
    fn time_has_round_ticks() {
        let films = Films::parse(FILM).unwrap();
        let ticks = films.axis(&What::Value("n"), &["a"]).unwrap().ticks;
        assert_eq!(ticks.first(), Some(&(0.0, "0".into())));
        assert_eq!(ticks.last(), Some(&(1.0, "4".into())));
    }

    #[test]
    fn a_case_that_was_not_filmed_is_named() {
        let films = Films::parse(FILM).unwrap();
        let error = films.series(&["b"], &What::Value("n")).err().unwrap();
        assert!(error.to_string().contains('b'));
    }
}
