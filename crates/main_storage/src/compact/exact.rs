//! The cheapest of all sequences of moves, for few items.
//!
//! This is A* over where everything is. What is still to be paid is estimated
//! from below by the cheapest set of items that, lifted off and put down again
//! anywhere, could leave the wanted range free: whoever must be moved must be
//! moved at least once. Mostly that is the true price, and the search goes
//! straight to it; it wanders only where items are in each other's way.
//!
//! *Which places are tried.* Take any sequence of moves, keep who stands
//! between whom at any time, and shift every place as far down as that allows.
//! All stays legal, and each place is now the end of something fixed or not yet
//! moved, or of an item whose place is such, and so on: an end plus the sizes of
//! other items and perhaps of the wanted range. Only these places are tried.
//! (A row in which one item would stand twice, before and after its second
//! move, is left out; no map is known where only that is cheapest.)
//!
//! *What is the same.* Items of one size are; they are kept sorted by place.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};

use super::line::{Goal, Item, Line, Solution, Step};

/// Most items that may be moved.
pub(super) const MOST: usize = 8;

/// Most items of all: the line of few that may be moved among many that may
/// not is left to the other search.
const MOST_OF_ALL: usize = 32;

/// How many arrangements each of two searches may look at: two seconds in all
/// at the very worst.
const WORK: usize = 200_000;

/// What the search came to.
pub(super) enum Outcome {
    /// The cheapest way, and it costs less than the bound.
    Better(Solution),
    /// None costs less than the bound.
    NoBetter,
    /// Too many items, or too much work; with the best found, if that costs
    /// less than the bound.
    Unknown(Option<Solution>),
}

/// Places of the movable items, in the order of [`Search::sizes`].
type Places = [u64; MOST];

/// Ordered so that the heap yields the least estimate, and of equals the one
/// that is farthest.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    estimate: u64,
    paid: u64,
    places: Places,
}

impl Ord for Node {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |node: &Self| (std::cmp::Reverse(node.estimate), node.paid, node.places);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// How an arrangement was reached at the least cost so far.
struct Reached {
    paid: u64,
    by: Option<(Places, Step)>,
}

/// Which places are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The lowest and the highest of each gap, and those that leave the wanted
    /// range free beside: few, and mostly enough.
    Edges,
    /// All that the module speaks of.
    All,
}

/// The cheapest way of `line` to `goal` that costs less than `bound`.
pub(super) fn solve(line: &Line, goal: Goal, bound: Option<u64>) -> Outcome {
    let movable = line.items.iter().filter(|item| !item.is_fixed).count();
    if movable > MOST || line.items.len() > MOST_OF_ALL {
        return Outcome::Unknown(None);
    }
    let (search, start) = Search::new(line, goal);
    let bound = bound.unwrap_or(u64::MAX);
    // A good answer first: it saves the full search from much.
    let good = match search.run(start, bound, Reach::Edges) {
        Outcome::Better(solution) => Some(solution),
        Outcome::NoBetter | Outcome::Unknown(_) => None,
    };
    let bound = good.as_ref().map_or(bound, |solution| solution.cost);
    match (search.run(start, bound, Reach::All), good) {
        (Outcome::NoBetter, Some(solution)) => Outcome::Better(solution),
        (Outcome::Unknown(_), good) => Outcome::Unknown(good),
        (outcome, _) => outcome,
    }
}

/// A set of movable items: bit `i` for item `i`.
type Set = usize;

struct Search {
    length: u64,
    goal: Goal,
    fixed: Vec<Item>,
    /// Of the movable items, largest first.
    sizes: Vec<u64>,
    /// Every set of them and its cost, cheapest first.
    sets: Vec<(u64, Set)>,
    /// For every item the sums of any others' sizes, ascending.
    sums: Vec<Vec<u64>>,
}

impl Search {
    fn new(line: &Line, goal: Goal) -> (Self, Places) {
        let (fixed, mut movable): (Vec<Item>, Vec<Item>) =
            line.items.iter().partition(|item| item.is_fixed);
        movable.sort_by_key(|item| (std::cmp::Reverse(item.size), item.at));
        let sizes: Vec<u64> = movable.iter().map(|item| item.size).collect();
        let mut start = [0; MOST];
        for (place, item) in start.iter_mut().zip(&movable) {
            *place = item.at;
        }
        let cost = |set: Set| members(set).map(|index| sizes[index]).sum::<u64>();
        let every = 0..1usize << sizes.len();
        let mut sets: Vec<_> = every.clone().map(|set| (cost(set), set)).collect();
        sets.sort_unstable();
        let sums = (0..sizes.len())
            .map(|index| {
                let others = every.clone().filter(|set| set & (1 << index) == 0);
                let mut sums: Vec<_> = others.map(cost).collect();
                sums.sort_unstable();
                sums.dedup();
                sums
            })
            .collect();
        (Self { length: line.length, goal, fixed, sizes, sets, sums }, start)
    }

    fn run(&self, start: Places, bound: u64, reach: Reach) -> Outcome {
        let Some(estimate) = self.still_to_pay(&start, bound) else { return Outcome::NoBetter };
        let mut reached = HashMap::from([(start, Reached { paid: 0, by: None })]);
        let mut open = BinaryHeap::from([Node { estimate, paid: 0, places: start }]);
        while let Some(Node { estimate, paid, places }) = open.pop() {
            if estimate == paid {
                return Outcome::Better(self.solution(&reached, places, paid));
            }
            let Some(best) = reached.get(&places).filter(|best| best.paid == paid) else {
                continue;
            };
            // To move one twice in a row is to move it once, farther.
            let last = best.by.map(|(_, step)| step.to);
            for (index, to) in self.moves(&places, last, bound - paid, reach) {
                let step = Step { from: places[index], to };
                let paid = paid + self.sizes[index];
                let moved = self.moved(places, index, to);
                let known = Reached { paid, by: Some((places, step)) };
                match reached.entry(moved) {
                    Entry::Occupied(old) if old.get().paid <= paid => continue,
                    Entry::Occupied(mut old) => drop(old.insert(known)),
                    Entry::Vacant(new) => drop(new.insert(known)),
                }
                if reached.len() > WORK {
                    return Outcome::Unknown(None);
                }
                if let Some(rest) = self.still_to_pay(&moved, bound - paid) {
                    open.push(Node { estimate: paid + rest, paid, places: moved });
                }
            }
        }
        Outcome::NoBetter
    }

    /// Everything there is, and of a movable item its index, by place.
    fn arranged(&self, places: &Places) -> Vec<(Item, Option<usize>)> {
        let movable = self.sizes.iter().zip(places).enumerate().map(|(index, (size, at))| {
            (Item { at: *at, size: *size, is_fixed: false }, Some(index))
        });
        let mut all: Vec<_> = self.fixed.iter().map(|item| (*item, None)).chain(movable).collect();
        all.sort_unstable_by_key(|(item, _)| item.at);
        all
    }

    /// The cheapest set that could make way, if cheaper than `limit`; 0 when
    /// the wanted range is free.
    fn still_to_pay(&self, places: &Places, limit: u64) -> Option<u64> {
        let mut arranged = self.arranged(places);
        if let Some(at) = self.goal.at {
            arranged.push((Item { at, size: self.goal.size, is_fixed: true }, None));
            arranged.sort_unstable_by_key(|(item, _)| item.at);
        }
        let affordable = self.sets.iter().take_while(|(cost, _)| *cost < limit);
        let mut gaps = Vec::new();
        for (cost, set) in affordable {
            gaps.clear();
            if self.gaps_without(&arranged, *set, &mut gaps) && self.fits(*set, &mut gaps) {
                return Some(*cost);
            }
        }
        None
    }

    /// The gaps there are between `arranged` once `set` is lifted off. False:
    /// somebody else is where the wanted range must be, or the line ends there.
    fn gaps_without(
        &self,
        arranged: &[(Item, Option<usize>)],
        set: Set,
        gaps: &mut Vec<u64>,
    ) -> bool {
        let mut end = 0;
        let stays = |index: &Option<usize>| index.is_none_or(|index| set & (1 << index) == 0);
        for (item, _) in arranged.iter().filter(|(_, index)| stays(index)) {
            let Some(gap) = item.at.checked_sub(end) else { return false };
            gaps.push(gap);
            end = item.end();
        }
        let last = self.length.checked_sub(end);
        gaps.extend(last);
        last.is_some()
    }

    /// Whether `set`, and the wanted range if it may be anywhere, fit in `gaps`.
    fn fits(&self, set: Set, gaps: &mut [u64]) -> bool {
        let mut sizes = [0; MOST + 1];
        let mut count = 0;
        let wanted = self.goal.at.is_none().then_some(self.goal.size);
        for size in wanted.into_iter().chain(members(set).map(|index| self.sizes[index])) {
            sizes[count] = size;
            count += 1;
        }
        sizes[..count].sort_unstable_by(|a, b| b.cmp(a));
        pack(&sizes[..count], gaps)
    }

    /// Every move worth a try that leaves less than `limit` to pay: of which
    /// item, to where. The item at `last` is not moved.
    fn moves(
        &self,
        places: &Places,
        last: Option<u64>,
        limit: u64,
        reach: Reach,
    ) -> Vec<(usize, u64)> {
        let arranged = self.arranged(places);
        let mut moves = Vec::new();
        for (index, size) in self.sizes.iter().enumerate() {
            let Some(limit) = limit.checked_sub(*size).filter(|_| Some(places[index]) != last)
            else {
                continue;
            };
            // Who is to be put below the item later must be paid for then.
            let sums = self.sums[index].iter().take_while(|sum| **sum < limit);
            let others: Vec<Item> = arranged
                .iter()
                .filter(|(_, other)| *other != Some(index))
                .map(|(item, _)| *item)
                .collect();
            let rest = Line { length: self.length, items: others };
            for slot in 0..=rest.items.len() {
                let (start, end) = (rest.end_before(slot), rest.start_of(slot));
                let Some(highest) = end.checked_sub(*size).filter(|to| *to >= start) else {
                    continue;
                };
                let mut to: Vec<u64> = match reach {
                    Reach::Edges => {
                        let beside = highest.saturating_sub(self.goal.size);
                        vec![start, start + self.goal.size, beside, highest]
                    }
                    Reach::All => (0..=slot)
                        .map(|before| rest.end_before(before))
                        .flat_map(|end| sums.clone().map(move |sum| end + sum))
                        .flat_map(|to| [to, to + self.goal.size])
                        .collect(),
                };
                to.retain(|to| (start..=highest).contains(to) && *to != places[index]);
                to.sort_unstable();
                to.dedup();
                moves.extend(to.into_iter().map(|to| (index, to)));
            }
        }
        moves
    }

    fn moved(&self, mut places: Places, index: usize, to: u64) -> Places {
        places[index] = to;
        let same = |other: &usize| self.sizes[*other] == self.sizes[index];
        let first = (0..index).rev().take_while(same).last().unwrap_or(index);
        let after =
            (index..self.sizes.len()).take_while(same).last().map_or(index, |last| last + 1);
        places[first..after].sort_unstable();
        places
    }

    fn solution(&self, reached: &HashMap<Places, Reached>, goal: Places, cost: u64) -> Solution {
        let mut steps = Vec::new();
        let mut places = goal;
        while let Some((before, step)) = reached.get(&places).and_then(|reached| reached.by) {
            steps.push(step);
            places = before;
        }
        steps.reverse();
        let items = self.arranged(&goal).into_iter().map(|(item, _)| item).collect();
        let line = Line { length: self.length, items };
        let free_at = (0..=line.items.len())
            .find(|index| line.gap_before(*index) >= self.goal.size)
            .map_or(0, |index| line.end_before(index));
        Solution { steps, cost, free_at: self.goal.at.unwrap_or(free_at) }
    }
}

fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..MOST).filter(move |index| set & (1 << index) != 0)
}

/// Whether `sizes`, largest first, fit in `gaps`.
fn pack(sizes: &[u64], gaps: &mut [u64]) -> bool {
    let Some((size, rest)) = sizes.split_first() else { return true };
    for index in 0..gaps.len() {
        // One of two equal gaps is as good as the other.
        if gaps[index] < *size || gaps[..index].contains(&gaps[index]) {
            continue;
        }
        gaps[index] -= size;
        if pack(rest, gaps) {
            return true;
        }
        gaps[index] += size;
    }
    false
}
