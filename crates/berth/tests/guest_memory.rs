//! A real guest is given memory while it runs, uses it, is moved with it and
//! gives it back.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may give up")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_protocol::{Decoder, ExecRequest, Message, Status};
use image::{Dirs, ImageStore, Recipe, Silent};
use io_processors::{AddressLimits, ChannelState, DiskMode, MemEnd};
use machine::{DiskConfig, Machine, MachineConfig, memory_map};
use main_storage::{MovePlan, StorageRange};
use storage_window::{Backing, MainStorage, StorageWindow};

const MIB: u64 = 1 << 20;
/// What the guest boots in, and what it gets later.
const BOOT: u64 = 128 * MIB;
const MORE: u64 = 64 * MIB;
/// How far it is moved.
const AWAY: u64 = 32 * MIB;

/// How long anything may take before it counts as never happening.
fn patience() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

struct Guest {
    machine: Machine,
    window: Arc<StorageWindow>,
    main: MainStorage,
    decoder: Decoder,
    stream: u32,
}

impl Guest {
    /// Boots the minimal image in [`BOOT`] bytes at the start of main storage.
    fn boot() -> Self {
        let store = ImageStore::open(Dirs::from_env().unwrap());
        let image = store.ensure(&Recipe::find("minimal").unwrap(), &Silent).unwrap();
        let fixed = &image.manifest.fixed_memory;
        assert_eq!(*fixed, None, "the image has no memory driver");
        let main = MainStorage::create(AWAY + BOOT + MORE, Backing::Memfd).unwrap();
        let (storage, keys) = (main.storage_fd(), main.keys_fd());
        let (base, reach) = (memory_map::STORAGE_BASE, BOOT + MORE);
        let window = StorageWindow::map(storage, keys, range(0, BOOT), base, reach).unwrap();
        let config = MachineConfig {
            compile: true,
            name: "memory".into(),
            vcpus: 2,
            host_cpus: None,
            kernel: image.kernel,
            initrd: Some(image.initrd),
            command_line: image.command_line,
            disks: vec![DiskConfig { path: image.root, mode: DiskMode::ReadOnly }],
            files: false,
            io_keys: BTreeMap::new(),
        };
        let machine = Machine::new(&config, &window).unwrap();
        machine.start();
        let open = machine.agent().wait_open(patience());
        let console = || String::from_utf8_lossy(&machine.console().tail()).into_owned();
        assert!(matches!(open, ChannelState::Open { .. }), "no agent: {}", console());
        let mut guest = Self { machine, window, main, decoder: Decoder::new(), stream: 0 };
        assert!(matches!(guest.hear(), Message::Ready(_)));
        guest
    }

    fn memory(&self) -> &MemEnd {
        self.machine.memory().unwrap()
    }

    /// The next thing the agent says.
    fn hear(&mut self) -> Message {
        loop {
            let mut byte = [0];
            let count = self.machine.agent().read_until(&mut byte, Some(patience())).unwrap();
            assert!(count > 0, "the agent is gone");
            if let Some((_, message)) = self.decoder.next(&mut &byte[..]).unwrap() {
                return message;
            }
        }
    }

    /// What a line of shell prints in the guest; it must succeed.
    fn shell(&mut self, line: &str) -> String {
        self.stream += 1;
        let mut frame = Vec::new();
        let request = ExecRequest::new(["/bin/sh", "-c", line]);
        Message::Exec(request).encode(self.stream, &mut frame).unwrap();
        let sent = self.machine.agent().write_until(&frame, Some(patience())).unwrap();
        assert_eq!(sent, frame.len());
        let (mut output, mut complaints) = (Vec::new(), Vec::new());
        loop {
            match self.hear() {
                Message::Stdout(bytes) => output.extend(bytes),
                Message::Stderr(bytes) => complaints.extend(bytes),
                Message::Exited(status) => {
                    let complaints = String::from_utf8_lossy(&complaints);
                    assert_eq!(status, Status::Code(0), "{line}: {complaints}");
                    return String::from_utf8(output).unwrap();
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    /// A line of `/proc/meminfo`, in bytes.
    fn meminfo(&mut self, what: &str) -> u64 {
        let line = self.shell(&format!("grep ^{what}: /proc/meminfo"));
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Waits until the guest counts `bytes` of memory as its own: it does so a
    /// moment after it has taken them.
    fn wait_for_total(&mut self, bytes: u64) {
        let deadline = patience();
        loop {
            let total = self.meminfo("MemTotal");
            if total == bytes {
                return;
            }
            assert!(Instant::now() < deadline, "MemTotal is {total}, not {bytes}");
        }
    }

    /// Has every I/O processor, idle, acknowledge the window's size.
    fn set_limits(&self) {
        let limits = AddressLimits { origin: self.window.origin(), size: self.window.size() };
        for processor in self.machine.io_processors() {
            assert!(processor.set_address_limits(limits).is_ok());
        }
    }

    fn quiesce(&self) {
        let processors = self.machine.io_processors();
        processors.iter().for_each(|processor| processor.quiesce());
        assert!(processors.iter().all(|processor| processor.wait_idle(patience())));
    }

    fn resume(&self) {
        self.machine.io_processors().iter().for_each(|processor| processor.resume());
    }

    /// Gives the guest more, while it runs.
    fn expand(&self) {
        let (storage, keys) = (self.main.storage_fd(), self.main.keys_fd());
        let after = range(self.window.origin(), BOOT + MORE);
        self.window.grow(storage, keys, after).unwrap();
        self.quiesce();
        self.set_limits();
        self.resume();
        self.memory().request(MORE).unwrap();
        let state = self.memory().wait(patience(), |state| state.plugged == MORE);
        assert_eq!((state.plugged, state.end, state.driver), (MORE, MORE, true));
    }

    /// Takes back what the guest gives.
    fn shrink(&self) {
        self.memory().request(0).unwrap();
        self.take_back();
    }

    /// Takes back what the guest gives while it is moved to `origin`.
    fn shrink_on_the_way(&self, origin: u64) {
        self.slide(origin, || self.memory().request(0).unwrap());
        self.take_back();
    }

    fn take_back(&self) {
        let state = self.memory().wait(patience(), |state| state.plugged == 0);
        assert_eq!((state.plugged, state.end), (0, 0));
        self.stopped(|| {
            assert_eq!(self.memory().state().end, 0, "nothing was plugged meanwhile");
            self.window.shrink(range(self.window.origin(), BOOT)).unwrap();
            self.machine.forget_translations();
        });
    }

    fn plan(&self, origin: u64) -> MovePlan {
        MovePlan::new(range(self.window.origin(), self.window.size()), origin).unwrap()
    }

    /// Moves all the guest has to `origin` while it is stopped.
    fn relocate(&self, origin: u64) {
        let (storage, keys) = (self.main.storage_fd(), self.main.keys_fd());
        let plan = self.plan(origin);
        self.stopped(|| {
            let go_on = &mut |_| ControlFlow::Continue(());
            self.window.relocate(storage, keys, &plan, go_on).unwrap();
        });
    }

    /// The same while it runs; `body` is done after the first chunk.
    fn slide(&self, origin: u64, body: impl Fn()) {
        let (storage, keys) = (self.main.storage_fd(), self.main.keys_fd());
        let prepared = self.window.prepare(storage, keys, &self.plan(origin)).unwrap();
        let mut first = true;
        let go_on = &mut |_| {
            if std::mem::take(&mut first) {
                body();
            }
            ControlFlow::Continue(())
        };
        prepared.slide(go_on).unwrap().finish().unwrap();
        self.stopped(|| {});
    }

    /// Does `body` while nobody touches the guest's storage.
    fn stopped(&self, body: impl FnOnce()) {
        assert!(self.machine.stop_vcpus(patience()));
        self.quiesce();
        body();
        self.set_limits();
        self.resume();
        self.machine.resume_vcpus();
    }

    /// Bytes of host memory behind what the guest booted in.
    fn resident(&self) -> u64 {
        self.main.resident(range(self.window.origin() + BOOT, MORE)).unwrap()
    }
}

fn range(origin: u64, size: u64) -> StorageRange {
    StorageRange::new(origin, size).unwrap()
}

#[test]
fn guest_memory_grows_is_used_and_shrinks_again() {
    let mut guest = Guest::boot();
    let total = guest.meminfo("MemTotal");
    // More than the guest can hold at first.
    let blocks = guest.meminfo("MemAvailable") / MIB + 16;
    guest.shell("yes berth | head -c 1048576 >/block");
    let write = format!("for block in $(seq {blocks}); do cat /block; done");
    let sum = guest.shell(&format!("({write}) | md5sum"));
    let take = |guest: &mut Guest| {
        guest.expand();
        guest.wait_for_total(total + MORE);
        guest.shell(&format!("mount -t tmpfs -o size=100% big /mnt && ({write}) >/mnt/file"));
    };
    let check = |guest: &mut Guest| {
        assert_eq!(guest.shell("md5sum </mnt/file"), sum);
        assert!(guest.resident() > 8 * MIB, "the guest uses what it was given");
        guest.shell("umount /mnt");
    };

    take(&mut guest);
    guest.relocate(AWAY);
    check(&mut guest);
    guest.shrink();
    assert_eq!(guest.resident(), 0, "what was given back costs nothing");
    guest.wait_for_total(total);

    take(&mut guest);
    guest.slide(0, || {});
    check(&mut guest);
    guest.shrink_on_the_way(AWAY);
    guest.wait_for_total(total);
    let log = guest.shell("dmesg");
    assert!(!["BUG:", "WARNING:", "Call Trace"].iter().any(|word| log.contains(word)), "{log}");
}
