//! What is said: to whom, in which order, how often, and what is remembered of it.

use super::*;

async fn said(client: &mut Client) -> Value {
    let message = client.hear().await;
    assert_eq!(message["t"], "chat", "{message}");
    message
}

async fn three(settings: Settings) -> (House, Client, Client, Client) {
    let house = House::new(settings);
    let mut ada = house.join("Ada").await;
    let mut ben = house.join("Ben").await;
    let cleo = house.join("Cleo").await;
    for _ in 0..2 {
        ada.hear().await;
    }
    ben.hear().await;
    (house, ada, ben, cleo)
}

#[tokio::test(start_paused = true)]
async fn everybody_hears_the_same_in_the_same_order_and_newcomers_are_told() {
    let (house, mut ada, mut ben, mut cleo) = three(Settings::default()).await;
    ada.say("chat", json!({"text": "one"})).await;
    ben.say("chat", json!({"text": "two\n<b>\u{202e}"})).await;
    cleo.say("chat", json!({"sealed": "c2VjcmV0"})).await;
    let mut heard = Vec::new();
    for client in [&mut ada, &mut ben, &mut cleo] {
        let mut mine = Vec::new();
        for _ in 0..3 {
            let mut message = said(client).await;
            for envelope in ["s", "a", "t"] {
                message.as_object_mut().expect("an object").remove(envelope);
            }
            mine.push(message);
        }
        client.hears_nothing().await;
        heard.push(mine);
    }
    assert!(heard.iter().all(|mine| *mine == heard[0]), "{heard:?}");
    let [one, two, three] = &heard[0][..] else { panic!("three") };
    assert_eq!((&one["id"], &one["name"], &one["from"]), (&json!(1), &json!("Ada"), &json!(ada.you)));
    assert_eq!((&two["text"], &three["sealed"]), (&json!("two\n<b>\u{202e}"), &json!("c2VjcmV0")));
    let late = house.join("Dan").await;
    assert_eq!(late.welcome["chat"], json!(heard[0]));
    assert_eq!(late.welcome["limits"]["chatBytes"], 4096);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_to_one_is_heard_by_two_and_not_remembered() {
    let (house, mut ada, mut ben, mut cleo) = three(Settings::default()).await;
    ada.say("chat", json!({"to": ben.you, "text": "psst"})).await;
    assert_eq!(said(&mut ben).await["text"], "psst");
    assert_eq!(said(&mut ada).await["to"], json!(ben.you));
    cleo.hears_nothing().await;
    assert!(house.join("Dan").await.welcome["chat"].is_null());
    let s = ada.say("chat", json!({"to": "00000000000000ff", "text": "anybody?"})).await;
    ada.hear().await; // Dan
    let error = ada.hear().await;
    assert_eq!((&error["reason"], &error["id"]), (&json!("unknown_participant"), &json!(s)));
}

#[tokio::test(start_paused = true)]
async fn what_is_repeated_under_its_key_is_said_once() {
    let (house, mut ada, mut ben, _cleo) = three(Settings::default()).await;
    ada.say("chat", json!({"text": "one", "key": "k1"})).await;
    said(&mut ada).await;
    assert_eq!(said(&mut ben).await["key"], "k1");
    // The page was reloaded, or its session lost: it cannot know whether that arrived.
    let mut hello = hello("Ada");
    (hello["session"], hello["token"]) = (json!(ada.session), json!(ada.token));
    let mut again = house.join_as(hello).await.expect("let in");
    assert_eq!(again.welcome["chat"][0]["key"], "k1");
    ben.hear().await;
    again.say("chat", json!({"text": "one", "key": "k1"})).await;
    again.hears_nothing().await;
    // Somebody else's key is his own.
    ben.say("chat", json!({"text": "two", "key": "k1"})).await;
    assert_eq!(said(&mut again).await["id"], 2);
    assert_eq!(said(&mut ben).await["id"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_session_hears_each_message_once() {
    let (house, mut ada, ben, _cleo) = three(Settings::default()).await;
    let token = ben.token.clone();
    ben.lose(false).await;
    for n in 0..5 {
        ada.say("chat", json!({"text": format!("{n}")})).await;
        said(&mut ada).await;
    }
    let mut ben = house.resume(ben, &token).await.expect("resumed");
    for n in 0..5 {
        assert_eq!(said(&mut ben).await["text"], format!("{n}"));
    }
    ben.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_text_is_objected_to() {
    let (_house, mut ada, mut ben, _cleo) = three(Settings { chats_per_10s: 4, ..Settings::default() }).await;
    let (fits, long) = ("x".repeat(4096), "x".repeat(4097));
    for body in [
        json!({}),
        json!({"text": ""}),
        json!({"text": " \n"}),
        json!({"text": long}),
        json!({"text": "bell\u{7}"}),
        json!({"text": "both", "sealed": "eHk="}),
        json!({"sealed": "not base64!"}),
        json!({"sealed": "x".repeat(8193)}),
        json!({"text": "x", "key": ""}),
        json!({"text": "x", "key": "k".repeat(65)}),
    ] {
        ada.say("chat", body.clone()).await;
        assert_eq!(ada.hear().await["reason"], "chat_text", "{body}");
    }
    for _ in 0..4 {
        ada.say("chat", json!({"text": fits})).await;
        said(&mut ada).await;
        said(&mut ben).await;
    }
    ada.say("chat", json!({"text": "too fast"})).await;
    let error = ada.hear().await;
    assert_eq!(error["reason"], "rate_limited");
    tokio::time::sleep(Duration::from_millis(error["retryMs"].as_u64().expect("a time") + 1)).await;
    ada.say("chat", json!({"text": "slower"})).await;
    assert_eq!(said(&mut ada).await["text"], "slower");
}

#[tokio::test(start_paused = true)]
async fn a_room_remembers_a_bounded_number_of_bytes_for_a_bounded_time() {
    let settings = Settings {
        chat_history: 3,
        chat_history_bytes: 100,
        chat_history_for: Duration::from_secs(60),
        ..Settings::default()
    };
    let (house, mut ada, ..) = three(settings).await;
    let told = async |name: &str| {
        let mut client = house.join(name).await;
        let chat = client.welcome["chat"].as_array().cloned().unwrap_or_default();
        client.say("bye", json!({})).await;
        chat.iter().map(|said| said["text"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    for n in 0..4 {
        ada.say("chat", json!({"text": format!("{n}")})).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(told("Dan").await, ["1", "2", "3"]);
    ada.say("chat", json!({"text": "x".repeat(90)})).await;
    assert_eq!(told("Eve").await, ["3".to_owned(), "x".repeat(90)]);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(told("Fay").await, ["x".repeat(90)]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(told("Gil").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_writes_is_shown_to_those_who_will_hear_it() {
    let (_house, mut ada, mut ben, mut cleo) = three(Settings::default()).await;
    ada.send(&json!({"t": "typing", "a": 0})).await;
    for other in [&mut ben, &mut cleo] {
        let typing = other.hear().await;
        assert_eq!((&typing["t"], &typing["from"]), (&json!("typing"), &json!(ada.you)));
        assert!(typing["s"].is_null(), "it belongs to the carrier");
    }
    ada.send(&json!({"t": "typing", "a": 0, "to": cleo.you})).await;
    assert_eq!(cleo.hear().await["to"], json!(cleo.you));
    ben.hears_nothing().await;
    ada.hears_nothing().await;
}
