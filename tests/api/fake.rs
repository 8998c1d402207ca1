//! The rest of the server, played: it notes what it was asked and answers what a test has laid out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use pipeward::config::{Allow, ApiKey, ApiRight};
use pipeward::control::api::{KeyRing, Operations, router, serve};
use pipeward::control::queues::{Dead, Id, LastError, Message, QueueFacts, Totals};
use pipeward::control::service::Failure;
use pipeward::shard::command::{ConnectionFacts, Member, Members, Person, Stats, Who};
use pipeward::shard::record::Record;
use pipeward::shard::revocation::{Restoration, Revocation, TokenRevocation};
use tokio::sync::watch;

/// The secret of a key that may do everything.
pub const ADMIN: &str = "the-secret-of-the-admin";
/// The secret of a key that may publish and push.
pub const SENDER: &str = "the-secret-of-the-sender";

/// One call that reached the service.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Publish { pipe: String, event: String, data: String, sender: Option<String>, count: bool },
    Push { to: Who, event: String, data: String },
    Revoke(Revocation),
    Restore(Restoration),
    RevokeTokens(TokenRevocation),
    Disconnect(Who, bool),
    Unsubscribe(Who, String),
    Connections(Option<Person>, Option<String>, usize),
    Pipes(Option<String>, usize),
    Members(String),
    Dead(String, Option<u64>, usize),
    Retry(String, Option<String>),
}

/// What the service says to everything.
#[derive(Clone)]
pub struct Fake {
    asked: Arc<Mutex<Vec<Asked>>>,
    records: Arc<Mutex<Vec<Record>>>,
    answer: Arc<Mutex<Result<u64, Failure>>>,
    ready: Arc<Mutex<bool>>,
}

impl Default for Fake {
    fn default() -> Fake {
        let (asked, records) = Default::default();
        Fake { asked, records, answer: Arc::new(Mutex::new(Ok(3))), ready: Arc::new(Mutex::new(true)) }
    }
}

impl Fake {
    /// Everything that was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Everything that was put on record since the last time.
    pub fn records(&self) -> Vec<Record> {
        std::mem::take(&mut self.records.lock().unwrap())
    }

    /// What every later call comes to.
    pub fn will_answer(&self, answer: Result<u64, Failure>) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Whether the workers accept connections.
    pub fn will_be_ready(&self, ready: bool) {
        *self.ready.lock().unwrap() = ready;
    }

    fn note(&self, asked: Asked) -> Result<u64, Failure> {
        self.asked.lock().unwrap().push(asked);
        self.answer.lock().unwrap().clone()
    }
}

impl Operations for Fake {
    async fn publish(
        &self,
        pipe: &str,
        event: &str,
        data: &str,
        sender: Option<&str>,
        count: bool,
    ) -> Result<Option<u64>, Failure> {
        let [pipe, event, data] = [pipe, event, data].map(str::to_owned);
        let delivered = self.note(Asked::Publish { pipe, event, data, sender: sender.map(str::to_owned), count })?;
        Ok(count.then_some(delivered))
    }

    async fn push(&self, to: Who, event: &str, data: &str) -> Result<u64, Failure> {
        self.note(Asked::Push { to, event: event.to_owned(), data: data.to_owned() })
    }

    async fn revoke(&self, revocation: Revocation) -> Result<u64, Failure> {
        self.note(Asked::Revoke(revocation))
    }

    async fn restore(&self, restoration: Restoration) -> Result<u64, Failure> {
        self.note(Asked::Restore(restoration))
    }

    async fn revoke_tokens(&self, revocation: TokenRevocation) -> Result<u64, Failure> {
        self.note(Asked::RevokeTokens(revocation))
    }

    async fn disconnect(&self, who: Who, reconnect: bool) -> Result<u64, Failure> {
        self.note(Asked::Disconnect(who, reconnect))
    }

    async fn unsubscribe(&self, who: Who, pipe: &str) -> Result<u64, Failure> {
        self.note(Asked::Unsubscribe(who, pipe.to_owned()))
    }

    async fn connections(
        &self,
        person: Option<Person>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<ConnectionFacts>, Option<String>), Failure> {
        self.note(Asked::Connections(person, after.map(str::to_owned), limit))?;
        let one = |slot: u32, user: Option<&str>| ConnectionFacts {
            slot,
            connection: format!("0-0-{slot}-1"),
            user: user.map(Into::into),
            tenant: user.map(|_| "acme".into()),
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            since_ms: 1_700_000_000_000,
            pipes: vec!["chat".into()],
            queue_bytes: 12,
        };
        Ok((vec![one(1, Some("ada")), one(2, None)], Some("0-0-2-1".to_owned())))
    }

    async fn pipes(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(Box<str>, u64)>, Option<String>), Failure> {
        self.note(Asked::Pipes(after.map(str::to_owned), limit))?;
        Ok((vec![("chat".into(), 2)], None))
    }

    async fn members(&self, pipe: &str) -> Result<Members, Failure> {
        let count = self.note(Asked::Members(pipe.to_owned()))?;
        let one = |at| Member { tenant: None, user: format!("u{at}").into(), name: Some("N".into()), connections: 2 };
        Ok(Members { people: (0..count).map(one).collect(), anonymous: 1 })
    }

    fn queues(&self) -> Vec<QueueFacts> {
        let last_error = Some(LastError { at_ms: 1_700_000_000_500, error: "it answered with status 500".into() });
        let one = QueueFacts {
            name: "jobs".into(),
            configured: true,
            depth: 2,
            bytes: 40,
            oldest_ms: Some(1_700_000_000_000),
            attempts: 3,
            last_error,
            dead: 1,
            totals: Totals { delivered: 9, ..Totals::default() },
        };
        let (oldest_ms, last_error) = (None, None);
        let idle = QueueFacts { name: "old".into(), configured: false, depth: 0, oldest_ms, last_error, ..one.clone() };
        vec![one, idle]
    }

    async fn dead(&self, queue: &str, after: Option<u64>, limit: usize) -> Result<(Vec<Dead>, Option<u64>), Failure> {
        self.note(Asked::Dead(queue.to_owned(), after, limit))?;
        let message = Message {
            id: Id([0xab; 16]),
            enqueued_at_ms: 1_700_000_000_000,
            since_ms: 1_700_000_000_000,
            user: r#"{"id":"ada"}"#.into(),
            data: "12345678901234567890123".into(),
        };
        let error = "it answered with status 400".into();
        Ok((vec![Dead { died_at_ms: 1_700_000_000_900, attempts: 1, error, message }], Some(7)))
    }

    async fn retry(&self, queue: &str, id: Option<&str>) -> Result<u64, Failure> {
        self.note(Asked::Retry(queue.to_owned(), id.map(str::to_owned)))
    }

    async fn stats(&self) -> Result<Vec<Stats>, Failure> {
        self.answer.lock().unwrap().clone()?;
        let one = |worker| Stats { worker, connections: 5, subscriptions: 7, ..Stats::default() };
        let mut stats = vec![one(0), one(1)];
        stats[1].counters.events_in = 9;
        Ok(stats)
    }

    async fn metrics(&self) -> Result<String, Failure> {
        Ok("pipeward_connections 1\n".to_owned())
    }

    fn record(&self, record: Record) {
        self.records.lock().unwrap().push(record);
    }

    fn is_ready(&self) -> bool {
        *self.ready.lock().unwrap()
    }

    fn queue_bytes(&self) -> usize {
        1 << 20
    }
}

/// The real server API over a fake service, on a thread of its own.
pub struct Api {
    pub address: SocketAddr,
    pub fake: Fake,
    pub keys: KeyRing,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Api {
    /// With one key for everything and one for sending.
    pub fn start() -> Api {
        let sender = Allow::default().with(ApiRight::Publish).with(ApiRight::Push);
        Api::with_keys(&[key("admin", ADMIN, Allow::EVERYTHING), key("sender", SENDER, sender)])
    }

    /// With these keys.
    pub fn with_keys(keys: &[ApiKey]) -> Api {
        let fake = Fake::default();
        let keys = KeyRing::new(keys);
        let (stop, stopped) = watch::channel(false);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket can be told so");
        let address = listener.local_addr().expect("it is bound");
        let (operations, ring) = (fake.clone(), keys.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                serve(listener, router(operations, ring), stopped).await;
            });
        });
        Api { address, fake, keys, stop, thread: Some(thread) }
    }

    /// Stops, and waits until nothing is served any more.
    pub fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the API has not failed");
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A key.
pub fn key(name: &str, secret: &str, allow: Allow) -> ApiKey {
    ApiKey { name: name.to_owned(), secret: secret.as_bytes().to_vec(), allow }
}
