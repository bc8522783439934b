//! The capture that a pool's machines are made from: kept on disk, and made
//! anew when anything it depends on has changed.
//!
//! One machine of the pool is booted, gets the pool's files, initialises its
//! programs and is captured; then it is stopped, to be made from the capture
//! like all others.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use agent_protocol::{DATA_CHUNK, Decoder, Message, SendWindow, Status};
use main_storage::PartitionName;
use serde::{Deserialize, Serialize};

use super::renewal::renewal;
use crate::daemon::Shared;
use crate::daemon::process::{Process, files};
use crate::host_file::{MAX_POOL_FILE, PoolFile, PoolSpec, ProgramKind, ProgramSpec};
use crate::link::{Order, Program, ProgramEnd, ReadyWhen, Report};
use agent_protocol::SESSION_STREAM;

/// How long a machine may take to boot.
const BOOT: Duration = Duration::from_secs(180);
/// How long a program may take to initialise.
const INITIALISE: Duration = Duration::from_secs(600);
/// How long renewing the machine may take.
const RENEW: Duration = Duration::from_secs(30);
/// How long a capture may take.
const CAPTURE: Duration = Duration::from_secs(120);
/// How long putting a file into the machine may take.
const COPY: Duration = Duration::from_secs(60);
/// How long the agent may take to come to rest before the capture.
const REST: Duration = Duration::from_secs(10);

/// Files of a pool's capture.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct CaptureFiles {
    dir: PathBuf,
}

/// What a capture depends on. Another one makes another capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    version: String,
    size: u64,
    vcpus: u8,
    programs: String,
    #[serde(default)]
    user_files: bool,
    #[serde(default)]
    server: bool,
    #[serde(default)]
    disk: Option<u64>,
    command_line: String,
    /// Path, bytes and time of change of everything that is read: this program,
    /// the image, the pool's files.
    files: Vec<(PathBuf, u64, i64, i64)>,
}

impl CaptureFiles {
    fn storage(&self) -> PathBuf {
        self.dir.join("storage")
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// What the machine had written to its data disk, if it has one.
    pub(in crate::daemon) fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    fn facts(&self) -> PathBuf {
        self.dir.join("facts")
    }

    fn are_there(&self, facts: &Facts) -> bool {
        self.open().is_ok() && (facts.disk.is_none() || self.disk().exists())
    }

    /// Storage and state, to be read.
    pub(in crate::daemon) fn open(&self) -> io::Result<[File; 2]> {
        Ok([File::open(self.storage())?, File::open(self.state())?])
    }
}

impl Shared {
    /// Makes the pool's capture on the machine `name`, which does not run,
    /// unless there is one that fits. One at a time.
    pub(super) fn ensure_capture(
        self: &Arc<Self>,
        pool: &PoolSpec,
        name: &PartitionName,
    ) -> Result<(), String> {
        let key = pool.config.name.to_string();
        let lock = {
            let mut captures = self.captures.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(captures.entry(key.clone()).or_default())
        };
        let mut known = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return Ok(());
        }
        let files = CaptureFiles { dir: self.dir.captures().join(&key) };
        let facts = self.facts(pool, name)?;
        let found: Option<Facts> =
            File::open(files.facts()).ok().and_then(|file| serde_json::from_reader(file).ok());
        if found.as_ref() == Some(&facts) && files.are_there(&facts) {
            tracing::info!(pool = key, "the capture of an earlier start fits");
        } else {
            let started = Instant::now();
            tracing::info!(pool = key, machine = %name, "booting a machine to capture it");
            let made = self.make_capture(pool, name, &files, &facts);
            self.end_files(name);
            self.end_database(name);
            let stopped = self.stop_for_good(name);
            made.and(stopped)?;
            tracing::info!(pool = key, ms = started.elapsed().as_millis(), "captured");
        }
        *known = Some(files);
        Ok(())
    }

    /// The capture that a partition is made from when it is started.
    pub(in crate::daemon) fn capture_of(&self, name: &PartitionName) -> Option<CaptureFiles> {
        let pool = self.config.file.pool_of(name)?;
        let captures = self.captures.lock().unwrap_or_else(PoisonError::into_inner);
        let capture = captures.get(pool.config.name.as_str())?;
        // Locked: it is being made, by booting this very machine.
        capture.try_lock().ok()?.clone()
    }

    fn facts(&self, pool: &PoolSpec, name: &PartitionName) -> Result<Facts, String> {
        let spec = {
            let board = self.board();
            let spec = board.partitions.get(name).map(|partition| partition.spec.clone());
            spec.ok_or("it is not on the map")?
        };
        let (size, vcpus, disk) = (spec.range.size(), spec.vcpus, spec.disk);
        let image = self.config.images.find(&spec.image)?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let sources = pool.files.iter().map(|file| file.source.clone());
        let read = [program, image.kernel, image.initrd, image.root].into_iter().chain(sources);
        let files = read.map(|path| {
            let about = |error| format!("{}: {error}", path.display());
            let found = fs::metadata(&path).map_err(about)?;
            Ok((path, found.len(), found.mtime(), found.mtime_nsec()))
        });
        Ok(Facts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            size,
            vcpus,
            programs: format!("{:?} {:?}", pool.programs, pool.files),
            user_files: pool.user_files,
            server: self.has_server(name),
            disk,
            command_line: image.command_line,
            files: files.collect::<Result<_, String>>()?,
        })
    }

    fn make_capture(
        self: &Arc<Self>,
        pool: &PoolSpec,
        name: &PartitionName,
        capture: &CaptureFiles,
        facts: &Facts,
    ) -> Result<(), String> {
        // What a machine of that name had on its disk is nobody's.
        let overlay = self.dir.disk_overlay(name);
        match fs::remove_file(&overlay) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("{}: {error}", overlay.display()));
            }
            _ => {}
        }
        self.start(name.as_str()).map_err(|error| error.to_string())?;
        // The guest mounts its files while it boots, and has none.
        let process = self.board().get(name.as_str()).and_then(|one| one.running());
        let process = process.map_err(|error| error.to_string())?;
        if let Err(reason) = self.begin_files(&process, None) {
            // It has its session when the manager is there.
            tracing::debug!(%name, reason, "the file manager is late");
        }
        self.begin_database(&process, None);
        let process = self.booted(name)?;
        for file in &pool.files {
            put_file(&process, file)?;
        }
        let (sender, reports) = channel();
        process.set_builder(Some(sender));
        for program in &pool.programs {
            initialise(&process, program, &reports)?;
        }
        rehearse(&process, &reports)?;
        let captured = self.write_capture(&process, &reports, capture, facts);
        process.set_builder(None);
        captured
    }

    /// The machine's process once its guest serves commands.
    fn booted(&self, name: &PartitionName) -> Result<Arc<Process>, String> {
        let found = self.wait_for(Instant::now() + BOOT, |board| {
            match board.get(name.as_str()).and_then(|partition| partition.running()) {
                Err(error) => Some(Err(error.to_string())),
                Ok(process) => process.is_ready().then_some(Ok(process)),
            }
        });
        found.unwrap_or_else(|| Err(format!("it did not boot within {} s", BOOT.as_secs())))
    }

    fn write_capture(
        &self,
        process: &Process,
        reports: &Receiver<Report>,
        capture: &CaptureFiles,
        facts: &Facts,
    ) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", capture.dir.display());
        let _ = fs::remove_file(capture.facts());
        fs::create_dir_all(&capture.dir).map_err(failed)?;
        // New files: machines of an earlier start may still be reading the old.
        for path in [capture.storage(), capture.state(), capture.disk()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        let [storage, keys] = files(&self.storage);
        let deadline = Instant::now() + REST;
        loop {
            let create = |path: &Path| {
                let mut options = File::options();
                options.read(true).write(true).create(true).truncate(true).open(path)
            };
            let target = create(&capture.storage()).map_err(failed)?;
            let state = create(&capture.state()).map_err(failed)?;
            let disk = facts.disk.map(|_| create(&capture.disk())).transpose().map_err(failed)?;
            let wait_ms = u64::try_from(REST.as_millis()).unwrap_or(u64::MAX);
            let mut fds = vec![storage, keys, target.as_fd(), state.as_fd()];
            fds.extend(disk.as_ref().map(File::as_fd));
            let given = process.give(&Order::Capture { wait_ms }, &fds);
            given.map_err(|error| format!("its worker cannot be reached: {error}"))?;
            match await_report(reports, CAPTURE)? {
                Report::Captured(done) => {
                    tracing::info!(
                        bytes = done.bytes,
                        micros = done.micros,
                        "storage and state are kept"
                    );
                    break;
                }
                // Something was still on its way.
                Report::NotCaptured { .. } if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Report::NotCaptured { reason } => return Err(format!("no capture: {reason}")),
                other => return Err(format!("no capture: {other:?}")),
            }
        }
        // Last: without it the rest is not believed.
        let text = serde_json::to_vec_pretty(facts).map_err(|error| error.to_string())?;
        let partial = capture.dir.join("facts.new");
        fs::write(&partial, text)
            .and_then(|()| File::open(&partial)?.sync_all())
            .and_then(|()| fs::rename(&partial, capture.facts()))
            .map_err(failed)
    }
}

fn await_report(reports: &Receiver<Report>, limit: Duration) -> Result<Report, String> {
    reports.recv_timeout(limit).map_err(|_| {
        format!("its machine ended, or said nothing for {} s; see its log", limit.as_secs())
    })
}

fn initialise(
    process: &Process,
    program: &ProgramSpec,
    reports: &Receiver<Report>,
) -> Result<(), String> {
    let (argv, ready) = match &program.kind {
        ProgramKind::Service(argv) => (argv, ReadyWhen::Notify),
        ProgramKind::Run { initialise: Some(argv), .. } => (argv, ReadyWhen::Exit),
        ProgramKind::Run { initialise: None, .. } => return Ok(()),
    };
    let tpn = program.tpn.to_string();
    let env = vec![("BERTH_TPN".to_owned(), tpn.clone())];
    let start = Program { argv: argv.clone(), env, cwd: String::new() };
    let order = Order::StartService { tpn: tpn.clone(), program: start, ready };
    process.give(&order, &[]).map_err(|error| format!("its worker cannot be reached: {error}"))?;
    match await_report(reports, INITIALISE)? {
        Report::ServiceReady { .. } => Ok(()),
        Report::ServiceEnded { end, words, .. } => {
            let how = match end {
                ProgramEnd::Exited { code } => format!("ended with status {code}"),
                ProgramEnd::Signal { signal } => format!("was ended by signal {signal}"),
                ProgramEnd::Failed { reason } => format!("failed: {reason}"),
            };
            Err(format!("program {tpn} {how} while it was initialised; it said: {}", words.trim()))
        }
        other => Err(format!("program {tpn}: {other:?}")),
    }
}

/// Renews the machine once: what its system does for that the first time (files
/// copied into the upper layer, a mount) is done when others are made from it.
fn rehearse(process: &Process, reports: &Receiver<Report>) -> Result<(), String> {
    let renewal = renewal(process.name.to_string(), 0)
        .map_err(|error| format!("the host has no random numbers: {error}"))?;
    let given = process.give(&Order::Renew(Box::new(renewal)), &[]);
    given.map_err(|error| format!("its worker cannot be reached: {error}"))?;
    match await_report(reports, RENEW)? {
        Report::Renewed { problem: None } => Ok(()),
        Report::Renewed { problem: Some(problem) } => {
            Err(format!("it could not be renewed: {problem}"))
        }
        // A service that ended meanwhile, for example.
        other => Err(format!("it could not be renewed: {other:?}")),
    }
}

/// Puts a file of the host into the machine, executable.
fn put_file(process: &Process, file: &PoolFile) -> Result<(), String> {
    let about = |what: &dyn std::fmt::Display| {
        format!("{} cannot be put into the machine: {what}", file.source.display())
    };
    let mut content = Vec::new();
    let opened = File::open(&file.source).map_err(|error| about(&error))?;
    opened.take(MAX_POOL_FILE + 1).read_to_end(&mut content).map_err(|error| about(&error))?;
    if content.len() as u64 > MAX_POOL_FILE {
        return Err(about(&format!("it is larger than {} MiB", MAX_POOL_FILE >> 20)));
    }
    let script = "mkdir -p \"${1%/*}/\" && cat > \"$1\" && chmod 755 \"$1\"";
    let argv = ["/bin/sh", "-c", script, "sh", &file.path].map(str::to_owned);
    let (ours, theirs) = UnixStream::pair().map_err(|error| about(&error))?;
    let order = Order::Exec { argv: argv.to_vec(), env: Vec::new(), cwd: "/".to_owned() };
    process.give(&order, &[theirs.as_fd()]).map_err(|error| about(&error))?;
    drop(theirs);
    match feed(ours, &content) {
        Ok((Status::Code(0), _)) => Ok(()),
        Ok((_, words)) => Err(about(&words.trim())),
        Err(error) => Err(about(&error)),
    }
}

/// Gives a command its standard input and waits for its end; what it said on
/// standard error.
fn feed(mut stream: UnixStream, mut input: &[u8]) -> io::Result<(Status, String)> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    stream.set_read_timeout(Some(COPY))?;
    let mut say = {
        let mut stream = stream.try_clone()?;
        move |message: &Message| -> io::Result<()> {
            let mut frame = Vec::new();
            message.encode(SESSION_STREAM, &mut frame).map_err(|error| wrong(error.to_string()))?;
            io::Write::write_all(&mut stream, &frame)
        }
    };
    let mut window = SendWindow::new();
    let (mut decoder, mut words, mut ended) = (Decoder::new(), Vec::new(), false);
    let mut buffer = vec![0; DATA_CHUNK];
    loop {
        while !input.is_empty() && window.available() > 0 {
            let most = window.spend(input.len().min(DATA_CHUNK));
            let (now, later) = input.split_at(most);
            say(&Message::Stdin(now.to_vec()))?;
            input = later;
        }
        if input.is_empty() && !std::mem::replace(&mut ended, true) {
            say(&Message::StdinEnd)?;
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut heard = buffer.get(..count).unwrap_or_default();
        while let Some((_, message)) = decoder.next(&mut heard).map_err(|e| wrong(e.to_string()))? {
            match message {
                Message::Credit(more) => window.refill(more).map_err(|e| wrong(e.to_string()))?,
                Message::Stderr(bytes) if words.len() < DATA_CHUNK => words.extend(bytes),
                Message::Exited(status) => {
                    return Ok((status, String::from_utf8_lossy(&words).into_owned()));
                }
                Message::Failed(why) => return Err(wrong(why)),
                _ => {}
            }
        }
    }
}
