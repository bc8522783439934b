use proptest::prelude::*;

use super::*;

fn login(role: &str) -> Login {
    let limits = Limits::default();
    Login { database: "mail".parse().unwrap(), role: role.parse().unwrap(), limits }
}

fn subject(text: &str) -> Subject {
    text.parse().unwrap()
}

fn role<'t>(table: &'t LoginTable, user: &str, groups: &[&str]) -> Option<&'t str> {
    let groups: Vec<_> = groups.iter().map(|group| Group::new(group).unwrap()).collect();
    let found = table.of(&UserId::new(user).unwrap(), &groups);
    found.map(|(_, login)| login.role.as_str())
}

#[test]
fn a_users_own_row_comes_before_those_of_the_groups() {
    let mut table = LoginTable::default();
    assert_eq!(role(&table, "alice", &["staff"]), None);
    table.grant(subject("group:staff"), login("staff")).unwrap();
    table.grant(subject("group:accounts"), login("accounts")).unwrap();
    assert_eq!(role(&table, "alice", &["staff"]), Some("staff"));
    assert_eq!(role(&table, "alice", &["staff", "accounts"]), Some("accounts"));
    assert_eq!(role(&table, "staff", &[]), None);
    table.grant(subject("user:alice"), login("alice")).unwrap();
    assert_eq!(role(&table, "alice", &["staff"]), Some("alice"));
    table.revoke(&subject("user:alice")).unwrap();
    assert_eq!(role(&table, "alice", &["staff"]), Some("staff"));
    let gone = table.revoke(&subject("user:alice"));
    assert_eq!(gone, Err(TableError::NoRow(subject("user:alice"))));
}

#[test]
fn limits_have_their_ranges() {
    let mut table = LoginTable::default();
    let default = Limits::default();
    for limits in [
        Limits { connections: 0, ..default },
        Limits { connections: MAX_CONNECTIONS + 1, ..default },
        Limits { idle: Some(0), ..default },
        Limits { lifetime: Some(0), ..default },
    ] {
        let row = Login { limits, ..login("alice") };
        assert_eq!(table.grant(subject("user:alice"), row), Err(TableError::Limits));
    }
    assert_eq!(table, LoginTable::default());
}

#[test]
fn the_file_has_a_form_that_stays_and_is_private() {
    let mut table = LoginTable::default();
    let limits = Limits { connections: 2, idle: Some(60), lifetime: None };
    table.grant(subject("user:alice"), Login { limits, ..login("alice") }).unwrap();
    let text = table.to_json().unwrap();
    let compact: String = text.split_whitespace().collect();
    let row = r#"{"of":"user:alice","database":"mail","role":"alice","connections":2,"idle":60}"#;
    assert_eq!(compact, format!(r#"{{"form":1,"login":[{row}]}}"#));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logins.json");
    assert_eq!(LoginTable::load(&path).unwrap(), LoginTable::default());
    table.save(&path).unwrap();
    assert_eq!(LoginTable::load(&path).unwrap(), table);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    assert!(LoginTable::load(&path).is_err());
}

#[test]
fn a_file_that_breaks_a_rule_is_refused() {
    let row = |of: &str, connections: u32| {
        format!(r#"{{"of":"{of}","database":"d","role":"r","connections":{connections}}}"#)
    };
    let page = |rows: &str| format!(r#"{{"form":1,"login":[{rows}]}}"#);
    let good = row("user:a", 1);
    assert!(LoginTable::parse(&page(&good)).is_ok());
    for bad in [page(&format!("{good},{good}")), page(&row("a", 1)), page(&row("user:a", 0))] {
        assert!(LoginTable::parse(&bad).is_err(), "{bad}");
    }
    assert!(LoginTable::parse(r#"{"form":2,"login":[]}"#).is_err());
}

proptest! {
    #[test]
    fn garbage_is_no_table(text in ".{0,200}") {
        let _ = LoginTable::parse(&text);
    }
}
