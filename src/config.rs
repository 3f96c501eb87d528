//! Every setting once: flag, environment variable, key in the settings file, default, help.
//!
//! A flag beats an environment variable, which beats the file, which beats the default. The keys of the file are
//! the long flags without dashes in front: `max-rooms = 100`.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};

use crate::signal::message::SizeLimits;
use crate::signal::{self, sdp};
use crate::units::Bitrate;
use crate::worker;

// The first line of each comment is the help text; what follows `//` is the reason for the default.

/// A selective-forwarding group call server: browsers in, browsers out, no transcoding.
#[derive(Clone, Debug, Parser)]
#[command(name = "motet", version, about, max_term_width = 100)]
pub struct Config {
    /// Settings file (TOML); its keys are the long flags
    #[arg(long, env = "MOTET_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where the page and the signaling are served
    // Local: browsers give camera and microphone to secure pages only, and of plain ones that is localhost alone.
    #[arg(long, env = "MOTET_HTTP", value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,

    /// Where metrics are served, and whether the process lives and is ready; none: nowhere
    // Off, and apart from the page: how many people call, and when, is the operator's business alone.
    #[arg(long, env = "MOTET_ADMIN", value_name = "IP:PORT")]
    pub admin: Option<SocketAddr>,

    /// First UDP port for media, one for each worker; 0: any free ports
    // Above the ports that need privileges, below those that the kernel hands out.
    #[arg(long, env = "MOTET_UDP", value_name = "PORT", default_value_t = 7882)]
    pub udp: u16,

    /// Threads that forward media; 0: one for each core
    // Forwarding is limited by processor time, and a worker keeps one core busy.
    #[arg(long, env = "MOTET_WORKERS", value_name = "N", default_value_t = 0)]
    pub workers: usize,

    /// Addresses that clients are told to send media to, instead of those of all interfaces
    // Behind address translation the machine does not know the address that others reach it by.
    #[arg(long, env = "MOTET_ADVERTISE", value_name = "IP[:PORT]", value_delimiter = ',')]
    pub advertise: Vec<Advertise>,

    /// Origins of other sites whose pages may join calls here (`https://example.org`), or `*`
    // None: otherwise any page that somebody visits could join in that person's name.
    #[arg(long, env = "MOTET_ORIGINS", value_name = "ORIGIN", value_delimiter = ',')]
    pub origins: Vec<String>,

    /// Bit/s that publishers without transport-wide feedback are told to send at most
    // Enough for three layers of 720p with a screen beside them; there is no estimate to lower it yet.
    #[arg(long, env = "MOTET_REMB", value_name = "BIT/S", default_value_t = 5_000_000)]
    pub remb: u64,

    /// Send several packets to one receiver in one system call (UDP segmentation)
    // Two thirds of the kernel's cost of a packet; off for comparison and for faulty network drivers.
    #[arg(long, env = "MOTET_GSO", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub gso: bool,

    /// Pad packets of nearly equal size to the same size, for longer segmented sends
    // Browsers make the last packets of a frame one byte longer; padding the others makes one run of them.
    #[arg(long, env = "MOTET_PADDING", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub padding: bool,

    /// Begin a newcomer's pictures with keyframes that came a moment ago, instead of asking for others
    // A picture one round trip to the publisher sooner, and fewer keyframes in a room that fills; off for comparison, and
    // where receivers' links are too narrow for half a second of picture at once.
    #[arg(long, env = "MOTET_HISTORY_OPENING", value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub history_opening: bool,

    /// Bytes of each socket's receive and send buffer
    // The usual 200 kB hold 92 packets, a single burst of a big room; more only helps a server that is stalled longer.
    #[arg(long, env = "MOTET_SOCKET_BUFFER", value_name = "BYTES", default_value_t = 4 << 20)]
    pub socket_buffer: usize,

    /// Rooms at a time
    // About 20 kB each when idle: bounds what strangers can make the server remember.
    #[arg(long, env = "MOTET_MAX_ROOMS", value_name = "N", default_value_t = 10_000)]
    pub max_rooms: usize,

    /// Participants in one room
    // The roster goes to everybody: its cost grows with the square of this.
    #[arg(long, env = "MOTET_MAX_PARTICIPANTS", value_name = "N", default_value_t = 1000)]
    pub max_participants: usize,

    /// Publications of one participant
    // Microphone, camera, screen and its sound, and as many again for applications.
    #[arg(long, env = "MOTET_MAX_PUBLICATIONS", value_name = "N", default_value_t = 8)]
    pub max_publications: usize,

    /// Participants whom a snapshot or a page of the roster names, unless more publish
    // A newcomer learns of those who can be seen at once; all names of a room of a thousand are 50 kB.
    #[arg(long, env = "MOTET_ROSTER_PAGE", value_name = "N", default_value_t = 100)]
    pub roster_page: usize,

    /// Participants above which a room gathers arrivals and departures for a quarter of a second
    // Each is told to everybody: in a room of 300 that changes 50 times a second this saves 14 000 messages a second.
    #[arg(long, env = "MOTET_GATHER_ABOVE", value_name = "N", default_value_t = 100)]
    pub gather_above: usize,

    /// Participants above which a room only counts newcomers who publish nothing
    // Nobody reads a list of five hundred listeners as it changes; whoever wants it asks for pages.
    #[arg(long, env = "MOTET_COUNT_ABOVE", value_name = "N", default_value_t = 500)]
    pub count_above: usize,

    /// Sections of an offer
    // Firefox fails above 128; 8 audio and 49 video slots and 8 sending sections are 65.
    #[arg(long, env = "MOTET_MAX_SECTIONS", value_name = "N", default_value_t = 96)]
    pub max_sections: usize,

    /// Audio sections on which a participant receives
    // More simultaneous voices than anybody can follow.
    #[arg(long, env = "MOTET_MAX_AUDIO_SLOTS", value_name = "N", default_value_t = 16)]
    pub max_audio_slots: usize,

    /// Video sections on which a participant receives
    // Seven by seven pictures; a client that has more to show pages through them.
    #[arg(long, env = "MOTET_MAX_VIDEO_SLOTS", value_name = "N", default_value_t = 49)]
    pub max_video_slots: usize,

    /// Bytes of a WebSocket message
    // Firefox's untrimmed offer with 100 slots has 200 kB; parsing costs the server milliseconds per megabyte.
    #[arg(long, env = "MOTET_MAX_FRAME_BYTES", value_name = "BYTES", default_value_t = 512 << 10)]
    pub max_frame_bytes: usize,

    /// Bytes of a message that holds no session description
    // A wish that names every publication of a room of a thousand.
    #[arg(long, env = "MOTET_MAX_MESSAGE_BYTES", value_name = "BYTES", default_value_t = 64 << 10)]
    pub max_message_bytes: usize,

    /// How deep JSON may nest
    // Messages need 4; what applications may put into them later wants some room.
    #[arg(long, env = "MOTET_MAX_JSON_DEPTH", value_name = "N", default_value_t = 16)]
    pub max_json_depth: usize,

    /// Messages per second and connection before the server reads more slowly
    // Layout changes of a busy page make about ten.
    #[arg(long, env = "MOTET_MESSAGES_PER_SECOND", value_name = "N", default_value_t = 50)]
    pub messages_per_second: u32,

    /// Messages that may come at once
    // What a client kept during an interruption comes in one burst.
    #[arg(long, env = "MOTET_MESSAGES_BURST", value_name = "N", default_value_t = 200)]
    pub messages_burst: u32,

    /// Offers of one participant in 10 s
    // An answer costs milliseconds; a network change needs one or two.
    #[arg(long, env = "MOTET_OFFERS_PER_10S", value_name = "N", default_value_t = 4)]
    pub offers_per_10s: u32,

    /// Joins from one address that may come at once
    // A class behind one address opens the link in the same minute; resumes are not counted.
    #[arg(long, env = "MOTET_JOINS_BURST", value_name = "N", default_value_t = 300)]
    pub joins_burst: u32,

    /// Joins per minute from one address in the long run
    // A join costs a millisecond of processor time and a handshake: this is half a percent of one core.
    #[arg(long, env = "MOTET_JOINS_PER_MINUTE", value_name = "N", default_value_t = 300)]
    pub joins_per_minute: u32,

    /// Connections from one address at a time
    // A lecture hall behind one address; a stranger alone cannot use up the files that the process may open.
    #[arg(long, env = "MOTET_CONNECTIONS_PER_ADDRESS", value_name = "N", default_value_t = 1000)]
    pub connections_per_address: usize,

    /// Clients without WebSockets (long poll) at a time
    // About 10 kB each; networks that block WebSockets are rare.
    #[arg(long, env = "MOTET_MAX_POLLS", value_name = "N", default_value_t = 10_000)]
    pub max_polls: usize,

    /// Seconds in which a connection must say what it requests
    // Connections that say nothing hold a file each; browsers open some in advance and bear their end.
    #[arg(long, env = "MOTET_HEADER_SECONDS", value_name = "S", default_value_t = 10)]
    pub header_seconds: u64,

    /// Addresses of proxies that are believed for whom they ask (`X-Forwarded-For`)
    // Who can connect from this machine could do worse; anybody else could pretend to be others.
    #[arg(
        long,
        env = "MOTET_PROXIES",
        value_name = "IP",
        value_delimiter = ',',
        default_value = "127.0.0.1,::1"
    )]
    pub proxies: Vec<IpAddr>,

    /// Seconds in which a connection must say hello
    // A mobile network's worst round trip, several times.
    #[arg(long, env = "MOTET_HELLO_SECONDS", value_name = "S", default_value_t = 5)]
    pub hello_seconds: u64,

    /// Seconds after the last sign of life until a participant is removed
    // Long enough for a lift or a change of networks; shorter shows fewer frozen pictures.
    #[arg(long, env = "MOTET_RESUME_SECONDS", value_name = "S", default_value_t = 30)]
    pub resume_seconds: u64,

    /// Seconds for which an empty room is remembered
    // The last one to reload a page finds the same room.
    #[arg(long, env = "MOTET_ROOM_GRACE_SECONDS", value_name = "S", default_value_t = 60)]
    pub room_grace_seconds: u64,

    /// Bytes of a chat message
    // A page of text; what is longer is a document and travels as a file.
    #[arg(long, env = "MOTET_CHAT_BYTES", value_name = "BYTES", default_value_t = 4096)]
    pub chat_bytes: usize,

    /// Chat messages of one participant in 10 s
    // Three a second are more than anybody types, and each goes to everybody in the room.
    #[arg(long, env = "MOTET_CHATS_PER_10S", value_name = "N", default_value_t = 30)]
    pub chats_per_10s: u32,

    /// Chat messages that a room remembers for those who come later
    // More than anybody reads back; 0 remembers nothing.
    #[arg(long, env = "MOTET_CHAT_HISTORY", value_name = "N", default_value_t = 200)]
    pub chat_history: usize,

    /// Bytes of them
    // Part of every welcome: a second on a slow link.
    #[arg(long, env = "MOTET_CHAT_HISTORY_BYTES", value_name = "BYTES", default_value_t = 128 << 10)]
    pub chat_history_bytes: usize,

    /// Seconds for which they are remembered
    // The length of a long meeting.
    #[arg(long, env = "MOTET_CHAT_HISTORY_SECONDS", value_name = "S", default_value_t = 4 * 3600)]
    pub chat_history_seconds: u64,
}

/// One address of [`Config::advertise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertise {
    pub ip: IpAddr,
    /// Of the first worker; `None`: the port that is bound.
    pub port: Option<u16>,
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        let address: SocketAddr = text.parse().map_err(|_| "expected IP or IP:PORT".to_owned())?;
        Ok(Self { ip: address.ip(), port: Some(address.port()) })
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Also `--help` and `--version`.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    #[error("cannot read {0}: {1}")]
    File(String, std::io::Error),
    #[error("{0}: {1}")]
    Syntax(String, String),
}

impl Config {
    /// The settings for a command line, the process's environment, and the file that they name.
    ///
    /// # Errors
    /// Something is unknown, or has a value of the wrong form.
    pub fn load(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ConfigError> {
        let mut arguments: Vec<_> = arguments.into_iter().collect();
        let matches = Self::command().try_get_matches_from(&arguments)?;
        if let Some(path) = matches.get_one::<PathBuf>("config") {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::File(path.display().to_string(), error))?;
            arguments.extend(from_file(path, &text, &matches)?);
        }
        let matches = Self::command().try_get_matches_from(arguments)?;
        Ok(Self::from_arg_matches(&matches)?)
    }

    /// The limits of signaling.
    #[must_use]
    pub fn signal(&self) -> signal::Settings {
        signal::Settings {
            sizes: SizeLimits {
                frame_bytes: self.max_frame_bytes,
                message_bytes: self.max_message_bytes,
                depth: self.max_json_depth,
            },
            messages_per_second: self.messages_per_second,
            burst: self.messages_burst,
            offers_per_10s: self.offers_per_10s,
            joins_burst: self.joins_burst,
            joins_per_minute: self.joins_per_minute,
            connections_per_address: self.connections_per_address,
            poll_carriers: self.max_polls,
            header_within: Duration::from_secs(self.header_seconds),
            hello_within: Duration::from_secs(self.hello_seconds),
            removed_after: Duration::from_secs(self.resume_seconds),
            rooms: self.max_rooms,
            participants: self.max_participants,
            publications: self.max_publications,
            page: self.roster_page.max(1),
            gather_above: self.gather_above,
            count_above: self.count_above,
            room_grace: Duration::from_secs(self.room_grace_seconds),
            chat_bytes: self.chat_bytes,
            chats_per_10s: self.chats_per_10s,
            chat_history: self.chat_history,
            chat_history_bytes: self.chat_history_bytes,
            chat_history_for: Duration::from_secs(self.chat_history_seconds),
            sections: self.max_sections,
            origins: self.origins.clone(),
            proxies: self.proxies.clone(),
        }
    }

    /// The limits of offers.
    #[must_use]
    pub fn sdp(&self) -> sdp::Limits {
        sdp::Limits {
            text: self.max_frame_bytes,
            sections: self.max_sections,
            sending: self.max_publications,
            audio_slots: self.max_audio_slots,
            video_slots: self.max_video_slots,
        }
    }

    /// What can be switched in a media worker.
    #[must_use]
    pub fn worker(&self) -> worker::Settings {
        worker::Settings {
            gso: self.gso,
            padding: self.padding,
            history_opening: self.history_opening,
            remb: Bitrate(self.remb),
        }
    }

    /// How many media workers there are to be: 1 to 64.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.workers == 0 { cores() } else { self.workers }.clamp(1, 64)
    }

    /// All settings as a table in Markdown, for README.md.
    #[must_use]
    pub fn table() -> String {
        let mut table = String::from("| flag | environment | default | |\n|---|---|---|---|\n");
        for arg in Self::command().get_arguments() {
            let (Some(flag), Some(env)) = (arg.get_long(), arg.get_env()) else { continue };
            let default = arg.get_default_values().iter().map(|value| value.to_string_lossy());
            let default = default.map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
            table.push_str(&format!("| `--{flag}` | `{}` | {default} | {help} |\n", env.to_string_lossy()));
        }
        table
    }
}

/// The file's settings as flags, but for those that a flag or the environment sets already.
fn from_file(path: &Path, text: &str, given: &ArgMatches) -> Result<Vec<OsString>, ConfigError> {
    let fail = |what: String| ConfigError::Syntax(path.display().to_string(), what);
    let file: toml::Table = text.parse().map_err(|error: toml::de::Error| fail(error.to_string()))?;
    let command = Config::command();
    let mut flags = Vec::new();
    for (key, value) in &file {
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(key) && key != "config");
        let arg = known.ok_or_else(|| fail(format!("there is no setting {key}")))?;
        let source = given.value_source(arg.get_id().as_str());
        if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let values = match value {
            toml::Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let text = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(switch) => switch.to_string(),
                _ => return Err(fail(format!("{key} has a value of the wrong type"))),
            };
            flags.push(format!("--{key}={text}").into());
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arguments: &[&str]) -> Result<Config, ConfigError> {
        Config::load(std::iter::once("motet").chain(arguments.iter().copied()).map(OsString::from))
    }

    fn flags(text: &str, arguments: &[&str]) -> Result<Vec<OsString>, ConfigError> {
        let given = Config::command().try_get_matches_from([&["motet"], arguments].concat())?;
        from_file(Path::new("motet.toml"), text, &given)
    }

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let config = load(&[]).expect("no flag is required");
        assert_eq!(format!("{:?}", config.signal()), format!("{:?}", signal::Settings::default()));
        assert_eq!(config.sdp(), sdp::Limits::default());
        assert!((1..=64).contains(&config.worker_count()));
    }

    #[test]
    fn flags_are_read_and_wrong_ones_refused() {
        let config = load(&["--http=0.0.0.0:0", "--advertise=192.0.2.1,[2001:db8::1]:9", "--gso=false"]);
        let config = config.expect("valid");
        let advertised: Vec<_> = config.advertise.iter().map(|a| (a.ip.to_string(), a.port)).collect();
        assert_eq!(advertised, [("192.0.2.1".into(), None), ("2001:db8::1".into(), Some(9))]);
        assert!(!config.gso && config.padding);
        for bad in ["--http=here", "--udp=70000", "--advertise=example.org", "--none"] {
            assert!(load(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_flag_beats_the_file() {
        let text = "udp = 9000\ngso = false\norigins = ['https://a.example', 'https://b.example']";
        let from = flags(text, &["--udp=1"]).expect("valid");
        let mut from: Vec<_> = from.iter().map(|flag| flag.to_string_lossy().into_owned()).collect();
        from.sort();
        assert_eq!(from, ["--gso=false", "--origins=https://a.example", "--origins=https://b.example"]);
    }

    #[test]
    fn what_the_file_misspells_is_named() {
        for (bad, named) in
            [("rooms = 1", "rooms"), ("udp = 1.5", "udp"), ("config = 'x'", "config"), ("=", "")]
        {
            let error = flags(bad, &[]).expect_err(bad).to_string();
            assert!(error.starts_with("motet.toml: ") && error.contains(named), "{error}");
        }
    }

    #[test]
    fn every_setting_has_a_flag_a_variable_and_a_help_text() {
        let command = Config::command();
        let settings: Vec<_> = command.get_arguments().collect();
        for arg in &settings {
            let long = arg.get_long().expect("a long flag");
            let variable = format!("MOTET_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(variable.as_str()));
            assert!(arg.get_help().is_some(), "{long}");
        }
        let table = Config::table();
        assert_eq!(table.lines().count(), 2 + settings.len());
        assert!(table.contains("| `--udp` | `MOTET_UDP` | `7882` |"), "{table}");
    }

    #[test]
    fn the_readme_shows_every_setting() {
        let readme = include_str!("../README.md");
        let shown = readme
            .split_once("compared by a test -->\n")
            .and_then(|(_, rest)| rest.split_once("<!-- end of settings -->"))
            .map_or("", |(table, _)| table);
        assert_eq!(shown, Config::table(), "put this table into README.md");
    }
}
