//! Rooms in which not everything is said at once: whoever asks still finds the truth, and nobody is shown who is gone.

use proptest::prelude::*;

use super::*;
use crate::control::Update;
use crate::id::{Epoch, TransportNumber};

/// Like a room of hundreds, with a few.
fn small_limits() -> Settings {
    Settings { page: 4, gather_above: 2, count_above: 6, ..Settings::default() }
}

fn listener(name: &str) -> Value {
    let mut hello = hello(name);
    hello["publish"] = json!([]);
    hello
}

/// Reads whatever was said.
async fn read(client: &mut Client) {
    while let Ok(next) = tokio::time::timeout(Duration::from_millis(1), client.outgoing.next()).await {
        let message: Value = serde_json::from_str(&next.expect("the carrier is open")).expect("valid JSON");
        client.a = message["s"].as_u64().unwrap_or(client.a);
        client.roster.apply(&message);
    }
}

async fn settle(clients: &mut [Client]) {
    tokio::time::sleep(Duration::from_millis(300)).await;
    for client in clients {
        read(client).await;
    }
}

/// Asks for the whole roster, page by page.
async fn page(client: &mut Client) {
    let mut after = Value::Null;
    loop {
        client.say("who", if after.is_null() { json!({}) } else { json!({ "after": after }) }).await;
        let page = loop {
            let message = client.hear().await;
            if message["t"] == "who" {
                break message;
            }
        };
        after = page["next"].clone();
        if after.is_null() {
            return;
        }
    }
}

fn names(client: &Client) -> Vec<&str> {
    let mut names: Vec<_> =
        client.roster.people.values().map(|person| person["name"].as_str().expect("a name")).collect();
    names.sort_unstable();
    names
}

#[tokio::test(start_paused = true)]
async fn arrivals_and_departures_come_together() {
    let house = House::big(Settings { page: 100, gather_above: 2, ..Settings::default() });
    let mut ada = house.join("Ada").await;
    let ben = house.join("Ben").await;
    ada.hear().await;
    for name in ["Cleo", "Dan"] {
        house.join(name).await;
    }
    let eve = house.join("Eve").await;
    assert_eq!(names(&eve), ["Ada", "Ben", "Cleo", "Dan", "Eve"], "a snapshot shows the truth");
    ben.lose(true).await;
    eve.lose(true).await;
    ada.hears_nothing().await;
    let delta = ada.hear().await;
    assert_eq!((&delta["rev"], &delta["total"]), (&json!(3), &json!(3)), "{delta}");
    assert_eq!(delta["joined"].as_array().map(Vec::len), Some(2), "{delta}");
    assert_eq!(delta["left"], json!([{"id": ben.you, "reason": "bye"}]), "nobody was told of Eve");
    assert_eq!(names(&ada), ["Ada", "Cleo", "Dan"]);
    // A room that shrank speaks at once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    ada.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_begins_to_publish_is_named_to_everybody_and_sees_the_section() {
    let house = House::big(Settings { page: 2, gather_above: 1, count_above: 2, ..Settings::default() });
    let mut people = Vec::new();
    for name in ["Ada", "Ben", "Cleo", "Dan", "Eve"] {
        people.push(house.join_as(listener(name)).await.expect("let in"));
    }
    settle(&mut people).await;
    assert!(people.iter().all(|client| client.roster.total == 5 && client.roster.people.len() < 5));
    let camera = json!({"publish": [{"mid": "1", "kind": "video", "source": "camera"}]});
    for speaker in 0..5 {
        people[speaker].say("publish", camera.clone()).await;
        settle(&mut people).await;
        let you = people[speaker].you.clone();
        for client in &people {
            assert!(client.roster.people.contains_key(&you), "{you} is not known to {}", client.you);
            assert_eq!(client.roster.publications.len(), speaker + 1);
        }
        let own = people[speaker].roster.publications.values().find(|entry| entry["participant"] == *you);
        assert_eq!(own.expect("published")["mid"], "1");
    }
    // A newcomer who publishes keeps the section, though the news of it go to everybody.
    let mut fay = house.join("Fay").await;
    settle(std::slice::from_mut(&mut fay)).await;
    let own = fay.roster.publications.values().find(|entry| entry["participant"] == *fay.you);
    assert_eq!(own.expect("published")["mid"], "0");
    assert_eq!(fay.roster.people.len(), 6, "all who publish are named, however many");
}

#[tokio::test(start_paused = true)]
async fn listeners_of_a_huge_room_are_counted_and_found_by_asking() {
    let house = House::big(small_limits());
    let mut ada = house.join("Ada").await;
    let mut others = Vec::new();
    for n in 0..20 {
        others.push(house.join_as(listener(&format!("listener {n}"))).await.expect("let in"));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    settle(std::slice::from_mut(&mut ada)).await;
    assert_eq!((ada.roster.total, ada.roster.people.len()), (21, 6), "those beyond were counted");
    assert!(others[19].roster.people.len() <= 5, "as many as a page, and oneself");
    page(&mut ada).await;
    assert_eq!(ada.roster.people.len(), 21);
    for client in others.drain(..15) {
        client.lose(true).await;
    }
    settle(std::slice::from_mut(&mut ada)).await;
    assert_eq!((ada.roster.total, ada.roster.people.len()), (6, 6), "whoever was named is told to have left");
}

#[tokio::test(start_paused = true)]
async fn arrivals_in_a_rush_cost_each_member_few_messages_and_are_written_once() {
    let house = House::big(Settings { participants: 400, ..Settings::default() });
    let mut people = Vec::new();
    for n in 0..300 {
        let hello = if n < 5 { hello("speaker") } else { listener("listener") };
        people.push(house.join_as(hello).await.expect("let in"));
    }
    for client in &people {
        let connected = Update::Connected {
            participant: client.you.parse().expect("an id"),
            epoch: Epoch(1),
            transport: TransportNumber(0),
        };
        house.rooms.deliver(client.room.as_ref().expect("in a room").key, connected);
    }
    settle(&mut people).await;
    let before = people[0].a;
    for second in 0..2 {
        for n in 0..50 {
            let client = house.join_as(listener("guest")).await.expect("let in");
            people[10 + second * 50 + n].lose(true).await;
            people[10 + second * 50 + n] = client;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    settle(&mut people).await;
    let heard = people[0].a - before;
    assert!((7..=10).contains(&heard), "four messages a second, not a hundred: {heard}");
    let truth: Vec<_> = people.iter().map(|client| client.you.as_str()).collect();
    for client in [&people[0], &people[5], &people[299]] {
        assert_eq!(client.roster.total, 300);
        assert!(client.roster.people.keys().all(|id| truth.contains(&id.as_str())), "nobody who is gone");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join { publishes: bool },
    Leave { who: usize },
    Publish { who: usize },
    Unpublish { who: usize },
    Name { who: usize },
    Page { who: usize },
    Resume { who: usize },
    Reload { who: usize, publishes: bool },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0usize..12;
    prop_oneof![
        5 => any::<bool>().prop_map(|publishes| Step::Join { publishes }),
        3 => who.clone().prop_map(|who| Step::Leave { who }),
        2 => who.clone().prop_map(|who| Step::Publish { who }),
        2 => who.clone().prop_map(|who| Step::Unpublish { who }),
        1 => who.clone().prop_map(|who| Step::Name { who }),
        1 => who.clone().prop_map(|who| Step::Page { who }),
        1 => who.clone().prop_map(|who| Step::Resume { who }),
        1 => (who, any::<bool>()).prop_map(|(who, publishes)| Step::Reload { who, publishes }),
        3 => (0u64..400).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// What is true of the room, kept by the test alone.
#[derive(Default)]
struct Truth {
    names: BTreeMap<String, String>,
    /// How many each publishes.
    publications: BTreeMap<String, usize>,
}

impl Truth {
    fn enter(&mut self, client: &Client, publishes: bool) {
        self.names.insert(client.you.clone(), client.welcome_name());
        self.publications.insert(client.you.clone(), usize::from(publishes));
    }

    fn check(&self, client: &Client, complete: bool) {
        let roster = &client.roster;
        assert_eq!(roster.total, self.names.len() as u64, "{}", client.you);
        for (id, person) in &roster.people {
            assert_eq!(self.names.get(id).map(String::as_str), person["name"].as_str(), "{id}");
        }
        assert!(roster.people.contains_key(&client.you), "one knows oneself");
        assert!(!complete || roster.people.len() == self.names.len(), "{} knows not all", client.you);
        let mut publications: BTreeMap<_, _> = self.names.keys().map(|id| (id.clone(), 0)).collect();
        for entry in roster.publications.values() {
            *publications.entry(entry["participant"].as_str().expect("an owner").to_owned()).or_default() +=
                1;
        }
        assert_eq!(publications, self.publications, "{}", client.you);
    }
}

impl Client {
    fn welcome_name(&self) -> String {
        self.roster.people[&self.you]["name"].as_str().expect("a name").to_owned()
    }
}

async fn play(settings: Settings, steps: Vec<Step>) {
    let house = House::big(settings);
    let (mut clients, mut truth): (Vec<Client>, _) = (Vec::new(), Truth::default());
    for (number, step) in steps.into_iter().enumerate() {
        let hello =
            |publishes| if publishes { hello(&format!("{number}")) } else { listener(&format!("{number}")) };
        match step {
            Step::Join { publishes } if clients.len() < 12 => {
                let client = house.join_as(hello(publishes)).await.expect("let in");
                truth.enter(&client, publishes);
                clients.push(client);
            }
            Step::Leave { who } if who < clients.len() => {
                let client = clients.swap_remove(who);
                client.lose(true).await;
                truth.names.remove(&client.you);
                truth.publications.remove(&client.you);
            }
            Step::Publish { who } if who < clients.len() => {
                let client = &mut clients[who];
                let count = truth.publications.get_mut(&client.you).expect("present");
                if let Some(mid) = ["0", "1"].get(*count) {
                    let kind = if *mid == "0" { "audio" } else { "video" };
                    let source = if *mid == "0" { "microphone" } else { "camera" };
                    let item = json!({"mid": mid, "kind": kind, "source": source});
                    client.say("publish", json!({ "publish": [item] })).await;
                    *count += 1;
                }
            }
            Step::Unpublish { who } if who < clients.len() => {
                let client = &mut clients[who];
                read(client).await;
                let mine = |entry: &&Value| entry["participant"] == *client.you;
                let last =
                    client.roster.publications.values().filter(mine).max_by_key(|entry| entry["id"].as_u64());
                if let Some(id) = last.map(|entry| entry["id"].clone()) {
                    client.say("unpublish", json!({ "publication": id })).await;
                    *truth.publications.get_mut(&client.you).expect("present") -= 1;
                }
            }
            Step::Name { who } if who < clients.len() => {
                clients[who].say("name", json!({"name": format!("name {number}")})).await;
                truth.names.insert(clients[who].you.clone(), format!("name {number}"));
            }
            Step::Page { who } if who < clients.len() => page(&mut clients[who]).await,
            Step::Resume { who } if who < clients.len() => {
                let client = clients.swap_remove(who);
                client.lose(false).await;
                let token = client.token.clone();
                clients.push(house.resume(client, &token).await.expect("resumed"));
            }
            Step::Reload { who, publishes } if who < clients.len() => {
                let client = clients.swap_remove(who);
                let mut hello = hello(publishes);
                (hello["session"], hello["token"]) = (json!(client.session), json!(client.token));
                let client = house.join_as(hello).await.expect("let in");
                truth.enter(&client, publishes);
                clients.push(client);
            }
            Step::Wait { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            _ => {}
        }
        // Turns of the room's task, so that what was said above is done.
        tokio::time::sleep(Duration::from_micros(10)).await;
    }
    settle(&mut clients).await;
    for client in &mut clients {
        truth.check(client, false);
        page(client).await;
        truth.check(client, true);
    }
    assert_eq!(house.refused.get(Reason::Panicked), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whoever_asks_knows_all_and_nobody_knows_who_is_gone(
        (page, gather_above, count_above) in (1usize..6, 0usize..6, 2usize..9),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let settings = Settings { page, gather_above, count_above, ..Settings::default() };
        runtime.expect("a runtime").block_on(play(settings, steps));
    }
}
