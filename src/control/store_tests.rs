//! The store against disks that fail, and against files that are no stores.

use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;
use crate::shard::command::Person;
use crate::shard::revocation::{FOR_EVER, Revocation, Taken};

fn entry(user: &str, pipe: &str, until_ms: u64) -> Entry {
    Entry::Pipes(Arc::new(Revocation {
        person: Person { tenant: None, user: user.into() },
        taken: Taken::Pipe(pipe.into()),
        until_ms,
        until_authorized_after_ms: None,
    }))
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// A disk whose fsync can be made to fail.
#[derive(Debug)]
struct Disk {
    memory: InMemoryBackend,
    fails: Arc<AtomicBool>,
    syncs: Arc<std::sync::atomic::AtomicUsize>,
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the disk is gone"));
        }
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.memory.write(offset, data)
    }
}

fn disk() -> (Store, Arc<AtomicBool>, Arc<std::sync::atomic::AtomicUsize>) {
    let (fails, syncs) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let disk = Disk { memory: InMemoryBackend::new(), fails: fails.clone(), syncs: Arc::clone(&syncs) };
    (Store::with_backend(disk).unwrap(), fails, syncs)
}

// INVARIANTS 6
#[test]
fn after_a_failed_fsync_nothing_is_written_until_the_next_start() {
    let (store, fails, syncs) = disk();
    assert_eq!(wait(store.write(Change::Put(entry("ann", "a", FOR_EVER)))), Ok(()));
    fails.store(true, Ordering::SeqCst);
    let refused = wait(store.write(Change::Put(entry("ann", "b", FOR_EVER)))).unwrap_err();
    let StoreError::Failed(why) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("the disk is gone") && why.contains("restart"), "{why}");
    fails.store(false, Ordering::SeqCst);
    let before = syncs.load(Ordering::SeqCst);
    assert_eq!(
        wait(store.write(Change::Put(entry("ann", "c", FOR_EVER)))),
        Err(refused),
        "a disk that comes back is not trusted"
    );
    assert_eq!(syncs.load(Ordering::SeqCst), before, "it was not even tried");
    store.close();
}

#[test]
fn what_gathers_while_the_disk_is_busy_is_one_transaction() {
    let (store, _, syncs) = disk();
    let before = syncs.load(Ordering::SeqCst);
    assert_eq!(wait(store.write(Change::Put(entry("one", "a", FOR_EVER)))), Ok(()));
    let each = syncs.load(Ordering::SeqCst) - before;
    assert!(each > 0, "an answer comes after an fsync");
    let before = syncs.load(Ordering::SeqCst);
    let writes: Vec<_> = (0..1000).map(|n| store.write(Change::Put(entry(&format!("u{n}"), "a", FOR_EVER)))).collect();
    for write in writes {
        assert_eq!(wait(write), Ok(()));
    }
    let batches = (syncs.load(Ordering::SeqCst) - before) / each;
    assert!(batches < 500, "{batches} transactions for 1000 changes");
    store.close();
}

#[test]
fn a_closed_store_refuses() {
    let store = Store::in_memory().unwrap();
    let last = store.write(Change::Put(entry("ann", "a", FOR_EVER)));
    store.close();
    assert_eq!(wait(last), Ok(()), "what was handed over is written");
    assert_eq!(wait(store.write(Change::Put(entry("ann", "b", FOR_EVER)))), Err(closed()));
    store.close();
}

#[test]
fn a_file_of_a_later_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    Store::open(&path, 0, |_| {}).unwrap().close();
    let database = Builder::new().open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(ABOUT).unwrap().insert("format", FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let why = Store::open(&path, 0, |_| {}).err().unwrap();
    assert!(why.contains("s.redb") && why.contains("format 2") && why.contains("later"), "{why}");
}

#[test]
fn a_database_of_something_else_is_refused_and_left_alone() {
    const OTHER: TableDefinition<&str, u64> = TableDefinition::new("other");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let database = Builder::new().create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(OTHER).unwrap().insert("theirs", 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let why = Store::open(&path, 0, |_| {}).err().unwrap();
    assert!(why.contains("is not a store of this server"), "{why}");
    let database = Builder::new().open(&path).unwrap();
    let value = database.begin_read().unwrap().open_table(OTHER).unwrap().get("theirs").unwrap().unwrap().value();
    assert_eq!(value, 7);
}

#[test]
fn a_damaged_entry_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    Store::open(&path, 0, |_| {}).unwrap().close();
    let database = Builder::new().open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(ENTRIES).unwrap().insert(&[9u8, 9][..], &[1u8][..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let why = Store::open(&path, 0, |_| {}).err().unwrap();
    assert!(why.contains("damaged"), "{why}");
}

#[test]
fn a_crash_while_the_file_is_made_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    std::fs::write(beside(&path), b"half").unwrap();
    let store = Store::open(&path, 0, |_| panic!("nothing was stored")).unwrap();
    store.close();
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(names, ["s.redb"]);
}
