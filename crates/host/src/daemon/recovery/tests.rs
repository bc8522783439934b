use proptest::prelude::*;

use super::*;
use crate::host_file::Engine;
use crate::journal::PartitionRecord;

const M: u64 = 1 << 20;
const FILE: &str = "[main_storage]\nsize = \"64M\"\n";

fn name(text: &str) -> PartitionName {
    text.parse().unwrap()
}

fn range(origin: u64, size: u64) -> StorageRange {
    StorageRange::new(origin * M, size * M).unwrap()
}

fn file(more: &str) -> HostFile {
    HostFile::parse(&format!("{FILE}{more}")).unwrap()
}

fn record(origin: u64, state: StateRecord) -> PartitionRecord {
    let spec = PartitionSpec {
        name: name("a"),
        range: range(origin, 8),
        declared: true,
        image: "minimal".into(),
        vcpus: 1,
        cpus: crate::host_file::CpuAssignment::Floating,
        disk: None,
        autostart: true,
        engine: Engine::Soft,
        io_keys: BTreeMap::new(),
        line: 0,
    };
    records::partition(&spec, spec.range, state)
}

/// `a` at 0 and `b` at 16M, both as `state` says, under `command`.
fn journal(state: &StateRecord, command: Option<CommandRecord>) -> State {
    let partitions = [("a", 0), ("b", 16)].map(|(n, at)| (name(n), record(at, state.clone())));
    State {
        main_storage: Some(records::main_storage(&file("")).unwrap()),
        partitions: partitions.into(),
        commands: command.map(|command| (7, command)).into_iter().collect(),
        ending: false,
    }
}

fn decide(state: &State, remains: &Remains, more: &str) -> Result<Recovery, Contradiction> {
    let mut next = 100;
    recover(&file(more), state, remains, M, || {
        next += 1;
        next
    })
}

fn nothing(survived: bool) -> Remains {
    Remains { found: BTreeMap::new(), ended: BTreeMap::new(), survived }
}

fn living(range: StorageRange) -> Remains {
    let found = [(name("a"), range)].into();
    Remains { found, ended: BTreeMap::new(), survived: true }
}

/// What becomes of `a`.
fn next(state: &State, remains: &Remains) -> Next {
    decide(state, remains, "").unwrap().partitions.swap_remove(0).next
}

fn commands() -> [Option<CommandRecord>; 6] {
    let a = || "a".to_owned();
    [
        None,
        Some(CommandRecord::Start { name: a() }),
        Some(CommandRecord::Stop { name: a() }),
        Some(CommandRecord::Restart { name: a() }),
        Some(CommandRecord::Move { name: a(), from: 0, to: 32 * M }),
        Some(CommandRecord::Delete { name: a() }),
    ]
}

#[test]
fn every_interrupted_command_is_finished_or_undone_as_the_table_says() {
    let here = living(range(0, 8));
    let lived = [
        Next::Adopt,
        Next::Adopt,
        Next::AdoptAndStop(7),
        Next::AdoptAndRestart(7),
        Next::Adopt,
        Next::Adopt,
    ];
    for (command, expected) in commands().into_iter().zip(lived) {
        assert_eq!(
            next(&journal(&StateRecord::Running, command.clone()), &here),
            expected,
            "{command:?}"
        );
    }
    let failed = |next: &Next| matches!(next, Next::Rest(StateRecord::Failed(why)) if why.contains("no host"));
    let stopped = Next::Rest(StateRecord::Stopped(None));
    for (command, survived) in commands().into_iter().flat_map(|c| [(c.clone(), true), (c, false)])
    {
        let found = next(&journal(&StateRecord::Running, command.clone()), &nothing(survived));
        let right = match (&command, survived) {
            (Some(CommandRecord::Exchange { .. } | CommandRecord::Resize { .. }), _) => {
                unreachable!("they have tests of their own")
            }
            (None | Some(CommandRecord::Move { .. }), true) => failed(&found),
            (None | Some(CommandRecord::Move { .. }), false) => matches!(found, Next::Start(100..)),
            (Some(CommandRecord::Start { .. } | CommandRecord::Restart { .. }), _) => {
                found == Next::Start(7)
            }
            (Some(CommandRecord::Stop { .. }), _) => found == stopped,
            (Some(CommandRecord::Delete { .. }), _) => found == Next::Delete(7),
        };
        assert!(right, "{command:?}, {survived}: {found:?}");
    }
}

#[test]
fn a_last_word_is_believed() {
    let words = [
        (Ended::PowerOff, "powered itself off"),
        (Ended::ShutDown, "Stopped(None)"),
        (Ended::Reboot, "Start("),
        (Ended::Failed { reason: "oops".into() }, "oops"),
    ];
    for (word, expected) in words {
        let remains = Remains { ended: [(name("a"), word)].into(), ..nothing(true) };
        let found = format!("{:?}", next(&journal(&StateRecord::Running, None), &remains));
        assert!(found.contains(expected), "{found}");
        // What was stopped before is not changed by an old word.
        let rest = StateRecord::Stopped(None);
        assert_eq!(next(&journal(&rest, None), &remains), Next::Rest(rest));
    }
}

#[test]
fn a_worker_is_where_it_says() {
    let state = journal(&StateRecord::Running, commands()[4].clone());
    let moved = decide(&state, &living(range(32, 8)), "").unwrap();
    assert_eq!(moved.map.get(&name("a")).unwrap().range(), range(32, 8));
    assert!(moved.changes.contains(&Change::Ended(7)));
    let grown = decide(&state, &living(range(0, 12)), "").unwrap();
    assert_eq!(grown.map.get(&name("a")).unwrap().range(), range(0, 12));
    let over_b = living(range(16, 8));
    assert!(matches!(decide(&state, &over_b, ""), Err(Contradiction::Impossible { .. })));
}

#[test]
fn both_partitions_of_an_exchange_went_or_none() {
    let exchange = CommandRecord::Exchange {
        name: "a".into(),
        from: 0,
        to: 16 * M,
        with: "b".into(),
        with_from: 16 * M,
        with_to: 0,
    };
    let state = journal(&StateRecord::Running, Some(exchange));
    let places = |found: &[(&str, u64)]| {
        let found = found.iter().map(|(n, at)| (name(n), range(*at, 8))).collect();
        let recovery = decide(&state, &Remains { found, ..nothing(true) }, "").unwrap();
        assert!(recovery.changes.contains(&Change::Ended(7)));
        ["a", "b"].map(|n| recovery.map.get(&name(n)).unwrap().range().origin() / M)
    };
    assert_eq!(places(&[("a", 0), ("b", 16)]), [0, 16]);
    assert_eq!(places(&[("a", 16), ("b", 0)]), [16, 0]);
    assert_eq!(places(&[("a", 16)]), [16, 0], "b died, and its place is the other one");
    assert_eq!(places(&[("b", 0)]), [16, 0]);
    assert_eq!(places(&[("a", 0)]), [0, 16]);
    assert_eq!(places(&[]), [0, 16]);
}

#[test]
fn the_host_file_adds_and_does_not_change() {
    let state = journal(&StateRecord::Stopped(None), None);
    let part = |n: &str, more: &str| {
        format!("[[partition]]\nname = \"{n}\"\nimage = \"minimal\"\n{more}\n")
    };
    let both = |more: &str| format!("{}{more}", part("a", "size = \"16M\"\norigin = \"40M\""));
    // `c` fits best before `b` in main storage as it is, not as in the file.
    let found = decide(&state, &nothing(true), &both(&part("c", "size = \"8M\""))).unwrap();
    let ranges: Vec<_> =
        found.map.partitions().iter().map(|p| (p.name().to_string(), p.range())).collect();
    assert_eq!(
        ranges,
        [("a".into(), range(0, 8)), ("c".into(), range(8, 8)), ("b".into(), range(16, 8))]
    );
    assert!(matches!(found.partitions[2].next, Next::Start(_)), "new ones start with the host");

    let clash =
        decide(&state, &nothing(true), &both(&part("c", "size = \"8M\"\norigin = \"20M\"")));
    let said = clash.unwrap_err().to_string();
    assert!(said.contains("\"c\"") && said.contains("\"b\""), "{said}");
    let other = HostFile { main_storage: 65 * M, ..file("") };
    let error = recover(&other, &state, &nothing(true), M, || 1).unwrap_err();
    assert!(error == Contradiction::MainStorage && error.to_string().contains("berth down"));
    let stranger = Remains { found: [(name("x"), range(0, 1))].into(), ..nothing(true) };
    assert!(matches!(decide(&state, &stranger, ""), Err(Contradiction::Stranger(_))));
}

proptest! {
    #[test]
    fn what_is_decided_twice_is_the_same(
        running in any::<[bool; 2]>(),
        which in 0usize..6,
        on_b: bool,
        lives in any::<[bool; 2]>(),
        survived: bool,
    ) {
        // Killed right after the decision was recorded: nothing is lost by that.
        let mut command = commands()[which].clone();
        if let (true, Some(command)) = (on_b, &mut command) {
            let text = serde_json::to_string(command).unwrap().replace("\"a\"", "\"b\"");
            *command = serde_json::from_str(&text).unwrap();
        }
        let mut state = journal(&StateRecord::Stopped(None), command);
        for (record, running) in state.partitions.values_mut().zip(running) {
            record.state = if running { StateRecord::Running } else { StateRecord::Stopped(None) };
        }
        let places = [("a", range(0, 8)), ("b", range(16, 8))].into_iter().zip(lives);
        let found = places.filter(|(_, lives)| *lives).map(|((n, range), _)| (name(n), range));
        let survived = survived || lives != [false; 2];
        let remains = Remains { found: found.collect(), ended: BTreeMap::new(), survived };
        let first = decide(&state, &remains, "").unwrap();
        state.apply(&first.changes);
        prop_assert!(state.commands.keys().all(|id| first.changes.iter().any(|change| matches!(change, Change::Command(other, _) if other == id))));
        let second = decide(&state, &remains, "").unwrap();
        prop_assert_eq!(first.partitions, second.partitions);
        prop_assert_eq!(first.map, second.map);
    }
}
