//! Questions to the table of keys: is this one known, is it a section, which one was meant?

use super::keys::keys;
use super::kind::{Key, Kind};

/// Bytes of an unknown name that are compared with the known ones. The rest of a longer one is passed over.
const NAME_BYTES_COMPARED_MAX: usize = 64;
/// What it costs a known key, in edits, that it stands in another table.
const ELSEWHERE: usize = 2;

/// The numbers of a rate, which are no keys of their own.
pub(super) const RATE_NUMBERS: [&str; 2] = ["per_s", "burst"];

/// The row of `path`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

/// Whether `path` is a table that holds keys.
pub(super) fn is_section(path: &str) -> bool {
    keys().any(|key| below(key.path, path).is_some())
}

/// Whether the names in the table `path` are the operator's own.
pub(super) fn is_named(path: &str) -> bool {
    keys().any(|key| below(key.path, path).is_some_and(|rest| rest.starts_with('*')))
}

/// What follows `section` in `path`; the empty section is the whole file.
fn below<'p>(path: &'p str, section: &str) -> Option<&'p str> {
    if section.is_empty() {
        return Some(path);
    }
    path.strip_prefix(section)?.strip_prefix('.')
}

/// The known key that is most like `name` in the table `section`: a neighbour, or one elsewhere that is more like it by
/// [`ELSEWHERE`]. Answers with its full path.
pub(super) fn nearest(section: &str, name: &str) -> String {
    let name = &name[..name.floor_char_boundary(NAME_BYTES_COMPARED_MAX)];
    let (mut best, mut best_distance) = (String::new(), usize::MAX);
    for key in keys() {
        let neighbour = below(key.path, section).map(|rest| rest.split('.').next().unwrap_or(rest));
        let (elsewhere, leaf) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        let candidates = [
            neighbour.map(|neighbour| (distance(name, neighbour), join(section, neighbour))),
            (!elsewhere.contains('*')).then(|| (distance(name, leaf) + ELSEWHERE, key.path.to_owned())),
        ];
        for (distance, path) in candidates.into_iter().flatten() {
            if distance < best_distance {
                (best, best_distance) = (path, distance);
            }
        }
    }
    best
}

/// The full path that is most like `path`, of keys whose names are not the operator's own and that `may_be` meant; those
/// of the numbers of a rate too.
pub(super) fn nearest_path(path: &str, may_be: impl Fn(&str) -> bool) -> String {
    let path = &path[..path.floor_char_boundary(NAME_BYTES_COMPARED_MAX)];
    let known = keys().filter(|key| !key.path.contains('*') && may_be(key.path));
    let numbers = |key: &Key| match key.kind {
        Kind::Rate(_) => RATE_NUMBERS.iter().map(|number| join(key.path, number)).collect(),
        _ => Vec::new(),
    };
    let paths = known.flat_map(|key| std::iter::once(key.path.to_owned()).chain(numbers(key)));
    paths.min_by_key(|known| distance(path, known)).unwrap_or_default()
}

/// `section.name`, and `name` alone at the top of the file.
pub(super) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other.
pub(super) fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(a != b);
            let mut least = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}
