//! Exchanges carried out by a reference executor over a vector with one number
//! per page of main storage.

use proptest::prelude::*;

use super::*;
use crate::{BLOCK_SIZE as M, PartitionName, StorageMap};

/// Does the steps as they are told, with a buffer for one page.
fn execute(plan: ExchangePlan, storage: &mut [u64]) {
    let at = |offset: u64| usize::try_from(offset / PAGE_SIZE).unwrap();
    let mut buffer = None;
    for step in plan.steps() {
        match step {
            ExchangeStep::Save(from) => {
                assert_eq!(buffer.replace(storage[at(from)]), None, "the buffer was not empty");
            }
            ExchangeStep::Copy(PageStep { from, to }) => storage[at(to)] = storage[at(from)],
            ExchangeStep::Restore(to) => storage[at(to)] = buffer.take().unwrap(),
        }
    }
    assert_eq!(buffer, None);
}

fn range(origin: u64, size: u64) -> StorageRange {
    StorageRange::new(origin * M, size * M).unwrap()
}

fn pages(range: StorageRange) -> std::ops::Range<usize> {
    let page = |offset| usize::try_from(offset / PAGE_SIZE).unwrap();
    page(range.origin())..page(range.end())
}

fn plan(a: (u64, u64, u64), b: (u64, u64, u64)) -> Result<ExchangePlan, PlanError> {
    let side = |(from, size, to)| MovePlan::new(range(from, size), to * M);
    ExchangePlan::new(side(a)?, side(b)?)
}

#[test]
fn equal_partitions_are_swapped_pair_by_pair() {
    let mut steps = plan((0, 2, 4), (4, 2, 0)).unwrap().steps();
    assert_eq!(steps.next(), Some(ExchangeStep::Save(4 * M)));
    assert_eq!(steps.next(), Some(ExchangeStep::Copy(PageStep { from: 0, to: 4 * M })));
    assert_eq!(steps.next(), Some(ExchangeStep::Restore(0)));
    assert_eq!(steps.next(), Some(ExchangeStep::Save(4 * M + PAGE_SIZE)));
    assert_eq!(steps.count() as u64, 3 * 2 * PAGES_PER_BLOCK - 4);
}

#[test]
fn two_cannot_come_from_or_go_to_one_place() {
    assert_eq!(plan((0, 2, 4), (1, 2, 8)), Err(PlanError::Shared(range(1, 1))));
    assert_eq!(plan((0, 2, 4), (6, 2, 3)), Err(PlanError::Shared(range(4, 1))));
}

proptest! {
    /// Any two moves that are apart, whatever they overlap of each other.
    #[test]
    fn the_steps_take_both_contents_where_they_belong(
        a in (0u64..20, 1u64..8, 0u64..20), b in (0u64..20, 1u64..8, 0u64..20)
    ) {
        let Ok(plan) = plan(a, b) else { return Err(TestCaseError::reject("not apart")) };
        let before: Vec<u64> = (0..28 * PAGES_PER_BLOCK).collect();
        let mut storage = before.clone();
        execute(plan, &mut storage);
        for side in [plan.a(), plan.b()] {
            prop_assert_eq!(&storage[pages(side.to())], &before[pages(side.from())]);
        }
        let is_goal = |page: &usize| [plan.a(), plan.b()].iter().any(|s| pages(s.to()).contains(page));
        for page in (0..before.len()).filter(|page| !is_goal(page)) {
            prop_assert_eq!(storage[page], before[page]);
        }
    }

    /// In a full main storage every two neighbours can be exchanged, and back.
    #[test]
    fn neighbours_of_any_sizes_need_no_free_storage(a in 1u64..8, b in 1u64..8) {
        let name = |text| PartitionName::new(text).unwrap();
        let mut map = StorageMap::new((a + b) * M).unwrap();
        map.assign(name("a"), range(0, a)).unwrap();
        map.assign(name("b"), range(a, b)).unwrap();
        let before: Vec<u64> = (0..(a + b) * PAGES_PER_BLOCK).collect();
        let mut storage = before.clone();
        let plan = map.exchange(&name("a"), &name("b")).unwrap();
        execute(plan, &mut storage);
        prop_assert_eq!(map.get(&name("b")).unwrap().range(), range(0, b));
        prop_assert_eq!(map.get(&name("a")).unwrap().range(), range(b, a));
        prop_assert_eq!(&storage[pages(range(0, b))], &before[pages(range(a, b))]);
        execute(plan.reversed(), &mut storage);
        prop_assert_eq!(storage, before);
    }
}
