//! Embeds the guest programs' sources, which the image builder compiles with
//! the distribution's compiler when an image is built.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let crates = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    let mut out = String::from("&[\n");
    for name in ["agent", "agent_protocol", "guest_bench"] {
        let dir = crates.join(name).join("src");
        println!("cargo:rerun-if-changed={}", dir.display());
        let mut files = Vec::new();
        collect(&dir, &mut files)?;
        files.sort();
        for file in files {
            let inside = file.strip_prefix(&dir)?;
            writeln!(out, "    (\"{name}/{}\", include_str!({file:?})),", inside.display())?;
        }
    }
    out.push_str("]\n");
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("guest_sources.rs"), out)?;
    Ok(())
}
