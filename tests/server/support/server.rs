//! One server process: started on a free port, listened to on stderr, killed when dropped.
//!
//! A server that ends without having been told to fails its test, whatever else the test looks at; its log is printed
//! when a test fails.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{API_KEY, Api, PATIENCE, SECRET};

/// How a server is started.
pub struct Launch {
    command: Command,
    directory: tempfile::TempDir,
}

impl Launch {
    /// `pipeward serve --config FILE` with this text as FILE, on a free port of 127.0.0.1 unless the text says `listen`.
    /// Tokens are signed with [`SECRET`] unless the text has another key or `without_token_key` is called. The server API
    /// is on a free port as well and takes [`API_KEY`], unless the text has a `[control]`. The store lies beside FILE.
    pub fn new(config: &str) -> Launch {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pipeward.toml");
        write_config(&file, config);
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

    /// The place of a file beside the configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
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
        server.api = Api { address: address_in(&server.log_line("server API on ")) };
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
        let (api, reports) = (Api { address }, Mutex::new(()));
        Server { child, address, api, log, ended: false, reports, launch: Some(self) }
    }
}

/// A server process.
pub struct Server {
    child: Child,
    /// Where it listens; the first address if there are several.
    pub address: SocketAddr,
    /// Its API for the application.
    pub api: Api,
    log: Arc<Log>,
    ended: bool,
    reports: Mutex<()>,
    /// Taken when it is started once more.
    launch: Option<Launch>,
}

/// How long the workers are given to report before they are asked again.
const REPORT_WAIT: Duration = Duration::from_secs(2);

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

    /// The place of a file beside its configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.launch.as_ref().expect("it was launched").path(name)
    }

    /// Replaces its configuration file and has it read again. Whether it was taken; workers may take it up a little later.
    #[track_caller]
    pub fn reload(&self, config: &str) -> bool {
        let before = self.log().len();
        write_config(&self.path("pipeward.toml"), config);
        self.signal(libc::SIGHUP);
        let outcome = |line: &String| {
            let refused = line.contains("configuration was not reloaded").then_some(false);
            refused.or(line.contains("configuration was reloaded").then_some(true))
        };
        let found = self.log.wait(before, |lines| lines.iter().find_map(outcome));
        found.unwrap_or_else(|lines| panic!("nothing about a reload in the log:\n{}", lines.join("\n")))
    }

    /// Kills it (SIGKILL), whatever it does. It can be started again with what it has left behind.
    #[track_caller]
    pub fn kill(mut self) -> Launch {
        assert!(self.is_running(), "it has ended by itself");
        self.signal(libc::SIGKILL);
        self.killed()
    }

    /// After a signal that killed it. It can be started again with what it has left behind.
    #[track_caller]
    pub fn killed(mut self) -> Launch {
        assert_eq!(self.exit_code(), None);
        self.launch.take().expect("it was launched")
    }

    /// After it has ended by itself. It can be started again with what it has left behind.
    #[track_caller]
    pub fn ended(mut self) -> Launch {
        assert!(self.exit_code().is_some(), "a signal killed it");
        self.launch.take().expect("it was launched")
    }

    /// Lets it end in its own time (SIGTERM). It can be started again with what it has left behind.
    #[track_caller]
    pub fn stop(mut self) -> Launch {
        self.signal(libc::SIGTERM);
        assert_eq!(self.exit_code(), Some(0));
        self.launch.take().expect("it was launched")
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
        let began = Instant::now();
        loop {
            // Said again where nobody answers: two signals that wait together are one.
            self.signal(libc::SIGUSR1);
            let reports = self.log.wait_for(REPORT_WAIT, before, |lines| {
                let of = |worker: usize| {
                    let mark = format!("worker {worker}: ");
                    lines.iter().rfind(|line| is_report(line) && line.contains(&mark)).cloned()
                };
                (0..workers).map(of).collect::<Option<Vec<String>>>()
            });
            match reports {
                Ok(reports) => return Counters::sum(&reports),
                Err(lines) if began.elapsed() > PATIENCE => {
                    panic!("no reports of {workers} workers in the log:\n{}", lines.join("\n"))
                }
                Err(_) => {}
            }
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

/// Writes the configuration, with what every server of the tests is given.
fn write_config(file: &Path, config: &str) {
    let control = format!(
        "\n[control]\nlisten = \"127.0.0.1:0\"\n[[control.key]]\nname = \"tests\"\nsecret = \"{API_KEY}\"\nallow = [\"*\"]\n"
    );
    let control = if config.contains("[control]") { "" } else { &control };
    std::fs::write(file, format!("{config}{control}")).expect("a file");
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
    fn wait<T>(&self, first: usize, find: impl FnMut(&[String]) -> Option<T>) -> Result<T, Vec<String>> {
        self.wait_for(PATIENCE, first, find)
    }

    fn wait_for<T>(
        &self,
        most: Duration,
        first: usize,
        mut find: impl FnMut(&[String]) -> Option<T>,
    ) -> Result<T, Vec<String>> {
        let until = Instant::now() + most;
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
