//! What the documents say of the tree is true. (Messages, reasons and settings are compared beside their enums.)

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DOCUMENTS: &[&str] =
    &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "OPERATIONS.md", "PROTOCOL.md", "CHANGELOG.md"];

/// Folders of the tree that documents point into.
const FOLDERS: &[&str] = &["src/", "client/", "tests/", "loadtest/", "docs/", ".ci/"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backquotes, outside of blocks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("\n```").step_by(2);
    prose.flat_map(|prose| prose.split('`').skip(1).step_by(2))
}

/// Targets of links that lie in the tree.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

/// A file or folder, or a stage: `net/udp` for src/net/udp.rs.
fn exists(path: &str) -> bool {
    let module = root().join("src").join(path);
    root().join(path).exists() || module.with_extension("rs").exists() || module.join("mod.rs").exists()
}

#[test]
fn files_and_folders_that_are_named_exist() {
    let stages = ["net/", "transport/", "rtp/", "room/", "worker/", "signal/", "observe/"];
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = read(document);
        let is_path = |name: &&str| {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
            plain && FOLDERS.iter().chain(&stages).any(|folder| name.starts_with(folder))
        };
        let named: BTreeSet<_> = links(&text).chain(quoted(&text).filter(is_path)).collect();
        missing
            .extend(named.into_iter().filter(|name| !exists(name)).map(|name| format!("{document}: {name}")));
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn the_map_names_modules_that_exist() {
    let map = read("src/lib.rs");
    let mut seen = 0;
    for link in map.split("[`").skip(1).filter_map(|rest| rest.split("`]").next()) {
        let path: Vec<_> =
            link.split("::").take_while(|name| name.starts_with(|c: char| c.is_lowercase())).collect();
        assert!(exists(&path.join("/")), "src/lib.rs: {link}");
        seen += 1;
    }
    assert!(seen > 15, "the search finds what is there");
}

#[test]
fn commands_name_targets_that_exist() {
    let manifest = read("Cargo.toml");
    for document in DOCUMENTS {
        let text = read(document);
        for kind in ["bench", "example", "test"] {
            for rest in text.split(&format!("--{kind} ")).skip(1) {
                let name = rest
                    .split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_')
                    .next()
                    .unwrap_or_default();
                let target = format!("[[{kind}]]\nname = \"{name}\"");
                assert!(name.is_empty() || manifest.contains(&target), "{document}: --{kind} {name}");
            }
        }
    }
}

#[test]
fn every_sabotage_says_what_it_breaks_and_which_test_notices() {
    let mut patches = 0;
    for entry in fs::read_dir(root().join("tests/sabotage")).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        let lines: Vec<_> = text.lines().take(3).collect();
        let headed = lines[0].starts_with("# test: ") && lines[1].starts_with("# why: ");
        assert!(headed && lines[2].starts_with("diff --git "), "{}", path.display());
        patches += 1;
    }
    assert!(patches >= 20, "{patches}");
}

#[test]
fn nothing_points_outside_the_tree() {
    let listed = Command::new("git").arg("ls-files").current_dir(root()).output().expect("git");
    let files = String::from_utf8(listed.stdout).expect("names are UTF-8");
    for file in files.lines().filter(|file| *file != "tests/docs.rs" && is_text(Path::new(file))) {
        let Ok(text) = fs::read_to_string(root().join(file)) else { continue };
        for foreign in ["../shared", "DESIGN.md", "FACTS.md", "BROWSERS.md", "/work/", "/farm/"] {
            assert!(!text.contains(foreign), "{file} mentions {foreign}");
        }
    }
}

fn is_text(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["rs", "md", "js", "ts", "toml", "sh", "html", "css", "json", ""].contains(&extension)
}
