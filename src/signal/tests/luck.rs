//! Bad luck: what breaks off, comes twice, comes late, or happens all at once.

use futures_util::future::join_all;

use super::*;
use crate::control::Update;
use crate::id::{Epoch, TransportNumber};

/// A second page of the same person.
fn again(client: &Client, name: &str) -> Value {
    let mut hello = hello(name);
    (hello["session"], hello["token"]) = (json!(client.session), json!(client.token));
    hello
}

/// Lets the room do what it was told.
async fn turn() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Everything that is said at this moment.
async fn read(client: &mut Client) -> Vec<Value> {
    let mut heard = Vec::new();
    turn().await;
    while let Some(text) = client.outgoing.try_next() {
        let message: Value = serde_json::from_str(&text).expect("valid JSON");
        client.a = message["s"].as_u64().unwrap_or(client.a);
        client.roster.apply(&message);
        heard.push(message);
    }
    heard
}

fn connect(house: &House, client: &Client) {
    let (participant, transport) = (client.you.parse().expect("an id"), TransportNumber(0));
    let key = client.room.as_ref().expect("in a room").key;
    house.rooms.deliver(key, Update::Connected { participant, epoch: Epoch(1), transport });
}

#[tokio::test(start_paused = true)]
async fn two_tabs_of_one_person_are_one_person_and_the_newer_one_speaks() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut first = house.join("Ben").await;
    let mut second = house.join_as(again(&first, "Ben, again")).await.expect("let in");
    assert_eq!(first.ending().await, Close::Replaced);
    // The older tab goes on as if nothing had happened, then says goodbye, then closes.
    first.say("name", json!({"name": "Ben, before"})).await;
    first.say("bye", json!({})).await;
    first.lose(true).await;
    let token = first.token.clone();
    let refused = house.resume(first, &token).await.err().expect("refused");
    assert_eq!(refused["reason"], "unknown_session");
    read(&mut ada).await;
    read(&mut second).await;
    assert_eq!(ada.roster.people[&second.you]["name"], "Ben, again");
    assert_eq!((ada.roster.people.len(), &ada.roster.public()), (2, &second.roster.public()));
}

#[tokio::test(start_paused = true)]
async fn two_tabs_that_resume_one_session_take_turns_and_lose_nothing() {
    let house = House::new(Settings::default());
    let ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    let (first, session) = (ada.token.clone(), ada.session.clone());
    let ada = house.resume(ada, &first).await.expect("resumed");
    ada.send(&json!({"t": "ack", "a": ada.a})).await;
    // A copy of the page knows the first token only, and that has been used.
    let (carrier, outgoing) = Carrier::new(now());
    let copy = Client { session, ..Client::new(carrier, outgoing) };
    assert_eq!(house.resume(copy, &first).await.err().expect("refused")["reason"], "resume_token");
    ben.say("name", json!({"name": "Ben B."})).await;
    let mut ada = ada;
    let heard = read(&mut ada).await;
    assert_eq!(heard.len(), 2, "the copy's attempt disturbs nobody: {heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_whose_goodbye_comes_first_or_late_never_shows_two() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    for goodbye_first in [true, false] {
        let mut ben = house.join("Ben").await;
        if goodbye_first {
            ben.say("bye", json!({})).await;
        }
        let reloaded = house.join_as(again(&ben, "Ben")).await.expect("let in");
        assert_eq!(reloaded.you == ben.you, !goodbye_first);
        ben.lose(true).await;
        for message in read(&mut ada).await {
            assert!(message["left"].is_null() || message["joined"].is_null(), "one after the other");
        }
        assert_eq!(ada.roster.people.len(), 2);
        assert!(ada.roster.people.contains_key(&reloaded.you));
        assert_eq!(ada.roster.publications.len(), 2);
        reloaded.lose(true).await;
        read(&mut ada).await;
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_who_join_in_the_same_instant_see_each_other_once() {
    let house = House::new(Settings::default());
    let names: Vec<_> = (0..20).map(|n| format!("{n}")).collect();
    let mut people = join_all(names.iter().map(|name| house.join(name))).await;
    assert_eq!(house.rooms.count(), 1);
    let mut rosters = Vec::new();
    for client in &mut people {
        read(client).await;
        rosters.push(client.roster.public());
    }
    assert_eq!((rosters[0].people.len(), rosters[0].publications.len()), (20, 20));
    assert!(rosters.iter().all(|roster| *roster == rosters[0]));
    let joins = house.worker.take().into_iter().filter(|command| matches!(command, Command::Join(_))).count();
    assert_eq!(joins, 20);
}

/// How far a client gets before its machine is switched off.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    BeforeWelcome,
    AfterWelcome,
    Connected,
    OfferUnderWay,
    Replaced,
    Resuming,
    Resumed,
    TransportGone,
}

/// Somebody whose connection breaks before the answer is written.
async fn enter_unheard(house: &House) -> String {
    let (carrier, outgoing) = Carrier::new(now());
    drop(outgoing);
    let settings = &house.rooms.door.settings;
    let incoming = decode(&hello("Ben").to_string(), &settings.sizes).expect("an envelope");
    let Ok(Some(FromClient::Hello(hello))) = incoming.body else { panic!("{incoming:?}") };
    house.worker.take();
    house.rooms.enter(join::validate(*hello, settings).expect("valid"), 1, carrier).await;
    turn().await;
    let Some(Command::Join(join)) = house.worker.take().pop() else { panic!("no join") };
    join.participant.to_string()
}

async fn kill(house: &House, when: Killed) -> String {
    if when == Killed::BeforeWelcome {
        return enter_unheard(house).await;
    }
    let mut client = house.join("Ben").await;
    let token = client.token.clone();
    match when {
        Killed::BeforeWelcome | Killed::AfterWelcome => {}
        Killed::Connected => connect(house, &client),
        Killed::OfferUnderWay => {
            client.say("offer", json!({"transport": 0, "sdp": "audio:0 video:1 video:2 ufrag:new"})).await;
        }
        Killed::Replaced => client = house.join_as(again(&client, "Ben")).await.expect("let in"),
        Killed::Resuming | Killed::Resumed => {
            client.lose(false).await;
            client = house.resume(client, &token).await.expect("resumed");
            if when == Killed::Resumed {
                client.send(&json!({"t": "ack", "a": client.a})).await;
            }
        }
        Killed::TransportGone => {
            let (participant, epoch) = (client.you.parse().expect("an id"), Epoch(1));
            let key = client.room.as_ref().expect("in a room").key;
            house.rooms.deliver(
                key,
                Update::Closed {
                    participant,
                    epoch,
                    transport: TransportNumber(0),
                    reason: Reason::DtlsFailed,
                },
            );
        }
    }
    turn().await;
    if when == Killed::Connected {
        // Its media ends as well; the worker notices.
        let (participant, epoch) = (client.you.parse().expect("an id"), Epoch(1));
        let key = client.room.as_ref().expect("in a room").key;
        house.rooms.deliver(key, Update::Heard { participant, epoch, silent: true, since_ms: 0 });
    }
    // Half-open carriers say nothing at all, others break.
    if matches!(when, Killed::Connected | Killed::Resuming) {
        std::mem::forget(client.outgoing);
    } else {
        client.lose(false).await;
    }
    client.you
}

#[tokio::test(start_paused = true)]
async fn whoever_is_killed_in_whatever_state_is_gone_in_time_and_leaves_nothing() {
    use Killed::*;
    for when in
        [BeforeWelcome, AfterWelcome, Connected, OfferUnderWay, Replaced, Resuming, Resumed, TransportGone]
    {
        let house = House::new(Settings::default());
        let mut ada = house.join("Ada").await;
        connect(&house, &ada);
        let ben = kill(&house, when).await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        read(&mut ada).await;
        assert_eq!(ada.roster.people[&ben]["away"], true, "{when:?}");
        tokio::time::sleep(Duration::from_secs(23)).await;
        read(&mut ada).await;
        assert!(!ada.roster.people.contains_key(&ben), "{when:?}");
        assert_eq!(ada.roster.publications.len(), 1, "{when:?}");
        let left = |command: &Command| matches!(command, Command::Leave { participant, .. } if participant.to_string() == ben);
        assert_eq!(house.worker.take().iter().filter(|command| left(command)).count(), 1, "{when:?}");
        ada.lose(true).await;
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(house.rooms.count(), 0, "{when:?}");
        assert_eq!(house.rooms.sessions_count(), 0, "{when:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_dies_during_its_own_resume_locks_nobody_out_and_loses_nothing() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    ben.lose(false).await;
    let (token, a) = (ben.token.clone(), ben.a);
    for n in 0..5 {
        ada.say("name", json!({"name": format!("Ada {n}")})).await;
        // Each attempt gets through, and its answer is lost.
        ben = house.resume(ben, &token).await.expect("the token that never was answered");
        if n % 2 == 0 {
            ben.lose(false).await;
        }
        (ben.token, ben.a) = (token.clone(), a);
    }
    let mut ben = house.resume(ben, &token).await.expect("resumed");
    let names: Vec<_> =
        read(&mut ben).await.iter().map(|message| message["changed"][0]["name"].clone()).collect();
    assert_eq!(names, ["Ada 0", "Ada 1", "Ada 2", "Ada 3", "Ada 4"]);
    ben.send(&json!({"t": "ack", "a": ben.a})).await;
    let refused = house.resume(ben, &token).await.err().expect("refused");
    assert_eq!(refused["reason"], "resume_token", "the newest one arrived");
}

#[tokio::test(start_paused = true)]
async fn what_an_old_epoch_still_says_or_suffers_concerns_nobody() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let ben = house.join("Ben").await;
    connect(&house, &ada);
    // The old one would be removed at 30 s.
    tokio::time::sleep(Duration::from_secs(29)).await;
    let mut newer = house.join_as(again(&ben, "Ben")).await.expect("let in");
    let (participant, key) = (ben.you.parse().expect("an id"), ben.room.as_ref().expect("in a room").key);
    let old = Epoch(1);
    read(&mut ada).await;
    read(&mut newer).await;
    house.worker.take();
    for late in [
        Update::Heard { participant, epoch: old, silent: true, since_ms: 29_000 },
        Update::Have { participant, epoch: old, version: 9, have: crate::room::Have::default() },
        Update::Layers { participant, epoch: old, layers: BTreeMap::new() },
        Update::Closed {
            participant,
            epoch: old,
            transport: TransportNumber(0),
            reason: Reason::ConsentExpired,
        },
    ] {
        house.rooms.deliver(key, late);
    }
    ben.send(&json!({"t": "mute", "s": 2, "a": 1, "publication": 3, "muted": true})).await;
    ben.lose(false).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((read(&mut ada).await.len(), read(&mut newer).await.len()), (0, 0));
    assert!(house.worker.take().is_empty());
    assert_eq!(ada.roster.people.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn offers_that_come_before_the_answer_are_answered_in_order() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    house.worker.take();
    let sdp = |n| format!("audio:0 video:1 video:2 ufrag:u{n}");
    let numbers = [1, 2].map(|n| (n, sdp(n)));
    for (_, sdp) in &numbers {
        ada.say("offer", json!({"transport": 0, "sdp": sdp})).await;
    }
    // And one for a transport that is not there.
    let wrong = ada.say("offer", json!({"transport": 0, "sdp": "bad"})).await;
    let heard = read(&mut ada).await;
    let answers: Vec<_> = heard.iter().map(|message| message["sdp"].as_str().unwrap_or("none")).collect();
    let expected = [format!("answer to {}", sdp(1)), format!("answer to {}", sdp(2)), "none".to_owned()];
    assert_eq!(answers, expected);
    assert_eq!(heard[2]["id"], wrong);
    let restarts = house.worker.take();
    let ufrags: Vec<_> = restarts
        .iter()
        .map(|command| match command {
            Command::Restart { remote, .. } => remote.ufrag.as_str(),
            _ => "none",
        })
        .collect();
    assert_eq!(ufrags, ["u1", "u2"], "the newest counts in the end");
}
