//! Pipeward: a realtime edge server. One binary holds very many WebSocket connections, knows exactly what each of them
//! may do, and fans events out to those that may see them.
//!
//! ```text
//!            clients (WebSocket)
//!   ┌─────────────┼───────────────┐  edge listeners, SO_REUSEPORT
//! ┌─▼──────┐  ┌───▼────┐  ┌───────▼┐
//! │worker 0│  │worker 1│ …│worker N│  one pinned thread each
//! │ shell  │  │ shell  │  │ shell  │  sockets, time           src/worker
//! │ ┌────┐ │  │ ┌────┐ │  │ ┌────┐ │
//! │ │core│ │  │ │core│ │  │ │core│ │  decides; pure            src/shard
//! │ └────┘ │  │ └────┘ │  │ └────┘ │
//! └───▲────┘  └───▲────┘  └───▲────┘
//!     └───────────┴───────────┘  mesh: one ring per ordered pair  src/mesh
//! ```
//!
//! # Glossary
//! - **worker**: a pinned thread with a runtime of its own; it shares nothing that is written on the path of a message.
//! - **shard**: a worker's connections, their grants, subscriptions, limits and queues.
//! - **connection**: one WebSocket, from accept to the end of its socket.
//! - **pipe**: a named channel. **Grant**: what one connection may do on one pipe. **Rights**: subscribe, publish, presence.
//! - **ring**: a bounded single-producer single-consumer queue between two workers. **Doorbell**: wakes a sleeping one.
//! - **tick**: one turn of a worker: collect what happened, decide, write.
//!
//! # Reading order
//! [`bounds`] (what everything is limited to) · [`shard`] (the heart: `input`, `output`, then its own order) ·
//! [`protocol`] (bytes and JSON) · [`auth`] (tokens to identity and grants) · [`rules`] (the configuration's own) · [`mesh`] (between workers) · [`worker`] (the
//! only code that knows sockets) · [`config`] and [`cli`] · [`run`] (threads, signals).

pub mod auth;
pub mod bounds;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod mesh;
pub mod protocol;
pub mod rules;
pub mod run;
pub mod shard;
pub mod warned;
pub mod worker;
