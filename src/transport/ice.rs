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

#[cfg(test)]
mod tests {
    use super::super::testing::{CLIENT_UFRAG, Check, client_credentials, local, ms, pair};
    use super::*;
    use proptest::prelude::*;

    fn ice() -> (Ice, Instant) {
        (Ice::new(&local(), &client_credentials(CLIENT_UFRAG)), Instant::now())
    }

    fn check(ice: &mut Ice, now: Instant, port: u16, datagram: &[u8]) -> Result<(), Reason> {
        let mut out = [0; super::super::stun::MAX_ANSWER];
        let answer = ice.handle_check(now, pair(port), datagram, &mut out)?;
        super::super::testing::decode_answer(&out[..answer.len]);
        answer.refused.map_or(Ok(()), Err)
    }

    fn plain(ice: &mut Ice, now: Instant, port: u16, ufrag: &str) -> Result<(), Reason> {
        check(ice, now, port, &Check::from(ufrag).build())
    }

    fn nominate(ice: &mut Ice, now: Instant, port: u16, ufrag: &str) -> Result<(), Reason> {
        check(ice, now, port, &Check::nominating(ufrag))
    }

    #[test]
    fn the_first_check_gives_a_pair_even_without_nomination() {
        let (mut ice, now) = ice();
        assert_eq!(ice.pair(), None);
        assert!(!ice.is_known(pair(1)));
        assert_eq!(plain(&mut ice, now, 1, CLIENT_UFRAG), Ok(()));
        assert_eq!(ice.pair(), Some(pair(1)));
        assert!(ice.is_known(pair(1)) && !ice.is_known(pair(2)));
    }

    #[test]
    fn a_nomination_moves_the_pair_at_once() {
        let (mut ice, now) = ice();
        nominate(&mut ice, now, 1, CLIENT_UFRAG).expect("accepted");
        nominate(&mut ice, now, 2, CLIENT_UFRAG).expect("accepted");
        assert_eq!(ice.pair(), Some(pair(2)));
        nominate(&mut ice, now, 1, CLIENT_UFRAG).expect("accepted");
        assert_eq!(ice.pair(), Some(pair(1)), "and back");
    }

    #[test]
    fn a_check_without_nomination_moves_it_only_from_a_silent_pair() {
        let (mut ice, start) = ice();
        nominate(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        plain(&mut ice, start + ms(999), 2, CLIENT_UFRAG).expect("accepted");
        assert_eq!(ice.pair(), Some(pair(1)), "heard from less than a second ago");
        ice.heard(start + ms(1500), pair(1));
        ice.heard(start + ms(2400), pair(2)); // media from elsewhere says nothing about the present pair
        plain(&mut ice, start + ms(2499), 2, CLIENT_UFRAG).expect("accepted");
        assert_eq!(ice.pair(), Some(pair(1)), "media counts as a sign of life");
        plain(&mut ice, start + ms(2500), 2, CLIENT_UFRAG).expect("accepted");
        assert_eq!(ice.pair(), Some(pair(2)));
    }

    #[test]
    fn the_pair_includes_our_own_address() {
        let (mut ice, now) = ice();
        nominate(&mut ice, now, 1, CLIENT_UFRAG).expect("accepted");
        let other = AddressPair { local: Some([127, 0, 0, 1].into()), ..pair(1) };
        let mut out = [0; super::super::stun::MAX_ANSWER];
        ice.handle_check(now, other, &Check::plain(), &mut out).expect("accepted");
        assert_eq!(ice.pair(), Some(pair(1)));
        ice.handle_check(now, other, &Check::nominating(CLIENT_UFRAG), &mut out).expect("accepted");
        assert_eq!(ice.pair(), Some(other));
    }

    #[test]
    fn refused_checks_change_nothing() {
        let (mut ice, now) = ice();
        nominate(&mut ice, now, 1, CLIENT_UFRAG).expect("accepted");
        let good = Check { nominates: true, ..Check::from(CLIENT_UFRAG) };
        let wrong_pwd = Check { pwd: Some("not the right password".into()), ..good.clone() };
        let wrong_server = Check { username: Some("othr:clnt".into()), ..good.clone() };
        let unknown = Check { extra: vec![(0x7777, vec![])], ..good.clone() };
        let controlled = Check { controlled: true, ..good };
        for (bad, reason) in [
            (wrong_pwd, Reason::StunIntegrity),
            (wrong_server, Reason::StunUnknownUser),
            (Check { nominates: true, ..Check::from("nobody") }, Reason::StunUnknownUser),
            (unknown, Reason::StunUnknownAttribute),
            (controlled, Reason::StunRoleConflict),
        ] {
            assert_eq!(check(&mut ice, now + ms(5000), 2, &bad.build()), Err(reason));
            assert_eq!(ice.pair(), Some(pair(1)));
            assert!(!ice.is_known(pair(2)));
            assert_eq!(ice.poll_timeout(), Some(now + CONSENT));
        }
    }

    #[test]
    fn without_room_for_the_answer_nothing_happens() {
        let (mut ice, now) = ice();
        let result = ice.handle_check(now, pair(1), &Check::plain(), &mut [0; 60]);
        assert_eq!(result, Err(Reason::BatchFull));
        assert_eq!(ice.pair(), None);
    }

    #[test]
    fn consent_runs_out_and_comes_back() {
        let (mut ice, start) = ice();
        assert_eq!(ice.poll_timeout(), None);
        nominate(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        plain(&mut ice, start + ms(4000), 1, CLIENT_UFRAG).expect("accepted");
        ice.heard(start + ms(33_000), pair(1)); // media is no consent
        ice.handle_timeout(start + ms(33_999));
        assert_eq!(ice.pair(), Some(pair(1)));
        assert_eq!(ice.poll_timeout(), Some(start + ms(34_000)));
        ice.handle_timeout(start + ms(34_000));
        assert_eq!((ice.pair(), ice.poll_timeout()), (None, None));
        assert!(ice.is_known(pair(1)), "what it sends is still its own");
        plain(&mut ice, start + ms(60_000), 3, CLIENT_UFRAG).expect("accepted");
        assert_eq!(ice.pair(), Some(pair(3)));
    }

    #[test]
    fn a_restart_leaves_media_where_it_is_until_the_new_name_nominates() {
        let (mut ice, start) = ice();
        nominate(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        assert_eq!(
            plain(&mut ice, start, 2, "newu"),
            Err(Reason::StunUnknownUser),
            "not before it is offered"
        );
        ice.restart(&client_credentials("newu"));
        assert_eq!(ice.pair(), Some(pair(1)));
        plain(&mut ice, start + ms(50), 2, "newu").expect("accepted");
        assert_eq!(ice.pair(), Some(pair(1)), "not nominated");
        nominate(&mut ice, start + ms(60), 1, CLIENT_UFRAG).expect("the old name is still answered");
        nominate(&mut ice, start + ms(110), 2, "newu").expect("accepted");
        assert_eq!(ice.pair(), Some(pair(2)));
        assert_eq!(plain(&mut ice, start + ms(120), 1, CLIENT_UFRAG), Err(Reason::StunUnknownUser));
        assert_eq!(nominate(&mut ice, start + ms(120), 1, CLIENT_UFRAG), Err(Reason::StunUnknownUser));
        assert_eq!(ice.pair(), Some(pair(2)));
    }

    #[test]
    fn a_restart_without_nomination_takes_over_from_a_silent_pair() {
        let (mut ice, start) = ice();
        nominate(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        ice.restart(&client_credentials("newu"));
        plain(&mut ice, start + ms(1000), 2, "newu").expect("accepted");
        assert_eq!(ice.pair(), Some(pair(2)));
        assert_eq!(plain(&mut ice, start + ms(1001), 1, CLIENT_UFRAG), Err(Reason::StunUnknownUser));
    }

    #[test]
    fn the_old_name_keeps_following_a_rebinding_during_a_restart() {
        let (mut ice, start) = ice();
        nominate(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        ice.restart(&client_credentials("newu"));
        plain(&mut ice, start + ms(2000), 5, CLIENT_UFRAG).expect("accepted");
        assert_eq!(ice.pair(), Some(pair(5)));
        nominate(&mut ice, start + ms(2001), 6, "newu").expect("accepted");
        assert_eq!(ice.pair(), Some(pair(6)));
    }

    #[test]
    fn a_second_restart_replaces_the_first() {
        let (mut ice, start) = ice();
        nominate(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        ice.restart(&client_credentials("new1"));
        ice.restart(&client_credentials("new2"));
        assert_eq!(plain(&mut ice, start, 2, "new1"), Err(Reason::StunUnknownUser));
        plain(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        nominate(&mut ice, start, 2, "new2").expect("accepted");
        assert_eq!(ice.pair(), Some(pair(2)));
    }

    #[test]
    fn the_same_name_offered_again_is_no_restart() {
        let (mut ice, start) = ice();
        nominate(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        ice.restart(&client_credentials(CLIENT_UFRAG));
        nominate(&mut ice, start, 2, CLIENT_UFRAG).expect("accepted");
        nominate(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        assert_eq!(ice.pair(), Some(pair(1)));
    }

    #[test]
    fn known_addresses_are_bounded_and_the_one_in_use_is_kept() {
        let (mut ice, start) = ice();
        nominate(&mut ice, start, 1, CLIENT_UFRAG).expect("accepted");
        for port in 100..200 {
            ice.heard(start, pair(1));
            plain(&mut ice, start, port, CLIENT_UFRAG).expect("accepted");
        }
        assert_eq!(ice.pair(), Some(pair(1)));
        assert!(ice.is_known(pair(1)) && ice.is_known(pair(199)) && !ice.is_known(pair(100)));
        assert_eq!(ice.known.len(), MAX_ADDRESSES);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Whatever comes in whichever order: what is sent goes to where a check succeeded, less than 30 s ago.
        #[test]
        fn nothing_goes_where_no_check_came_from(
            steps in prop::collection::vec((0u16..6, 0u8..6, 0u64..20_000), 1..60),
        ) {
            let (mut ice, mut now) = ice();
            let mut checked = std::collections::HashMap::new();
            for (port, what, wait) in steps {
                let mut take = |ice: &mut Ice, check: Vec<u8>| {
                    let mut out = [0; super::super::stun::MAX_ANSWER];
                    let answer = ice.handle_check(now, pair(port), &check, &mut out);
                    if answer.is_ok_and(|answer| answer.refused.is_none()) {
                        checked.insert(pair(port), now);
                    }
                };
                match what {
                    0 => take(&mut ice, Check::plain()),
                    1 => take(&mut ice, Check::nominating(CLIENT_UFRAG)),
                    2 => take(&mut ice, Check::nominating("newu")),
                    3 => take(&mut ice, Check { pwd: None, ..Check::from(CLIENT_UFRAG) }.build()),
                    4 => ice.restart(&client_credentials("newu")),
                    _ => now += ms(wait),
                }
                ice.heard(now, pair(port));
                ice.handle_timeout(now);
                prop_assert!(ice.poll_timeout().is_none_or(|at| at > now));
                let newest = checked.values().max();
                match ice.pair() {
                    Some(used) => prop_assert!(checked.contains_key(&used)),
                    None => prop_assert!(newest.is_none_or(|at| now - *at >= CONSENT)),
                }
                prop_assert_eq!(ice.pair().is_some(), newest.is_some_and(|at| now - *at < CONSENT));
            }
        }
    }
}
