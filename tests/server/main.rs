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
