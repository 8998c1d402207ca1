//! What a full disk does to the middle of a batch. The rest is tested from outside, in `tests/audit.rs`.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};

use super::AuditBounds;
use super::sink::{Sink, put, take_back, whole_lines};

/// Takes a few bytes at a time, then no more.
struct Filling {
    room: usize,
    step: usize,
    interrupted: bool,
}

impl Write for Filling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.room == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let count = bytes.len().min(self.step).min(self.room);
        self.room -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_short_write_goes_on_and_a_failed_one_says_how_far_it_came() {
    for (room, step, written) in [(0, 3, 0), (7, 3, 7), (9, 2, 9), (99, 2, 10), (10, 10, 10)] {
        let (bytes, error) = put(&mut Filling { room, step, interrupted: false }, b"0123456789");
        assert_eq!(bytes, written);
        assert_eq!(error.map(|error| error.kind()), (written < 10).then_some(ErrorKind::StorageFull));
    }
}

#[test]
fn what_was_cut_off_is_taken_back() {
    assert_eq!([whole_lines(b""), whole_lines(b"ab"), whole_lines(b"a\nb\nc"), whole_lines(b"a\n")], [0, 0, 4, 2]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    fs::write(&path, "one\ntwo\nthr").expect("written");
    take_back(&File::options().append(true).open(&path).expect("open"), 3).expect("taken back");
    assert_eq!(fs::read_to_string(&path).expect("read"), "one\ntwo\n");
    assert!(take_back(&File::options().append(true).open("/dev/null").expect("open"), 3).is_err());
}

#[test]
fn a_line_that_a_crash_cut_off_is_ended_before_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    fs::write(&path, "one\nhal").expect("written");
    let mut sink = Sink::file(&path, AuditBounds::default()).expect("a sink");
    let outcome = sink.write(b"two\n");
    assert!(outcome.bytes == 4 && outcome.error.is_none());
    assert_eq!(sink.write(b"three\n").bytes, 6);
    assert_eq!(fs::read_to_string(&path).expect("read"), "one\nhal\ntwo\nthree\n");
}
