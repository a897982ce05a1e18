//! Pictures of results: lines over a logarithmic axis, as SVG. Drawn from the rows alone, so that figures measured one
//! at a time are in one picture.

use std::fmt::Write as _;

use crate::results::{Results, Row};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Room around the plot for words: left, right, top, bottom.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 55.0;
const COLOURS: [&str; 4] = ["#c0392b", "#2c3e50", "#2980b9", "#27ae60"];

/// A line and its name.
struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

struct Chart {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    series: Vec<Series>,
}

/// Every picture that there are results for.
pub(crate) fn draw(results: &Results) -> anyhow::Result<()> {
    let rates = Chart {
        title: "Forwarding rate of one core, 64-byte TCP, direct return",
        x: "connections",
        y: "million packets a second",
        series: vec![
            line("macswap, no table", results.of("P1"), "flows", |row| row.beside.get("reference_mpps").copied()),
            line("Vipa", results.of("P1"), "flows", |row| row.beside.get("ours_mpps").copied()),
        ],
    };
    let takeover = Chart {
        title: "Takeover: from the kill to the first answer by way of the backup",
        x: "connections",
        y: "milliseconds, median",
        series: vec![line("Vipa", results.of("P8"), "connections", |row| Some(row.value))],
    };
    for (name, chart) in [("rate.svg", rates), ("takeover.svg", takeover)] {
        if chart.series.iter().any(|series| series.points.len() > 1) {
            results.save(name, &chart.svg())?;
        }
    }
    Ok(())
}

fn line<'a>(
    name: &'static str,
    rows: impl Iterator<Item = &'a Row>,
    x: &str,
    y: impl Fn(&Row) -> Option<f64>,
) -> Series {
    let mut points: Vec<_> = rows.filter_map(|row| Some((*row.beside.get(x)?, y(row)?))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Series { name, points }
}

impl Chart {
    fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let first = points().map(|point| point.0).fold(f64::INFINITY, f64::min).max(1.0).log10().floor();
        let last = points().map(|point| point.0).fold(1.0, f64::max).log10().ceil().max(first + 1.0);
        let top = round_up(points().map(|point| point.1).fold(0.0, f64::max));
        let x = |value: f64| LEFT + (value.log10() - first) / (last - first) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(&mut svg, (LEFT, TOP - 16.0), "start", self.title);
        for decade in first as i32..=last as i32 {
            let at = x(10_f64.powi(decade));
            rule(&mut svg, (at, TOP), (at, HEIGHT - BOTTOM));
            text(&mut svg, (at, HEIGHT - BOTTOM + 18.0), "middle", &short(10_f64.powi(decade)));
        }
        for step in 0..=4 {
            let value = top * f64::from(step) / 4.0;
            rule(&mut svg, (LEFT, y(value)), (WIDTH - RIGHT, y(value)));
            text(&mut svg, (LEFT - 8.0, y(value) + 4.0), "end", &short(value));
        }
        text(&mut svg, ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14.0), "middle", self.x);
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let _ = writeln!(
            svg,
            "<text x=\"18\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {middle})\">{}</text>",
            self.y
        );
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let path: Vec<_> =
                series.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
            let path = path.join(" ");
            let _ = writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
            for point in &series.points {
                let (x, y) = (x(point.0), y(point.1));
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
            }
            if let Some(last) = series.points.last() {
                text(&mut svg, (x(last.0) + 10.0, y(last.1) + 4.0), "start", series.name);
            }
        }
        svg + "</svg>\n"
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn rule(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>");
}

/// 1 k, 10 M.
fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{} M", value / 1e6),
        _ if value >= 1e3 => format!("{} k", value / 1e3),
        _ => format!("{value}"),
    }
}

/// The next of 1, 2, 4, 5, 8 times a power of ten: four steps of it have short names.
fn round_up(value: f64) -> f64 {
    let scale = 10_f64.powf(value.max(f64::MIN_POSITIVE).log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    scale * steps.into_iter().find(|step| step * scale >= value).unwrap_or(10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_each_series_its_points_and_its_name() {
        let series = Series { name: "Vipa", points: vec![(4096.0, 15.0), (1e6, 12.0)] };
        let svg = Chart { title: "t", x: "connections", y: "rate", series: vec![series] }.svg();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(">Vipa<") && svg.contains(">1 M<") && svg.contains(">20<"), "{svg}");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0.3, 17.0, 21.0, 99.0, 100.0].map(round_up), [0.4, 20.0, 40.0, 100.0, 100.0]);
    }
}
