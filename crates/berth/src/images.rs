//! `berth image`: build, list, remove; and how a build's progress is shown.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use image::{Image, Phase, Progress, Recipe};

use crate::args::{Global, ImageCommand};
use crate::up::store;
use crate::{Failure, print, print_json};

pub(crate) fn images(global: &Global, command: &ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Build { recipe } => build(global, recipe),
        ImageCommand::List => list(global),
        ImageCommand::Rm { name } => {
            store()?.remove(name)?;
            if global.json {
                print_json(&serde_json::json!({ "result": "removed", "name": name }));
            } else {
                println!("image {name} is removed");
            }
            Ok(())
        }
    }
}

fn build(global: &Global, recipe: &str) -> Result<(), Failure> {
    let recipe = Recipe::find(recipe)?;
    let image = store()?.build(&recipe, &Terminal::new(&recipe.name))?;
    if global.json {
        let mut row = row(&image);
        row["result"] = "built".into();
        print_json(&row);
    } else {
        println!(
            "image {} is built ({} of {})",
            image.name, image.manifest.kernel, image.manifest.suite
        );
    }
    Ok(())
}

fn list(global: &Global) -> Result<(), Failure> {
    let images = store()?.list()?;
    if global.json {
        let rows: Vec<_> = images.iter().map(row).collect();
        print_json(&serde_json::json!({ "images": rows }));
        return Ok(());
    }
    let mut out = format!("{:<20}  {:<10}  {:<24}  {:>6}\n", "NAME", "SUITE", "KERNEL", "SIZE");
    for image in &images {
        let manifest = &image.manifest;
        out += &format!(
            "{:<20}  {:<10}  {:<24}  {:>5}M\n",
            image.name,
            manifest.suite,
            manifest.kernel,
            bytes(image).div_ceil(1 << 20)
        );
    }
    if images.is_empty() {
        let known: Vec<_> = Recipe::built_in().collect();
        out = format!("no images yet; `berth image build` makes one of: {}\n", known.join(", "));
    }
    print(&out);
    Ok(())
}

/// What an image's files hold, holes not counted as they cost nothing.
fn bytes(image: &Image) -> u64 {
    let files = [&image.kernel, &image.initrd, &image.root];
    files.iter().filter_map(|path| Some(std::fs::metadata(path).ok()?.len())).sum()
}

fn row(image: &Image) -> serde_json::Value {
    serde_json::json!({
        "name": image.name,
        "suite": image.manifest.suite,
        "kernel": image.manifest.kernel,
        "bytes": bytes(image),
        "fixed_memory": image.manifest.fixed_memory,
    })
}

/// Shows a build's progress on standard error: one line that changes in a
/// terminal, one line per phase elsewhere.
pub(crate) struct Terminal {
    image: String,
    live: bool,
    phase: Cell<Option<Phase>>,
    drawn: Cell<Option<Instant>>,
}

impl Terminal {
    pub(crate) fn new(image: &str) -> Self {
        let live = std::io::stderr().is_terminal();
        Self { image: image.to_owned(), live, phase: Cell::new(None), drawn: Cell::new(None) }
    }

    fn line(&self, text: &str) {
        if self.live {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }
}

impl Progress for Terminal {
    fn phase(&self, phase: Phase) {
        self.phase.set(Some(phase));
        self.line(&format!("image {}: {phase}", self.image));
    }

    fn advance(&self, done: u64, total: u64) {
        // A terminal is slow to draw; ten times a second is enough.
        let due = self.drawn.get().is_none_or(|at| at.elapsed() > Duration::from_millis(100));
        let (Some(phase), true, true) = (self.phase.get(), self.live, due && total > 0) else {
            return;
        };
        self.drawn.set(Some(Instant::now()));
        let percent = done.saturating_mul(100) / total;
        self.line(&format!("image {}: {phase} {percent:3} %", self.image));
    }

    fn notice(&self, message: &str) {
        self.line(&format!("image {}: {message}", self.image));
        if self.live {
            eprintln!();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.live && self.phase.get().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
