//! The control thread's end of the mesh: one worker or all of them are asked something, and answer.
//!
//! Invariant: what is sent after something else was sent arrives at every worker after it. What is being sent at the same
//! time has no order: where rings are full one sender may wait for a worker while another gets ahead of it at the next
//! one. Whoever needs an order waits for one sending before the next, as the changes of one user do. A command is answered once by every
//! worker that lives; one that has ended, or ends meanwhile, counts as having nobody connected. Room in a full ring is
//! waited for by looking again each millisecond, which costs nothing while the rings are not full, as they hardly ever
//! are: nothing is lost, and the workers need not know that this participant sleeps differently from them.
//!
//! The port is behind a lock that only this thread takes, and never while it waits for anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::mesh::port::Port;
use crate::mesh::registry::Pipe;
use crate::shard::MeshParcel as Parcel;
use crate::shard::command::{Act, Answer, Command};

/// Between two looks at a ring that was full.
const ROOM_WAIT: Duration = Duration::from_millis(1);
/// Between two looks whether a worker that has not answered still lives.
const LIFE_WAIT: Duration = Duration::from_millis(50);
/// A worker that has not answered for so long is in trouble: the caller is told, and the command stays on its way.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A worker that lives did not answer in time. What it was told will still be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// The way to the workers. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    port: Mutex<Port<Parcel>>,
    workers: Box<[Worker]>,
}

struct Worker {
    /// Taken while somebody waits for room: those that come later stand in line behind, first come first served.
    line: Semaphore,
    ended: Arc<AtomicBool>,
}

/// Held by a worker's thread: as long as it exists, the worker takes commands.
pub struct Attendance(Arc<AtomicBool>);

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Link {
    /// Over the last port of a mesh; its number is the number of workers.
    pub fn new(port: Port<Parcel>) -> Link {
        let worker = |_| Worker { line: Semaphore::new(1), ended: Arc::new(AtomicBool::new(false)) };
        let workers = (0..port.worker()).map(worker).collect();
        Link { inner: Arc::new(Inner { port: Mutex::new(port), workers }) }
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.inner.workers.len()
    }

    /// See [`Attendance`]. For a number that is no worker's it is of no consequence.
    pub fn attendance(&self, worker: usize) -> Attendance {
        Attendance(self.inner.workers.get(worker).map_or_else(Default::default, |worker| worker.ended.clone()))
    }

    /// Hands an event to every worker that has subscribers of its pipe.
    pub async fn publish(&self, pipe: &Pipe, bytes: &Arc<[u8]>) {
        let parcels = self.interested(pipe).map(|worker| {
            let parcel = Parcel::Event { pipe: pipe.clone(), bytes: bytes.clone() };
            (worker, parcel)
        });
        self.send(parcels.collect()).await;
    }

    /// The same, with the number of connections whose queue took it.
    ///
    /// # Errors
    /// [`Late`]
    pub async fn publish_counted(&self, pipe: &Pipe, bytes: &Arc<[u8]>) -> Result<u64, Late> {
        let act = Act::Publish { pipe: pipe.clone(), bytes: bytes.clone() };
        Ok(count(self.ask(self.interested(pipe).collect(), &act).await?))
    }

    /// Has every worker do this, and adds up what they count.
    ///
    /// # Errors
    /// [`Late`]
    pub async fn count_all(&self, act: &Act) -> Result<u64, Late> {
        Ok(count(self.ask_all(act).await?))
    }

    /// Has every worker do this. Answers in the order of the workers; one that has ended gives none.
    ///
    /// # Errors
    /// [`Late`]
    pub async fn ask_all(&self, act: &Act) -> Result<Vec<Answer>, Late> {
        self.ask((0..self.workers()).collect(), act).await
    }

    /// Has one worker do this. None: it has ended, or there is no such worker.
    ///
    /// # Errors
    /// [`Late`]
    pub async fn ask_one(&self, worker: usize, act: &Act) -> Result<Option<Answer>, Late> {
        if worker >= self.workers() {
            return Ok(None);
        }
        Ok(self.ask(vec![worker], act).await?.pop())
    }

    /// Has one worker do this, and waits for no answer. To a worker that has ended it is lost.
    pub async fn tell(&self, worker: usize, act: Act) {
        if worker < self.workers() {
            self.send(vec![(worker, Parcel::Command(Box::new(Command { act, answer: None })))]).await;
        }
    }

    /// The same of every worker. Those with room are told at once, whatever the others do.
    pub async fn tell_all(&self, act: &Act) {
        let command = |worker| (worker, Parcel::Command(Box::new(Command { act: act.clone(), answer: None })));
        self.send((0..self.workers()).map(command).collect()).await;
    }

    /// Entries waiting in the rings to the workers, in their order.
    pub fn depths(&self) -> Vec<usize> {
        let mut port = self.port();
        (0..self.workers()).map(|worker| port.outbound_depth(worker)).collect()
    }

    fn interested(&self, pipe: &Pipe) -> impl Iterator<Item = usize> + use<> {
        let (interest, workers) = (pipe.interest(), self.workers());
        (0..workers).filter(move |worker| interest & (1 << worker) != 0)
    }

    async fn ask(&self, workers: Vec<usize>, act: &Act) -> Result<Vec<Answer>, Late> {
        let mut answers = Vec::with_capacity(workers.len());
        let parcels = workers.into_iter().map(|worker| {
            let (answer, answered) = oneshot::channel();
            answers.push((worker, answered));
            // Whoever asked may have gone.
            let answer: Box<dyn FnOnce(Answer) + Send> = Box::new(move |one| drop(answer.send(one)));
            let command = Command { act: act.clone(), answer: Some(answer) };
            (worker, Parcel::Command(Box::new(command)))
        });
        let parcels = parcels.collect();
        self.send(parcels).await;
        let deadline = Instant::now() + ANSWER_WAIT;
        let mut given = Vec::with_capacity(answers.len());
        for (worker, answered) in answers {
            given.extend(self.answer(worker, answered, deadline).await?);
        }
        Ok(given)
    }

    async fn answer(
        &self,
        worker: usize,
        mut answered: oneshot::Receiver<Answer>,
        deadline: Instant,
    ) -> Result<Option<Answer>, Late> {
        loop {
            // Asked before the answer is looked for: a worker may answer, then end.
            let ended = self.has_ended(worker);
            match timeout(LIFE_WAIT, &mut answered).await {
                Ok(answer) => return Ok(answer.ok()),
                Err(_) if ended => return Ok(None),
                Err(_) if Instant::now() >= deadline => return Err(Late),
                Err(_) => {}
            }
        }
    }

    /// Puts each parcel into its worker's ring. Those with room get theirs at once, whatever the others do.
    async fn send(&self, parcels: Vec<(usize, Parcel)>) {
        let mut waiting = Vec::new();
        {
            let mut port = self.port();
            for (worker, parcel) in parcels {
                // Somebody who stands in line was here first.
                let free = self.inner.workers[worker].line.available_permits() > 0;
                match if free { port.push(worker, parcel) } else { Err(parcel) } {
                    Ok(()) => {}
                    Err(parcel) => waiting.push((worker, parcel)),
                }
            }
            port.publish();
        }
        for (worker, parcel) in waiting {
            self.send_in_turn(worker, parcel).await;
        }
    }

    async fn send_in_turn(&self, worker: usize, parcel: Parcel) {
        // Never closed, so always given.
        let _turn = self.inner.workers[worker].line.acquire().await;
        let mut parcel = Some(parcel);
        while let Some(entry) = parcel.take() {
            if self.has_ended(worker) {
                return;
            }
            {
                let mut port = self.port();
                parcel = port.push(worker, entry).err();
                port.publish();
            }
            if parcel.is_some() {
                sleep(ROOM_WAIT).await;
            }
        }
    }

    fn has_ended(&self, worker: usize) -> bool {
        self.inner.workers[worker].ended.load(Ordering::Acquire)
    }

    fn port(&self) -> std::sync::MutexGuard<'_, Port<Parcel>> {
        self.inner.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(answers: Vec<Answer>) -> u64 {
    let counts = answers.into_iter().map(|answer| match answer {
        Answer::Count(count) => count,
        _ => 0,
    });
    counts.sum()
}
