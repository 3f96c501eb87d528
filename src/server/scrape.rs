//! Metrics and health as an operator's tools meet them: a real server, read over HTTP.

use std::collections::BTreeMap;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;

async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_owned(), body.to_owned())
}

/// Every sample by name and labels, after a look at every line.
async fn scrape(server: &Server) -> BTreeMap<String, f64> {
    let (status, head, body) = get(server.admin_addr.expect("wanted"), "/metrics").await;
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    let lines: Vec<_> = body.lines().collect();
    let (last, lines) = lines.split_last().expect("lines");
    assert_eq!(*last, "# EOF");
    let mut samples = BTreeMap::new();
    let mut family = "";
    for line in lines {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (kind, name, text) =
                (words.next(), words.next().expect("a name"), words.next().expect("a text"));
            match kind {
                Some("HELP") => family = name,
                Some("TYPE") => assert_eq!(family, name, "the type follows the help"),
                _ => panic!("{line}"),
            }
            assert!(!text.is_empty(), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("name and value");
        assert!(name.starts_with(family), "{line} belongs to {family}");
        let open = name.find('{').unwrap_or(name.len());
        assert!(name[..open].bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        for label in name[open..].trim_matches(['{', '}']).split(',').filter(|label| !label.is_empty()) {
            let (_, quoted) = label.split_once('=').expect("key and value");
            assert!(quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"'), "{line}");
        }
        let value: f64 = value.parse().expect("a number");
        assert!(value >= 0.0, "{line}");
        assert!(samples.insert(name.to_owned(), value).is_none(), "{line} stands twice");
    }
    samples
}

async fn with_admin() -> Server {
    let flags = ["motet", "--http=127.0.0.1:0", "--admin=127.0.0.1:0", "--udp=0", "--workers=2"];
    let config = Config::load(flags.map(Into::into)).expect("valid flags");
    start(&config).await.expect("started")
}

#[tokio::test]
async fn a_scrape_shows_who_came_and_went() {
    let server = with_admin().await;
    let before = scrape(&server).await;
    assert_eq!((before["motet_participants"], before["motet_rooms"]), (0.0, 0.0));
    assert_eq!(before["motet_joins_total"], 0.0);

    let url = format!("ws://{}/v1/ws", server.http_addr);
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.expect("connected");
    let hello = serde_json::json!({"t": "hello", "s": 1, "a": 0, "room": "secret-garden", "name": "Ada",
        "offer": include_str!("../../tests/data/offers/chromium-join.sdp"),
        "publish": [{"mid": "0", "kind": "audio", "source": "microphone"}]});
    socket.send(Message::text(hello.to_string())).await.expect("sent");
    let welcome = socket.next().await.expect("open").expect("a frame");
    assert!(welcome.to_text().expect("text").contains("\"t\":\"welcome\""), "{welcome}");
    let joined = scrape(&server).await;
    for (name, value) in [
        ("motet_participants", 1.0),
        ("motet_publications", 1.0),
        ("motet_rooms", 1.0),
        ("motet_connections", 1.0),
        ("motet_sessions{carrier=\"websocket\"}", 1.0),
        ("motet_sessions{carrier=\"none\"}", 0.0),
        ("motet_joins_total", 1.0),
        ("motet_join_stage_seconds_count{stage=\"welcome\"}", 1.0),
        ("motet_join_stage_seconds_count{stage=\"ice\"}", 0.0),
    ] {
        assert_eq!(joined.get(name), Some(&value), "{name}");
    }
    assert!(joined.keys().all(|name| !name.contains("garden") && !name.contains("Ada")));

    // A datagram of no protocol reaches a worker and is dropped for a reason.
    let worker = SocketAddr::from(([127, 0, 0, 1], server.udp_addrs[0].port()));
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    stranger.send_to(&[0xff; 40], worker).expect("sent");
    let dropped = "motet_dropped_total{reason=\"unknown_protocol\"}";
    // As soon as the worker's thread gets its turn.
    let counted = async {
        while scrape(&server).await[dropped] < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), counted).await.expect("counted");
    let after = scrape(&server).await;
    assert_eq!(after["motet_bytes_received_total{worker=\"0\"}"], 40.0);
    assert!(after["motet_worker_turn_seconds_count{worker=\"0\"}"] >= 1.0);
    assert!(after["motet_worker_lag_seconds_count{worker=\"0\"}"] >= 1.0);

    socket.send(Message::Close(None)).await.expect("sent");
    drop(socket);
    let lost = async {
        while scrape(&server).await["motet_sessions{carrier=\"websocket\"}"] > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), lost).await.expect("noticed");
    server.shutdown().await;
}

#[tokio::test]
async fn both_listeners_say_whether_the_server_is_ready() {
    let server = with_admin().await;
    let listeners = [server.http_addr, server.admin_addr.expect("wanted")];
    for address in listeners {
        assert_eq!(get(address, "/livez").await.0, 200);
        assert_eq!(get(address, "/readyz").await.0, 200);
    }
    assert_eq!(get(server.http_addr, "/metrics").await.0, 404, "not for everybody");
    server.rooms.stop(Reason::ShuttingDown).await;
    for address in listeners {
        assert_eq!(get(address, "/livez").await.0, 200);
        assert_eq!(get(address, "/readyz").await.0, 503, "stopping");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_whose_worker_is_gone_is_not_ready() {
    let server = with_admin().await;
    assert!(server.rooms.is_ready());
    server.media.stop();
    assert!(!server.rooms.is_ready());
    assert_eq!(get(server.http_addr, "/readyz").await.0, 503);
    server.shutdown().await;
}

#[tokio::test]
async fn metrics_are_served_nowhere_unless_wanted() {
    let flags = ["motet", "--http=127.0.0.1:0", "--udp=0", "--workers=1"];
    let server = start(&Config::load(flags.map(Into::into)).expect("valid flags")).await.expect("started");
    assert_eq!(server.admin_addr, None);
    server.shutdown().await;
}
