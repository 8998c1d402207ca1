//! Calls of a worker and what comes back through its ring.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc::channel;

use super::*;
use crate::config::{AuditPath, AuditSettings, Config};
use crate::control::audit::Audit;
use crate::control::expiry::Endings;
use crate::control::http::{self, Answer as Http};
use crate::control::store::Store;
use crate::mesh::doorbell::Bell;
use crate::mesh::port::{Port, mesh};
use crate::rules::Rules;
use crate::rules::definition::{Payload, QueueRules, Right};
use crate::shard::MeshParcel as Parcel;
use crate::shard::call::{AuthorizeAsk, EnqueueAsk, HttpAsk, NotAuthorized};
use crate::shard::command::{Answer, Command, Who, Within};
use crate::shard::connection::Handle;
use crate::shard::shared::{Settings, Shared};

/// Takes what lies in the ring: answers of calls are kept, pushes are counted as three each.
fn take(port: &mut Port<Parcel>, answers: &mut BTreeMap<u32, (Handle, Outcome)>, pushes: &mut Vec<Within>) {
    while let Some((_, parcel)) = port.pop() {
        let Parcel::Command(command) = parcel else { continue };
        let Command { act, answer } = *command;
        match act {
            Act::Answered { connection, number, outcome } => {
                assert!(answer.is_none());
                assert!(answers.insert(number, (connection, *outcome)).is_none(), "{number} is answered twice");
            }
            Act::Push { within, .. } => {
                pushes.push(within);
                answer.expect("somebody counts")(Answer::Count(3));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_call_is_answered_once_and_messages_keep_their_order() {
    let application = http::Application::start(|call, _| {
        let waits = if call.body.contains("slow") { 300 } else { 0 };
        std::thread::sleep(Duration::from_millis(waits));
        Http::Reply(200, r#"{"allow":true}"#.to_owned())
    });
    let jobs = QueueRules {
        name: "jobs".into(),
        module: None,
        guards: Vec::new(),
        publish: Right::Always,
        public: false,
        payload: Payload::default(),
        endpoint: application.endpoint("/jobs", 1_000),
        max_pending: 15,
        max_pending_bytes: 1 << 20,
        max_age_s: 60,
        place: Default::default(),
    };
    let mut config = Config::new(1);
    config.rules = Arc::new(Rules { queues: vec![jobs], ..Rules::default() });
    let shared = Shared::new(Settings::new(config).unwrap(), 7);
    let bells = (0..2).map(|_| Box::new(|| {}) as Box<dyn Bell>).collect();
    // A ring of two: what is told waits for room and arrives.
    let mut ports = mesh::<Parcel>(bells, 2);
    let link = Link::new(ports.pop().unwrap());
    let mut port = ports.pop().unwrap();
    let audit = Audit::start(&AuditSettings { path: AuditPath::Stdout }).unwrap();
    let (store, calls_out) = (Store::in_memory().unwrap(), Application::new(shared.clone()).unwrap());
    let queues =
        Queues::open(shared.clone(), store.clone(), audit.clone(), calls_out.clone(), Default::default()).unwrap();
    let service =
        Service::new(shared, link.clone(), store, audit, Endings::default(), calls_out.clone(), queues.clone());
    let _attendance = link.attendance(0);
    let desk = Desk { service, link, application: calls_out, queues: queues.clone() };

    let http_ask = |body: &str| HttpAsk { endpoint: application.endpoint("/ask", 1_000), body: body.to_owned().into() };
    let enqueue = |n: u32| {
        let (queue, user) = ("jobs".into(), "null".into());
        Ask::Enqueue(Box::new(EnqueueAsk { queue, data: n.to_string().into(), user, enqueued_at_ms: u64::MAX >> 1 }))
    };
    let to = Who::Tenant("acme".into());
    let push = PushAsk { to, tenant: Some("acme".into()), bytes: Arc::from(&b"{}"[..]) };
    let upgrade = AuthorizeAsk { body: "{}".into(), ip: [10, 0, 0, 1].into(), asked_ms: 0 };
    let mut asks = vec![
        Ask::Rule(http_ask(r#""slow""#)),
        Ask::Action(http_ask("{}")),
        Ask::Authorize(Box::new(upgrade)),
        Ask::Push(Box::new(push)),
    ];
    asks.extend((0..20).map(enqueue));
    let (answers, pushes) =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let (calls, called) = channel(64);
            tokio::spawn(desk.run(called));
            for (number, ask) in (0..).zip(asks) {
                let connection = Handle { slot: number, generation: 9 };
                calls.send(Box::new(Call { worker: 0, connection, number, ask })).await.unwrap();
            }
            let (mut answers, mut pushes) = (BTreeMap::new(), Vec::new());
            for _ in 0..3_000 {
                take(&mut port, &mut answers, &mut pushes);
                if answers.len() == 24 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            queues.start();
            while application.seen().len() < 2 + 15 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (answers, pushes)
        });
    assert!(answers.iter().all(|(number, (connection, _))| connection.slot == *number && connection.generation == 9));
    let outcome = |number: u32| &answers[&number].1;
    assert!(matches!(outcome(0), Outcome::Ruled(Ok(ruling)) if ruling.allow));
    assert!(matches!(outcome(1), Outcome::Acted(Ok(result)) if &**result == r#"{"allow":true}"#));
    assert!(matches!(outcome(2), Outcome::Authorized(Err(NotAuthorized::Unavailable(_)))), "{:?}", outcome(2));
    assert_eq!((outcome(3), pushes), (&Outcome::Pushed(Ok(3)), vec![Within::Tenant(Some("acme".into()))])); // D14
    for number in 4..24 {
        let expected = if number < 19 { Ok(()) } else { Err(Code::Unavailable) };
        assert_eq!(outcome(number), &Outcome::Enqueued(expected), "{number}");
    }
    let data: Vec<String> = application.seen()[2..]
        .iter()
        .map(|call| {
            let body: serde_json::Value = serde_json::from_str(&call.body).unwrap();
            body["data"].to_string()
        })
        .collect();
    assert_eq!(data, (0..15).map(|n| n.to_string()).collect::<Vec<_>>());
}
