//! `berth demo`: the patent's worked example (Figs. 3A and 4A), live; with
//! `--full` every other command on main storage after it.

mod full;
mod watch;

use crate::own_host::{OwnHost, OwnHostError};
use watch::Watch;

/// The host file of the worked example.
const HOST_FILE: &str = include_str!("../../../../examples/worked-example/berth.toml");

/// Why the demonstration came to no good end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error(transparent)]
    Host(#[from] OwnHostError),
    #[error("the guest in {guest} did not come through: {what}")]
    Broken { guest: String, what: String },
    #[error("the guest in {guest} does not say how much memory it has, but: {said}")]
    Memory { guest: String, said: String },
}

/// Runs the demonstration.
pub(crate) fn run(full: bool) -> Result<(), DemoError> {
    println!("Main storage of 509 MB with two Debian guests. Images are built the first time.\n");
    let host = OwnHost::up(HOST_FILE)?;
    let mut guests = if full {
        vec![Watch::start(&host, "lpar1", 32)?, Watch::start(&host, "lpar2", 64)?]
    } else {
        vec![Watch::start(&host, "lpar2", 64)?]
    };

    println!("\nFig. 3A, before the move:\n");
    host.show(&["status"])?;
    println!();
    host.show(&["move", "lpar2", "--to", "192M"])?;
    watch::all_went_on(&mut guests)?;
    println!("\nFig. 4A, after it:\n");
    host.show(&["status"])?;
    if full {
        full::run(&host, &mut guests)?;
    }
    for guest in guests {
        guest.prove()?;
    }
    println!();
    Ok(host.down()?)
}
