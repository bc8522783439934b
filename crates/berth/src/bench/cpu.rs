//! `berth bench cpu`: the same guest programs in Berth and in QEMU.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use io_processors::{ClientRead, DiskMode};
use machine::{DiskConfig, Machine, MachineConfig, MachineError, memory_map};
use main_storage::{RangeError, StorageRange};
use storage_window::{Backing, CreateError, MainStorage, MapError, StorageWindow};

use super::native;
use super::transcript::{Outcome, Transcript};
use super::{Row, Rows};

/// Storage of the benchmark guest, on both sides.
pub(super) const STORAGE: u64 = 256 << 20;
/// A guest that says nothing new for so long is given up.
const SILENCE: Duration = Duration::from_secs(240);
/// QEMU's program.
pub(super) const QEMU: &str = "qemu-system-riscv64";

/// The benchmark guest.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// Kernel command line without a console: each side adds its own.
    pub(crate) command_line: String,
    /// Whether Berth compiles hot code.
    pub(crate) compile: bool,
    /// Whether it has a device for files.
    pub(crate) files: bool,
    /// The disk of an image with Python, if its program is to be run.
    pub(crate) python: Option<PathBuf>,
}

/// Both show what the kernel says from its first line on.
const BERTH_CONSOLE: &str = "console=hvc0 earlycon=sbi keep_bootcon";
const QEMU_CONSOLE: &str = "console=ttyS0 earlycon";

/// Tells the guest that it has the disk of an image with Python.
const PYTHON_WORD: &str = "bench.python";
/// What that program is called.
const PYTHON: &str = "python";

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CpuBenchError {
    #[error("cannot make main storage for the benchmark guest")]
    Create(#[from] CreateError),
    #[error("cannot map main storage for the benchmark guest")]
    Map(#[from] MapError),
    #[error("the benchmark guest's size is impossible")]
    Range(#[from] RangeError),
    #[error("cannot build the benchmark machine")]
    Machine(#[from] MachineError),
    #[error("cannot run {QEMU}")]
    Qemu(#[source] io::Error),
    #[error("the benchmark guest's files cannot be served: {0}")]
    Files(String),
    #[error("the benchmark guest in {side} did not finish; its last words: {last}")]
    Unfinished { side: &'static str, last: String },
    #[error("the benchmark has no program {name}; without --only it runs all of them")]
    Unknown { name: String },
    #[error("the program in Python does not run in {side}; what it said is on the guest's console")]
    Python { side: &'static str },
    #[error("{program} computes {berth} in Berth and {other} {peer}: one of them is wrong")]
    Disagree { program: String, berth: String, peer: &'static str, other: String },
}

/// Which of the programs are run, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// Their names; empty for all.
    pub(crate) only: &'a [String],
    /// Hundredths of their work.
    pub(crate) work: u32,
}

impl Choice<'_> {
    /// Whether the program in Python is run.
    pub(crate) fn has_python(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == PYTHON)
    }

    /// What the benchmark's program understands, on the kernel's command line or
    /// its own.
    fn words(&self) -> Vec<String> {
        let only = (!self.only.is_empty()).then(|| format!("bench.only={}", self.only.join(",")));
        only.into_iter().chain([format!("bench.work={}", self.work)]).collect()
    }

    /// Fails if a program that was asked for has not run.
    fn check(&self, ran: &Transcript, side: &'static str) -> Result<(), CpuBenchError> {
        if self.has_python() && !ran.outcomes.contains_key(PYTHON) {
            return Err(CpuBenchError::Python { side });
        }
        match self.only.iter().find(|name| !ran.outcomes.contains_key(*name)) {
            Some(name) => Err(CpuBenchError::Unknown { name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// Runs the guest in Berth, then in QEMU where it is installed, and its programs
/// natively where they can be compiled. `note` is told what happens.
pub(crate) fn run(
    mut guest: Guest,
    choice: &Choice<'_>,
    note: &dyn Fn(&str),
) -> Result<Rows, CpuBenchError> {
    let mut words = choice.words();
    words.extend(guest.python.is_some().then(|| PYTHON_WORD.to_owned()));
    guest.command_line = format!("{} {}", guest.command_line, words.join(" "));
    let guest = &guest;
    note("running the benchmark guest in Berth");
    let berth = in_berth(guest, &|_| Ok(()))?;
    choice.check(&berth, "Berth")?;
    let qemu = if qemu_is_installed() {
        note("running the same guest in QEMU");
        let qemu = in_qemu(guest, &disk_of(guest))?;
        choice.check(&qemu, "QEMU")?;
        Some(qemu)
    } else {
        note("qemu-system-riscv64 is not installed (Debian: qemu-system-misc): no reference");
        None
    };
    note("running the same programs natively");
    let native = native::run(&choice.words());
    if let Err(error) = &native {
        note(&format!("no native reference: {error}"));
    }
    compare(&berth, qemu.as_ref(), native.ok().as_ref())
}

/// The arguments that give QEMU's guest the disk that Berth's has.
fn disk_of(guest: &Guest) -> Vec<String> {
    let Some(path) = &guest.python else { return Vec::new() };
    // A comma ends a value unless there are two.
    let path = path.display().to_string().replace(',', ",,");
    let drive = format!("file={path},format=raw,if=none,id=root,readonly=on");
    let words = ["-global", "virtio-mmio.force-legacy=false", "-drive", &drive];
    words
        .into_iter()
        .chain(["-device", "virtio-blk-device,drive=root"])
        .map(str::to_owned)
        .collect()
}

pub(super) fn qemu_is_installed() -> bool {
    let mut version = Command::new(QEMU);
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// The programs of integers and branches, whose mean speed is a row.
const INTEGER: [&str; 10] = [
    "integer",
    "records",
    "sieve",
    "quicksort",
    "sha256",
    "hashing",
    "calls",
    "bytecode",
    "pointers",
    "memcpy",
];

fn compare(
    berth: &Transcript,
    qemu: Option<&Transcript>,
    native: Option<&Transcript>,
) -> Result<Rows, CpuBenchError> {
    let boot = |side: &Transcript| side.boot.map(|time| time.as_secs_f64());
    let value = boot(berth).unwrap_or_default();
    let reference = qemu.and_then(boot);
    let mut rows = vec![Row {
        name: "cpu.boot_vs_qemu".into(),
        value,
        unit: "s",
        reference,
        ratio: reference.map(|reference| value / reference),
    }];
    let beside_qemu = speeds("cpu.speed_vs_qemu", "in QEMU", berth, qemu)?;
    rows.extend(integer_mean(&beside_qemu));
    rows.extend(beside_qemu);
    if native.is_some() {
        rows.extend(speeds("cpu.speed_vs_native", "natively", berth, native)?);
    }
    Ok(Rows { rows })
}

/// A row for each program: Berth's time and the peer's, and the speeds' ratio.
pub(super) fn speeds(
    name: &str,
    peer: &'static str,
    berth: &Transcript,
    other: Option<&Transcript>,
) -> Result<Vec<Row>, CpuBenchError> {
    let row = |(program, ours): (&String, &Outcome)| {
        let theirs = other.and_then(|other| other.outcomes.get(program));
        if let Some(theirs) = theirs.filter(|theirs| theirs.checksum != ours.checksum) {
            return Err(CpuBenchError::Disagree {
                program: program.clone(),
                berth: ours.checksum.clone(),
                peer,
                other: theirs.checksum.clone(),
            });
        }
        let value = ours.time.as_secs_f64();
        let reference = theirs.map(|theirs| theirs.time.as_secs_f64());
        let ratio = reference.map(|reference| reference / value);
        Ok(Row { name: format!("{name}.{program}"), value, unit: "s", reference, ratio })
    };
    berth.outcomes.iter().map(row).collect()
}

/// The geometric mean of the ratios of the programs in [`INTEGER`].
fn integer_mean(rows: &[Row]) -> Option<Row> {
    let is_integer =
        |row: &&Row| row.name.rsplit('.').next().is_some_and(|program| INTEGER.contains(&program));
    let ratios: Option<Vec<f64>> = rows.iter().filter(is_integer).map(|row| row.ratio).collect();
    let ratios = ratios.filter(|ratios| !ratios.is_empty())?;
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    Some(Row {
        name: "cpu.integer_mean_vs_qemu".into(),
        value: mean,
        unit: "x",
        reference: Some(1.0),
        ratio: Some(mean),
    })
}

fn only_read(path: &Path) -> DiskConfig {
    DiskConfig { path: path.to_owned(), mode: DiskMode::ReadOnly }
}

/// Runs the guest in Berth; `join` sees to its devices before it starts.
pub(super) fn in_berth(
    guest: &Guest,
    join: &dyn Fn(&Machine) -> Result<(), CpuBenchError>,
) -> Result<Transcript, CpuBenchError> {
    let mut transcript = Transcript::new(Instant::now());
    let main = MainStorage::create(STORAGE, Backing::Memfd)?;
    let range = StorageRange::new(0, STORAGE)?;
    let window = StorageWindow::map(
        main.storage_fd(),
        main.keys_fd(),
        range,
        memory_map::STORAGE_BASE,
        STORAGE,
    )?;
    let config = MachineConfig {
        name: "bench".into(),
        vcpus: 1,
        host_cpus: None,
        compile: guest.compile,
        kernel: guest.kernel.clone(),
        initrd: Some(guest.initrd.clone()),
        command_line: format!("{BERTH_CONSOLE} {}", guest.command_line),
        disks: guest.python.iter().map(|path| only_read(path)).collect(),
        files: guest.files,
        io_keys: BTreeMap::new(),
    };
    let machine = Machine::new(&config, &window)?;
    let client = machine.console().attach(true);
    join(&machine)?;
    machine.start();
    let mut last = Instant::now();
    while !transcript.done && last.elapsed() < SILENCE {
        match client.read(Duration::from_secs(1)) {
            ClientRead::Output(bytes) => {
                last = Instant::now();
                transcript.feed(&bytes, last);
            }
            ClientRead::Quiet => {}
            ClientRead::Closed => break,
        }
    }
    finished(transcript, "Berth", || {
        String::from_utf8_lossy(&machine.console().tail()).into_owned()
    })
}

/// A process of the peer's: ends whatever happens.
pub(super) struct Peer(pub(super) Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the guest in QEMU, with more arguments.
pub(super) fn in_qemu(guest: &Guest, more: &[String]) -> Result<Transcript, CpuBenchError> {
    let mut transcript = Transcript::new(Instant::now());
    let megabytes = (STORAGE >> 20).to_string();
    let mut peer = Peer(
        Command::new(QEMU)
            .args(["-M", "virt", "-smp", "1", "-m", &megabytes, "-display", "none"])
            .args(["-monitor", "none", "-serial", "stdio", "-no-reboot", "-kernel"])
            .arg(&guest.kernel)
            .arg("-initrd")
            .arg(&guest.initrd)
            .args(["-append", &format!("{QEMU_CONSOLE} {}", guest.command_line)])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(CpuBenchError::Qemu)?,
    );
    let mut output = peer
        .0
        .stdout
        .take()
        .ok_or_else(|| CpuBenchError::Qemu(io::ErrorKind::BrokenPipe.into()))?;
    let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(64);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut tail = Vec::new();
    while !transcript.done {
        let Ok(bytes) = receiver.recv_timeout(SILENCE) else { break };
        transcript.feed(&bytes, Instant::now());
        tail.extend(&bytes);
        let excess = tail.len().saturating_sub(1024);
        tail.drain(..excess);
    }
    finished(transcript, "QEMU", || String::from_utf8_lossy(&tail).into_owned())
}

fn finished(
    transcript: Transcript,
    side: &'static str,
    last: impl Fn() -> String,
) -> Result<Transcript, CpuBenchError> {
    if transcript.done && transcript.boot.is_some() {
        return Ok(transcript);
    }
    let words = last();
    let skip = words.chars().count().saturating_sub(400);
    Err(CpuBenchError::Unfinished { side, last: words.chars().skip(skip).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(boot: u64, sieve: u64, checksum: &str) -> Transcript {
        let start = Instant::now();
        let mut transcript = Transcript::new(start);
        transcript.feed(b"BERTH-INIT\n", start + Duration::from_secs(boot));
        transcript.feed(format!("BENCH sieve {sieve} {checksum}\n").as_bytes(), start);
        let fork = sieve + 1000;
        transcript.feed(format!("BENCH fork {fork} {checksum}\nBENCH-END\n").as_bytes(), start);
        transcript
    }

    #[test]
    fn ratios_read_as_the_rows_names_say() {
        let (berth, qemu, native) = (side(6, 400, "a"), side(3, 100, "a"), side(0, 50, "a"));
        let rows = compare(&berth, Some(&qemu), Some(&native)).unwrap().rows;
        let ratio = |name| rows.iter().find(|row| row.name == name).unwrap().ratio.unwrap();
        assert_eq!(ratio("cpu.boot_vs_qemu"), 2.0, "a ratio of times, below 1 is faster");
        assert_eq!(ratio("cpu.speed_vs_qemu.sieve"), 0.25, "above 1 is faster than QEMU");
        assert_eq!(ratio("cpu.speed_vs_native.sieve"), 0.125);
        let mean = ratio("cpu.integer_mean_vs_qemu");
        assert!((mean - 0.25).abs() < 1e-9, "{mean}");
    }

    #[test]
    fn different_results_are_no_benchmark() {
        for (qemu, native) in [("b", "a"), ("a", "b")] {
            let (qemu, native) = (side(1, 1, qemu), side(1, 1, native));
            let error = compare(&side(1, 1, "a"), Some(&qemu), Some(&native)).unwrap_err();
            assert!(matches!(error, CpuBenchError::Disagree { .. }));
        }
    }

    #[test]
    fn what_was_asked_for_and_has_not_run_is_an_error() {
        let only = ["sieve".to_owned(), "seive".to_owned()];
        let choice = Choice { only: &only, work: 250 };
        assert_eq!(choice.words(), ["bench.only=sieve,seive", "bench.work=250"]);
        let error = choice.check(&side(1, 1, "a"), "Berth").unwrap_err();
        assert!(matches!(error, CpuBenchError::Unknown { name } if name == "seive"));
        let some = Choice { only: &only[..1], work: 100 };
        assert!(some.check(&side(1, 1, "a"), "Berth").is_ok());
        let all = Choice { only: &[], work: 100 };
        let error = all.check(&side(1, 1, "a"), "QEMU").unwrap_err();
        assert!(matches!(error, CpuBenchError::Python { side: "QEMU" }), "Python did not run");
    }

    #[test]
    fn without_qemu_there_is_no_ratio() {
        let rows = compare(&side(1, 1, "a"), None, None).unwrap().rows;
        assert!(rows.iter().all(|row| row.reference.is_none() && row.ratio.is_none()));
    }
}
