//! Does one name of a definition match everything that another one matches? Then the other, standing later, never
//! decides (F20).
//!
//! A name is a row of bytes, `*` (one or more but `:`) and `**` (one or more of any). Read as an automaton it has one
//! state for each part matched so far, and the last part may go on if it is a star. The later name is walked, byte class
//! by byte class, with the set of states that the earlier one may then be in; where the later one can end and the earlier
//! one cannot, there is a name that only the later one matches.
//!
//! Invariant: "covered" is only said where it is so. Where the walk would take too long nothing is said.

use std::collections::HashSet;

/// Steps of all walks of one configuration; some 0.1 s. What is left over is not looked at.
const STEPS_MAX: u32 = 1_000_000;

/// What is left of [`STEPS_MAX`].
pub(super) struct Budget(u32);

impl Default for Budget {
    fn default() -> Budget {
        Budget(STEPS_MAX)
    }
}

/// One part of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Byte(u8),
    Star,
    DoubleStar,
}

/// The parts of a definition's name. Captures match what `*` does.
pub(super) struct Shape(Vec<Part>);

/// A byte that stands in one of two names, or any other.
type Class = Option<u8>;

/// Bits of states; a name has at most 200 parts.
type States = [u64; 4];

impl Shape {
    /// `name` is one that [`crate::protocol::names::Template`] took.
    pub fn of(name: &str) -> Shape {
        let mut parts = Vec::with_capacity(name.len());
        let mut bytes = name.bytes().peekable();
        while let Some(byte) = bytes.next() {
            parts.push(match byte {
                b'{' => {
                    // To the end of the capture.
                    bytes.by_ref().find(|byte| *byte == b'}');
                    Part::Star
                }
                b'*' => bytes.next_if_eq(&b'*').map_or(Part::Star, |_| Part::DoubleStar),
                byte => Part::Byte(byte),
            });
        }
        Shape(parts)
    }

    /// Whether every name of `other` is one of this shape too; false where that would take too long to say.
    pub fn covers(&self, other: &Shape, budget: &mut Budget) -> bool {
        if !self.could_cover(other) || self.0.len() >= 256 {
            return false;
        }
        let classes = classes(self, other);
        let start = (0_usize, [1_u64, 0, 0, 0]);
        let (mut seen, mut open) = (HashSet::from([start]), vec![start]);
        while let Some((state, states)) = open.pop() {
            if state == other.0.len() && !has(&states, self.0.len()) {
                return false;
            }
            for class in &classes {
                let Some(left) = budget.0.checked_sub(1) else { return false };
                budget.0 = left;
                let after = self.after(&states, *class);
                let goes_on = state > 0 && other.0[state - 1].repeats(*class);
                let advances = other.0.get(state).is_some_and(|part| part.takes(*class));
                for next in [goes_on.then_some(state), advances.then_some(state + 1)].into_iter().flatten() {
                    if after == States::default() {
                        return false;
                    }
                    if seen.insert((next, after)) {
                        open.push((next, after));
                    }
                }
            }
        }
        true
    }

    /// A look at both ends: most pairs are told apart there.
    fn could_cover(&self, other: &Shape) -> bool {
        let same = |(own, other): (&Part, &Part)| own == other || !matches!(own, Part::Byte(_));
        let decided = |(own, _): &(&Part, &Part)| matches!(own, Part::Byte(_));
        self.0.iter().zip(&other.0).take_while(decided).all(same)
            && self.0.iter().rev().zip(other.0.iter().rev()).take_while(decided).all(same)
    }

    /// Where one may be after a byte of this class.
    fn after(&self, states: &States, class: Class) -> States {
        let mut after = States::default();
        for state in (0..=self.0.len()).filter(|state| has(states, *state)) {
            if state > 0 && self.0[state - 1].repeats(class) {
                set(&mut after, state);
            }
            if self.0.get(state).is_some_and(|part| part.takes(class)) {
                set(&mut after, state + 1);
            }
        }
        after
    }
}

impl Part {
    fn takes(self, class: Class) -> bool {
        match self {
            Part::Byte(own) => class == Some(own),
            Part::Star => class != Some(b':'),
            Part::DoubleStar => true,
        }
    }

    /// Whether it takes one byte more.
    fn repeats(self, class: Class) -> bool {
        !matches!(self, Part::Byte(_)) && self.takes(class)
    }
}

fn classes(one: &Shape, other: &Shape) -> Vec<Class> {
    let literal = one.0.iter().chain(&other.0).filter_map(|part| match part {
        Part::Byte(byte) => Some(*byte),
        _ => None,
    });
    let mut bytes: Vec<u8> = literal.chain([b':']).collect();
    bytes.sort_unstable();
    bytes.dedup();
    bytes.into_iter().map(Some).chain([None]).collect()
}

fn has(states: &States, state: usize) -> bool {
    states[state / 64] >> (state % 64) & 1 == 1
}

fn set(states: &mut States, state: usize) {
    states[state / 64] |= 1 << (state % 64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Budget, Shape};
    use crate::protocol::names::{Template, pattern_matches};

    fn covers(earlier: &str, later: &str) -> bool {
        Shape::of(earlier).covers(&Shape::of(later), &mut Budget::default())
    }

    #[test]
    fn what_is_covered() {
        for (earlier, later) in [
            ("**", "a"),
            ("**", "**"),
            ("**", "a:*:b"),
            ("*", "room-{x}"),
            ("room-{a}", "room-{b}"),
            ("room-{a}", "room-secret"),
            ("room-*", "room-{user.id}"),
            ("{t}:{o}", "acme:{o}"),
            ("{t}:**", "acme:a:b:c"),
            ("a**b", "a:b:b"),
            ("*:**", "a:*:c"),
            ("a*", "aa*"),
            ("**", "***"),
        ] {
            assert!(covers(earlier, later), "{earlier} covers {later}");
        }
        for (earlier, later) in [
            ("a", "**"),
            ("*", "**"),
            ("*", "a:b"),
            ("room-{x}", "room-"),
            ("room-secret", "room-{x}"),
            ("{t}:a", "{t}:b"),
            ("{t}:{o}", "{t}:**"),
            ("aa*", "a*"),
            ("a*b", "ab"),
            ("***", "**"),
        ] {
            assert!(!covers(earlier, later), "{earlier} does not cover {later}");
        }
    }

    // An automaton of this kind can have exponentially many sets of states.
    #[test]
    fn the_walk_ends() {
        let hard = format!("**a{}", "*".repeat(150));
        let mut budget = Budget::default();
        Shape::of(&hard).covers(&Shape::of(&format!("**{}", "a*b*".repeat(40))), &mut budget);
        assert!(!covers(&"*a".repeat(100), &"*b".repeat(100)));
    }

    proptest! {
        /// What is said to be covered is: every name of the later one is matched by the earlier one.
        #[test]
        fn covered_names_match(
            earlier in "[ab:*]{1,7}", later in "[ab:*]{1,7}",
            fills in proptest::collection::vec("[abc]{1,3}", 7), longer in proptest::collection::vec("[abc:]{1,4}", 7),
        ) {
            prop_assume!(Template::parse(&earlier).is_ok() && Template::parse(&later).is_ok());
            let mut name = String::new();
            let mut rest = later.as_str();
            let mut at = 0;
            while let Some(byte) = rest.chars().next() {
                if let Some(after) = rest.strip_prefix("**") {
                    name += &longer[at];
                    rest = after;
                    at += 1;
                } else if let Some(after) = rest.strip_prefix('*') {
                    name += &fills[at];
                    rest = after;
                    at += 1;
                } else {
                    name.push(byte);
                    rest = &rest[1..];
                }
            }
            prop_assert!(pattern_matches(&later, &name));
            if covers(&earlier, &later) {
                prop_assert!(pattern_matches(&earlier, &name), "{earlier} covers {later} but not {name}");
            }
        }
    }
}
