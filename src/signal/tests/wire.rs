//! Both carriers as a client meets them: a real listener and independent clients.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::*;
use crate::signal::http::router;
use crate::signal::serve::serve;

struct Site {
    house: House,
    address: SocketAddr,
}

impl Site {
    async fn new(settings: Settings) -> Self {
        let house = House::new(settings);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (router, rooms) = (router(house.rooms.clone()), house.rooms.clone());
        tokio::spawn(serve(listener, router, rooms, std::future::pending()));
        Self { house, address }
    }

    async fn get(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    async fn post(&self, query: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let length = body.len();
        let head = format!(
            "POST /v1/poll{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}"
        );
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    async fn connect(&self, by: By) -> Browser<'_> {
        match by {
            By::Socket => Browser::Socket(self.socket().await),
            By::Poll => Browser::Poll(Polling { site: self, id: None, heard: VecDeque::new() }),
        }
    }

    async fn socket(&self) -> Socket {
        self.connect_from(None).await.expect("connected")
    }

    async fn connect_from(&self, origin: Option<&str>) -> Result<Socket, Error> {
        let mut request = format!("ws://{}/v1/ws", self.address).into_client_request().expect("a request");
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a header"));
        }
        connect_async(request).await.map(|(socket, _)| socket)
    }

    async fn join(&self, by: By, name: &str) -> (Browser<'_>, Value) {
        let mut browser = self.connect(by).await;
        browser.say(hello(name)).await;
        let welcome = browser.hear().await;
        assert_eq!(welcome["t"], "welcome", "{welcome}");
        (browser, welcome)
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Socket,
    Poll,
}

/// Each test as one over WebSockets and one over long poll.
macro_rules! over_both {
    ($($name:ident)*) => {
        mod by_socket {
            $(#[tokio::test] async fn $name() { super::$name(super::By::Socket).await; })*
        }
        mod by_poll {
            $(#[tokio::test] async fn $name() { super::$name(super::By::Poll).await; })*
        }
    };
}

over_both! {
    two_browsers_meet_and_one_says_goodbye
    a_broken_connection_is_resumed_and_its_half_open_rest_closed
    the_first_message_must_open_or_resume
    nonsense_is_answered_and_harms_nobody
    a_stopping_server_says_so_and_lets_nobody_in
}

#[allow(clippy::large_enum_variant, reason = "there are a handful")]
enum Browser<'a> {
    Socket(Socket),
    Poll(Polling<'a>),
}

struct Polling<'a> {
    site: &'a Site,
    id: Option<String>,
    heard: VecDeque<Value>,
}

impl Polling<'_> {
    /// One request and what its answer says.
    async fn request(&mut self, timeoutms: u32, text: &str) -> Vec<Value> {
        let named = self.id.as_ref().map(|id| format!("{}\n", json!({"t": "poll", "id": id})));
        let body = named.unwrap_or_default() + text;
        let answer = self.site.post(&format!("?timeoutms={timeoutms}"), &body).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("content-type: text/plain; charset=utf-8"), "{head}");
        assert!(head.contains("access-control-allow-origin: *"), "{head}");
        let mut lines: Vec<Value> =
            body.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect();
        if lines.first().is_some_and(|line| line["t"] == "carrier") {
            self.id = lines.remove(0)["id"].as_str().map(str::to_owned);
        }
        lines
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some(message) = self.heard.pop_front() {
                return message;
            }
            let lines = self.request(5000, "").await;
            self.heard.extend(lines);
        }
    }
}

impl Browser<'_> {
    async fn say(&mut self, message: Value) {
        self.send(&(message.to_string() + "\n")).await;
    }

    async fn send(&mut self, text: &str) {
        match self {
            Self::Socket(socket) => socket.send(Message::text(text)).await.expect("sent"),
            Self::Poll(polling) => {
                let lines = polling.request(0, text).await;
                polling.heard.extend(lines);
            }
        }
    }

    async fn hear(&mut self) -> Value {
        match self {
            Self::Socket(socket) => {
                let message = next(socket).await;
                assert!(message.is_text(), "{message:?}");
                serde_json::from_str(message.to_text().expect("text")).expect("valid JSON")
            }
            Self::Poll(polling) => polling.next().await,
        }
    }

    async fn code(&mut self) -> u16 {
        match self {
            Self::Socket(socket) => match next(socket).await {
                Message::Close(Some(frame)) => frame.code.into(),
                other => panic!("{other:?}"),
            },
            Self::Poll(polling) => {
                let closed = polling.next().await;
                assert_eq!(closed["t"], "closed", "{closed}");
                closed["code"].as_u64().and_then(|code| u16::try_from(code).ok()).expect("a code")
            }
        }
    }
}

async fn next(socket: &mut Socket) -> Message {
    loop {
        let message = socket.next().await.expect("open").expect("a frame");
        if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return message;
        }
    }
}

fn resume(welcome: &Value, token: &Value, a: u64) -> Value {
    json!({"t": "resume", "session": welcome["session"], "token": token, "a": a})
}

async fn two_browsers_meet_and_one_says_goodbye(by: By) {
    let site = Site::new(Settings::default()).await;
    let (mut ada, _) = site.join(by, "Ada").await;
    let (mut ben, welcome) = site.join(by, "Ben").await;
    assert_eq!(ada.hear().await["joined"][0]["name"], "Ben");
    ben.say(json!({"t": "bye", "s": 2, "a": 1})).await;
    assert_eq!(ada.hear().await["left"], json!([{"id": welcome["you"], "reason": "bye"}]));
    assert_eq!(ben.code().await, 1000);
    ada.say(json!({"t": "bye", "s": 2, "a": 3})).await;
    assert_eq!(ada.code().await, 1000);
}

#[tokio::test]
async fn a_page_that_closes_leaves() {
    let site = Site::new(Settings::default()).await;
    // One of each: what carries a session concerns nobody else.
    let (mut ada, _) = site.join(By::Poll, "Ada").await;
    let (ben, welcome) = site.join(By::Socket, "Ben").await;
    assert_eq!(ada.hear().await["joined"][0]["name"], "Ben");
    let Browser::Socket(mut ben) = ben else { unreachable!("asked for") };
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 1001.into(), reason: "".into() };
    ben.close(Some(frame)).await.expect("closed");
    assert_eq!(ada.hear().await["left"], json!([{"id": welcome["you"], "reason": "bye"}]));
}

async fn a_broken_connection_is_resumed_and_its_half_open_rest_closed(by: By) {
    let site = Site::new(Settings::default()).await;
    let (mut ada, welcome) = site.join(by, "Ada").await;
    let mut second = site.connect(by).await;
    second.say(resume(&welcome, &welcome["resume"], 1)).await;
    let resumed = second.hear().await;
    assert_eq!((&resumed["t"], &resumed["a"]), (&json!("resumed"), &json!(1)));
    assert_eq!(ada.code().await, 4000);

    let mut thief = site.connect(by).await;
    thief.say(resume(&welcome, &json!("0".repeat(32)), 1)).await;
    assert_eq!(thief.hear().await["reason"], "resume_token");
    assert_eq!(thief.code().await, 4001);

    second.say(json!({"t": "ack", "a": 1})).await;
    second.say(json!({"t": "ping", "a": 1})).await;
    assert_eq!(second.hear().await, json!({"t": "pong", "a": 1}));
    let mut late = site.connect(by).await;
    late.say(resume(&welcome, &welcome["resume"], 1)).await;
    assert_eq!(late.hear().await["reason"], "resume_token", "the new token has arrived");

    // The network breaks without a word.
    drop(second);
    let mut third = site.connect(by).await;
    third.say(resume(&welcome, &resumed["resume"], 1)).await;
    assert_eq!(third.hear().await["t"], "resumed");
}

#[tokio::test]
async fn a_socket_must_say_hello_in_time() {
    let settings = Settings { hello_within: Duration::from_millis(30), ..Settings::default() };
    let site = Site::new(settings).await;
    let mut silent = site.connect(By::Socket).await;
    let refusal = silent.hear().await;
    assert_eq!((&refusal["t"], &refusal["reason"]), (&json!("refuse"), &json!("hello_missing")));
    assert_eq!(silent.code().await, 4001);
}

async fn the_first_message_must_open_or_resume(by: By) {
    let site = Site::new(Settings::default()).await;
    for (first, reason) in [
        (r#"{"t":"ping"}"#, "hello_missing"),
        (r#"{"t":"hello","s":1}"#, "message_malformed"),
        (r#"{"t":"resume","session":"0000000000000000","token":"x","a":0}"#, "unknown_session"),
    ] {
        let mut browser = site.connect(by).await;
        browser.send(first).await;
        assert_eq!(browser.hear().await["reason"], reason, "{first:?}");
        assert_eq!(browser.code().await, 4001);
    }
    for first in [Message::text("{"), Message::binary(vec![1, 2, 3])] {
        let mut socket = site.socket().await;
        socket.send(first).await.expect("sent");
        let mut browser = Browser::Socket(socket);
        assert_eq!(browser.hear().await["reason"], "message_malformed");
        assert_eq!(browser.code().await, 4001);
    }
    assert!(site.post("", "{").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_connection_that_requests_nothing_is_closed() {
    let settings = Settings { header_within: Duration::from_millis(50), ..Settings::default() };
    let site = Site::new(settings).await;
    for begun in ["", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(site.address).await.expect("connected");
        stream.write_all(begun.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        closed.expect("closed").expect("without an error");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
}

async fn nonsense_is_answered_and_harms_nobody(by: By) {
    let site = Site::new(Settings::default()).await;
    let (mut ada, _) = site.join(by, "Ada").await;
    let deep = format!(r#"{{"t":"bye","s":2,"x":{}}}"#, "[".repeat(5000));
    for nonsense in ["{\"t\":", &deep, "null"] {
        ada.send(nonsense).await;
        assert_eq!(ada.hear().await["reason"], "message_malformed");
    }
    let long = json!({"t": "name", "s": 2, "a": 4, "name": "x".repeat(70_000)});
    ada.say(long).await;
    let error = ada.hear().await;
    assert_eq!((&error["reason"], &error["id"]), (&json!("message_too_large"), &json!(2)));
    ada.say(json!({"t": "name", "s": 3, "a": 5, "name": "Ada"})).await;
    ada.say(json!({"t": "ping", "a": 5})).await;
    assert_eq!(ada.hear().await["t"], "pong");
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection_but_not_the_session() {
    let site = Site::new(Settings::default()).await;
    let (ada, welcome) = site.join(By::Socket, "Ada").await;
    let Browser::Socket(mut ada) = ada else { unreachable!("asked for") };
    // The server may close before all of it is written.
    let _ = ada.send(Message::text("x".repeat(1 << 20))).await;
    let mut code = None;
    while let Some(Ok(message)) = ada.next().await {
        if let Message::Close(Some(frame)) = message {
            code = Some(u16::from(frame.code));
        }
    }
    // A reset, because not everything was read, may overtake the code.
    assert!(matches!(code, None | Some(1009)), "{code:?}");
    assert_eq!(site.house.refused.get(Reason::MessageTooLarge), 1);
    let mut again = site.connect(By::Socket).await;
    again.say(resume(&welcome, &welcome["resume"], 1)).await;
    assert_eq!(again.hear().await["t"], "resumed");
}

#[tokio::test]
async fn a_flood_is_slowed_down_and_loses_nothing() {
    let site = Site::new(Settings { burst: 2, messages_per_second: 100, ..Settings::default() }).await;
    let (ada, _) = site.join(By::Socket, "Ada").await;
    let Browser::Socket(mut ada) = ada else { unreachable!("asked for") };
    let start = Instant::now();
    for _ in 0..12 {
        ada.feed(Message::text(r#"{"t":"ping","a":1}"#)).await.expect("queued");
    }
    ada.flush().await.expect("sent");
    let mut ada = Browser::Socket(ada);
    for _ in 0..12 {
        assert_eq!(ada.hear().await["t"], "pong");
    }
    // Two at once and ten at 10 ms each; more only if this machine is slow.
    assert!(start.elapsed() >= Duration::from_millis(95), "{:?}", start.elapsed());
    assert!(site.house.refused.get(Reason::RateLimited) > 0);
}

#[tokio::test]
async fn pages_of_foreign_origins_are_turned_away() {
    let site =
        Site::new(Settings { origins: vec!["https://friend.example".into()], ..Settings::default() }).await;
    let own = format!("http://{}", site.address);
    for welcome in [own.as_str(), "https://friend.example"] {
        assert!(site.connect_from(Some(welcome)).await.is_ok(), "{welcome}");
    }
    let Err(Error::Http(answer)) = site.connect_from(Some("https://evil.example")).await else {
        panic!("not refused");
    };
    assert_eq!(answer.status(), 403);
    assert_eq!(site.house.refused.get(Reason::Origin), 1);
}

async fn a_stopping_server_says_so_and_lets_nobody_in(by: By) {
    let site = Site::new(Settings::default()).await;
    let (mut ada, _) = site.join(by, "Ada").await;
    site.house.rooms.stop(Reason::ShuttingDown).await;
    assert_eq!(ada.hear().await["t"], "goaway");
    assert_eq!(ada.code().await, 1001);
    drop(ada);
    site.house.rooms.connections_gone().await;
    let Err(Error::Http(answer)) = site.connect_from(None).await else { panic!("not refused") };
    assert_eq!(answer.status(), 503);
    assert!(site.post("", &hello("Ben").to_string()).await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn the_clients_files_are_served_with_their_types_and_nothing_else_is() {
    let site = Site::new(Settings::default()).await;
    let page = site.get("/", "").await;
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("content-type: text/html; charset=utf-8"),
        "{page}"
    );
    for header in ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "etag: "]
    {
        assert!(page.contains(header), "{header}");
    }
    assert!(!page.contains("unsafe-inline"));
    let module = site.get("/motet.js", "").await;
    assert!(module.contains("content-type: text/javascript; charset=utf-8"), "{module}");
    let tag = module.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag");
    let again = site.get("/motet.js", &format!("if-none-match: {tag}\r\n")).await;
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
    assert!(site.get("/livez", "").await.ends_with("ok\n"));
    for path in
        ["/package.json", "/test/motet.test.js", "/../Cargo.toml", "/%2e%2e/Cargo.toml", "//etc/passwd"]
    {
        let answer = site.get(path, "").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}
