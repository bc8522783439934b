//! Holds ARCHITECTURE.md against the tree: what it names exists, and crates
//! depend only on crates of lower layers.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

/// The crates of the code map, lowest layer first.
fn layers() -> Vec<String> {
    page()
        .lines()
        .filter_map(|line| line.strip_prefix("- `crates/"))
        .filter_map(|rest| rest.split('`').next())
        .filter(|name| !name.contains('/'))
        .map(str::to_owned)
        .collect()
}

/// Berth's own crates among the `[dependencies]` of `name`.
fn dependencies(name: &str, crates: &[String]) -> Vec<String> {
    let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let Some(toml::Value::Table(dependencies)) = manifest.get("dependencies") else {
        return Vec::new();
    };
    dependencies.keys().filter(|name| crates.contains(name)).cloned().collect()
}

#[test]
fn every_path_the_page_names_exists() {
    let page = page();
    let named: Vec<&str> =
        page.split('`').skip(1).step_by(2).filter(|text| text.starts_with("crates/")).collect();
    assert!(named.len() > 10, "the page names its crates");
    for path in named {
        assert!(root().join(path).exists(), "{path} is named and not there");
    }
}

#[test]
fn the_code_map_lists_every_crate() {
    let mut listed = layers();
    let mut there: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    listed.sort();
    there.sort();
    assert_eq!(listed, there);
}

#[test]
fn crates_depend_on_lower_layers_only() {
    let crates = layers();
    let layer: BTreeMap<&str, usize> =
        crates.iter().enumerate().map(|(layer, name)| (name.as_str(), layer)).collect();
    for name in &crates {
        for dependency in dependencies(name, &crates) {
            assert!(
                layer[dependency.as_str()] < layer[name.as_str()],
                "{name} must not depend on {dependency}, which the page puts above it"
            );
        }
    }
}
