//! Over real loopback sockets. Every wait blocks on the socket itself; its ceiling is reached by a failure only.

use std::net::{IpAddr, UdpSocket as StdSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::super::Poller;
use super::*;

const CEILING: Duration = Duration::from_secs(10);
const BUFFER: usize = 1 << 20;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("literal")
}

fn bind(text: &str) -> UdpSocket {
    UdpSocket::bind(address(text), BUFFER).expect("bind")
}

/// An ordinary socket, as a browser has one.
fn client(text: &str) -> StdSocket {
    let socket = StdSocket::bind(text).expect("loopback");
    socket.set_read_timeout(Some(CEILING)).expect("supported");
    socket
}

fn remote_of(socket: &StdSocket) -> AddressPair {
    AddressPair { local: None, remote: socket.local_addr().expect("bound") }
}

/// Receives until there are `count` datagrams; also returns the number of messages they came in.
fn receive(socket: &UdpSocket, count: usize) -> (Vec<(AddressPair, Vec<u8>)>, usize) {
    let (poller, _waker) = Poller::new(socket).expect("poller");
    let (mut batch, mut datagrams, mut messages) = (ReceiveBatch::new(), Vec::new(), 0);
    while datagrams.len() < count {
        assert!(poller.wait(Some(CEILING)).expect("wait").socket, "only {} of {count} came", datagrams.len());
        messages += socket.receive(&mut batch).expect("receive");
        datagrams.extend(batch.datagrams().map(|(pair, bytes)| (pair, bytes.to_vec())));
    }
    (datagrams, messages)
}

fn read(socket: &StdSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2000];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    (buffer[..len].to_vec(), from)
}

fn push(batch: &mut SendBatch, pair: AddressPair, tag: u32, bytes: &[u8]) {
    batch.space().expect("room")[..bytes.len()].copy_from_slice(bytes);
    batch.push(pair, tag, true, bytes.len());
}

/// Sends and expects no error.
fn send(socket: &UdpSocket, batch: &mut SendBatch) {
    socket.send(batch, &mut |tag, error, failure| panic!("receiver {tag}: {error} ({failure:?})"));
    assert!(batch.is_empty());
}

/// `lens.len()` datagrams, each filled with its index.
fn numbered(lens: &[usize]) -> Vec<Vec<u8>> {
    lens.iter().enumerate().map(|(index, &len)| vec![index as u8; len]).collect()
}

#[test]
fn a_reply_leaves_from_the_address_that_was_asked() {
    for (server, asked, client_at) in [
        ("[::]:0", "127.0.0.2", "127.0.0.1:0"),
        ("[::]:0", "127.0.0.1", "127.0.0.3:0"),
        ("0.0.0.0:0", "127.0.0.2", "127.0.0.1:0"),
        ("[::]:0", "::1", "[::1]:0"),
    ] {
        let server = bind(server);
        let client = client(client_at);
        let asked: IpAddr = asked.parse().expect("literal");
        client.send_to(b"question", (asked, server.local_addr().port())).expect("send");
        let (datagrams, _) = receive(&server, 1);
        let (pair, bytes) = &datagrams[0];
        assert_eq!(pair.local, Some(asked));
        assert_eq!(pair.remote, client.local_addr().expect("bound"), "canonical");
        assert_eq!(bytes, b"question");
        // A run, too: both kinds of ancillary data in one message.
        let mut batch = SendBatch::new();
        push(&mut batch, *pair, 0, b"answer 1");
        push(&mut batch, *pair, 0, b"answer 2");
        send(&server, &mut batch);
        for text in [b"answer 1", b"answer 2"] {
            assert_eq!(read(&client), (text.to_vec(), (asked, server.local_addr().port()).into()));
        }
    }
}

#[test]
fn a_link_local_sender_keeps_its_scope_and_is_answered() {
    // Loopback has no link-local address; a machine without another interface has nothing to prove here.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let found = interfaces.iter().find_map(|interface| match interface.ip() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some((ip, interface.index?)),
        _ => None,
    });
    let Some((ip, scope)) = found else { return };
    let server = bind("[::]:0");
    let at = std::net::SocketAddrV6::new(ip, 0, 0, scope);
    let client = StdSocket::bind(at).expect("our own address");
    client.set_read_timeout(Some(CEILING)).expect("supported");
    let asked = std::net::SocketAddrV6::new(ip, server.local_addr().port(), 0, scope);
    client.send_to(b"question", asked).expect("send");
    let (datagrams, _) = receive(&server, 1);
    let pair = datagrams[0].0;
    assert_eq!(pair.local, Some(ip.into()));
    assert_eq!(pair.remote, client.local_addr().expect("bound"));
    let mut batch = SendBatch::new();
    push(&mut batch, pair, 0, b"answer");
    send(&server, &mut batch);
    assert_eq!(read(&client), (b"answer".to_vec(), asked.into()));
}

#[test]
fn runs_arrive_as_single_datagrams_in_order_whatever_their_sizes() {
    let (server, client) = (bind("127.0.0.1:0"), client("127.0.0.1:0"));
    let equal = numbered(&[1200; 70]);
    let mixed = numbered(&[1200, 1200, 1199, 1200, 50, 50, 51, 1, 1, 1500, 1500, 1]);
    for datagrams in [equal, mixed] {
        let mut batch = SendBatch::new();
        for datagram in &datagrams {
            push(&mut batch, remote_of(&client), 0, datagram);
        }
        send(&server, &mut batch);
        for datagram in &datagrams {
            assert_eq!(&read(&client).0, datagram);
        }
    }
}

#[test]
fn a_merged_message_is_split_into_its_datagrams() {
    let (sender, receiver) = (bind("[::]:0"), bind("[::]:0"));
    for ip in ["127.0.0.1", "::1"] {
        let to: IpAddr = ip.parse().expect("literal");
        let pair = AddressPair { local: None, remote: (to, receiver.local_addr().port()).into() };
        let lens = [[1000; 15].as_slice(), &[400]].concat();
        let mut batch = SendBatch::new();
        for datagram in numbered(&lens) {
            push(&mut batch, pair, 0, &datagram);
        }
        send(&sender, &mut batch);
        let (datagrams, messages) = receive(&receiver, lens.len());
        assert_eq!(messages, 1, "on loopback a run is not taken apart on the way");
        assert!(datagrams.iter().all(|(pair, _)| pair.local == Some(to)));
        assert_eq!(datagrams.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), numbered(&lens));
    }
}

#[test]
fn many_receivers_are_served_by_several_calls() {
    let server = bind("[::]:0");
    let clients: Vec<_> = (0..SEND_MESSAGES + 10).map(|_| client("127.0.0.1:0")).collect();
    let mut batch = SendBatch::new();
    for (tag, client) in clients.iter().enumerate() {
        push(&mut batch, remote_of(client), tag as u32, &[tag as u8; 200]);
        push(&mut batch, remote_of(client), tag as u32, &[tag as u8; 100]);
    }
    send(&server, &mut batch);
    for (tag, client) in clients.iter().enumerate() {
        assert_eq!(read(client).0, [tag as u8; 200]);
        assert_eq!(read(client).0, [tag as u8; 100]);
    }
}

#[test]
fn the_error_of_one_receiver_stops_no_other() {
    for bound in ["[::]:0", "127.0.0.1:0"] {
        let server = bind(bound);
        let (first, last) = (client("127.0.0.1:0"), client("127.0.0.1:0"));
        // Nobody may broadcast without asking, so the kernel refuses; nobody listens at the closed port, which is
        // reported after the fact, if at all.
        let forbidden = AddressPair { local: None, remote: address("255.255.255.255:9") };
        let closed = remote_of(&client("127.0.0.1:0"));
        let mut batch = SendBatch::new();
        push(&mut batch, remote_of(&first), 1, b"first");
        push(&mut batch, forbidden, 2, b"lost");
        push(&mut batch, forbidden, 2, b"lost");
        push(&mut batch, closed, 3, b"void");
        push(&mut batch, remote_of(&last), 4, b"last");
        let mut failures = Vec::new();
        server.send(&mut batch, &mut |tag, _, failure| failures.push((tag, failure)));
        assert_eq!(failures, [(2, SendFailure::Other); 2]);
        assert_eq!(read(&first).0, b"first");
        assert_eq!(read(&last).0, b"last");
        // Nor does it end receiving.
        last.send_to(b"alive", ("127.0.0.1", server.local_addr().port())).expect("send");
        assert_eq!(receive(&server, 1).0[0].1, b"alive");
    }
}

#[test]
fn a_path_without_segmentation_gets_the_datagrams_singly() {
    let (server, client) = (bind("127.0.0.1:0"), client("127.0.0.1:0"));
    // Without checksums the kernel refuses runs, as it does where the path's MTU is smaller than a segment.
    set_option(&server.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("supported");
    let datagrams = numbered(&[700, 700, 300]);
    let mut batch = SendBatch::new();
    for datagram in &datagrams {
        push(&mut batch, remote_of(&client), 9, datagram);
    }
    let mut failures = Vec::new();
    server.send(&mut batch, &mut |tag, _, failure| failures.push((tag, failure)));
    assert_eq!(failures, [(9, SendFailure::DropGso)]);
    for datagram in &datagrams {
        assert_eq!(&read(&client).0, datagram);
    }
    assert!(server.gso.load(Ordering::Relaxed), "only this path is concerned");
}

#[test]
fn a_datagram_that_does_not_fit_is_refused_and_counted() {
    let (server, client) = (bind("127.0.0.1:0"), client("127.0.0.1:0"));
    for datagram in [[1; 100].as_slice(), &[2; 101], &[3; 100], &[]] {
        client.send_to(datagram, server.local_addr()).expect("send");
    }
    let (poller, _waker) = Poller::new(&server).expect("poller");
    let mut batch = ReceiveBatch::with_message_size(100);
    assert!(poller.wait(Some(CEILING)).expect("wait").socket);
    // Loopback delivers before the send returns, so all four wait.
    assert_eq!(server.receive(&mut batch).expect("receive"), 4);
    assert_eq!(batch.too_long(), 1);
    let lens: Vec<_> = batch.datagrams().map(|(_, bytes)| (bytes.len(), bytes.first().copied())).collect();
    assert_eq!(lens, [(100, Some(1)), (100, Some(3)), (0, None)]);
}

#[test]
fn nothing_to_receive_is_no_error_and_empties_the_batch() {
    let (server, client) = (bind("[::]:0"), client("[::1]:0"));
    client.send_to(b"x", (std::net::Ipv6Addr::LOCALHOST, server.local_addr().port())).expect("send");
    let mut batch = ReceiveBatch::new();
    assert_eq!(server.receive(&mut batch).expect("receive"), 1);
    assert_eq!(server.receive(&mut batch).expect("receive"), 0);
    assert_eq!(batch.datagrams().count(), 0);
}

#[test]
fn a_datagram_says_when_it_arrived_and_not_when_it_was_read() {
    for (server, to) in [("[::]:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.1")] {
        let (server, client) = (bind(server), client("127.0.0.1:0"));
        let before = SystemTime::now();
        client.send_to(b"x", (to, server.local_addr().port())).expect("send");
        // Loopback delivers before the send returns.
        let after = SystemTime::now();
        let mut batch = ReceiveBatch::new();
        assert_eq!(server.receive(&mut batch).expect("receive"), 1);
        let (arrived, ..) = batch.arrivals().next().expect("one");
        let arrived = arrived.expect("Linux says it");
        assert!(before <= arrived && arrived <= after, "{before:?} {arrived:?} {after:?}");
    }
}

#[test]
fn buffers_are_asked_for_and_read_back() {
    let (receive, send) = UdpSocket::bind(address("[::]:0"), 1 << 17).expect("bind").buffer_sizes();
    assert_eq!((receive, send), (1 << 17, 1 << 17), "128 KiB is below every system's limit");
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let first = bind("127.0.0.1:0");
    let error = UdpSocket::bind(first.local_addr(), BUFFER).expect_err("taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
