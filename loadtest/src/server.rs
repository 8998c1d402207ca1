//! The server under test: started, awaited, measured by its process id, and ended with us.
//!
//! Whatever happens to the load generator, no server is left behind: the kernel kills it when this process ends.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::process;

/// A server that the load generator can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// `pipeward serve`.
    Pipeward,
    /// The tokio and tungstenite baseline.
    Baseline,
}

impl Kind {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipeward => "pipeward",
            Self::Baseline => "baseline",
        }
    }

    fn binary(self) -> &'static str {
        match self {
            Self::Pipeward => "pipeward",
            Self::Baseline => "pipeward-baseline",
        }
    }
}

/// How to start it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which.
    pub kind: Kind,
    /// Its worker threads.
    pub workers: u16,
    /// Its binary; none: beside this one.
    pub binary: Option<PathBuf>,
    /// The cores that it may use; none: all.
    pub cores: Option<Vec<usize>>,
    /// Without transparent huge pages, in which memory grows by steps of 2 MiB.
    pub small_pages: bool,
    /// Signs the tokens.
    pub secret: String,
    /// `limits.queue_bytes` of Pipeward.
    pub queue_bytes: u32,
    /// `limits.when_slow` of Pipeward: leave the oldest out instead of closing.
    pub drop_oldest: bool,
    /// `edge.ping_s` of Pipeward, where not its default.
    pub ping_s: Option<u32>,
    /// Before all other programs of its cores.
    pub realtime: bool,
}

/// Time for it to become ready.
const START: Duration = Duration::from_secs(10);
/// Time for it to end by itself before it is killed.
const END: Duration = Duration::from_secs(2);
/// Of what it wrote to stderr, so much of the end is looked at.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// A running server; dropping it ends it.
pub struct Server {
    child: Child,
    address: SocketAddrV4,
    /// What it writes to stderr; the file has no name any more.
    errors: fs::File,
    /// Its configuration and its store; several servers may run at once.
    folder: PathBuf,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1 and waits until it is ready.
    pub fn start(settings: &Settings) -> Result<Self, String> {
        let binary = locate(settings)?;
        let address = free_address().map_err(|error| format!("no free port: {error}"))?;
        let folder = temporary(&format!("pipeward-loadtest-{}-{}", std::process::id(), address.port()));
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (config, log) = (folder.join("pipeward.toml"), folder.join("log"));
        let mut command = Command::new(&binary);
        match settings.kind {
            Kind::Baseline => {
                command.arg("--listen").arg(address.to_string()).arg("--workers").arg(settings.workers.to_string());
            }
            Kind::Pipeward => {
                write_private(&config, &configuration(settings, address))?;
                command.arg("serve").arg("--config").arg(&config);
            }
        }
        let errors = nameless(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let copy = errors.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(copy);
        prepare(&mut command, settings);
        let spawned = command.spawn().map_err(|error| format!("{}: {error}", binary.display()));
        let ready = spawned.and_then(|child| {
            let mut server = Self { child, address, errors, folder: folder.clone() };
            server.await_ready(settings.kind).map(|()| server)
        });
        if ready.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        ready
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn await_ready(&mut self, kind: Kind) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < START {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server ended with {status}: {}", self.errors()));
            }
            let ready = match kind {
                Kind::Baseline => TcpStream::connect(self.address).is_ok(),
                Kind::Pipeward => is_ready(self.address),
            };
            if ready {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("the server was not ready within {} s: {}", START.as_secs(), self.errors()))
    }

    /// The end of what it wrote to stderr.
    fn errors(&self) -> String {
        let length = self.errors.metadata().map_or(0, |metadata| metadata.len());
        let tail = length.min(ERROR_BYTES_MAX);
        let mut text = vec![0; tail as usize];
        let _ = self.errors.read_exact_at(&mut text, length - tail);
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet waited for, so that its id is not another's.
        unsafe { libc::kill(self.pid(), libc::SIGTERM) };
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begin.elapsed() < END {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn locate(settings: &Settings) -> Result<PathBuf, String> {
    if let Some(binary) = &settings.binary {
        return Ok(binary.clone());
    }
    let name = settings.kind.binary();
    let own = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let beside = own.with_file_name(name);
    if beside.is_file() {
        return Ok(beside);
    }
    Err(format!("{} is missing: build it with `cargo build --release -p {name}` or give --bin", beside.display()))
}

/// Everything that happens between fork and exec.
fn prepare(command: &mut Command, settings: &Settings) {
    let cores = settings.cores.clone();
    let (small_pages, realtime) = (settings.small_pages, settings.realtime);
    let parent = std::process::id() as i32;
    let actions = move || {
        if let Some(cores) = &cores {
            process::pin(cores)?;
        }
        if realtime && !process::first_on_its_core_for_good() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain system calls on this process; they allocate nothing.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // Nobody tells of a parent that was gone before that.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            if small_pages {
                libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes async-signal-safe system calls only.
    unsafe { command.pre_exec(actions) };
}

/// No limit that a load test could meet, but those that it asks for.
fn configuration(settings: &Settings, address: SocketAddrV4) -> String {
    let off = "{ per_s = 0, burst = 0 }";
    let ping = settings.ping_s.map_or_else(String::new, |ping_s| format!("ping_s = {ping_s}\n"));
    let when_slow = if settings.drop_oldest { "drop_oldest" } else { "close" };
    let Settings { workers, secret, queue_bytes, .. } = settings;
    format!(
        "[edge]\nlisten = \"{address}\"\nworkers = {workers}\n{ping}\n[control]\nlisten = \"127.0.0.1:0\"\n\n[auth.token]\nhmac_secret = \"{secret}\"\n\n\
         [limits]\nconnections = 0\nhandshakes_per_s = 0\nsubscriptions = 0\n\
         queue_bytes = {queue_bytes}\nwhen_slow = \"{when_slow}\"\n\
         message = {off}\npublish = {off}\nsubscribe = {off}\nbytes = {off}\n"
    )
}

fn is_ready(address: SocketAddrV4) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

fn free_address() -> io::Result<SocketAddrV4> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

/// A new file that is gone when everybody has closed it, also if this process is killed.
fn nameless(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// A new file that only its owner may read.
fn write_private(path: &Path, text: &str) -> Result<(), String> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn settings(binary: &str) -> Settings {
        let binary = Some(PathBuf::from(binary));
        let secret = "x".repeat(32);
        let (queue_bytes, drop_oldest, ping_s) = (1 << 20, false, None);
        let kind = Kind::Baseline;
        let (cores, small_pages, realtime) = (None, false, false);
        Settings { kind, workers: 1, binary, cores, small_pages, secret, queue_bytes, drop_oldest, ping_s, realtime }
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_with_its_status() {
        let error = Server::start(&settings("/bin/false")).err().unwrap();
        assert!(error.contains("exit status: 1"), "{error}");
    }

    #[test]
    fn what_the_server_said_before_it_ended_is_told() {
        let script = temporary(&format!("pipeward-loadtest-test-{}.sh", std::process::id()));
        fs::write(&script, "#!/bin/sh\necho 'no such key' >&2\nexit 2\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        let error = Server::start(&settings(script.to_str().unwrap())).err().unwrap();
        fs::remove_file(&script).unwrap();
        assert!(error.contains("exit status: 2: no such key"), "{error}");
    }

    #[test]
    fn a_missing_binary_is_an_error_with_its_path() {
        let error = Server::start(&settings("/nonexistent/server")).err().unwrap();
        assert!(error.contains("/nonexistent/server"), "{error}");
    }
}
