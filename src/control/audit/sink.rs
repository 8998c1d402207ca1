//! Where the lines go: stdout, or a file that is rotated by size.
//!
//! Invariants: a place only ever holds whole lines (what a full disk cut off is taken back, or at least ended); a
//! rotated file is at most [`AuditBounds::file_bytes`] long, and there are at most [`AuditBounds::files`] older ones. A
//! file that somebody moves or removes is noticed at the next batch and made anew. Where renaming is refused the file
//! is written on: a record is worth more than its place.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::AuditBounds;

/// Rights of a file that we make: it tells who did what from where.
const MODE: u32 = 0o640;

/// An open place.
pub(super) struct Sink {
    /// None for stdout.
    path: Option<PathBuf>,
    bounds: AuditBounds,
    /// None after it could not be opened again.
    file: Option<File>,
    /// The last byte is not the end of a line.
    torn: bool,
}

/// What came of a batch.
pub(super) struct Outcome {
    /// Bytes that are there to stay: whole lines.
    pub bytes: usize,
    /// Why that was not all, or what else is wrong with the place.
    pub error: Option<io::Error>,
}

impl Sink {
    /// Standard output, past the buffer of the standard library.
    pub fn stdout() -> io::Result<Sink> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Sink { path: None, bounds: AuditBounds::default(), file: Some(file), torn: false })
    }

    /// A file, which is made if it is not there.
    pub fn file(path: &Path, bounds: AuditBounds) -> io::Result<Sink> {
        let mut sink = Sink { path: Some(path.to_owned()), bounds, file: None, torn: false };
        sink.open()?;
        Ok(sink)
    }

    /// Writes a batch of whole lines.
    pub fn write(&mut self, batch: &[u8]) -> Outcome {
        let rotation = match self.prepare(batch.len() as u64) {
            Ok(rotation) => rotation,
            Err(error) => return Outcome { bytes: 0, error: Some(error) },
        };
        let Some(file) = self.file.as_mut() else {
            return Outcome { bytes: 0, error: Some(ErrorKind::NotFound.into()) };
        };
        if self.torn {
            match put(file, b"\n") {
                (1, _) => self.torn = false,
                (_, error) => return Outcome { bytes: 0, error },
            }
        }
        let (bytes, error) = put(file, batch);
        let whole = whole_lines(&batch[..bytes]);
        if whole < bytes {
            self.torn = take_back(file, (bytes - whole) as u64).is_err();
        }
        Outcome { bytes: whole, error: error.or(rotation) }
    }

    /// Sees to it that the right file is open. The inner error is one that does not prevent writing.
    fn prepare(&mut self, bytes: u64) -> io::Result<Option<io::Error>> {
        let Some(path) = &self.path else { return Ok(None) };
        let Some(file) = &self.file else { return self.open().map(|()| None) };
        let own = file.metadata()?;
        if !own.is_file() {
            return Ok(None);
        }
        match fs::metadata(path) {
            Ok(there) if is_same(&own, &there) => {}
            Err(error) if error.kind() != ErrorKind::NotFound => return Ok(Some(error)),
            _ => return self.open().map(|()| None),
        }
        if own.len() == 0 || own.len() + bytes <= self.bounds.file_bytes {
            return Ok(None);
        }
        if let Err(error) = rotate(path, self.bounds.files) {
            return Ok(Some(error));
        }
        self.open().map(|()| None)
    }

    fn open(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        self.file = None;
        // To open a pipe would wait for somebody to read it.
        if fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo()) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is a named pipe; use \"-\" and a pipeline"));
        }
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        self.torn = is_torn(path, &file.metadata()?);
        self.file = Some(file);
        Ok(())
    }
}

/// Writes as much as can be written.
pub(super) fn put(out: &mut impl Write, mut bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(count) => {
                written += count;
                bytes = &bytes[count..];
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

/// Bytes up to the end of the last whole line.
pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

/// Takes the last bytes off a file.
pub(super) fn take_back(file: &File, bytes: u64) -> io::Result<()> {
    let own = file.metadata()?;
    if !own.is_file() {
        return Err(ErrorKind::Unsupported.into());
    }
    file.set_len(own.len().saturating_sub(bytes))
}

/// `path` becomes `.1`, `.1` becomes `.2` and so on; the last one is replaced.
fn rotate(path: &Path, files: u32) -> io::Result<()> {
    for number in (1..files.max(1)).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(path, 1))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    one.dev() == other.dev() && one.ino() == other.ino()
}

/// Whether the file ends within a line, as after a crash in the middle of a write. One that may not be read is not.
fn is_torn(path: &Path, own: &Metadata) -> bool {
    let mut last = [b'\n'];
    if own.is_file() && own.len() > 0 {
        let _ = File::open(path).and_then(|file| file.read_exact_at(&mut last, own.len() - 1));
    }
    last != *b"\n"
}
