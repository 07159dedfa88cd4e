//! Series over two axes.

use super::{Anchor, Axis, COLOURS, Canvas, FONT, text_width};

/// A plot of series.
#[derive(Clone, Debug)]
pub struct Lines {
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// What is drawn, the first at the bottom.
    pub series: Vec<Series>,
    /// A value of x that matters.
    pub mark: Option<Mark>,
}

/// Points of one kind.
#[derive(Clone, Debug)]
pub struct Series {
    /// For the legend; empty: not in it.
    pub name: String,
    /// 0 to 7.
    pub colour: usize,
    /// How it is drawn.
    pub style: Style,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
    /// For a point: x, and from where to where it varied.
    pub ranges: Vec<(f64, f64, f64)>,
}

impl Series {
    /// Points without ranges.
    pub fn new(name: &str, colour: usize, style: Style, points: Vec<(f64, f64)>) -> Series {
        Series { name: name.into(), colour, style, points, ranges: Vec::new() }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Style {
    /// A line with a dot at each point, if they are few.
    Line,
    /// A broken line without dots: what was not measured.
    Dashed,
    /// Dots only: single measurements.
    Dots,
    /// An area; in the legend of bars.
    Filled,
}

/// A value of x that matters.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Where.
    pub at: f64,
    /// From where to where it was found.
    pub range: (f64, f64),
    /// What it is.
    pub label: String,
}

/// Points of a line that get dots at most.
const DOTS_MAX: usize = 32;

/// The rectangle between the axes.
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Lines {
    pub(super) fn draw(&self, width: f64) -> Canvas {
        let height = if width < 500.0 { 250.0 } else { 330.0 };
        let mut canvas = Canvas::new(width, height);
        let y_ticks = self.y.ticks(((height - 80.0) / 36.0) as usize);
        let labels: Vec<String> = y_ticks.iter().map(|tick| self.y.label(*tick)).collect();
        let widest = labels.iter().map(|label| text_width(label)).fold(0.0, f64::max);
        let area = Area {
            left: widest + 10.0,
            right: width - 14.0,
            top: if self.mark.is_some() { 46.0 } else { 28.0 },
            bottom: height - 44.0,
        };
        canvas.text("title", (2.0, FONT), Anchor::Start, &self.y.title);
        for (tick, label) in y_ticks.iter().zip(&labels) {
            let y = self.y_at(&area, *tick);
            canvas.line("grid", (area.left, y), (area.right, y));
            canvas.text("tick", (area.left - 6.0, y + 4.0), Anchor::End, label);
        }
        self.x_axis(&mut canvas, &area);
        if let Some(mark) = &self.mark {
            self.mark(&mut canvas, &area, mark);
        }
        for series in &self.series {
            self.series(&mut canvas, &area, series);
        }
        canvas
    }

    fn x_at(&self, area: &Area, value: f64) -> f64 {
        area.left + self.x.place(value) * (area.right - area.left)
    }

    fn y_at(&self, area: &Area, value: f64) -> f64 {
        area.bottom - self.y.place(value) * (area.bottom - area.top)
    }

    fn x_axis(&self, canvas: &mut Canvas, area: &Area) {
        canvas.line("axis", (area.left, area.bottom), (area.right, area.bottom));
        let count = ((area.right - area.left) / 56.0).max(3.0) as usize;
        // Labels are written from left to right as long as they do not touch.
        let mut free = f64::MIN;
        for tick in self.x.ticks(count) {
            let x = self.x_at(area, tick);
            canvas.line("axis", (x, area.bottom), (x, area.bottom + 4.0));
            let label = self.x.label(tick);
            let half = text_width(&label) / 2.0;
            let middle = x.clamp(half, canvas.width - half);
            if middle - half >= free {
                let at = (middle, area.bottom + 17.0);
                canvas.text("tick", at, Anchor::Middle, &label);
                free = middle + half + 6.0;
            }
        }
        let middle = (area.left + area.right) / 2.0;
        canvas.text_inside("title", (middle, canvas.height - 6.0), &self.x.title);
    }

    fn mark(&self, canvas: &mut Canvas, area: &Area, mark: &Mark) {
        let (from, to) = (self.x_at(area, mark.range.0), self.x_at(area, mark.range.1));
        if to > from {
            canvas.rect("band", from, area.top, to - from, area.bottom - area.top);
        }
        let x = self.x_at(area, mark.at);
        canvas.line("mark", (x, area.top - 8.0), (x, area.bottom));
        canvas.text_inside("marked", (x, area.top - 13.0), &mark.label);
    }

    fn series(&self, canvas: &mut Canvas, area: &Area, series: &Series) {
        let colour = series.colour % COLOURS;
        let finite = series.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let places: Vec<(f64, f64)> =
            finite.map(|(x, y)| (self.x_at(area, *x), self.y_at(area, *y))).collect();
        match series.style {
            Style::Line | Style::Filled => canvas.path(&format!("line c{colour}"), &places),
            Style::Dashed => canvas.path(&format!("line dashed c{colour}"), &places),
            Style::Dots => {}
        }
        for (x, low, high) in &series.ranges {
            let x = self.x_at(area, *x);
            let (low, high) = (self.y_at(area, *low), self.y_at(area, *high));
            let class = format!("range c{colour}");
            canvas.line(&class, (x, low), (x, high));
            canvas.line(&class, (x - 4.0, low), (x + 4.0, low));
            canvas.line(&class, (x - 4.0, high), (x + 4.0, high));
        }
        let dotted = match series.style {
            Style::Line => places.len() <= DOTS_MAX,
            Style::Dots => true,
            Style::Dashed | Style::Filled => false,
        };
        if dotted {
            places.iter().for_each(|place| canvas.dot(colour, *place));
        }
    }
}
