//! One value of the tree → its place in the draft, checked against what its key accepts.
//!
//! Invariant: a value that is not accepted leaves the draft as it was and makes at least one finding.

use std::net::SocketAddr;
use std::str::FromStr;

use super::call::{self, check_url};
use super::control::read_keys;
use super::draft::Draft;
use super::finding::{Findings, Place};
use super::kind::{Key, Kind};
use super::lookup::distance;
use super::rule::{filter, right};
use super::tree::{Entry, Node, Value};
use super::types::{Rate, WhenSlow};
use super::{guards, payload, webhook};
use crate::protocol::peer::{Network, Networks, Origin, Origins};

/// Addresses in `edge.listen`. More: configuration error.
const LISTEN_MAX: usize = 16;
/// Largest `per_s` and `burst`.
const RATE_MAX: f64 = 1e12;

/// Takes `node` as the value of `key`, which the operator wrote as `name`.
pub(super) fn apply(key: &Key, name: &str, node: &Node, draft: &mut Draft, findings: &mut Findings) {
    let mut one = One { key, name, findings };
    match &key.kind {
        Kind::Flag(field) => one.flag(node).map(|flag| *field(draft) = flag),
        Kind::Number(least, most, field) => one.number(node, *least, *most).map(|number| *field(draft) = number),
        Kind::Bound(least, most, field) => one.number(node, *least, *most).map(|number| *field(draft) = Some(number)),
        Kind::Large(most, field) => one.large(node, *most).map(|number| *field(draft) = number),
        Kind::Size(most, field) => one.number(node, 0, *most).map(|size| {
            *field(draft) = if size == 0 { *most } else { size };
        }),
        Kind::Text(field) | Kind::Secret(field) => one.text(node).map(|text| *field(draft) = Some(text)),
        Kind::WhenSlow(field) => one.when_slow(node).map(|choice| *field(draft) = choice),
        Kind::Address(field) => one.address(node).map(|address| *field(draft) = address),
        Kind::Keys(field) => read_keys(node, one.findings).map(|keys| *field(draft) = keys),
        Kind::Addresses(field) => one.addresses(node).map(|list| *field(draft) = list),
        Kind::Origins(field) => one.origins(node).map(|origins| *field(draft) = origins),
        Kind::Networks(field) => one.networks(node).map(|networks| *field(draft) = networks),
        Kind::Rate(field) => one.rate(node).map(|rate| *field(draft) = rate),
        Kind::Signature(field) => one.signature(node).map(|text| *field(draft) = Some(text)),
        Kind::Url(field) => one.url(node).map(|url| *field(draft) = Some(url)),
        Kind::Headers(field) => one
            .texts(node)
            .and_then(|texts| webhook::headers(texts, name, one.findings))
            .map(|headers| *field(draft) = headers),
        Kind::Right(stand, field) => {
            right(*stand, node, name, &mut draft.calls, findings).map(|right| *field(draft) = right)
        }
        Kind::EventRight(stand, field) => {
            right(*stand, node, name, &mut draft.calls, findings).map(|right| *field(draft) = Some(right))
        }
        Kind::Guards(field) => {
            guards::guards(node, name, &mut draft.calls, findings).map(|guards| *field(draft) = guards)
        }
        Kind::Module(field) => one
            .text(node)
            .and_then(|module| draft.module(&module, &node.place, name, findings))
            .map(|module| *field(draft) = Some(module)),
        Kind::Scope(field) => payload::scope(node, name, findings).map(|scope| *field(draft) = scope),
        Kind::Filter(field) => filter(node, name, findings).map(|filter| *field(draft) = Some(filter)),
        Kind::Schema(field) => {
            payload::schema(node, name, &draft.dir, findings).map(|schema| *field(draft) = Some(schema))
        }
        Kind::References(field) => payload::references(node, name, findings).map(|fields| *field(draft) = fields),
    };
}

/// One key being read. Every method answers `None` after it has made a finding.
struct One<'a> {
    key: &'a Key,
    name: &'a str,
    findings: &'a mut Findings,
}

impl One<'_> {
    fn error<T>(&mut self, place: &Place, message: String) -> Option<T> {
        self.findings.error(place, self.name, message);
        None
    }

    fn wrong_type<T>(&mut self, node: &Node) -> Option<T> {
        let message = format!("{} was found here; write {}", node.value.kind(), self.key.kind.accepts());
        self.error(&node.place, message)
    }

    fn flag(&mut self, node: &Node) -> Option<bool> {
        match node.value {
            Value::Flag(flag) => Some(flag),
            _ => self.wrong_type(node),
        }
    }

    fn number(&mut self, node: &Node, least: u32, most: u32) -> Option<u32> {
        let Value::Integer(number) = node.value else { return self.wrong_type(node) };
        match u32::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                let message = format!("{number} is out of range; write {}", self.key.kind.accepts());
                self.error(&node.place, message)
            }
        }
    }

    fn large(&mut self, node: &Node, most: u64) -> Option<u64> {
        let Value::Integer(number) = node.value else { return self.wrong_type(node) };
        match u64::try_from(number) {
            Ok(number) if (1..=most).contains(&number) => Some(number),
            _ => {
                let message = format!("{number} is out of range; write {}", self.key.kind.accepts());
                self.error(&node.place, message)
            }
        }
    }

    fn signature(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if text.len() > call::SECRET_BYTES_MAX {
            return self.error(&node.place, format!("holds {} bytes; write {}", text.len(), self.key.kind.accepts()));
        }
        // The webhook's is looked at once it is known whether it comes from a file.
        if self.name != "auth.webhook.secret" {
            call::advise(&text, &node.place, self.name, self.findings);
        }
        Some(text)
    }

    fn url(&mut self, node: &Node) -> Option<Box<str>> {
        let text = self.text(node)?;
        match check_url(&text) {
            Ok(()) => Some(text.into()),
            Err(why) => self.error(&node.place, why),
        }
    }

    fn text(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Text(text) if text.is_empty() => {
                self.error(&node.place, format!("is empty; write {}, or leave the key out", self.key.kind.accepts()))
            }
            Value::Text(text) => Some(text.clone()),
            _ => self.wrong_type(node),
        }
    }

    fn when_slow(&mut self, node: &Node) -> Option<WhenSlow> {
        match &node.value {
            Value::Text(text) if text == "close" => Some(WhenSlow::Close),
            Value::Text(text) if text == "drop_oldest" => Some(WhenSlow::DropOldest),
            Value::Text(text) => {
                let message = format!("`{text}` is not a choice; write {}", self.key.kind.accepts());
                self.error(&node.place, message)
            }
            _ => self.wrong_type(node),
        }
    }

    fn address(&mut self, node: &Node) -> Option<SocketAddr> {
        let Value::Text(text) = &node.value else { return self.wrong_type(node) };
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => self.error(&node.place, no_address(text)),
        }
    }

    fn addresses(&mut self, node: &Node) -> Option<Vec<SocketAddr>> {
        let texts = self.texts(node)?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        let mut complete = true;
        for (text, place) in texts {
            let Ok(address) = text.parse::<SocketAddr>() else {
                self.error::<()>(place, no_address(text));
                complete = false;
                continue;
            };
            if address.port() != 0 && addresses.contains(&address) {
                self.error::<()>(place, format!("{address} is given twice; keep one of the two"));
                complete = false;
            }
            addresses.push(address);
        }
        if addresses.is_empty() && complete {
            return self.error(&node.place, "is empty; write at least one \"address:port\"".to_owned());
        }
        if addresses.len() > LISTEN_MAX {
            return self.error(&node.place, format!("holds {} addresses; write at most {LISTEN_MAX}", addresses.len()));
        }
        complete.then_some(addresses)
    }

    fn origins(&mut self, node: &Node) -> Option<Origins> {
        let texts = self.texts(node)?;
        if texts.iter().any(|(text, _)| *text == "*") {
            if texts.len() > 1 {
                let message = "`*` lets every page in, so the others have no meaning; write `*` alone or take it out";
                return self.error(&node.place, message.to_owned());
            }
            return Some(Origins::Any);
        }
        self.each(texts, Origin::from_str).map(Origins::Listed)
    }

    fn networks(&mut self, node: &Node) -> Option<Networks> {
        let texts = self.texts(node)?;
        self.each(texts, Network::from_str).map(Networks)
    }

    fn rate(&mut self, node: &Node) -> Option<Option<Rate>> {
        let Value::Table(entries) = &node.value else { return self.wrong_type(node) };
        let (mut per_s, mut burst, mut complete) = (None, None, true);
        for entry in entries {
            let number = match entry.name.as_str() {
                "per_s" | "burst" => self.rate_number(entry),
                _ => self.unknown_in_rate(entry),
            };
            complete &= number.is_some();
            if entry.name == "per_s" { per_s = number } else { burst = number }
        }
        if !complete {
            return None;
        }
        let Some(per_s) = per_s else {
            return self.error(&node.place, "lacks `per_s`; write `{ per_s = 50, burst = 100 }`".to_owned());
        };
        if per_s == 0.0 {
            return Some(None);
        }
        let burst = burst.unwrap_or(per_s.max(1.0));
        if burst < 1.0 {
            let message = "a burst below 1 lets nothing through; write at least 1, or `per_s = 0` for no limit";
            return self.error(&node.place, message.to_owned());
        }
        Some(Some(Rate { per_s, burst }))
    }

    fn rate_number(&mut self, entry: &Entry) -> Option<f64> {
        let number = match entry.node.value {
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => f64::NAN,
        };
        if (0.0..=RATE_MAX).contains(&number) {
            return Some(number);
        }
        let message = format!("`{}` takes a number from 0 to {RATE_MAX:.0}", entry.name);
        self.error(&entry.node.place, message)
    }

    fn unknown_in_rate(&mut self, entry: &Entry) -> Option<f64> {
        let name = entry.name.chars().take(64).collect::<String>();
        let nearest = if distance(&name, "per_s") <= distance(&name, "burst") { "per_s" } else { "burst" };
        let message = format!("there is no key `{}` in a rate; the nearest is `{nearest}`", entry.name);
        self.error(&entry.place, message)
    }

    /// A string, or an array of strings.
    fn texts<'n>(&mut self, node: &'n Node) -> Option<Vec<(&'n str, &'n Place)>> {
        let nodes = match &node.value {
            Value::Text(_) => std::slice::from_ref(node),
            Value::List(items) => items,
            _ => return self.wrong_type(node),
        };
        let mut texts = Vec::with_capacity(nodes.len());
        for item in nodes {
            match &item.value {
                Value::Text(text) => texts.push((text.as_str(), &item.place)),
                _ => {
                    self.wrong_type::<()>(item);
                }
            }
        }
        (texts.len() == nodes.len()).then_some(texts)
    }

    /// Parses each text; those that fail get the parser's sentence as their finding.
    fn each<T>(&mut self, texts: Vec<(&str, &Place)>, parse: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        let count = texts.len();
        let mut parsed = Vec::with_capacity(count);
        for (text, place) in texts {
            match parse(text) {
                Ok(one) => parsed.push(one),
                Err(message) => {
                    self.error::<()>(place, message);
                }
            }
        }
        (parsed.len() == count).then_some(parsed)
    }
}

/// What is wrong with an address, and how the operator may have meant it. A name could be several, or another tomorrow.
fn no_address(text: &str) -> String {
    let meant = match text.rsplit_once(':') {
        Some(("", port)) => format!("0.0.0.0:{port}"),
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        _ => format!("{text}:8080"),
    };
    let likely = meant.parse::<SocketAddr>().map_or("127.0.0.1:8080".to_owned(), |address| address.to_string());
    let is_name = text.starts_with(|first: char| first.is_ascii_alphabetic());
    let why = if is_name { " (names are not looked up)" } else { "" };
    format!("`{text}` is not an address with a port{why}; write one like \"{likely}\"")
}
