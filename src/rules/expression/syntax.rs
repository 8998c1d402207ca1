//! From text to the syntax tree of the crate `cel`.
//!
//! Invariant: the text is at most `TEXT_BYTES_MAX` bytes and its brackets at most `BRACKETS_MAX` deep, so that neither
//! the parser nor the tree, which is dropped by recursion, can exhaust a stack. Why the crate's second parser: the first,
//! generated one takes 100 kB of stack a bracket (measured on 0.15 without optimisation: 20 brackets end the process).

use cel::IdedExpr;
use cel::parser::PrattParser;

/// Bytes of an expression. Longer: refused at load.
const TEXT_BYTES_MAX: usize = 4_096;
/// Brackets within brackets. Deeper: refused at load.
const BRACKETS_MAX: u16 = 24;

/// The syntax tree.
///
/// # Errors
/// A sentence with the column, from 1, in characters.
pub(super) fn parse(text: &str) -> Result<IdedExpr, String> {
    if text.trim().is_empty() {
        return Err("the expression is empty; write `true`, `false` or what must hold".into());
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!(
            "the expression is longer than {TEXT_BYTES_MAX} bytes; move a part of it into a guard's `set`"
        ));
    }
    let parser = PrattParser::new().max_recursion_depth(BRACKETS_MAX).error_recovery_limit(1).error_reporting_limit(1);
    parser.parse(text).map_err(|errors| {
        let placed = errors.errors.iter().find(|error| error.pos.0 > 0).or(errors.errors.first());
        let Some(error) = placed else {
            return "the expression cannot be read".into();
        };
        if errors.errors.iter().any(|error| error.msg.contains("recursion limit")) {
            return format!("brackets are nested more than {BRACKETS_MAX} deep; move a part into a guard's `set`");
        }
        let offset = offset(text, error.pos);
        format!("{}{}{}", position(text, offset), error.msg.trim_start_matches("Syntax error: "), hint(&text[offset..]))
    })
}

/// `column 5: `, or `line 2, column 5: ` where there are several lines.
pub(super) fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    if text.trim_end().contains('\n') {
        format!("line {}, column {column}: ", before.matches('\n').count() + 1)
    } else {
        format!("column {column}: ")
    }
}

/// The parser counts lines from 1 and the bytes of a line from 1.
fn offset(text: &str, (line, byte): (isize, isize)) -> usize {
    let line = usize::try_from(line - 1).unwrap_or(0);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let mut offset = start.saturating_add(usize::try_from(byte - 1).unwrap_or(0)).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// What those who come from other languages meant.
fn hint(rest: &str) -> &'static str {
    let meant = [
        ("===", "; write `==`"),
        ("and ", "; write `&&`"),
        ("or ", "; write `||`"),
        ("not ", "; write `!`"),
        ("is ", "; write `==`"),
    ];
    if rest.starts_with('=') && !rest.starts_with("==") {
        return "; write `==`";
    }
    meant.iter().find(|(wrong, _)| rest.starts_with(wrong)).map_or("", |(_, hint)| hint)
}
