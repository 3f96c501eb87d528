//! PROTOCOL.md, the client's types and the enums name the same messages and reasons.

use std::collections::BTreeSet;

use crate::observe::reason::Reason;
use crate::signal::carrier::Close;
use crate::signal::message::{ClientKind, ServerKind};

const PROTOCOL: &str = include_str!("../../../PROTOCOL.md");
const TYPES: &str = include_str!("../../../client/protocol.d.ts");

fn client_kinds() -> BTreeSet<&'static str> {
    ClientKind::ALL.iter().map(|kind| kind.as_str()).collect()
}

fn server_kinds() -> BTreeSet<&'static str> {
    ServerKind::ALL.iter().map(|kind| kind.as_str()).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_overview_of_the_protocol_lists_every_kind() {
    let listed = |direction: &str| -> BTreeSet<_> {
        let line = PROTOCOL.lines().find_map(|line| line.strip_prefix(direction)).expect("an overview");
        quoted(line).collect()
    };
    assert_eq!(listed("Client to server: "), client_kinds());
    assert_eq!(listed("Server to client: "), server_kinds());
}

#[test]
fn every_kind_has_an_example_in_the_protocol() {
    let examples: BTreeSet<_> =
        PROTOCOL.lines().filter_map(|line| line.strip_prefix("{\"t\": \"")?.split('"').next()).collect();
    let kinds: BTreeSet<_> = client_kinds().union(&server_kinds()).copied().collect();
    assert_eq!(examples, kinds);
}

#[test]
fn the_clients_types_name_every_kind() {
    let named: BTreeSet<_> =
        TYPES.lines().filter_map(|line| line.trim().strip_prefix("t: \"")?.strip_suffix("\";")).collect();
    let kinds: BTreeSet<_> = client_kinds().union(&server_kinds()).copied().collect();
    assert_eq!(named, kinds);
}

#[test]
fn the_protocol_invents_no_reason_and_no_close_code() {
    let section = |title: &str| {
        let rest = PROTOCOL.split_once(title).expect("the section").1;
        rest.split("\n## ").next().expect("some text")
    };
    let known: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    for row in section("## 12. Reasons").lines().filter(|line| line.starts_with("| `")) {
        let names = row.split('|').nth(1).expect("a first column");
        for name in quoted(names) {
            assert!(known.contains(name), "{name}");
        }
    }
    let codes = section("## 13. Close codes");
    for close in [
        Close::Bye,
        Close::GoAway,
        Close::TooLarge,
        Close::Replaced,
        Close::Refused,
        Close::Slow,
        Close::Ended,
    ] {
        assert!(codes.contains(&format!("| {} | server |", close.code())), "{close:?}");
    }
}
