//! The long poll, request by request, without a network: the clock stands still unless a test waits.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use tokio::task::JoinHandle;

use super::*;
use crate::signal::poll::poll;

/// An answer: its status and its lines.
type Answer = (u16, Vec<Value>);

async fn post(rooms: Arc<Rooms>, timeoutms: impl std::fmt::Display, body: impl Into<Body>) -> Answer {
    let uri = format!("/v1/poll?timeoutms={timeoutms}");
    let request = Request::post(uri).body(body.into()).expect("a request");
    let response = poll(State(rooms), request).await;
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    let text = String::from_utf8(body.to_vec()).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    (status, text.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect())
}

fn lines(messages: &[Value]) -> String {
    messages.iter().map(|message| format!("{message}\n")).collect()
}

fn kinds(answer: &Answer) -> Vec<&str> {
    answer.1.iter().map(|line| line["t"].as_str().expect("a kind")).collect()
}

/// Somebody without WebSockets.
struct Poller {
    rooms: Arc<Rooms>,
    id: String,
    welcome: Value,
}

impl Poller {
    async fn join(house: &House, name: &str) -> Self {
        let answer = post(house.rooms.clone(), "0", lines(&[hello(name)])).await;
        assert_eq!((answer.0, kinds(&answer)), (200, vec!["carrier", "welcome"]));
        let id = answer.1[0]["id"].as_str().expect("an id").to_owned();
        Self { rooms: house.rooms.clone(), id, welcome: answer.1[1].clone() }
    }

    fn body(&self, messages: &[Value]) -> String {
        lines(&[&[json!({"t": "poll", "id": self.id})], messages].concat())
    }

    async fn request(&self, timeoutms: u64, messages: &[Value]) -> Answer {
        post(self.rooms.clone(), timeoutms, self.body(messages)).await
    }

    /// A request that waits, begun.
    async fn listen(&self, timeoutms: u64) -> JoinHandle<Answer> {
        let waiting = post(self.rooms.clone(), timeoutms, self.body(&[]));
        let waiting = tokio::spawn(waiting);
        tokio::time::sleep(Duration::from_millis(1)).await;
        waiting
    }

    fn resume(&self, a: u64) -> Value {
        json!({"t": "resume", "session": self.welcome["session"], "token": self.welcome["resume"], "a": a})
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_something_to_be_said() {
    let house = House::new(Settings::default());
    let ada = Poller::join(&house, "Ada").await;
    assert_eq!(ada.request(0, &[]).await, (200, Vec::new()), "nothing to say");
    let waiting = ada.listen(20_000).await;
    let ben = house.join("Ben").await;
    let answer = waiting.await.expect("answered");
    assert_eq!(answer.1[0]["joined"][0]["id"], ben.you);
    // Media flows, so nobody is away.
    for you in [&ben.you, ada.welcome["you"].as_str().expect("an id")] {
        let (participant, epoch) = (you.parse().expect("an id"), crate::id::Epoch(1));
        let transport = crate::id::TransportNumber(0);
        let connected = crate::control::Update::Connected { participant, epoch, transport };
        house.rooms.deliver(ben.room.as_ref().expect("in a room").key, connected);
    }
    let started = now();
    assert_eq!(ada.request(99_000, &[]).await, (200, Vec::new()));
    let waited = (now() - started).as_millis();
    assert!((25_000..25_100).contains(&waited), "25 s are the most: {waited}");
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_request_waits_and_deliveries_disturb_none() {
    let house = House::new(Settings::default());
    let ada = Poller::join(&house, "Ada").await;
    let older = ada.listen(20_000).await;
    let newer = ada.listen(20_000).await;
    assert!(older.is_finished());
    assert_eq!(older.await.expect("answered"), (200, Vec::new()));
    let name = |s, name| json!({"t": "name", "s": s, "a": 1, "name": name});
    let delivered = ada.request(0, &[name(2, "Ada A."), name(3, "Ada B.")]).await;
    assert_eq!(delivered, (200, Vec::new()));
    let answer = newer.await.expect("answered");
    // What was said first ended the wait; what was said with it may come along.
    assert_eq!(answer.1[0]["changed"][0]["name"], "Ada A.");
    let rest = ada.request(0, &[]).await;
    let all: Vec<_> = answer.1.iter().chain(&rest.1).map(|line| line["s"].as_u64()).collect();
    assert_eq!(all, [Some(2), Some(3)]);
    // One that delivers and waits does both.
    let answer = ada.request(1000, &[name(4, "Ada C.")]).await;
    assert_eq!((kinds(&answer), &answer.1[0]["a"]), (vec!["room"], &json!(4)));
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_is_not_used_is_lost_and_its_session_resumed() {
    let house = House::new(Settings::default());
    let ada = Poller::join(&house, "Ada").await;
    // One that breaks off is no longer a request.
    ada.listen(20_000).await.abort();
    let mut ben = house.join("Ben").await;
    assert_eq!(kinds(&ada.request(0, &[]).await), ["room"]);
    ben.say("name", json!({"name": "Ben B."})).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(ada.request(0, &[]).await.0, 200, "in time");
    tokio::time::sleep(Duration::from_millis(10_100)).await;
    let late = ada.request(0, &[]).await;
    assert_eq!((late.0, &late.1[0]["reason"]), (404, &json!("unknown_session")));
    // The answer with Ben's new name is taken as lost.
    let resumed = post(house.rooms.clone(), "0", ada.resume(2).to_string()).await;
    assert_eq!(kinds(&resumed)[..2], ["carrier", "resumed"]);
    assert_eq!(resumed.1[2]["changed"][0]["name"], "Ben B.", "{resumed:?}");
    assert_ne!(resumed.1[0]["id"], ada.id.as_str());
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_says_why_it_is_the_last() {
    let house = House::new(Settings::default());
    let ada = Poller::join(&house, "Ada").await;
    let waiting = ada.listen(20_000).await;
    let second = post(house.rooms.clone(), "0", ada.resume(1).to_string()).await;
    assert_eq!(kinds(&second), ["carrier", "resumed"]);
    assert_eq!(waiting.await.expect("answered").1, [json!({"t": "closed", "code": 4000})]);
    assert_eq!(ada.request(0, &[]).await.0, 404);

    let ben = Poller::join(&house, "Ben").await;
    let answer = ben.request(1000, &[json!({"t": "bye", "s": 2, "a": 1})]).await;
    assert_eq!(answer.1, [json!({"t": "closed", "code": 1000})]);
    let cleo = Poller::join(&house, "Cleo").await;
    house.rooms.stop(Reason::ShuttingDown).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let answer = cleo.request(1000, &[]).await;
    assert_eq!((kinds(&answer), &answer.1[1]["code"]), (vec!["goaway", "closed"], &json!(1001)));
    let refused = post(house.rooms.clone(), "0", lines(&[hello("Dan")])).await;
    assert_eq!((refused.0, &refused.1[0]["reason"]), (503, &json!("shutting_down")));
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_request_is_said() {
    let house = House::new(Settings::default());
    let ada = Poller::join(&house, "Ada").await;
    let big = vec![b'x'; 600_000];
    let cases: [(&str, Vec<u8>, u16, &str); 7] = [
        ("0", lines(&[json!({"t": "poll", "id": "0"})]).into(), 404, "unknown_session"),
        ("soon", ada.body(&[]).into(), 400, "message_malformed"),
        ("0", Vec::new(), 400, "message_malformed"),
        ("0", b"\xff\n".to_vec(), 400, "message_malformed"),
        ("0", lines(&[hello("Ben"), json!({"t": "bye", "s": 2, "a": 0})]).into(), 400, "message_malformed"),
        ("0", big, 413, "message_too_large"),
        ("0", b"{\"t\":\"ping\"}".to_vec(), 200, "hello_missing"),
    ];
    for (timeoutms, body, status, reason) in cases {
        let answer = post(house.rooms.clone(), timeoutms, body).await;
        let refusal = answer.1.iter().find(|line| line["t"] == "refuse").expect("a refusal");
        assert_eq!((answer.0, refusal["reason"].as_str()), (status, Some(reason)));
    }
    let error =
        ada.request(100, &[json!({"t": "poll", "id": "0"}), json!({"t": "mute", "s": 2, "a": 1})]).await;
    assert_eq!(kinds(&error), ["error", "error"]);
    // All of them begin before one of them ends.
    let mut waiting: Vec<_> =
        (0..5).map(|_| tokio::spawn(post(ada.rooms.clone(), "9000", ada.body(&[])))).collect();
    let last = waiting.pop().expect("five").await.expect("answered");
    assert_eq!((last.0, &last.1[0]["reason"]), (429, &json!("rate_limited")));
    let full = House::new(Settings { poll_carriers: 1, ..Settings::default() });
    let _ben = Poller::join(&full, "Ben").await;
    let refused = post(full.rooms.clone(), "0", lines(&[hello("Cleo")])).await;
    assert_eq!(
        (kinds(&refused), &refused.1[1]["reason"]),
        (vec!["carrier", "refuse", "closed"], &json!("overloaded"))
    );
}

#[tokio::test(start_paused = true)]
async fn joins_above_the_rate_of_an_address_wait_and_resumes_do_not() {
    use axum::extract::ConnectInfo;

    let house = House::new(Settings { joins_burst: 2, joins_per_minute: 60, ..Settings::default() });
    let from = |ip: &str, message: Value| {
        let mut request = Request::post("/v1/poll").body(Body::from(message.to_string())).expect("a request");
        let peer = std::net::SocketAddr::new(ip.parse().expect("an address"), 9);
        request.extensions_mut().insert(ConnectInfo(peer));
        let rooms = house.rooms.clone();
        async move {
            let response = poll(State(rooms), request).await;
            let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
            let text = String::from_utf8(body.to_vec()).expect("text");
            serde_json::from_str::<Value>(text.lines().nth(1).expect("a second line")).expect("valid JSON")
        }
    };
    let ada = from("192.0.2.1", hello("Ada")).await;
    assert_eq!(ada["t"], "welcome");
    assert_eq!(from("192.0.2.1", hello("Ben")).await["t"], "welcome");
    let refused = from("192.0.2.1", hello("Cleo")).await;
    assert_eq!((&refused["t"], &refused["reason"]), (&json!("refuse"), &json!("rate_limited")));
    assert_eq!(from("192.0.2.2", hello("Dan")).await["t"], "welcome", "others are not concerned");
    let resume = json!({"t": "resume", "session": ada["session"], "token": ada["resume"], "a": 1});
    assert_eq!(from("192.0.2.1", resume).await["t"], "resumed");
    tokio::time::sleep(Duration::from_millis(refused["retryMs"].as_u64().expect("a time") + 1)).await;
    assert_eq!(from("192.0.2.1", hello("Cleo")).await["t"], "welcome");
    assert_eq!(house.refused.get(Reason::RateLimited), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_slowed_down_by_its_own_request() {
    let house = House::new(Settings { burst: 2, messages_per_second: 100, ..Settings::default() });
    let ada = Poller::join(&house, "Ada").await;
    let started = now();
    let first = ada.request(100, &vec![json!({"t": "ping", "a": 1}); 12]).await;
    let waited = now() - started;
    let rest = ada.request(1, &[]).await;
    assert_eq!([kinds(&first), kinds(&rest)].concat(), ["pong"; 12]);
    assert!((100..=200).contains(&waited.as_millis()), "two at once and ten at 10 ms each: {waited:?}");
    assert!(house.refused.get(Reason::RateLimited) > 0);
}
