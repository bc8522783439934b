//! Compaction plans against an exhaustive search: every move of everything to
//! every block, by Dijkstra, until the wanted range is free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use proptest::prelude::*;

use super::line::Step;
use super::*;
use crate::BLOCK_SIZE as M;

fn name(index: usize) -> PartitionName {
    PartitionName::new(&format!("p{index}")).unwrap()
}

/// The map of `length` blocks with the partitions `(origin, size)`.
fn map(length: u64, partitions: &[(u64, u64)]) -> StorageMap {
    let mut map = StorageMap::new(length * M).unwrap();
    for (index, (origin, size)) in partitions.iter().enumerate() {
        map.assign(name(index), StorageRange::new(origin * M, size * M).unwrap()).unwrap();
    }
    map
}

fn moves(plan: &CompactPlan) -> Vec<(&str, u64)> {
    let blocks = |planned: &PlannedMove| planned.plan.to().origin() / M;
    plan.moves().iter().map(|planned| (planned.name.as_str(), blocks(planned))).collect()
}

/// Does the plan on the map, which refuses what is not legal, and looks for
/// what was promised.
fn carried_out(map: &StorageMap, plan: &CompactPlan, fixed: &[PartitionName]) -> StorageMap {
    let mut after = map.clone();
    for planned in plan.moves() {
        assert!(!fixed.contains(&planned.name));
        let done = after.relocate(&planned.name, planned.plan.to().origin()).unwrap();
        assert_eq!(done, planned.plan);
    }
    assert!(after.gaps().contains(&plan.free()));
    after
}

/// The least number of blocks to be moved, or `None` if no moves help.
/// Partitions are `(size, origin, is fixed)`.
fn exhaustive(
    length: u64,
    start: &[(u64, u64, bool)],
    is_reached: impl Fn(&[(u64, u64, bool)]) -> bool,
) -> Option<u64> {
    // Equal ones are the same wherever they came from.
    let canonical = |mut state: Vec<(u64, u64, bool)>| {
        state.sort_unstable();
        state
    };
    let start = canonical(start.to_vec());
    let mut least = BTreeMap::from([(start.clone(), 0)]);
    let mut open = BinaryHeap::from([(Reverse(0), start)]);
    while let Some((Reverse(cost), state)) = open.pop() {
        if is_reached(&state) {
            return Some(cost);
        }
        if least[&state] < cost {
            continue;
        }
        for (index, (size, at, is_fixed)) in state.iter().enumerate() {
            for to in (0..=length - size).filter(|to| !is_fixed && to != at) {
                let apart = |(other, (s, a, _)): (usize, &(u64, u64, bool))| {
                    other == index || a + s <= to || to + size <= *a
                };
                if !state.iter().enumerate().all(apart) {
                    continue;
                }
                let mut next = state.clone();
                next[index].1 = to;
                let next = canonical(next);
                let cost = cost + size;
                if least.get(&next).is_none_or(|old| cost < *old) {
                    least.insert(next.clone(), cost);
                    open.push((Reverse(cost), next));
                }
            }
        }
    }
    None
}

/// Whether `size` blocks are free from `at`, or anywhere.
fn has_free(length: u64, state: &[(u64, u64, bool)], size: u64, at: Option<u64>) -> bool {
    let free = |from: u64| {
        from + size <= length && state.iter().all(|(s, a, _)| a + s <= from || from + size <= *a)
    };
    at.map_or_else(|| (0..length).any(free), free)
}

#[test]
fn one_partition_in_a_gap_elsewhere_is_less_than_all_sliding_down() {
    let map = map(20, &[(0, 4), (6, 4), (10, 4), (14, 2)]);
    let plan = map.plan_compact(None, &[]).unwrap();
    assert_eq!(moves(&plan), [("p3", 4)]);
    assert_eq!((plan.bytes(), plan.is_least()), (2 * M, true));
    assert_eq!(plan.free(), StorageRange::new(14 * M, 6 * M).unwrap());
}

#[test]
fn a_range_that_is_free_needs_no_moves() {
    let map = map(20, &[(0, 4), (8, 4)]);
    let plan = map.plan_compact(Some(5 * M), &[]).unwrap();
    assert_eq!((moves(&plan), plan.bytes()), (vec![], 0));
    assert_eq!(plan.free(), StorageRange::new(12 * M, 8 * M).unwrap());
}

#[test]
fn one_is_moved_twice_where_nothing_else_helps() {
    // p1 stays. The 3 below it must change places with the 4 above it.
    let map = map(14, &[(0, 3), (4, 2), (8, 4)]);
    let plan = map.plan_compact(None, &[name(1)]).unwrap();
    let who: Vec<_> = moves(&plan).into_iter().map(|(name, _)| name).collect();
    assert_eq!(who, ["p2", "p0", "p2"]);
    assert_eq!((plan.bytes(), plan.is_least()), (11 * M, true));
    assert_eq!(carried_out(&map, &plan, &[name(1)]).gaps(), [plan.free()]);
}

#[test]
fn those_that_may_not_be_moved_are_named_when_they_leave_no_way() {
    let map = map(8, &[(0, 1), (3, 2), (7, 1)]);
    let refusal = map.plan_compact(Some(4 * M), &[name(1)]).unwrap_err();
    assert_eq!(refusal, Refusal::Fixed { size: Size(4 * M), fixed: vec![name(1)] });
    assert_eq!(
        map.plan_compact(Some(5 * M), &[]),
        Err(Refusal::TooLittleFree { size: Size(5 * M), free: Size(4 * M) })
    );
    assert!(map.plan_compact(Some(1), &[]).is_err());
}

#[test]
fn one_being_moved_stays_where_it_is_and_where_it_goes() {
    let mut map = map(10, &[(1, 2), (4, 2)]);
    map.begin_move(&name(1), 5 * M).unwrap();
    let plan = map.plan_compact(None, &[]).unwrap_err();
    assert_eq!(plan, Refusal::Fixed { size: Size(5 * M), fixed: vec![name(1)] });
    let plan = map.plan_compact(Some(4 * M), &[]).unwrap();
    assert_eq!(moves(&plan), [("p0", 7)]);
}

#[test]
fn room_is_made_behind_a_partition_and_it_stays() {
    let mut map = map(16, &[(0, 4), (4, 4), (8, 2), (12, 2)]);
    let plan = map.plan_make_room(&name(0), 6 * M, &[]).unwrap();
    assert_eq!(plan.free().origin(), 4 * M);
    map = carried_out(&map, &plan, &[name(0)]);
    assert!(map.resize(&name(0), 6 * M).is_ok());
    let too_much = map.plan_make_room(&name(0), 12 * M, &[]).unwrap_err();
    assert_eq!(too_much, Refusal::TooLittleFree { size: Size(6 * M), free: Size(2 * M) });
}

/// Up to `most` partitions on `length` blocks, some of which may not be moved.
fn arrangement(length: u64, most: usize) -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    let one = (0u64..3, 1u64..5, prop::bool::weighted(0.15));
    proptest::collection::vec(one, 1..=most).prop_map(move |sizes| {
        let (mut end, mut all) = (0, Vec::new());
        for (gap, size, is_fixed) in sizes {
            let at = end + gap;
            if at + size <= length {
                all.push((size, at, is_fixed));
                end = at + size;
            }
        }
        all
    })
}

fn built(length: u64, all: &[(u64, u64, bool)]) -> (StorageMap, Vec<PartitionName>) {
    let places: Vec<_> = all.iter().map(|(size, at, _)| (*at, *size)).collect();
    let fixed = (0..all.len()).filter(|index| all[*index].2).map(name).collect();
    (map(length, &places), fixed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_plan_copies_more_than_the_best_of_all(
        (length, all) in (12u64..=20).prop_flat_map(|n| (Just(n), arrangement(n, 8))),
        wanted in proptest::option::of(0u64..20),
    ) {
        let (map, fixed) = built(length, &all);
        let free: u64 = length - all.iter().map(|(size, ..)| size).sum::<u64>();
        let wanted = wanted.map(|wanted| 1 + wanted % free.max(1));
        let size = wanted.unwrap_or(free.max(1));
        let best = exhaustive(length, &all, |state| has_free(length, state, size, None));
        match map.plan_compact(wanted.map(|size| size * M), &fixed) {
            Ok(plan) => {
                carried_out(&map, &plan, &fixed);
                prop_assert!(plan.free().size() >= size * M);
                prop_assert_eq!(Some(plan.bytes() / M), best);
                prop_assert!(plan.is_least());
            }
            Err(refusal) => prop_assert_eq!(best, None, "{}", refusal),
        }
    }

    #[test]
    fn no_room_is_made_at_more_than_the_least_copying(
        (length, all) in (12u64..=18).prop_flat_map(|n| (Just(n), arrangement(n, 7))),
        who in 0usize..7, more in 1u64..6,
    ) {
        let (map, fixed) = built(length, &all);
        let who = who % all.len();
        let (size, at, _) = all[who];
        let mut start = all.clone();
        start[who].2 = true;
        let behind = Some(at + size);
        let best = exhaustive(length, &start, |state| has_free(length, state, more, behind));
        match map.plan_make_room(&name(who), (size + more) * M, &fixed) {
            Ok(plan) => {
                let mut after = carried_out(&map, &plan, &fixed);
                prop_assert_eq!(plan.free().origin(), (at + size) * M);
                prop_assert_eq!(Some(plan.bytes() / M), best);
                prop_assert!(after.resize(&name(who), (size + more) * M).is_ok());
            }
            Err(refusal) => prop_assert_eq!(best, None, "{}", refusal),
        }
    }

    /// For many: legal, and no more than the best that keeps the order.
    #[test]
    fn many_are_never_moved_more_than_sliding_them_together(
        all in arrangement(400, 120), wanted in proptest::option::of(1u64..60),
    ) {
        let (map, fixed) = built(400, &all);
        let free: u64 = 400 - all.iter().map(|(size, ..)| size).sum::<u64>();
        let size = wanted.unwrap_or(free);
        let plan = map.plan_compact(wanted.map(|size| size * M), &fixed);
        match (plan, sliding(400, &all, size)) {
            (Ok(plan), best) => {
                carried_out(&map, &plan, &fixed);
                prop_assert!(plan.free().size() >= size * M);
                prop_assert!(best.is_none_or(|best| plan.bytes() <= best * M));
            }
            (Err(_), best) => prop_assert_eq!(best, None),
        }
    }
}

/// The least number of blocks moved where all keep their order: of every run
/// of neighbours, if the gaps in and around it are enough.
fn sliding(length: u64, all: &[(u64, u64, bool)], size: u64) -> Option<u64> {
    let start = |index: usize| all.get(index).map_or(length, |(_, at, _)| *at);
    let end = |index: usize| index.checked_sub(1).map_or(0, |i| all[i].1 + all[i].0);
    let runs =
        (0..=all.len()).flat_map(|first| (first..=all.len()).map(move |after| (first, after)));
    runs.filter(|(first, after)| {
        let run = &all[*first..*after];
        let cost: u64 = run.iter().map(|(size, ..)| size).sum();
        run.iter().all(|(.., is_fixed)| !is_fixed) && start(*after) - end(*first) >= cost + size
    })
    .map(|(first, after)| all[first..after].iter().map(|(size, ..)| size).sum())
    .min()
}

#[test]
fn a_step_names_an_item_by_its_place() {
    let items = [(0, 2), (4, 2)].map(|(at, size)| Item { at, size, is_fixed: false });
    let line = Line::new(8, items.to_vec());
    let solution = spans::solve(&line, Goal { size: 4, at: None }).unwrap();
    assert_eq!(solution.steps, [Step { from: 4, to: 6 }]);
    assert_eq!((solution.cost, solution.free_at), (2, 2));
}
