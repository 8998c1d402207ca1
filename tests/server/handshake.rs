//! x
use crate::support::{Client, Server, token};
#[test]
fn smoke() {
    let server = Server::start("");
    let mut client = Client::connect(server.address, &token("ann", &[("room", "sub,pub")]));
    assert!(client.settle().is_empty());
    println!("{:?}", server.counters());
    client.close();
}
