//! Horizontal bars: names are read without turning one's head, and any number of them fits a phone.

use super::{Anchor, Axis, COLOURS, Canvas, FONT, fit, text_width};

/// A plot of bars.
#[derive(Clone, Debug)]
pub struct Bars {
    /// From left to right, from zero.
    pub x: Axis,
    /// From top to bottom.
    pub groups: Vec<Group>,
    /// Names of colours, where bars do not say it themselves.
    pub legend: Vec<(String, usize)>,
}

/// Bars under a heading.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The heading; empty: none.
    pub name: String,
    /// Its bars.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    /// What it stands for.
    pub name: String,
    /// Its parts from left to right, with their colours.
    pub parts: Vec<(usize, f64)>,
    /// From where to where it varied.
    pub range: Option<(f64, f64)>,
    /// Its value in words, at its end.
    pub label: String,
}

const BAR: f64 = 16.0;
const STEP: f64 = 23.0;
const HEADING: f64 = 24.0;
const ABOVE: f64 = 17.0;

/// Where bars and their names are.
struct Columns {
    /// Names stand above the bars: there is no room beside them.
    above: bool,
    left: f64,
    right: f64,
}

/// How many ticks there is room for.
fn tick_count(columns: &Columns) -> usize {
    ((columns.right - columns.left) / 56.0).max(2.0) as usize
}

impl Bars {
    fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.groups.iter().flat_map(|group| &group.bars)
    }

    fn columns(&self, width: f64) -> Columns {
        let widest = |texts: &mut dyn Iterator<Item = &String>| {
            texts.map(|text| text_width(text)).fold(0.0, f64::max)
        };
        let name = widest(&mut self.bars().map(|bar| &bar.name));
        let label = widest(&mut self.bars().map(|bar| &bar.label));
        let above = name > 0.34 * width;
        let left = if above { 6.0 } else { name + 10.0 };
        Columns { above, left, right: width - label.min(0.4 * width) - 12.0 }
    }

    pub(super) fn draw(&self, width: f64) -> Canvas {
        let columns = self.columns(width);
        let step = if columns.above { STEP + ABOVE } else { STEP };
        let headings = self.groups.iter().filter(|group| !group.name.is_empty()).count() as f64;
        let rows = self.bars().count() as f64;
        let bottom = 6.0 + headings * HEADING + rows * step;
        let mut canvas = Canvas::new(width, bottom + 44.0);
        self.x_axis(&mut canvas, &columns, bottom);
        let mut y = 6.0;
        for group in &self.groups {
            if !group.name.is_empty() {
                let name = fit(&group.name, width - 4.0);
                canvas.text("heading", (2.0, y + HEADING - 8.0), Anchor::Start, &name);
                y += HEADING;
            }
            for bar in &group.bars {
                self.bar(&mut canvas, &columns, y, bar);
                y += step;
            }
        }
        canvas
    }

    fn x_at(&self, columns: &Columns, value: f64) -> f64 {
        columns.left + self.x.place(value) * (columns.right - columns.left)
    }

    fn x_axis(&self, canvas: &mut Canvas, columns: &Columns, bottom: f64) {
        let mut free = f64::MIN;
        let count = tick_count(columns);
        for tick in self.x.ticks(count) {
            let x = self.x_at(columns, tick);
            // Headings and names above bars are not crossed: their rows have no grid.
            canvas.line("axis", (x, bottom), (x, bottom + 4.0));
            let label = self.x.label(tick);
            let half = text_width(&label) / 2.0;
            let middle = x.clamp(half, canvas.width - half);
            if middle - half >= free {
                canvas.text("tick", (middle, bottom + 17.0), Anchor::Middle, &label);
                free = middle + half + 6.0;
            }
        }
        canvas.line("axis", (columns.left, bottom), (columns.right, bottom));
        let middle = (columns.left + columns.right) / 2.0;
        canvas.text_inside("title", (middle, canvas.height - 6.0), &self.x.title);
    }

    fn bar(&self, canvas: &mut Canvas, columns: &Columns, y: f64, bar: &Bar) {
        let y = if columns.above {
            let name = fit(&bar.name, canvas.width - 8.0);
            canvas.text("tick", (columns.left, y + FONT), Anchor::Start, &name);
            y + ABOVE
        } else {
            let at = (columns.left - 8.0, y + BAR - 4.0);
            canvas.text("tick", at, Anchor::End, &bar.name);
            y
        };
        for tick in self.x.ticks(tick_count(columns)) {
            let x = self.x_at(columns, tick);
            canvas.line("grid", (x, y), (x, y + BAR));
        }
        let mut from = 0.0;
        for (colour, value) in &bar.parts {
            let (left, right) = (self.x_at(columns, from), self.x_at(columns, from + value));
            // What is not zero is seen.
            let width = if *value > 0.0 { (right - left).max(1.5) } else { 0.0 };
            canvas.rect(&format!("bar c{}", colour % COLOURS), left, y, width, BAR);
            from += value;
        }
        let mut end = self.x_at(columns, from);
        if let Some((low, high)) = bar.range {
            let (low, high) = (self.x_at(columns, low), self.x_at(columns, high));
            let middle = y + BAR / 2.0;
            canvas.line("whisker", (low, middle), (high, middle));
            canvas.line("whisker", (low, middle - 4.0), (low, middle + 4.0));
            canvas.line("whisker", (high, middle - 4.0), (high, middle + 4.0));
            end = end.max(high);
        }
        let label = fit(&bar.label, canvas.width - end - 8.0);
        canvas.text("value", (end + 6.0, y + BAR - 4.0), Anchor::Start, &label);
    }
}
