//! The tables of the store in which messages of queues lie, and all that is done to them.
//!
//! Runs on the store's thread. One edit is one part of a transaction: it is done whole or not at all.

use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError, WriteTransaction};

use super::coding::{self, Damaged, Dead, Id, Message};

const WAITING: TableDefinition<&[u8], &[u8]> = TableDefinition::new("queued");
const DEAD: TableDefinition<&[u8], &[u8]> = TableDefinition::new("dead_letters");

/// One change.
#[derive(Clone, Debug)]
pub enum Edit {
    /// A message at its place, which is behind all others of the queue.
    Append {
        /// The queue.
        queue: Arc<str>,
        /// Where.
        place: u64,
        /// `coding::message`
        value: Vec<u8>,
    },
    /// Everything up to this place was delivered or has died.
    Settle {
        /// The queue.
        queue: Arc<str>,
        /// The last place.
        through: u64,
    },
    /// The message of this place becomes a dead letter, and the oldest of those may have to go.
    Bury {
        /// The queue.
        queue: Arc<str>,
        /// Where it was, and is among the dead.
        place: u64,
        /// `coding::dead`
        value: Vec<u8>,
        /// Dead letters up to this place are forgotten.
        forget_through: Option<u64>,
    },
    /// Dead letters wait again, behind all others.
    Revive {
        /// The queue.
        queue: Arc<str>,
        /// From where among the dead to where.
        moves: Vec<(u64, u64)>,
        /// Unix milliseconds: their age counts from here.
        since_ms: u64,
    },
}

/// What lies in the store of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Messages.
    pub depth: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// When the first one was enqueued.
    pub oldest_ms: Option<u64>,
    /// The first place behind everything, the dead included.
    pub next_place: u64,
    /// Dead letters: place, id, bytes.
    pub dead: Vec<(u64, Id, u64)>,
}

/// Does an edit.
///
/// # Errors
/// The store cannot be read or written.
pub fn apply(transaction: &WriteTransaction, edit: &Edit) -> Result<(), redb::Error> {
    match edit {
        Edit::Append { queue, place, value } => {
            let mut waiting = transaction.open_table(WAITING)?;
            waiting.insert(&*coding::key(queue, *place), &**value)?;
        }
        Edit::Settle { queue, through } => {
            let mut waiting = transaction.open_table(WAITING)?;
            let range = coding::key(queue, 0)..=coding::key(queue, *through);
            waiting.retain_in::<&[u8], _>(as_slices(&range), |_, _| false)?;
        }
        Edit::Bury { queue, place, value, forget_through } => {
            transaction.open_table(WAITING)?.remove(&*coding::key(queue, *place))?;
            let mut dead = transaction.open_table(DEAD)?;
            dead.insert(&*coding::key(queue, *place), &**value)?;
            if let Some(through) = forget_through {
                let range = coding::key(queue, 0)..=coding::key(queue, *through);
                dead.retain_in::<&[u8], _>(as_slices(&range), |_, _| false)?;
            }
        }
        Edit::Revive { queue, moves, since_ms } => {
            let mut waiting = transaction.open_table(WAITING)?;
            let mut dead = transaction.open_table(DEAD)?;
            for (from, to) in moves {
                let removed = dead.remove(&*coding::key(queue, *from))?;
                let letter = removed.and_then(|value| coding::read_dead(value.value()).ok());
                if let Some(Dead { message, .. }) = letter {
                    let message = Message { since_ms: *since_ms, ..message };
                    waiting.insert(&*coding::key(queue, *to), &*coding::message(&message))?;
                }
            }
        }
    }
    Ok(())
}

/// The messages of a queue behind the place `after`, in order: at most `count`, and no more once `bytes` are read.
///
/// # Errors
/// A sentence for the operator.
pub fn read(
    database: &Database,
    queue: &str,
    after: Option<u64>,
    count: usize,
    bytes: u64,
) -> Result<Vec<(u64, Message)>, String> {
    let mut found = Vec::new();
    let mut have = 0;
    each(database, WAITING, queue, after, |place, value| {
        let message = coding::read_message(value)?;
        have += message.bytes();
        found.push((place, message));
        Ok(found.len() < count && have < bytes)
    })?;
    Ok(found)
}

/// The dead letters of a queue in the same way.
///
/// # Errors
/// A sentence for the operator.
pub fn read_dead(
    database: &Database,
    queue: &str,
    after: Option<u64>,
    count: usize,
    bytes: u64,
) -> Result<Vec<(u64, Dead)>, String> {
    let mut found = Vec::new();
    let mut have = 0;
    each(database, DEAD, queue, after, |place, value| {
        let dead = coding::read_dead(value)?;
        have += dead.message.bytes();
        found.push((place, dead));
        Ok(found.len() < count && have < bytes)
    })?;
    Ok(found)
}

/// Everything that there is, by queue.
///
/// # Errors
/// A sentence for the operator.
pub fn survey(database: &Database) -> Result<Vec<(Arc<str>, Found)>, String> {
    let mut all: Vec<(Arc<str>, Found)> = Vec::new();
    whole(database, WAITING, |queue, place, value| {
        let message = coding::read_message(value)?;
        let found = of(&mut all, queue);
        found.depth += 1;
        found.bytes += message.bytes();
        found.oldest_ms.get_or_insert(message.enqueued_at_ms);
        found.next_place = found.next_place.max(place.saturating_add(1));
        Ok(())
    })?;
    whole(database, DEAD, |queue, place, value| {
        let message = coding::read_dead(value)?.message;
        let found = of(&mut all, queue);
        found.next_place = found.next_place.max(place.saturating_add(1));
        found.dead.push((place, message.id, message.bytes()));
        Ok(())
    })?;
    Ok(all)
}

fn of<'a>(all: &'a mut Vec<(Arc<str>, Found)>, queue: &str) -> &'a mut Found {
    // Entries of one queue lie together, so it is mostly the last one.
    let place = match all.iter().rposition(|(own, _)| **own == *queue) {
        Some(place) => place,
        None => {
            all.push((queue.into(), Found::default()));
            all.len() - 1
        }
    };
    &mut all[place].1
}

fn as_slices(range: &std::ops::RangeInclusive<Vec<u8>>) -> std::ops::RangeInclusive<&[u8]> {
    range.start().as_slice()..=range.end().as_slice()
}

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Looks at entries in order until `look` says that it is enough.
fn each(
    database: &Database,
    table: Table,
    queue: &str,
    after: Option<u64>,
    mut look: impl FnMut(u64, &[u8]) -> Result<bool, Damaged>,
) -> Result<(), String> {
    let Some(first) = after.map_or(Some(0), |after| after.checked_add(1)) else { return Ok(()) };
    let range = coding::key(queue, first)..=coding::key(queue, u64::MAX);
    walk(database, table, Some(&range), |key, value| look(coding::read_key(key)?.1, value))
}

fn whole(
    database: &Database,
    table: Table,
    mut look: impl FnMut(&str, u64, &[u8]) -> Result<(), Damaged>,
) -> Result<(), String> {
    walk(database, table, None, |key, value| {
        let (queue, place) = coding::read_key(key)?;
        look(queue, place, value)?;
        Ok(true)
    })
}

fn walk(
    database: &Database,
    table: Table,
    range: Option<&std::ops::RangeInclusive<Vec<u8>>>,
    mut look: impl FnMut(&[u8], &[u8]) -> Result<bool, Damaged>,
) -> Result<(), String> {
    let unreadable = |why: StorageError| format!("cannot be read ({why}); put a copy back");
    let transaction = database.begin_read().map_err(|why| format!("cannot be read ({why}); put a copy back"))?;
    let table = match transaction.open_table(table) {
        Ok(table) => table,
        // Nothing was ever enqueued.
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(why) => return Err(format!("cannot be read ({why}); put a copy back")),
    };
    let entries = match range {
        Some(range) => table.range::<&[u8]>(as_slices(range)),
        None => table.iter(),
    };
    for pair in entries.map_err(unreadable)? {
        let (key, value) = pair.map_err(unreadable)?;
        let go_on = look(key.value(), value.value())
            .map_err(|why| format!("holds a message of a queue that is damaged ({}); put a copy back", why.0))?;
        if !go_on {
            break;
        }
    }
    Ok(())
}
