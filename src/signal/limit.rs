//! How much one client or one address may ask for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::{Settings, lock, now};

/// A message counts once for each begun piece of this size: parsing costs by the byte.
const COST_BYTES: usize = 16 << 10;
/// Addresses whose joins are counted one by one. More needs memory (about 100 bytes each), fewer lets strangers from
/// many networks push each other into the common account sooner.
const ADDRESSES: usize = 16_384;

/// The clock of this directory, which tests may stop.
#[derive(Clone, Copy, Debug, Default)]
struct OurClock;

impl Clock for OurClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        now()
    }
}

/// An account that fills up again as time passes.
pub(super) struct Rate {
    limiter: RateLimiter<NotKeyed, InMemoryState, OurClock, NoOpMiddleware<Instant>>,
    burst: NonZeroU32,
}

impl Rate {
    /// `burst` at once, and as many again within `window`.
    pub(super) fn new(burst: u32, window: Duration) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        Self { limiter: RateLimiter::direct_with_clock(quota(burst, window), OurClock), burst }
    }

    /// For the messages of one carrier.
    pub(super) fn of_messages(settings: &Settings) -> Self {
        let rate = settings.messages_per_second.max(1);
        Self::new(settings.burst, Duration::from_secs_f64(f64::from(settings.burst) / f64::from(rate)))
    }

    /// Takes `cost` from the account, or says how long it must wait.
    pub(super) fn pay(&self, cost: u32) -> Result<(), Duration> {
        // More than the burst would never fit.
        let cost = NonZeroU32::new(cost.min(self.burst.get())).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_n(cost) {
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(until)) => Err(until.wait_time_from(now())),
        }
    }

    /// Pays for a message of so many bytes.
    pub(super) fn pay_message(&self, bytes: usize) -> Result<(), Duration> {
        self.pay(u32::try_from(bytes / COST_BYTES + 1).unwrap_or(u32::MAX))
    }
}

impl std::fmt::Debug for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rate({})", self.burst)
    }
}

fn quota(burst: NonZeroU32, window: Duration) -> Quota {
    let each = (window / burst.get()).max(Duration::from_nanos(1));
    // A period that is not zero makes a quota.
    Quota::with_period(each).expect("a period above zero").allow_burst(burst)
}

/// Whom a limit by address concerns: an IPv4 address, or the network of an IPv6 address, of which everybody has more
/// addresses than could be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
    /// All that are too many to be told apart.
    Others,
}

impl Network {
    /// `None`: this machine itself, which is not limited: it may be a proxy that does not say for whom it asks.
    pub(super) fn of(ip: IpAddr) -> Option<Self> {
        match ip.to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => Some(Self::V4(ip.octets())),
            IpAddr::V6(ip) => Some(Self::V6(prefix(ip))),
        }
    }
}

fn prefix(ip: Ipv6Addr) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&ip.octets()[..8]);
    prefix
}

/// What is counted by address.
pub(super) struct Networks {
    joins: RateLimiter<Network, HashMapStateStore<Network>, OurClock, NoOpMiddleware<Instant>>,
    connections: Mutex<HashMap<Network, usize>>,
    most: usize,
}

impl Networks {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        let burst = NonZeroU32::new(settings.joins_burst).unwrap_or(NonZeroU32::MIN);
        let rate = f64::from(settings.joins_per_minute.max(1));
        let window = Duration::from_secs_f64(f64::from(burst.get()) * 60.0 / rate);
        Arc::new(Self {
            joins: RateLimiter::hashmap_with_clock(quota(burst, window), OurClock),
            connections: Mutex::default(),
            most: settings.connections_per_address,
        })
    }

    /// Counts a newcomer, or says how long it must wait.
    pub(super) fn join(&self, network: Option<Network>) -> Result<(), Duration> {
        let Some(mut network) = network else { return Ok(()) };
        if self.joins.len() >= ADDRESSES {
            self.joins.retain_recent();
            if self.joins.len() >= ADDRESSES {
                network = Network::Others;
            }
        }
        self.joins.check_key(&network).map_err(|until| until.wait_time_from(now()))
    }

    /// Counts a connection for as long as what is returned lives; `None`: there are too many.
    pub(super) fn connect(self: &Arc<Self>, network: Option<Network>) -> Option<Connected> {
        let Some(network) = network else { return Some(Connected(None)) };
        let mut connections = lock(&self.connections);
        let count = connections.entry(network).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Connected(Some((self.clone(), network))))
    }
}

/// A connection that is counted.
#[derive(Default)]
pub(super) struct Connected(Option<(Arc<Networks>, Network)>);

impl Drop for Connected {
    fn drop(&mut self) {
        let Some((networks, network)) = self.0.take() else { return };
        let mut connections = lock(&networks.connections);
        if let Some(count) = connections.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(ip: &str) -> Option<Network> {
        Network::of(ip.parse().expect("an address"))
    }

    #[test]
    fn networks_of_ipv6_count_as_one_and_this_machine_does_not() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(network(local), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_fills_up_again() {
        let rate = Rate::new(4, Duration::from_secs(10));
        assert!((0..4).all(|_| rate.pay(1).is_ok()));
        let wait = rate.pay(1).expect_err("empty");
        assert!((2400..=2500).contains(&wait.as_millis()), "{wait:?}");
        tokio::time::sleep(wait).await;
        assert!(rate.pay(1).is_ok() && rate.pay(1).is_err());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(rate.pay(u32::MAX).is_ok(), "more than fits costs all");
        assert!(rate.pay(1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn joins_and_connections_are_counted_by_address_with_bounded_memory() {
        let settings = Settings {
            joins_burst: 2,
            joins_per_minute: 60,
            connections_per_address: 2,
            ..Settings::default()
        };
        let networks = Networks::new(&settings);
        let ada = network("192.0.2.1");
        assert!(networks.join(ada).is_ok() && networks.join(ada).is_ok() && networks.join(ada).is_err());
        assert!(networks.join(network("192.0.2.2")).is_ok());
        assert!((0..99).all(|_| networks.join(None).is_ok()));
        for n in 0..40_000u32 {
            let _ = networks.join(Network::of(IpAddr::from(n.to_be_bytes())));
        }
        assert!(networks.joins.len() <= ADDRESSES + 1);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(networks.join(ada).is_ok());
        assert!(networks.joins.len() <= 2, "whoever is not limited is forgotten");

        let held = [networks.connect(ada), networks.connect(ada)];
        assert!(held.iter().all(Option::is_some) && networks.connect(ada).is_none());
        drop(held);
        assert!(networks.connect(ada).is_some());
        assert!(lock(&networks.connections).is_empty());
    }
}
