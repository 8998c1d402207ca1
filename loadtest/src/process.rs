//! What a process costs, read from outside: CPU time, memory, and the kernel's memory of the machine.

use std::fs;
use std::io;

/// CPU time of a process with all its threads, ended ones included, in nanoseconds.
///
/// The process's own CPU clock is exact, where `utime` and `stime` in `/proc/PID/stat` move in ticks of 10 ms. It
/// holds the kernel's time on behalf of the process too; on loopback that includes handing the bytes to the receiver's
/// socket.
pub fn cpu_ns(pid: i32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: writes one clockid_t.
    let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    if unsafe { libc::clock_gettime(clock, &mut time) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Time that the living threads of a process were ready to run and had to wait for a core, in nanoseconds.
///
/// Much of it means that other programs ran on the server's cores, and that caches and figures are not its own.
pub fn waited_ns(pid: i32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // Gone since: it waits no more.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        sum += text.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// The kernel's network threads (`ksoftirqd/N`) of some cores, by process id; those that can be seen.
///
/// When much arrives at once, the kernel leaves the receiving half of loopback to them instead of doing it within the
/// sender's system call. That halves a server's own CPU time while nothing got cheaper, so both are counted.
pub fn softirq_threads(cores: &[usize]) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let names: Vec<String> = cores.iter().map(|core| format!("ksoftirqd/{core}")).collect();
    let pid = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        names.iter().any(|wanted| wanted == name.trim()).then_some(pid)
    };
    processes.flatten().filter_map(pid).collect()
}

/// CPU time of a kernel thread, in nanoseconds.
pub fn thread_cpu_ns(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let field = text.split_whitespace().next().and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::other("no CPU time in schedstat"))
}

/// Resident memory of a process in bytes. From `smaps_rollup`, which counts pages; where that is not readable from
/// `status`, which may lag by some pages per core.
pub fn rss_bytes(pid: i32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let (text, key) = match rollup {
        Ok(text) => (text, "Rss:"),
        Err(_) => (fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:"),
    };
    kilobytes(&text, key).ok_or_else(|| io::Error::other(format!("no {key} of process {pid}")))
}

/// The kernel's slab memory of the whole machine in bytes: sockets, files, and what hangs on them. On loopback both
/// ends of every connection are in it.
pub fn slab_bytes() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "Slab:")
}

/// A line of `/proc/meminfo` and its like, in bytes.
pub fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Raises the limit of open files as far as allowed and checks that it is enough for `connections`.
pub fn reserve_files(connections: usize) -> Result<(), String> {
    /// Standard streams, the ring, pipes to the server.
    const BESIDES: usize = 32;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads and writes one rlimit.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 {
            limit = raised;
        }
    }
    let needed = connections + BESIDES;
    if limit.rlim_cur >= needed as u64 {
        return Ok(());
    }
    Err(format!(
        "{connections} connections need {needed} open files here and in the server; the limit is {}: \
         raise it (`ulimit -n {needed}`) or ask for fewer connections",
        limit.rlim_cur
    ))
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    // SAFETY: an all-zero set is valid, and the call writes at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        set
    };
    // SAFETY: reads one bit of the set, below its size.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Binds the calling thread, and what it starts later, to some cores. Safe between fork and exec: it allocates nothing.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero set is valid; cores beyond its size are left out; the call reads at most its size.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(*core, &mut set);
        }
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts the calling thread before all others of its core (`SCHED_FIFO`), or back among them. It must sleep when it has
/// nothing to do. False: not allowed.
pub fn first_on_its_core(first: bool) -> bool {
    // Those that it starts while it is first are not. The flag must go again: it would also take their niceness away.
    let policy = if first { libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK } else { libc::SCHED_OTHER };
    schedule(policy, i32::from(first))
}

/// The same for the calling thread and those that it starts. Safe between fork and exec: it allocates nothing.
pub fn first_on_its_core_for_good() -> bool {
    schedule(libc::SCHED_FIFO, 1)
}

fn schedule(policy: i32, priority: i32) -> bool {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: reads one sched_param; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &parameters) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_clock_of_this_process_advances_with_work() {
        let pid = std::process::id() as i32;
        let before = cpu_ns(pid).unwrap();
        let mut sum = 0u64;
        let begin = std::time::Instant::now();
        while begin.elapsed().as_millis() < 20 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_ns(pid).unwrap() - before > 1_000_000);
        assert!(waited_ns(pid).is_ok());
        // Above the highest process id that Linux gives.
        assert!(cpu_ns((1 << 22) + 1).is_err());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let rss = rss_bytes(std::process::id() as i32).unwrap();
        assert!((100 << 10..100 << 30).contains(&rss), "{rss}");
        assert_eq!(kilobytes("A: 1 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(kilobytes("", "VmRSS:"), None);
    }

    #[test]
    fn too_many_connections_for_the_file_limit_are_refused_with_advice() {
        assert!(reserve_files(10).is_ok());
        let error = reserve_files(usize::MAX / 2).unwrap_err();
        assert!(error.contains("ulimit -n"), "{error}");
    }
}
