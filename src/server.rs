//! Builds the parts and runs them.

mod admin;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{Advertise, Config};
use crate::control::Command;
use crate::id::RoomKey;
use crate::net::{self, UdpSocket};
use crate::observe::metrics::{Live, Metrics, Sources};
use crate::observe::people::People;
use crate::observe::reason::{Counters, Reason};
use crate::signal::negotiate::Environment;
use crate::signal::rooms::{Rooms, worker_of};
use crate::signal::serve::serve;
use crate::signal::{self, Door, Workers, http};
use crate::transport::certificate::Certificate;
use crate::worker::run::{self as worker, Handle};

/// Addresses in an answer at most. More reach clients in stranger networks, fewer cost each of them less time
/// for checks: browsers try 100 pairs at most.
const CANDIDATES: usize = 16;
/// How long requests may go on when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// A running server. Dropping it stops nothing; [`Server::shutdown`] does.
pub struct Server {
    /// Where the page and the signaling are.
    pub http_addr: SocketAddr,
    /// Where the metrics are.
    pub admin_addr: Option<SocketAddr>,
    /// One for each worker, as bound.
    pub udp_addrs: Vec<SocketAddr>,
    /// What signaling refused, by reason.
    pub refused: Arc<Counters>,
    rooms: Arc<Rooms>,
    media: Arc<Media>,
    stopping: Arc<Notify>,
    http: JoinHandle<()>,
    admin: Option<JoinHandle<()>>,
}

/// Starts everything.
///
/// # Errors
/// A port is taken or an address is not ours; the message names the flag.
pub async fn start(config: &Config) -> anyhow::Result<Server> {
    let listener = TcpListener::bind(config.http)
        .await
        .with_context(|| format!("cannot listen on {} (--http)", config.http))?;
    let http_addr = listener.local_addr()?;
    let admin = admin::bind(config.admin).await?;
    if let Err(error) = net::raise_nofile() {
        tracing::warn!(%error, "cannot raise the number of open files");
    }
    let sockets = bind(config)?;
    let udp_addrs: Vec<_> = sockets.iter().map(UdpSocket::local_addr).collect();
    let certificate = Certificate::generate().context("cannot make a certificate")?;
    let environments = environments(config, http_addr.ip(), &udp_addrs, &certificate);

    let (media, updates) = Media::spawn(config, sockets, &certificate)?;
    let media = Arc::new(media);
    let refused = Arc::new(Counters::default());
    let people = Arc::new(People::default());
    let rooms = Rooms::new(Door {
        settings: config.signal(),
        workers: media.clone(),
        new_transport: signal::negotiators(environments),
        refused: refused.clone(),
        people: people.clone(),
    });
    // Nothing can have been reported yet: there is no room.
    let _ = updates.set(Arc::downgrade(&rooms));

    let stopping = Arc::new(Notify::new());
    let stop = stopping.clone();
    let router = http::router(rooms.clone());
    let http = tokio::spawn(serve(listener, router, rooms.clone(), async move { stop.notified().await }));
    let admin_addr = admin.as_ref().map(|(_, address)| *address);
    let metrics = metrics(&rooms, &media, &refused, people);
    let admin = admin.map(|(listener, _)| tokio::spawn(admin::serve(listener, rooms.clone(), metrics)));
    tracing::info!(http = %http_addr, workers = udp_addrs.len(), "started");
    Ok(Server { http_addr, admin_addr, udp_addrs, refused, rooms, media, stopping, http, admin })
}

fn metrics(rooms: &Arc<Rooms>, media: &Arc<Media>, refused: &Arc<Counters>, people: Arc<People>) -> Metrics {
    let workers = media.with(|handles| handles.iter().map(Handle::traffic).collect());
    let (rooms, media) = (rooms.clone(), media.clone());
    let live = move || {
        let commands = media.with(|handles| handles.iter().map(Handle::waiting).collect());
        Live { commands, ..rooms.live() }
    };
    Metrics::new(Sources { workers, people, refused: refused.clone(), live: Box::new(live) })
}

impl Server {
    /// The address to open in a browser on this machine.
    #[must_use]
    pub fn url(&self) -> String {
        let ip = self.http_addr.ip();
        if ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            format!("http://localhost:{}/", self.http_addr.port())
        } else {
            format!("http://{}/", self.http_addr)
        }
    }

    /// Says goodbye to everyone, then ends all tasks and threads that were started.
    pub async fn shutdown(self) {
        self.rooms.stop(Reason::ShuttingDown).await;
        self.stopping.notify_one();
        let connections = async {
            self.rooms.connections_gone().await;
            let _ = self.http.await;
        };
        if timeout(STOP_WITHIN, connections).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        let media = self.media;
        if tokio::task::spawn_blocking(move || media.stop()).await.is_err() {
            tracing::error!("stopping the workers panicked");
        }
        if let Some(admin) = self.admin {
            // Last: what happens while the server stops is worth seeing.
            admin.abort();
        }
        tracing::info!("stopped");
    }
}

fn bind(config: &Config) -> anyhow::Result<Vec<UdpSocket>> {
    let socket = |index: usize| {
        let offset = u16::try_from(index).context("too many workers")?;
        let port = match config.udp {
            0 => 0,
            base => base.checked_add(offset).context("the UDP ports of all workers must be below 65536")?,
        };
        let address = SocketAddr::new(IpAddr::from([0u16; 8]), port);
        UdpSocket::bind(address, config.socket_buffer)
            .with_context(|| format!("cannot use UDP port {port} (--udp)"))
    };
    (0..config.worker_count()).map(socket).collect()
}

fn environments(
    config: &Config,
    http: IpAddr,
    udp: &[SocketAddr],
    certificate: &Certificate,
) -> Vec<Environment> {
    let interfaces = interface_addresses();
    let environment = |(index, bound): (usize, &SocketAddr)| {
        let candidates = if config.advertise.is_empty() {
            own_candidates(&interfaces, http, *bound)
        } else {
            advertised_candidates(&config.advertise, *bound, index)
        };
        if candidates.is_empty() {
            tracing::warn!(worker = index, "no address to offer: clients cannot connect");
        }
        tracing::info!(worker = index, port = bound.port(), candidates = candidates.len(), "media port");
        Environment {
            candidates,
            fingerprint: certificate.fingerprint_sdp(),
            // There are at most 64 workers.
            worker: u8::try_from(index).unwrap_or(u8::MAX),
            limits: config.sdp(),
        }
    };
    udp.iter().enumerate().map(environment).collect()
}

fn interface_addresses() -> Vec<IpAddr> {
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces.iter().filter(|i| i.is_oper_up()).map(if_addrs::Interface::ip).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list the network interfaces");
            Vec::new()
        }
    }
}

/// Best first: IPv4 of the network, IPv6, loopback. Firefox pairs nothing with a loopback address, so that alone
/// serves only Chromium on this machine; it is left out where the page is served to others.
fn own_candidates(interfaces: &[IpAddr], http: IpAddr, bound: SocketAddr) -> Vec<SocketAddr> {
    let local = http.is_loopback() || http.is_unspecified();
    let rank = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) if v4.is_loopback() => local.then_some(2),
        IpAddr::V4(v4) => (!v4.is_unspecified()).then_some(0),
        // Link-local addresses mean nothing without their interface, which a candidate cannot name.
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unicast_link_local() => None,
        IpAddr::V6(_) => bound.is_ipv6().then_some(1),
    };
    let mut ranked: Vec<_> = interfaces.iter().filter_map(|ip| Some((rank(ip)?, *ip))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.dedup();
    ranked.into_iter().take(CANDIDATES).map(|(_, ip)| SocketAddr::new(ip, bound.port())).collect()
}

fn advertised_candidates(advertise: &[Advertise], bound: SocketAddr, worker: usize) -> Vec<SocketAddr> {
    let port = |address: &Advertise| match address.port {
        Some(first) => first.checked_add(u16::try_from(worker).ok()?),
        None => Some(bound.port()),
    };
    let candidate = |address: &Advertise| Some(SocketAddr::new(address.ip, port(address)?));
    advertise.iter().filter_map(candidate).take(CANDIDATES).collect()
}

/// The media threads.
struct Media {
    count: usize,
    /// Empty once stopped.
    handles: RwLock<Vec<Handle>>,
}

/// Where workers find the rooms, which are built after them.
type RoomsCell = Arc<OnceLock<Weak<Rooms>>>;

impl Media {
    fn spawn(
        config: &Config,
        sockets: Vec<UdpSocket>,
        certificate: &Certificate,
    ) -> anyhow::Result<(Self, RoomsCell)> {
        let rooms = RoomsCell::default();
        let mut handles = Vec::new();
        for socket in sockets {
            let rooms = rooms.clone();
            let updates = Box::new(move |key: RoomKey, update| {
                if let Some(rooms) = rooms.get().and_then(Weak::upgrade) {
                    rooms.deliver(key, update);
                }
            });
            let handle = worker::spawn(config.worker(), socket, certificate.clone(), updates)
                .context("cannot start a media worker")?;
            handles.push(handle);
        }
        Ok((Self { count: handles.len(), handles: RwLock::new(handles) }, rooms))
    }

    fn with<T>(&self, ask: impl FnOnce(&[Handle]) -> T) -> T {
        ask(&self.handles.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn stop(&self) {
        let handles = std::mem::take(&mut *self.handles.write().unwrap_or_else(PoisonError::into_inner));
        handles.into_iter().for_each(Handle::stop);
    }
}

impl Workers for Media {
    fn count(&self) -> usize {
        self.count
    }

    fn command(&self, room: RoomKey, command: Command) -> Result<(), Reason> {
        self.with(|handles| handles.get(worker_of(room)).ok_or(Reason::ShuttingDown)?.command(command))
    }

    fn are_well(&self) -> bool {
        self.with(|handles| handles.len() == self.count && handles.iter().all(Handle::is_turning))
    }
}

#[cfg(test)]
mod scrape;

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::net::TcpStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

    use super::*;

    type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().expect("an address")).collect()
    }

    fn candidates(interfaces: &[&str], http: &str, bound: &str) -> Vec<String> {
        let http = http.parse().expect("an address");
        let bound = bound.parse().expect("an address");
        let candidates = own_candidates(&addresses(interfaces), http, bound);
        candidates.iter().map(ToString::to_string).collect()
    }

    const MACHINE: [&str; 6] = ["127.0.0.1", "::1", "fe80::1", "2001:db8::7", "192.0.2.7", "10.0.0.7"];

    #[test]
    fn candidates_come_in_the_order_in_which_they_are_likely_to_work() {
        assert_eq!(
            candidates(&MACHINE, "127.0.0.1", "[::]:7"),
            ["192.0.2.7:7", "10.0.0.7:7", "[2001:db8::7]:7", "127.0.0.1:7"]
        );
    }

    #[test]
    fn loopback_is_left_out_where_the_page_is_for_others() {
        assert_eq!(candidates(&MACHINE, "192.0.2.7", "0.0.0.0:7"), ["192.0.2.7:7", "10.0.0.7:7"]);
        assert_eq!(candidates(&["127.0.0.1"], "0.0.0.0", "[::]:7"), ["127.0.0.1:7"]);
    }

    #[test]
    fn advertised_ports_count_up_with_the_workers() {
        let advertise = ["192.0.2.1:100".parse(), "192.0.2.2".parse()].map(|a| a.expect("valid"));
        let bound = "[::]:9001".parse().expect("valid");
        let told = advertised_candidates(&advertise, bound, 1);
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["192.0.2.1:101", "192.0.2.2:9001"]);
    }

    async fn local() -> Server {
        let flags = ["motet", "--http=127.0.0.1:0", "--udp=0", "--workers=2"];
        let config = Config::load(flags.map(Into::into)).expect("valid flags");
        start(&config).await.expect("started")
    }

    #[tokio::test]
    async fn browsers_offers_are_answered_with_the_worker_that_was_started() {
        let server = local().await;
        let url = format!("ws://{}/v1/ws", server.http_addr);
        let join = include_str!("../tests/data/offers/chromium-join.sdp");
        let restart = include_str!("../tests/data/offers/chromium-restart.sdp");
        let firefox = include_str!("../tests/data/offers/firefox-join.sdp");
        let publish = [serde_json::json!({"mid": "0", "kind": "audio", "source": "microphone"})];
        let ports: Vec<_> = server.udp_addrs.iter().map(SocketAddr::port).collect();
        let mut sockets = Vec::new();
        for offer in [join, firefox] {
            let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.expect("connected");
            let hello = serde_json::json!({"t": "hello", "s": 1, "a": 0, "room": "garden", "name": "Ada",
                "offer": offer, "publish": publish});
            socket.send(Message::text(hello.to_string())).await.expect("sent");
            let welcome = hear(&mut socket, "welcome").await;
            let answer = welcome["answer"].as_str().expect("an answer");
            assert!(answer.contains("a=candidate:"), "{answer}");
            assert!(ports.iter().any(|port| answer.contains(&format!(" {port} typ host"))), "{answer}");
            assert_eq!(welcome["publications"].as_array().map(Vec::len), Some(sockets.len() + 1));
            sockets.push(socket);
        }
        let offer = serde_json::json!({"t": "offer", "s": 2, "a": 1, "transport": 0, "sdp": restart});
        sockets[0].send(Message::text(offer.to_string())).await.expect("sent");
        hear(&mut sockets[0], "answer").await;
        let told = server.shutdown();
        let [ada, ben] = &mut sockets[..] else { panic!("two joined") };
        let (goaway, _, ()) = tokio::join!(gone(ada), gone(ben), told);
        assert_eq!(goaway["reason"], "shutting_down");
    }

    /// The last words to somebody.
    async fn gone(socket: &mut Socket) -> serde_json::Value {
        let goaway = hear(socket, "goaway").await;
        while let Some(Ok(_)) = socket.next().await {}
        goaway
    }

    async fn hear(socket: &mut Socket, t: &str) -> serde_json::Value {
        loop {
            let message = socket.next().await.expect("open").expect("a frame");
            if let Message::Text(text) = message {
                let message: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
                assert!(message["t"] != "error" && message["t"] != "refuse", "{message}");
                if message["t"] == t {
                    return message;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named_in_one_line() {
        let server = local().await;
        let http = format!("--http={}", server.http_addr);
        let config = Config::load(["motet".into(), http.into()]).expect("valid flags");
        let error = format!("{:#}", start(&config).await.err().expect("taken"));
        assert!(error.starts_with("cannot listen on 127.0.0.1:") && !error.contains('\n'), "{error}");
        let udp = server.udp_addrs[0].port();
        let flags = ["motet".into(), "--http=127.0.0.1:0".into(), format!("--udp={udp}").into()];
        let config = Config::load(flags).expect("valid flags");
        let error = format!("{:#}", start(&config).await.err().expect("taken"));
        assert!(error.starts_with(&format!("cannot use UDP port {udp} (--udp)")), "{error}");
        server.shutdown().await;
    }
}
