//! A report as one page: no network, no script, light and dark, on a phone and on paper.
//!
//! ```text
//!   header    what was measured, of whom
//!   alarm     why it is void, or doubtful
//!   tiles     the figures one came for
//!   figures   title, what it says, legend, plot (wide and narrow), its table
//!   tables    all runs, what became of the queries
//!   card      under what conditions
//! ```

mod capacity;
mod comparison;
mod figure;
mod runs;
mod tiles;

use std::fmt::Write;
use std::io;
use std::path::PathBuf;

use super::model::Report;
use super::table::Table;
use super::tables;

use figure::Figure;

/// Makes a page of a result.
#[derive(clap::Args)]
pub struct Options {
    /// A result, as written with --json.
    #[arg(value_name = "FILE")]
    pub result: PathBuf,
    /// The page.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Reads the result and writes the page.
pub fn run(options: &Options) -> io::Result<()> {
    let report = super::read(&options.result)?;
    super::save(&options.out, html(&report).as_bytes())
}

/// `text` where HTML expects text or the value of an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Neither HTML nor SVG has a place for control characters.
            letter if letter.is_control() && letter != '\n' && letter != '\t' => {
                escaped.push('\u{FFFD}');
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A page may load nothing and run nothing; its own styles are all it has.
const POLICY: &str = concat!("default-src 'none'; style-src 'un", "safe-inline'; img-src data:");

//----------- The page -------------------------------------------------------

/// The whole page.
pub fn html(report: &Report) -> String {
    let title = title(report);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en-GB\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n\
         <body>\n<main>\n",
        escape(&title),
        include_str!("style.css")
    );
    header(&mut html, report, &title);
    alarms(&mut html, report);
    tiles::write(&mut html, report);
    section(&mut html, "Plots", &figures(report));
    lists(&mut html, report);
    conditions(&mut html, report);
    let _ = write!(
        html,
        "<footer>ring53-bench {}, schema {}. Times run from when a query was meant to be sent; \
         queries without an answer count with the time-out.</footer>\n</main>\n</body>\n</html>\n",
        escape(&report.generator.version),
        report.schema
    );
    html
}

fn title(report: &Report) -> String {
    let subject = match (&report.target, &report.compare) {
        (_, Some(compare)) => {
            let names = compare.contenders.iter().map(|contender| contender.name.as_str());
            names.collect::<Vec<&str>>().join(", ")
        }
        (Some(target), None) => target.version.clone().unwrap_or_else(|| target.address.clone()),
        (None, None) => String::new(),
    };
    let what = match report.command.as_str() {
        "load" => "Under load",
        "find" => "The rates it sustains",
        "plan" => "What it carries",
        "compare" => "Side by side",
        other => other,
    };
    if subject.is_empty() { what.to_string() } else { format!("{what}: {subject}") }
}

fn header(html: &mut String, report: &Report, title: &str) {
    let _ = write!(
        html,
        "<header>\n<p class=\"kind\">ring53-bench {}</p>\n<h1>{}</h1>\n",
        escape(&report.command),
        escape(title)
    );
    let mut about: Vec<&str> = Vec::new();
    about.extend(report.target.as_ref().map(|target| target.address.as_str()));
    about.extend(report.mix.as_ref().map(|mix| mix.text.as_str()));
    about.push(&report.began);
    about.retain(|part| !part.is_empty());
    let _ = write!(html, "<p class=\"about\">{}</p>\n</header>\n", escape(&about.join(" · ")));
}

fn alarms(html: &mut String, report: &Report) {
    if let Some(reason) = report.find.as_ref().and_then(|find| find.refused.as_ref()) {
        let reason = escape(reason);
        let _ = writeln!(html, "<p class=\"alarm\" role=\"alert\"><b>No result.</b> {reason}</p>");
    }
    let warnings = tables::warnings(report);
    if !warnings.is_empty() {
        html.push_str("<div class=\"alarm\"><ul>");
        for warning in warnings {
            let _ = write!(html, "<li>{}</li>", escape(&warning));
        }
        html.push_str("</ul></div>\n");
    }
}

/// Every figure for which the report has something.
fn figures(report: &Report) -> Vec<Figure> {
    let mut figures = Vec::new();
    figures.extend(capacity::figures(report));
    figures.extend(comparison::figures(report));
    figures.extend(runs::figures(report));
    figures
}

fn section(html: &mut String, title: &str, figures: &[Figure]) {
    if figures.is_empty() {
        return;
    }
    let _ = write!(html, "<section>\n<h2>{title}</h2>\n");
    for (index, figure) in figures.iter().enumerate() {
        figure.write(html, &format!("plot{}", index + 1));
    }
    html.push_str("</section>\n");
}

/// Tables that belong to no plot.
fn lists(html: &mut String, report: &Report) {
    let mut card = |title: &str, table: &Table| {
        if !table.is_empty() {
            let _ = write!(html, "<h2>{}</h2>\n<div class=\"card\">", escape(title));
            html.push_str(&table.html());
            html.push_str("</div>\n");
        }
    };
    if let Some(find) = &report.find {
        card("Rates", &tables::found(find));
        card("More offered than can be answered", &tables::overload(find));
    }
    card("Runs", &tables::runs(&report.runs));
    for run in runs::of_interest(report) {
        card(&format!("Queries: {}", run.label), &tables::counts(&run.counts));
        card(&format!("Replies: {}", run.label), &tables::rcodes(run));
    }
}

fn conditions(html: &mut String, report: &Report) {
    html.push_str("<h2>Conditions</h2>\n<div class=\"card\"><dl>\n");
    for (name, value) in tables::conditions(report) {
        let (name, value) = (escape(name), escape(&value));
        let _ = writeln!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    html.push_str("</dl></div>\n");
    if !report.notes.is_empty() {
        html.push_str("<h2>Notes</h2>\n<div class=\"card\"><ul>\n");
        for note in &report.notes {
            let _ = writeln!(html, "<li>{}</li>", escape(note));
        }
        html.push_str("</ul></div>\n");
    }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("a<b>&\"'\u{7}"), "a&lt;b&gt;&amp;&quot;&#39;\u{FFFD}");
    }

    #[test]
    fn an_empty_report_is_a_page_without_plots() {
        let html = html(&Report::default());
        assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
        assert!(!html.contains("<figure") && !html.contains("<svg"));
    }
}
