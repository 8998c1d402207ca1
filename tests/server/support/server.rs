//! One server process: started on a free port, listened to on stderr, killed when dropped.
//!
//! A server that ends without having been told to fails its test, whatever else the test looks at; its log is printed
//! when a test fails.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{PATIENCE, SECRET};

/// How a server is started.
pub struct Launch {
    command: Command,
    directory: tempfile::TempDir,
}

impl Launch {
    /// `pipeward serve --config FILE` with this text as FILE, on a free port of 127.0.0.1 unless the text says `listen`.
    /// Tokens are signed with [`SECRET`] unless the text has another key or `without_token_key` is called.
    pub fn new(config: &str) -> Launch {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pipeward.toml");
        std::fs::write(&file, config).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeward"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PIPEWARD_") && name != "PIPEWARD_BACKEND" {
                command.env_remove(name);
            }
        }
        command.arg("serve").arg("--config").arg(&file).env("RUST_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if !config.contains("listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !config.contains("hmac_secret") && !config.contains("public_key_file") {
            command.env("PIPEWARD_AUTH__TOKEN__HMAC_SECRET", SECRET);
        }
        Launch { command, directory }
    }

    /// No `[auth.token]` at all.
    pub fn without_token_key(mut self) -> Launch {
        self.command.env_remove("PIPEWARD_AUTH__TOKEN__HMAC_SECRET");
        self
    }

    /// One more argument of `serve`.
    pub fn argument(mut self, argument: &str) -> Launch {
        self.command.arg(argument);
        self
    }

    /// One more environment variable.
    pub fn variable(mut self, name: &str, value: &str) -> Launch {
        self.command.env(name, value);
        self
    }

    /// A file beside the configuration.
    pub fn file(self, name: &str, bytes: &[u8]) -> Launch {
        std::fs::write(self.directory.path().join(name), bytes).expect("a file");
        self
    }

    /// What is called in the child before the program begins, such as setting its limits. It must be async-signal-safe.
    pub fn before(mut self, prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static) -> Launch {
        use std::os::unix::process::CommandExt as _;
        // SAFETY: callers only make plain system calls in it, as the contract above says.
        unsafe { self.command.pre_exec(prepare) };
        self
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Server {
        let mut server = self.spawn();
        let line = server.log_line("listening on ");
        server.address = address_in(&line);
        server
    }

    /// Starts it where it is not expected to listen; see [`Server::exit_code`].
    pub fn spawn(mut self) -> Server {
        let mut child = self.command.spawn().expect("the program starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("it is piped");
        let reader = log.clone();
        std::thread::spawn(move || reader.follow(stderr));
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        Server { child, address, log, ended: false, reports: Mutex::new(()), _directory: self.directory }
    }
}

/// A server process.
pub struct Server {
    child: Child,
    /// Where it listens; the first address if there are several.
    pub address: SocketAddr,
    log: Arc<Log>,
    ended: bool,
    reports: Mutex<()>,
    _directory: tempfile::TempDir,
}

impl Server {
    /// A server with this configuration; see [`Launch::new`].
    #[track_caller]
    pub fn start(config: &str) -> Server {
        Launch::new(config).start()
    }

    /// All addresses that it has said it listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.log().iter().filter(|line| line.contains("listening on ")).map(|line| address_in(line)).collect()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its worker threads.
    pub fn workers(&self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("worker-")).count()
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// Sends it a signal, such as `libc::SIGTERM`.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointers; the process is our child and not yet waited for.
        let result = unsafe { libc::kill(self.pid() as i32, signal) };
        assert_eq!(result, 0, "signal {signal}");
    }

    /// All lines of its log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The first line of its log that contains `text`, awaited.
    #[track_caller]
    pub fn log_line(&self, text: &str) -> String {
        let found = self.log.wait(0, |lines| lines.iter().find(|line| line.contains(text)).cloned());
        found.unwrap_or_else(|lines| panic!("no line with {text:?} in the log:\n{}", lines.join("\n")))
    }

    /// Its counters, summed over the workers.
    #[track_caller]
    pub fn counters(&self) -> Counters {
        let _one_at_a_time = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, workers) = (self.log().len(), self.workers());
        self.signal(libc::SIGUSR1);
        let reports = self.log.wait(before, |lines| {
            let reports: Vec<String> = lines.iter().filter(|line| is_report(line)).cloned().collect();
            (reports.len() == workers).then_some(reports)
        });
        match reports {
            Ok(reports) => Counters::sum(&reports),
            Err(lines) => panic!("no reports of {workers} workers in the log:\n{}", lines.join("\n")),
        }
    }

    /// One counter by its name, such as `welcomed`, `refused[INVALID]` or `mesh.missed`; 0 where it is not reported.
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        self.counters().get(name)
    }

    /// Waits until the counter has this value.
    #[track_caller]
    pub fn until_counter(&self, name: &str, value: u64) {
        let mut last = None;
        let began = Instant::now();
        while last != Some(value) {
            assert!(began.elapsed() < PATIENCE, "{name} is {last:?}, not {value}");
            last = Some(self.counter(name));
        }
    }

    /// Waits for its end. None: a signal killed it.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                self.ended = true;
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "still running; its log:\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let early = if self.ended { None } else { self.child.try_wait().ok().flatten() };
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() || early.is_some() {
            eprintln!("--- log of the server\n{}\n---", self.log().join("\n"));
        }
        if let Some(status) = early
            && !std::thread::panicking()
        {
            panic!("the server ended by itself: {status}");
        }
    }
}

/// Counters of all workers, summed.
#[derive(Debug, Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// One counter; 0 where it was not reported.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Those that one line of the log reports.
    pub fn of(line: &str) -> Counters {
        Counters::sum(&[line.to_owned()])
    }

    /// `name=value` of the shard; `mesh=Counters { name: value, … }` becomes `mesh.name`, `sockets` alike.
    fn sum(reports: &[String]) -> Counters {
        let mut sums = BTreeMap::new();
        for report in reports {
            let (mut group, mut field) = ("", "");
            for word in report.split_whitespace().map(|word| word.trim_end_matches(',')) {
                let (name, value) = match (word.split_once('='), word.strip_suffix(':')) {
                    (Some((name, "Counters")), _) => {
                        group = name;
                        continue;
                    }
                    (Some((name, value)), _) => (name.to_owned(), value),
                    (None, Some(name)) => {
                        field = name;
                        continue;
                    }
                    (None, None) => (format!("{group}.{field}"), word),
                };
                if let Ok(value) = value.parse::<u64>() {
                    *sums.entry(name).or_default() += value;
                }
            }
        }
        Counters(sums)
    }
}

fn is_report(line: &str) -> bool {
    line.contains(" worker ") && line.contains(": connections=")
}

fn address_in(line: &str) -> SocketAddr {
    let address = line.rsplit(' ').next().unwrap_or_default();
    address.parse().unwrap_or_else(|_| panic!("no address in {line:?}"))
}

/// The lines of the log, and who waits for more.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Log {
    fn follow(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            self.changed.notify_all();
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `find` finds something in the lines from `first` on; all lines if it does not.
    fn wait<T>(&self, first: usize, mut find: impl FnMut(&[String]) -> Option<T>) -> Result<T, Vec<String>> {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = find(&lines[first..]) {
                return Ok(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(lines.clone());
            }
            lines = self.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
