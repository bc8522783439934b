use std::fs;

use proptest::prelude::*;
use rustix::io::Errno;

use crate::guest_kernel::{Kernel, ROOT, World, exercise, opcode};
use crate::{Grant, MAX_DATA, Quota, REPLY_HEADER, Right};

const ACCESS: Result<(), i32> = Err(13);
const STALE: Result<(), i32> = Err(116);

fn world() -> World {
    World::new(Quota { bytes: 1 << 20, files: 1000 })
}

fn grant(world: &World, space: &str, to: &str, path: &str, right: Right) {
    let grant = Grant { to: to.parse().unwrap(), path: path.parse().unwrap(), right };
    world.manager.change(|table| table.grant(&space.parse().unwrap(), grant)).unwrap();
}

fn revoke(world: &World, space: &str, to: &str, path: &str) {
    let (to, path) = (to.parse().unwrap(), path.parse().unwrap());
    world.manager.change(|table| table.revoke(&space.parse().unwrap(), &to, &path)).unwrap();
}

/// Alice's space with `shared/notes` in it.
fn alice_with_notes(world: &World) -> (Kernel, u64, u64) {
    let mut alice = world.kernel("alice", &[]);
    let space = alice.walk("alice").unwrap();
    let shared = alice.make_folder(space, "shared").unwrap();
    let (_, handle) = alice.create(shared, "notes").unwrap();
    assert_eq!(alice.write(handle, 0, b"hello"), Ok(5));
    alice.create(space, "private").unwrap();
    (alice, space, shared)
}

fn no_value<T>(result: Result<T, i32>) -> Result<(), i32> {
    result.map(drop)
}

#[test]
fn a_user_has_a_space_and_nobody_has_none() {
    let world = world();
    let (mut alice, space, shared) = alice_with_notes(&world);
    assert_eq!(alice.list(ROOT, 4096).unwrap(), ["alice"]);
    assert_eq!(alice.list(space, 4096).unwrap(), ["private", "shared"]);
    let notes = alice.look_up(shared, "notes").unwrap();
    let handle = alice.open(notes, 0).unwrap();
    assert_eq!(alice.read(handle, 1, 100).unwrap(), b"ello");
    assert_eq!(alice.attributes(notes).unwrap(), (5, 0o100_644));

    let mut bob = world.kernel("bob", &[]);
    assert_eq!(bob.list(ROOT, 4096).unwrap(), ["bob"]);
    assert_eq!(bob.look_up(ROOT, "alice"), Err(Errno::NOENT.raw_os_error()));
    let mut nobody = Kernel::new(world.manager, None);
    assert!(nobody.list(ROOT, 4096).unwrap().is_empty());
    assert_eq!(nobody.attributes(ROOT).unwrap().1, 0o40_555);
    assert_eq!(no_value(nobody.make_folder(ROOT, "x")), ACCESS);
}

#[test]
fn numbers_of_other_sessions_are_none() {
    let world = world();
    let (mut alice, space, shared) = alice_with_notes(&world);
    let notes = alice.look_up(shared, "notes").unwrap();
    let handle = alice.open(notes, 0).unwrap();
    // The same user in another machine, and a kernel that was restored.
    let mut again = world.kernel("alice", &[]);
    again.walk("alice/shared/notes").unwrap();
    for node in [0, 2, 3, space, shared, notes, u64::MAX] {
        assert_eq!(no_value(again.attributes(node)), STALE, "{node}");
        assert_eq!(no_value(again.look_up(node, "notes")), STALE, "{node}");
        assert_eq!(no_value(again.open(node, 2)), STALE, "{node}");
    }
    for handle in [0, 1, handle, u64::MAX] {
        assert_eq!(again.read(handle, 0, 5), Err(Errno::BADF.raw_os_error()));
        assert_eq!(again.write(handle, 0, b"x"), Err(Errno::BADF.raw_os_error()));
    }
    alice.ask(opcode::DESTROY, ROOT, &[]).unwrap();
    assert_eq!(no_value(alice.attributes(notes)), STALE);
}

#[test]
fn a_grant_shows_the_way_and_a_revoke_stops_what_is_open() {
    let world = world();
    let (mut alice, ..) = alice_with_notes(&world);
    let mut bob = world.kernel("bob", &["staff"]);
    grant(&world, "alice", "group:staff", "shared", Right::Write);
    assert_eq!(bob.list(ROOT, 4096).unwrap(), ["alice", "bob"]);
    let space = bob.walk("alice").unwrap();
    assert_eq!(bob.list(space, 4096).unwrap(), ["shared"]);
    assert_eq!(bob.look_up(space, "private"), Err(Errno::NOENT.raw_os_error()));
    assert_eq!(no_value(bob.make_folder(space, "x")), ACCESS);
    assert_eq!(bob.rename((space, "shared"), (space, "taken")), ACCESS);
    let notes = bob.walk("alice/shared/notes").unwrap();
    let handle = bob.open(notes, 2).unwrap();
    assert_eq!(bob.write(handle, 5, b" bob"), Ok(4));
    let seen = alice.walk("alice/shared/notes").unwrap();
    let seen = alice.open(seen, 0).unwrap();
    assert_eq!(alice.read(seen, 0, 100).unwrap(), b"hello bob");

    grant(&world, "alice", "group:staff", "shared", Right::Read);
    assert_eq!(no_value(bob.write(handle, 0, b"x")), ACCESS);
    assert_eq!(no_value(bob.set_size(notes, 0)), ACCESS);
    assert_eq!(bob.read(handle, 0, 5).unwrap(), b"hello");
    revoke(&world, "alice", "group:staff", "shared");
    assert_eq!(no_value(bob.read(handle, 0, 5)), ACCESS);
    assert_eq!(no_value(bob.attributes(notes)), ACCESS);
    assert_eq!(no_value(bob.open(notes, 0)), ACCESS);
    assert_eq!(bob.list(ROOT, 4096).unwrap(), ["bob"]);
    assert_eq!(alice.read(seen, 0, 100).unwrap(), b"hello bob");
}

/// A grant is of a place: an open file of it was once read and written where its
/// owner had moved it to.
#[test]
fn what_is_moved_out_of_a_grant_is_not_reached_by_who_has_it_open() {
    let world = world();
    let (mut alice, space, shared) = alice_with_notes(&world);
    alice.make_folder(shared, "folder").unwrap();
    let mut bob = world.kernel("bob", &[]);
    grant(&world, "alice", "user:bob", "shared", Right::Write);
    let notes = bob.walk("alice/shared/notes").unwrap();
    let handle = bob.open(notes, 2).unwrap();
    let folder = bob.walk("alice/shared/folder").unwrap();
    let listing = bob.open_folder(folder).unwrap();
    assert!(bob.list_open(listing, 4096).is_ok());
    alice.rename((shared, "notes"), (space, "notes")).unwrap();
    alice.rename((shared, "folder"), (space, "folder")).unwrap();
    assert_eq!(no_value(bob.read(handle, 0, 5)), STALE);
    assert_eq!(no_value(bob.write(handle, 0, b"x")), STALE);
    assert_eq!(no_value(bob.set_size(notes, 0)), STALE);
    assert_eq!(no_value(bob.attributes(notes)), STALE);
    assert_eq!(no_value(bob.list_open(listing, 4096)), STALE);
    // Another one in its place is another one.
    alice.create(shared, "notes").unwrap();
    assert_eq!(no_value(bob.read(handle, 0, 5)), STALE);
    alice.remove(space, "notes", false).unwrap();
    assert_eq!(bob.read(handle, 0, 5).unwrap(), b"hello", "it is nowhere, but open");
}

#[test]
fn links_are_text_and_lead_nowhere() {
    let world = world();
    fs::write(world.folder.path().join("secret"), "s").unwrap();
    let mut eve = world.kernel("eve", &[]);
    let space = eve.walk("eve").unwrap();
    for (name, target) in [("up", "../.."), ("out", "/"), ("file", "../../secret")] {
        let link = eve.make_link(space, name, target).unwrap();
        assert_eq!(eve.ask(opcode::READLINK, link, &[]).unwrap(), target.as_bytes());
        assert_eq!(eve.open(link, 0), Err(Errno::LOOP.raw_os_error()));
        assert!(eve.look_up(link, "secret").is_err());
        assert!(eve.create(link, "x").is_err());
        assert!(eve.list(link, 4096).is_err());
        // In the place of a directory that the kernel knows.
        let folder = eve.make_folder(space, "d").unwrap();
        eve.remove(space, "d", true).unwrap();
        eve.make_link(space, "d", target).unwrap();
        assert!(eve.look_up(folder, "secret").is_err());
        assert!(eve.create(folder, "x").is_err());
        eve.remove(space, "d", false).unwrap();
    }
    let names: Vec<_> = fs::read_dir(world.folder.path()).unwrap().flatten().collect();
    assert_eq!(names.len(), 3, "the secret, the spaces and the table");
}

#[test]
fn what_a_space_must_not_have_is_not_made() {
    let world = world();
    let mut eve = world.kernel("eve", &[]);
    let space = eve.walk("eve").unwrap();
    let (file, _) = eve.create(space, "f").unwrap();
    let node = |mode: u32| [mode, 0x0103, 0, 0].map(u32::to_le_bytes).concat();
    for mode in [0o010_644, 0o020_644, 0o060_644, 0o140_644, 0o040_755, 0] {
        let made = eve.ask(opcode::MKNOD, space, &[&node(mode), b"x\0"]);
        assert_eq!(made, Err(Errno::PERM.raw_os_error()), "{mode:o}");
    }
    eve.ask(opcode::MKNOD, space, &[&node(0o104_755), b"x\0"]).unwrap();
    let made = eve.walk("eve/x").unwrap();
    assert_eq!(eve.attributes(made).unwrap().1, 0o100_755, "no set-user-id");
    let link = eve.ask(opcode::LINK, space, &[&file.to_le_bytes(), b"y\0"]);
    assert_eq!(link, Err(Errno::PERM.raw_os_error()));
    let attribute = eve.ask(opcode::SETXATTR, file, &[&[0; 16], b"security.capability\0x"]);
    assert_eq!(attribute, Err(Errno::NOSYS.raw_os_error()));
    for name in ["..", ".", "a/b", "", "../x"] {
        assert!(eve.create(space, name).is_err(), "{name:?}");
        assert!(eve.look_up(space, name).is_err(), "{name:?}");
        assert!(eve.rename((space, "f"), (space, name)).is_err(), "{name:?}");
    }
    let long = "n".repeat(256);
    assert_eq!(no_value(eve.create(space, &long)), Err(Errno::NAMETOOLONG.raw_os_error()));
    assert_eq!(eve.list(space, 4096).unwrap(), ["f", "x"]);
}

#[test]
fn a_file_without_a_name_lives_as_long_as_it_is_open() {
    let world = world();
    let mut alice = world.kernel("alice", &[]);
    let space = alice.walk("alice").unwrap();
    let (node, handle) = alice.create(space, "f").unwrap();
    alice.write(handle, 0, b"kept").unwrap();
    alice.remove(space, "f", false).unwrap();
    let (new, _) = alice.create(space, "f").unwrap();
    assert_ne!(node, new);
    assert_eq!(alice.read(handle, 0, 10).unwrap(), b"kept");
    assert_eq!(alice.attributes(node).unwrap().0, 4);
    alice.set_size(node, 2).unwrap();
    assert_eq!((alice.attributes(node).unwrap().0, alice.attributes(new).unwrap().0), (2, 0));
    alice.ask(opcode::RELEASE, node, &[&handle.to_le_bytes()]).unwrap();
    assert_eq!(no_value(alice.attributes(node)), STALE);
}

#[test]
fn what_another_session_did_is_seen_at_once() {
    let world = world();
    let (mut here, space, shared) = alice_with_notes(&world);
    let mut there = world.kernel("alice", &[]);
    let its_space = there.walk("alice").unwrap();
    let notes = there.walk("alice/shared/notes").unwrap();
    here.rename((shared, "notes"), (space, "notes")).unwrap();
    assert_eq!(no_value(there.open(notes, 0)), STALE);
    let moved = there.look_up(its_space, "notes").unwrap();
    let handle = there.open(moved, 2).unwrap();
    there.write(handle, 0, b"J").unwrap();
    let own = here.look_up(space, "notes").unwrap();
    let own = here.open(own, 0).unwrap();
    assert_eq!(here.read(own, 0, 10).unwrap(), b"Jello");
    // Of a directory that went away: nothing lands where another is now.
    let its_shared = there.walk("alice/shared").unwrap();
    here.remove(space, "shared", true).unwrap();
    here.make_folder(space, "shared").unwrap();
    assert_eq!(no_value(there.create(its_shared, "x")), STALE);
}

#[test]
fn a_long_directory_comes_in_pieces() {
    let world = world();
    let mut alice = world.kernel("alice", &[]);
    let space = alice.walk("alice").unwrap();
    let names: Vec<String> = (100..400).map(|number| format!("f{number}")).collect();
    for name in &names {
        alice.make_folder(space, name).unwrap();
    }
    for room in [300, 4096, 1 << 20] {
        assert_eq!(alice.list(space, room).unwrap(), names, "in pieces of {room}");
    }
}

#[test]
fn tables_and_sizes_are_bounded() {
    let world = world();
    let mut alice = world.kernel("alice", &[]);
    let space = alice.walk("alice").unwrap();
    let (node, handle) = alice.create(space, "f").unwrap();
    alice.set_size(node, 1 << 20).unwrap();
    assert_eq!(alice.read(handle, 0, u32::MAX).unwrap().len(), MAX_DATA);
    let too_much = alice.write(handle, 0, &vec![0; MAX_DATA + 1]);
    assert_eq!(too_much, Err(Errno::INVAL.raw_os_error()));
    let full = alice.write(handle, 1 << 20, b"x");
    assert_eq!(full, Err(Errno::DQUOT.raw_os_error()));
    let opened = (0..2000).map(|_| alice.open(node, 0)).find(Result::is_err);
    assert_eq!(opened, Some(Err(Errno::MFILE.raw_os_error())));

    let request = Kernel::request(opcode::READ, 1, node, &[&handle.to_le_bytes(), &[0; 32]]);
    assert!(alice.session.answer(&request, 0).is_empty());
    let request = Kernel::request(opcode::GETATTR, 1, node, &[&[0; 16]]);
    let reply = alice.session.answer(&request, REPLY_HEADER + 4);
    assert_eq!(reply[4..8], (-Errno::IO.raw_os_error()).to_le_bytes());
    assert!(alice.session.answer(&request[..39], 4096).is_empty());
}

#[test]
fn the_negotiation_says_the_same_every_time_and_changes_nothing() {
    let world = world();
    let mut alice = world.kernel("alice", &[]);
    let space = alice.walk("alice").unwrap();
    let ask = [7_u32, 41, 1 << 17, u32::MAX, u32::MAX].map(u32::to_le_bytes).concat();
    let ask = [ask, vec![0; 44]].concat();
    let first = alice.ask(opcode::INIT, ROOT, &[&ask]).unwrap();
    let mut other = Kernel::new(world.manager.clone(), None);
    assert_eq!(other.ask(opcode::INIT, ROOT, &[&ask]).unwrap(), first);
    assert!(alice.attributes(space).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_hostile_guest_reaches_nothing_else(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
        exercise(&data);
    }
}
