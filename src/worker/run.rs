//! The thread: socket, clock and commands around a [`Worker`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::{Outlet, Settings, Worker};
use crate::control::{Command, Update};
use crate::id::RoomKey;
use crate::net::{
    Poller, RECEIVE_MESSAGES, ReceiveBatch, SendBatch, SendFailure, UdpSocket, Waker, thread_times,
};
use crate::observe::reason::Reason;
use crate::observe::traffic::Traffic;
use crate::transport::certificate::Certificate;

/// Commands that may wait. More lets a stalled worker fall further behind before newcomers are refused, fewer refuses
/// them in a burst of joins that it could have worked off.
const COMMANDS: usize = 4096;

/// Receive calls per turn before commands and timers get their share. More keeps media latency lower under overload,
/// fewer keeps handshakes and reports going.
const RECEIVES_PER_TURN: usize = 16;

/// Commands per turn.
const COMMANDS_PER_TURN: usize = 64;

/// Time of each turn for all that can wait: commands, handshakes, timers, slots. More lets a storm of joins delay media,
/// less draws the storm out.
const WORK_PER_TURN: Duration = Duration::from_micros(500);

/// A turn that comes later than planned by this much was a pause of the process (suspend, SIGSTOP), not load.
const PAUSE: Duration = Duration::from_secs(1);

/// The loop turns at least this often, though nothing be due, and this often says how much processor time it used. Lower
/// costs wake-ups of an idle machine, higher notices a stuck worker later and blurs the metrics.
const BEAT: Duration = Duration::from_secs(1);

/// A loop that has not turned for so long is stuck. Above what a busy machine or a pause of the process does.
const STUCK: Duration = Duration::from_secs(5);

/// Where [`Update`]s go; called from the worker's thread, so it must not block.
pub type Updates = Box<dyn FnMut(RoomKey, Update) + Send>;

/// A running worker.
pub struct Handle {
    commands: SyncSender<Command>,
    waker: Waker,
    traffic: Arc<Traffic>,
    pulse: Arc<Pulse>,
    thread: JoinHandle<()>,
}

/// What the thread shows of itself beside its counters.
struct Pulse {
    started: Instant,
    /// When the last turn began, in milliseconds since `started`.
    turned: AtomicU64,
    /// Commands that wait.
    waiting: AtomicUsize,
}

impl Pulse {
    fn beat(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.started).as_millis();
        self.turned.store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn beats(&self, now: Instant) -> bool {
        let turned = self.started + Duration::from_millis(self.turned.load(Ordering::Relaxed));
        now.saturating_duration_since(turned) < STUCK
    }
}

impl Handle {
    /// Hands a command to the worker.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] where too many wait, [`Reason::ShuttingDown`] where the thread has ended.
    pub fn command(&self, command: Command) -> Result<(), Reason> {
        // Before it is sent: the worker may take it at once.
        self.pulse.waiting.fetch_add(1, Ordering::Relaxed);
        let refused = match self.commands.try_send(command) {
            Ok(()) => {
                self.waker.wake();
                return Ok(());
            }
            Err(std::sync::mpsc::TrySendError::Full(_)) => Reason::Overloaded,
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => Reason::ShuttingDown,
        };
        self.pulse.waiting.fetch_sub(1, Ordering::Relaxed);
        Err(refused)
    }

    /// Whether the thread lives and its loop has turned lately.
    #[must_use]
    pub fn is_turning(&self) -> bool {
        !self.thread.is_finished() && self.pulse.beats(Instant::now())
    }

    /// Commands that the worker has not taken yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pulse.waiting.load(Ordering::Relaxed)
    }

    /// What the worker received, sent and dropped.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    /// Ends the thread and waits for it.
    pub fn stop(self) {
        drop(self.commands);
        self.waker.wake();
        if self.thread.join().is_err() {
            tracing::error!("a worker ended by a panic");
        }
    }
}

/// Starts a worker on its socket.
///
/// # Errors
/// Where the kernel gives no thread or no epoll descriptor.
pub fn spawn(
    settings: Settings,
    socket: UdpSocket,
    certificate: Certificate,
    updates: Updates,
) -> io::Result<Handle> {
    let (poller, waker) = Poller::new(&socket)?;
    let (commands, waiting) = sync_channel(COMMANDS);
    let mut clock = Clock::default();
    let since_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let worker = Worker::new(settings, certificate, clock.now(), since_unix);
    let traffic = worker.traffic();
    let pulse =
        Arc::new(Pulse { started: Instant::now(), turned: AtomicU64::new(0), waiting: AtomicUsize::new(0) });
    let own = Own { measured: pulse.started, pulse: pulse.clone(), traffic: traffic.clone() };
    let thread = std::thread::Builder::new().name("motet-worker".into()).spawn(move || {
        Loop { worker, socket: Arc::new(socket), poller, waiting, updates, clock, own }.run()
    })?;
    Ok(Handle { commands, waker, traffic, pulse, thread })
}

struct Loop {
    worker: Worker,
    socket: Arc<UdpSocket>,
    poller: Poller,
    waiting: Receiver<Command>,
    updates: Updates,
    clock: Clock,
    own: Own,
}

/// How the loop fares, by its own account.
struct Own {
    pulse: Arc<Pulse>,
    traffic: Arc<Traffic>,
    /// When the processor time was last looked at.
    measured: Instant,
}

impl Own {
    /// A wait has ended, which began at `before` and was to take as long as `planned`. Returns when.
    fn begin(&self, before: Instant, planned: Option<Duration>) -> Instant {
        let now = Instant::now();
        self.pulse.beat(now);
        if let Some(late) = planned.and_then(|planned| now.duration_since(before).checked_sub(planned)) {
            self.traffic.lag.observe(late);
        }
        now
    }

    /// The turn is over.
    fn end(&mut self, began: Instant) {
        let now = Instant::now();
        self.traffic.turn.observe(now.duration_since(began));
        if now.duration_since(self.measured) >= BEAT {
            self.measured = now;
            if let Ok((user, system)) = thread_times() {
                self.traffic.used(user, system);
            }
        }
    }
}

/// What a loop uses again in each turn.
struct Buffers {
    received: ReceiveBatch,
    batch: SendBatch,
    /// The latest time that the worker was told: it never goes back.
    told: Instant,
}

impl Loop {
    fn run(mut self) {
        let told = self.clock.now();
        let mut buffers = Buffers { received: ReceiveBatch::new(), batch: SendBatch::new(), told };
        let socket = self.socket.clone();
        // More than a turn had time for; the waker speaks only once.
        let mut commands_wait = false;
        loop {
            let Some(began) = self.wait(commands_wait) else { return };
            let mut outlet = SocketOutlet { socket: &socket, worker_failures: Vec::new() };
            self.receive(&mut buffers, &mut outlet);
            let Some(more) = self.work(&mut buffers, &mut outlet) else { return };
            commands_wait = more;
            for (tag, drop_gso) in outlet.worker_failures {
                self.worker.handle_send_failure(tag, drop_gso);
            }
            while let Some((room, update)) = self.worker.poll_update() {
                (self.updates)(room, update);
            }
            self.own.end(began);
        }
    }

    /// Until something is to be done. Returns when that was; `None` where the socket cannot be waited for.
    fn wait(&mut self, commands_wait: bool) -> Option<Instant> {
        let now = self.clock.now();
        let due = self.worker.poll_timeout().map(|at| at.saturating_duration_since(now));
        let wait = due.map_or(BEAT, |due| due.min(BEAT));
        let planned = if commands_wait { Duration::ZERO } else { wait };
        let before = Instant::now();
        if let Err(error) = self.poller.wait(Some(planned)) {
            tracing::error!(%error, "waiting for the socket failed");
            return None;
        }
        self.clock.handle_wait(Instant::now(), planned);
        Some(self.own.begin(before, Some(planned)))
    }

    /// Media first: what came is received, forwarded and sent.
    fn receive(&mut self, buffers: &mut Buffers, outlet: &mut SocketOutlet<'_>) {
        let Buffers { received, batch, told } = buffers;
        for _ in 0..RECEIVES_PER_TURN {
            let count = match self.socket.receive(received) {
                Ok(0) => break,
                Err(error) => {
                    tracing::warn!(%error, "receiving failed");
                    break;
                }
                Ok(count) => count,
            };
            let (now, time_of_day) = (self.clock.now(), SystemTime::now());
            let mut oldest = None;
            for (arrived, pair, datagram) in received.arrivals() {
                let age = arrived.and_then(|at| time_of_day.duration_since(at).ok()).unwrap_or_default();
                // When it arrived, not when this thread got its turn: publishers measure their path by it.
                *told = now.checked_sub(age).unwrap_or(now).max(*told).min(now);
                oldest.get_or_insert(age);
                self.worker.handle_datagram(*told, pair, datagram, batch, outlet);
            }
            if let Some(age) = oldest {
                self.own.traffic.lag.observe(age);
            }
            *told = now;
            self.worker.handle_fresh(now, batch, outlet);
            outlet.flush(batch);
            for _ in 0..received.too_long() {
                self.worker.traffic.dropped.count(Reason::TooLong);
            }
            if count < RECEIVE_MESSAGES {
                break; // Nothing waits any more; what comes meanwhile begins the next turn.
            }
        }
    }

    /// Commands, and whatever else can wait, as far as the time for it goes. Returns whether commands are left; `None`
    /// when there will be no more of them.
    fn work(&mut self, buffers: &mut Buffers, outlet: &mut SocketOutlet<'_>) -> Option<bool> {
        let Buffers { batch, told, .. } = buffers;
        let now = self.clock.now();
        let work = Instant::now();
        let mut go_on = || work.elapsed() < WORK_PER_TURN;
        let mut commands_wait = true;
        for _ in 0..COMMANDS_PER_TURN {
            match self.waiting.try_recv() {
                Ok(command) => {
                    self.own.pulse.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.worker.handle_command(now, command);
                }
                Err(TryRecvError::Empty) => {
                    commands_wait = false;
                    break;
                }
                Err(TryRecvError::Disconnected) => return None,
            }
            if !go_on() {
                break;
            }
        }
        self.worker.handle_some(now, batch, outlet, &mut go_on);
        *told = now;
        outlet.flush(batch);
        Some(commands_wait)
    }
}

/// Sends through the socket and keeps what failed for the end of the turn.
struct SocketOutlet<'a> {
    socket: &'a UdpSocket,
    worker_failures: Vec<(u32, bool)>,
}

impl Outlet for SocketOutlet<'_> {
    fn flush(&mut self, batch: &mut SendBatch) {
        let failures = &mut self.worker_failures;
        self.socket.send(batch, &mut |tag, error, failure| {
            tracing::trace!(%error, "a datagram was not sent");
            // Bounded: one entry for each receiver at most matters.
            if failures.len() < 1024 {
                failures.push((tag, failure == SendFailure::DropGso));
            }
        });
    }
}

/// The worker's clock: the system's monotonic one, less the time for which the process was paused. A laptop's lid or a
/// stopped process then shifts all deadlines instead of expiring them.
#[derive(Debug)]
struct Clock {
    skipped: Duration,
    /// When it was last known that no pause had been missed.
    last: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { skipped: Duration::ZERO, last: Instant::now() }
    }
}

impl Clock {
    /// To be called often: whatever lies between two calls is taken for a pause where it is long.
    fn now(&mut self) -> Instant {
        let now = Instant::now();
        self.handle_wait(now, Duration::ZERO);
        now.checked_sub(self.skipped).unwrap_or(now)
    }

    /// It was not called for a while, because so long a wait was `planned`.
    fn handle_wait(&mut self, now: Instant, planned: Duration) {
        let since = now.saturating_duration_since(std::mem::replace(&mut self.last, now));
        let late = since.saturating_sub(planned);
        if late > PAUSE {
            self.skipped += late;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_left_out_wherever_it_falls_and_load_is_not() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut clock = Clock { skipped: Duration::ZERO, last: start };
        clock.handle_wait(start + ms(400), ms(400));
        clock.handle_wait(start + ms(1300), Duration::ZERO);
        assert_eq!(clock.skipped, Duration::ZERO, "a busy turn");
        clock.handle_wait(start + ms(7000), ms(700));
        assert_eq!(clock.skipped, ms(5000), "while it waited");
        clock.handle_wait(start + ms(12_000), Duration::ZERO);
        assert_eq!(clock.skipped, ms(10_000), "in the middle of a turn");
        clock.handle_wait(start + ms(12_100), ms(1000));
        assert_eq!(clock.skipped, ms(10_000), "woken early");
    }
}
