//! The reference of all keys, in Markdown, from the table of keys.

use super::call::ASK;
use super::guards::GUARD;
use super::keys::keys;
use super::payload::SCOPE;
use super::table::Inner;

const HEAD: &str = "\
# Configuration

One TOML file, given as `pipeward serve --config FILE`; without one the defaults below hold. `pipeward check FILE`
says what is wrong with a file, all of it at once, with line and key. This page is made from the table in
`src/config/keys.rs`.

- An unknown or repeated key, a wrong type and a number out of range are errors; the file is refused whole.
- Every key can be given by an environment variable, which wins over the file, except in definitions (`[pipe]`,
  `[module]`, `[action]`, `[queue]`) and arrays of tables (`[[guard]]`, `[[control.key]]`):
  `PIPEWARD_EDGE__PING_S=20` stands for `edge.ping_s = 20`. The value is read as TOML and, failing that, as a string.
  One number of a rate may be given alone (`PIPEWARD_LIMITS__PUBLISH__BURST=200`); the other stays as it was.
  Flags of the command line win over both.
- File names are relative to the directory of the configuration file.
- Of the definitions `[pipe.\"…\"]` the first in the file that matches a name decides. `{x}` captures one or more
  characters other than `:`, at most once between two `:`; `{user.id}`, `{user.team}`, `{user.tenant}` and `{user.org}`
  stand for the connection's own value; `*` matches one or more characters other than `:`, `**` one or more of any.
- Whoever is not allowed something is refused it: no key opens anything by being left out.
- An expression is CEL over `user`, `params` (the captures), `pipe`, `event`, `args`, `to`, `ctx` and `ip`, with the
  functions `owner(field)`, `role(map)`, `tenant()`, `org()` and `team()`. It must be a boolean; whatever else comes out of
  it is a refusal, and a fault in the log.
";

/// Tables that stand as values.
const INNER: [(&str, &[Inner]); 3] =
    [("One guard", &GUARD), ("`{ url = … }` as a right", &ASK), ("`scope` of a pipe", &SCOPE)];

/// The whole of `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let mut section = None;
    for key in keys() {
        let (own, leaf) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if section != Some(own) {
            section = Some(own);
            // The only key that stands in no section.
            let title = if own.is_empty() { "`[[guard]]`".to_owned() } else { format!("`[{}]`", shown(own)) };
            page += &table(&title);
        }
        page += &row(leaf, &key.kind.accepts(), key.default, key.doc);
    }
    for (title, rows) in INNER {
        page += &table(title);
        for one in rows {
            page += &row(one.name, one.accepts, one.default, one.doc);
        }
    }
    page
}

fn table(title: &str) -> String {
    format!("\n## {title}\n\n| key | accepts | default | meaning |\n|---|---|---|---|\n")
}

fn shown(section: &str) -> String {
    section.replace("pipe.*", "pipe.\"NAME\"").replace('*', "NAME")
}

fn row(name: &str, accepts: &str, default: &str, doc: &str) -> String {
    let default = if default.is_empty() { "–".to_owned() } else { format!("`{default}`") };
    format!("| `{name}` | {accepts} | {default} | {doc} |\n")
}
