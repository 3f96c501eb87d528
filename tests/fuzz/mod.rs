//! Fuzz targets are plain functions over bytes. In ordinary runs each is replayed over its corpus and over a fixed number
//! of mutations of it, which the seed decides: `MOTET_FUZZ_SEED` gives another, `MOTET_FUZZ_FACTOR` more of them.
//! An input that fails is printed as hexadecimal digits; it belongs in the corpus once it is understood.

mod call;
mod message;
mod poll;
mod rtcp;
mod rtp_header;
mod sdp;
mod session;
mod srtp;
mod stun;
mod transport;
mod twcc;
mod vp8;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::support::network::Rng;

const SEED: u64 = 20_261_121;

/// Inputs longer than this are not made, only read.
const LONGEST: usize = 4096;

/// Runs a target over its corpus and over `runs` mutations.
fn drive(name: &str, runs: usize, target: fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("MOTET_FUZZ_SEED").unwrap_or(SEED);
    let runs = runs * number("MOTET_FUZZ_FACTOR").unwrap_or(1) as usize;
    let corpus = corpus(name);
    corpus.iter().for_each(|input| run(target, input));
    // Each target has a sequence of its own.
    let mut rng = Rng::new(name.bytes().fold(seed, |seed, byte| seed.wrapping_mul(31) + u64::from(byte)));
    for _ in 0..runs {
        run(target, &mutate(&mut rng, &corpus));
    }
    eprintln!("fuzz {name}: {} inputs of the corpus and {runs} mutations, seed {seed}", corpus.len());
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = format!("{}/tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    // The order of a directory is nobody's seed.
    paths.sort();
    assert!(!paths.is_empty(), "{directory} is empty");
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

fn run(target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let digits: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("the input that failed: {digits}");
        resume_unwind(panic);
    }
}

/// An input of the corpus with a few changes.
fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[rng.below(corpus.len())].clone();
    for _ in 0..=rng.below(6) {
        let at = rng.below(input.len() + 1);
        match rng.below(10) {
            0 | 1 if at < input.len() => input[at] ^= 1 << rng.below(8),
            2 | 3 if at < input.len() => {
                input[at] = [0, 1, 0x7f, 0x80, 0xff, rng.next() as u8][rng.below(6)];
            }
            4 => input.truncate(at),
            5 => {
                let end = (at + rng.below(16)).min(input.len());
                input.drain(at..end);
            }
            6 => {
                let len = rng.below(16);
                let fresh = rng.bytes(len);
                input.splice(at..at, fresh);
            }
            7 => {
                let end = (at + rng.below(64)).min(input.len());
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            8 => {
                let other = &corpus[rng.below(corpus.len())];
                let from = rng.below(other.len() + 1);
                input.truncate(at);
                input.extend(&other[from..]);
            }
            _ if at + 1 < input.len() => {
                let step = rng.next() as u8 & 0x0f;
                input[at] = input[at].wrapping_add(step);
            }
            _ => {}
        }
    }
    input.truncate(LONGEST);
    input
}

/// Each target with as many runs as take it two to five seconds without optimisation.
macro_rules! targets {
    ($($name:ident($runs:literal) = $target:path;)*) => {
        $(
            #[test]
            fn $name() {
                drive(stringify!($name), $runs, $target);
            }
        )*
    };
}

targets! {
    call(100) = call::fuzz_call;
    message(300_000) = message::fuzz_message;
    poll(100_000) = poll::fuzz_poll;
    rtcp(400_000) = rtcp::fuzz_rtcp;
    rtp_header(600_000) = rtp_header::fuzz_rtp_header;
    sdp(2000) = sdp::fuzz_sdp;
    session(2000) = session::fuzz_session;
    srtp(20_000) = srtp::fuzz_srtp;
    stun(80_000) = stun::fuzz_stun;
    transport(500) = transport::fuzz_transport;
    twcc(15_000) = twcc::fuzz_twcc;
    vp8(500_000) = vp8::fuzz_vp8;
}

#[test]
fn a_seed_makes_the_same_inputs_again() {
    let corpus = corpus("stun");
    let inputs = |seed| -> Vec<_> {
        let mut rng = Rng::new(seed);
        (0..50).map(|_| mutate(&mut rng, &corpus)).collect()
    };
    assert_eq!(inputs(1), inputs(1));
    assert_ne!(inputs(1), inputs(2));
}
