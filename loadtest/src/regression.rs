//! A straight line through measured points: the slope is the cost of one more connection.

use serde::Serialize;

/// `y = intercept + slope · x`, by least squares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Units of y for one more x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
    /// Share of the variance that the line explains, 0 to 1; 1 where y does not vary.
    pub r_squared: f64,
}

/// The line through the points; none for fewer than two different x.
pub fn fit(points: &[(f64, f64)]) -> Option<Line> {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let sum = |term: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| term(x - mean_x, y - mean_y)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if points.len() < 2 || xx == 0.0 {
        return None;
    }
    let slope = xy / xx;
    let r_squared = if yy == 0.0 { 1.0 } else { xy * xy / (xx * yy) };
    Some(Line { slope, intercept: mean_y - slope * mean_x, r_squared })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_give_that_line() {
        let points: Vec<_> = [1000.0, 2000.0, 3000.0, 4000.0].map(|x| (x, 5_000_000.0 + 461.0 * x)).to_vec();
        let line = fit(&points).unwrap();
        assert!((line.slope - 461.0).abs() < 1e-6, "{line:?}");
        assert!((line.intercept - 5_000_000.0).abs() < 1e-3, "{line:?}");
        assert!((line.r_squared - 1.0).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn noise_lowers_r_squared_and_hardly_moves_the_slope() {
        let line = fit(&[(0.0, 1.0), (1.0, 9.0), (2.0, 21.0), (3.0, 29.0)]).unwrap();
        assert!((line.slope - 9.6).abs() < 1e-9, "{line:?}");
        assert!(line.r_squared < 1.0 && line.r_squared > 0.98, "{line:?}");
    }

    #[test]
    fn too_few_points_have_no_line_and_a_flat_one_has_slope_zero() {
        assert_eq!(fit(&[]), None);
        assert_eq!(fit(&[(1.0, 2.0)]), None);
        assert_eq!(fit(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(fit(&[(1.0, 2.0), (2.0, 2.0)]), Some(Line { slope: 0.0, intercept: 2.0, r_squared: 1.0 }));
    }
}
