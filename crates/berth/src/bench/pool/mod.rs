//! `berth bench pool`: what conversations with a pool's machines cost.
//!
//! A host of its own has a pool of [`MACHINES`] and one partition that boots
//! as usual. [`talk`] measures what users see, [`machines`] what becomes of
//! the machines; [`rows`] says what stands beside what.

mod machines;
mod rows;
mod talk;

use std::time::Duration;

use lu62::{CallError, Partner};
use storage_window::bench::{BenchError, Memcpy};

use super::Rows;
use crate::own_host::{OwnHost, OwnHostError};
use machines::Machines;
use rows::Figures;

/// Machines of the pool.
const MACHINES: u16 = 15;
/// Their size, and that of the partition that is booted.
const MACHINE_MIB: u64 = 128;
/// The pool, and the partition beside it.
const POOL: &str = "bench";
const COLD: &str = "cold";
/// Initialised when the pool is made: it answers on the socket it was passed.
const ECHO: &str = r#"import os, socket
waiting = socket.socket(fileno=3)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    conversation, _ = waiting.accept()
    with conversation:
        try:
            while piece := conversation.recv(65536):
                conversation.sendall(piece)
        except OSError:
            continue
"#;
/// What one conversation writes into a machine's memory.
const WRITTEN_MIB: u64 = 16;
/// Conversations one after another in each round, for the first byte.
const CONVERSATIONS: usize = 40;
/// Users at once, and how often each allocates and deallocates.
const CLIENTS: usize = 8;
const CYCLES: usize = 50;
/// Whatever is waited for has failed when it takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolBenchError {
    #[error(transparent)]
    Bare(#[from] BenchError),
    #[error(transparent)]
    Host(#[from] OwnHostError),
    #[error("a conversation failed")]
    Call(#[from] CallError),
    #[error("the program answered {heard:?} to {said:?}")]
    Answer { said: String, heard: String },
    #[error("waited {} s in vain for {what}; the host said: {last}", PATIENCE.as_secs())]
    InVain { what: &'static str, last: String },
    #[error("the capture of the pool cannot be looked at")]
    Capture(#[source] std::io::Error),
    #[error("no round trips over a socket of our own")]
    Socket(#[source] std::io::Error),
    #[error("a client's thread failed")]
    Client,
}

/// Measures `rounds` rounds; `note` is told what happens.
pub(crate) fn run(rounds: usize, note: &dyn Fn(&str)) -> Result<Rows, PoolBenchError> {
    note(&format!("starting a host with a pool of {MACHINES} machines of {MACHINE_MIB}M"));
    let mut host = OwnHost::up(&host_file())?;
    let dir = host.state_dir()?;
    let partner = Partner::Socket(dir.gateway_socket());
    let mut figures = Figures::default();
    for start in 0..rounds.max(1) {
        note(&format!("start {} of {rounds} with the capture on disk", start + 1));
        figures.warm_us.push(host.restart()?.as_secs_f64() * 1e6);
    }
    let machines = Machines::of(&host)?;
    let mut echo = talk::Echo::start()?;
    let mut memcpy = Memcpy::new(WRITTEN_MIB << 20)?;
    figures.capture_bytes = machines::stored(&dir.captures().join(POOL).join("storage"))?;
    for round in 0..rounds.max(1) {
        note(&format!("round {} of {rounds}", round + 1));
        figures.memcpy.push(memcpy.run());
        figures.echo_us.extend(talk::echoes(&partner, CONVERSATIONS)?);
        for _ in 0..CONVERSATIONS {
            figures.socket_us.push(echo.round_trip()?);
            let mut took = 0.0;
            let served = machines.reset_after(|| {
                took = talk::first_byte(&partner, "echo")?;
                Ok(())
            })?;
            figures.first_byte_us.push(took);
            let machine = served.first_output_us.map(|micros| took - micros as f64);
            figures.host_us.extend(machine);
            figures.started_us.push(talk::first_byte(&partner, "started")?);
            machines.await_free(MACHINES)?;
        }
        figures.resets.push(machines.reset_after(|| talk::write(&partner))?);
        figures.member_us.push(machines.remake()?);
        figures.boot_us.push(machines.boot()?);
        figures.claims_per_second.push(talk::claims(&partner, CLIENTS, CYCLES)?);
        machines.await_free(MACHINES)?;
    }
    Ok(Rows { rows: rows::of(&figures) })
}

fn host_file() -> String {
    let total = (u64::from(MACHINES) + 1) * MACHINE_MIB;
    // Then it waits for the end of its input: it is the user who deallocates.
    let write =
        format!("dd if=/dev/zero of=/run/written bs=1M count={WRITTEN_MIB} 2>&1; cat > /dev/null");
    format!(
        r#"[main_storage]
size = "{total}M"

[[partition]]
name = "{COLD}"
size = "{MACHINE_MIB}M"
image = "python"
autostart = false

[[pool]]
name = "{POOL}"
count = {MACHINES}
size = "{MACHINE_MIB}M"
image = "python"
anybody = true

[[pool.program]]
tpn = "echo"
service = ["/usr/bin/python3", "-c", '''
{ECHO}''']

[[pool.program]]
tpn = "started"
run = ["/bin/cat"]

[[pool.program]]
tpn = "write"
run = ["/bin/sh", "-c", "{write}"]
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_file_has_room_for_all_and_the_programs() {
        let file: toml::Value = toml::from_str(&host_file()).unwrap();
        assert_eq!(file["main_storage"]["size"].as_str(), Some("2048M"));
        let pool = &file["pool"][0];
        assert_eq!(pool["count"].as_integer(), Some(15));
        let programs: Vec<_> =
            pool["program"].as_array().unwrap().iter().map(|one| one["tpn"].as_str()).collect();
        assert_eq!(programs, [Some("echo"), Some("started"), Some("write")]);
    }
}
