//! The map against the specification's worked example and a trivial model: a
//! vector with the owner of every block.

use proptest::prelude::*;

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
    assert_eq!(map.begin_move(&name("lpar2"), 200 * M), Err(Refusal::Moving(name("lpar2"))));
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
    assert_eq!(map.commit_move(&name("lpar2")), Err(Refusal::NotMoving(name("lpar2"))));
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

const BLOCKS: u64 = 32;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Debug, Clone)]
enum Operation {
    Assign(usize, u64, u64),
    Fit(usize, u64),
    Begin(usize, u64),
    Commit(usize),
    Abandon(usize),
    Relocate(usize, u64),
    Remove(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let who = 0..NAMES.len();
    let origin = 0..BLOCKS + 4;
    prop_oneof![
        (who.clone(), origin.clone(), 1..9u64).prop_map(|(n, o, s)| Operation::Assign(n, o, s)),
        (who.clone(), 1..9u64).prop_map(|(n, s)| Operation::Fit(n, s)),
        (who.clone(), origin.clone()).prop_map(|(n, o)| Operation::Begin(n, o)),
        who.clone().prop_map(Operation::Commit),
        who.clone().prop_map(Operation::Abandon),
        (who.clone(), origin).prop_map(|(n, o)| Operation::Relocate(n, o)),
        who.prop_map(Operation::Remove),
    ]
}

/// Owner of every block, the content of every block (the number it was given
/// when it was assigned), and the move under way of every name.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    home: [Option<(u64, u64)>; NAMES.len()],
    goal: [Option<u64>; NAMES.len()],
    content: Vec<u64>,
}

impl Model {
    fn owners(&self, block: u64) -> Vec<usize> {
        let holds = |n: &usize| {
            self.home[*n].is_some_and(|(origin, size)| {
                (origin..origin + size).contains(&block)
                    || self.goal[*n].is_some_and(|to| (to..to + size).contains(&block))
            })
        };
        (0..NAMES.len()).filter(holds).collect()
    }

    fn others(&self, n: usize, origin: u64, size: u64) -> Vec<usize> {
        let mut who: Vec<_> = (origin..(origin + size).min(BLOCKS))
            .flat_map(|block| self.owners(block))
            .filter(|owner| *owner != n)
            .collect();
        who.sort_unstable();
        who.dedup();
        who
    }

    fn free(&self, n: usize, origin: u64, size: u64) -> bool {
        origin + size <= BLOCKS && self.others(n, origin, size).is_empty()
    }

    /// The blocks of `n`, by moving a vector, which knows no direction.
    fn move_home(&mut self, n: usize, to: u64) {
        let (from, size) = self.home[n].unwrap();
        let at = |x: u64| usize::try_from(x).unwrap();
        let copy = self.content[at(from)..at(from + size)].to_vec();
        self.content[at(to)..at(to + size)].copy_from_slice(&copy);
        self.home[n] = Some((to, size));
        self.goal[n] = None;
    }

    fn may_move(&self, n: usize, to: u64) -> bool {
        self.home[n].is_some_and(|(from, size)| {
            self.goal[n].is_none() && from != to && self.free(n, to, size)
        })
    }
}

/// Copies the content as the plan says: block by block in its direction.
fn follow(plan: MovePlan, content: &mut [u64]) {
    for step in plan.steps().filter(|step| step.from % M == 0) {
        let at = |offset: u64| usize::try_from(offset / M).unwrap();
        content[at(step.to)] = content[at(step.from)];
    }
}

struct Pair {
    map: StorageMap,
    model: Model,
    content: Vec<u64>,
    plans: [Option<MovePlan>; NAMES.len()],
}

impl Pair {
    fn new() -> Self {
        let content = vec![0; usize::try_from(BLOCKS).unwrap()];
        let model = Model { home: [None; 5], goal: [None; 5], content: content.clone() };
        Self { map: StorageMap::new(BLOCKS * M).unwrap(), model, content, plans: [None; 5] }
    }

    fn fill(&mut self, n: usize, origin: u64, size: u64, stamp: u64) {
        for block in origin..origin + size {
            let at = usize::try_from(block).unwrap();
            self.content[at] = stamp * 100 + block;
            self.model.content[at] = stamp * 100 + block;
        }
        self.model.home[n] = Some((origin, size));
    }

    fn named_in_the_way(&self, refusal: &Refusal, n: usize, origin: u64, size: u64) {
        if let Refusal::InTheWay { by, .. } = refusal {
            let mut named: Vec<_> = by.iter().map(|occupant| occupant.name.as_str()).collect();
            named.sort_unstable();
            let expected: Vec<_> =
                self.model.others(n, origin, size).into_iter().map(|n| NAMES[n]).collect();
            assert_eq!(named, expected);
            assert!(!named.is_empty());
        }
    }

    fn step(&mut self, operation: &Operation, stamp: u64) {
        let before = self.map.clone();
        let legal = match *operation {
            Operation::Assign(n, origin, size) => {
                let legal = self.model.home[n].is_none() && self.model.free(n, origin, size);
                let result = self.map.assign(name(NAMES[n]), range(origin, size));
                assert_eq!(result.is_ok(), legal, "{operation:?}: {result:?}");
                match result {
                    Ok(()) => self.fill(n, origin, size, stamp),
                    Err(refusal) => self.named_in_the_way(&refusal, n, origin, size),
                }
                legal
            }
            Operation::Fit(n, size) => self.fit(n, size, stamp),
            Operation::Begin(n, to) | Operation::Relocate(n, to) => {
                let legal = self.model.may_move(n, to);
                let at_once = matches!(operation, Operation::Relocate(..));
                let result = if at_once {
                    self.map.relocate(&name(NAMES[n]), to * M)
                } else {
                    self.map.begin_move(&name(NAMES[n]), to * M)
                };
                assert_eq!(result.is_ok(), legal, "{operation:?}: {result:?}");
                match (result, self.model.home[n]) {
                    (Ok(plan), _) if at_once => {
                        follow(plan, &mut self.content);
                        self.model.move_home(n, to);
                    }
                    (Ok(plan), _) => {
                        self.plans[n] = Some(plan);
                        self.model.goal[n] = Some(to);
                    }
                    (Err(refusal), Some((_, size))) => {
                        self.named_in_the_way(&refusal, n, to, size);
                    }
                    (Err(refusal), None) => assert!(matches!(refusal, Refusal::Unknown(_))),
                }
                legal
            }
            Operation::Commit(n) => {
                let goal = self.model.goal[n];
                assert_eq!(self.map.commit_move(&name(NAMES[n])).is_ok(), goal.is_some());
                if let (Some(to), Some(plan)) = (goal, self.plans[n].take()) {
                    follow(plan, &mut self.content);
                    self.model.move_home(n, to);
                }
                goal.is_some()
            }
            Operation::Abandon(n) => {
                let legal = self.model.goal[n].take().is_some();
                self.plans[n] = None;
                assert_eq!(self.map.abandon_move(&name(NAMES[n])).is_ok(), legal);
                legal
            }
            Operation::Remove(n) => {
                let legal = self.model.home[n].take().is_some();
                self.model.goal[n] = None;
                self.plans[n] = None;
                assert_eq!(self.map.remove(&name(NAMES[n])).is_ok(), legal);
                legal
            }
        };
        assert!(legal || self.map == before, "{operation:?} was refused and had an effect");
        self.agree();
    }

    fn fit(&mut self, n: usize, size: u64, stamp: u64) -> bool {
        let fits = (0..BLOCKS).any(|origin| self.model.free(usize::MAX, origin, size));
        match self.map.best_fit(size * M) {
            Ok(found) => {
                let origin = found.origin() / M;
                assert!(fits && self.model.free(usize::MAX, origin, size));
                let known = self.model.home[n].is_some();
                assert_eq!(self.map.assign(name(NAMES[n]), found).is_err(), known);
                if !known {
                    self.fill(n, origin, size, stamp);
                }
                !known
            }
            Err(refusal) => {
                assert!(!fits && matches!(refusal, Refusal::NoRoom { .. }));
                false
            }
        }
    }

    fn agree(&self) {
        for (n, text) in NAMES.iter().enumerate() {
            let partition = self.map.get(&name(text));
            let home = partition.map(|p| (p.range().origin() / M, p.range().size() / M));
            assert_eq!(home, self.model.home[n]);
            if let Some((origin, size)) = home {
                let at = |x: u64| usize::try_from(x).unwrap();
                let blocks = at(origin)..at(origin + size);
                assert_eq!(self.content[blocks.clone()], self.model.content[blocks]);
                let after = origin + size..BLOCKS;
                let gap = after.take_while(|block| self.model.owners(*block).is_empty()).count();
                assert_eq!(self.map.gap(&name(text)), Some(gap as u64 * M));
            }
        }
        let mut end = 0;
        for segment in self.map.picture() {
            assert_eq!(segment.origin, end);
            end += segment.size;
            let owner = match &segment.owner {
                Owner::Gap => vec![],
                Owner::Partition(who) | Owner::Reserved(who) => vec![who.as_str()],
            };
            for block in segment.origin / M..end / M {
                let owners = self.model.owners(block);
                assert_eq!(owners.into_iter().map(|n| NAMES[n]).collect::<Vec<_>>(), owner);
            }
        }
        assert_eq!(end, BLOCKS * M);
    }
}

proptest! {
    #[test]
    fn the_map_agrees_with_a_vector_of_owners(
        operations in proptest::collection::vec(operation(), 100..200)
    ) {
        let mut pair = Pair::new();
        for (stamp, operation) in operations.iter().enumerate() {
            pair.step(operation, stamp as u64 + 1);
        }
    }
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
