//! What participants see of each other: joining, publishing, falling silent, coming back, leaving.

use super::*;
use crate::control::Update;
use crate::id::{Epoch, ParticipantId, TransportNumber};
use crate::room::Have;

fn id_of(client: &Client) -> ParticipantId {
    client.you.parse().expect("an id")
}

fn room_key(client: &Client) -> RoomKey {
    client.room.as_ref().expect("in a room").key
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_welcomed_with_everyone_and_announced_to_the_others() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    assert_eq!(ada.welcome["answer"], "answer to audio:0 video:1 video:2");
    assert_eq!(ada.welcome["participants"], json!([{"id": ada.you, "name": "Ada"}]));
    let own = json!({"id": 1, "participant": ada.you, "kind": "audio", "source": "microphone", "muted": false,
        "mid": "0"});
    assert_eq!(ada.welcome["publications"], json!([own]));
    let Some(Command::Join(joined)) = house.worker.take().pop() else { panic!("no join") };
    assert_eq!((joined.participant, joined.publish.len()), (id_of(&ada), 1));
    assert_eq!(joined.local.ufrag, "server");

    let ben = house.join("Ben").await;
    let delta = ada.hear().await;
    assert_eq!(delta["joined"], json!([{"id": ben.you, "name": "Ben"}]));
    assert_eq!(delta["published"][0]["id"], 2);
    assert!(delta["published"][0]["mid"].is_null(), "others do not see the section");
    assert_eq!(ada.roster.public(), ben.roster.public());
    assert_eq!(ben.roster.people.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn two_who_join_at_once_see_each_other_once() {
    let house = House::new(Settings::default());
    let (mut ada, mut ben) = tokio::join!(house.join("Ada"), house.join("Ben"));
    assert_eq!(house.rooms.count(), 1);
    if ada.roster.people.len() < 2 {
        ada.hear().await;
    } else {
        ben.hear().await;
    }
    assert_eq!(ada.roster.public(), ben.roster.public());
    ada.hears_nothing().await;
    ben.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn publications_come_change_and_go() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    ada.hear().await;
    house.worker.take();

    ada.say(
        "publish",
        json!({"publish": [{"mid": "1", "kind": "video", "source": "camera", "muted": true}]}),
    )
    .await;
    let (own, seen) = (ada.hear().await, ben.hear().await);
    assert_eq!((&own["published"][0]["mid"], &own["published"][0]["id"]), (&json!("1"), &json!(3)));
    assert_eq!((&seen["published"][0]["mid"], &seen["published"][0]["muted"]), (&Value::Null, &json!(true)));

    ada.say("mute", json!({"publication": 3, "muted": false})).await;
    assert_eq!(ben.hear().await["published"][0]["muted"], false);
    ada.hear().await;
    ada.say("mute", json!({"publication": 3, "muted": false})).await;
    ada.say("unpublish", json!({"publication": 3})).await;
    assert_eq!(ben.hear().await["unpublished"], json!([3]), "repeating a mute says nothing");
    let commands = house.worker.take();
    assert!(
        matches!(
            commands[..],
            [Command::Publish { .. }, Command::Mute { muted: false, .. }, Command::Unpublish { .. }]
        ),
        "{commands:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_objected_to_and_changes_nothing() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    ada.hear().await;
    house.worker.take();
    let camera = |mid: &str| json!({"mid": mid, "kind": "video", "source": "camera"});
    let cases = [
        ("publish", json!({"publish": [camera("1"), camera("9")]}), "unknown_section"),
        (
            "publish",
            json!({"publish": [{"mid": "1", "kind": "audio", "source": "microphone"}]}),
            "unknown_section",
        ),
        ("publish", json!({"publish": [camera("1"), camera("1")]}), "wrong_state"),
        (
            "publish",
            json!({"publish": [{"mid": "0", "kind": "audio", "source": "microphone"}]}),
            "wrong_state",
        ),
        ("publish", json!({"publish": vec![camera("1"); 8]}), "too_many_publications"),
        ("mute", json!({"publication": 2, "muted": true}), "unknown_publication"),
        ("unpublish", json!({"publication": 77}), "unknown_publication"),
        ("name", json!({"name": "a\u{202e}b"}), "name"),
        ("name", json!({"name": "x".repeat(65)}), "name"),
        ("hello", json!({"room": "garden", "offer": ""}), "wrong_state"),
        ("mute", json!({"publication": "one"}), "message_malformed"),
        ("dance", json!({"must": true}), "unknown_kind"),
    ];
    for (t, body, reason) in cases {
        let s = ada.say(t, body.clone()).await;
        let error = ada.hear().await;
        assert_eq!((error["reason"].as_str(), error["id"].as_u64()), (Some(reason), Some(s)), "{t} {body}");
    }
    ada.say("dance", json!({})).await;
    ada.hears_nothing().await;
    ben.hears_nothing().await;
    assert!(house.worker.take().is_empty());
    assert_eq!(house.refused.get(Reason::UnknownSection), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_hello_is_said() {
    let settings = Settings { participants: 1, rooms: 1, ..Settings::default() };
    let house = House::new(settings);
    let with = |field: &str, value: Value| {
        let mut hello = hello("Ada");
        hello[field] = value;
        hello
    };
    assert_eq!(house.refusal(with("room", json!("a b"))).await, "room_id");
    assert_eq!(house.refusal(with("name", json!("\u{7}"))).await, "name");
    assert_eq!(house.refusal(with("offer", json!("bad"))).await, "sdp_malformed");
    assert_eq!(house.refusal(with("offer", json!("panic"))).await, "panicked");
    assert_eq!(house.refusal(with("offer", json!("audio:7"))).await, "unknown_section");
    assert_eq!(house.refusal(with("caps", json!(vec!["x"; 33]))).await, "message_malformed");
    assert_eq!(house.rooms.count(), 0, "a refused newcomer makes no room");
    let _ada = house.join("Ada").await;
    assert_eq!(house.refusal(hello("Ben")).await, "room_full");
    assert_eq!(house.refusal(with("room", json!("other"))).await, "too_many_rooms");
}

#[tokio::test(start_paused = true)]
async fn goodbye_and_a_clean_close_remove_at_once() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    let cleo = house.join("Cleo").await;
    ada.hear().await;
    ada.hear().await;
    ben.say("bye", json!({})).await;
    assert_eq!(ada.hear().await["left"], json!([{"id": ben.you, "reason": "bye"}]));
    assert_eq!(ben.ending().await, Close::Bye);
    cleo.lose(true).await;
    assert_eq!(ada.hear().await["left"], json!([{"id": cleo.you, "reason": "bye"}]));
    let refused = house.resume(cleo, "any").await.err().expect("refused");
    assert_eq!(refused["reason"], "unknown_session");
}

#[tokio::test(start_paused = true)]
async fn a_lost_carrier_is_resumed_and_nothing_is_missing() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    ada.hear().await;
    ben.lose(false).await;
    ada.say("name", json!({"name": "Ada L."})).await;
    ada.say("mute", json!({"publication": 1, "muted": true})).await;
    ada.hear().await;
    ada.hear().await;
    let token = ben.token.clone();
    ben = house.resume(ben, &token).await.expect("resumed");
    assert_eq!(ben.hear().await["changed"][0]["name"], "Ada L.");
    ben.hear().await;
    assert_eq!(ada.roster.public(), ben.roster.public());
    ben.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn tokens_rotate_and_an_old_one_is_worthless_once_the_new_one_is_acknowledged() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let first = ada.token.clone();
    ada = house.resume(ada, &first).await.expect("the first token");
    let second = ada.token.clone();
    // The answer was lost: the first is still good, and the second never arrived anywhere.
    ada = house.resume(ada, &first).await.expect("the first token again");
    let third = ada.token.clone();
    let refused = house.resume(house.resume(ada, &third).await.expect("the third"), &second).await;
    assert_eq!(refused.err().expect("refused")["reason"], "resume_token");

    let mut ben = house.join("Ben").await;
    let first = ben.token.clone();
    ben = house.resume(ben, &first).await.expect("resumed");
    ben.send(&json!({"t": "ack", "a": ben.a})).await;
    let refused = house.resume(ben, &first).await;
    assert_eq!(refused.err().expect("refused")["reason"], "resume_token");
    assert_eq!(house.refused.get(Reason::ResumeToken), 2);
}

#[tokio::test(start_paused = true)]
async fn a_newer_carrier_wins_over_a_half_open_one() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let (old_carrier, mut old_outgoing) = {
        let (carrier, outgoing) = Carrier::new(now());
        (std::mem::replace(&mut ada.carrier, carrier), std::mem::replace(&mut ada.outgoing, outgoing))
    };
    let token = ada.token.clone();
    let mut ada = house.resume(ada, &token).await.expect("resumed");
    assert_eq!(old_outgoing.next().await, None);
    assert_eq!(old_outgoing.closing(), Some(Close::Replaced));
    // What the old one still says or how it ends concerns nobody.
    let event = Event::Lost { carrier: old_carrier.id(), clean: true };
    assert!(ada.room.as_ref().expect("in a room").send(event).await.is_ok());
    ada.say("name", json!({"name": "still here"})).await;
    assert_eq!(ada.hear().await["changed"][0]["name"], "still here");
}

#[tokio::test(start_paused = true)]
async fn whoever_falls_silent_is_away_then_removed() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let ben = house.join("Ben").await;
    ada.hear().await;
    let (key, ben_id) = (room_key(&ada), id_of(&ben));
    let ada_id = id_of(&ada);
    house.rooms.deliver(
        key,
        Update::Connected { participant: ada_id, epoch: Epoch(1), transport: TransportNumber(0) },
    );
    house.rooms.deliver(
        key,
        Update::Connected { participant: ben_id, epoch: Epoch(1), transport: TransportNumber(0) },
    );
    ben.lose(false).await;
    // Media flows: that is a sign of life.
    tokio::time::sleep(Duration::from_secs(60)).await;
    ada.hears_nothing().await;
    house.worker.take();
    let silent = |silent, since_ms| Update::Heard { participant: ben_id, epoch: Epoch(1), silent, since_ms };
    house.rooms.deliver(key, silent(true, 8000));
    assert_eq!(ada.hear().await["changed"], json!([{"id": ben.you, "name": "Ben", "away": true}]));
    let commands = house.worker.take();
    assert!(matches!(commands[..], [Command::Away { away: true, .. }]), "{commands:?}");
    house.rooms.deliver(key, silent(false, 0));
    assert_eq!(ada.hear().await["changed"], json!([{"id": ben.you, "name": "Ben"}]));
    let started = now();
    tokio::time::sleep(Duration::from_secs(8)).await;
    house.rooms.deliver(key, silent(true, 8000));
    ada.hear().await;
    assert_eq!(ada.hear().await["left"], json!([{"id": ben.you, "reason": "silent"}]));
    let lasted = now().duration_since(started);
    assert!((29_900..30_200).contains(&lasted.as_millis()), "30 s after the last sign of life: {lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_answers_keeps_its_participant_present() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    ada.hear().await;
    // Neither has media. Ben's browser answers pings, Ada's says something now and then.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        ben.carrier.heard(now());
        ada.send(&json!({"t": "ping", "a": ada.a})).await;
        assert_eq!(ada.hear().await["t"], "pong");
    }
    ada.hears_nothing().await;
    ben.hears_nothing().await;
    // The pongs stop, and come again in time.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        ada.send(&json!({"t": "ping", "a": ada.a})).await;
    }
    assert_eq!(ada.hear().await["t"], "pong");
    assert_eq!(ada.hear().await["changed"], json!([{"id": ben.you, "name": "Ben", "away": true}]));
    assert_eq!(ada.hear().await["t"], "pong");
    ben.carrier.heard(now());
    assert!(ada.hear().await["changed"][0]["away"].is_null(), "a pong is a sign of life");
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_was_given_up_is_replaced_without_a_new_session() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    ada.hear().await;
    let (participant, epoch) = (id_of(&ben), Epoch(1));
    ben.say("publish", json!({"publish": [{"mid": "2", "kind": "video", "source": "screen"}]})).await;
    ben.hear().await;
    ada.hear().await;
    house.rooms.deliver(
        room_key(&ada),
        Update::Closed { participant, epoch, transport: TransportNumber(0), reason: Reason::DtlsFailed },
    );
    assert_eq!(ben.hear().await["reason"], "dtls_failed");
    ada.hears_nothing().await;
    house.worker.take();
    ben.say("offer", json!({"transport": 0, "sdp": "audio:0"})).await;
    assert_eq!(ben.hear().await["reason"], "wrong_state");
    ben.say("publish", json!({"publish": []})).await;
    assert_eq!(ben.hear().await["reason"], "wrong_state");
    let publish = [
        json!({"mid": "a", "kind": "audio", "source": "microphone"}),
        json!({"mid": "b", "kind": "video", "source": "camera"}),
    ];
    ben.say("offer", json!({"transport": 1, "sdp": "audio:a video:b", "publish": publish})).await;
    let answer = ben.hear().await;
    assert_eq!((&answer["t"], &answer["transport"]), (&json!("answer"), &json!(1)));
    let delta = ada.hear().await;
    assert_eq!(delta["unpublished"], json!([3]), "the screen was not offered again");
    let ids: Vec<_> =
        delta["published"].as_array().expect("a list").iter().map(|p| p["id"].as_u64()).collect();
    assert_eq!(ids, [Some(2), Some(4)], "the microphone keeps its id");
    let commands = house.worker.take();
    let [Command::Join(joined)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((joined.epoch, joined.transport, joined.publish.len()), (epoch, TransportNumber(1), 2));
}

#[tokio::test(start_paused = true)]
async fn a_second_transport_may_be_made_before_the_first_ends() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let (participant, epoch) = (id_of(&ada), Epoch(1));
    house.worker.take();
    let publish = [json!({"mid": "a", "kind": "audio", "source": "microphone"})];
    ada.say("offer", json!({"transport": 1, "sdp": "audio:a video:b", "publish": publish})).await;
    let answer = ada.hear().await;
    assert_eq!((&answer["t"], &answer["transport"]), (&json!("answer"), &json!(1)));
    let own = json!({"id": 1, "participant": ada.you, "kind": "audio", "source": "microphone", "muted": false,
        "mid": "a"});
    assert_eq!(ada.hear().await["published"], json!([own]), "the same publication in another section");
    let commands = house.worker.take();
    let [Command::Join(joined)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((joined.epoch, joined.transport, joined.publish.len()), (epoch, TransportNumber(1), 1));
    let transport = TransportNumber(0);
    let closed = Update::Closed { participant, epoch, transport, reason: Reason::DtlsClosed };
    house.rooms.deliver(room_key(&ada), closed);
    ada.hears_nothing().await;
    ada.say("offer", json!({"transport": 0, "sdp": "audio:0"})).await;
    assert_eq!(ada.hear().await["reason"], "wrong_state", "there is no way back");
    ada.say("offer", json!({"transport": 1, "sdp": "audio:a video:b ufrag:new"})).await;
    assert_eq!(ada.hear().await["t"], "answer");
}

#[tokio::test(start_paused = true)]
async fn an_ice_restart_and_more_sections_reach_the_worker() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let participant = id_of(&ada);
    let transport = TransportNumber(0);
    let connected = Update::Connected { participant, epoch: Epoch(1), transport };
    house.rooms.deliver(room_key(&ada), connected);
    house.worker.take();
    let sdp = "audio:0 video:1 video:2 ufrag:new";
    ada.say("offer", json!({"transport": 0, "sdp": sdp})).await;
    assert_eq!(ada.hear().await["sdp"], format!("answer to {sdp}"));
    let commands = house.worker.take();
    assert!(
        matches!(&commands[..], [Command::Restart { remote, .. }] if remote.ufrag == "new"),
        "{commands:?}"
    );
    let publish = [json!({"mid": "3", "kind": "video", "source": "screen"})];
    let sdp = format!("{sdp} video:3");
    ada.say("offer", json!({"transport": 0, "sdp": sdp, "publish": publish})).await;
    assert_eq!(ada.hear().await["t"], "answer");
    assert_eq!(ada.hear().await["published"][0]["mid"], "3");
    let commands = house.worker.take();
    assert!(matches!(&commands[..], [Command::Sections { .. }, Command::Publish { .. }]), "{commands:?}");
    let s = ada.say("offer", json!({"transport": 0, "sdp": "bad"})).await;
    let error = ada.hear().await;
    assert_eq!((&error["reason"], &error["id"]), (&json!("sdp_malformed"), &json!(s)));
    ada.say("offer", json!({"transport": 0, "sdp": sdp})).await;
    let error = ada.hear().await;
    assert_eq!(error["reason"], "rate_limited", "the hello counts as well");
    tokio::time::sleep(Duration::from_millis(error["retryMs"].as_u64().expect("a time"))).await;
    ada.say("offer", json!({"transport": 0, "sdp": sdp})).await;
    assert_eq!(ada.hear().await["t"], "answer");
}

#[tokio::test(start_paused = true)]
async fn a_panic_removes_its_cause_alone() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    ada.hear().await;
    ben.say("offer", json!({"transport": 0, "sdp": "panic"})).await;
    assert_eq!(ada.hear().await["left"], json!([{"id": ben.you, "reason": "panicked"}]));
    assert_eq!(ben.ending().await, Close::Ended);
    assert!(house.worker.take().iter().any(|c| matches!(c, Command::Leave { reason: Reason::Panicked, .. })));
    let cleo = house.join("Cleo").await;
    ada.hear().await;
    assert_eq!(ada.roster.public(), cleo.roster.public());
    assert_eq!(house.refused.get(Reason::Panicked), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reload_with_its_token_never_shows_two_of_you() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    ada.hear().await;
    let mut again = hello("Ben again");
    (again["session"], again["token"]) = (json!(ben.session), json!(ben.token));
    let reloaded = house.join_as(again.clone()).await.expect("let in");
    assert_eq!((&reloaded.you, &reloaded.welcome["epoch"]), (&ben.you, &json!(2)));
    assert_eq!(ben.ending().await, Close::Replaced);
    let delta = ada.hear().await;
    assert_eq!(delta["unpublished"], json!([2]));
    assert_eq!(delta["changed"][0]["name"], "Ben again");
    assert_eq!(ada.roster.public(), reloaded.roster.public());
    // Late news of the old epoch concern nobody.
    let late = Update::Closed {
        participant: id_of(&ben),
        epoch: Epoch(1),
        transport: TransportNumber(0),
        reason: Reason::DtlsFailed,
    };
    house.rooms.deliver(room_key(&ada), late);
    ada.hears_nothing().await;
    // The old session is gone, so this is somebody new.
    let stranger = house.join_as(again).await.expect("let in");
    assert_ne!(stranger.you, reloaded.you);
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_news_of_a_worker_are_told() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let (key, participant, epoch) = (room_key(&ada), id_of(&ada), Epoch(1));
    for n in 1..=3 {
        let have = Have { n, ..Have::default() };
        house.rooms.deliver(key, Update::Have { participant, epoch, version: 1, have });
    }
    assert_eq!(ada.hear().await["n"], 3);
    let have = Have { n: 9, ..Have::default() };
    house.rooms.deliver(key, Update::Have { participant, epoch: Epoch(0), version: 1, have: have.clone() });
    house.rooms.deliver(RoomKey(12345), Update::Have { participant, epoch, version: 1, have });
    ada.hears_nothing().await;
}

/// The versions of slots that the worker was told to have been seen.
fn seen(house: &House) -> Vec<u64> {
    let version = |command| match command {
        Command::Seen { version, .. } => Some(version),
        _ => None,
    };
    house.worker.take().into_iter().filter_map(version).collect()
}

#[tokio::test(start_paused = true)]
async fn the_worker_learns_once_that_the_newest_state_of_the_slots_was_seen() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let (key, participant, epoch) = (room_key(&ada), id_of(&ada), Epoch(1));
    let state = |version| Update::Have { participant, epoch, version, have: Have::default() };
    house.rooms.deliver(key, state(1));
    let first = ada.hear().await["s"].as_u64().expect("a number");
    house.rooms.deliver(key, state(2));
    ada.hear().await;
    // What was seen is older than what counts.
    ada.send(&json!({"t": "ack", "a": first})).await;
    ada.hears_nothing().await;
    assert!(seen(&house).is_empty());
    ada.send(&json!({"t": "ack", "a": ada.a})).await;
    ada.send(&json!({"t": "ack", "a": ada.a})).await;
    ada.hears_nothing().await;
    assert_eq!(seen(&house), [2]);
    // Any message acknowledges, and so does coming back.
    house.rooms.deliver(key, state(3));
    ada.hear().await;
    ada.say("want", json!({"n": 1})).await;
    ada.hears_nothing().await;
    assert_eq!(seen(&house), [3]);
    house.rooms.deliver(key, state(4));
    ada.hear().await;
    let token = ada.token.clone();
    let ada = house.resume(ada, &token).await.expect("resumed");
    assert_eq!(seen(&house), [4]);
    house.rooms.deliver(key, state(5));
    let transport = TransportNumber(0);
    house.rooms.deliver(key, Update::Closed { participant, epoch, transport, reason: Reason::DtlsFailed });
    tokio::time::sleep(Duration::from_millis(1)).await;
    ada.send(&json!({"t": "ack", "a": ada.a + 2})).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(seen(&house).is_empty(), "those slots are gone");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_loses_its_carrier_and_comes_back_to_a_snapshot() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    ada.hear().await;
    for n in 0..600 {
        ada.say("name", json!({"name": format!("Ada {n}")})).await;
        ada.hear().await;
    }
    assert_eq!(ben.ending().await, Close::Slow);
    let token = ben.token.clone();
    let mut ben = house.resume(ben, &token).await.expect("resumed");
    assert_eq!(ben.hear().await["t"], "snapshot");
    assert_eq!(ada.roster.public(), ben.roster.public());
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_refuses_newcomers_and_still_learns_who_left() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    house.worker.take();
    house.worker.full.store(true, Ordering::Relaxed);
    assert_eq!(house.refusal(hello("Ben")).await, "overloaded");
    ada.say("mute", json!({"publication": 1, "muted": true})).await;
    assert_eq!(ada.hear().await["reason"], "overloaded");
    ada.say("bye", json!({})).await;
    assert_eq!(ada.ending().await, Close::Bye);
    tokio::time::sleep(Duration::from_secs(5)).await;
    house.worker.full.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let commands = house.worker.take();
    assert!(matches!(commands[..], [Command::Leave { reason: Reason::Bye, .. }]), "{commands:?}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_room_keeps_its_numbers_for_a_minute() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    let key = room_key(&ada);
    ada.say("bye", json!({})).await;
    ada.ending().await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    let ben = house.join("Ben").await;
    assert_eq!(room_key(&ben), key);
    assert_eq!(ben.welcome["publications"][0]["id"], 2, "ids are never used twice");
    ben.lose(true).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(house.rooms.count(), 0);
    let cleo = house.join("Cleo").await;
    assert_ne!(room_key(&cleo), key);
    assert_eq!(cleo.welcome["publications"][0]["id"], 1);
}

#[tokio::test(start_paused = true)]
async fn empty_rooms_make_way_for_new_ones() {
    let house = House::new(Settings { rooms: 2, ..Settings::default() });
    let _ada = house.join("Ada").await;
    let in_room = |room: usize| {
        let mut hello = hello("Ben");
        hello["room"] = json!(format!("room-{room}"));
        hello
    };
    for room in 0..20 {
        let mut ben = house.join_as(in_room(room)).await.expect("the last room is empty");
        ben.say("bye", json!({})).await;
        ben.ending().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(house.rooms.count(), 2);
    let _ben = house.join_as(in_room(99)).await.expect("let in");
    assert_eq!(house.refusal(in_room(100)).await, "too_many_rooms");
}

#[tokio::test(start_paused = true)]
async fn everyone_is_told_that_the_server_stops() {
    let house = House::new(Settings::default());
    let mut ada = house.join("Ada").await;
    house.rooms.stop(Reason::ShuttingDown).await;
    let goaway = ada.hear().await;
    assert_eq!((&goaway["t"], &goaway["reason"]), (&json!("goaway"), &json!("shutting_down")));
    assert_eq!(ada.ending().await, Close::GoAway);
    assert_eq!(house.refusal(hello("Ben")).await, "shutting_down");
}
