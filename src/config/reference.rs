//! The reference of all keys, in Markdown, from the table of keys.

use super::keys::KEYS;
use super::kind::{Key, Kind};

const HEAD: &str = "\
# Configuration

One TOML file, given as `pipeward serve --config FILE`; without one the defaults below hold. `pipeward check FILE`
says what is wrong with a file, all of it at once, with line and key. This page is made from the table in
`src/config/keys.rs`.

- An unknown or repeated key, a wrong type and a number out of range are errors; the file is refused whole.
- Every key outside `[pipe]` can be given by an environment variable, which wins over the file:
  `PIPEWARD_EDGE__PING_S=20` stands for `edge.ping_s = 20`. The value is read as TOML and, failing that, as a string.
  Flags of the command line win over both.
- File names are relative to the directory of the configuration file.
- Of the definitions `[pipe.\"…\"]` the first in the file that matches a name decides. `{x}` captures one or more
  characters other than `:`, at most once between two `:`; `{user.id}`, `{user.team}`, `{user.tenant}` and `{user.org}`
  stand for the connection's own value; `*` matches one or more characters other than `:`, `**` one or more of any.
- Keys marked *not available* are part of the protocol and not of this version: an error, because a restriction must
  not be passed over in silence.
";

/// The whole of `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let mut section = None;
    for key in KEYS {
        let (own, leaf) = section_of(key);
        if section != Some(own) {
            section = Some(own);
            let title = if own.is_empty() { "Other sections".to_owned() } else { format!("`[{}]`", shown(own)) };
            page += &format!("\n## {title}\n\n| key | accepts | default | meaning |\n|---|---|---|---|\n");
        }
        page += &row(key, leaf);
    }
    page
}

fn section_of(key: &Key) -> (&'static str, &'static str) {
    key.path.rsplit_once('.').unwrap_or(("", key.path))
}

fn shown(section: &str) -> String {
    section.replace(".*", ".\"NAME\"")
}

fn row(key: &Key, leaf: &str) -> String {
    let default = if key.default.is_empty() { "–".to_owned() } else { format!("`{}`", key.default) };
    let (accepts, default) = match key.kind {
        Kind::Refused(_) => ("*not available* (error)".to_owned(), "–".to_owned()),
        _ => (key.kind.accepts(), default),
    };
    format!("| `{leaf}` | {accepts} | {default} | {} |\n", key.doc)
}
