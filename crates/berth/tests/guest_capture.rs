//! A real guest is captured; copies of it go on from that moment, and are made
//! the same again after whatever was done in them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may give up")]

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_protocol::{Decoder, ExecRequest, Message, Status};
use image::{Dirs, ImageStore, Recipe, Silent};
use io_processors::{ChannelState, DiskMode};
use machine::{DiskConfig, Machine, MachineConfig, MachineState, memory_map};
use main_storage::StorageRange;
use storage_window::{Backing, Capture, MainStorage, PutBack, StorageWindow};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 128 * MIB;
/// What a user leaves behind, in many places.
const SECRET: &str = "zwiebelkuchen-4711";

/// How long anything may take before it counts as never happening.
fn patience() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

struct Host {
    main: MainStorage,
    config: MachineConfig,
}

impl Host {
    fn new() -> Self {
        let store = ImageStore::open(Dirs::from_env().unwrap());
        let image = store.ensure(&Recipe::find("minimal").unwrap(), &Silent).unwrap();
        let config = MachineConfig {
            compile: false,
            name: "capture".into(),
            vcpus: 2,
            host_cpus: None,
            kernel: image.kernel,
            initrd: Some(image.initrd),
            command_line: image.command_line,
            disks: vec![DiskConfig { path: image.root, mode: DiskMode::ReadOnly }],
            files: false,
            io_keys: BTreeMap::new(),
        };
        Self { main: MainStorage::create(3 * SIZE, Backing::Memfd).unwrap(), config }
    }

    fn window(&self, index: u64) -> Arc<StorageWindow> {
        let range = StorageRange::new(index * SIZE, SIZE).unwrap();
        let (storage, keys) = (self.main.storage_fd(), self.main.keys_fd());
        StorageWindow::map(storage, keys, range, memory_map::STORAGE_BASE, SIZE).unwrap()
    }

    fn boot(&self) -> Guest {
        let window = self.window(0);
        let machine = Machine::new(&self.config, &window).unwrap();
        machine.start();
        let mut guest = Guest { machine, window, decoder: Decoder::new(), stream: 0 };
        assert_eq!(guest.wait_open(), ChannelState::Open { session: 1, resumed: false });
        assert!(matches!(guest.hear(), Message::Ready(_)));
        guest
    }

    /// What `guest` is now.
    fn capture(&self, guest: &Guest) -> (MachineState, Capture) {
        guest.hold();
        let state = guest.machine.save().unwrap();
        // As it goes to disk and comes back.
        let state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        let file: File = tempfile::tempfile().unwrap();
        let (storage, keys) = (self.main.storage_fd(), self.main.keys_fd());
        guest.window.capture(storage, keys, &file).unwrap();
        (state, Capture::open(&file, SIZE).unwrap())
    }

    fn copy(&self, index: u64, (state, capture): &(MachineState, Capture)) -> Guest {
        let window = self.window(index);
        capture.fill(self.main.storage_fd(), &window).unwrap();
        let machine = Machine::without_guest(&self.config, &window).unwrap();
        let guest = Guest { machine, window, decoder: Decoder::new(), stream: 1000 };
        guest.hold();
        guest.machine.restore(state).unwrap();
        guest.go_on();
        assert_eq!(guest.wait_open(), ChannelState::Open { session: 1, resumed: true });
        guest
    }

    /// Whether the secret is anywhere in the guest's part of main storage.
    fn holds_secret(&self, guest: &Guest) -> bool {
        let mut bytes = vec![0; SIZE as usize];
        let mut at = 0;
        while at < bytes.len() {
            let offset = guest.window.origin() + at as u64;
            at += rustix::io::pread(self.main.storage_fd(), &mut bytes[at..], offset).unwrap();
        }
        bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
    }
}

struct Guest {
    machine: Machine,
    window: Arc<StorageWindow>,
    decoder: Decoder,
    stream: u32,
}

impl Guest {
    fn wait_open(&self) -> ChannelState {
        self.machine.agent().wait_open(patience())
    }

    fn hold(&self) {
        let processors = self.machine.io_processors();
        processors.iter().for_each(|processor| processor.quiesce());
        assert!(processors.iter().all(|processor| processor.wait_idle(patience())));
        assert!(self.machine.stop_vcpus(patience()));
    }

    fn go_on(&self) {
        self.machine.io_processors().iter().for_each(|processor| processor.resume());
        self.machine.resume_vcpus();
    }

    /// Makes it what it was, and leaves it parked.
    fn reset(&mut self, (state, capture): &(MachineState, Capture)) -> PutBack {
        self.hold();
        let done = capture.put_back(&self.window).unwrap();
        self.machine.restore(state).unwrap();
        self.go_on();
        // The end of the session that the user had.
        assert_eq!(self.machine.agent().read_until(&mut [0], Some(patience())).unwrap(), 0);
        (self.decoder, self.stream) = (Decoder::new(), 2000);
        done
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

    fn uptime(&mut self) -> f64 {
        self.shell("cut -d' ' -f1 /proc/uptime").trim().parse().unwrap()
    }
}

#[test]
fn guest_copies_go_on_from_a_capture_and_come_back_spotless() {
    let host = Host::new();
    let mut template = host.boot();
    template.shell(
        "echo prepared > /tmp/prepared; (sleep 100000; echo never) </dev/null >/dev/null 2>&1 &",
    );
    let captured_at = template.uptime();
    let capture = host.capture(&template);
    drop(template);

    let mut copies = [host.copy(1, &capture), host.copy(2, &capture)];
    for copy in &mut copies {
        copy.machine.unpark(&capture.0).unwrap();
        assert_eq!(
            copy.shell("cat /tmp/prepared; cat /proc/[0-9]*/comm | grep -c sleep"),
            "prepared\n1\n"
        );
        // Guest time stood still meanwhile.
        let uptime = copy.uptime();
        assert!(uptime >= captured_at && uptime < captured_at + 60.0, "{captured_at} {uptime}");
    }
    let [user, other] = &mut copies;
    for round in 0..3 {
        user.shell(&format!(
            "echo {SECRET} | tee /tmp/a /dev/shm/b /run/c /root/d >/dev/null; \
             {SECRET}=1 S={SECRET} sleep 1000 </dev/null >/dev/null 2>&1 & \
             hostname {SECRET}; echo {SECRET} > /dev/hvc0; sync"
        ));
        assert!(host.holds_secret(user), "round {round}: or the search is no search");
        let done = user.reset(&capture);
        assert!(done.copied > 0 && done.cleared > 0, "{done:?}");
        assert!(!host.holds_secret(user), "round {round}: something was left");
        assert!(user.machine.console().tail().is_empty(), "nor on the console");
        user.machine.unpark(&capture.0).unwrap();
        assert_eq!(
            user.shell("cat /tmp/prepared; cat /proc/[0-9]*/comm | grep -c sleep; ls /tmp"),
            "prepared\n1\nprepared\n"
        );
        let seen = user.shell("cat /proc/[0-9]*/environ /proc/sys/kernel/hostname; dmesg");
        assert!(!seen.contains(SECRET));
    }
    // Nobody else has noticed.
    assert_eq!(other.shell("cat /tmp/prepared"), "prepared\n");
}
