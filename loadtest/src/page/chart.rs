//! Charts as inline SVG: pairs of bars, and lines over a logarithmic scale. Colours are the page's classes.

use std::fmt::Write as _;

/// The two bars of one scenario, first and second server.
pub struct Bars {
    /// In words.
    pub label: String,
    /// Length and text of each.
    pub values: [(f64, String); 2],
    /// A mark across the first bar, on the same scale.
    pub mark: Option<f64>,
}

/// Points of a line: x, y above 0, and what x is called.
pub struct Series(pub Vec<(f64, f64, String)>);

const WIDTH: f64 = 860.0;
/// Where bars begin and how long the longest is.
const BAR_X: f64 = 340.0;
const BAR_LENGTH: f64 = 420.0;
/// Of one bar, and of a pair with its distance to the next.
const BAR_HEIGHT: f64 = 12.0;
const PAIR_HEIGHT: f64 = 40.0;
/// Of a chart of lines, and its margins.
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 30.0;
const RIGHT: f64 = 90.0;

/// Text that may stand in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Pairs of bars, each pair scaled to its longer one.
pub fn bars(pairs: &[Bars]) -> String {
    let mut svg = open(PAIR_HEIGHT * pairs.len() as f64);
    for (row, pair) in pairs.iter().enumerate() {
        let y = row as f64 * PAIR_HEIGHT + 6.0;
        let longest = pair.values.iter().map(|(value, _)| *value).fold(f64::MIN_POSITIVE, f64::max);
        let length = |value: f64| value / longest * BAR_LENGTH;
        let _ = write!(svg, "<text x=\"0\" y=\"{:.1}\">{}</text>", y + BAR_HEIGHT + 5.0, escape(&pair.label));
        for (bar, (value, text)) in pair.values.iter().enumerate() {
            let (top, class) = (y + bar as f64 * (BAR_HEIGHT + 2.0), ["first", "second"][bar]);
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{BAR_X}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>\
                 <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                length(*value).max(1.0),
                BAR_X + length(*value).max(1.0) + 6.0,
                top + BAR_HEIGHT - 2.0,
                escape(text)
            );
        }
        if let Some(mark) = pair.mark {
            let x = BAR_X + length(mark).min(BAR_LENGTH);
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y - 3.0,
                y + BAR_HEIGHT + 1.0
            );
        }
    }
    svg + "</svg>"
}

/// Two lines over named places, y in microseconds.
pub fn percentiles(series: &[Series; 2]) -> String {
    lines(series, "µs")
}

/// Two lines over a count, y in megabytes.
pub fn slopes(series: &[Series; 2]) -> String {
    lines(series, "MB")
}

fn lines(series: &[Series; 2], unit: &str) -> String {
    let points = || series.iter().flat_map(|series| &series.0);
    let (x_min, x_max) = range(points().map(|point| point.0));
    let (y_min, y_max) = range(points().map(|point| point.1));
    let (low, high) = (y_min.log10().floor(), y_max.log10().ceil().max(y_min.log10().floor() + 1.0));
    let x = |value: f64| LEFT + (value - x_min) / (x_max - x_min).max(1e-9) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (high - value.log10()) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = open(HEIGHT);
    for decade in low as i32..=high as i32 {
        let (value, at) = (10f64.powi(decade), y(10f64.powi(decade)));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value} {unit}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0
        );
    }
    for (at, _, name) in &series[0].0 {
        let _ = write!(
            svg,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(*at),
            HEIGHT - 8.0,
            escape(name)
        );
    }
    for (class, series) in ["first", "second"].into_iter().zip(series) {
        let place = |(number, point): (usize, &(f64, f64, String))| {
            format!("{}{:.1} {:.1}", if number == 0 { "M" } else { "L" }, x(point.0), y(point.1))
        };
        let path: Vec<String> = series.0.iter().enumerate().map(place).collect();
        let _ = write!(svg, "<path class=\"{class}\" d=\"{}\"/>", path.join(" "));
        for (at, value, name) in &series.0 {
            let _ = write!(
                svg,
                "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{}: {value:.1} {unit}</title></circle>",
                x(*at),
                y(*value),
                escape(name)
            );
        }
        if let Some((at, value, _)) = series.0.last() {
            let (x, y) = (x(*at) + 10.0, y(*value) + 4.0);
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\">{value:.0} {unit}</text>");
        }
    }
    svg + "</svg>"
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (min, max) = values.fold((f64::MAX, f64::MIN), |(min, max), value| (min.min(value), max.max(value)));
    if min > max { (1.0, 10.0) } else { (min, max) }
}

fn open(height: f64) -> String {
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">")
}
