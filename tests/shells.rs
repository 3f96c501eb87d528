//! Every function that is fuzzed has a shell for libFuzzer.

use std::collections::BTreeSet;
use std::path::Path;

fn names(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    let sources = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    sources.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

#[test]
fn every_fuzzed_function_has_a_shell() {
    let mut functions = names("tests/fuzz");
    assert!(functions.remove("mod"), "the driver, for `cargo test` only");
    assert_eq!(functions, names("fuzz/targets"));
    let manifest = include_str!("../fuzz/Cargo.toml");
    for name in functions {
        let path = format!("path = \"targets/{name}.rs\"");
        assert!(manifest.contains(&path), "fuzz/Cargo.toml names {name}");
    }
}
