use super::*;

fn page(words: &[(usize, u32)]) -> Box<PageBytes> {
    let mut page = Box::new([0; PAGE_SIZE as usize]);
    for (offset, word) in words {
        page[*offset..offset + 4].copy_from_slice(&word.to_le_bytes());
    }
    page
}

/// The region at `entry` if all of `page` was executed.
fn whole(page: &PageBytes, entry: i64) -> Option<Region> {
    Region::new(Source { page, tail: None }, &Executed::all(), entry)
}

/// `addi a0, a0, 1`
const ADD: u32 = 0x0015_0513;
const ECALL: u32 = 0x73;
const RET: u32 = 0x8067;

/// `bne a0, a1, -4`
const BACK: u32 = 0xFEB5_1EE3;

#[test]
fn a_loop_is_one_block_that_follows_itself() {
    let region = whole(&page(&[(8, ADD), (12, BACK), (16, ECALL)]), 8).unwrap();
    assert_eq!(region.blocks[0].end, End::Branch { taken: 8, following: 16 });
    let after = region.block_at(16).unwrap();
    assert_eq!(region.blocks[after].end, End::Interpret { at: 16 });
}

#[test]
fn what_a_loop_writes_is_dirty_at_its_start_and_live_at_the_entry() {
    let region = whole(&page(&[(8, ADD), (12, BACK), (16, ECALL)]), 8).unwrap();
    assert_eq!(region.blocks[0].dirty, Registers::of(10));
    assert_eq!(region.live, Registers::of(10).with(Registers::of(11)));
}

#[test]
fn nothing_is_compiled_where_the_interpreter_has_to_begin() {
    assert!(whole(&page(&[(8, ECALL)]), 8).is_none());
    // All zeros are no instruction.
    assert!(whole(&page(&[]), 0).is_none());
}

#[test]
fn an_instruction_over_the_page_end_is_left_out() {
    let mut bytes = page(&[(4090, ADD)]);
    bytes[4094] = ADD as u8;
    let region = whole(&bytes, 4090).unwrap();
    assert_eq!(region.blocks[0].end, End::Interpret { at: 4094 });
}

#[test]
fn an_instruction_over_the_page_end_is_taken_in_if_its_end_is_known() {
    let mut bytes = page(&[(4090, ADD)]);
    bytes[4094..].copy_from_slice(&ADD.to_le_bytes()[..2]);
    let source = Source { page: &bytes, tail: Some((ADD >> 16) as u16) };
    let region = Region::new(source, &Executed::all(), 4090).unwrap();
    assert_eq!(region.blocks[0].insts.len(), 2);
    assert_eq!(region.blocks[0].end, End::Jump { to: 4098 });
    assert!(Region::new(source, &Executed::all(), 4094).is_none(), "no unit begins with it");
}

#[test]
fn what_was_not_executed_is_left_to_others() {
    let bytes = page(&[(8, ADD), (12, BACK), (16, ADD)]);
    let mut executed = Executed::none();
    executed.insert(8);
    let source = Source { page: &bytes, tail: None };
    let region = Region::new(source, &executed, 8).unwrap();
    assert_eq!((region.blocks.len(), region.block_at(16)), (1, None));
    executed.insert(16);
    assert!(Region::new(source, &executed, 8).unwrap().block_at(16).is_some());
}

#[test]
fn a_return_follows_the_calls_of_the_region() {
    // jal ra, +12; ecall; ret at 20
    let region = whole(&page(&[(8, 0x00C0_00EF), (12, ECALL), (20, RET)]), 8).unwrap();
    assert_eq!(region.returns, [12]);
    assert!(ends_in_return(&region.blocks[region.block_at(20).unwrap()]));
}

#[test]
fn a_call_in_two_instructions_is_one_to_a_known_place() {
    // auipc ra, 0; jalr ra, 12(ra)
    let call = [(8, 0x0000_0097), (12, 0x00C0_80E7)];
    let [first, second] = call;
    let region = whole(&page(&[first, second, (16, ECALL), (20, RET)]), 8).unwrap();
    assert_eq!(region.blocks[0].end, End::Jump { to: 20 });
    assert_eq!(region.returns, [16]);
    let alone = whole(&page(&[first, second, (20, RET)]), 12).unwrap();
    assert_eq!(alone.blocks[0].end, End::Indirect, "the register may hold anything");
}

#[test]
fn a_region_is_bounded_and_goes_on_elsewhere() {
    let words: Vec<_> = (0..1000).map(|index| (index * 4, ADD)).collect();
    let region = whole(&page(&words), 0).unwrap();
    let count: usize = region.blocks.iter().map(|block| block.insts.len()).sum();
    assert_eq!(count, MAX_INSTS);
    assert_eq!(region.blocks[0].end, End::Jump { to: 4 * MAX_INSTS as i64 });
}
