//! A strict walk over TOML: every key is asked for once, what is left over is an error.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

type Entries<'a> = BTreeMap<String, (usize, Spanned<DeValue<'a>>)>;

//----------- Errors ---------------------------------------------------------

/// Collects what is wrong with one file.
pub struct Errors<'t> {
    file: &'t str,
    text: &'t str,
    found: RefCell<Vec<(usize, String)>>,
    warned: RefCell<Vec<(usize, String)>>,
}

impl<'t> Errors<'t> {
    /// None yet.
    pub fn new(file: &'t str, text: &'t str) -> Errors<'t> {
        Errors { file, text, found: RefCell::default(), warned: RefCell::default() }
    }

    /// Parses the text; a syntax error ends the walk before it starts.
    pub fn parse(&self) -> Option<DeTable<'t>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(table.into_inner()),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                self.at(at, error.message());
                None
            }
        }
    }

    fn at(&self, at: usize, message: &str) {
        self.found.borrow_mut().push((at, self.placed(at, message)));
    }

    fn placed(&self, at: usize, message: &str) -> String {
        let before = &self.text[..at.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
        format!("{}:{line}:{column}: {message}", self.file)
    }

    /// What is allowed and may not be meant, in the order of the text.
    pub fn warnings(&self) -> Vec<String> {
        let mut warned = self.warned.take();
        warned.sort();
        warned.into_iter().map(|(_, message)| message).collect()
    }

    /// An error of the file as a whole.
    pub fn whole(&self, message: &str) {
        self.found.borrow_mut().push((0, format!("{}: {message}", self.file)));
    }

    /// `value`, or all errors in the order of the text.
    pub fn into_result<T>(self, value: T) -> Result<T, String> {
        let mut found = self.found.into_inner();
        if found.is_empty() {
            return Ok(value);
        }
        found.sort();
        let lines: Vec<String> = found.into_iter().map(|(_, message)| message).collect();
        Err(lines.join("\nring53: "))
    }
}

//----------- Item -----------------------------------------------------------

/// A text of a list, and its place.
pub struct Item {
    /// What it says.
    pub text: String,
    at: usize,
}

//----------- Table ----------------------------------------------------------

/// One table and the keys that were asked for so far.
pub struct Table<'t> {
    errors: &'t Errors<'t>,
    entries: Entries<'t>,
    /// Where the table starts.
    at: usize,
    known: Vec<&'static str>,
    seen: Vec<(&'static str, usize)>,
}

impl<'t> Table<'t> {
    /// The table of `entries`.
    pub fn new(errors: &'t Errors<'t>, table: DeTable<'t>, _name: &str) -> Table<'t> {
        Table::at(errors, table, 0)
    }

    fn at(errors: &'t Errors<'t>, table: DeTable<'t>, at: usize) -> Table<'t> {
        let entries = table
            .into_iter()
            .map(|(key, value)| (key.get_ref().to_string(), (key.span().start, value)))
            .collect();
        Table { errors, entries, at, known: Vec::new(), seen: Vec::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        let (_, value) = self.entries.remove(key)?;
        self.seen.push((key, value.span().start));
        Some(value)
    }

    /// Whether `key` was there when it was asked for.
    pub fn has(&self, key: &str) -> bool {
        self.seen.iter().any(|(seen, _)| *seen == key)
    }

    /// An error of the value of `key`.
    pub fn error(&self, key: &str, message: &str) {
        self.errors.at(self.place(key), &format!("{key}: {message}"));
    }

    /// An error of one item of the list `key`.
    pub fn error_of(&self, key: &str, item: &Item, message: &str) {
        self.errors.at(item.at, &format!("{key}: {message}"));
    }

    /// What is allowed and may not be meant in the value of `key`, or in one item of it.
    pub fn warn(&self, key: &str, item: Option<&Item>, message: &str) {
        let at = item.map_or_else(|| self.place(key), |item| item.at);
        let message = self.errors.placed(at, &format!("{key}: {message}"));
        self.errors.warned.borrow_mut().push((at, message));
    }

    fn place(&self, key: &str) -> usize {
        self.seen.iter().find(|(seen, _)| *seen == key).map_or(self.at, |(_, at)| *at)
    }

    /// Says which of `keys` are missing.
    pub fn require(&self, keys: &[&str]) {
        for key in keys.iter().filter(|key| !self.has(key)) {
            self.errors.at(self.at, &format!("the key \"{key}\" is missing"));
        }
    }

    /// Says which keys nobody asked for.
    pub fn finish(self) {
        for (key, (at, _)) in &self.entries {
            let hint = match nearest(key, &self.known) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => format!("known are {}", self.known.join(", ")),
            };
            self.errors.at(*at, &format!("unknown key \"{key}\": {hint}"));
        }
    }

    //------- Values

    /// A string.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)?.into_inner() {
            DeValue::String(text) => Some(text.into_owned()),
            _ => {
                self.error(key, "expected a text in quotes");
                None
            }
        }
    }

    /// A string of at most `len_max` octets.
    pub fn text(&mut self, key: &'static str, len_max: usize) -> Option<String> {
        let text = self.string(key)?;
        if text.len() > len_max {
            self.error(key, &format!("expected at most {len_max} octets"));
            return None;
        }
        Some(text)
    }

    /// A string that is parsed.
    pub fn parsed<T: FromStr>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        let text = self.string(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.error(key, &format!("expected {expected}, not \"{text}\""));
        }
        parsed
    }

    /// One of several words.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.string(key)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*choice);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let (last, first) = words.split_last().expect("choices");
        let first: Vec<String> = first.iter().map(|word| format!("\"{word}\"")).collect();
        let hint = nearest(&text, &words)
            .map_or(String::new(), |word| format!(": did you mean \"{word}\"?"));
        self.error(key, &format!("expected {} or \"{last}\"{hint}", first.join(", ")));
        None
    }

    /// True or false.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)?.into_inner() {
            DeValue::Boolean(value) => Some(value),
            _ => {
                self.error(key, "expected true or false");
                None
            }
        }
    }

    /// A number.
    pub fn integer(&mut self, key: &'static str, min: i64, max: i64) -> Option<i64> {
        let value = self.take(key)?;
        let number = integer_of(value.get_ref(), min, max);
        if number.is_none() {
            self.error(key, &format!("expected a number from {min} to {max}"));
        }
        number
    }

    /// An array of numbers.
    pub fn integers(&mut self, key: &'static str, min: i64, max: i64) -> Option<Vec<i64>> {
        self.array(key)?
            .into_iter()
            .map(|item| {
                let number = integer_of(item.get_ref(), min, max);
                if number.is_none() {
                    let message = format!("{key}: expected a number from {min} to {max}");
                    self.errors.at(item.span().start, &message);
                }
                number
            })
            .collect()
    }

    /// An array of strings that are parsed.
    pub fn list<T: FromStr>(&mut self, key: &'static str, expected: &str) -> Option<Vec<T>> {
        self.array(key)?
            .into_iter()
            .map(|item| {
                let parsed = match item.get_ref() {
                    DeValue::String(text) => text.parse().ok(),
                    _ => None,
                };
                if parsed.is_none() {
                    let message = format!("{key}: expected {expected}");
                    self.errors.at(item.span().start, &message);
                }
                parsed
            })
            .collect()
    }

    /// An array of strings, each with its place.
    pub fn items(&mut self, key: &'static str) -> Option<Vec<Item>> {
        self.array(key)?
            .into_iter()
            .map(|item| {
                let at = item.span().start;
                match item.into_inner() {
                    DeValue::String(text) => Some(Item { text: text.into_owned(), at }),
                    _ => {
                        self.errors.at(at, &format!("{key}: expected a text in quotes"));
                        None
                    }
                }
            })
            .collect()
    }

    fn array(&mut self, key: &'static str) -> Option<Vec<Spanned<DeValue<'t>>>> {
        match self.take(key)?.into_inner() {
            DeValue::Array(items) => Some(items.into_iter().collect()),
            _ => {
                self.error(key, "expected a list in brackets");
                None
            }
        }
    }

    /// A size with a unit: `"4MiB"`.
    pub fn size(&mut self, key: &'static str, min: usize, max: usize) -> Option<usize> {
        let text = self.string(key)?;
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
        let size = units.iter().find_map(|(unit, scale)| {
            text.strip_suffix(unit)?.trim().parse::<usize>().ok()?.checked_mul(*scale)
        });
        let size = size.filter(|size| (min..=max).contains(size));
        if size.is_none() {
            let message = format!("expected a size from {min} to {max} octets, such as \"4MiB\"");
            self.error(key, &message);
        }
        size
    }

    /// A duration with a unit: `"10s"`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.string(key)?;
        let day = Duration::from_secs(86_400);
        let duration = duration_of(&text).filter(|time| !time.is_zero() && *time <= day);
        if duration.is_none() {
            self.error(key, "expected a time of at most a day, such as \"10s\" or \"500ms\"");
        }
        duration
    }

    /// A duration from `min` to `max`: `"0s"`, `"1d"`.
    pub fn duration_in(
        &mut self,
        key: &'static str,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        let text = self.string(key)?;
        let duration = duration_of(&text).filter(|time| (min..=max).contains(time));
        if duration.is_none() {
            self.error(
                key,
                &format!(
                    "expected a time from \"{}\" to \"{}\"",
                    duration_text(min),
                    duration_text(max)
                ),
            );
        }
        duration
    }

    /// A table whose keys and values are the user's words.
    pub fn words(&mut self, key: &'static str) -> Option<Vec<(String, String)>> {
        let expected = "expected a table of names in quotes, such as { name = \"pattern\" }";
        let DeValue::Table(table) = self.take(key)?.into_inner() else {
            self.error(key, expected);
            return None;
        };
        let word = |(name, value): (Spanned<_>, Spanned<DeValue<'t>>)| match value.into_inner() {
            DeValue::String(text) => Some((String::from(name.into_inner()), text.into_owned())),
            _ => None,
        };
        let words: Option<Vec<(String, String)>> = table.into_iter().map(word).collect();
        if words.is_none() {
            self.error(key, expected);
        }
        words
    }

    /// Says that no `table` has the name that `key` gives.
    pub fn unknown(&self, key: &str, table: &str, name: &str, known: &[&str]) {
        let hint = match nearest(name, known) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => "add it, or correct the name".into(),
        };
        self.error(key, &format!("no {table} is named \"{name}\": {hint}"));
    }

    /// A table below this one.
    pub fn table(&mut self, key: &'static str) -> Option<Table<'t>> {
        let at = self.entries.get(key).map_or(0, |(at, _)| *at);
        match self.take(key)?.into_inner() {
            DeValue::Table(table) => Some(Table::at(self.errors, table, at)),
            _ => {
                self.error(key, &format!("expected a table: [{key}]"));
                None
            }
        }
    }

    /// An array of tables.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'t>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let expected = format!("expected tables: [[{key}]]");
        let DeValue::Array(items) = value.into_inner() else {
            self.error(key, &expected);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            let at = item.span().start;
            match item.into_inner() {
                DeValue::Table(table) => tables.push(Table::at(self.errors, table, at)),
                _ => self.error(key, &expected),
            }
        }
        tables
    }
}

fn integer_of(value: &DeValue<'_>, min: i64, max: i64) -> Option<i64> {
    let DeValue::Integer(integer) = value else { return None };
    let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    (min..=max).contains(&number).then_some(number)
}

/// Units of time and their milliseconds, the largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

fn duration_of(text: &str) -> Option<Duration> {
    UNITS.iter().find_map(|(unit, scale)| {
        let number = text.strip_suffix(unit)?.trim().parse::<u64>().ok()?;
        number.checked_mul(*scale).map(Duration::from_millis)
    })
}

fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis() as u64;
    match UNITS.iter().find(|(_, scale)| ms >= *scale && ms.is_multiple_of(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", ms / scale),
        None => "0s".into(),
    }
}

/// The known word that `word` was probably meant to be: at most a third of it differs.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let scored = known.iter().map(|known| (distance(word, known), *known));
    let (distance, known) = scored.min()?;
    (distance <= known.len().div_ceil(3)).then_some(known)
}

/// Letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let replaced = corner + usize::from(letter != b[j]);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
