//! Chat: the room orders what is said, says it to everybody at once, and remembers a little for those who come later.
//!
//! What a client repeats, because it could not know whether it arrived, has the same key and is said once. A sealed text is
//! nothing but bytes here.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::id::ParticipantId;
use crate::observe::reason::Reason;

use super::Settings;
use super::limit::Rate;
use super::message::{Chat, FromServer, Objection, Said, Typing, TypingSeen};
use super::room::Room;
use super::session::Body;

/// Bytes of a key: a random number in any writing.
const KEY_BYTES: usize = 64;
/// In which a participant's messages are counted.
pub(super) const CHAT_WINDOW: Duration = Duration::from_secs(10);
/// Keys that are remembered beyond the history. More notices repetitions after a longer absence, fewer costs less memory.
const KEYS: usize = 1024;

/// What was said to everybody.
#[derive(Debug, Default)]
pub(super) struct History {
    said: VecDeque<(Instant, Said)>,
    bytes: usize,
    /// Of the last message, to whomever it was.
    last: u64,
    keys: VecDeque<(ParticipantId, String)>,
}

impl History {
    /// What a newcomer is told, oldest first.
    pub(super) fn recall(&mut self, now: Instant, settings: &Settings) -> Vec<Said> {
        self.forget(now, settings);
        self.said.iter().map(|(_, said)| said.clone()).collect()
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Whether this participant said it already; from now on he did.
    fn is_repeated(&mut self, from: ParticipantId, key: Option<&str>) -> bool {
        let Some(key) = key else { return false };
        if self.keys.iter().any(|(by, known)| *by == from && known == key) {
            return true;
        }
        if self.keys.len() >= KEYS {
            self.keys.pop_front();
        }
        self.keys.push_back((from, key.to_owned()));
        false
    }

    fn remember(&mut self, now: Instant, said: &Said, settings: &Settings) {
        self.bytes += size(said);
        self.said.push_back((now, said.clone()));
        self.forget(now, settings);
    }

    fn forget(&mut self, now: Instant, settings: &Settings) {
        while let Some((at, oldest)) = self.said.front() {
            let old = now.saturating_duration_since(*at) >= settings.chat_history_for;
            if !old && self.said.len() <= settings.chat_history && self.bytes <= settings.chat_history_bytes {
                return;
            }
            self.bytes -= size(oldest);
            self.said.pop_front();
        }
    }
}

fn size(said: &Said) -> usize {
    let text = said.text.as_ref().or(said.sealed.as_ref()).map_or(0, String::len);
    text + said.name.len() + said.key.as_ref().map_or(0, String::len)
}

impl Room {
    pub(super) fn handle_chat(
        &mut self,
        now: Instant,
        id: ParticipantId,
        chat: Chat,
    ) -> Result<(), Objection> {
        check(&chat, self.door.settings.chat_bytes)?;
        let participant = self.participants.get(&id).ok_or_else(unknown)?;
        if let Err(wait) = participant.chats.pay(1) {
            let hint = format!("At most {} chat messages in 10 s.", self.door.settings.chats_per_10s);
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            return Err(Objection::new(Reason::RateLimited, hint).retry(wait));
        }
        if chat.to.is_some_and(|to| !self.participants.contains_key(&to)) {
            return Err(unknown());
        }
        let name = participant.name.clone();
        if self.chat.is_repeated(id, chat.key.as_deref()) {
            return Ok(());
        }
        let Chat { to, text, sealed, key } = chat;
        let said = Said { id: self.chat.next(), from: id, name, to, text, sealed, key, at: time_of_day() };
        if said.to.is_none() {
            self.chat.remember(now, &said, &self.door.settings);
        }
        let body = Body::new(&FromServer::Chat(Box::new(said)));
        for participant in self.participants.values_mut() {
            let hears = to.is_none_or(|to| participant.id == to || participant.id == id);
            if hears && let Err(reason) = participant.say(now, body.clone()) {
                self.doomed.push((participant.id, participant.epoch, reason));
            }
        }
        Ok(())
    }

    /// Whoever writes is shown to those who hear it, and forgotten if they do not hear it.
    pub(super) fn handle_typing(&self, id: ParticipantId, typing: Typing) -> Result<(), Objection> {
        let participant = self.participants.get(&id).ok_or_else(unknown)?;
        // In a big room somebody writes at all times, and who it is helps nobody.
        let shown = typing.to.is_some() || self.participants.len() <= self.door.settings.gather_above;
        if !shown || participant.chats.pay(1).is_err() {
            return Ok(());
        }
        let seen = FromServer::Typing(TypingSeen { from: id, to: typing.to });
        for other in self.participants.values().filter(|other| other.id != id) {
            if typing.to.is_none_or(|to| to == other.id) {
                other.say_on_carrier(&seen);
            }
        }
        Ok(())
    }

    pub(super) fn chat_rate(&self) -> Rate {
        Rate::new(self.door.settings.chats_per_10s, CHAT_WINDOW)
    }
}

fn unknown() -> Objection {
    Objection::new(Reason::UnknownParticipant, "Nobody of this id is in the room.")
}

fn check(chat: &Chat, most: usize) -> Result<(), Objection> {
    let objection = |hint: String| Err(Objection::new(Reason::ChatText, hint));
    if chat.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES) {
        return objection(format!("A key has 1 to {KEY_BYTES} bytes."));
    }
    match (&chat.text, &chat.sealed) {
        (Some(text), None) => {
            let control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
            if text.trim().is_empty() || text.len() > most || text.chars().any(control) {
                return objection(format!(
                    "A text has 1 to {most} bytes, and no control characters but new lines."
                ));
            }
        }
        // What a text becomes by being sealed and written as base64.
        (None, Some(sealed)) if !sealed.is_empty() && sealed.len() <= 2 * most => {
            let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'=');
            if !sealed.bytes().all(base64) {
                return objection("A sealed text is written as base64.".to_owned());
            }
        }
        _ => return objection(format!("Either a text or a sealed text, of at most {most} bytes.")),
    }
    Ok(())
}

/// Milliseconds since 1970, for people to read.
fn time_of_day() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
