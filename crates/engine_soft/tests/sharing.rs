//! Code that changes, atomics, and what vCPUs on several threads see of each
//! other.

#[path = "support/guest.rs"]
mod guest;
mod support;

use std::time::{Duration, Instant};

use engine::{Exit, Fence, Vcpu};
use guest::{DATA, Guest, Trapped, VIRTUAL, program, pte};
use main_storage::StorageRange;
use support::asm::*;
use support::{NoDevices, get, growing_window, put, window};

const TIME_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn code_stored_before_a_fence_is_executed_after_it() {
    // Calls the function at DATA, patches its first instruction, fences,
    // calls it again.
    let patch = program(&[&li(A4, addi(A0, ZERO, 2).into()), &[sw(A4, A3, 0), fence_i()]]);
    let call = [jalr(RA, A3, 0)];
    let words = program(&[&li(A3, DATA), &call, &[addi(A5, A0, 0)], &patch, &call, &[ecall()]]);
    let (mut guest, _) = Guest::start(&words);
    guest.words(DATA, &[addi(A0, ZERO, 1), jalr(ZERO, RA, 0)]);
    guest.run();
    assert_eq!((guest.x(A5), guest.x(A0)), (1, 2));
}

#[test]
fn a_patch_of_the_second_half_of_an_instruction_is_seen() {
    // The instruction begins two bytes before an aligned eight.
    let at = DATA + 6;
    let words =
        program(&[&li(A3, at), &[jalr(RA, A3, 0), ecall(), fence_i(), jalr(RA, A3, 0), ecall()]]);
    let (mut guest, _) = Guest::start(&words);
    guest.words(at, &[addi(A0, ZERO, 1), jalr(ZERO, RA, 0)]);
    guest.run();
    assert_eq!(guest.x(A0), 1);
    put(&guest.window, at + 2, &addi(A0, ZERO, 2).to_le_bytes()[2..]);
    guest.run();
    assert_eq!(guest.x(A0), 2);
}

#[test]
fn more_code_than_the_cache_holds_is_executed_right_twice() {
    // A chain of 400 pages, each adding one and jumping to the next.
    let pages = 400;
    let window = window(4 << 20);
    let first = support::BASE + 0x10_0000;
    let call = [jalr(RA, A3, 0), jalr(RA, A3, 0), ecall()];
    let mut guest = Guest::on(window, 0, &program(&[&li(A3, first), &call]));
    for page in 0..pages {
        let onward = if page + 1 < pages { jal(ZERO, 0x1000 - 4) } else { jalr(ZERO, RA, 0) };
        guest.words(first + page * 0x1000, &[addi(A0, A0, 1), onward]);
    }
    guest.run();
    assert_eq!(guest.x(A0), 2 * pages);
}

#[test]
fn a_conditional_store_succeeds_once_and_only_where_it_was_reserved() {
    let words = [
        lr_d(A0, A3),
        sc_d(A1, A3, A3),
        sc_d(A2, A3, A3),
        lr_d(A0, A3),
        addi(A4, A3, 8),
        sc_d(A4, A3, A4),
        ecall(),
    ];
    let (mut guest, _) = Guest::start(&program(&[&li(A3, DATA), &words]));
    guest.run();
    assert_eq!((guest.x(A1), guest.load(DATA)), (0, DATA));
    assert_eq!((guest.x(A2), guest.x(A4)), (1, 1));
    assert_eq!(guest.load(DATA + 8), 0);
}

#[test]
fn a_conditional_store_fails_if_another_wrote_in_between() {
    let words = [lr_d(A0, A3), ecall(), sc_d(A1, A3, A3), ecall()];
    let (mut guest, _) = Guest::start(&program(&[&li(A3, DATA), &words]));
    guest.run();
    guest.store(DATA, 99);
    guest.run();
    assert_eq!((guest.x(A1), guest.load(DATA)), (1, 99));
}

/// Runs `body` `rounds` times on each of two harts at the same time; the
/// shared doubleword is at `DATA`, its address in `A3`.
fn on_two_harts(rounds: u64, body: &[u32]) -> u64 {
    let back = -4 * (body.len() as i32 + 1);
    let words = program(&[
        &li(A3, DATA),
        &li(A4, 1),
        &li(A5, rounds),
        body,
        &[addi(A5, A5, -1), bne(A5, ZERO, back), ecall()],
    ]);
    let window = window(2 << 20);
    std::thread::scope(|scope| {
        for hart in 0..2 {
            let mut guest = Guest::on(window.clone(), hart, &words);
            scope.spawn(move || guest.run());
        }
    });
    get(&window, DATA)
}

#[test]
fn atomic_additions_of_two_harts_are_never_lost() {
    assert_eq!(on_two_harts(100_000, &[amoadd_d(ZERO, A4, A3)]), 200_000);
}

#[test]
fn reserved_additions_of_two_harts_are_never_lost() {
    let body = [lr_d(A0, A3), add(A0, A0, A4), sc_d(A1, A0, A3), bne(A1, ZERO, -12)];
    assert_eq!(on_two_harts(100_000, &body), 200_000);
}

/// Waits for what must happen soon.
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_remote_translation_fence_makes_a_running_hart_forget() {
    // Loads from VIRTUAL until that is 2; counts at DATA + 0x3000.
    let spin = [ld(A0, A3, 0), addi(A2, A2, 1), sd(A2, A4, 0), bne(A0, A5, -12), ecall()];
    let setup = [li(A3, VIRTUAL), li(A4, DATA + 0x3000), li(A5, 2)].concat();
    let (mut guest, _) = Guest::start(&program(&[&Guest::paging(), &setup, &spin]));
    guest.map(0, DATA, pte::R);
    guest.store(DATA, 1);
    guest.store(DATA + 0x1000, 2);
    let (window, handle) = (guest.window.clone(), guest.handle());
    std::thread::scope(|scope| {
        let vcpu = &mut guest.vcpu;
        let hart = scope.spawn(move || vcpu.run(&NoDevices));
        until("the hart runs", || get(&window, DATA + 0x3000) > 1000);
        let entry = (DATA + 0x1000) >> 12 << 10 | pte::V | pte::R;
        put(&window, support::BASE + 0x18_2000, &entry.to_le_bytes());
        let ticket = handle.request_fence(Fence::Translations { start: VIRTUAL, size: 4096 });
        until("the fence is done", || handle.fence_done(ticket));
        until("the hart sees it", || hart.is_finished());
        assert_eq!(hart.join().unwrap(), Exit::FirmwareCall);
    });
}

#[test]
fn a_remote_instruction_fence_makes_a_running_hart_see_new_code() {
    let (mut guest, _) =
        Guest::start(&program(&[&li(A4, DATA), &li(A3, DATA + 0x1000), &[jalr(ZERO, A3, 0)]]));
    let spin = [addi(A2, A2, 1), sd(A2, A4, 0), jal(ZERO, -8)];
    guest.words(DATA + 0x1000, &spin);
    let (window, handle) = (guest.window.clone(), guest.handle());
    std::thread::scope(|scope| {
        let vcpu = &mut guest.vcpu;
        let hart = scope.spawn(move || vcpu.run(&NoDevices));
        until("the hart runs", || get(&window, DATA) > 1000);
        put(&window, DATA + 0x1008, &ecall().to_le_bytes());
        let ticket = handle.request_fence(Fence::Instructions);
        until("the fence is done", || handle.fence_done(ticket));
        until("the hart sees it", || hart.is_finished());
        assert_eq!(hart.join().unwrap(), Exit::FirmwareCall);
    });
}

#[test]
fn a_fence_of_a_hart_outside_or_asleep_is_done_at_once() {
    let (mut guest, _) = Guest::start(&[wfi(), ecall()]);
    let handle = guest.handle();
    let everything = Fence::Translations { start: 0, size: u64::MAX };
    assert!(handle.fence_done(handle.request_fence(everything)), "outside");
    std::thread::scope(|scope| {
        let vcpu = &mut guest.vcpu;
        let hart = scope.spawn(move || vcpu.run(&NoDevices));
        until("the hart sleeps", || handle.fence_done(handle.request_fence(everything)));
        handle.kick();
        assert_eq!(hart.join().unwrap(), Exit::Kicked);
    });
}

#[test]
fn storage_comes_and_goes_behind_what_the_guest_booted_in() {
    let (storage, window) = growing_window(2 << 20, 4 << 20);
    let of = |size| StorageRange::new(0, size).unwrap();
    let grow = || window.grow(storage.storage_fd(), storage.keys_fd(), of(3 << 20)).unwrap();
    let added = window.layout().hot_plug_base() + 0x8000;
    let touch = [sd(A3, A3, 0), ld(A0, A3, 0), ecall()];
    // Past the end, where only addresses are reserved, and twice where
    // storage comes and goes.
    let far = li(A4, added + 0x10_0000);
    let words = program(&[&li(A3, added), &touch, &touch, &far, &[ld(A0, A4, 0), ecall()]]);
    for shrink in [true, false] {
        let mut guest = Guest::on(window.clone(), 0, &words);
        grow();
        guest.run();
        assert_eq!(guest.x(A0), added);
        assert_eq!(window.key_cell(0x208).load(std::sync::atomic::Ordering::Relaxed), 0x07);
        if shrink {
            window.shrink(of(2 << 20)).unwrap();
            let fence = Fence::Translations { start: 0, size: u64::MAX };
            guest.handle().request_fence(fence);
            let trapped = guest.run_to_trap();
            assert_eq!((trapped.cause, trapped.value), (7, added), "a store access fault");
        } else {
            guest.run();
            assert_eq!(guest.x(A0), added);
            let Trapped { cause, value, .. } = guest.run_to_trap();
            assert_eq!((cause, value), (5, added + 0x10_0000), "a load access fault");
        }
    }
}
