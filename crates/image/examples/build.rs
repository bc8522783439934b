//! Builds images: `build [--bench] RECIPE…`.

use std::cell::Cell;
use std::error::Error;

use image::{Dirs, ImageStore, Phase, Progress, Recipe};

struct Lines(Cell<u64>);

impl Progress for Lines {
    fn phase(&self, phase: Phase) {
        self.0.set(0);
        eprintln!("{phase}");
    }

    fn advance(&self, done: u64, total: u64) {
        let quarter = done * 4 / total.max(1);
        if quarter > self.0.replace(quarter) {
            eprintln!("  {}%", quarter * 25);
        }
    }

    fn notice(&self, message: &str) {
        eprintln!("note: {message}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let store = ImageStore::open(Dirs::from_env().ok_or("HOME is not set")?);
    let progress = Lines(Cell::new(0));
    let mut bench = false;
    for argument in std::env::args().skip(1) {
        if argument == "--bench" {
            bench = true;
            continue;
        }
        let result = Recipe::find(&argument).and_then(|recipe| store.ensure(&recipe, &progress));
        let image = result.map_err(|error| error.to_string())?;
        println!("{}: {}", image.name, image.kernel.display());
        if bench {
            let boot = store.bench_initrd(&image, &progress)?;
            println!("bench: {} {}", boot.kernel.display(), boot.initrd.display());
        }
    }
    Ok(())
}
