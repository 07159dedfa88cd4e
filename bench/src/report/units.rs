//! Figures as people read them: three digits, a unit, no exponent.

/// Three significant digits, or all digits before the point.
pub fn digits(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let size = value.abs();
    let places = match size {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        size if size >= 0.09995 => 3,
        _ => (2 - size.log10().floor() as i32).clamp(0, 9) as usize,
    };
    format!("{value:.places$}")
}

/// `value` with a prefix of thousands: `182 k`, `1.25 M`.
fn prefixed(value: f64) -> String {
    let size = value.abs();
    match size {
        size if size >= 999.5e6 => format!("{} G", digits(value / 1e9)),
        size if size >= 999.5e3 => format!("{} M", digits(value / 1e6)),
        size if size >= 999.5 => format!("{} k", digits(value / 1e3)),
        _ => format!("{} ", digits(value)),
    }
}

/// A rate: `182 k/s`.
pub fn rate(value: f64) -> String {
    format!("{}/s", prefixed(value).trim_end())
}

/// A time given in microseconds: `0.83 µs`, `1.25 ms`, `2.5 s`.
pub fn micros(value: f64) -> String {
    match value.abs() {
        size if size >= 999.5e3 => format!("{} s", digits(value / 1e6)),
        size if size >= 999.5 => format!("{} ms", digits(value / 1e3)),
        _ => format!("{} µs", digits(value)),
    }
}

/// A time given in seconds.
pub fn seconds(value: f64) -> String {
    match value {
        value if value >= 5400.0 => format!("{} h", digits(value / 3600.0)),
        value if value >= 90.0 => format!("{} min", digits(value / 60.0)),
        value if value >= 1.0 => format!("{} s", digits(value)),
        value => micros(value * 1e6),
    }
}

/// A share of one, as percent: `0.012 %`.
pub fn share(value: f64) -> String {
    format!("{} %", digits(value * 100.0))
}

/// A number of things: `1,234,567`.
pub fn count(value: u64) -> String {
    let plain = value.to_string();
    let mut text = String::new();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Memory given in MiB.
pub fn mib(value: f64) -> String {
    if value.abs() >= 1023.5 {
        format!("{} GiB", digits(value / 1024.0))
    } else {
        format!("{} MiB", digits(value))
    }
}

/// A figure whose unit is known by name, as in the rows of a comparison.
pub fn figure(value: f64, unit: &str) -> String {
    match unit {
        "us" => micros(value),
        "ms" => micros(value * 1e3),
        "s" => seconds(value),
        "1/s" => rate(value),
        "MiB" => mib(value),
        "share" => share(value),
        "" => prefixed(value).trim_end().to_string(),
        other => format!("{} {other}", digits(value)),
    }
}

/// How `to` compares with `from`: `1.08`; `-` if there is nothing to compare with.
pub fn ratio(from: f64, to: f64) -> String {
    if from == 0.0 { "-".into() } else { format!("{:.3}", to / from) }
}

/// The number of a figure without zeros at its end: `50 k` for `50.0 k`, for the ticks of an axis.
pub fn short(text: &str) -> String {
    let (number, unit) = match text.find([' ', '/']) {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    format!("{number}{unit}")
}

/// A number for an axis whose title has the unit: `50 k`.
pub fn tick(value: f64) -> String {
    short(prefixed(value).trim_end())
}

/// A time for an axis, given in microseconds: `2 ms`.
pub fn tick_micros(value: f64) -> String {
    short(&micros(value))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.000123, "0.000123"),
            (0.0999, "0.0999"),
            (0.99949, "0.999"),
            (0.9996, "1.00"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (-4.2, "-4.20"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(digits(value), text, "{value}");
        }
    }

    #[test]
    fn units_change_where_the_next_is_shorter() {
        assert_eq!(rate(182_345.0), "182 k/s");
        assert_eq!(rate(999_600.0), "1.00 M/s");
        assert_eq!(rate(12.0), "12.0/s");
        assert_eq!(micros(999.4), "999 µs");
        assert_eq!(micros(1250.0), "1.25 ms");
        assert_eq!(micros(2_500_000.0), "2.50 s");
        assert_eq!(seconds(0.004), "4.00 ms");
        assert_eq!(seconds(120.0), "2.00 min");
        assert_eq!(share(0.000_12), "0.0120 %");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(mib(2048.0), "2.00 GiB");
        assert_eq!(figure(2.5, "ms"), "2.50 ms");
        assert_eq!(figure(2.5, "J"), "2.50 J");
        assert_eq!(short("50.0 k/s"), "50 k/s");
        assert_eq!(short("0.50 %"), "0.5 %");
        assert_eq!(short("100"), "100");
        assert_eq!(tick(2_000_000.0), "2 M");
        assert_eq!(tick_micros(500.0), "500 µs");
        assert_eq!(ratio(2.0, 3.0), "1.500");
        assert_eq!(ratio(0.0, 3.0), "-");
    }
}
