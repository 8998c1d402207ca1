//! The house rules that a machine can check, and the documentation against the tables it describes.
//!
//! Rules: the pure core knows no runtime, clock, thread or socket; `monoio` stays in the shell, `unsafe` where it is
//! needed; files open with what they are for and stay small; nothing is left unfinished; links lead somewhere. A rule that
//! is in the way is changed here, in the open, with a reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pipeward::protocol::codes::{CloseCode, Code, Reconnect};
use pipeward::shard::counters::Counters;

/// Deterministic: the same inputs give the same outputs. Folders, and one file.
const PURE: &[&str] = &["src/shard/", "src/rules/", "src/protocol/", "src/auth/", "src/mesh/", "src/config/types.rs"];
/// The only code that knows a runtime.
const SHELL: &str = "src/worker/";
/// The only code of the server that may be `unsafe`: the ring, and system calls.
const UNSAFE: &[&str] = &["src/mesh/ring.rs", "src/worker/", "src/run.rs"];

/// Lines of one source file, tests apart.
const FILE_LINES_MAX: usize = 700;
/// Lines of the README: five minutes.
const README_LINES_MAX: usize = 150;

// ---- the boundary ------------------------------------------------------------------------------------------------

#[test]
fn the_core_is_pure() {
    const WORDS: &[&str] = &[
        "monoio",
        "tokio",
        "io_uring",
        "libc",
        "socket2",
        "rand",
        "getrandom",
        "Instant",
        "SystemTime",
        "UNIX_EPOCH",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "UnixListener",
    ];
    const STD: &[&str] = &["thread", "fs", "env", "process", "os"];
    let mut checked = 0;
    let mut found = Vec::new();
    for (name, text) in sources() {
        if !PURE.iter().any(|pure| name.starts_with(pure)) || is_test(&name) {
            continue;
        }
        checked += 1;
        let code = without_tests(&text);
        for word in words(&code).filter(|word| WORDS.contains(word)) {
            found.push(format!("{name}: {word}"));
        }
        for module in std_modules(&code).iter().filter(|module| STD.contains(&module.as_str())) {
            found.push(format!("{name}: std::{module}"));
        }
        if code.contains("crate::worker") || code.contains("crate::run") {
            found.push(format!("{name}: reaches into the shell"));
        }
    }
    assert!(checked > 20, "the folders of the core were not found");
    assert!(found.is_empty(), "not pure: {found:#?}");
}

#[test]
fn the_runtime_unsafe_code_and_unbounded_queues_stay_where_they_belong() {
    let mut found = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| name.starts_with("src/")) {
        let code = without_comments(&text);
        if !name.starts_with(SHELL) && words(&code).any(|word| word == "monoio") {
            found.push(format!("{name}: monoio"));
        }
        // A slow reader would cost memory without end.
        for queue in ["mpsc::channel(", "mpsc::channel::", "unbounded_channel", "SegQueue"] {
            if code.contains(queue) {
                found.push(format!("{name}: {queue} has no bound"));
            }
        }
        if !UNSAFE.iter().any(|place| name.starts_with(place)) && words(&code).any(|word| word == "unsafe") {
            found.push(format!("{name}: unsafe"));
        }
    }
    assert!(found.is_empty(), "out of place: {found:#?}");
}

#[test]
fn the_scanner_sees_what_it_looks_for() {
    let code = without_tests(
        "use std::{fs, collections::{BTreeMap, btree_map}, thread::{self}};\n// std::process\nlet x = std :: env::var();\n\
         #[cfg(test)]\nmod tests {\n use std::os;\n}\n",
    );
    assert_eq!(std_modules(&code), ["fs", "collections", "thread", "env"]);
    assert_eq!(words("a::Instant+my_Instant").collect::<Vec<_>>(), ["a", "Instant", "my_Instant"]);
    assert_eq!(without_comments("a // unsafe\n/// unsafe\nb"), "a \n\nb");
    let anchors = anchors("# One `two`, three\n```\n# no\n```\n## Ring & sleep\n");
    assert_eq!(anchors, ["one-two-three", "ring--sleep"]);
    assert_eq!(value("64 * 1024"), Some(65_536));
    assert_eq!(value("256 << 20"), Some(268_435_456));
    assert_eq!(value("4_000"), Some(4_000));
    assert_eq!(value("OTHER"), None);
}

// ---- the form of files -------------------------------------------------------------------------------------------

#[test]
fn every_source_file_opens_with_what_it_is_for() {
    let found: Vec<String> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert!(found.is_empty(), "these do not open with `//!`: {found:#?}");
}

#[test]
fn files_stay_small() {
    let lines = |text: &str| text.lines().count();
    let found: Vec<String> = sources()
        .into_iter()
        .filter(|(name, text)| !is_test(name) && lines(text) > FILE_LINES_MAX)
        .map(|(name, text)| format!("{name}: {} lines", lines(&text)))
        .collect();
    assert!(found.is_empty(), "over {FILE_LINES_MAX} lines: {found:#?}");
    let readme = lines(&read("README.md"));
    assert!(readme <= README_LINES_MAX, "README.md has {readme} lines, at most {README_LINES_MAX} are read");
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, so that this file does not hold them.
    let markers = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|parts| parts.concat());
    let macros = [["todo", "!"], ["unimplemented", "!"]].map(|parts| parts.concat());
    let mut found = Vec::new();
    for (name, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let marked = words(line).any(|word| markers.iter().any(|marker| marker == word));
            if marked || macros.iter().any(|name| line.contains(name)) {
                found.push(format!("{name}:{}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "unfinished: {found:#?}");
}

#[test]
fn nothing_names_a_place_on_somebodys_machine() {
    let places = ["home", "work", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut found = Vec::new();
    for (name, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let absolute = |place: &String| {
                line.match_indices(place.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "._-}*/".contains(c))
                })
            };
            if places.iter().any(absolute) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "absolute paths: {found:#?}");
}

// ---- documentation -----------------------------------------------------------------------------------------------

#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    let mut checked = 0;
    for (name, text) in texts().into_iter().filter(|(name, _)| name.ends_with(".md")) {
        for target in links(&text) {
            checked += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let folder = Path::new(&name).parent().unwrap_or(Path::new(""));
            let file = if path.is_empty() { root().join(&name) } else { root().join(folder).join(path) };
            let page = if anchor.is_empty() { None } else { fs::read_to_string(&file).ok() };
            if !file.exists() || page.is_some_and(|page| !anchors(&page).iter().any(|own| own == anchor)) {
                found.push(format!("{name}: {target}"));
            }
        }
        // The change log may speak of what is gone.
        if name != "CHANGELOG.md" {
            for path in quoted_paths(&text) {
                checked += 1;
                // A package's own pages speak of its own folders.
                let own = Path::new(&name).parent().map(|folder| root().join(folder).join(&path));
                if !root().join(&path).exists() && !own.is_some_and(|own| own.exists()) {
                    found.push(format!("{name}: `{path}`"));
                }
            }
        }
    }
    assert!(checked > 5, "hardly any links were found");
    assert!(found.is_empty(), "these lead nowhere: {found:#?}");
}

#[test]
fn the_protocol_page_has_every_reply_code() {
    let page = read("docs/protocol.md");
    let rows = table(&page, "## Reply codes");
    let documented: Vec<[&str; 3]> = rows.iter().map(|row| [row[0], row[1], row[2]]).collect();
    let statuses: Vec<String> = Code::ALL.iter().map(|code| code.status().to_string()).collect();
    let real: Vec<[&str; 3]> =
        Code::ALL.iter().zip(&statuses).map(|(code, status)| [code.name(), status, code.text()]).collect();
    assert_eq!(documented, real, "docs/protocol.md (left) against src/protocol/codes.rs (right)");
    let known: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    for row in table(&page, "### Refusals") {
        for code in row[1].split(", ") {
            let code = code.trim_matches('`');
            assert!(known.contains(&code), "the table of refusals names {code}");
        }
    }
}

#[test]
fn the_protocol_page_has_every_close_code() {
    let page = read("docs/protocol.md");
    let rows = table(&page, "## Close codes");
    let documented: Vec<[&str; 3]> = rows.iter().map(|row| [row[0], row[1], row[3]]).collect();
    let numbers: Vec<String> = CloseCode::ALL.iter().map(|code| code.number().to_string()).collect();
    let real: Vec<[&str; 3]> = CloseCode::ALL
        .iter()
        .zip(&numbers)
        .map(|(code, number)| {
            let client = match code.reconnect() {
                Reconnect::Never => "does not reconnect",
                Reconnect::Now => "reconnects",
                Reconnect::WithNewToken => "gets a new token, reconnects",
                Reconnect::WithBackoff => "reconnects, waiting longer each time",
                Reconnect::AfterDelay => "reconnects after the stated delay",
                Reconnect::AfterPartOfDelay => "reconnects after a random part of the stated delay",
            };
            // C30: where a delay is stated, it is the reason.
            let reason = match (code.reconnect(), code.reason()) {
                (Reconnect::AfterDelay | Reconnect::AfterPartOfDelay, _) => "retry_after_ms=N",
                (_, "") => "–",
                (_, reason) => reason,
            };
            [number.as_str(), reason, client]
        })
        .collect();
    assert_eq!(documented, real, "docs/protocol.md (left) against src/protocol/codes.rs (right)");
}

#[test]
fn the_page_of_limits_has_every_bound() {
    let bounds = read("src/bounds.rs");
    let real: Vec<(&str, u64)> = bounds
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'))
        .filter_map(|(name, rest)| Some((name, value(rest.split_once('=')?.1.trim_end_matches(';'))?)))
        .collect();
    assert_eq!(real.len(), bounds.matches("pub const ").count(), "a bound that this test cannot read");
    let page = read("docs/limits.md");
    let documented: Vec<(&str, u64)> = table(&page, "## Fixed bounds")
        .iter()
        .map(|row| {
            let number = row[1].split(' ').next().unwrap_or_default().replace(',', "");
            (row[0], number.parse().unwrap_or_else(|_| panic!("{} has no number", row[0])))
        })
        .collect();
    assert_eq!(documented, real, "docs/limits.md (left) against src/bounds.rs (right)");
}

#[test]
fn the_page_of_limits_has_every_key_of_the_configuration() {
    let reference = pipeward::config::reference();
    let real: BTreeMap<&str, &str> =
        table(&reference, "## `[limits]`").into_iter().map(|row| (row[0], row[2])).collect();
    let page = read("docs/limits.md");
    let documented: BTreeMap<&str, &str> =
        table(&page, "## `[limits]`").into_iter().map(|row| (row[0], row[1])).collect();
    assert_eq!(documented, real, "docs/limits.md (left) against the configuration (right)");
}

#[test]
fn the_page_of_limits_names_counters_that_exist() {
    let page = read("docs/limits.md");
    let plain: Vec<&str> = Counters::default().plain().into_iter().map(|(name, _)| name).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let closes: Vec<String> = CloseCode::ALL.iter().map(|code| code.number().to_string()).collect();
    let mut checked = 0;
    for row in table(&page, "## `[limits]`").into_iter().chain(table(&page, "## Fixed bounds")) {
        for counter in row[3].split(", ").filter(|counter| *counter != "–") {
            checked += 1;
            let exists = match counter.trim_matches('`').trim_end_matches(']').split_once('[') {
                Some(("refused" | "denied", code)) => codes.contains(&code),
                Some(("closed", number)) => closes.iter().any(|own| own == number),
                Some(_) => false,
                None => plain.contains(&counter.trim_matches('`')),
            };
            assert!(exists, "{} names the counter {counter}", row[0]);
        }
    }
    assert!(checked > 30);
}

// ---- reading -----------------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every text file of the project, by its path from the root, in order.
fn texts() -> Vec<(String, String)> {
    const FOLDERS: &[&str] =
        &["src", "tests", "benches", "examples", "clients", "loadtest", "fuzz", "docs", "scripts", ".ci", ".config"];
    const KINDS: &[&str] =
        &["rs", "md", "toml", "html", "sh", "py", "json", "ts", "tsx", "mjs", "js", "css", "php", "go", ""];
    let mut files: Vec<PathBuf> = fs::read_dir(root())
        .expect("the root is readable")
        .map(|entry| entry.expect("the root is readable").path())
        .filter(|path| path.is_file())
        .collect();
    FOLDERS.iter().for_each(|folder| walk(&root().join(folder), &mut files));
    files.retain(|path| {
        let kind = path.extension().unwrap_or_default().to_string_lossy();
        // In a linked work tree `.git` is a file, which is git's own.
        KINDS.contains(&&*kind) && !path.ends_with("Cargo.lock") && !path.ends_with(".git")
    });
    files.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/");
    files.iter().filter_map(|path| Some((name(path), fs::read_to_string(path).ok()?))).collect()
}

fn sources() -> Vec<(String, String)> {
    texts().into_iter().filter(|(name, _)| name.ends_with(".rs")).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    // A folder that is not there has no files.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let made = ["target", "corpus", "artifacts", "node_modules", "dist"].iter().any(|name| path.ends_with(name));
        if path.is_dir() && !made {
            walk(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

fn is_test(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("_tests.rs")
}

/// The code of a file as far as its test module, without comments.
fn without_tests(text: &str) -> String {
    let inline = text.find("#[cfg(test)]\nmod ").filter(|at| {
        let line = text[*at..].lines().nth(1).unwrap_or_default();
        line.ends_with('{')
    });
    without_comments(&text[..inline.unwrap_or(text.len())])
}

/// Takes off what follows `//`, but for the `//` of an address.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        &line[..comment.map_or(line.len(), |(at, _)| at)]
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The modules of `std` that the code names, alone or in a group.
fn std_modules(code: &str) -> Vec<String> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let mut modules = Vec::new();
    for (at, found) in code.match_indices("std::") {
        let rest = &code[at + found.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            modules.extend(words(rest).next().map(str::to_owned));
            continue;
        };
        let mut depth = 0;
        let mut starts = true;
        for (place, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' => {}
                _ if starts && depth == 0 => modules.extend(words(&group[place..]).next().map(str::to_owned)),
                _ => {}
            }
            starts = c == ',';
        }
    }
    modules
}

/// Targets of Markdown links that are files or headings of the project.
fn links(text: &str) -> Vec<String> {
    let targets = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split_once(')'));
    targets.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

/// What is written as code and looks like a path of the project.
fn quoted_paths(text: &str) -> Vec<String> {
    const FOLDERS: &[&str] = &["src/", "tests/", "benches/", "examples/", "loadtest/", "fuzz/", "docs/", "scripts/"];
    let quoted = text.split('`').skip(1).step_by(2);
    let path = |word: &str| word.trim_start_matches("./").trim_end_matches(['/', '.', ',']).to_owned();
    quoted
        .filter(|code| !code.contains('\n'))
        .flat_map(str::split_whitespace)
        .map(path)
        .filter(|path| FOLDERS.iter().any(|folder| path.starts_with(folder)))
        .filter(|path| path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)))
        .collect()
}

/// The anchors of a page's headings.
fn anchors(page: &str) -> Vec<String> {
    let mut is_code = false;
    let mut anchors = Vec::new();
    for line in page.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if line.starts_with('#') && !is_code {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            anchors.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    anchors
}

/// The rows of the first table under the heading that begins so. A cell that is one piece of code is given without its quotes.
fn table<'t>(page: &'t str, heading: &str) -> Vec<Vec<&'t str>> {
    let under =
        page.lines().skip_while(|line| !line.starts_with(heading)).skip(1).take_while(|line| !line.starts_with("## "));
    let rows = under.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
    let cell = |cell: &'t str| {
        let cell = cell.trim();
        match cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) {
            Some(code) if !code.contains('`') => code,
            _ => cell,
        }
    };
    let rows: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split('|').map(cell).collect()).collect();
    assert!(!rows.is_empty(), "no table under {heading}");
    rows
}

/// The value of a constant: a number, a product or a shift.
fn value(text: &str) -> Option<u64> {
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    if let Some((left, right)) = text.split_once("<<") {
        return Some(number(left)? << number(right)?);
    }
    text.split('*').map(number).try_fold(1, |product, factor| Some(product * factor?))
}
