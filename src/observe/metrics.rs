//! The metrics' text: everything that is counted elsewhere, read at a scrape. `OPERATIONS.md` lists the same.
//!
//! No label ever holds a room or a name: they are secrets, and there is no bound to how many there are.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::people::People;
use super::reason::{Counters, Reason};
use super::times::Times;
use super::traffic::Traffic;

/// What the [`text`](Metrics::text) version of the exposition is called (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the values come from.
pub struct Sources {
    /// In the order of the workers.
    pub workers: Vec<Arc<Traffic>>,
    pub people: Arc<People>,
    /// By signaling.
    pub refused: Arc<Counters>,
    pub live: Box<dyn Fn() -> Live + Send + Sync>,
}

/// What nobody counts, because it can be asked for.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub rooms: usize,
    pub connections: usize,
    /// Commands that wait for each worker.
    pub commands: Vec<usize>,
    /// Events that wait for the rooms' tasks: of all rooms, and of the one with the most.
    pub events: (usize, usize),
    /// Workers' reports that wait in the rooms' mailboxes.
    pub updates: usize,
}

/// Everything that is exposed.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    /// The present values.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = String::new();
        // Writing to memory does not fail.
        let _ = text::encode(&mut page, &self.0);
        page
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let live = (self.live)();
        self.encode_people(&mut page, &live)?;
        self.encode_joins(&mut page)?;
        self.encode_packets(&mut page)?;
        self.encode_reasons(&mut page)?;
        self.encode_loops(&mut page, &live)?;
        page.gauge("motet_room_events_waiting", "Events that wait for the rooms' tasks", live.events.0)?;
        page.gauge("motet_room_events_waiting_most", "Events that wait for the busiest room", live.events.1)?;
        page.gauge("motet_updates_waiting", "Workers' reports that wait for the rooms' tasks", live.updates)?;
        if let Some(bytes) = resident_bytes() {
            page.gauge("process_resident_memory_bytes", "Memory that the process occupies", bytes)?;
        }
        page.infos("motet_build", "The version that runs", &[("version", env!("CARGO_PKG_VERSION"))])
    }
}

impl Sources {
    fn encode_people(&self, page: &mut Page<'_>, live: &Live) -> fmt::Result {
        page.gauge("motet_rooms", "Rooms, the empty ones that are still remembered included", live.rooms)?;
        page.gauge("motet_participants", "Participants of all rooms", self.people.participants())?;
        page.gauge("motet_publications", "What they publish", self.people.publications())?;
        let sessions = self.people.sessions().map(|(kind, count)| ([("carrier", kind)], count));
        page.gauges("motet_sessions", "Sessions by what carries their messages now", sessions)?;
        page.gauge("motet_connections", "Open connections for messages", live.connections)
    }

    fn encode_joins(&self, page: &mut Page<'_>) -> fmt::Result {
        let hellos = self.people.hellos.load(Ordering::Relaxed);
        page.counter("motet_joins", "Valid requests to join", hellos)?;
        let help = "Steps of a join, each from the one before: welcome (answered), ice (first authenticated \
                    check), dtls (connected), media (first packet of somebody, where there was one to see or hear)";
        let mut stages = page.begin("motet_join_stage_seconds", help, MetricType::Histogram)?;
        histogram(&mut stages, &[("stage", "welcome")], &[&self.people.welcome])?;
        let stage = |times: fn(&Traffic) -> &Times| {
            self.workers.iter().map(|worker| times(worker)).collect::<Vec<_>>()
        };
        histogram(&mut stages, &[("stage", "ice")], &stage(|worker| &worker.joins.check))?;
        histogram(&mut stages, &[("stage", "dtls")], &stage(|worker| &worker.joins.secure))?;
        histogram(&mut stages, &[("stage", "media")], &stage(|worker| &worker.joins.media))
    }

    fn encode_packets(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut counters = |name, help, value: fn(&Traffic) -> &AtomicU64| {
            let samples = self.by_worker(|traffic| value(traffic).load(Ordering::Relaxed));
            page.counters(name, help, samples)
        };
        counters("motet_packets_received", "Datagrams received", |worker| &worker.packets_in)?;
        counters("motet_bytes_received", "Bytes of UDP payload received", |worker| &worker.bytes_in)?;
        counters("motet_packets_sent", "Datagrams sent", |worker| &worker.packets_out)?;
        counters("motet_bytes_sent", "Bytes of UDP payload sent", |worker| &worker.bytes_out)?;
        counters(
            "motet_packets_forwarded",
            "Media packets sent to a receiver for the first time",
            |worker| &worker.forwarded,
        )?;
        counters("motet_packets_retransmitted", "Media packets sent to a receiver again", |worker| {
            &worker.retransmitted
        })?;
        counters("motet_keyframe_requests", "Keyframes asked of publishers", |worker| {
            &worker.keyframe_requests
        })
    }

    /// All reasons, those that never occurred too: a series that begins above zero hides its first event.
    fn encode_reasons(&self, page: &mut Page<'_>) -> fmt::Result {
        let dropped = |reason| self.workers.iter().map(|worker| worker.dropped.get(reason)).sum();
        let by_reason = |count: &dyn Fn(Reason) -> u64| {
            let sample = |reason: &Reason| ([("reason", reason.as_str())], count(*reason));
            Reason::ALL.iter().map(sample).collect::<Vec<_>>()
        };
        page.counters(
            "motet_dropped",
            "Packets dropped and participants given up by workers",
            by_reason(&dropped),
        )?;
        let refused = |reason| self.refused.get(reason);
        page.counters("motet_refused", "Requests and messages refused by signaling", by_reason(&refused))
    }

    fn encode_loops(&self, page: &mut Page<'_>, live: &Live) -> fmt::Result {
        let members = self.by_worker(|worker| worker.members.load(Ordering::Relaxed));
        page.gauges("motet_worker_members", "Participants on each worker", members)?;
        let commands = live.commands.iter().enumerate().map(|(index, count)| (worker_label(index), *count));
        page.gauges("motet_worker_commands_waiting", "Commands that wait for each worker", commands)?;
        let seconds = |micros: &AtomicU64| micros.load(Ordering::Relaxed) as f64 / 1e6;
        let times = self.workers.iter().enumerate().flat_map(|(index, worker)| {
            let used = [("user", seconds(&worker.user)), ("system", seconds(&worker.system))];
            used.map(|(mode, used)| ([("worker", index.to_string()), ("mode", mode.to_owned())], used))
        });
        page.counters("motet_worker_cpu_seconds", "Processor time of each worker's thread", times)?;
        let turn = "What a worker does between two waits for packets";
        self.encode_times(page, "motet_worker_turn_seconds", turn, |worker| &worker.turn)?;
        let lag = "How long a datagram waited for its worker, or a timer after it was due";
        self.encode_times(page, "motet_worker_lag_seconds", lag, |worker| &worker.lag)
    }

    fn encode_times(
        &self,
        page: &mut Page<'_>,
        name: &str,
        help: &str,
        times: fn(&Traffic) -> &Times,
    ) -> fmt::Result {
        let mut encoder = page.begin(name, help, MetricType::Histogram)?;
        for (index, worker) in self.workers.iter().enumerate() {
            histogram(&mut encoder, &worker_label(index), &[times(worker)])?;
        }
        Ok(())
    }

    fn by_worker<'a, V>(
        &'a self,
        value: impl Fn(&Traffic) -> V + 'a,
    ) -> impl Iterator<Item = ([(&'static str, String); 1], V)> + 'a {
        self.workers.iter().enumerate().map(move |(index, worker)| (worker_label(index), value(worker)))
    }
}

fn worker_label(index: usize) -> [(&'static str, String); 1] {
    [("worker", index.to_string())]
}

/// The exposition as it is being written. Units are part of the names, so that a search for a name finds it.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn begin<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut encoder = self.begin(name, help, MetricType::Counter)?;
        for (labels, value) in samples {
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, V, f64>(&value, None)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.begin(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut encoder = self.begin(name, help, MetricType::Gauge)?;
        for (labels, value) in samples {
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn infos(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.begin(name, help, MetricType::Info)?.encode_info(&labels)
    }
}

/// One histogram out of those of several writers, which all have the same bounds.
fn histogram(encoder: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, parts: &[&Times]) -> fmt::Result {
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    for part in parts {
        for (index, (bound, count)) in part.buckets().enumerate() {
            match buckets.get_mut(index) {
                Some(bucket) => bucket.1 += count,
                None => buckets.push((bound, count)),
            }
        }
    }
    let count = buckets.iter().map(|(_, count)| count).sum();
    let sum = parts.iter().map(|part| part.sum()).sum();
    encoder.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

/// Of the whole process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;

    fn sources() -> (Vec<Arc<Traffic>>, Arc<Counters>, Metrics) {
        let workers = vec![Arc::new(Traffic::default()), Arc::new(Traffic::default())];
        let refused = Arc::new(Counters::default());
        let live = || Live { rooms: 3, commands: vec![4, 5], events: (7, 6), ..Live::default() };
        let metrics = Metrics::new(Sources {
            workers: workers.clone(),
            people: Arc::default(),
            refused: refused.clone(),
            live: Box::new(live),
        });
        (workers, refused, metrics)
    }

    /// Every sample by its name and labels.
    fn samples(page: &str) -> BTreeMap<&str, f64> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let sample =
            |line| str::rsplit_once(line, ' ').map(|(name, value)| (name, value.parse().expect("a number")));
        lines.map(|line| sample(line).expect("name and value")).collect()
    }

    #[test]
    fn values_of_all_workers_are_shown() {
        let (workers, refused, metrics) = sources();
        workers[0].received(100);
        workers[1].received(50);
        workers[1].sent(2, 70);
        workers[0].dropped.count(Reason::TooShort);
        workers[1].dropped.count(Reason::TooShort);
        workers[1].used(Duration::from_millis(1500), Duration::from_micros(1));
        refused.count(Reason::RoomFull);
        for worker in &workers {
            worker.joins.check.observe(Duration::from_millis(7));
        }
        let page = metrics.text();
        let samples = samples(&page);
        for (name, value) in [
            ("motet_bytes_received_total{worker=\"0\"}", 100.0),
            ("motet_bytes_received_total{worker=\"1\"}", 50.0),
            ("motet_packets_sent_total{worker=\"1\"}", 2.0),
            ("motet_dropped_total{reason=\"too_short\"}", 2.0),
            ("motet_dropped_total{reason=\"room_full\"}", 0.0),
            ("motet_refused_total{reason=\"room_full\"}", 1.0),
            ("motet_worker_cpu_seconds_total{worker=\"1\",mode=\"user\"}", 1.5),
            ("motet_join_stage_seconds_count{stage=\"ice\"}", 2.0),
            ("motet_join_stage_seconds_bucket{le=\"0.005\",stage=\"ice\"}", 0.0),
            ("motet_join_stage_seconds_bucket{le=\"0.01\",stage=\"ice\"}", 2.0),
            ("motet_join_stage_seconds_bucket{le=\"+Inf\",stage=\"ice\"}", 2.0),
            ("motet_worker_commands_waiting{worker=\"1\"}", 5.0),
            ("motet_room_events_waiting_most", 6.0),
            ("motet_rooms", 3.0),
            ("motet_build_info{version=\"0.1.0\"}", 1.0),
        ] {
            assert_eq!(samples.get(name), Some(&value), "{name}\n{page}");
        }
        assert!(samples["process_resident_memory_bytes"] > 1e6);
        assert!(page.ends_with("# EOF\n"));
    }

    /// What `OPERATIONS.md` has to say, row by row.
    fn rows(page: &str) -> String {
        let mut table = String::from("| metric | kind | labels | |\n|---|---|---|---|\n");
        let names = samples(page);
        let names: Vec<_> = names.keys().collect();
        for help in page.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let (name, help) = help.split_once(' ').expect("a help text");
            let kind = page.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
            let shown = match kind.expect("a type") {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            };
            let of = |sample: &&&&str| {
                let rest = sample.strip_prefix(&shown);
                rest.is_some_and(|rest| {
                    ["", "{", "_bucket{", "_sum{", "_count{"]
                        .iter()
                        .any(|end| if end.is_empty() { rest.is_empty() } else { rest.starts_with(end) })
                })
            };
            let labels: BTreeSet<_> = names
                .iter()
                .filter(of)
                .filter_map(|sample| Some(sample.split_once('{')?.1.trim_end_matches('}')))
                .flat_map(|labels| labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)))
                .filter(|label| *label != "le")
                .map(|label| format!("`{label}`"))
                .collect();
            let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
            table.push_str(&format!("| `{shown}` | {} | {labels} | {help} |\n", kind.unwrap_or_default()));
        }
        table
    }

    #[test]
    fn the_operators_page_lists_every_metric() {
        let manual = include_str!("../../OPERATIONS.md");
        let shown = manual
            .split_once("compared by a test -->\n")
            .and_then(|(_, rest)| rest.split_once("<!-- end of metrics -->"))
            .map_or("", |(table, _)| table);
        let table = rows(&sources().2.text());
        assert!(table.lines().count() > 20, "the search finds what is there");
        assert_eq!(shown, table, "put this table into OPERATIONS.md:\n{table}");
    }

    #[test]
    fn no_label_holds_anything_but_what_the_server_made_up() {
        let (_, _, metrics) = sources();
        let page = metrics.text();
        let known = ["worker", "reason", "stage", "mode", "carrier", "le", "version"];
        for labels in
            page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('{'))
        {
            for label in labels.1.split(',').filter_map(|label| label.split_once('=')) {
                assert!(known.contains(&label.0), "{}", label.0);
            }
        }
    }
}
