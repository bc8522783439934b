//! `berth bench files`: the host's files in a guest of Berth's, by the file manager, and
//! in the same guest in QEMU, by virtiofsd.
//!
//! Both keep nothing of files and names in the guest: every read, write and lookup
//! asks. The spaces are directories in the same temporary directory.

use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use file_manager::{Client, FileManager, Quota, Request, Service};
use io_processors::FsRequest;
use machine::Machine;
use service_pool::UserId;
use storage_window::bench::median;
use tempfile::TempDir;

use super::Rows;
use super::cpu::{
    CpuBenchError, Guest, Peer, STORAGE, in_berth, in_qemu, qemu_is_installed, speeds,
};
use super::transcript::Transcript;

/// Where Debian's packages have QEMU's server of files.
const SERVERS: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];
/// How long it may take to begin.
const BEGINS: Duration = Duration::from_secs(10);
/// What has the guest's first process look at files.
const WORD: &str = "bench=files";
/// Whose files they are.
const USER: &str = "bench";

/// Runs the guest `rounds` times in Berth and, where it is installed, in QEMU.
pub(crate) fn run(
    guest: &Guest,
    rounds: usize,
    note: &dyn Fn(&str),
) -> Result<Rows, CpuBenchError> {
    let command_line = format!("{WORD} {}", guest.command_line);
    let guest = Guest { files: true, command_line, ..guest.clone() };
    let server = SERVERS.iter().map(Path::new).find(|path| path.exists());
    let server = server.filter(|_| qemu_is_installed());
    if server.is_none() {
        note(
            "qemu-system-riscv64 or virtiofsd is not installed (Debian: qemu-system-misc, \
             virtiofsd): no reference",
        );
    }
    let (mut berth, mut qemu) = (Vec::new(), Vec::new());
    for round in 0..rounds.max(1) {
        note(&format!("round {} of {rounds}", round + 1));
        berth.push(by_file_manager(&guest)?);
        qemu.extend(server.map(|server| by_virtiofsd(&guest, server)).transpose()?);
    }
    let qemu = middle(qemu);
    let berth = middle(berth).ok_or_else(|| CpuBenchError::Files("no round".to_owned()))?;
    speeds("files.speed_vs_qemu", "in QEMU", &berth, qemu.as_ref()).map(|rows| Rows { rows })
}

/// Has the median of each program's times.
fn middle(rounds: Vec<Transcript>) -> Option<Transcript> {
    let times = |program: &str| {
        let outcomes = rounds.iter().filter_map(|round| round.outcomes.get(program));
        outcomes.map(|outcome| outcome.time.as_secs_f64()).collect::<Vec<_>>()
    };
    let names: Vec<String> = rounds.first()?.outcomes.keys().cloned().collect();
    let medians: Vec<f64> = names.iter().map(|name| median(times(name))).collect();
    let mut middle = rounds.into_iter().next()?;
    for (name, time) in names.iter().zip(medians) {
        if let Some(outcome) = middle.outcomes.get_mut(name) {
            outcome.time = Duration::from_secs_f64(time);
        }
    }
    Some(middle)
}

fn failed(error: &dyn std::fmt::Display) -> CpuBenchError {
    CpuBenchError::Files(error.to_string())
}

fn by_file_manager(guest: &Guest) -> Result<Transcript, CpuBenchError> {
    let dir = TempDir::new().map_err(|error| failed(&error))?;
    let (folder, table) = (dir.path().join("spaces"), dir.path().join("access.json"));
    let manager = FileManager::open(&folder, &table, Quota::default());
    let service = Service::new(Arc::new(manager.map_err(|error| failed(&error))?));
    let client = RefCell::new(None);
    let outcome = in_berth(guest, &|machine| {
        let joined = join(machine, &service)?;
        client.replace(Some(joined));
        Ok(())
    });
    service.end(USER);
    outcome
}

/// Joins the machine's device and the file manager, as a worker does.
fn join(machine: &Machine, service: &Service) -> Result<Client, CpuBenchError> {
    let device = machine.files().ok_or_else(|| failed(&"the machine has no device for them"))?;
    let replies = device.clone();
    let client = Client::start(Box::new(move |number, reply| replies.reply(number, reply)));
    let client = client.map_err(|error| failed(&error))?;
    let requests = client.sender();
    device.serve(move |FsRequest { number, bytes, room }| {
        requests.send(Request { tag: number, room, bytes });
    });
    let (ours, theirs) = UnixStream::pair().map_err(|error| failed(&error))?;
    let user = UserId::new(USER).map_err(|error| failed(&error))?;
    service.begin(USER, Some((user, vec![])), ours).map_err(|error| failed(&error))?;
    client.connect(theirs).map_err(|error| failed(&error))?;
    Ok(client)
}

fn by_virtiofsd(guest: &Guest, server: &Path) -> Result<Transcript, CpuBenchError> {
    let dir = TempDir::new().map_err(|error| failed(&error))?;
    let (socket, folder) = (dir.path().join("socket"), dir.path().join("files"));
    // The guest uses the first directory that it finds, as in Berth.
    std::fs::create_dir_all(folder.join(USER)).map_err(|error| failed(&error))?;
    let _server = serve(server, &socket, &folder).map_err(|error| {
        failed(&format!("{} does not serve ({error}); it needs root", server.display()))
    })?;
    let text = |path: &Path| path.display().to_string();
    let megabytes = STORAGE >> 20;
    let more = [
        "-object".to_owned(),
        format!("memory-backend-memfd,id=storage,size={megabytes}M,share=on"),
        "-machine".to_owned(),
        "memory-backend=storage".to_owned(),
        "-global".to_owned(),
        "virtio-mmio.force-legacy=false".to_owned(),
        "-chardev".to_owned(),
        format!("socket,id=files,path={}", text(&socket)),
        "-device".to_owned(),
        "vhost-user-fs-device,chardev=files,tag=berth".to_owned(),
    ];
    in_qemu(guest, &more)
}

/// Starts virtiofsd; it listens when this returns.
fn serve(server: &Path, socket: &Path, folder: &Path) -> io::Result<Peer> {
    let mut child = Command::new(server);
    child.arg(format!("--socket-path={}", socket.display())).arg("-o");
    child.arg(format!("source={},cache=none", folder.display()));
    let child = child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut peer = Peer(child.spawn()?);
    let deadline = Instant::now() + BEGINS;
    while !socket.exists() {
        if let Some(status) = peer.0.try_wait()? {
            return Err(io::Error::other(format!("it ended: {status}")));
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_of_the_rounds() {
        let round = |nanos: u64| {
            let now = Instant::now();
            let mut transcript = Transcript::new(now);
            let said = format!("BENCH read_64k {nanos} a\nBENCH-END\n");
            transcript.feed(said.as_bytes(), now);
            transcript
        };
        let middle = middle(vec![round(5), round(100), round(7)]).unwrap();
        assert_eq!(middle.outcomes["read_64k"].time, Duration::from_nanos(7));
        assert!(super::middle(vec![]).is_none());
    }
}
