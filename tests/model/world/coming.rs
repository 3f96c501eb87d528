//! How people come: for the first time, on another carrier, with another page.

use super::*;
use crate::model::op::Token;

impl World {
    /// Somebody new, or the same with a new page.
    pub(super) async fn join(&mut self, index: usize, room: usize, identity: Option<(&Seat, String)>) {
        self.names += 1;
        let name = format!("person {}", self.names);
        let sections = match (&self.ground, self.names % 3) {
            (Some(_), _) => vec![0, 1],
            (None, 0) => vec![],
            (None, _) => vec![0],
        };
        let offer = self.ground.as_mut().map_or("first".to_owned(), |ground| ground.offer(room));
        let publish: Vec<_> = sections.iter().map(|section| item(*section, false)).collect();
        let mut hello = json!({"t": "hello", "s": 1, "a": 0, "room": format!("room-{room}"), "name": name,
            "offer": offer, "publish": publish, "want": {"n": 1}});
        if let Some((seat, token)) = &identity {
            hello["session"] = seat.page.session.clone().into();
            hello["token"] = token.clone().into();
        }
        let mut wire = Wire::new(&self.rooms);
        assert!(wire.line.take(&hello.to_string()).await, "let in");
        self.pass(1).await;
        let (messages, closed) = wire.read();
        assert_eq!(closed, None);
        let (welcome, rest) = messages.split_first().expect("a welcome");
        assert_eq!(welcome["t"], "welcome", "{welcome}");
        let mut page = Page::new(wire, welcome);
        let raw = self.ground.as_mut().map_or(0, |ground| ground.answered(&page.you, &welcome["answer"]));
        rest.iter().for_each(|message| page.take(message));
        let publications = sections.iter().map(|section| (*section, false)).collect();
        let person = Person { room, name, publications, media: None, carrier: None };
        let before = self.truth.0.insert(page.you.clone(), person);
        match (before, &identity) {
            (None, _) => assert_eq!(page.epoch, 1),
            (Some(_), Some((seat, _))) => {
                assert_eq!(page.you, seat.page.you, "somebody else's id was given away");
                assert_eq!(page.epoch, seat.page.epoch + 1);
            }
            (Some(person), None) => panic!("{person:?} was here already"),
        }
        self.seats[index] = Some(Seat {
            page,
            room,
            unheard: Vec::new(),
            old: Vec::new(),
            previous: None,
            failed: false,
            wants: 1,
            height: 360,
            raw,
            replaced: Vec::new(),
        });
    }

    fn token(seat: &Seat, token: Token) -> (String, bool) {
        match (token, seat.old.last()) {
            (Token::Right, _) => (seat.page.token.clone(), true),
            (Token::Old, Some(old)) => (old.clone(), false),
            _ => ("0".repeat(32), false),
        }
    }

    pub(super) async fn resume(&mut self, index: usize, mut seat: Seat, token: Token) {
        let (token, right) = Self::token(&seat, token);
        let gone = self.truth.0.get(&seat.page.you).map_or(Is::Yes, |person| person.is_gone(now()));
        let mut wire = Wire::new(&self.rooms);
        wire.line.take(&seat.page.resume(&token)).await;
        self.pass(1).await;
        let (messages, closed) = wire.read();
        let (first, rest) = messages.split_first().expect("an answer");
        if first["t"] == "refuse" {
            assert_eq!(closed, Some(Close::Refused));
            if first["reason"] == "unknown_session" {
                assert!(gone != Is::No, "{} is still here", seat.page.you);
                self.truth.0.remove(&seat.page.you);
                return;
            }
            assert!(first["reason"] == "resume_token" && !right, "{first}");
            self.seats[index] = Some(seat);
            return;
        }
        assert!(first["t"] == "resumed" && right && gone != Is::Yes && closed.is_none(), "{first} {gone:?}");
        self.truth.0.get_mut(&seat.page.you).expect("here").carrier = None;
        if let Some(mut old) = seat.page.wire.replace(wire) {
            let mut last = old.read().1;
            if last == Some(Close::Slow) || last.is_none() {
                last = old.outgoing.closing();
            }
            assert!(matches!(last, Some(Close::Replaced | Close::Slow)), "{last:?}");
            seat.replaced.push(old);
        }
        // The page's token is the one that was presented; whatever else was valid is not any more.
        seat.old.extend(seat.previous.take().filter(|previous| *previous != token));
        seat.previous = Some(token);
        seat.page.token = first["resume"].as_str().expect("a token").to_owned();
        seat.page.take(first);
        rest.iter().for_each(|message| seat.page.take(message));
        // Everything above its `a`, and something below: repetitions are to be ignored.
        let mut again: Vec<_> = seat.page.kept.iter().cloned().collect();
        if let Some(first) = again.first().cloned() {
            again.insert(0, first);
        }
        let mut unheard = std::mem::take(&mut seat.unheard);
        let texts: Vec<_> = again.iter().map(|(s, message)| (*s, seat.page.envelope(message))).collect();
        for (s, text) in texts {
            self.send(&mut seat, text, true).await;
            if let Some(at) = unheard.iter().position(|(of, _)| *of == s) {
                let (s, said) = unheard.remove(at);
                self.heard(&mut seat, s, &said);
            }
            seat.page.read();
        }
        assert!(unheard.is_empty(), "acknowledged though it was never heard: {unheard:?}");
        self.seats[index] = Some(seat);
    }

    /// The server answers into nothing.
    pub(super) async fn resume_in_vain(&mut self, seat: &mut Seat) {
        let gone = self.truth.0.get(&seat.page.you).map_or(Is::Yes, |person| person.is_gone(now()));
        if gone != Is::No {
            return;
        }
        let mut wire = Wire::new(&self.rooms);
        assert!(wire.line.take(&seat.page.resume(&seat.page.token)).await);
        self.pass(1).await;
        wire.broken = true;
        self.truth.0.get_mut(&seat.page.you).expect("here").carrier = Some(now());
        // The page's token stays valid, because nobody has shown the one that got lost.
        seat.old.extend(seat.previous.take().filter(|previous| *previous != seat.page.token));
        seat.previous = Some(seat.page.token.clone());
        seat.replaced.extend(seat.page.wire.replace(wire));
    }

    pub(super) async fn reload(&mut self, index: usize, mut seat: Seat, token: Token, clean: bool) {
        let (token, _) = Self::token(&seat, token);
        if clean && seat.page.is_healthy() {
            // The old page closes before the new one is there: that ends the session.
            let wire = seat.page.wire.take().expect("healthy");
            wire.line.lose(true).await;
            self.pass(1).await;
            self.truth.0.remove(&seat.page.you);
        } else {
            self.silence_carrier(&seat, seat.page.is_healthy());
        }
        let room = seat.room;
        self.join(index, room, Some((&seat, token))).await;
        let new = self.seats[index].as_ref().expect("sits");
        if new.page.you != seat.page.you {
            // Somebody new; the old page sends nothing any more.
            self.set_media(&seat, false);
        }
        if let Some(ground) = &mut self.ground {
            ground.silence(seat.raw);
        }
        self.dead.push(seat.page);
    }
}
