//! Finding rooms and sessions, and the task that drives each room.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::{Notify, mpsc, watch};

use crate::control::Update;
use crate::id::{Epoch, ParticipantId, RoomId, RoomKey, SessionId};
use crate::observe::metrics::Live;
use crate::observe::reason::Reason;

use super::carrier::Carrier;
use super::join::{Enter, Valid};
use super::limit::Networks;
use super::message::{Incoming, Objection, Resume};
use super::poll::Polls;
use super::room::{Room, refuse, session_unknown};
use super::{Door, lock, now};

/// Events that may wait for a room's task. More absorbs bursts of a big room, fewer bound memory; connections
/// wait when it is full.
const EVENTS: usize = 1024;
/// How often a `hello` is started over because its room ended or moved in between.
const TRIES: usize = 4;
/// The low bits of a [`RoomKey`] say which worker the room lives on.
const WORKER_BITS: u32 = 8;

/// Which worker the room lives on, for its life.
#[must_use]
pub fn worker_of(room: RoomKey) -> usize {
    (room.0 & ((1 << WORKER_BITS) - 1)) as usize
}

/// What a connection tells a room.
pub(super) enum Event {
    Enter(Box<Enter>),
    Resume { resume: Resume, carrier: Carrier },
    Message { carrier: u64, incoming: Incoming },
    Lost { carrier: u64, clean: bool },
    Stop { reason: Reason },
}

impl Event {
    /// Whose first message this is.
    fn newcomer(&self) -> Option<&Carrier> {
        match self {
            Self::Enter(enter) => Some(&enter.carrier),
            Self::Resume { carrier, .. } => Some(carrier),
            Self::Message { .. } | Self::Lost { .. } | Self::Stop { .. } => None,
        }
    }
}

/// Where a room's task is reached.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) key: RoomKey,
    events: mpsc::Sender<Event>,
    /// Nobody is in the room: it is only remembered.
    vacant: Arc<AtomicBool>,
}

impl Handle {
    pub(super) fn set_vacant(&self, vacant: bool) {
        self.vacant.store(vacant, Ordering::Relaxed);
    }

    /// Waits while the room has too much to do. Returns the event when the room is over.
    pub(super) async fn send(&self, event: Event) -> Result<(), Event> {
        self.events.send(event).await.map_err(|mpsc::error::SendError(event)| event)
    }
}

/// The room of every session that may be resumed.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<SessionId, Handle>>);

impl Sessions {
    pub(super) fn insert(&self, session: SessionId, room: Handle) {
        lock(&self.0).insert(session, room);
    }

    pub(super) fn remove(&self, session: SessionId) {
        lock(&self.0).remove(&session);
    }

    fn get(&self, session: SessionId) -> Option<Handle> {
        lock(&self.0).get(&session).cloned()
    }
}

/// About whom (`None`: the whole room), and which kind of news.
type Subject = (Option<ParticipantId>, u8);

/// What the worker last said about each participant of a room: only the newest of a kind matters, so a room
/// that is behind costs no more memory.
#[derive(Default)]
struct Mailbox {
    newest: Mutex<BTreeMap<Subject, (Epoch, Update)>>,
    wake: Notify,
}

impl Mailbox {
    fn put(&self, update: Update) {
        let (id, epoch) = subject(&update).map_or((None, Epoch(0)), |(id, epoch)| (Some(id), epoch));
        let order = match &update {
            Update::Connected { .. } => 0,
            Update::Have { .. } => 1,
            Update::Layers { .. } => 2,
            Update::Heard { .. } => 3,
            Update::Closed { .. } => 4,
            Update::Speakers { .. } => 5,
        };
        let mut newest = lock(&self.newest);
        let older = newest.get(&(id, order)).is_none_or(|(known, _)| *known <= epoch);
        if older {
            newest.insert((id, order), (epoch, update));
        }
        drop(newest);
        self.wake.notify_one();
    }

    /// One participant's updates come in the order connected, have, layers, heard, closed.
    fn take(&self) -> impl Iterator<Item = Update> {
        std::mem::take(&mut *lock(&self.newest)).into_values().map(|(_, update)| update)
    }
}

/// Whom an update is about; `None`: the whole room.
pub(super) fn subject(update: &Update) -> Option<(ParticipantId, Epoch)> {
    match update {
        Update::Connected { participant, epoch, .. }
        | Update::Have { participant, epoch, .. }
        | Update::Layers { participant, epoch, .. }
        | Update::Heard { participant, epoch, .. }
        | Update::Closed { participant, epoch, .. } => Some((*participant, *epoch)),
        Update::Speakers { .. } => None,
    }
}

/// All rooms of the process.
pub struct Rooms {
    pub(super) door: Arc<Door>,
    sessions: Arc<Sessions>,
    register: Mutex<Register>,
    mailboxes: RwLock<HashMap<RoomKey, Arc<Mailbox>>>,
    pub(super) networks: Arc<Networks>,
    pub(super) polls: Polls,
    /// How many connections are open.
    connections: watch::Sender<usize>,
}

/// A connection counts as long as this lives.
pub(super) struct Counted(Arc<Rooms>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count -= 1);
    }
}

#[derive(Default)]
struct Register {
    by_id: HashMap<RoomId, Handle>,
    /// Rooms on each worker.
    load: Vec<usize>,
    /// Of the keys that were given.
    last_key: u64,
    stopping: Option<Reason>,
}

impl Rooms {
    #[must_use]
    pub fn new(door: Door) -> Arc<Self> {
        let load = vec![0; door.workers.count().clamp(1, 1 << WORKER_BITS)];
        Arc::new(Self {
            networks: Networks::new(&door.settings),
            polls: Polls::default(),
            door: Arc::new(door),
            sessions: Arc::default(),
            register: Mutex::new(Register { load, ..Register::default() }),
            mailboxes: RwLock::default(),
            connections: watch::Sender::default(),
        })
    }

    /// News from a worker. Never waits for a room: at most for another thread to put or take a few values.
    pub fn deliver(&self, room: RoomKey, update: Update) {
        let mailboxes = self.mailboxes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(mailbox) = mailboxes.get(&room) {
            mailbox.put(update);
        }
    }

    /// Whether newcomers can be served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.is_stopping() && self.door.workers.are_well()
    }

    /// How much waits for the rooms, and how many of what nobody counts there are. Not for hot paths: it asks every room.
    #[must_use]
    pub fn live(&self) -> Live {
        let register = lock(&self.register);
        let waiting =
            register.by_id.values().map(|handle| handle.events.max_capacity() - handle.events.capacity());
        let events = waiting.fold((0, 0), |(sum, most), count| (sum + count, count.max(most)));
        let rooms = register.by_id.len();
        drop(register);
        let mailboxes = self.mailboxes.read().unwrap_or_else(PoisonError::into_inner);
        let updates = mailboxes.values().map(|mailbox| lock(&mailbox.newest).len()).sum();
        Live { rooms, connections: *self.connections.borrow(), events, updates, ..Live::default() }
    }

    /// How many rooms there are, the empty ones that are still remembered included.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.register).by_id.len()
    }

    /// How many sessions could be resumed.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        lock(&self.sessions.0).len()
    }

    #[must_use]
    pub fn is_stopping(&self) -> bool {
        lock(&self.register).stopping.is_some()
    }

    /// Tells everyone that the server stops, and lets nobody in any more.
    pub async fn stop(&self, reason: Reason) {
        let handles: Vec<_> = {
            let mut register = lock(&self.register);
            register.stopping = Some(reason);
            register.by_id.drain().map(|(_, handle)| handle).collect()
        };
        for handle in handles {
            // A room that is over has nobody to tell.
            let _ = handle.send(Event::Stop { reason }).await;
        }
    }

    /// Waits until no connection is left.
    pub async fn connections_gone(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.connections.subscribe().wait_for(|count| *count == 0).await;
    }

    pub(super) fn count_connection(self: &Arc<Self>) -> Counted {
        self.connections.send_modify(|count| *count += 1);
        Counted(self.clone())
    }

    /// Lets somebody in. The carrier is told in every case; returns the room unless the newcomer was refused
    /// before reaching it.
    pub(super) async fn enter(self: &Arc<Self>, valid: Valid, s: u64, carrier: Carrier) -> Option<Handle> {
        self.door.people.hellos.fetch_add(1, Ordering::Relaxed);
        match self.try_enter(valid, s, carrier.clone()).await {
            Ok(handle) => Some(handle),
            Err(objection) => {
                refuse(&self.door, &carrier, objection);
                None
            }
        }
    }

    async fn try_enter(
        self: &Arc<Self>,
        mut valid: Valid,
        mut s: u64,
        mut carrier: Carrier,
    ) -> Result<Handle, Objection> {
        for _ in 0..TRIES {
            let worker = self.place(&valid.room)?;
            let id = valid.room.clone();
            let enter = valid.negotiate(&self.door, worker, s, carrier)?;
            let handle = self.open(&id, worker)?;
            let unsent = if worker_of(handle.key) == worker {
                match handle.send(Event::Enter(Box::new(enter))).await {
                    Ok(()) => return Ok(handle),
                    Err(Event::Enter(enter)) => *enter,
                    Err(_) => break,
                }
            } else {
                enter
            };
            (valid, s, carrier) = unsent.undo();
        }
        Err(Objection::new(Reason::Overloaded, "The room ends and begins too quickly.").retry(1000))
    }

    /// Continues a session on a new carrier; as [`Self::enter`].
    pub(super) async fn resume(&self, resume: Resume, carrier: Carrier) -> Option<Handle> {
        if let Some(handle) = self.sessions.get(resume.session) {
            let event = Event::Resume { resume, carrier: carrier.clone() };
            if handle.send(event).await.is_ok() {
                return Some(handle);
            }
        }
        refuse(&self.door, &carrier, session_unknown());
        None
    }

    /// On which worker the room lives, or would.
    fn place(&self, id: &RoomId) -> Result<usize, Objection> {
        let mut register = lock(&self.register);
        register.admits()?;
        if let Some(handle) = register.by_id.get(id) {
            return Ok(worker_of(handle.key));
        }
        register.make_space(&self.door)?;
        let loads = register.load.iter().enumerate();
        Ok(loads.min_by_key(|(_, rooms)| **rooms).map_or(0, |(worker, _)| worker))
    }

    /// The room; a new one on `worker` where there is none.
    fn open(self: &Arc<Self>, id: &RoomId, worker: usize) -> Result<Handle, Objection> {
        let mut register = lock(&self.register);
        register.admits()?;
        if let Some(handle) = register.by_id.get(id).filter(|handle| !handle.events.is_closed()) {
            return Ok(handle.clone());
        }
        register.make_space(&self.door)?;
        register.last_key += 1;
        let key = RoomKey(register.last_key << WORKER_BITS | worker as u64);
        let (sender, events) = mpsc::channel(EVENTS);
        let handle = Handle { key, events: sender, vacant: Arc::new(AtomicBool::new(true)) };
        register.by_id.insert(id.clone(), handle.clone());
        register.load[worker] += 1;
        drop(register);
        let mailbox = Arc::new(Mailbox::default());
        self.mailboxes.write().unwrap_or_else(PoisonError::into_inner).insert(key, mailbox.clone());
        let room = Room::new(self.door.clone(), self.sessions.clone(), handle.clone(), now());
        let place = Place { rooms: self.clone(), id: id.clone(), key };
        tokio::spawn(drive(room, events, mailbox, place));
        Ok(handle)
    }
}

impl Register {
    fn admits(&self) -> Result<(), Objection> {
        match self.stopping {
            Some(reason) => Err(Objection::new(reason, "The server stops.").retry(5000)),
            None => Ok(()),
        }
    }

    /// Rooms that are only remembered make way for new ones, so that nobody can use up the rooms by visiting many.
    fn make_space(&mut self, door: &Door) -> Result<(), Objection> {
        if self.by_id.len() < door.settings.rooms {
            return Ok(());
        }
        let vacant = self.by_id.iter().find(|(_, handle)| handle.vacant.load(Ordering::Relaxed));
        let Some((id, handle)) = vacant.map(|(id, handle)| (id.clone(), handle.clone())) else {
            let hint = format!("This server holds {} rooms.", door.settings.rooms);
            return Err(Objection::new(Reason::TooManyRooms, hint).retry(30_000));
        };
        self.by_id.remove(&id);
        // Should somebody be entering at this moment, it ends for them like a server that stops.
        let _ = handle.events.try_send(Event::Stop { reason: Reason::TooManyRooms });
        Ok(())
    }
}

/// A room's entry among the rooms, given back however its task ends.
struct Place {
    rooms: Arc<Rooms>,
    id: RoomId,
    key: RoomKey,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut register = lock(&self.rooms.register);
        if register.by_id.get(&self.id).is_some_and(|handle| handle.key == self.key) {
            register.by_id.remove(&self.id);
        }
        let worker = worker_of(self.key);
        register.load[worker] = register.load[worker].saturating_sub(1);
        drop(register);
        self.rooms.mailboxes.write().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The task of one room. A panic while one participant is served removes that participant alone.
async fn drive(mut room: Room, mut events: mpsc::Receiver<Event>, mailbox: Arc<Mailbox>, place: Place) {
    let mut stopped = None;
    while stopped.is_none() {
        let deadline = room.poll_timeout();
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                if let Event::Stop { reason } = &event {
                    stopped = Some(*reason);
                }
                serve(&mut room, event);
            }
            () = mailbox.wake.notified() => {
                for update in mailbox.take() {
                    let culprit = subject(&update).map(|(id, _)| id);
                    guard(&mut room, culprit, |room, now| room.handle_update(now, update));
                }
            }
            () = sleep_until(deadline) => {
                for id in room.due(now()) {
                    guard(&mut room, Some(id), |room, now| room.handle_timeout(now, id));
                }
                guard(&mut room, None, Room::handle_room_timeout);
                if room.is_over(now()) && events.is_empty() {
                    break;
                }
            }
        }
    }
    // From here on a room of this name is another one.
    drop(place);
    events.close();
    let reason = stopped.unwrap_or(Reason::Overloaded);
    while let Some(event) = events.recv().await {
        if let Some(carrier) = event.newcomer() {
            refuse(&room.door, carrier, Objection::new(reason, "The room has just ended.").retry(1000));
        }
    }
}

fn serve(room: &mut Room, event: Event) {
    let culprit = room.culprit(&event);
    let newcomer = event.newcomer().cloned();
    if guard(room, culprit, |room, now| room.handle_event(now, event)) {
        return;
    }
    // Whoever was on the way in is either in already or must be told.
    let Some(carrier) = newcomer else { return };
    if let Some(&id) = room.carriers.get(&carrier.id()) {
        guard(room, None, |room, now| room.remove(now, id, Reason::Panicked));
    } else {
        refuse(&room.door, &carrier, Objection::new(Reason::Panicked, "Letting you in failed."));
    }
}

/// Returns whether `act` went well. Otherwise the culprit is removed.
fn guard(room: &mut Room, culprit: Option<ParticipantId>, act: impl FnOnce(&mut Room, Instant)) -> bool {
    if catch_unwind(AssertUnwindSafe(|| act(room, now()))).is_ok() {
        return true;
    }
    tracing::error!(room = room.key.0, participant = ?culprit, "panicked");
    room.door.refused.count(Reason::Panicked);
    if let Some(id) = culprit {
        let removed = catch_unwind(AssertUnwindSafe(|| room.remove(now(), id, Reason::Panicked)));
        if removed.is_err() {
            tracing::error!(room = room.key.0, participant = ?culprit, "removing panicked");
        }
    }
    false
}

pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
