//! A guest that does anything: the body of the fuzz target and of a property test.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::{Kernel, ROOT, World, opcode};
use crate::{MAX_REPLY, Quota, REPLY_HEADER};

/// What no reply may ever have in it.
const SECRET: &str = "what-eve-must-not-see";
/// Names that lead somewhere, or try to.
const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"eve",
    b"bob",
    b"out",
    b"up",
    b".",
    b"..",
    b"../secret",
    b"/etc/passwd",
    b"out/secret",
    b"",
    b"a/b",
    b"\xff",
    b"secret",
];
/// Requests, most of them so often that a script gets somewhere.
const OPCODES: [u32; 20] = [
    opcode::LOOKUP,
    opcode::LOOKUP,
    opcode::MKDIR,
    opcode::CREATE,
    opcode::CREATE,
    opcode::OPEN,
    opcode::READ,
    opcode::WRITE,
    opcode::SETATTR,
    opcode::SYMLINK,
    opcode::READLINK,
    opcode::RENAME,
    opcode::RENAME2,
    opcode::UNLINK,
    opcode::RMDIR,
    opcode::OPENDIR,
    opcode::READDIR,
    opcode::RELEASE,
    opcode::MKNOD,
    opcode::LINK,
];
const QUOTA: Quota = Quota { bytes: 10_000, files: 20 };

/// Takes `data` as what a hostile guest asks of its session, and asks it: requests
/// that make sense and such that do not, with names and links that lead out. Whatever
/// it is, nothing outside the user's space may change or be shown, and the account
/// of the space has to be right in the end.
///
/// # Panics
/// If that is not so.
pub fn exercise(data: &[u8]) {
    let world = World::new(QUOTA);
    let around = world.folder.path();
    fs::write(around.join("secret"), SECRET).expect("a file");
    let mut kernel = world.kernel("eve", &[]);
    drop(world.kernel("bob", &[]));
    let space = around.join("spaces/eve");
    // Both spaces are there once they are looked at.
    kernel.walk("eve").expect("the own space");
    fs::create_dir_all(around.join("spaces/bob")).expect("a directory");
    fs::write(around.join("spaces/bob/secret"), SECRET).expect("a file");
    symlink(around, space.join("out")).expect("a link");
    symlink("..", space.join("up")).expect("a link");
    let before = snapshot(around, &space);

    // A manager that comes back counts also what was put there by others.
    let manager = World::manager_of(around, QUOTA);
    let mut guest = Guest {
        kernel: Kernel::new(manager, kernel_user()),
        input: Input(data),
        nodes: vec![ROOT],
        handles: Vec::new(),
        unique: 0,
    };
    while !guest.input.0.is_empty() {
        guest.step();
    }
    let name = "eve".parse().expect("a name");
    let manager = guest.kernel.session.manager();
    drop(guest);
    let counted = manager.usage(&name).expect("the space").0;
    let recounted = World::manager_of(around, QUOTA).usage(&name).expect("the space").0;
    assert_eq!(counted, recounted, "the account of the space is right");
    assert!(counted.bytes <= QUOTA.bytes && counted.files <= QUOTA.files, "and within bounds");
    assert_eq!(before, snapshot(around, &space), "nothing else was touched");
}

fn kernel_user() -> Option<(service_pool::UserId, Vec<service_pool::Group>)> {
    Some((service_pool::UserId::new("eve").expect("an id"), Vec::new()))
}

/// All that is beneath `folder` but not in `without`: kind, size, times and contents.
fn snapshot(folder: &Path, without: &Path) -> BTreeMap<String, (u32, u64, i64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a directory").flatten() {
        let path = entry.path();
        let facts = fs::symlink_metadata(&path).expect("it is there");
        if path == without {
            continue;
        }
        let contents = if facts.is_file() { fs::read(&path).unwrap_or_default() } else { vec![] };
        let facts_of = (facts.mode(), facts.size(), facts.mtime(), facts.mtime_nsec(), contents);
        all.insert(path.to_string_lossy().into_owned(), facts_of);
        if facts.is_dir() {
            all.extend(snapshot(&path, without));
        }
    }
    all
}

struct Guest<'a> {
    kernel: Kernel,
    input: Input<'a>,
    nodes: Vec<u64>,
    handles: Vec<u64>,
    unique: u64,
}

impl Guest<'_> {
    fn step(&mut self) {
        let opcode = match self.input.byte() {
            byte @ 0..240 => OPCODES[usize::from(byte) % OPCODES.len()],
            byte => u32::from(byte) - 240 + u32::from(self.input.byte()),
        };
        let node = self.node();
        let mut request = self.request(opcode, node);
        if self.input.byte() % 8 == 0 {
            self.damage(&mut request);
        }
        let room = match self.input.byte() % 16 {
            0 => usize::from(self.input.byte()),
            _ => MAX_REPLY,
        };
        let reply = self.kernel.session.answer(&request, room);
        assert!(reply.len() <= room, "no reply is longer than its room");
        let shown = reply.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        assert!(!shown, "nothing of others is shown");
        self.learn(opcode, &reply);
    }

    fn node(&mut self) -> u64 {
        match self.input.byte() {
            255 => u64::from(self.input.byte()),
            byte => self.nodes[usize::from(byte) % self.nodes.len()],
        }
    }

    fn request(&mut self, opcode: u32, node: u64) -> Vec<u8> {
        self.unique += 1;
        let (name, other) = (self.name(), self.name());
        let mode = u32::from(self.input.byte()) << 8 | 0o700;
        let flags = u32::from(self.input.byte()) << 1;
        let place = (u64::from(self.input.byte()) << 5).to_le_bytes();
        let handle = match self.handles.len() {
            0 => u64::from(self.input.byte()),
            count => self.handles[usize::from(self.input.byte()) % count],
        };
        let handle = handle.to_le_bytes();
        let numbers = |numbers: &[u32]| -> Vec<u8> {
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
        };
        let arguments: Vec<Vec<u8>> = match opcode {
            opcode::LOOKUP | opcode::UNLINK | opcode::RMDIR => vec![name],
            opcode::MKDIR => vec![numbers(&[mode, 0]), name],
            opcode::MKNOD => vec![numbers(&[mode << 4 | mode, 0, 0, 0]), name],
            opcode::CREATE => vec![numbers(&[flags, mode, 0, 0]), name],
            opcode::SYMLINK => vec![name, other],
            opcode::RENAME => vec![self.node().to_le_bytes().to_vec(), name, other],
            opcode::RENAME2 => {
                vec![self.node().to_le_bytes().to_vec(), numbers(&[flags >> 7, 0]), name, other]
            }
            opcode::LINK => vec![self.node().to_le_bytes().to_vec(), name],
            opcode::OPEN | opcode::OPENDIR => vec![numbers(&[flags, 0])],
            opcode::READ | opcode::READDIR => {
                vec![handle.to_vec(), place.to_vec(), numbers(&[4096, 0, 0, 0, 0, 0])]
            }
            opcode::WRITE => {
                let data = vec![7; usize::from(self.input.byte()) * 32];
                let rest = numbers(&[data.len() as u32, 0, 0, 0, 0, 0]);
                vec![handle.to_vec(), place.to_vec(), rest, data]
            }
            opcode::SETATTR => {
                let valid = numbers(&[u32::from(self.input.byte()) & !6, 0]);
                let rest = numbers(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, mode, 0, 1000, 1000, 0]);
                vec![valid, handle.to_vec(), place.to_vec(), rest]
            }
            _ => vec![handle.to_vec(), place.to_vec(), name, other],
        };
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        Kernel::request(opcode, self.unique, node, &arguments)
    }

    fn name(&mut self) -> Vec<u8> {
        let mut name = match self.input.byte() {
            255 => vec![b'n'; usize::from(self.input.byte()) + 10],
            byte => NAMES[usize::from(byte) % NAMES.len()].to_vec(),
        };
        name.push(0);
        name
    }

    fn damage(&mut self, request: &mut Vec<u8>) {
        let at = usize::from(self.input.byte()) % request.len();
        match self.input.byte() % 3 {
            0 => request.truncate(at),
            1 => request.extend(vec![0; at]),
            _ => request[at] = self.input.byte(),
        }
    }

    fn learn(&mut self, opcode: u32, reply: &[u8]) {
        let Some(body) = reply.get(REPLY_HEADER..).filter(|_| reply[4..8] == [0; 4]) else {
            return;
        };
        let at = |at: usize| {
            body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
        };
        match opcode {
            opcode::LOOKUP | opcode::MKDIR | opcode::SYMLINK | opcode::MKNOD => {
                self.nodes.extend(at(0));
            }
            opcode::CREATE => {
                self.nodes.extend(at(0));
                self.handles.extend(at(128));
            }
            opcode::OPEN | opcode::OPENDIR => self.handles.extend(at(0)),
            _ => {}
        }
    }
}

/// Bytes, and zeros when there are no more.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
}
