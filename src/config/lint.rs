//! What is allowed and worth a second look: rights open to everybody, definitions that never match (G9).
//!
//! Invariant: only warnings are made here. A definition with `{user.id}` or the like in its name is not reported: it
//! is open to the connection whose own value stands there, not to everybody (F2).

use std::collections::HashMap;

use super::finding::{Findings, Place};
use super::load::quoted;
use super::types::{Config, PipeDefinition};
use crate::protocol::peer::Origins;

/// Reports what the configuration opens to everybody, and what it says in vain.
pub(super) fn lint(config: &Config, places: &HashMap<String, Place>, findings: &mut Findings) {
    if let (Origins::Any, Some(place)) = (&config.edge.origins, places.get("edge.origins")) {
        let message = "every web page may connect from its visitors' browsers; write the origins of your own pages";
        findings.warning(place, "edge.origins", message);
    }
    let mut shapes: HashMap<String, &PipeDefinition> = HashMap::new();
    for pipe in &config.pipes {
        let key = format!("pipe.{}", quoted(pipe.name.text()));
        open_rights(config, pipe, &key, places, findings);
        let shape = shape(pipe.name.text());
        let earlier = shapes.get(&shape).or(shapes.get("**"));
        if let (Some(earlier), Some(place)) = (earlier, places.get(&key)) {
            let message = format!(
                "never decides: every name that it matches is decided by pipe.{} in line {}; take it out, or put it \
                 first",
                quoted(earlier.name.text()),
                earlier.line
            );
            findings.warning(place, &key, message);
        }
        shapes.entry(shape).or_insert(pipe);
    }
}

fn open_rights(
    config: &Config,
    pipe: &PipeDefinition,
    key: &str,
    places: &HashMap<String, Place>,
    findings: &mut Findings,
) {
    if pipe.public || pipe.name.text().contains("{user.") {
        return;
    }
    let whom = if config.auth.anonymous { "every connection, anonymous ones included" } else { "every connection" };
    for (right, open) in [("subscribe", pipe.subscribe), ("publish", pipe.publish), ("presence", pipe.presence)] {
        let key = format!("{key}.{right}");
        if let (true, Some(place)) = (open, places.get(&key)) {
            let message = format!("open to {whom}; if that is meant, write `public = true` in this definition");
            findings.warning(place, &key, message);
        }
    }
}

/// The name with every capture as `*`, which matches the same.
fn shape(name: &str) -> String {
    let mut shape = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, capture)) = rest.split_once('{') {
        shape.push_str(before);
        shape.push('*');
        rest = capture.split_once('}').map_or("", |(_, after)| after);
    }
    shape + rest
}
