//! How many other questions came since the same one came last (the LRU stack distance).
//!
//! ```text
//!   position   0 1 2 3 4 5 6        a mark where a question came last; the marks behind the place
//!   question   a b c b a d b        where it came last count the others since: a tree of sums
//!   marks          x   x x x        (Fenwick) counts them in steps of log n
//! ```

/// Marks at positions, and their sums.
struct Marks {
    sums: Vec<u32>,
}

impl Marks {
    fn add(&mut self, position: usize, more: u32) {
        let mut at = position + 1;
        while at < self.sums.len() {
            self.sums[at] = self.sums[at].wrapping_add(more);
            at += at & at.wrapping_neg();
        }
    }

    /// Marks before `position`.
    fn before(&self, position: usize) -> u32 {
        let (mut at, mut sum) = (position, 0u32);
        while at > 0 {
            sum = sum.wrapping_add(self.sums[at]);
            at &= at - 1;
        }
        sum
    }
}

/// For each query in turn, hands out its distance; 1 for the same question again, `None` for a
/// question that comes for the first time. Questions are numbered from 0, below `questions`.
pub fn distances(asked: &[u32], questions: usize, mut take: impl FnMut(Option<u32>)) {
    const NEVER: u32 = u32::MAX;
    let mut last = vec![NEVER; questions];
    let mut marks = Marks { sums: vec![0; asked.len() + 1] };
    let mut seen = 0u32;
    for (position, &question) in asked.iter().enumerate() {
        match std::mem::replace(&mut last[question as usize], position as u32) {
            NEVER => {
                seen += 1;
                take(None);
            }
            before => {
                take(Some(seen - marks.before(before as usize)));
                marks.add(before as usize, u32::MAX);
            }
        }
        marks.add(position, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::queries::Random;

    #[test]
    fn distances_are_those_of_a_stack() {
        let mut random = Random::new(1);
        let asked: Vec<u32> = (0..3000)
            .map(|_| {
                let below = 1 + random.below(64);
                random.below(below) as u32
            })
            .collect();
        let mut stack: Vec<u32> = Vec::new();
        let expected: Vec<Option<u32>> = asked
            .iter()
            .map(|question| {
                let at = stack.iter().position(|other| other == question);
                if let Some(at) = at {
                    stack.remove(at);
                }
                stack.insert(0, *question);
                at.map(|at| at as u32 + 1)
            })
            .collect();
        let mut found = Vec::new();
        distances(&asked, 64, |distance| found.push(distance));
        assert_eq!(found, expected);
    }
}
