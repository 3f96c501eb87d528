//! What every carrier must pass, whatever it is made of: where it comes from, and its first message.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, StatusCode, header};

use crate::observe::reason::Reason;

use super::carrier::Carrier;
use super::join::validate;
use super::limit::{Connected, Network};
use super::message::{FromClient, Incoming, Objection};
use super::room::refuse;
use super::rooms::{Event, Handle, Rooms};

/// Where a carrier comes from.
pub(super) struct Origin {
    network: Option<Network>,
    /// Counts it among the connections of its address.
    pub(super) connected: Connected,
}

/// Whether a page may talk to us at all.
pub(super) fn check_page(rooms: &Rooms, headers: &HeaderMap) -> Result<(), (StatusCode, Reason)> {
    if is_allowed(headers, &rooms.door.settings.origins) {
        Ok(())
    } else {
        Err((StatusCode::FORBIDDEN, Reason::Origin))
    }
}

impl Origin {
    /// Whether there may be another carrier, before anything that it says is read.
    pub(super) fn of(
        rooms: &Rooms,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Self, (StatusCode, Reason)> {
        if rooms.is_stopping() {
            return Err((StatusCode::SERVICE_UNAVAILABLE, Reason::ShuttingDown));
        }
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let forwarded = peer.and_then(|peer| forwarded(peer, headers, &rooms.door.settings.proxies));
        let network = forwarded.or(peer).and_then(Network::of);
        // The peer itself was counted when it connected.
        let connected = rooms.networks.connect(forwarded.and_then(Network::of));
        let connected = connected.ok_or((StatusCode::TOO_MANY_REQUESTS, Reason::RateLimited))?;
        Ok(Self { network, connected })
    }
}

/// For whom a proxy asks: the last address that it lists is the one that it saw itself.
fn forwarded(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> Option<IpAddr> {
    if !proxies.contains(&peer.to_canonical()) {
        return None;
    }
    let listed = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    listed.rsplit(',').next()?.trim().parse().ok()
}

/// Whether the page that connects is ours or listed. Browsers always send `Origin`; whoever sends none is no
/// browser and carries nobody's cookies.
fn is_allowed(headers: &HeaderMap, listed: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let ours = origin.split_once("://").is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https") && host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
    });
    let same = |entry: &String| entry == "*" || entry.trim_end_matches('/').eq_ignore_ascii_case(origin);
    ours || listed.iter().any(same)
}

/// The first message decides which room a carrier belongs to. The carrier is told what comes of it; returns the room
/// unless the message was refused before it got there.
pub(super) async fn admit(
    rooms: &Arc<Rooms>,
    carrier: &Carrier,
    origin: &Origin,
    first: Result<Incoming, Objection>,
) -> Option<Handle> {
    let objection = match first {
        Ok(Incoming { s, body: Ok(Some(FromClient::Hello(hello))), .. }) => {
            let valid = validate(*hello, &rooms.door.settings);
            match valid
                .and_then(|valid| rooms.networks.join(origin.network).map(|()| valid).map_err(too_many))
            {
                Ok(valid) => return rooms.enter(valid, s.unwrap_or(1), carrier.clone()).await,
                Err(objection) => objection,
            }
        }
        // Whoever was here before is let in even when newcomers are not.
        Ok(Incoming { body: Ok(Some(FromClient::Resume(resume))), .. }) => {
            return rooms.resume(resume, carrier.clone()).await;
        }
        Ok(Incoming { body: Ok(_), .. }) => hello_missing("The first message must be hello or resume."),
        Ok(Incoming { body: Err(objection), .. }) | Err(objection) => objection,
    };
    refuse(&rooms.door, carrier, objection);
    None
}

/// Hands a message to the room; returns false when the room is over.
pub(super) async fn tell(room: &Handle, carrier: u64, incoming: Result<Incoming, Objection>) -> bool {
    let incoming = incoming.unwrap_or_else(|objection| Incoming { s: None, a: 0, body: Err(objection) });
    room.send(Event::Message { carrier, incoming }).await.is_ok()
}

pub(super) fn hello_missing(hint: &'static str) -> Objection {
    Objection::new(Reason::HelloMissing, hint)
}

fn too_many(wait: Duration) -> Objection {
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Objection::new(Reason::RateLimited, "Too many joins from your network at once.").retry(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_and_listed_origins_connect() {
        let allowed = |origin: Option<&str>, listed: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "call.example:8080".parse().expect("header"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("header"));
            }
            let listed: Vec<_> = listed.iter().map(|entry| (*entry).to_owned()).collect();
            is_allowed(&headers, &listed)
        };
        assert!(allowed(None, &[]));
        assert!(allowed(Some("http://call.example:8080"), &[]));
        assert!(allowed(Some("https://CALL.example:8080"), &[]));
        for foreign in ["http://call.example", "null", "http://evil.example", "http://call.example:8080.evil"]
        {
            assert!(!allowed(Some(foreign), &["https://friend.example"]), "{foreign}");
        }
        assert!(allowed(Some("https://friend.example"), &["https://friend.example/"]));
        assert!(allowed(Some("null"), &["*"]));
    }

    #[test]
    fn only_proxies_are_believed_for_whom_they_ask() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "203.0.113.1".parse().expect("header"));
        headers.append("x-forwarded-for", "203.0.113.2, 192.0.2.9".parse().expect("header"));
        let proxies = [ip("127.0.0.1")];
        assert_eq!(forwarded(ip("::ffff:127.0.0.1"), &headers, &proxies), Some(ip("192.0.2.9")));
        assert_eq!(forwarded(ip("198.51.100.1"), &headers, &proxies), None);
        assert_eq!(forwarded(ip("127.0.0.1"), &HeaderMap::new(), &proxies), None);
    }
}
