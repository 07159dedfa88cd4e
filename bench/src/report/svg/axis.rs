//! Axes: from values to places, and ticks that people would have chosen.

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it measures, with the unit.
    pub title: String,
    scale: Scale,
    format: fn(f64) -> String,
}

#[derive(Clone, Copy, Debug)]
enum Scale {
    Linear { to: f64, step_min: f64 },
    Log { from: f64, to: f64 },
    Nines { to: f64 },
}

/// Decades of a logarithmic axis at most.
const DECADES_MAX: f64 = 9.0;

impl Axis {
    /// From zero to `to` and a little more.
    pub fn linear(title: &str, to: f64, format: fn(f64) -> String) -> Axis {
        let to = if to.is_finite() && to > 0.0 { to * 1.04 } else { 1.0 };
        Axis { title: title.into(), scale: Scale::Linear { to, step_min: 0.0 }, format }
    }

    /// For what is counted: no ticks between whole numbers.
    pub fn whole(title: &str, to: f64, format: fn(f64) -> String) -> Axis {
        let mut axis = Axis::linear(title, to, format);
        if let Scale::Linear { step_min, .. } = &mut axis.scale {
            *step_min = 1.0;
        }
        axis
    }

    /// From the step of 1, 2 or 5 below `from` to that above `to`.
    pub fn log(title: &str, from: f64, to: f64, format: fn(f64) -> String) -> Axis {
        let to = if to.is_finite() && to > 0.0 { to } else { 1.0 };
        let from = if from.is_finite() && from > 0.0 { from.min(to) } else { to };
        let from = from.max(to / 10f64.powf(DECADES_MAX));
        let (from, mut to) = (step_below(from), step_above(to));
        if to <= from * 1.5 {
            to = from * 10.0;
        }
        Axis { title: title.into(), scale: Scale::Log { from, to }, format }
    }

    /// Shares of all from 0 to so many nines: the place of `q` is the logarithm of `1 / (1 - q)`.
    pub fn nines(title: &str, nines: f64) -> Axis {
        let to = nines.clamp(1.0, DECADES_MAX);
        Axis { title: title.into(), scale: Scale::Nines { to }, format: percentile }
    }

    /// From 0 at the start of the axis to 1 at its end; what is outside is put at the edge.
    pub fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear { to, .. } => value / to,
            Scale::Log { from, to } => (value.max(from) / from).log10() / (to / from).log10(),
            Scale::Nines { to } => -(1.0 - value).max(1e-12).log10() / to,
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The value at a share of the axis.
    pub fn value(&self, place: f64) -> f64 {
        match self.scale {
            Scale::Linear { to, .. } => to * place,
            Scale::Log { from, to } => from * (to / from).powf(place),
            Scale::Nines { to } => 1.0 - 10f64.powf(-to * place),
        }
    }

    /// Values for ticks, in order, `count` or a few more.
    pub fn ticks(&self, count: usize) -> Vec<f64> {
        let count = count.max(2);
        match self.scale {
            Scale::Linear { to, step_min } => {
                let step = step_above(to / count as f64).max(step_min);
                (0..).map(|index| index as f64 * step).take_while(|tick| *tick <= to).collect()
            }
            Scale::Log { from, to } => log_ticks(from, to, count),
            Scale::Nines { to } => {
                let nines = (1..=to.floor() as i32).map(|nines| 1.0 - 10f64.powi(-nines));
                [0.0, 0.5].into_iter().chain(nines).collect()
            }
        }
    }

    /// A tick in words.
    pub fn label(&self, value: f64) -> String {
        (self.format)(value)
    }
}

/// `99.9 %`.
fn percentile(share: f64) -> String {
    let text = format!("{:.6}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn log_ticks(from: f64, to: f64, count: usize) -> Vec<f64> {
    let decades = (to / from).log10();
    let steps: &[f64] = match decades {
        decades if decades * 3.0 <= count as f64 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    // Where even each decade is too much, only every second or third has a tick.
    let every = (decades / count as f64).ceil().max(1.0) as i32;
    let first = from.log10().floor() as i32;
    let last = to.log10().ceil() as i32;
    let mut ticks = Vec::new();
    for decade in (first..=last).filter(|decade| decade.rem_euclid(every) == 0) {
        let ten = 10f64.powi(decade);
        ticks.extend(steps.iter().map(|step| step * ten));
    }
    // A rounding of the last digit must not cost the first or the last tick.
    ticks.retain(|tick| *tick >= from * 0.999 && *tick <= to * 1.001);
    ticks
}

/// The highest of 1, 2, 5 times a power of ten that is not above `value`.
fn step_below(value: f64) -> f64 {
    step(value, |step| step <= value * 1.000_001).unwrap_or(value)
}

/// The lowest of 1, 2, 5 times a power of ten that is not below `value`.
fn step_above(value: f64) -> f64 {
    let ten = 10f64.powf(value.log10().floor());
    let above = |step: &f64| *step >= value * 0.999_999;
    [1.0, 2.0, 5.0, 10.0].map(|step| step * ten).into_iter().find(above).unwrap_or(value)
}

fn step(value: f64, fits: impl Fn(f64) -> bool) -> Option<f64> {
    let ten = 10f64.powf(value.log10().floor());
    [10.0, 5.0, 2.0, 1.0].map(|step| step * ten).into_iter().find(|step| fits(*step))
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::units;

    fn labels(axis: &Axis, count: usize) -> Vec<String> {
        axis.ticks(count).into_iter().map(|tick| axis.label(tick)).collect()
    }

    #[test]
    fn linear_ticks_are_ones_twos_and_fives() {
        let axis = |to| Axis::linear("x", to, units::tick);
        assert_eq!(labels(&axis(240_000.0), 6), ["0", "50 k", "100 k", "150 k", "200 k"]);
        assert_eq!(labels(&axis(1.0), 5), ["0", "0.5", "1"]);
        assert_eq!(labels(&axis(9.0), 5), ["0", "2", "4", "6", "8"]);
        assert_eq!(labels(&Axis::whole("cores", 2.0, units::tick), 9), ["0", "1", "2"]);
        for to in [1e-7, 3e-3, 0.7, 1.0, 19.0, 123.0, 5e9] {
            for count in 3..9 {
                let ticks = axis(to).ticks(count);
                assert!((2..=count + 1).contains(&ticks.len()), "{to} {count} {ticks:?}");
            }
        }
    }

    #[test]
    fn logarithmic_ticks_fit_however_many_decades_there_are() {
        let axis = |from, to| Axis::log("x", from, to, units::tick_micros);
        let decades = ["100 µs", "1 ms", "10 ms", "100 ms", "1 s"];
        assert_eq!(labels(&axis(83.0, 900_000.0), 6), decades);
        assert_eq!(labels(&axis(110.0, 900.0), 6), ["100 µs", "200 µs", "500 µs", "1 ms"]);
        for (from, to) in [(0.0, 0.0), (1.0, 1.0), (f64::NAN, 5.0), (1e-9, 1e9), (3.0, 4.0)] {
            for count in 3..9 {
                let axis = axis(from, to);
                let ticks = axis.ticks(count);
                assert!((2..=count + 3).contains(&ticks.len()), "{from} {to} {count} {ticks:?}");
                assert!(ticks.is_sorted());
            }
        }
    }

    #[test]
    fn shares_are_placed_by_their_nines() {
        let axis = Axis::nines("share", 4.0);
        assert_eq!(labels(&axis, 9), ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert_eq!(axis.place(0.0), 0.0);
        assert!((axis.place(0.99) - 0.5).abs() < 1e-9);
        assert_eq!(axis.place(1.0), 1.0);
    }

    #[test]
    fn places_are_inside_and_lead_back() {
        for axis in [
            Axis::linear("x", 10.0, units::tick),
            Axis::log("x", 1.0, 1000.0, units::tick),
            Axis::nines("x", 3.0),
        ] {
            for place in [0.0, 0.25, 0.5, 1.0] {
                assert!((axis.place(axis.value(place)) - place).abs() < 1e-9, "{axis:?}");
            }
            for value in [f64::NAN, f64::INFINITY, -1e30, 1e30] {
                assert!((0.0..=1.0).contains(&axis.place(value)), "{axis:?} {value}");
            }
        }
    }
}
