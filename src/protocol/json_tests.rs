//! The grammar word by word, and where the scanner notes more than the grammar.

use super::*;

/// (too deep, unpaired surrogate) of a text that is one JSON value.
fn scan(text: &str) -> Option<(bool, bool)> {
    let mut scanner = Scanner::new(text);
    scanner.value().ok()?;
    scanner.at_end().then_some((scanner.too_deep, scanner.unpaired_surrogate))
}

#[test]
fn the_grammar_is_that_of_rfc_8259() {
    for text in [
        "0",
        "-0",
        "1.5e+10",
        "1E400",
        "12345678901234567890123",
        " [ ] ",
        "{\t}",
        "\"\"",
        r#"{"a":{"b":[1,{},[],"x",null,true,false]},"c":-1}"#,
        "\"\u{7f}\u{2028}é\u{10ffff}\"",
        r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\uDE00""#,
        "\r\n[1 , 2]\n",
    ] {
        assert_eq!(scan(text), Some((false, false)), "{text}");
    }
    for text in [
        "",
        " ",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "nul",
        "True",
        "truex",
        "1 2",
        "[1,]",
        "[,1]",
        "[1",
        "[1}",
        "{]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{1:1}",
        "[1:2]",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"\n\"",
        "\"\0\"",
        "\u{feff}1",
        "\u{a0}1",
        "[1]]",
        "{}{}",
        "//\n1",
        "[1\u{c}]",
        "\0",
        "\"a\\",
        "\"a\\u",
    ] {
        assert_eq!(scan(text), None, "{text}");
    }
}

#[test]
fn half_a_surrogate_pair_is_noted() {
    for inside in
        [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\n", r"\ud800\ud800", r"\udc00\ud800", r"\ud83d\ude00\udfff"]
    {
        assert_eq!(scan(&format!("[\"{inside}\"]")), Some((false, true)), "{inside}");
    }
    assert_eq!(scan(r#""\ud800\ud83d\ude00""#), Some((false, true)));
    for pair in [r"\ud800\udc00", r"\ud800\udfff", r"\udbff\udc00", r"\uDBFF\uDFFF", r"\ud7ff", r"\ue000"] {
        assert_eq!(scan(&format!("\"{pair}\"")), Some((false, false)), "{pair}");
    }
    assert_eq!(scan(r#""\ud800\u""#), None);
    assert_eq!(scan(r#""\ud800\ud8""#), None);
}

#[test]
fn depth_is_followed_beyond_what_is_allowed() {
    // C5
    for depth in [1, 127, 128, 129, 255, 256, 257, 1000, 5000] {
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(&arrays), Some((depth > 128, false)), "{depth}");
        let objects = format!("{}{}{}", "{\"a\":[".repeat(depth / 2), 1, "]}".repeat(depth / 2));
        assert_eq!(scan(&objects), Some((depth / 2 * 2 > 128, false)));
        assert_eq!(scan(&arrays[..arrays.len() - 1]), None);
        assert_eq!(scan(&objects.replacen(']', "}", 1)).filter(|_| depth > 1), None);
    }
}

#[test]
fn strings_are_unescaped() {
    let value = |text| Scanner::new(text).value().map(|value| value.string());
    assert!(matches!(value("\"plain é\""), Ok(Some(Cow::Borrowed("plain é")))));
    assert_eq!(value(r#""a\u0062\/\"\\\n\ud83d\ude00z""#), Ok(Some("ab/\"\\\n😀z".into())));
    assert_eq!(value("12"), Ok(None));
}

#[test]
fn plain_len_finds_the_first_special_byte() {
    for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
        for at in 0..40 {
            let mut bytes = vec![b'x'; 40];
            bytes[..at].iter_mut().enumerate().for_each(|(i, byte)| *byte = [0x80, 0xff, 0x20, 0x7f, 0x21][i % 5]);
            bytes[at] = special;
            assert_eq!(plain_len(&bytes), at);
        }
    }
    assert_eq!(plain_len(&[0xa2; 19]), 19);
}
