//! The `berth` program: the command line of the host, and the host itself.
//!
//! `args` is what clap reads; every other module is a command or a few, each
//! an ordinary client of the host ([`operator_client`]), but for `up`, which is
//! the host, and `worker`, `keeper`, `file-manager` and `database-manager`, which the
//! host starts.

mod allocate;
mod api;
mod args;
mod audit;
mod bench;
#[expect(dead_code, reason = "tests of the page use the rest of it")]
mod browser;
mod commands;
mod console;
mod database;
mod demo;
mod doctor;
mod ended;
mod exec;
mod files;
mod images;
mod own_host;
mod pool;
mod reach;
mod storage;
mod table;
mod top;
mod up;
mod user;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde::Serialize;

use args::{Cli, Command, Global};

/// Why a command did not do what it should; exit status 1.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    StateDir(#[from] host::StateDirError),
    #[error(transparent)]
    Client(#[from] operator_client::ClientError),
    #[error(transparent)]
    Host(#[from] host::HostError),
    #[error("{path}: {source}")]
    HostFile { path: String, source: host::host_file::HostFileError },
    #[error(transparent)]
    Image(#[from] image::BuildError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Demo(#[from] demo::DemoError),
    #[error(transparent)]
    Bench(#[from] bench::Failed),
    #[error("{0}")]
    Other(String),
    /// Said already, in the shape the command promises.
    #[error("refused")]
    Said,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.global.json;
    let result = run(cli);
    match result {
        Ok(status) => status,
        Err(Failure::Said) => ExitCode::FAILURE,
        Err(failure) => {
            let reason = host::in_full(&failure);
            eprintln!("berth: {reason}");
            if json {
                print_json(&serde_json::json!({ "result": "failed", "reason": reason }));
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Worker => {
            say_what_happens(false);
            return Ok(host::worker::main());
        }
        Command::Keeper => {
            say_what_happens(false);
            return Ok(host::keeper::main());
        }
        Command::FileManager => {
            say_what_happens(false);
            return Ok(host::files::main());
        }
        Command::DatabaseManager => {
            say_what_happens(false);
            return Ok(host::database::main());
        }
        Command::Up(args) => up::up(global, &args)?,
        Command::Down => up::down(global)?,
        Command::Status => commands::status(global)?,
        Command::Doctor => doctor::doctor(global)?,
        Command::Top => top::top(global)?,
        Command::Pool(command) => pool::pool(global, &command)?,
        Command::Files(command) => files::files(global, &command)?,
        Command::Database(command) => database::database(global, &command)?,
        Command::Open { role } => api::open(global, role)?,
        Command::Api(command) => api::api(global, &command)?,
        Command::Audit(args) => audit::audit(global, &args)?,
        Command::User(command) => user::user(global, &command)?,
        Command::Create(args) => commands::create(global, &args)?,
        Command::Delete(args) => commands::delete(global, &args)?,
        Command::Start(args) => commands::start(global, &args)?,
        Command::Stop(args) => commands::stop(global, &args)?,
        Command::Restart(args) => commands::restart(global, &args)?,
        Command::Move(args) => commands::relocate(global, &args)?,
        Command::Exchange(args) => storage::exchange(global, &args)?,
        Command::Expand(args) => storage::expand(global, &args)?,
        Command::Shrink(args) => storage::shrink(global, &args)?,
        Command::Compact(args) => storage::compact(global, &args)?,
        Command::Exec(args) => return exec::exec(global, args),
        Command::Allocate(args) => return allocate::allocate(global, &args),
        Command::Console(args) => console::console(global, &args)?,
        Command::Image(command) => images::images(global, &command)?,
        Command::Demo { full } => demo::run(full)?,
        Command::Bench(command) => bench::bench(global, &command)?,
        Command::Man { directory } => {
            std::fs::create_dir_all(&directory)?;
            clap_mangen::generate_to(Cli::command(), &directory)?;
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "berth", &mut script);
            std::io::stdout().write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The state directory that the command line or the environment names.
fn state_dir(global: &Global) -> Result<host::StateDir, Failure> {
    if let Some(host) = &global.remote.host {
        return Err(Failure::Other(format!(
            "this is done on the host's own machine; leave out --host and BERTH_HOST ({host})"
        )));
    }
    Ok(host::StateDir::choose(global.state_dir.clone())?)
}

/// Shows events on standard error; `RUST_LOG` chooses which.
fn say_what_happens(json: bool) {
    use tracing_subscriber::filter::{EnvFilter, LevelFilter};
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let events = tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    // Only the first call of a process counts, and there is one.
    let _ = if json { events.json().try_init() } else { events.try_init() };
}

/// Prints one line of JSON. A reader that has gone away is no failure of ours.
fn print_json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// Prints for people.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
