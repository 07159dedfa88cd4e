//! In which order servers are asked: A B, then B A, so that a machine that drifts drifts for all.

/// The places of `count` servers in `round`, from 0: every other round backwards.
pub fn of_round(count: usize, round: u32) -> Vec<usize> {
    let forwards = 0..count;
    if round.is_multiple_of(2) { forwards.collect() } else { forwards.rev().collect() }
}

//----------- Tests ----------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_round_goes_backwards() {
        assert_eq!(of_round(3, 0), [0, 1, 2]);
        assert_eq!(of_round(3, 1), [2, 1, 0]);
        assert_eq!(of_round(3, 2), of_round(3, 0));
        assert!(of_round(0, 1).is_empty());
    }

    /// Over two rounds everybody's mean place is the same: an even drift takes from all alike.
    #[test]
    fn an_even_drift_takes_from_all() {
        let (first, second) = (of_round(5, 0), of_round(5, 1));
        let place = |order: &[usize], who| order.iter().position(|&at| at == who).unwrap();
        assert!((0..5).all(|who| place(&first, who) + place(&second, who) == 4));
    }
}
