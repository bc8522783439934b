//! Two partitions change places, with a bounce buffer of one page.

use std::collections::HashSet;
use std::iter::FusedIterator;

use crate::{BLOCK_SIZE, MovePlan, PAGE_SIZE, PAGES_PER_BLOCK, PageStep, PlanError, StorageRange};

/// Two partitions that change places: a move of each. Neither the two ranges
/// before nor the two after overlap; a range after may overlap any before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
// Private because the first lines' promise holds by construction.
pub struct ExchangePlan {
    a: MovePlan,
    b: MovePlan,
}

/// One step of an exchange. Offsets in main storage, in bytes.
///
/// The storage keys of the pages go the same ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeStep {
    /// Save the page here in the bounce buffer, which is empty.
    Save(u64),
    /// Copy a page.
    Copy(PageStep),
    /// Put the page in the bounce buffer here; it is empty again.
    Restore(u64),
}

/// Blocks of main storage of which each gets the content of the next.
#[derive(Debug, Clone)]
struct Chain {
    blocks: Vec<u64>,
    /// Whether the last gets the content of the first, which must be saved.
    is_cycle: bool,
}

impl ExchangePlan {
    /// The exchange that moves one partition as `a` and the other as `b` say.
    ///
    /// # Errors
    /// [`PlanError::Shared`] when the two are not apart, before or after it.
    pub fn new(a: MovePlan, b: MovePlan) -> Result<Self, PlanError> {
        let shared = a.from().intersection(b.from()).or_else(|| a.to().intersection(b.to()));
        shared.map_or(Ok(Self { a, b }), |range| Err(PlanError::Shared(range)))
    }

    /// The first partition's move.
    #[must_use]
    pub const fn a(self) -> MovePlan {
        self.a
    }

    /// The other one's move.
    #[must_use]
    pub const fn b(self) -> MovePlan {
        self.b
    }

    /// The plan that takes everything back.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { a: self.a.reversed(), b: self.b.reversed() }
    }

    /// Every step, in the order in which they must be done. Each page of both
    /// is moved once; a bounce buffer of one page is enough.
    ///
    /// Pages form chains, each getting the content of the next. A chain begins
    /// at a page neither had and needs no buffer; or it is a cycle, one page of
    /// which waits in the buffer. Of equal size and apart from each other all
    /// cycles are pairs. Memory used: some bytes for each block of the two.
    #[must_use]
    pub fn steps(self) -> ExchangeSteps {
        let mut chains = self.chains().into_iter();
        ExchangeSteps { chain: chains.next(), chains, page: 0, link: 0 }
    }

    /// The chains, by block: ranges are block aligned, so all pages of a block
    /// go the same way.
    fn chains(self) -> Vec<Chain> {
        let goals = || [self.a, self.b].into_iter().flat_map(|plan| blocks(plan.to()));
        let is_old = |block| self.a.from().contains(block) || self.b.from().contains(block);
        let heads = goals().filter(|block| !is_old(*block));
        let mut done = HashSet::new();
        let mut chains = Vec::new();
        // What no head leads to goes round in cycles.
        for start in heads.chain(goals()) {
            if done.contains(&start) {
                continue;
            }
            let mut chain = Chain { blocks: vec![start], is_cycle: false };
            let mut at = start;
            while let Some(source) = self.source(at) {
                done.insert(at);
                chain.is_cycle = source == start;
                if chain.is_cycle {
                    break;
                }
                chain.blocks.push(source);
                at = source;
            }
            chains.push(chain);
        }
        chains
    }

    /// The block whose content `block` gets.
    fn source(self, block: u64) -> Option<u64> {
        let plan = [self.a, self.b].into_iter().find(|plan| plan.to().contains(block))?;
        Some(plan.from().origin() + (block - plan.to().origin()))
    }
}

fn blocks(range: StorageRange) -> impl Iterator<Item = u64> {
    (0..range.size() / BLOCK_SIZE).map(move |index| range.origin() + index * BLOCK_SIZE)
}

/// The steps of an [`ExchangePlan`], see [`ExchangePlan::steps`].
#[derive(Debug, Clone)]
pub struct ExchangeSteps {
    chain: Option<Chain>,
    chains: std::vec::IntoIter<Chain>,
    // Of the next step: the page of each block, and which block of the chain.
    page: u64,
    link: usize,
}

impl ExchangeSteps {
    fn advance(&mut self, last_link: usize) {
        self.link += 1;
        if self.link > last_link {
            self.link = 0;
            self.page += 1;
        }
        if self.page == PAGES_PER_BLOCK {
            self.page = 0;
            self.chain = self.chains.next();
        }
    }
}

impl Iterator for ExchangeSteps {
    type Item = ExchangeStep;

    fn next(&mut self) -> Option<ExchangeStep> {
        loop {
            let chain = self.chain.as_ref()?;
            let page_of = |block: &u64| block + self.page * PAGE_SIZE;
            // A step to the block of index `link - 1`; the steps before the
            // first and after the last are those of a cycle's buffer.
            let to = self.link.checked_sub(1).and_then(|link| chain.blocks.get(link)).map(page_of);
            let from = chain.blocks.get(self.link).map(page_of);
            let step = match (from, to) {
                (Some(from), Some(to)) => Some(ExchangeStep::Copy(PageStep { from, to })),
                (Some(from), None) => chain.is_cycle.then_some(ExchangeStep::Save(from)),
                (None, Some(to)) => chain.is_cycle.then_some(ExchangeStep::Restore(to)),
                (None, None) => None,
            };
            let last_link = chain.blocks.len();
            self.advance(last_link);
            if step.is_some() {
                return step;
            }
        }
    }
}

impl FusedIterator for ExchangeSteps {}

#[cfg(test)]
mod tests;
