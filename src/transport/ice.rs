//! ICE-lite (RFC 8445 §2.5, RFC 8839): the server gathers nothing and sends no checks. It answers authenticated
//! ones and learns from them where its participant is: now, after a NAT gave it another port, and after an
//! ICE restart.
//!
//! The rules for the address that is used:
//! * the first authenticated check gives one, nominated or not;
//! * a check with USE-CANDIDATE moves it at once;
//! * a check without moves it when nothing authenticated came from the present one for [`SILENT_AFTER`]: some
//!   browsers nominate only once, and would otherwise be lost after a NAT rebinding;
//! * without a check for [`CONSENT`] there is none, and nothing is sent (RFC 7675), until the next check.

use std::time::{Duration, Instant};

use super::demux::MAX_ADDRESSES;
use super::stun::{Key, Request, Response};
use super::{Answer, Credentials};
use crate::id::AddressPair;
use crate::observe::reason::Reason;

/// How long the present address must have been silent before a check without nomination takes over. Longer
/// leaves a client that moved without media for that time; shorter lets a late check on an abandoned path
/// steal the media of a client whose packets are merely delayed.
pub const SILENT_AFTER: Duration = Duration::from_secs(1);

/// How long one authenticated check permits to send (RFC 7675 §5.1). Longer keeps sending to somebody who
/// left; shorter drops clients whose checks, sent every 3 to 6 s, get lost a few times.
pub const CONSENT: Duration = Duration::from_secs(30);

/// Where a participant is.
#[derive(Debug)]
pub(super) struct Ice {
    ufrag: String,
    key: Key,
    /// The client's user name; a check must carry it or `next`.
    client: String,
    /// The client's user name after an ICE restart of which no check has taken over yet.
    next: Option<String>,
    /// Every pair from which an authenticated check came, oldest first; DTLS and SRTP are taken from these only.
    known: Vec<AddressPair>,
    pair: Option<AddressPair>,
    /// The last authenticated datagram of any kind from `pair`.
    pair_heard: Option<Instant>,
    /// The last check that succeeded.
    checked: Option<Instant>,
}

impl Ice {
    pub(super) fn new(local: &Credentials, remote: &Credentials) -> Self {
        Self {
            ufrag: local.ufrag.clone(),
            key: Key::new(&local.pwd),
            client: remote.ufrag.clone(),
            next: None,
            known: Vec::with_capacity(MAX_ADDRESSES),
            pair: None,
            pair_heard: None,
            checked: None,
        }
    }

    /// An ICE restart was offered: checks by the new name are answered from now on, those by the old one until
    /// a new one takes over. Our own name and password stay (both browsers take that).
    pub(super) fn restart(&mut self, remote: &Credentials) {
        // The same name again is an offer without a restart.
        self.next = (remote.ufrag != self.client).then(|| remote.ufrag.clone());
    }

    /// A datagram that looks like STUN came in.
    pub(super) fn handle_check(
        &mut self,
        now: Instant,
        pair: AddressPair,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Result<Answer, Reason> {
        let request = Request::parse(datagram)?;
        let is_next = self.next.as_deref() == Some(request.client_ufrag());
        if request.server_ufrag() != self.ufrag || !(is_next || request.client_ufrag() == self.client) {
            return Err(Reason::StunUnknownUser);
        }
        request.authenticate(&self.key)?;
        let response = request.error().unwrap_or(Response::Success(pair.remote));
        let len = request.answer(response, &self.key, out).ok_or(Reason::BatchFull)?;
        let refused = match response {
            Response::Success(_) => None,
            Response::UnknownAttribute => Some(Reason::StunUnknownAttribute),
            Response::RoleConflict => Some(Reason::StunRoleConflict),
        };
        if refused.is_none() {
            self.accept(now, pair, request.use_candidate(), is_next);
        }
        Ok(Answer { len, refused })
    }

    /// A check succeeded.
    fn accept(&mut self, now: Instant, pair: AddressPair, nominates: bool, is_next: bool) {
        self.checked = Some(now);
        let silent = self.pair_heard.is_none_or(|heard| now.saturating_duration_since(heard) >= SILENT_AFTER);
        let moves = self.pair.is_none() || nominates || (self.pair != Some(pair) && silent);
        if moves {
            self.pair = Some(pair);
        }
        if moves
            && is_next
            && let Some(next) = self.next.take()
        {
            self.client = next;
        }
        self.remember(pair);
        self.heard(now, pair);
    }

    fn remember(&mut self, pair: AddressPair) {
        if self.known.contains(&pair) {
            return;
        }
        if self.known.len() == MAX_ADDRESSES {
            let in_use = |known: &AddressPair| Some(*known) == self.pair;
            let oldest = self.known.iter().position(|known| !in_use(known)).unwrap_or(0);
            self.known.remove(oldest);
        }
        self.known.push(pair);
    }

    /// Something authenticated came from `pair`.
    pub(super) fn heard(&mut self, now: Instant, pair: AddressPair) {
        if self.pair == Some(pair) {
            self.pair_heard = Some(now);
        }
    }

    /// Whether an authenticated check came from there.
    pub(super) fn is_known(&self, pair: AddressPair) -> bool {
        self.pair.is_some_and(|present| present.remote == pair.remote)
            || self.known.iter().any(|known| known.remote == pair.remote)
    }

    /// Where to send; `None` before the first check and after consent ran out.
    pub(super) fn pair(&self) -> Option<AddressPair> {
        self.pair
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.pair = None;
            self.pair_heard = None;
        }
    }

    /// When consent runs out.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pair.and(self.checked).map(|checked| checked + CONSENT)
    }
}
