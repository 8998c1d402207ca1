//! What outlives the process: every revocation, and the messages of queues, in one redb file.
//!
//! Invariant: when [`Store::write`] has answered well, the change has passed an fsync and no crash undoes it. Changes
//! take effect in the order in which they were handed over. A file that cannot be read to its last entry is refused
//! with what to do about it: starting without a revocation would quietly give back what was taken.
//!
//! How: one thread owns the file. It takes whatever has gathered while the disk was busy with the last commit, makes one
//! transaction of it and answers everybody after the commit; so the first of many waits for no timer and the others
//! share the next fsync (INVARIANTS 32). After any failed commit nothing is known about the file any more: from then on
//! every write fails until the process is started again, which reads the file anew (INVARIANTS 6).
//!
//! Every open verifies the checksum of every page, crash or not.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition};
use tokio::sync::oneshot;

use super::coding;
use super::queues::shelf::{self, Edit};
use crate::shard::revocation::{Entry, Restoration};

/// The version of the file's layout. A file of a later one is refused.
const FORMAT: u64 = 1;
/// Changes that wait for the disk. More: [`StoreError::Full`].
const QUEUE_MAX: usize = 4096;
/// Changes in one transaction.
const BATCH_MAX: usize = 1024;
/// Bytes of pages that redb keeps in memory. What is read often is in the table of revocations already.
const CACHE_BYTES: usize = 8 << 20;

const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");
const ENTRIES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("revocations");

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    /// Keep this entry, in place of the one about the same.
    Put(Entry),
    /// Forget the entry about the same.
    Remove(Entry),
    /// Forget what is lifted.
    Lift(Restoration),
    /// Forget the entries with these keys: what had ended before it was loaded.
    Sweep(Vec<Vec<u8>>),
    /// Of a queue.
    Queue(Edit),
}

/// Why a change is not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Too many changes wait; nothing was done.
    Full,
    /// It could not be written. The sentence is for the operator.
    Failed(String),
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    jobs: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Job {
    Change(Task),
    /// Is shown the file as it is after all earlier changes.
    Look(Box<dyn FnOnce(&Database) + Send>),
}

struct Task {
    change: Change,
    done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Store {
    /// Opens the file at `path`, or makes it where there is none, and hands what is in force at `now_ms` (Unix
    /// milliseconds) to `load`. What has ended is deleted in the background.
    ///
    /// # Errors
    /// A sentence for the operator with the path, what is wrong, and what to do.
    pub fn open(path: &Path, now_ms: u64, load: impl FnMut(Entry)) -> Result<Store, String> {
        let database = open(path).map_err(|why| format!("the store {} {why}", path.display()))?;
        let place =
            Place::of(path).map_err(|why| format!("the store {} cannot be looked at: {why}", path.display()))?;
        Store::start(database, Some(place), now_ms, load).map_err(|why| format!("the store {} {why}", path.display()))
    }

    /// A store that keeps nothing beyond the process, for the demonstration and for tests.
    ///
    /// # Errors
    /// There is no memory or no thread to be had.
    pub fn in_memory() -> Result<Store, String> {
        Store::with_backend(redb::backends::InMemoryBackend::new())
    }

    fn with_backend(backend: impl redb::StorageBackend) -> Result<Store, String> {
        let database = Builder::new().create_with_backend(backend).map_err(|why| why.to_string())?;
        begin(&database).map_err(|why| why.to_string())?;
        Store::start(database, None, 0, |_| {})
    }

    fn start(database: Database, place: Option<Place>, now_ms: u64, load: impl FnMut(Entry)) -> Result<Store, String> {
        let ended = read(&database, now_ms, load)?;
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || Writer { database, place, failed: None }.run(&queue))
            .map_err(|why| format!("cannot have a thread: {why}"))?;
        let inner = Inner { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) };
        let store = Store { inner: Arc::new(inner) };
        let mut ended = ended.into_iter().peekable();
        // Room for the first calls is left in the queue; what does not fit is found again at the next start.
        for _ in 0..QUEUE_MAX / 2 {
            if ended.peek().is_none() {
                break;
            }
            store.write_later(Change::Sweep(ended.by_ref().take(BATCH_MAX).collect()));
        }
        Ok(store)
    }

    /// Hands over a change, at once and in order, and waits until it is durable.
    ///
    /// # Errors
    /// [`StoreError`]; it is then not durable.
    pub fn write(&self, change: Change) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let (done, answer) = oneshot::channel();
        let handed = self.hand_over(Job::Change(Task { change, done: Some(done) }));
        async move {
            handed?;
            answer.await.unwrap_or_else(|_| Err(closed()))
        }
    }

    /// Hands over a change that nobody waits for. Where there is no room it is left out: for cleaning up only.
    pub fn write_later(&self, change: Change) {
        let _ = self.hand_over(Job::Change(Task { change, done: None }));
    }

    /// Looks into the file, on the thread that owns it, after all changes that were handed over before.
    ///
    /// # Errors
    /// [`StoreError`]: it was not looked at.
    pub(super) fn look<T: Send + 'static>(
        &self,
        look: Box<dyn FnOnce(&Database) -> T + Send>,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T> {
        let (done, answer) = oneshot::channel();
        // Whoever asked may have gone.
        let handed = self.hand_over(Job::Look(Box::new(move |database| drop(done.send(look(database))))));
        async move {
            handed?;
            answer.await.map_err(|_| closed())
        }
    }

    /// What lies in the store of every queue. Blocks: for the start, before there is a runtime.
    ///
    /// # Errors
    /// A sentence for the operator, as of [`open`](Self::open).
    pub(super) fn survey_queues(&self) -> Result<Vec<(Arc<str>, shelf::Found)>, String> {
        let (done, answer) = oneshot::channel();
        let look = move |database: &Database| drop(done.send(shelf::survey(database)));
        let closed = |_| "the store is closed".to_owned();
        self.hand_over(Job::Look(Box::new(look))).map_err(|why| format!("{why:?}"))?;
        answer.blocking_recv().map_err(closed)?.map_err(|why| format!("the store {why}"))
    }

    /// Writes what was handed over and closes the file. Later changes fail.
    pub fn close(&self) {
        self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn hand_over(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = jobs.as_ref().ok_or_else(closed)?;
        jobs.try_send(job).map_err(|why| match why {
            TrySendError::Full(_) => StoreError::Full,
            TrySendError::Disconnected(_) => closed(),
        })
    }
}

fn closed() -> StoreError {
    StoreError::Failed("the store is closed".to_owned())
}

/// Where the file is, and which one it is.
struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    fn of(path: &Path) -> std::io::Result<Place> {
        let facts = std::fs::metadata(path)?;
        Ok(Place { path: path.to_owned(), device: facts.dev(), inode: facts.ino() })
    }

    fn holds(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|facts| (facts.dev(), facts.ino()) == (self.device, self.inode))
    }
}

/// The thread that owns the file.
struct Writer {
    database: Database,
    place: Option<Place>,
    /// Why nothing can be written any more.
    failed: Option<String>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let (mut batch, mut look) = (Vec::new(), None);
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Look(one) => {
                        look = Some(one);
                        break;
                    }
                    Job::Change(task) => batch.push(task),
                }
                if batch.len() < BATCH_MAX {
                    next = queue.try_recv().ok();
                }
            }
            if !batch.is_empty() {
                let outcome = self.commit(&batch);
                for done in batch.into_iter().filter_map(|task| task.done) {
                    // Whoever asked may have gone.
                    let _ = done.send(outcome.clone());
                }
            }
            if let Some(look) = look {
                look(&self.database);
            }
        }
    }

    fn commit(&mut self, batch: &[Task]) -> Result<(), StoreError> {
        if self.failed.is_none()
            && let Err(why) = self.transact(batch).map_err(|why| why.to_string()).and_then(|()| self.check_place())
        {
            tracing::error!(
                "the store cannot be written ({why}): revocations are in force, but not kept, and no message of a queue \
                 is taken, until the server is started again with a store that can be written"
            );
            self.failed = Some(why);
        }
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(StoreError::Failed(format!("the store cannot be written ({why}); restart the server"))),
        }
    }

    /// What was written to a file that is no longer at its path would not be found after a restart.
    fn check_place(&self) -> Result<(), String> {
        match &self.place {
            Some(place) if !place.holds() => {
                Err(format!("the file at {} was replaced or removed", place.path.display()))
            }
            _ => Ok(()),
        }
    }

    fn transact(&self, batch: &[Task]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            for task in batch {
                match &task.change {
                    Change::Queue(edit) => shelf::apply(&transaction, edit)?,
                    change => apply(&mut entries, change)?,
                }
            }
        }
        // Immediate durability, the default: an fsync before this returns.
        transaction.commit()?;
        Ok(())
    }
}

fn apply(entries: &mut Table<&[u8], &[u8]>, change: &Change) -> Result<(), StorageError> {
    match change {
        Change::Put(entry) => {
            entries.insert(&*coding::key(entry), &*coding::value(entry))?;
        }
        Change::Remove(entry) => {
            entries.remove(&*coding::key(entry))?;
        }
        Change::Lift(Restoration { person, taken: Some(taken) }) => {
            entries.remove(&*coding::pipes_key(person, taken))?;
        }
        Change::Lift(Restoration { person, taken: None }) => {
            let prefix = coding::person_prefix(person);
            let mut keys = Vec::new();
            for entry in entries.range(&*prefix..)? {
                let (key, _) = entry?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                keys.push(key.value().to_vec());
            }
            for key in keys {
                entries.remove(&*key)?;
            }
        }
        Change::Sweep(keys) => {
            for key in keys {
                entries.remove(&**key)?;
            }
        }
        // Lies in other tables.
        Change::Queue(_) => {}
    }
    Ok(())
}

fn open(path: &Path) -> Result<Database, String> {
    match std::fs::metadata(path) {
        Ok(about) if about.is_dir() => Err("is a directory; write the path of a file as store.path".to_owned()),
        Ok(about) if about.len() == 0 => {
            Err("is empty, which a store never is: something has cut it. Put a copy back, \
            or delete it to begin without any revocation"
                .to_owned())
        }
        Ok(_) => {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            builder.open(path).map_err(explained)
        }
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => make(path),
        Err(why) => Err(format!("cannot be looked at ({why}); make it readable and writable for this user")),
    }
}

/// A new store is made beside its place and moved there when it is whole, so that a crash leaves none or a good one.
fn make(path: &Path) -> Result<Database, String> {
    let beside = beside(path);
    let refused = |why: std::io::Error| match why.kind() {
        std::io::ErrorKind::NotFound => {
            "cannot be made, since its directory does not exist; make the directory, or change store.path".to_owned()
        }
        _ => format!("cannot be made ({why}); make its directory writable for this user, or change store.path"),
    };
    match std::fs::remove_file(&beside) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(refused(why)),
        _ => {}
    }
    let mut builder = Builder::new();
    let database = builder.set_cache_size(CACHE_BYTES).create(&beside).map_err(|why| match why {
        DatabaseError::Storage(StorageError::Io(why)) => refused(why),
        other => explained(other),
    })?;
    begin(&database).map_err(|why| format!("cannot be written ({why}); see to the disk, then start again"))?;
    // A link, unlike a renaming, never takes the place of a store that another process has made meanwhile.
    let linked = std::fs::hard_link(&beside, path);
    let _ = std::fs::remove_file(&beside);
    linked.map_err(refused)?;
    sync_directory(path).map_err(refused)?;
    tracing::info!("a new store was made: {}", path.display());
    Ok(database)
}

fn beside(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    // By process, so that two that start at once never have the same file under this name.
    name.push(format!(".{}.new", std::process::id()));
    PathBuf::from(name)
}

/// Makes the name of a new file durable.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

fn begin(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(ABOUT)?.insert("format", FORMAT)?;
    transaction.commit()?;
    Ok(())
}

/// Hands over what is in force, and returns the keys of what has ended.
fn read(database: &Database, now_ms: u64, mut load: impl FnMut(Entry)) -> Result<Vec<Vec<u8>>, String> {
    const FOREIGN: &str = "is not a store of this server; change store.path, or move the file away to begin without any \
                           revocation";
    let damaged = |why: StorageError| format!("cannot be read ({why}); put a copy back");
    let transaction = database.begin_read().map_err(|why| format!("cannot be read ({why}); put a copy back"))?;
    let about = transaction.open_table(ABOUT).map_err(|_| FOREIGN.to_owned())?;
    match about.get("format").map_err(damaged)?.map(|format| format.value()) {
        Some(FORMAT) => {}
        Some(format) => {
            return Err(format!(
                "has format {format} and this version knows {FORMAT}; start the version that wrote it, or a later one"
            ));
        }
        None => return Err(FOREIGN.to_owned()),
    }
    let entries = transaction.open_table(ENTRIES).map_err(|_| FOREIGN.to_owned())?;
    let mut ended = Vec::new();
    for pair in entries.iter().map_err(damaged)? {
        let (key, value) = pair.map_err(damaged)?;
        let entry = coding::decode(key.value(), value.value())
            .map_err(|why| format!("holds an entry that is damaged ({}); put a copy back", why.0))?;
        if entry.until_ms() <= now_ms {
            ended.push(key.value().to_vec());
        } else {
            load(entry);
        }
    }
    Ok(ended)
}

fn explained(why: DatabaseError) -> String {
    match why {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            "is in use by another process; stop that one, or give each its own store.path".to_owned()
        }
        DatabaseError::UpgradeRequired(version) => {
            format!("is in an old form of its library ({version}); convert it with the version that wrote it")
        }
        DatabaseError::Storage(StorageError::Io(why)) if why.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("cannot be opened ({why}); make it readable and writable for this user")
        }
        other => format!(
            "cannot be read ({other}): it is damaged, or no store at all. Put a copy back, or move it away to begin \
             without any revocation"
        ),
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
