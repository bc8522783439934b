use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const QUOTA: Quota = Quota { bytes: 100, files: 5 };

fn space() -> (tempfile::TempDir, Arc<Space>) {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::open(folder.path(), &"alice".parse().unwrap()).unwrap();
    (folder, Arc::new(space))
}

/// What a manager that begins now would count.
fn recounted(folder: &tempfile::TempDir) -> Usage {
    Space::open(folder.path(), &"alice".parse().unwrap()).unwrap().usage()
}

#[test]
fn a_quota_refuses_before_anything_is_lost() {
    let (folder, space) = space();
    let (file, _) = space.make_file(&[], b"a", 0o644, QUOTA).unwrap();
    assert_eq!(file.write(0, &[1; 60], false, QUOTA), Ok(60));
    assert_eq!(file.write(50, &[2; 60], false, QUOTA), Err(Errno::DQUOT));
    assert_eq!(file.set_size(101, QUOTA), Err(Errno::DQUOT));
    assert_eq!(file.read(0, 200), Ok(vec![1; 60]), "what was there is there");
    assert_eq!(file.write(0, &[3; 100], false, QUOTA), Ok(100), "up to the edge");
    assert_eq!(space.make_link(&[], b"l", b"/etc/passwd", QUOTA).map(drop), Err(Errno::DQUOT));
    file.set_size(10, QUOTA).unwrap();
    space.make_link(&[], b"l", b"/etc/passwd", QUOTA).unwrap();
    space.make_folder(&[], b"d", 0o755, QUOTA).unwrap();
    assert_eq!(space.usage(), Usage { bytes: 21, files: 3 });
    for name in [b"x", b"y"] {
        space.make_folder(&[b"d"], name, 0o755, QUOTA).unwrap();
    }
    let sixth = space.make_file(&[], b"z", 0o644, QUOTA).map(drop);
    assert_eq!(sixth, Err(Errno::DQUOT));
    assert!(!folder.path().join("alice/z").exists());
    assert_eq!(space.usage(), recounted(&folder));
}

#[test]
fn what_is_appended_goes_to_the_end_that_there_is() {
    let (folder, space) = space();
    let (file, _) = space.make_file(&[], b"a", 0o644, QUOTA).unwrap();
    let (other, _) = space.open_file(&[b"a"], true).unwrap();
    // Neither knows where the other has moved the end to.
    assert_eq!(file.write(0, b"one", true, QUOTA), Ok(3));
    assert_eq!(other.write(0, b"two", true, QUOTA), Ok(3));
    assert_eq!(file.write(3, &[b'x'; 95], true, QUOTA), Err(Errno::DQUOT));
    assert_eq!(file.read(0, 100), Ok(b"onetwo".to_vec()));
    assert_eq!(space.usage(), recounted(&folder));
}

#[test]
fn what_is_removed_or_replaced_no_longer_counts() {
    let (folder, space) = space();
    for (name, size) in [(b"a", 30), (b"b", 20)] {
        let (file, _) = space.make_file(&[], name, 0o644, QUOTA).unwrap();
        file.set_size(size, QUOTA).unwrap();
    }
    let (open, _) = space.open_file(&[b"b"], true).unwrap();
    space.rename((&[], b"a"), (&[], b"b"), false).unwrap();
    assert_eq!(space.usage(), Usage { bytes: 50, files: 2 }, "it is still open");
    assert_eq!(open.set_size(80, QUOTA), Err(Errno::DQUOT), "and its growth counts");
    drop(open);
    assert_eq!(space.usage(), Usage { bytes: 30, files: 1 });
    let kept = space.rename((&[], b"b"), (&[], b"b2"), true);
    assert_eq!(kept, Ok(()));
    space.make_folder(&[], b"d", 0o755, QUOTA).unwrap();
    assert_eq!(space.rename((&[], b"b2"), (&[], b"d"), true), Err(Errno::EXIST));
    assert_eq!(space.remove(&[], b"d", false), Err(Errno::ISDIR));
    space.remove(&[], b"d", true).unwrap();
    space.remove(&[], b"b2", false).unwrap();
    assert_eq!(space.usage(), Usage::default());
    assert_eq!(recounted(&folder), Usage::default());
}

#[test]
fn modes_change_nobody_s_rights_on_the_host() {
    let (folder, space) = space();
    let (file, _) = space.make_file(&[], b"f", 0o7000, QUOTA).unwrap();
    let mode = || fs::metadata(folder.path().join("alice/f")).unwrap().permissions().mode();
    assert_eq!(mode() & 0o7777, 0o600);
    file.set_permissions(0o7111).unwrap();
    assert_eq!(mode() & 0o7777, 0o711);
    space.make_folder(&[], b"d", 0o6000, QUOTA).unwrap();
    let metadata = fs::metadata(folder.path().join("alice/d")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o700);
}

#[test]
fn names_that_are_none_are_refused() {
    let (folder, space) = space();
    let long = [b'a'; 256];
    for name in [&b""[..], b".", b"..", b"a/b", b"../x", b"a\0b", &long] {
        assert!(space.make_file(&[], name, 0o644, QUOTA).is_err(), "{name:?}");
        assert!(space.make_folder(&[], name, 0o755, QUOTA).is_err(), "{name:?}");
        assert!(space.make_link(&[], name, b"x", QUOTA).is_err(), "{name:?}");
        assert!(space.remove(&[], name, true).is_err(), "{name:?}");
        assert!(space.rename((&[], b"a"), (&[], name), false).is_err(), "{name:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(recounted(&folder), Usage::default());
}

#[test]
fn no_directory_gets_deeper_than_can_be_counted() {
    let (folder, space) = space();
    let quota = Quota { bytes: 0, files: 1000 };
    let chain = |top: &'static [u8], depth: usize| {
        let mut place: Vec<&[u8]> = Vec::new();
        for name in std::iter::once(top).chain(std::iter::repeat(&b"d"[..])).take(depth) {
            space.make_folder(&place, name, 0o755, quota).unwrap();
            place.push(name);
        }
        place
    };
    let deep = chain(b"deep", MAX_DEPTH);
    assert_eq!(space.make_folder(&deep, b"x", 0o755, quota).map(drop), Err(Errno::NAMETOOLONG));
    chain(b"three", 3);
    let under = |depth: usize| space.rename((&[], b"three"), (&deep[..depth], b"three"), false);
    assert_eq!(under(MAX_DEPTH - 2), Err(Errno::NAMETOOLONG));
    assert_eq!(under(MAX_DEPTH - 3), Ok(()));
    assert_eq!(recounted(&folder).files, MAX_DEPTH as u64 + 3);
}
