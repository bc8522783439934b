//! What a partner can make a half-session allocate, measured at the allocator.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(unsafe_code, reason = "an allocator that counts is a GlobalAlloc")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{OK, carry, pair};
use conversation::Fmh7;
use conversation::fmh5::{ConversationType, SyncLevel};
use conversation::frame::{Ends, Record};
use conversation::half_session::{MAX_HELD, MAX_SEND, Origin};
use conversation::{HalfSession, Sense};

thread_local! {
    /// Bytes allocated and not freed by this thread, and the most there were.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(change: isize) {
    // A thread that is ending has no counters any more, and no test either.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it is; the
// counters beside it allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those of this method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are those of this method, and every
        // pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `body` has allocated at one time.
fn peak(body: impl FnOnce()) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    body();
    usize::try_from(PEAK.get() - before).unwrap()
}

/// Buffers grow by doubling, marks and queues have some bytes each.
const MOST: usize = 4 * MAX_HELD;

/// A partner that sends `record` again and again and reads nothing, and a
/// program that does `react` each time.
fn flood(
    session: &mut HalfSession,
    record: impl Fn(usize) -> Record,
    react: impl Fn(&mut HalfSession),
) -> usize {
    peak(|| {
        for number in 0..50_000 {
            let mut bytes = Vec::new();
            record(number).encode(&mut bytes);
            if session.feed(&bytes).is_err() {
                return;
            }
            react(session);
        }
    })
}

fn idle(_: &mut HalfSession) {}

/// A program that takes and confirms whatever it can.
fn obliging(session: &mut HalfSession) {
    let _ = session.receive_immediate(MAX_SEND);
    let _ = session.confirmed();
}

/// A program that sees an error in everything.
fn contrary(session: &mut HalfSession) {
    let _ = session.receive_and_wait(MAX_SEND);
    let _ = session.send_error(Origin::Program, &[1; 512]);
    let _ = session.completion();
}

#[test]
fn a_flood_of_anything_is_held_back_or_cut_off() {
    let records: [fn(usize) -> Record; 7] = [
        |_| Record::Data { unit: [0, 4, 0, 0].repeat(4_000), ends: Ends::Nothing },
        |_| Record::Data { unit: vec![0, 2], ends: Ends::Nothing },
        |_| Record::Error { unit: Fmh7::new(Sense::PROGRAM_ERROR).encode(), last: false },
        |number| match number % 2 {
            0 => Record::Data { unit: Vec::new(), ends: Ends::Turn },
            _ => Record::NegativeResponse(Fmh7::new(Sense::PROGRAM_ERROR).encode()),
        },
        |number| match number % 2 {
            0 => Record::Data { unit: Vec::new(), ends: Ends::Turn },
            _ => Record::NegativeResponse(
                Fmh7 { sense: Sense::PROGRAM_ERROR, log: vec![1; 512] }.encode(),
            ),
        },
        |_| Record::Data { unit: Vec::new(), ends: Ends::Confirm },
        |_| Record::Signal,
    ];
    for (which, record) in records.into_iter().enumerate() {
        for (program, react) in
            [("idle", idle as fn(&mut HalfSession)), ("obliging", obliging), ("contrary", contrary)]
        {
            let [_, mut partner] = pair(ConversationType::Basic, SyncLevel::Confirm);
            let peak = flood(&mut partner, record, react);
            assert!(peak < MOST, "flood {which}, {program} program: {peak} bytes");
        }
    }
}

#[test]
fn a_sender_holds_no_more_than_its_buffer_however_the_transport_stalls() {
    let [mut caller, mut partner] = pair(ConversationType::Mapped, SyncLevel::None);
    let record = vec![1; MAX_SEND];
    let peak = peak(|| {
        for _ in 0..1_000 {
            while caller.send_data(&record).is_ok_and(|outcome| outcome == OK) {}
            carry(&mut caller, &mut partner, 7).unwrap();
            let _ = partner.receive_and_wait(100).unwrap();
        }
    });
    assert!(peak < MOST, "{peak} bytes");
}
