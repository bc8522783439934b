//! The map against a trivial model: a vector with the owner of every block.

use proptest::prelude::*;

use super::{name, range};
use crate::map::*;
use crate::{BLOCK_SIZE as M, ExchangePlan, ExchangeStep, Owner};

const BLOCKS: u64 = 32;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Debug, Clone)]
enum Operation {
    Assign(usize, u64, u64),
    Fit(usize, u64),
    BeginMove(usize, u64),
    BeginExchange(usize, usize),
    BeginResize(usize, u64),
    // Of whatever is under way.
    Commit(usize),
    Abandon(usize),
    Relocate(usize, u64),
    Exchange(usize, usize),
    Resize(usize, u64),
    Remove(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    let who = 0..NAMES.len();
    let origin = 0..BLOCKS + 4;
    let two = (0..NAMES.len(), 0..NAMES.len());
    let resized = (0..NAMES.len(), 1..12u64);
    prop_oneof![
        (who.clone(), origin.clone(), 1..9u64).prop_map(|(n, o, s)| Operation::Assign(n, o, s)),
        (who.clone(), 1..9u64).prop_map(|(n, s)| Operation::Fit(n, s)),
        (who.clone(), origin.clone()).prop_map(|(n, o)| Operation::BeginMove(n, o)),
        two.clone().prop_map(|(a, b)| Operation::BeginExchange(a, b)),
        resized.clone().prop_map(|(n, s)| Operation::BeginResize(n, s)),
        who.clone().prop_map(Operation::Commit),
        who.clone().prop_map(Operation::Abandon),
        (who.clone(), origin).prop_map(|(n, o)| Operation::Relocate(n, o)),
        two.prop_map(|(a, b)| Operation::Exchange(a, b)),
        resized.prop_map(|(n, s)| Operation::Resize(n, s)),
        who.prop_map(Operation::Remove),
    ]
}

/// What a name is on its way to: a place and a size.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Goal {
    Move((u64, u64)),
    Exchange((u64, u64), usize),
    Resize((u64, u64)),
}

impl Goal {
    fn place(self) -> (u64, u64) {
        match self {
            Self::Move(place) | Self::Exchange(place, _) | Self::Resize(place) => place,
        }
    }
}

/// Owner of every block, the content of every block (the number it was given
/// when it was assigned), and the change under way of every name.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    home: [Option<(u64, u64)>; NAMES.len()],
    goal: [Option<Goal>; NAMES.len()],
    content: Vec<u64>,
}

impl Model {
    fn owners(&self, block: u64) -> Vec<usize> {
        let has = |(origin, size)| (origin..origin + size).contains(&block);
        let holds = |n: &usize| {
            self.home[*n].is_some_and(has) || self.goal[*n].is_some_and(|goal| has(goal.place()))
        };
        (0..NAMES.len()).filter(holds).collect()
    }

    fn others(&self, but: &[usize], (origin, size): (u64, u64)) -> Vec<usize> {
        let mut who: Vec<_> = (origin..(origin + size).min(BLOCKS))
            .flat_map(|block| self.owners(block))
            .filter(|owner| !but.contains(owner))
            .collect();
        who.sort_unstable();
        who.dedup();
        who
    }

    fn free(&self, but: &[usize], (origin, size): (u64, u64)) -> bool {
        origin + size <= BLOCKS && self.others(but, (origin, size)).is_empty()
    }

    /// Takes the blocks of all of `who` from their homes to their goals, by way
    /// of a second vector, which knows no order.
    fn arrive(&mut self, who: &[usize]) {
        let at = |x: u64| usize::try_from(x).unwrap();
        let before = self.content.clone();
        for n in who {
            let (home, goal) = (self.home[*n].unwrap(), self.goal[*n].take().unwrap().place());
            let kept = home.1.min(goal.1);
            self.content[at(goal.0)..at(goal.0 + kept)]
                .copy_from_slice(&before[at(home.0)..at(home.0 + kept)]);
            self.home[*n] = Some(goal);
        }
    }

    fn idle(&self, n: usize) -> Option<(u64, u64)> {
        self.home[n].filter(|_| self.goal[n].is_none())
    }

    fn moved(&self, n: usize, to: u64) -> Option<Goal> {
        let (from, size) = self.idle(n)?;
        (from != to && self.free(&[n], (to, size))).then_some(Goal::Move((to, size)))
    }

    fn resized(&self, n: usize, size: u64) -> Option<Goal> {
        let (from, old) = self.idle(n)?;
        (size != old && self.free(&[n], (from, size))).then_some(Goal::Resize((from, size)))
    }

    /// Where two go that change places, by trying one place after the other.
    fn exchanged(&self, a: usize, b: usize) -> Option<[Goal; 2]> {
        let [a_home, b_home] = [self.idle(a)?, self.idle(b)?];
        if a == b {
            return None;
        }
        let (large, small) = if a_home.1 >= b_home.1 { (a_home, b_home) } else { (b_home, a_home) };
        let large_to = (0..=small.0)
            .rev()
            .take_while(|to| self.free(&[a, b], (*to, small.0 - to + small.1)))
            .find(|to| self.free(&[a, b], (*to, large.1)))?;
        let apart = |to: &u64| to + small.1 <= large_to || large_to + large.1 <= *to;
        let small_to = (large.0..BLOCKS).find(apart)?;
        let mut places = [(large_to, large.1), (small_to, small.1)];
        if a_home.1 < b_home.1 {
            places.reverse();
        }
        Some([Goal::Exchange(places[0], b), Goal::Exchange(places[1], a)])
    }

    /// `n` and whoever is in the same exchange.
    fn together(&self, n: usize) -> Vec<usize> {
        let partner = |m: &usize| {
            let is_with = |goal, other| matches!(goal, Some(Goal::Exchange(_, w)) if w == other);
            is_with(self.goal[n], *m) && is_with(self.goal[*m], n)
        };
        std::iter::once(n).chain((0..NAMES.len()).filter(partner)).collect()
    }
}

/// Copies the content as the plan says: block by block in its order.
fn follow(plan: Plan, content: &mut [u64]) {
    let at = |offset: u64| usize::try_from(offset / M).unwrap();
    match plan {
        Plan::Move(plan) => {
            for step in plan.steps().filter(|step| step.from % M == 0) {
                content[at(step.to)] = content[at(step.from)];
            }
        }
        Plan::Exchange(plan) => {
            let mut buffer = None;
            for step in plan.steps() {
                match step {
                    ExchangeStep::Save(from) if from % M == 0 => buffer = Some(content[at(from)]),
                    ExchangeStep::Copy(step) if step.from % M == 0 => {
                        content[at(step.to)] = content[at(step.from)];
                    }
                    ExchangeStep::Restore(to) if to % M == 0 => {
                        content[at(to)] = buffer.take().unwrap();
                    }
                    _ => {}
                }
            }
        }
        Plan::Resize => {}
    }
}

#[derive(Debug, Clone, Copy)]
enum Plan {
    Move(MovePlan),
    Exchange(ExchangePlan),
    Resize,
}

struct Pair {
    map: StorageMap,
    model: Model,
    content: Vec<u64>,
    plans: [Option<Plan>; NAMES.len()],
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

    fn named_in_the_way(&self, refusal: &Refusal, but: &[usize]) {
        let (Refusal::InTheWay { by, .. } | Refusal::GapTooSmall { by, .. }) = refusal else {
            return;
        };
        let place = match refusal {
            Refusal::InTheWay { range, .. } => (range.origin() / M, range.size() / M),
            Refusal::GapTooSmall { wanted, .. } => {
                (self.model.home[but[0]].unwrap().0, wanted.0 / M)
            }
            _ => unreachable!(),
        };
        let mut named: Vec<_> = by.iter().map(|occupant| occupant.name.as_str()).collect();
        named.sort_unstable();
        let expected: Vec<_> =
            self.model.others(but, place).into_iter().map(|n| NAMES[n]).collect();
        assert_eq!(named, expected);
        assert!(!named.is_empty());
    }

    /// The map's answer to the beginning of a change of all of `who`.
    fn begun(&mut self, who: &[usize], goals: Option<&[Goal]>, result: Result<Plan, Refusal>) {
        assert_eq!(result.is_ok(), goals.is_some(), "{who:?} {goals:?}: {result:?}");
        match (result, goals) {
            (Ok(plan), Some(goals)) => {
                for (n, goal) in who.iter().zip(goals) {
                    self.model.goal[*n] = Some(*goal);
                    self.plans[*n] = Some(plan);
                }
            }
            (Err(refusal), _) => self.named_in_the_way(&refusal, who),
            (Ok(_), None) => unreachable!(),
        }
    }

    /// The change of `n` is done, by the map as well.
    fn arrived(&mut self, n: usize, stamp: u64) {
        let who = self.model.together(n);
        if let Some(plan) = self.plans[n] {
            follow(plan, &mut self.content);
        }
        let old = self.model.home[n].unwrap();
        self.model.arrive(&who);
        let new = self.model.home[n].unwrap();
        if old.0 == new.0 && new.1 > old.1 {
            self.fill(n, old.0 + old.1, new.1 - old.1, stamp);
            self.model.home[n] = Some(new);
        }
        // One half of an exchange whose other half is gone.
        if who.len() == 1 && matches!(self.plans[n], Some(Plan::Exchange(_))) {
            self.content.clone_from(&self.model.content);
        }
        for n in who {
            self.plans[n] = None;
        }
    }

    fn step(&mut self, operation: &Operation, stamp: u64) {
        let before = self.map.clone();
        let legal = match *operation {
            Operation::Assign(n, origin, size) => self.assign(n, (origin, size), stamp),
            Operation::Fit(n, size) => self.fit(n, size, stamp),
            Operation::BeginMove(n, to) | Operation::Relocate(n, to) => {
                let goal = self.model.moved(n, to);
                let result = self.map.begin_move(&name(NAMES[n]), to * M).map(Plan::Move);
                self.begun(&[n], goal.as_ref().map(std::slice::from_ref), result);
                goal.is_some()
            }
            Operation::BeginResize(n, size) | Operation::Resize(n, size) => {
                let goal = self.model.resized(n, size);
                let result = self.map.begin_resize(&name(NAMES[n]), size * M);
                self.begun(
                    &[n],
                    goal.as_ref().map(std::slice::from_ref),
                    result.map(|_| Plan::Resize),
                );
                goal.is_some()
            }
            Operation::BeginExchange(a, b) | Operation::Exchange(a, b) => {
                let goals = self.model.exchanged(a, b);
                let result = self.map.begin_exchange(&name(NAMES[a]), &name(NAMES[b]));
                let goals = goals.as_ref().map(<[Goal; 2]>::as_slice);
                self.begun(&[a, b], goals, result.map(Plan::Exchange));
                goals.is_some()
            }
            Operation::Commit(n) => self.commit(n, stamp),
            Operation::Abandon(n) => self.abandon(n),
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
        if legal {
            self.at_once(operation, before, stamp);
        }
    }

    /// What is begun and committed at once comes to the same.
    fn at_once(&mut self, operation: &Operation, mut before: StorageMap, stamp: u64) {
        let n = match *operation {
            Operation::Relocate(n, to) => {
                before.relocate(&name(NAMES[n]), to * M).unwrap();
                n
            }
            Operation::Resize(n, size) => {
                before.resize(&name(NAMES[n]), size * M).unwrap();
                n
            }
            Operation::Exchange(a, b) => {
                before.exchange(&name(NAMES[a]), &name(NAMES[b])).unwrap();
                a
            }
            _ => return,
        };
        assert!(self.commit(n, stamp));
        assert_eq!(self.map, before);
        self.agree();
    }

    fn commit(&mut self, n: usize, stamp: u64) -> bool {
        let goal = self.model.goal[n];
        let who = name(NAMES[n]);
        let is = |result: Result<(), Refusal>| result.is_ok();
        assert_eq!(is(self.map.commit_move(&who)), matches!(goal, Some(Goal::Move(..))));
        assert_eq!(is(self.map.commit_exchange(&who)), matches!(goal, Some(Goal::Exchange(..))));
        assert_eq!(is(self.map.commit_resize(&who)), matches!(goal, Some(Goal::Resize(..))));
        if goal.is_some() {
            self.arrived(n, stamp);
        }
        goal.is_some()
    }

    fn abandon(&mut self, n: usize) -> bool {
        let goal = self.model.goal[n];
        let who = name(NAMES[n]);
        let is = |result: Result<(), Refusal>| result.is_ok();
        assert_eq!(is(self.map.abandon_move(&who)), matches!(goal, Some(Goal::Move(..))));
        assert_eq!(is(self.map.abandon_exchange(&who)), matches!(goal, Some(Goal::Exchange(..))));
        assert_eq!(is(self.map.abandon_resize(&who)), matches!(goal, Some(Goal::Resize(..))));
        for m in self.model.together(n) {
            self.model.goal[m] = None;
            self.plans[m] = None;
        }
        goal.is_some()
    }

    fn assign(&mut self, n: usize, place: (u64, u64), stamp: u64) -> bool {
        let legal = self.model.home[n].is_none() && self.model.free(&[n], place);
        let result = self.map.assign(name(NAMES[n]), range(place.0, place.1));
        assert_eq!(result.is_ok(), legal, "{n} {place:?}: {result:?}");
        match result {
            Ok(()) => self.fill(n, place.0, place.1, stamp),
            Err(refusal) => self.named_in_the_way(&refusal, &[n]),
        }
        legal
    }

    fn fit(&mut self, n: usize, size: u64, stamp: u64) -> bool {
        let fits = (0..BLOCKS).any(|origin| self.model.free(&[], (origin, size)));
        match self.map.best_fit(size * M) {
            Ok(found) => {
                let origin = found.origin() / M;
                assert!(fits && self.model.free(&[], (origin, size)));
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
            for block in segment.origin / M..end / M {
                let has = |n: &usize| {
                    self.model.home[*n].is_some_and(|(o, s)| (o..o + s).contains(&block))
                };
                let home = (0..NAMES.len()).find(has).map(|n| Owner::Partition(name(NAMES[n])));
                let owners = self.model.owners(block);
                let reserved = || owners.first().map(|n| Owner::Reserved(name(NAMES[*n])));
                let owner = home.or_else(reserved).unwrap_or(Owner::Gap);
                assert_eq!(segment.owner, owner);
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
