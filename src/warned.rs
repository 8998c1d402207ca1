//! Warnings about names that others choose: each name once in a while, so that one that is wrong all the time neither
//! fills the log nor hides another.
//!
//! Invariant: at most `WARNED_NAMES_MAX` names are kept, and told within `WARN_AGAIN_MS`; what is kept back beyond that is
//! counted, and the next warning says so. Times in milliseconds of any clock that only goes forward.

use std::collections::HashMap;

use crate::bounds::{WARN_AGAIN_MS, WARNED_NAMES_MAX};

/// Which names were told of lately.
pub struct Warned {
    /// Names with the time when they were told.
    told: HashMap<Box<str>, u64>,
    per_s_max: u32,
    /// The second that is counted, and how many were told in it.
    second: u64,
    in_second: u32,
    kept_back: u64,
}

impl Warned {
    /// That tells of at most `per_s_max` names in a second.
    pub fn new(per_s_max: u32) -> Warned {
        Warned { told: HashMap::new(), per_s_max, second: 0, in_second: 0, kept_back: 0 }
    }

    /// Whether to warn about `name` now, and how many warnings about names not told of were kept back since the last one.
    pub fn due(&mut self, now_ms: u64, name: &str) -> Option<u64> {
        let is_lately = |at: &u64| now_ms.saturating_sub(*at) < WARN_AGAIN_MS;
        if self.told.get(name).is_some_and(is_lately) {
            return None;
        }
        if self.second != now_ms / 1_000 {
            (self.second, self.in_second) = (now_ms / 1_000, 0);
        }
        let is_full = |told: &HashMap<Box<str>, u64>| told.len() >= WARNED_NAMES_MAX;
        if self.in_second < self.per_s_max && is_full(&self.told) {
            self.told.retain(|_, at| is_lately(at));
        }
        if self.in_second >= self.per_s_max || is_full(&self.told) {
            self.kept_back += 1;
            return None;
        }
        self.in_second += 1;
        self.told.insert(name.into(), now_ms);
        Some(std::mem::take(&mut self.kept_back))
    }
}

/// How a warning ends that says how many others were kept back.
pub fn others(kept_back: u64) -> String {
    if kept_back == 0 { String::new() } else { format!(" ({kept_back} warnings about others were kept back)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RK-7, F15
    #[test]
    fn each_name_is_told_of_once_in_a_while() {
        let mut warned = Warned::new(u32::MAX);
        assert_eq!((warned.due(5, "a"), warned.due(5, "b"), warned.due(5, "a")), (Some(0), Some(0), None));
        assert_eq!(warned.due(4 + WARN_AGAIN_MS, "a"), None);
        assert_eq!((warned.due(5 + WARN_AGAIN_MS, "a"), warned.due(5 + WARN_AGAIN_MS, "a")), (Some(0), None));
    }

    #[test]
    fn what_is_too_much_for_a_second_has_its_turn_later_and_is_counted() {
        let mut warned = Warned::new(2);
        let mut due = |now_ms, name| warned.due(now_ms, name);
        assert_eq!((due(0, "a"), due(0, "b"), due(1, "c"), due(999, "d")), (Some(0), Some(0), None, None));
        assert_eq!((due(1_000, "a"), due(1_000, "c"), due(1_000, "d")), (None, Some(2), Some(0)));
    }

    #[test]
    fn no_more_names_are_kept_than_the_bound_says() {
        let mut warned = Warned::new(u32::MAX);
        let told = (0..2 * WARNED_NAMES_MAX).filter(|name| warned.due(0, &name.to_string()).is_some()).count();
        assert_eq!((told, warned.told.len()), (WARNED_NAMES_MAX, WARNED_NAMES_MAX));
        assert_eq!(warned.due(WARN_AGAIN_MS, "x"), Some(WARNED_NAMES_MAX as u64));
        assert_eq!(warned.told.len(), 1, "what is old is forgotten");
    }
}
