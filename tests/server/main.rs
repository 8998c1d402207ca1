//! The real binary, driven over real sockets.
//!
//! Contents: `handshake` (every refusal, and what is served) · `tokens` (credentials, algorithms, expiry) · `frames`
//! (what is a message and what breaks the framing) · `closing` (close handshakes, silence, pings) · `process` (exit
//! codes, draining, bad bytes) · `grants` (who may do what) · `publish` (who gets what, in which order) · `limits`
//! (caps) · `rates` (slowed, refused, closed) · `descriptors` (running out of them) · `workers` (across cores) · `slow`
//! (consumers that do not read) · `proxies` (whose address it is).
//!
//! What changes while they are connected: `revocation` (pipes) · `revoked_tokens` · `refresh` · `presence` · `pushes` (what
//! the application sends) · `control` (what else it may do, the audit, the end) · `reload` (SIGHUP) · `crash` (what outlives
//! the process).
//!
//! What the configuration says about who may do what: `rules` (expressions, and their faults) · `guards` · `scopes` ·
//! `asked` (rules and guards that are the application's) · `asked_anew` (what overtakes its answers) · `redecided` (what
//! refresh and reload change) · `events` (their rights) · `filters` · `payloads` (schemas, sizes, scope fields) ·
//! `limits_of_rules` (rates of pipes, sums, narrowed limits).
//!
//! What the application is asked, and what clients ask of it: `webhook` (who may connect) · `webhook_refresh` (who they are
//! now) · `actions` · `queues` · `client_push` (pushes by clients).
//!
//! Each test starts a server of its own on a port of its own. Whatever must happen may take [`support::PATIENCE`];
//! nothing is asserted to be fast. `PIPEWARD_BACKEND=epoll` runs them all without io_uring.

mod support;

mod closing;
mod frames;
mod handshake;
mod process;
mod tokens;

mod descriptors;
mod grants;
mod limits;
mod proxies;
mod publish;
mod rates;
mod slow;
mod workers;

mod control;
mod crash;
mod presence;
mod pushes;
mod refresh;
mod reload;
mod revocation;
mod revoked_tokens;

mod asked;
mod asked_anew;
mod events;
mod filters;
mod guards;
mod limits_of_rules;
mod payloads;
mod redecided;
mod rules;
mod scopes;

mod actions;
mod client_push;
mod queues;
mod webhook;
mod webhook_refresh;
