//! Whatever participants do, each one's picture of the room is the same in the end.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Join,
    Leave { who: usize, clean: bool },
    Say { who: usize, what: usize },
    Resume { who: usize },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0usize..8;
    prop_oneof![
        2 => Just(Step::Join),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, clean)| Step::Leave { who, clean }),
        6 => (who.clone(), 0usize..5).prop_map(|(who, what)| Step::Say { who, what }),
        2 => who.prop_map(|who| Step::Resume { who }),
        1 => (0u64..20_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// Reads whatever was said; false when the carrier was closed.
async fn read(client: &mut Client) -> bool {
    loop {
        match tokio::time::timeout(Duration::from_millis(1), client.outgoing.next()).await {
            Err(_) => return true,
            Ok(None) => return false,
            Ok(Some(text)) => {
                let message: Value = serde_json::from_str(&text).expect("valid JSON");
                client.a = message["s"].as_u64().map_or(client.a, |s| s.max(client.a));
                client.roster.apply(&message);
            }
        }
    }
}

async fn play(steps: Vec<Step>) {
    let house = House::new(Settings::default());
    let mut clients: Vec<Client> = Vec::new();
    for step in steps {
        match step {
            Step::Join if clients.len() < 8 => clients.push(house.join("somebody").await),
            Step::Join => {}
            Step::Leave { who, clean } if who < clients.len() => {
                clients[who].lose(clean).await;
                if clean {
                    clients.swap_remove(who);
                }
            }
            Step::Say { who, what } if who < clients.len() => {
                let publication = clients[who].roster.publications.keys().next().copied().unwrap_or(1);
                let (t, body) = match what {
                    0 => ("publish", json!({"publish": [{"mid": "1", "kind": "video", "source": "camera"}]})),
                    1 => ("unpublish", json!({"publication": publication})),
                    2 => ("mute", json!({"publication": publication, "muted": true})),
                    3 => ("name", json!({"name": format!("{who} {publication}")})),
                    _ => ("mute", json!({"publication": publication, "muted": false})),
                };
                clients[who].say(t, body).await;
            }
            Step::Resume { who } if who < clients.len() => {
                let client = clients.swap_remove(who);
                let token = client.token.clone();
                if let Ok(client) = house.resume(client, &token).await {
                    clients.push(client);
                }
            }
            Step::Leave { .. } | Step::Say { .. } | Step::Resume { .. } => {}
            Step::Wait { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }
    let mut present = Vec::new();
    for client in clients {
        let token = client.token.clone();
        present.extend(house.resume(client, &token).await);
    }
    let mut rosters = Vec::new();
    for client in &mut present {
        if read(client).await {
            rosters.push(client.roster.public());
        }
    }
    assert!(rosters.windows(2).all(|pair| pair[0] == pair[1]), "{rosters:#?}");
    assert_eq!(house.refused.get(Reason::Panicked), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn everyone_has_the_same_roster(steps in prop::collection::vec(step(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(steps));
    }
}
