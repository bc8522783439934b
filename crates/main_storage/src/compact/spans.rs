//! The cheapest run of neighbours that can make way.
//!
//! A span is what lies between two items that stay: a run of items that may be
//! moved, and the gaps before, between and behind them. Some of the run go into
//! gaps outside the span, largest first, each into the smallest gap it fits;
//! the rest slide together. Cost is at most the blocks of the run, so spans are
//! tried by ascending length of their run.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};

use super::line::{Goal, Item, Line, Solution, Step};

/// How many gaps may be looked at in all; far above what most lines of a thousand
/// items need, and done in tens of milliseconds.
const WORK: usize = 200_000;

/// A run of items `first..after`, and their blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    cost: u64,
    first: usize,
    after: usize,
}

pub(super) fn solve(line: &Line, goal: Goal) -> Option<Solution> {
    let sliding = cheapest_sliding(line, goal);
    let bound = sliding.map_or(u64::MAX, |span| span.cost);
    let packed = cheapest_packed(line, goal, bound);
    packed.or_else(|| sliding.map(|span| clear(line, goal, span, &[])))
}

/// Where a span may begin.
fn starts(line: &Line, goal: Goal) -> impl Iterator<Item = usize> {
    let all = 0..=line.items.len();
    all.filter(move |first| goal.at.is_none_or(|at| at == line.end_before(*first)))
}

/// The spans from `first` on, the empty one first.
fn spans_from(line: &Line, first: usize) -> impl Iterator<Item = Span> {
    let mut cost = 0;
    (first..=line.items.len()).map_while(move |after| {
        if after > first {
            let last = line.items[after - 1];
            cost += last.size;
            if last.is_fixed {
                return None;
            }
        }
        Some(Span { cost, first, after })
    })
}

/// The cheapest span whose own gaps are enough: the best way that keeps all in
/// their order.
fn cheapest_sliding(line: &Line, goal: Goal) -> Option<Span> {
    let enough = |first| {
        let mut free = 0;
        spans_from(line, first).find(|span| {
            free += line.gap_before(span.after);
            free >= goal.size
        })
    };
    starts(line, goal).filter_map(enough).min()
}

fn width(line: &Line, span: Span) -> u64 {
    line.start_of(span.after) - line.end_before(span.first)
}

/// The cheapest span, below `bound`, some of which can go elsewhere.
fn cheapest_packed(line: &Line, goal: Goal, bound: u64) -> Option<Solution> {
    let gaps = Gaps::new(line);
    let mut work = 0;
    // The cheapest span not yet tried of every start.
    let mut next: BinaryHeap<_> = starts(line, goal)
        .filter_map(|first| {
            spans_from(line, first).find(|span| width(line, *span) >= goal.size).map(Reverse)
        })
        .collect();
    while let Some(Reverse(span)) = next.pop() {
        if span.cost >= bound || work > WORK {
            return None;
        }
        let room = width(line, span) - goal.size;
        if let Some(away) = gaps.pack(line, span, room, &mut work) {
            return Some(clear(line, goal, span, &away));
        }
        if let Some(item) = line.items.get(span.after).filter(|item| !item.is_fixed) {
            let cost = span.cost + item.size;
            next.push(Reverse(Span { cost, after: span.after + 1, ..span }));
        }
    }
    None
}

/// The gaps of a line, by ascending size.
struct Gaps {
    // Size, and the index of the item behind it.
    by_size: Vec<(u64, usize)>,
}

impl Gaps {
    fn new(line: &Line) -> Self {
        let mut by_size: Vec<_> = (0..=line.items.len())
            .map(|index| (line.gap_before(index), index))
            .filter(|(size, _)| *size > 0)
            .collect();
        by_size.sort_unstable();
        Self { by_size }
    }

    /// Puts every item of `span` into a gap outside of it or into the `room`
    /// that is left inside. Returns the moves of those that go outside.
    fn pack(&self, line: &Line, span: Span, mut room: u64, work: &mut usize) -> Option<Vec<Step>> {
        let mut run: Vec<Item> = line.items[span.first..span.after].to_vec();
        run.sort_by_key(|item| Reverse((item.size, item.at)));
        // What is left of gaps already used: size, index, first free block.
        let mut left = BTreeSet::new();
        let mut used = HashSet::new();
        let mut away = Vec::new();
        for item in run {
            let from = self.by_size.partition_point(|(size, _)| *size < item.size);
            let fresh = self.by_size[from..]
                .iter()
                .inspect(|_| *work += 1)
                .find(|(_, index)| {
                    !(span.first..=span.after).contains(index) && !used.contains(index)
                })
                .map(|(size, index)| (*size, *index, line.end_before(*index)));
            *work += 1;
            let begun = left.range((item.size, 0, 0)..).next().copied();
            let best = fresh.into_iter().chain(begun).min();
            match best {
                // Within the span only where that is the tighter fit.
                Some((size, index, at)) if room < item.size || size <= room => {
                    left.remove(&(size, index, at));
                    used.insert(index);
                    left.insert((size - item.size, index, at + item.size));
                    away.push(Step { from: item.at, to: at });
                }
                _ => room = room.checked_sub(item.size)?,
            }
        }
        Some(away)
    }
}

/// The moves that clear `span`: `away` first; then those before the free range
/// slide down, lowest first, and those behind it up, highest first.
fn clear(line: &Line, goal: Goal, span: Span, away: &[Step]) -> Solution {
    let gone: HashSet<_> = away.iter().map(|step| step.from).collect();
    let run = &line.items[span.first..span.after];
    let stay: Vec<Item> = run.iter().filter(|item| !gone.contains(&item.at)).copied().collect();
    let mut end = line.end_before(span.first);
    let down: Vec<_> = stay
        .iter()
        .map(|item| {
            let to = end;
            end += item.size;
            to
        })
        .collect();
    let mut start = line.start_of(span.after);
    let mut up: Vec<_> = stay
        .iter()
        .rev()
        .map(|item| {
            start -= item.size;
            start
        })
        .collect();
    up.reverse();
    // Between which two the free range is: where the fewest blocks are moved.
    let moved = |at: usize, to: u64| if stay[at].at == to { 0 } else { stay[at].size };
    let mut costs = vec![(0..stay.len()).map(|at| moved(at, up[at])).sum::<u64>()];
    for at in 0..stay.len() {
        costs.push(costs[at] - moved(at, up[at]) + moved(at, down[at]));
    }
    let splits = if goal.at.is_some() { 0..1 } else { 0..costs.len() };
    let split = splits.min_by_key(|split| costs[*split]).unwrap_or(0);
    let slides = (0..split).map(|at| (at, down[at]));
    let slides = slides.chain((split..stay.len()).rev().map(|at| (at, up[at])));
    let slides =
        slides.map(|(at, to)| Step { from: stay[at].at, to }).filter(|step| step.from != step.to);
    let steps: Vec<_> = away.iter().copied().chain(slides).collect();
    let gone_cost: u64 =
        run.iter().filter(|item| gone.contains(&item.at)).map(|item| item.size).sum();
    let free_at = split
        .checked_sub(1)
        .map_or(line.end_before(span.first), |before| down[before] + stay[before].size);
    Solution { steps, cost: gone_cost + costs[split], free_at }
}
