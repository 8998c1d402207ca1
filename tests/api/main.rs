//! The server API, end to end over real sockets: the real router and listener, over a service that is played (`fake`), so
//! that what reaches the service and what does not can be seen exactly. What a call does to connections is tested elsewhere,
//! with the whole server.
//!
//! Contents: `calls` (each call does what it says) · `strict` (bad input changes nothing) · `keys` (who may call what) ·
//! `batch` · `queries` · `queues` · `listener` (time-outs, bounds, stopping) · `document` (OpenAPI) · `pages` (browsers) · `verbs` (the command line).

mod batch;
mod calls;
mod document;
mod fake;
mod http;
mod keys;
mod listener;
mod pages;
mod queries;
mod queues;
mod strict;
mod verbs;
