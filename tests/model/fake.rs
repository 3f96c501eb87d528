//! Stand-ins for what lies behind signaling: offers that are a few words, and a worker that keeps book of its commands.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use motet::control::{Command, Update};
use motet::id::{Epoch, Mid, ParticipantId, PublicationId, RoomKey, TransportNumber};
use motet::observe::reason::Reason;
use motet::room::{Have, Kind, Media, SendingSection};
use motet::rtp::extension::ExtensionIds;
use motet::signal::negotiate::{Answered, Refusal};
use motet::signal::{Negotiate, Workers};
use motet::transport::{Credentials, DtlsRole, Remote};

/// What each section may publish: kind and source by mid.
pub const SECTIONS: [(&str, &str); 4] =
    [("audio", "microphone"), ("video", "camera"), ("video", "screen"), ("audio", "screen-audio")];

/// The worker says that somebody is silent after so long without a packet.
const SILENT: Duration = Duration::from_secs(8);

/// An offer is the client's user name.
pub struct Words {
    local: Credentials,
    ufrag: Option<String>,
}

impl Words {
    pub fn new() -> Self {
        Self { local: Credentials { ufrag: "server".into(), pwd: "secret".into() }, ufrag: None }
    }
}

impl Negotiate for Words {
    fn local(&self) -> &Credentials {
        &self.local
    }

    fn answer(&mut self, offer: &str) -> Result<Answered, Refusal> {
        let sending = SECTIONS.iter().enumerate().map(|(mid, (kind, _))| SendingSection {
            mid: Mid::new(mid.to_string().as_bytes()).expect("a mid"),
            kind: if *kind == "audio" { Kind::Audio } else { Kind::Video },
            payload_type: 96,
            rtx_payload_type: None,
            extensions: ExtensionIds::default(),
            rids: Vec::new(),
            ssrcs: Vec::new(),
            nack: true,
        });
        let media = Media { sending: sending.collect(), ..Media::default() };
        let restart = self.ufrag.replace(offer.to_owned()).is_some_and(|before| before != offer);
        let credentials = Credentials { ufrag: offer.to_owned(), pwd: String::new() };
        let remote = Remote { credentials, fingerprint: [0; 32], role: DtlsRole::Server };
        Ok(Answered { sdp: "answer".into(), media, remote, restart })
    }
}

/// Somebody as the worker knows him.
#[derive(Clone, Debug)]
pub struct Member {
    pub room: RoomKey,
    pub epoch: Epoch,
    pub transport: TransportNumber,
    pub want: u32,
    pub version: u64,
    /// Muted or not.
    pub publications: BTreeMap<PublicationId, bool>,
    pub away: bool,
    /// Packets come since, or came until.
    pub flows: bool,
    pub last: Instant,
    silent: bool,
}

#[derive(Default)]
struct Book {
    members: BTreeMap<ParticipantId, Member>,
    updates: Vec<(RoomKey, Update)>,
    /// What no worker should be told.
    wrong: Vec<String>,
    /// Where a real worker does the work: what it is to be told.
    commands: Option<Vec<Command>>,
}

/// See the module.
#[derive(Default)]
pub struct Worker(Mutex<Book>);

impl Workers for Worker {
    fn count(&self) -> usize {
        2
    }

    fn command(&self, room: RoomKey, command: Command) -> Result<(), Reason> {
        let mut book = self.book();
        book.take(room, &command);
        if let Some(commands) = &mut book.commands {
            commands.push(command);
            // The real one reports.
            book.updates.clear();
        }
        Ok(())
    }
}

impl Worker {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One that only keeps book for a real one.
    pub fn beside_a_real_one() -> Self {
        Self(Mutex::new(Book { commands: Some(Vec::new()), ..Book::default() }))
    }

    /// What the real one is to be told.
    pub fn commands(&self) -> Vec<Command> {
        self.book().commands.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What it has to say by now.
    pub fn updates(&self, now: Instant) -> Vec<(RoomKey, Update)> {
        let mut book = self.book();
        if book.commands.is_some() {
            return Vec::new();
        }
        let Book { members, updates, .. } = &mut *book;
        for (&participant, member) in members {
            let silent = !member.flows && now - member.last >= SILENT;
            if silent != member.silent {
                member.silent = silent;
                let since_ms = if silent { (now - member.last).as_millis() as u64 } else { 0 };
                let update = Update::Heard { participant, epoch: member.epoch, silent, since_ms };
                updates.push((member.room, update));
            }
        }
        std::mem::take(&mut book.updates)
    }

    pub fn wrong(&self) -> Vec<String> {
        self.book().wrong.clone()
    }

    pub fn members(&self) -> BTreeMap<ParticipantId, Member> {
        self.book().members.clone()
    }

    /// Somebody's packets come or stay away from now on.
    pub fn set_flows(&self, now: Instant, participant: ParticipantId, flows: bool) {
        if let Some(member) = self.book().members.get_mut(&participant) {
            (member.flows, member.last) = (flows, now);
        }
    }

    /// The worker forgets somebody and says so. Returns whether it knew him.
    pub fn fail(&self, participant: ParticipantId) -> bool {
        let mut book = self.book();
        let Some(member) = book.members.remove(&participant) else { return false };
        let Member { epoch, transport, .. } = member;
        let update = Update::Closed { participant, epoch, transport, reason: Reason::DtlsFailed };
        book.updates.push((member.room, update));
        true
    }

    /// Reports about somebody's epoch or transport before the present one, as if they had been under way for long.
    pub fn say_old_news(&self, participant: ParticipantId) {
        let mut book = self.book();
        let Some(member) = book.members.get(&participant).cloned() else { return };
        let (epoch, transport) = (Epoch(member.epoch.0.wrapping_sub(1)), member.transport);
        let have = Have { n: 777, ..Have::default() };
        book.updates.extend([
            (member.room, Update::Have { participant, epoch, version: 1000, have }),
            (member.room, Update::Heard { participant, epoch, silent: true, since_ms: 60_000 }),
            (member.room, Update::Closed { participant, epoch, transport, reason: Reason::DtlsFailed }),
        ]);
        if let Some(former) = transport.0.checked_sub(1) {
            let (epoch, transport) = (member.epoch, TransportNumber(former));
            let closed = Update::Closed { participant, epoch, transport, reason: Reason::DtlsClosed };
            book.updates.push((member.room, closed));
        }
    }
}

impl Book {
    fn take(&mut self, room: RoomKey, command: &Command) {
        let participant = command.participant();
        let known = self.members.get_mut(&participant);
        match command {
            Command::Join(join) => {
                let later = |known: &Member| (known.epoch, known.transport) >= (join.epoch, join.transport);
                if known.is_some_and(|known| later(known) || known.room != room) || join.room != room {
                    self.wrong.push(format!("{participant} joins again: {join:?}"));
                }
                let member = Member {
                    room,
                    epoch: join.epoch,
                    transport: join.transport,
                    want: join.want.n,
                    version: 1,
                    publications: join.publish.iter().map(|p| (p.publication, p.muted)).collect(),
                    away: false,
                    flows: true,
                    last: tokio::time::Instant::now().into_std(),
                    silent: false,
                };
                let (epoch, transport) = (join.epoch, join.transport);
                self.updates.push((room, Update::Connected { participant, epoch, transport }));
                self.updates.push((room, have(participant, &member)));
                self.members.insert(participant, member);
            }
            Command::Leave { epoch, .. } => {
                if known.is_some_and(|known| known.epoch == *epoch) {
                    self.members.remove(&participant);
                }
            }
            command => {
                // Somebody whom the worker gave up may not be known to the room as such yet.
                let Some(member) = known else { return };
                if member.room != room {
                    self.wrong.push(format!("another room's: {command:?}"));
                }
                member.take(command, &mut self.updates, &mut self.wrong);
            }
        }
    }
}

impl Member {
    fn take(&mut self, command: &Command, updates: &mut Vec<(RoomKey, Update)>, wrong: &mut Vec<String>) {
        let epoch = self.epoch;
        match command {
            Command::Publish { epoch: of, publish, .. } if *of == epoch => {
                if self.publications.insert(publish.publication, publish.muted).is_some() {
                    wrong.push(format!("published twice: {command:?}"));
                }
            }
            Command::Unpublish { epoch: of, publication, .. } if *of == epoch => {
                if self.publications.remove(publication).is_none() {
                    wrong.push(format!("not published: {command:?}"));
                }
            }
            Command::Mute { epoch: of, publication, muted, .. } if *of == epoch => {
                if self.publications.insert(*publication, *muted) != Some(!muted) {
                    wrong.push(format!("no change: {command:?}"));
                }
            }
            Command::Want { epoch: of, participant, want } if *of == epoch => {
                self.want = want.n;
                self.version += 1;
                updates.push((self.room, have(*participant, self)));
            }
            Command::Away { epoch: of, away, .. } if *of == epoch => self.away = *away,
            Command::Restart { epoch: of, .. } | Command::Seen { epoch: of, .. } if *of == epoch => {}
            other => wrong.push(format!("of epoch {epoch:?}: {other:?}")),
        }
    }
}

fn have(participant: ParticipantId, member: &Member) -> Update {
    let have = Have { n: member.want, transport: member.transport, slots: Vec::new() };
    Update::Have { participant, epoch: member.epoch, version: member.version, have }
}
