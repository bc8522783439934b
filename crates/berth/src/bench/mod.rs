//! `berth bench`: this host's numbers beside a peer's or a limit's, measured
//! in the same run. Machines are noisy, so read the ratios.

mod api;
mod cpu;
mod database;
mod files;
mod moves;
mod native;
mod pool;
mod transcript;

use database_manager::{Limits, Login, ServerSpec};
use serde::Serialize;

use crate::args::{BenchCommand, DatabaseBench, Global};
use crate::images::Terminal;
use crate::{Failure, print, print_json};

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Move(#[from] moves::MoveBenchError),
    #[error(transparent)]
    Pool(#[from] pool::PoolBenchError),
    #[error(transparent)]
    Cpu(#[from] cpu::CpuBenchError),
    #[error(transparent)]
    Api(#[from] api::ApiBenchError),
    #[error(transparent)]
    Database(#[from] database::DatabaseBenchError),
}

/// Carries out `berth bench`.
pub(crate) fn bench(global: &Global, command: &BenchCommand) -> Result<(), Failure> {
    let note = |what: &str| eprintln!("{what}");
    let rows = match command {
        BenchCommand::Move { rounds, no_guests } => {
            let guest = if *no_guests { None } else { Some(moving_guest()?) };
            moves::run(*rounds as usize, guest.as_ref(), &note).map_err(Failed::from)?
        }
        BenchCommand::Pool { rounds } => {
            pool::run(*rounds as usize, &note).map_err(Failed::from)?
        }
        BenchCommand::Api { seconds } => api::run(*seconds, &note).map_err(Failed::from)?,
        BenchCommand::Database(args) => {
            let (server, login) = database_of(args)?;
            database::run(&server, &login, args.rounds as usize, &note).map_err(Failed::from)?
        }
        BenchCommand::Cpu { interpret, only, work } => {
            let choice = cpu::Choice { only, work: *work };
            let mut guest = guest(!interpret)?;
            if choice.has_python() {
                guest.python = Some(python()?);
            }
            cpu::run(guest, &choice, &note).map_err(Failed::from)?
        }
        BenchCommand::Files { rounds } => {
            files::run(&guest(false)?, *rounds as usize, &note).map_err(Failed::from)?
        }
    };
    if global.json {
        print_json(&rows);
    } else {
        print(&rows.table());
    }
    Ok(())
}

/// The server, and as whom to connect to it.
fn database_of(args: &DatabaseBench) -> Result<(ServerSpec, Login), Failure> {
    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Failure> {
        text.parse().map_err(|error: T::Err| Failure::Other(error.to_string()))
    }
    let whole = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(std::path::absolute).transpose().map_err(Failure::from)
    };
    let server = ServerSpec {
        address: parse(&args.server)?,
        authority: whole(&args.authority)?,
        credentials: whole(&args.credentials)?,
    };
    let (database, role) = (parse(&args.database)?, parse(&args.role)?);
    Ok((server, Login { database, role, limits: Limits::default() }))
}

/// The guest that runs the programs, built the first time.
fn guest(compile: bool) -> Result<cpu::Guest, Failure> {
    let store = crate::up::store()?;
    let progress = Terminal::new("bench");
    let image = store.ensure(&image::Recipe::find("minimal")?, &progress)?;
    let boot = store.bench_initrd(&image, &progress)?;
    Ok(cpu::Guest {
        kernel: boot.kernel,
        initrd: boot.initrd,
        command_line: boot.command_line,
        compile,
        files: false,
        python: None,
    })
}

/// The disk with Python, built the first time.
fn python() -> Result<std::path::PathBuf, Failure> {
    let recipe = image::Recipe::find("python")?;
    Ok(crate::up::store()?.ensure(&recipe, &Terminal::new("bench"))?.root)
}

/// The guest that is moved: any image's kernel and agent.
fn moving_guest() -> Result<moves::Guest, Failure> {
    let minimal = image::Recipe::find("minimal")?;
    let image = crate::up::store()?.ensure(&minimal, &Terminal::new("minimal"))?;
    let image::Image { kernel, initrd, command_line, .. } = image;
    Ok(moves::Guest { kernel, initrd, command_line })
}

/// One line of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// What was measured; ends in what the ratio compares.
    pub(crate) name: String,
    /// Berth's figure.
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// The peer's or the limit's figure, if it could be measured here.
    pub(crate) reference: Option<f64>,
    /// Their quotient, as the row's name says.
    pub(crate) ratio: Option<f64>,
}

/// All rows of one run, in the shape that `--json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Row>,
}

impl Rows {
    /// The rows as a table for people.
    pub(crate) fn table(&self) -> String {
        let number = |value: f64| match value.abs() {
            0.0..10.0 => format!("{value:.3}"),
            10.0..10_000.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        };
        let optional = |value: Option<f64>| value.map_or_else(|| "-".into(), number);
        let mut table = format!(
            "{:<38} {:>14} {:<6} {:>14} {:>8}\n",
            "NAME", "VALUE", "UNIT", "REFERENCE", "RATIO"
        );
        for row in &self.rows {
            table += &format!(
                "{:<38} {:>14} {:<6} {:>14} {:>8}\n",
                row.name,
                number(row.value),
                row.unit,
                optional(row.reference),
                optional(row.ratio),
            );
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_documented_json_shape() {
        let row =
            Row { name: "a".into(), value: 1.5, unit: "us", reference: None, ratio: Some(2.0) };
        let json = serde_json::to_value(Rows { rows: vec![row] }).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"rows": [
                {"name": "a", "value": 1.5, "unit": "us", "reference": null, "ratio": 2.0}
            ]})
        );
    }
}
