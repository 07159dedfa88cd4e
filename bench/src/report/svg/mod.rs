//! Plots as SVG, without colours of their own: classes `c0` to `c7` get them from the page.
//!
//! ```text
//!   answers/s                       title of the y axis
//!               R-SLO 182 k/s       a mark, in a row of its own
//!   200 k ┤      ┊   ●──●           marks of the series
//!   100 k ┤  ●───●
//!       0 ┼──┬───┬───┬──            ticks in steps of 1, 2 or 5
//!         0 50  100 150 k
//!              offered, queries/s   title of the x axis
//! ```
//!
//! Each plot is drawn twice, wide and narrow: letters are no smaller on a phone.

pub mod axis;
pub mod bars;
pub mod lines;

use std::fmt::Write;

use super::page::escape;

pub use axis::Axis;
pub use bars::{Bar, Bars, Group};
pub use lines::{Lines, Mark, Series, Style};

/// Width of a plot on a screen or on paper.
pub const WIDE: f64 = 760.0;
/// Width of a plot on a phone of 360 px, margins taken off.
pub const NARROW: f64 = 316.0;
/// Colours there are.
pub const COLOURS: usize = 8;

/// Height of letters.
const FONT: f64 = 12.0;
/// Width of a letter, on the safe side for a sans-serif face.
const LETTER: f64 = 7.4;

/// How wide `text` is at most.
fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// `text`, cut to `width`.
fn fit(text: &str, width: f64) -> String {
    let letters = (width / LETTER).floor().max(1.0) as usize;
    if text.chars().count() <= letters {
        return text.to_string();
    }
    let cut: String = text.chars().take(letters.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// On which side of its place a text stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// The elements of one plot.
struct Canvas {
    width: f64,
    height: f64,
    body: String,
}

impl Canvas {
    fn new(width: f64, height: f64) -> Canvas {
        Canvas { width, height, body: String::new() }
    }

    fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            width.max(0.0),
            height.max(0.0)
        );
    }

    fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut steps = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let verb = if index == 0 { 'M' } else { 'L' };
            let _ = write!(steps, "{verb}{x:.1} {y:.1}");
        }
        let _ = write!(self.body, "<path class=\"{class}\" d=\"{steps}\"/>");
    }

    fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = write!(
            self.body,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(text)
        );
    }

    /// A text around `x`, moved as far as it must to stay inside.
    fn text_inside(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let text = fit(text, self.width - 4.0);
        let half = text_width(&text) / 2.0;
        let x = if half * 2.0 >= self.width - 4.0 {
            self.width / 2.0
        } else {
            x.clamp(half + 2.0, self.width - half - 2.0)
        };
        self.text(class, (x, y), Anchor::Middle, &text);
    }

    /// A dot whose shape says, beside its colour, which series it belongs to.
    fn dot(&mut self, colour: usize, (x, y): (f64, f64)) {
        let class = format!("dot c{}", colour % COLOURS);
        self.body.push_str(&marker(&class, colour, x, y));
    }

    /// The whole plot.
    fn svg(self, class: &str, labels: (&str, &str), title: &str, text: &str) -> String {
        let (title_id, text_id) = labels;
        format!(
            "<svg class=\"plot {class}\" viewBox=\"0 0 {:.0} {:.0}\" width=\"{:.0}\" \
             height=\"{:.0}\" role=\"img\" aria-labelledby=\"{title_id} {text_id}\">\
             <title id=\"{title_id}\">{}</title><desc id=\"{text_id}\">{}</desc>{}</svg>\n",
            self.width,
            self.height,
            self.width,
            self.height,
            escape(title),
            escape(text),
            self.body
        )
    }
}

/// The shape of a series' dots at a place.
pub fn marker(class: &str, colour: usize, x: f64, y: f64) -> String {
    match colour % 4 {
        0 => format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"),
        1 => format!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"6.4\" height=\"6.4\"/>",
            x - 3.2,
            y - 3.2
        ),
        2 => format!(
            "<path class=\"{class}\" d=\"M{x:.1} {:.1}L{:.1} {:.1}L{:.1} {:.1}Z\"/>",
            y - 4.4,
            x + 4.2,
            y + 3.2,
            x - 4.2,
            y + 3.2
        ),
        _ => format!(
            "<path class=\"{class}\" d=\"M{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}Z\"/>",
            y - 4.6,
            x + 4.6,
            y + 4.6,
            x - 4.6
        ),
    }
}

/// A plot of any kind.
#[derive(Clone, Debug)]
pub enum Plot {
    /// Series over two axes.
    Lines(Lines),
    /// Horizontal bars.
    Bars(Bars),
}

impl Plot {
    /// Wide and narrow. `id` makes the labels of the page unique; `title` and `text` are for who
    /// cannot see the plot.
    pub fn draw(&self, id: &str, title: &str, text: &str) -> String {
        [("wide", WIDE), ("narrow", NARROW)]
            .map(|(class, width)| {
                let canvas = match self {
                    Plot::Lines(lines) => lines.draw(width),
                    Plot::Bars(bars) => bars.draw(width),
                };
                let labels = (format!("{id}-{class}-title"), format!("{id}-{class}-text"));
                canvas.svg(class, (&labels.0, &labels.1), title, text)
            })
            .concat()
    }

    /// What the legend has to say: name, colour, style.
    pub fn legend(&self) -> Vec<(String, usize, Style)> {
        match self {
            Plot::Lines(lines) => lines
                .series
                .iter()
                .filter(|series| !series.name.is_empty())
                .map(|series| (series.name.clone(), series.colour, series.style))
                .collect(),
            Plot::Bars(bars) => bars
                .legend
                .iter()
                .map(|(name, colour)| (name.clone(), *colour, Style::Filled))
                .collect(),
        }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_kept_inside() {
        assert_eq!(fit("nxdomain", 100.0), "nxdomain");
        assert_eq!(fit("nxdomain", LETTER * 4.0), "nxd…");
        let mut canvas = Canvas::new(100.0, 50.0);
        canvas.text_inside("tick", (99.0, 10.0), "12345");
        assert!(canvas.body.contains("x=\"79.5\""), "{}", canvas.body);
    }

    #[test]
    fn what_is_written_is_escaped() {
        let mut canvas = Canvas::new(100.0, 50.0);
        canvas.text("tick", (1.0, 1.0), Anchor::Start, "<script>&\"");
        let svg = canvas.svg("wide", ("a", "b"), "</title>", "<b>");
        assert!(!svg.contains("<script") && !svg.contains("</title></title>"), "{svg}");
        assert!(!svg.contains("<b>"), "{svg}");
    }
}
