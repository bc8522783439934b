use proptest::prelude::*;
use service_pool::{Group, UserId};

use super::*;

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn space(name: &str) -> SpaceName {
    name.parse().unwrap()
}

fn grant(to: &str, path: &str, right: Right) -> Grant {
    Grant { to: to.parse().unwrap(), path: path.parse().unwrap(), right }
}

fn table() -> AccessTable {
    let mut table = AccessTable::default();
    table.add_space(&space("alice"), Some(&user("alice"))).unwrap();
    table.add_space(&space("team"), None).unwrap();
    table.grant(&space("alice"), grant("user:bob", "a/b", Right::Read)).unwrap();
    table.grant(&space("alice"), grant("group:staff", "a/c", Right::Write)).unwrap();
    table
}

fn level(table: &AccessTable, id: &str, groups: &[&str], place: &str) -> Level {
    let groups: Vec<Group> = groups.iter().map(|name| Group::new(name).unwrap()).collect();
    let (name, path) = place.split_once(':').unwrap();
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    View::new(table, &user(id), &groups).level(&space(name), &names)
}

#[test]
fn an_owner_writes_and_others_reach_what_is_granted() {
    let table = table();
    assert_eq!(level(&table, "alice", &[], "alice:x/y"), Level::Write);
    assert_eq!(level(&table, "bob", &[], "alice:"), Level::Pass);
    assert_eq!(level(&table, "bob", &[], "alice:a"), Level::Pass);
    assert_eq!(level(&table, "bob", &[], "alice:a/b"), Level::Read);
    assert_eq!(level(&table, "bob", &[], "alice:a/b/x"), Level::Read);
    assert_eq!(level(&table, "bob", &[], "alice:a/c"), Level::None);
    assert_eq!(level(&table, "bob", &["staff"], "alice:a/c/x"), Level::Write);
    assert_eq!(level(&table, "bob", &["staff"], "alice:ab"), Level::None);
    assert_eq!(level(&table, "eve", &["crew"], "alice:"), Level::None);
    assert_eq!(level(&table, "alice", &[], "team:"), Level::None);
}

#[test]
fn the_way_to_a_grant_shows_nothing_else() {
    let view = View::new(&table(), &user("bob"), &[Group::new("staff").unwrap()]);
    let none: [&str; 0] = [];
    assert_eq!(view.ways(&space("alice"), &none).into_iter().collect::<Vec<_>>(), ["a"]);
    assert_eq!(view.ways(&space("alice"), &["a"]).into_iter().collect::<Vec<_>>(), ["b", "c"]);
    assert!(view.ways(&space("alice"), &["x"]).is_empty());
    assert!(view.ways(&space("alice"), &["a", "b"]).is_empty());
}

#[test]
fn a_grant_is_replaced_and_revoked() {
    let mut table = table();
    table.grant(&space("alice"), grant("user:bob", "a/b", Right::Write)).unwrap();
    assert_eq!(level(&table, "bob", &[], "alice:a/b"), Level::Write);
    let (bob, path) = ("user:bob".parse().unwrap(), "a/b".parse().unwrap());
    table.revoke(&space("alice"), &bob, &path).unwrap();
    assert_eq!(level(&table, "bob", &[], "alice:"), Level::None);
    let again = table.revoke(&space("alice"), &bob, &path);
    assert!(matches!(again, Err(AccessError::NoGrant { .. })));
    let nowhere = table.grant(&space("bob"), grant("user:bob", "", Right::Read));
    assert_eq!(nowhere, Err(AccessError::NoSpace(space("bob"))));
}

#[test]
fn a_user_gets_no_space_that_is_another_s() {
    let mut table = table();
    assert_eq!(table.add_space(&space("alice"), Some(&user("alice"))), Ok(false));
    let taken = Err(AccessError::Taken(space("team")));
    assert_eq!(table.add_space(&space("team"), Some(&user("team"))), taken);
}

#[test]
fn the_file_keeps_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.json");
    assert_eq!(AccessTable::load(&path).unwrap(), AccessTable::default());
    let mut table = table();
    table.set_quota(&space("team"), Some(Quota { bytes: 5, files: 6 })).unwrap();
    table.save(&path).unwrap();
    assert_eq!(AccessTable::load(&path).unwrap(), table);
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("\"alice\"", "\"../x\""),
        ("a/b", "a/../b"),
        ("user:bob", "bob"),
        ("\"form\": 1", "\"form\": 2"),
        ("\"team\"", "\"alice\""),
    ] {
        assert!(text.contains(from));
        assert!(AccessTable::parse(&text.replace(from, to)).is_err(), "{from} as {to}");
    }
}

#[test]
fn the_table_is_bounded() {
    let mut table = table();
    for number in 0..MAX_GRANTS - 2 {
        let path = format!("p{number}");
        table.grant(&space("alice"), grant("user:eve", &path, Right::Read)).unwrap();
    }
    let more = table.grant(&space("alice"), grant("user:eve", "more", Right::Read));
    assert!(matches!(more, Err(AccessError::TooMany { .. })));
}

proptest! {
    /// Whatever is granted and taken back again leaves the table as it was.
    #[test]
    fn a_revoke_undoes_a_grant(path in "[a-c](/[a-c]){0,3}", write in any::<bool>(), id in "[a-d]") {
        let mut table = table();
        let before = table.clone();
        let right = if write { Right::Write } else { Right::Read };
        let new = grant(&format!("user:{id}"), &path, right);
        table.grant(&space("alice"), new.clone()).unwrap();
        prop_assert_eq!(level(&table, &id, &[], &format!("alice:{path}/x")) == Level::Write, write);
        table.revoke(&space("alice"), &new.to, &new.path).unwrap();
        prop_assert_eq!(table, before);
    }

    #[test]
    fn garbage_is_no_table(text in "\\PC{0,200}") {
        prop_assert!(AccessTable::parse(&text).is_err());
    }
}
