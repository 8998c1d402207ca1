//! The control thread: everything that is rare. It serves the application's calls, keeps what must outlive the process,
//! fetches keys, and tells the workers; no message between clients ever passes through it.
//!
//! ```text
//!  application ── HTTP ──▶ api ──▶ service ──▶ link ──▶ one ring to each worker
//!                                     │  ▲ answers, by a call from the worker's thread
//!                                     ▼
//!                            store (a thread of its own, fsync)      audit (a thread of its own)
//!                                     ▲
//!  worker ── calls ──▶ desk ──▶ queues ──┬─▶ application ── HTTP ──▶ the application
//!                        └───────────────┘        └─ outcomes ──▶ link ──▶ that worker's ring
//! ```
//!
//! Reading order: `service` (what can be asked, and in which order a revocation takes effect), `link` (the way to the
//! workers), `store` and its `coding`, `expiry` (ends of time limits), `jwks`; `desk`, `application` and `queues` (what
//! workers ask for); then `api`, `audit`, `metrics`.
//!
//! Invariant: tokio, axum, redb and reqwest are known in this folder alone. The thread runs one tokio runtime without
//! helper threads of its own; the store and the audit writer have theirs, since both wait for disks (INVARIANTS 32).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::{mpsc::Receiver, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::auth::Verifier;
use crate::auth::jwks::FetchedKeys;
use crate::config::KeySource;
use crate::mesh::port::Port;
use crate::shard::MeshParcel as Parcel;
use crate::shard::call::Call;
use crate::shard::revocation::{Entry, Revocation};
use crate::shard::shared::Shared;

pub mod api;
pub mod application;
pub mod audit;
mod calls;
pub mod coding;
pub mod desk;
pub mod expiry;
#[cfg(test)]
#[path = "http_tests.rs"]
mod http;
pub mod jwks;
pub mod link;
pub mod metrics;
pub mod queues;
pub mod service;
pub mod store;
pub mod validation;
pub mod witness;

use api::KeyRing;
use application::Application;
use audit::Audit;
use desk::Desk;
use expiry::Endings;
use jwks::{Fetcher, Pace};
use link::{Attendance, Link};
use queues::{Pace as QueuePace, Queues};
use service::Service;
use store::Store;
use witness::Told;

/// How long calls that have begun may take to finish when the thread is stopped.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// The running control thread.
pub struct Control {
    address: SocketAddr,
    link: Link,
    stop: watch::Sender<bool>,
    reloads: watch::Sender<()>,
    witness: Arc<Told>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Opens the store at `store` (None: what is revoked is forgotten with the process, as in the demonstration), puts
    /// what it holds in force, takes `config.control.listen` and starts the thread. To be called before any worker
    /// runs, so that no connection is admitted before the revocations of yesterday are known.
    ///
    /// `port` is the last port of the mesh: its number is the number of workers, and its bell need not do anything.
    ///
    /// # Errors
    /// A sentence for the operator: the store cannot be opened (with its path), the address cannot be listened on (with
    /// the address), the system's certificates cannot be read.
    pub fn start(
        shared: Arc<Shared>,
        port: Port<Parcel>,
        store: Option<&Path>,
        audit: Audit,
    ) -> Result<Control, String> {
        let (store, endings) = open(&shared, store)?;
        let fetching = Fetching::of(&shared)?;
        let listen = shared.settings().config.control.listen;
        let refused = |why: std::io::Error| format!("cannot listen on {listen} for the server API: {why}");
        let listener = std::net::TcpListener::bind(listen).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| format!("cannot start the control thread: {why}"))?;
        let link = Link::new(port);
        let application = Application::new(shared.clone())?;
        let queues =
            Queues::open(shared.clone(), store.clone(), audit.clone(), application.clone(), QueuePace::default())?;
        let (told, lifted, calls) = witness::witness(audit.clone());
        let service =
            Service::new(shared, link.clone(), store.clone(), audit, endings, application.clone(), queues.clone());
        let desk = Desk { service: service.clone(), link: link.clone(), application, queues };
        let (stop, stopped) = watch::channel(false);
        let (reloads, reloaded) = watch::channel(());
        let work = Work { service, lifted, desk, calls, listener, fetching, stopped, reloaded };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                runtime.block_on(work.run());
                runtime.shutdown_timeout(Duration::ZERO);
                store.close();
            })
            .map_err(|why| format!("cannot start the control thread: {why}"))?;
        Ok(Control { address, link, stop, reloads, witness: told, thread })
    }

    /// Where the server API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What workers tell this thread by.
    pub fn witness(&self) -> Arc<Told> {
        self.witness.clone()
    }

    /// To be held by the thread of this worker for as long as it takes commands: nobody waits for a worker that has
    /// ended.
    pub fn attendance(&self, worker: usize) -> Attendance {
        self.link.attendance(worker)
    }

    /// Takes up the settings in force, after they were replaced: the keys of the API, and where tokens' keys come from.
    pub fn reload(&self) {
        self.reloads.send_replace(());
    }

    /// Whether the thread has ended, which it does by itself only where something of ours has failed.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops serving, lets the calls that have begun finish, for 5 s at most, closes the store, and waits for all that.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the control thread has failed");
        }
    }
}

/// The store, with its entries in the table, and their time limits.
fn open(shared: &Shared, path: Option<&Path>) -> Result<(Store, Endings), String> {
    let endings = Endings::default();
    let Some(path) = path else { return Ok((Store::in_memory()?, endings)) };
    let began = Instant::now();
    let store = Store::open(path, Service::now_ms(), |entry| {
        let table = &shared.revocations;
        match &entry {
            Entry::Pipes(one) => table.insert(one.clone()),
            // What it makes superfluous is found so again at the next start.
            Entry::Tokens(one) => drop(table.insert_tokens(one.clone())),
        }
        endings.add(entry, table);
    })?;
    let count = shared.revocations.count();
    tracing::info!("store {}: {count} revocations in force, read in {:?}", path.display(), began.elapsed());
    Ok((store, endings))
}

/// Fetching of the keys of tokens, where there is any.
#[derive(Default)]
struct Fetching {
    next: Option<(Fetcher, FetchedKeys)>,
    running: Option<(FetchedKeys, AbortHandle)>,
}

impl Fetching {
    fn of(shared: &Shared) -> Result<Fetching, String> {
        let mut fetching = Fetching::default();
        fetching.take_up(shared)?;
        Ok(fetching)
    }

    /// Prepares for the settings in force. What runs for the same keys goes on.
    fn take_up(&mut self, shared: &Shared) -> Result<(), String> {
        let settings = shared.settings();
        let keys = settings.verifier.as_ref().and_then(Verifier::fetched);
        if let (Some((running, _)), Some(keys)) = (&self.running, keys)
            && running.is(keys)
        {
            return Ok(());
        }
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
        let source = settings.config.auth.token.as_ref().map(|token| &token.key);
        if let (Some(KeySource::JwksUrl(url)), Some(keys)) = (source, keys) {
            self.next = Some((Fetcher::new(url, Pace::default())?, keys.clone()));
        }
        Ok(())
    }

    /// Starts what was prepared. To be called on the runtime.
    fn start(&mut self) {
        if let Some((fetcher, keys)) = self.next.take() {
            let task = tokio::spawn(fetcher.run(keys.clone())).abort_handle();
            self.running = Some((keys, task));
        }
    }
}

/// What the thread does.
struct Work {
    service: Service,
    lifted: Receiver<Arc<Revocation>>,
    desk: Desk,
    calls: Receiver<Box<Call>>,
    listener: std::net::TcpListener,
    fetching: Fetching,
    stopped: watch::Receiver<bool>,
    reloaded: watch::Receiver<()>,
}

impl Work {
    async fn run(self) {
        let Work { service, lifted, desk, calls, listener, mut fetching, stopped, reloaded } = self;
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(why) => {
                tracing::error!("the server API cannot be served: {why}");
                return;
            }
        };
        tokio::spawn(expiry::run(service.clone()));
        tokio::spawn(witness::lift(service.clone(), lifted));
        fetching.start();
        let (application, queues) = (desk.application.clone(), desk.queues.clone());
        queues.start();
        tokio::spawn(desk.run(calls));
        let settings = service.shared().settings();
        let keys = KeyRing::new(&settings.config.control.keys);
        let followers = Followers { keys: keys.clone(), fetching, application, queues: queues.clone() };
        tokio::spawn(followers.take_up(reloaded, service.shared().clone()));
        let router = api::router(service.clone(), keys);
        let router = if settings.config.control.pages { api::with_pages(router) } else { router };
        api::serve(listener, router, stopped).await;
        let _ = timeout(STOP_WAIT, async {
            service.drain().await;
            queues.stop().await;
        })
        .await;
    }
}

/// What depends on the settings in force.
struct Followers {
    keys: KeyRing,
    fetching: Fetching,
    application: Application,
    queues: Queues,
}

impl Followers {
    /// Follows the settings, for as long as there is a main thread that may replace them.
    async fn take_up(mut self, mut reloaded: watch::Receiver<()>, shared: Arc<Shared>) {
        while reloaded.changed().await.is_ok() {
            self.keys.replace(&shared.settings().config.control.keys);
            self.application.take_up();
            self.queues.take_up();
            match self.fetching.take_up(&shared) {
                Ok(()) => self.fetching.start(),
                Err(why) => tracing::error!("{why}"),
            }
        }
    }
}
