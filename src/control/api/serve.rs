//! The listener of the server API: a bounded number of connections, none of which can be slow without end.
//!
//! - The head of a request must arrive within [`HEAD_MS_MAX`], also the next one on a connection that is kept.
//! - A body has its own limit (`body`).
//! - A client that does not take its answer is cut off by the kernel after [`UNTAKEN_MS_MAX`] (TCP_USER_TIMEOUT).
//! - Beyond [`CONNECTIONS_MAX`] connections nobody is accepted; they wait in the kernel's backlog.
//!
//! An idle connection costs a few kilobytes: hyper gives its buffers back.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_service::Service as _;

/// Connections at one time. More: they wait to be accepted.
const CONNECTIONS_MAX: u32 = 1024;
/// Time for the head of a request, in milliseconds. More: the connection is closed.
const HEAD_MS_MAX: u64 = 10_000;
/// Bytes of the head of a request, and of the buffer behind it. More: 431.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Time that an answer may lie untaken, in milliseconds. More: the connection is reset.
const UNTAKEN_MS_MAX: u64 = 30_000;
/// Time that calls which have begun get to end when the server stops, in milliseconds.
const STOP_MS_MAX: u64 = 5_000;
/// Pause after a failed accept (descriptors exhausted), in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 50;

/// The address of a client, put into the extensions of each of its requests.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves until `stop` holds true, then lets the calls that have begun end, for at most 5 s.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let told = stop.clone();
    let mut stopped = pin!(async move {
        // The sender's end is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    while let Some(Ok(seat)) = either(seats.clone().acquire_owned(), stopped.as_mut()).await {
        match either(listener.accept(), stopped.as_mut()).await {
            Some(Ok((stream, peer))) => {
                tokio::spawn(connection(stream, peer, router.clone(), told.clone(), seat));
            }
            Some(Err(_)) => tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await,
            None => break,
        }
    }
    drop(listener);
    let all_ended = seats.acquire_many(CONNECTIONS_MAX);
    // Whoever is not done by then is cut off with the runtime.
    let _ = tokio::time::timeout(Duration::from_millis(STOP_MS_MAX), all_ended).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stop: watch::Receiver<bool>,
    _seat: OwnedSemaphorePermit,
) {
    // Options of a socket that has just died cannot be set, and need not.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(Duration::from_millis(UNTAKEN_MS_MAX)));
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.clone().call(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_MS_MAX))
        .max_buf_size(HEAD_BYTES_MAX);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let stopped = pin!(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    // What goes wrong with a connection is its client's affair: there is nobody left to tell.
    if either(serving.as_mut(), stopped).await.is_none() {
        serving.as_mut().graceful_shutdown();
        let _ = serving.await;
    }
}

/// What `work` comes to, or None where `stopped` is there first.
async fn either<W: Future>(work: W, stopped: impl Future<Output = ()>) -> Option<W::Output> {
    let (mut work, mut stopped) = (pin!(work), pin!(stopped));
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        stopped.as_mut().poll(context).map(|()| None)
    })
    .await
}
