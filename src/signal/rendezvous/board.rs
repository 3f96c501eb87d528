//! The texts that wait for their readers, and the readers that wait for texts.
//!
//! Pure: told the time, it never asks. A text is in exactly one place: in its queue, on its way to a reader who waits, or in a
//! [`Handed`](super::Handed) that returns it unless it was written out.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::oneshot;

use crate::observe::reason::Reason;

/// The bounds of the board; [`crate::config`] has those that are settings.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one text: an offer with its candidates takes 2 to 10 kB.
    pub text_bytes: usize,
    /// Texts that wait for one reader. More serves a reader who comes late, fewer bound what a stranger can leave there.
    pub texts: usize,
    /// Bytes of all texts that wait for one reader.
    pub bytes: usize,
    /// Bytes of all texts.
    pub total_bytes: usize,
    /// Requests that wait for a text of one id. Two tabs of one person are two.
    pub readers: usize,
    /// Ids that have texts or readers.
    pub ids: usize,
    /// How long a text is kept. Longer serves whoever comes late, shorter forgets what nobody will read.
    pub life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text_bytes: 64 << 10,
            texts: 64,
            bytes: 1 << 20,
            total_bytes: 64 << 20,
            readers: 32,
            ids: 10_000,
            life: Duration::from_secs(600),
        }
    }
}

/// Bytes of an id.
pub(super) const ID_BYTES: usize = 128;
/// How often texts that nobody asks for are looked through. Rarer keeps dead ones longer, more often costs time.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// One text. Whoever drops it before it was read tells its author by that.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) number: u64,
    pub(super) body: Bytes,
    put: Instant,
    /// Towards an author who waits.
    read: Option<oneshot::Sender<()>>,
}

impl Text {
    /// It was written out to a reader.
    pub(super) fn confirm(&mut self) {
        if let Some(read) = self.read.take() {
            let _ = read.send(());
        }
    }

    /// Its author waited, and does no longer.
    fn is_withdrawn(&self) -> bool {
        self.read.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

#[derive(Debug, Default)]
struct Queue {
    texts: VecDeque<Text>,
    bytes: usize,
    /// In the order in which they came.
    readers: VecDeque<oneshot::Sender<Text>>,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.texts.is_empty() && self.readers.iter().all(oneshot::Sender::is_closed)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Board {
    limits: Limits,
    queues: HashMap<String, Queue>,
    bytes: usize,
    last: u64,
    swept: Instant,
}

impl Board {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, queues: HashMap::new(), bytes: 0, last: 0, swept: now }
    }

    /// Leaves a text for the readers of `id`. With `confirm`, the receiver hears when it was read, and an error when it never
    /// will be.
    ///
    /// # Errors
    /// [`Reason::MessageTooLarge`], or [`Reason::RendezvousFull`]: too much waits there already.
    pub(super) fn put(
        &mut self,
        now: Instant,
        id: &str,
        body: Bytes,
        confirm: bool,
    ) -> Result<(u64, Option<oneshot::Receiver<()>>), Reason> {
        self.sweep(now);
        let limits = self.limits;
        if body.len() > limits.text_bytes {
            return Err(Reason::MessageTooLarge);
        }
        self.expire(now, id);
        let (texts, bytes) = self.queues.get(id).map_or((0, 0), |queue| (queue.texts.len(), queue.bytes));
        let fits = texts < limits.texts
            && bytes + body.len() <= limits.bytes
            && self.bytes + body.len() <= limits.total_bytes;
        if !fits || !self.has_room_for(id) {
            return Err(Reason::RendezvousFull);
        }
        let (read, confirmed) = oneshot::channel();
        self.last += 1;
        let text = Text { number: self.last, body, put: now, read: confirm.then_some(read) };
        self.offer(id, text, false);
        Ok((self.last, confirm.then_some(confirmed)))
    }

    /// The oldest text, unless somebody waits for it already.
    pub(super) fn take(&mut self, now: Instant, id: &str) -> Option<Text> {
        self.sweep(now);
        self.expire(now, id);
        let queue = self.queues.get_mut(id)?;
        let text = queue.texts.pop_front();
        if let Some(text) = &text {
            queue.bytes -= text.body.len();
            self.bytes -= text.body.len();
        }
        self.forget_idle(id);
        text
    }

    /// The next text that comes, first come, first served.
    ///
    /// # Errors
    /// [`Reason::RendezvousFull`]: too many wait there already.
    pub(super) fn wait(&mut self, now: Instant, id: &str) -> Result<oneshot::Receiver<Text>, Reason> {
        self.sweep(now);
        if !self.has_room_for(id) {
            return Err(Reason::RendezvousFull);
        }
        let readers = self.limits.readers;
        let queue = self.queues.entry(id.to_owned()).or_default();
        queue.readers.retain(|reader| !reader.is_closed());
        if queue.readers.len() >= readers {
            return Err(Reason::RendezvousFull);
        }
        let (reader, text) = oneshot::channel();
        queue.readers.push_back(reader);
        Ok(text)
    }

    /// A text that was handed out and not written: it is the next again.
    pub(super) fn put_back(&mut self, id: &str, text: Text) {
        if !text.is_withdrawn() {
            self.offer(id, text, true);
        }
    }

    /// The author waits no longer. Returns whether the text was still there.
    pub(super) fn withdraw(&mut self, id: &str, number: u64) -> bool {
        let Some(queue) = self.queues.get_mut(id) else { return false };
        let Some(index) = queue.texts.iter().position(|text| text.number == number) else { return false };
        if let Some(text) = queue.texts.remove(index) {
            queue.bytes -= text.body.len();
            self.bytes -= text.body.len();
        }
        self.forget_idle(id);
        true
    }

    /// A reader gave up.
    pub(super) fn forget_idle(&mut self, id: &str) {
        if self.queues.get(id).is_some_and(Queue::is_idle) {
            self.queues.remove(id);
        }
    }

    /// To whoever waits, or into the queue.
    fn offer(&mut self, id: &str, mut text: Text, first: bool) {
        let queue = self.queues.entry(id.to_owned()).or_default();
        while let Some(reader) = queue.readers.pop_front() {
            match reader.send(text) {
                Ok(()) => return self.forget_idle(id),
                Err(unread) => text = unread,
            }
        }
        queue.bytes += text.body.len();
        self.bytes += text.body.len();
        if first {
            queue.texts.push_front(text);
        } else {
            queue.texts.push_back(text);
        }
    }

    fn has_room_for(&self, id: &str) -> bool {
        self.queues.len() < self.limits.ids || self.queues.contains_key(id)
    }

    /// Texts of one id that lived long enough or were withdrawn.
    fn expire(&mut self, now: Instant, id: &str) {
        let life = self.limits.life;
        let Some(queue) = self.queues.get_mut(id) else { return };
        let before = queue.bytes;
        queue.texts.retain(|text| !text.is_withdrawn() && now.saturating_duration_since(text.put) < life);
        queue.bytes = queue.texts.iter().map(|text| text.body.len()).sum();
        self.bytes -= before - queue.bytes;
        self.forget_idle(id);
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        let ids: Vec<_> = self.queues.keys().cloned().collect();
        ids.iter().for_each(|id| self.expire(now, id));
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.queues.len(), self.bytes)
    }
}
