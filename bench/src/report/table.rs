//! A table: in a terminal aligned with spaces, on a page as HTML.

use std::fmt::Write;

use super::page::escape;

/// Rows under a head. The first column is words, the others are figures unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    words: Vec<usize>,
}

impl Table {
    /// With these column heads.
    pub fn new(head: &[&str]) -> Table {
        Table {
            head: head.iter().map(|text| text.to_string()).collect(),
            rows: Vec::new(),
            words: vec![0],
        }
    }

    /// Column `index` is words too: they are aligned at the left.
    pub fn words(mut self, index: usize) -> Table {
        self.words.push(index);
        self
    }

    /// Adds a row. It has as many cells as the head.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().collect();
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Aligned, two spaces between columns, each line indented by two.
    pub fn text(&self) -> String {
        let lines: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let width = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
        };
        let mut text = String::new();
        for line in &lines {
            let mut row = String::new();
            for (column, cell) in line.iter().enumerate() {
                let width = width(column);
                if self.words.contains(&column) {
                    let _ = write!(row, "  {cell:<width$}");
                } else {
                    let _ = write!(row, "  {cell:>width$}");
                }
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }

    /// As HTML, escaped.
    pub fn html(&self) -> String {
        let mut html = String::from("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
        for (column, cell) in self.head.iter().enumerate() {
            let class = self.class(column);
            let _ = write!(html, "<th scope=\"col\"{class}>{}</th>", escape(cell));
        }
        html.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            html.push_str("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let class = self.class(column);
                let cell = escape(cell);
                if column == 0 {
                    let _ = write!(html, "<th scope=\"row\"{class}>{cell}</th>");
                } else {
                    let _ = write!(html, "<td{class}>{cell}</td>");
                }
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div>\n");
        html
    }

    fn class(&self, column: usize) -> &'static str {
        if self.words.contains(&column) { " class=\"words\"" } else { "" }
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_left_and_figures_right() {
        let mut table = Table::new(&["class", "rate", "note"]).words(2);
        table.row(["hit".into(), "182 k/s".into(), "a < b".into()]);
        table.row(["nxdomain".into(), "9 k/s".into()]);
        let text = "  class        rate  note\n  hit       182 k/s  a < b\n  nxdomain    9 k/s\n";
        assert_eq!(table.text(), text);
        assert!(table.html().contains("<td class=\"words\">a &lt; b</td>"));
    }
}
