use std::thread::JoinHandle;

use storage_window::Backing;

use super::*;

const M: u64 = 1 << 20;

/// A keeper on a thread of the test.
fn keeper(dir: &StateDir, user: u32) -> JoinHandle<io::Result<()>> {
    let listener = link::listen(&dir.keeper_socket()).unwrap();
    std::thread::spawn(move || keep(&listener, user))
}

fn state_dir() -> (tempfile::TempDir, StateDir, u32) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::choose(Some(dir.path().to_owned())).unwrap();
    (dir, state, rustix::process::geteuid().as_raw())
}

fn connect(dir: &StateDir) -> Keeper {
    Keeper { link: Link::connect(&dir.keeper_socket()).unwrap(), child: None }
}

#[test]
fn main_storage_outlives_the_host_that_made_it() {
    let (_dir, dir, user) = state_dir();
    assert!(Keeper::find(&dir).unwrap().is_none(), "there is none");
    let thread = keeper(&dir, user);
    let storage = MainStorage::create(4 * M, Backing::Memfd).unwrap();
    rustix::io::pwrite(storage.storage_fd(), b"kept", M).unwrap();
    let first = Keeper::give_to(&dir.keeper_socket(), &storage).unwrap();
    drop((first, storage));

    let (mut second, storage) = Keeper::find(&dir).unwrap().unwrap();
    let mut bytes = [0; 4];
    rustix::io::pread(storage.storage_fd(), &mut bytes, M).unwrap();
    assert_eq!((storage.size(), &bytes), (4 * M, b"kept"));
    second.end().unwrap();
    thread.join().unwrap().unwrap();
    assert!(Keeper::find(&dir).unwrap().is_none());
    assert!(end_keeper_of(&dir).is_ok());
}

#[test]
fn a_keeper_that_was_given_nothing_is_ended() {
    let (_dir, dir, user) = state_dir();
    let thread = keeper(&dir, user);
    assert!(Keeper::find(&dir).unwrap().is_none());
    thread.join().unwrap().unwrap();
}

#[test]
fn other_users_and_nonsense_get_nothing() {
    let (_dir, dir, user) = state_dir();
    let thread = keeper(&dir, user + 1);
    let refused = connect(&dir).ask(&Ask::Give, &[]);
    assert!(refused.is_err(), "{refused:?}");
    // It serves nobody here, so it is left to the test's end.
    drop(thread);

    let (_dir, dir, user) = state_dir();
    let thread = keeper(&dir, user);
    let nonsense = connect(&dir);
    nonsense.link.send(&"nonsense", &[]).unwrap();
    assert!(matches!(nonsense.link.receive::<Answer>(), Ok(None)), "hung up");
    let without = connect(&dir).ask(&Ask::Keep, &[]);
    assert!(without.is_err(), "{without:?}");
    end_keeper_of(&dir).unwrap();
    thread.join().unwrap().unwrap();
}
