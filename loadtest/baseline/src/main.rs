//! The broadcast server that a Rust user would write in an afternoon.
//!
//! It is the fixed denominator of Pipeward's ratios, so it is written as the library's own documentation suggests and
//! left alone: a task per connection, an unbounded channel per client forwarded into its sink (which gathers what is
//! waiting before it flushes), one mutex around the map of pipes, default settings everywhere. It checks nothing: any
//! bearer token is taken as the user's name. It speaks as much of the wire as the load generator needs, with every
//! field of the real frames, so that messages are as long as Pipeward's.

mod pipes;
mod wire;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use futures_channel::mpsc::unbounded;
use futures_util::{StreamExt, future, pin_mut};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use pipes::{Pipes, Sender};

/// The baseline that Pipeward is measured against: tokio and tungstenite, no permissions.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9080")]
    listen: SocketAddr,
    /// Threads of the runtime; 1 is the current-thread runtime.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let runtime = if options.workers == 1 {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(usize::from(options.workers)).enable_all().build()?
    };
    runtime.block_on(async {
        // Spawned, so that with several workers accepting is done by one of them.
        tokio::spawn(serve(options.listen)).await.expect("the accepting task does not panic")
    })
}

/// Accepts until the process ends.
async fn serve(address: SocketAddr) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let pipes = Arc::new(Pipes::default());
    let connections = AtomicU64::new(0);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or the peer is gone already: others may still be served.
            tokio::task::yield_now().await;
            continue;
        };
        let id = connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(connection(stream, id, Arc::clone(&pipes)));
    }
}

/// One client from handshake to end.
async fn connection(stream: TcpStream, id: u64, pipes: Arc<Pipes>) {
    let _ = stream.set_nodelay(true);
    let mut user = String::new();
    // The error type is the library's; it is never built here.
    #[allow(clippy::result_large_err)]
    let upgrade = |request: &Request, mut response: Response| {
        let headers = request.headers();
        if let Some(token) = headers.get("authorization").and_then(|value| value.to_str().ok()) {
            user = token.trim_start_matches("Bearer ").to_owned();
        }
        if headers.contains_key("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("pipeward.v1"));
        }
        Ok(response)
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, upgrade).await else { return };
    let (outgoing, mut incoming) = socket.split();

    let mut joined = HashSet::new();
    let (sender, receiver) = unbounded::<Message>();
    let _ = sender.unbounded_send(Message::Text(wire::welcome(id, &user).into()));

    let forward = receiver.map(Ok).forward(outgoing);
    let receive = async {
        while let Some(Ok(message)) = incoming.next().await {
            match message {
                Message::Text(text) => handle(&text, id, &user, &sender, &mut joined, &pipes),
                Message::Close(_) => break,
                _ => {}
            }
        }
    };
    pin_mut!(forward, receive);
    future::select(forward, receive).await;
    pipes.leave(&joined, id);
}

/// Does what one message asks for.
fn handle(text: &str, id: u64, user: &str, own: &Sender, joined: &mut HashSet<String>, pipes: &Pipes) {
    let Ok(request) = serde_json::from_str::<wire::Request>(text) else { return };
    let ok = match request.kind.as_ref() {
        "subscribe" => {
            for pipe in request.pipe.as_deref().into_iter().chain(request.pipes.iter().flatten().map(String::as_str)) {
                if joined.insert(pipe.to_owned()) {
                    pipes.join(pipe, id, own);
                }
            }
            true
        }
        "publish" => {
            let event = Utf8Bytes::from(wire::event(&request, user));
            let left_out = (request.echo == Some(false)).then_some(id);
            pipes.publish(request.pipe.as_deref().unwrap_or(""), &Message::Text(event), left_out);
            true
        }
        _ => false,
    };
    if let Some(request_id) = request.id {
        let _ = own.unbounded_send(Message::Text(wire::reply(request_id.get(), ok).into()));
    }
}
