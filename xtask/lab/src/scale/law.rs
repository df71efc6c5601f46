//! Extrapolates to more hosts by a straight line through the measurements.

use crate::table::float;

/// A line, `y = start + slope × x`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) start: f64,
    pub(super) slope: f64,
}

impl Line {
    /// Fits a line to these points by least squares; through the origin, if there is only one point.
    pub(super) fn through(points: &[(f64, f64)]) -> Self {
        let count = float(points.len() as u64);
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        if spread < f64::EPSILON {
            return Self {
                start: 0.0,
                slope: y / x,
            };
        }
        let common = points.iter().map(|point| (point.0 - x) * (point.1 - y));
        let slope = common.sum::<f64>() / spread;
        Self {
            start: y - slope * x,
            slope,
        }
    }

    /// Returns `y` at `x`.
    pub(super) fn at(self, x: f64) -> f64 {
        self.start + self.slope * x
    }
}

#[test]
fn a_line_is_fitted() {
    let found = |points: &[(f64, f64)]| {
        let line = Line::through(points);
        format!("{} {} {}", line.start, line.slope, line.at(10.0))
    };
    assert_eq!(found(&[(1.0, 5.0), (3.0, 9.0), (2.0, 7.0)]), "3 2 23");
    assert_eq!(found(&[(2.0, 8.0)]), "0 4 40");
}
