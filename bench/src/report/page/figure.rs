//! One figure: title, what it says, legend, plot, and its table.

use std::fmt::Write;

use super::escape;
use crate::report::svg::{Plot, Style, marker};
use crate::report::table::Table;

/// A plot with all that belongs to it.
pub struct Figure {
    /// A few words.
    pub title: String,
    /// What the plot says, in words: for everybody, and all that who cannot see it gets.
    pub words: String,
    /// The plot.
    pub plot: Plot,
    /// Its figures.
    pub table: Table,
}

impl Figure {
    /// Adds it to a page. `id` is its own on that page.
    pub fn write(&self, html: &mut String, id: &str) {
        let _ = write!(
            html,
            "<figure id=\"{id}\">\n<figcaption><h3>{}</h3><p>{}</p></figcaption>\n",
            escape(&self.title),
            escape(&self.words)
        );
        let legend = self.plot.legend();
        if legend.len() > 1 {
            html.push_str("<ul class=\"legend\">");
            for (name, colour, style) in legend {
                let swatch = swatch(colour, style);
                let _ = write!(html, "<li>{swatch}{}</li>", escape(&name));
            }
            html.push_str("</ul>\n");
        }
        html.push_str(&self.plot.draw(id, &self.title, &self.words));
        if !self.table.is_empty() {
            html.push_str("<details><summary>The figures of this plot</summary>\n");
            html.push_str(&self.table.html());
            html.push_str("</details>\n");
        }
        html.push_str("</figure>\n");
    }
}

/// What a series looks like.
fn swatch(colour: usize, style: Style) -> String {
    let mut svg = String::from("<svg viewBox=\"0 0 28 12\" aria-hidden=\"true\">");
    let path = |class: &str| format!("<path class=\"{class} c{colour}\" d=\"M1 6L27 6\"/>");
    match style {
        Style::Line => svg.push_str(&path("line")),
        Style::Dashed => svg.push_str(&path("line dashed")),
        Style::Dots => {}
        Style::Filled => {
            let _ = write!(
                svg,
                "<rect class=\"bar c{colour}\" x=\"6\" y=\"0\" width=\"16\" height=\"12\"/>"
            );
        }
    }
    if matches!(style, Style::Line | Style::Dots) {
        svg.push_str(&marker(&format!("dot c{colour}"), colour, 14.0, 6.0));
    }
    svg.push_str("</svg>");
    svg
}
