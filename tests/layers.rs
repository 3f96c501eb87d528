//! Who may use whom, read off the paths in the source: the layers that ARCHITECTURE.md describes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each top-level module may use, besides itself and [`COMMON`].
const MAY_USE: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("units", &[]),
    ("observe", &[]),
    ("net", &[]),
    ("rtp", &[]),
    ("transport", &["rtp"]),
    ("congestion", &["rtp"]),
    ("room", &["rtp", "congestion"]),
    // The contract of the room's two halves.
    ("control", &["room", "transport"]),
    ("worker", &["net", "rtp", "transport", "congestion", "room", "control"]),
    ("signal", &["rtp", "control", "room", "transport"]),
    // Hands each part its own settings.
    ("config", &["worker", "signal"]),
    ("server", &["config", "net", "transport", "room", "control", "worker", "signal"]),
];

/// What everybody may use.
const COMMON: &[&str] = &["id", "units", "observe"];

/// Modules that see of another only the types at its root: (user, used, exceptions).
const TYPES_ONLY: &[(&str, &str, &[&str])] = &[
    ("signal", "room", &[]),
    ("signal", "transport", &[]),
    ("signal", "rtp", &["extension"]),
    ("control", "room", &[]),
    ("control", "transport", &[]),
];

/// Modules without socket, clock, lock, task or thread.
const SANS_IO: &[&str] = &["rtp", "transport", "congestion", "room"];
const IO: &[&str] = &[
    "tokio",
    "thread",
    "Mutex",
    "RwLock",
    "Condvar",
    "mpsc",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "socket2",
    "fs",
];

/// Who may ask what time it is; everybody else is told.
const CLOCKS: &[&str] = &["worker/run.rs", "signal/"];

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for file in sources() {
        for path in paths(&file) {
            wrong.extend(objection(&file, &path));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn system_calls_stand_in_net_only() {
    let unsafe_files: Vec<_> = sources()
        .filter(|file| words(&file.code).any(|word| word == "unsafe"))
        .map(|file| file.name)
        .collect();
    assert!(!unsafe_files.is_empty(), "the search finds what is there");
    assert!(unsafe_files.iter().all(|name| name.starts_with("net/")), "{unsafe_files:?}");
}

#[test]
fn only_the_thread_and_the_door_ask_for_the_time() {
    let asks = |file: &Source| {
        ["Instant::now", "SystemTime::now", "Utc::now"].iter().any(|now| file.code.contains(now))
    };
    let asking: Vec<_> = sources().filter(asks).map(|file| file.name).collect();
    let allowed = |name: &String| CLOCKS.iter().any(|clock| name.starts_with(clock));
    assert!(!asking.is_empty(), "the search finds what is there");
    assert!(asking.iter().all(allowed), "{asking:?}");
}

#[test]
fn the_core_holds_no_socket_lock_task_or_thread() {
    for file in sources().filter(|file| SANS_IO.contains(&file.layer())) {
        let found: Vec<_> = words(&file.code).filter(|word| IO.contains(word)).collect();
        assert!(found.is_empty(), "{} uses {found:?}", file.name);
    }
}

#[test]
fn every_module_has_its_place() {
    let layers: BTreeSet<_> = sources().map(|file| file.layer().to_owned()).collect();
    for layer in &layers {
        assert!(MAY_USE.iter().any(|(known, _)| known == layer), "{layer} is not in the table of layers");
    }
}

#[test]
fn the_reader_understands_paths() {
    let file = Source {
        name: "room/slot.rs".into(),
        code: code(
            "use crate::{signal::{room, ws}, id::*};\n// crate::server\nfn f() { \"crate::net\"; super::super::worker::x(); super::nack::y() }",
        ),
    };
    let found = paths(&file);
    let expected = ["signal::room", "signal::ws", "id::*", "worker::x", "room::nack::y"];
    assert_eq!(found, expected.map(|path| path.split("::").map(str::to_owned).collect::<Vec<_>>()));
    assert!(objection(&file, &found[0]).is_some() && objection(&file, &found[2]).is_none());
    assert_eq!(code("a /* b \" */ 'c' '\\'' '\"' r#\"d\" e\"# 'life f"), "a      'life f");
    assert_eq!(without_tests("a #[cfg(test)]\nmod tests { { b } } c"), "a  c");
}

/// Why this file may not use this path.
fn objection(file: &Source, path: &[String]) -> Option<String> {
    let (user, used) = (file.layer(), path.first()?.as_str());
    let complaint = || Some(format!("src/{}: {user} uses {}", file.name, path.join("::")));
    if user == used || COMMON.contains(&used) {
        return None;
    }
    let (_, may_use) = MAY_USE.iter().find(|(known, _)| *known == user)?;
    if !may_use.contains(&used) {
        return complaint();
    }
    let only_types = TYPES_ONLY.iter().find(|(a, b, _)| (*a, *b) == (user, used));
    let inner = path.get(1)?;
    match only_types {
        Some((_, _, exceptions)) if is_module(inner) && !exceptions.contains(&inner.as_str()) => complaint(),
        _ => None,
    }
}

fn is_module(name: &str) -> bool {
    name == "*" || name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// A file of the library, without comments, strings and tests.
struct Source {
    /// Below src/.
    name: String,
    code: String,
}

impl Source {
    fn layer(&self) -> &str {
        self.name.split(['/', '.']).next().unwrap_or_default()
    }

    /// The modules that the file is in, itself included.
    fn module(&self) -> Vec<String> {
        let path = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').map(str::to_owned).collect()
    }
}

fn sources() -> impl Iterator<Item = Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let texts: Vec<_> = files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("readable");
            let name = path.strip_prefix(&root).expect("below src/").to_string_lossy().into_owned();
            Source { name, code: code(&text) }
        })
        .collect();
    // Modules that exist in tests only.
    let tests: BTreeSet<_> = texts.iter().flat_map(test_modules).collect();
    assert!(texts.len() > 50, "the search finds what is there");
    texts
        .into_iter()
        .filter(move |file| {
            let module = file.module();
            let is_test = (1..=module.len()).any(|len| tests.contains(&module[..len]));
            !is_test && !["lib.rs", "main.rs"].contains(&file.name.as_str())
        })
        .map(|file| Source { code: without_tests(&file.code), ..file })
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
}

/// The modules of `#[cfg(test)] mod name;` in a file.
fn test_modules(file: &Source) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for after in file.code.split("#[cfg(test)]").skip(1) {
        let mut next = words(after).skip_while(|word| word.starts_with("pub") || *word == "crate");
        let ends = after.find(';') < after.find('{') || !after.contains('{');
        if let (Some("mod"), Some(name), true) = (next.next(), next.next(), ends && after.contains(';')) {
            let mut module = file.module();
            module.push(name.to_owned());
            found.push(module);
        }
    }
    found
}

/// Cuts out what stands in braces after `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut left = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        left.push_str(&rest[..at]);
        rest = &rest[at..];
        let (open, end) = (rest.find('{'), rest.find(';'));
        let cut = match (open, end) {
            (Some(open), end) if end.is_none_or(|end| open < end) => closing(rest, open),
            (_, Some(end)) => end + 1,
            _ => rest.len(),
        };
        rest = &rest[cut..];
    }
    left + rest
}

/// Where the brace that opens at `open` has been closed.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// All paths of this crate that a file names, from the root on.
fn paths(file: &Source) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = file.code.as_str();
    let mut last = ' ';
    while let Some(first) = rest.chars().next() {
        let start =
            [("crate::", true), ("super::", false)].into_iter().find(|(word, _)| rest.starts_with(word));
        match start {
            Some((word, from_root)) if !is_word(last) && last != ':' => {
                let mut base = if from_root { Vec::new() } else { file.module() };
                base.truncate(base.len().saturating_sub(usize::from(!from_root)));
                rest = &rest[word.len()..];
                while let Some(further) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = further;
                }
                rest = &rest[tree(rest, &base, &mut found)..];
                last = ' ';
            }
            _ => {
                last = first;
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    found
}

/// Reads the rest of a path, or a group of them in braces; returns its length.
fn tree(text: &str, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    if let Some(group) = text.strip_prefix('{') {
        let mut at = 0;
        loop {
            at += group[at..].len() - group[at..].trim_start_matches([' ', '\n', ',']).len();
            if at >= group.len() || group[at..].starts_with('}') {
                return at + 2;
            }
            let taken = tree(&group[at..], base, found);
            at += taken;
            if taken == 0 {
                return at + 1;
            }
        }
    }
    let len = text.find(|c: char| !is_word(c) && c != '*').unwrap_or(text.len());
    let mut path = base.to_vec();
    path.push(text[..len].to_owned());
    match text[len..].strip_prefix("::") {
        Some(rest) if rest.starts_with(|c: char| is_word(c) || c == '{' || c == '*') => {
            len + 2 + tree(rest, &path, found)
        }
        _ => {
            found.push(path);
            len
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

/// The text without comments and literals.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let begins = |word: &str| rest.starts_with(word) && !code.ends_with(is_word);
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if begins("r\"") || begins("r#") {
            let fence = format!("\"{}", "#".repeat(rest[1..].find('"').unwrap_or(0)));
            let open = 1 + fence.len();
            rest[open..].find(&fence).map_or(rest.len(), |end| open + end + fence.len())
        } else if first == '"' {
            literal(rest, '"').unwrap_or(rest.len())
        } else if first == '\'' {
            // A character, or a lifetime.
            literal(rest, '\'').filter(|_| is_character(rest)).unwrap_or(0)
        } else {
            0
        };
        if skip == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            rest = &rest[skip..];
        }
    }
    code
}

fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Length of a literal with its quotes.
fn literal(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().skip(1).find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at + 1)
    })
}
