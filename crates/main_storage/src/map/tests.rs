//! The map against the specification's worked example, and what refusals say.

mod model;

use super::*;
use crate::{BLOCK_SIZE as M, Direction, Owner, Segment};

fn name(text: &str) -> PartitionName {
    PartitionName::new(text).unwrap()
}

fn range(origin: u64, size: u64) -> StorageRange {
    StorageRange::new(origin * M, size * M).unwrap()
}

fn figure_3a() -> StorageMap {
    let mut map = StorageMap::new(509 * M).unwrap();
    map.assign(name("lpar1"), range(0, 128)).unwrap();
    map.assign(name("lpar2"), range(128, 256)).unwrap();
    map
}

fn table(map: &StorageMap) -> Vec<(&str, u64, u64, u64)> {
    map.partitions()
        .iter()
        .map(|p| {
            let gap = map.gap(p.name()).unwrap();
            (p.name().as_str(), p.range().origin() / M, p.range().size() / M, gap / M)
        })
        .collect()
}

#[test]
fn worked_example_figure_3a_to_4a() {
    let mut map = figure_3a();
    assert_eq!(table(&map), [("lpar1", 0, 128, 0), ("lpar2", 128, 256, 125)]);
    let plan = map.relocate(&name("lpar2"), 192 * M).unwrap();
    assert_eq!((plan.from(), plan.to()), (range(128, 256), range(192, 256)));
    assert_eq!(plan.direction(), Direction::Down);
    assert_eq!(plan.overlap(), Some(range(192, 192)));
    assert_eq!(table(&map), [("lpar1", 0, 128, 64), ("lpar2", 192, 256, 61)]);
    let segment = |origin, size, owner| Segment { origin: origin * M, size: size * M, owner };
    assert_eq!(
        map.picture(),
        [
            segment(0, 128, Owner::Partition(name("lpar1"))),
            segment(128, 64, Owner::Gap),
            segment(192, 256, Owner::Partition(name("lpar2"))),
            segment(448, 61, Owner::Gap),
        ]
    );
}

#[test]
fn a_refusal_says_who_where_and_what_to_do() {
    let map = figure_3a();
    let refusal = map.plan_move(&name("lpar2"), 64 * M).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "64M to 320M is not free: \"lpar1\" (0 to 128M) is in the way; \
         move it first or choose another origin"
    );
    let refusal = map.plan_move(&name("lpar2"), 254 * M).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "254M to 510M ends past main storage, which has 509M; \
         choose a lower origin or a smaller size"
    );
}

#[test]
fn both_ranges_are_held_while_a_move_is_under_way() {
    let mut map = figure_3a();
    map.begin_move(&name("lpar2"), 192 * M).unwrap();
    assert_eq!(
        map.begin_move(&name("lpar2"), 200 * M),
        Err(Refusal::Busy { name: name("lpar2"), change: "moved" })
    );
    for (origin, held) in [(128, range(128, 256)), (440, range(192, 256))] {
        assert_eq!(
            map.assign(name("late"), range(origin, 8)).unwrap_err().in_the_way(),
            [Occupant { name: name("lpar2"), range: held }]
        );
    }
    assert_eq!(map.gaps(), [range(448, 61)]);
    assert_eq!(map.gap(&name("lpar2")), Some(0));
    assert_eq!(map.picture()[2].owner, Owner::Reserved(name("lpar2")));
    let mut abandoned = map.clone();
    abandoned.abandon_move(&name("lpar2")).unwrap();
    assert_eq!(abandoned, figure_3a());
    map.commit_move(&name("lpar2")).unwrap();
    assert_eq!(map.gaps(), [range(128, 64), range(448, 61)]);
    assert_eq!(
        map.commit_move(&name("lpar2")),
        Err(Refusal::NotUnderWay { name: name("lpar2"), change: "moved" })
    );
}

#[test]
fn best_fit_takes_the_smallest_gap_that_is_large_enough() {
    let mut map = StorageMap::new(100 * M).unwrap();
    map.assign(name("a"), range(30, 10)).unwrap();
    map.assign(name("b"), range(50, 10)).unwrap();
    map.assign(name("c"), range(70, 30)).unwrap();
    assert_eq!(map.best_fit(10 * M), Ok(range(40, 10)));
    assert_eq!(map.best_fit(11 * M), Ok(range(0, 11)));
    let (size, largest) = (Size(31 * M), Size(30 * M));
    assert_eq!(map.best_fit(31 * M), Err(Refusal::NoRoom { size, largest }));
    assert_eq!(map.best_fit(5), Err(Refusal::Range(RangeError::SizeUnaligned(Size(5)))));
}

#[test]
fn a_partition_grows_by_the_gap_behind_it_and_no_further() {
    let mut map = figure_3a();
    let refusal = map.plan_resize(&name("lpar1"), 129 * M).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "\"lpar1\" cannot grow to 129M: the gap behind it has 0 of the 1M it needs, then \
         \"lpar2\" (128M to 384M) is in the way; make room there first or ask for less"
    );
    assert!(matches!(
        map.plan_resize(&name("lpar2"), 382 * M),
        Err(Refusal::OutsideMainStorage { .. })
    ));
    map.relocate(&name("lpar2"), 192 * M).unwrap();
    let plan = map.begin_resize(&name("lpar1"), 192 * M).unwrap();
    assert_eq!((plan.grows(), plan.difference()), (true, range(128, 64)));
    assert_eq!(map.picture()[1].owner, Owner::Reserved(name("lpar1")));
    assert!(map.assign(name("late"), range(190, 1)).is_err());
    map.commit_resize(&name("lpar1")).unwrap();
    assert_eq!(table(&map)[0], ("lpar1", 0, 192, 0));
    assert!(matches!(map.resize(&name("lpar1"), 192 * M), Err(Refusal::SameSize { .. })));
    let plan = map.begin_resize(&name("lpar1"), 100 * M).unwrap();
    assert_eq!((plan.grows(), plan.difference()), (false, range(100, 92)));
    assert!(map.assign(name("late"), range(190, 1)).is_err());
    map.commit_resize(&name("lpar1")).unwrap();
    assert_eq!(table(&map)[0], ("lpar1", 0, 100, 92));
}

#[test]
fn an_exchange_gives_each_the_others_origin() {
    let mut map = figure_3a();
    let plan = map.begin_exchange(&name("lpar1"), &name("lpar2")).unwrap();
    // The larger one covers the origin it leaves, so the smaller one is behind it.
    assert_eq!((plan.a().to(), plan.b().to()), (range(256, 128), range(0, 256)));
    assert_eq!(map.gaps(), [range(384, 125)]);
    assert_eq!(map.in_the_way(range(0, 1), &[]).len(), 2);
    assert_eq!(
        map.plan_move(&name("lpar2"), 0),
        Err(Refusal::Busy { name: name("lpar2"), change: "exchanged" })
    );
    map.commit_exchange(&name("lpar2")).unwrap();
    assert_eq!(table(&map), [("lpar2", 0, 256, 0), ("lpar1", 256, 128, 125)]);
    // Back: the larger one has room at the smaller one's origin.
    map.exchange(&name("lpar1"), &name("lpar2")).unwrap();
    assert_eq!(table(&map), [("lpar1", 0, 128, 125), ("lpar2", 253, 256, 0)]);
    assert_eq!(
        map.exchange(&name("lpar1"), &name("lpar1")),
        Err(Refusal::WithItself(name("lpar1")))
    );
}

#[test]
fn an_exchange_that_does_not_fit_names_who_is_in_the_way() {
    let mut map = StorageMap::new(20 * M).unwrap();
    map.assign(name("small"), range(0, 2)).unwrap();
    map.assign(name("between"), range(3, 1)).unwrap();
    map.assign(name("large"), range(6, 4)).unwrap();
    let refusal = map.plan_exchange(&name("large"), &name("small")).unwrap_err();
    assert_eq!(
        refusal.in_the_way(),
        [Occupant { name: name("between"), range: range(3, 1) }],
        "{refusal}"
    );
    map.relocate(&name("between"), 4 * M).unwrap();
    map.exchange(&name("large"), &name("small")).unwrap();
    assert_eq!(table(&map), [("large", 0, 4, 0), ("between", 4, 1, 1), ("small", 6, 2, 12)]);
}

#[test]
fn the_survivor_of_an_exchange_keeps_what_it_holds() {
    let mut map = figure_3a();
    map.begin_exchange(&name("lpar1"), &name("lpar2")).unwrap();
    map.remove(&name("lpar1")).unwrap();
    assert_eq!(map.gaps(), [range(384, 125)]);
    let mut done = map.clone();
    done.commit_exchange(&name("lpar2")).unwrap();
    assert_eq!(table(&done), [("lpar2", 0, 256, 253)]);
    map.abandon_exchange(&name("lpar2")).unwrap();
    assert_eq!(table(&map), [("lpar2", 128, 256, 125)]);
}

#[test]
fn larger_pages_are_never_shared() {
    let mut map = StorageMap::in_units(12 * M, 2 * M).unwrap();
    let name = name("a");
    for odd in [range(1, 2), range(0, 3)] {
        let refusal = map.assign(name.clone(), odd).unwrap_err();
        assert!(matches!(refusal, Refusal::Unit { unit: Size(unit), .. } if unit == 2 * M));
    }
    assert!(matches!(map.best_fit(M), Err(Refusal::Unit { .. })));
    map.assign(name.clone(), range(2, 4)).unwrap();
    assert!(matches!(map.plan_move(&name, 3 * M), Err(Refusal::Unit { .. })));
    assert!(map.plan_move(&name, 4 * M).is_ok());
    assert_eq!(map.best_fit(2 * M), Ok(range(0, 2)));
    assert!(StorageMap::in_units(12 * M, 0).is_err() && StorageMap::in_units(12 * M, 5).is_err());
}
