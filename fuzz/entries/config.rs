//! The fuzz entry of the configuration text, shared by `cargo fuzz` and `tests/fuzz.rs`.
//!
//! It lives here and not in the server because the module that reads a configuration also reads the files that it
//! names: text that names a file is left out, so that nothing but the text decides the result.

use std::path::Path;

use pipeward::bounds::WORKERS_MAX;
use pipeward::config;

/// Reads `data` as a configuration.
///
/// # Panics
/// If a finding has no place or no sentence, if what was accepted is out of range, or if reading it twice differs.
pub fn fuzz_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // A key may be spelt with escapes, in quotes. A schema may be a file too: one of the folder that is not there, or
    // one with a path of its own.
    let names_path = text.contains("'/") || text.contains("\"/");
    if text.contains("_file") || text.contains('\\') || (text.contains("schema") && names_path) {
        return;
    }
    let read = || config::parse(text, Path::new("no such folder"), &mut std::iter::empty());
    let loaded = read();
    let findings = match &loaded {
        Ok((_, warnings)) => warnings,
        Err(findings) => findings,
    };
    let lines = text.split('\n').count();
    for finding in findings {
        assert!(finding.line as usize <= lines, "line {} of {lines}", finding.line);
        assert!(!finding.message.is_empty());
    }
    assert_eq!(loaded.is_err(), findings.iter().any(|finding| finding.is_error()));
    match (&loaded, read()) {
        (Ok((_, first)), Ok((_, second))) => assert_eq!(first, &second),
        (Err(first), Err(second)) => assert_eq!(first, &second),
        _ => panic!("accepted once and refused once"),
    }
    let Ok((config, _)) = &loaded else { return };
    let (edge, limits) = (&config.edge, &config.limits);
    assert!(!edge.listen.is_empty() && (1..=WORKERS_MAX).contains(&edge.workers));
    assert!(edge.ping_s > 0 && edge.handshake_s > 0);
    assert!(limits.message_bytes > 0 && limits.subscriptions > 0 && limits.queue_bytes > 0);
    for rate in [limits.rates.bytes, limits.per_user.bytes, limits.per_tenant.bytes].into_iter().flatten() {
        assert!(rate.burst >= f64::from(limits.message_bytes), "A8: one whole message must fit the burst");
    }
    for rates in [&limits.rates, &limits.per_user, &limits.per_tenant] {
        let all = [rates.message, rates.publish, rates.subscribe, rates.presence, rates.refresh, rates.bytes];
        for rate in all.into_iter().flatten() {
            assert!(rate.per_s.is_finite() && rate.per_s > 0.0 && rate.burst.is_finite() && rate.burst >= 1.0);
        }
    }
    let rules = &config.rules;
    for pipe in &rules.pipes {
        assert!(pipe.place.line as usize <= lines && pipe.events.len() <= 63);
        assert!(pipe.module.is_none_or(|module| module < rules.modules.len()));
    }
    assert!(rules.actions.is_sorted_by(|one, other| one.name < other.name), "looked up by halves");
    assert!(rules.queues.is_sorted_by(|one, other| one.name < other.name), "looked up by halves");
}
