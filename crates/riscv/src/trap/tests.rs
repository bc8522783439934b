use super::Privilege::{Machine, Supervisor, User};
use super::{
    Exception, Trap, interrupt, next_interrupt, return_from_machine, return_from_supervisor,
    take_exception, take_interrupt,
};
use crate::csr::{Counters, Csrs, number, status};

fn write(csrs: &mut Csrs, csr: u16, value: u64) {
    csrs.write(csr, value, Counters::default());
}

fn read(csrs: &Csrs, csr: u16) -> u64 {
    csrs.read(csr, Counters::default())
}

const TRAP: Trap = Trap { exception: Exception::LoadPageFault, value: 0xABC };

#[test]
fn a_delegated_exception_is_recorded_for_the_supervisor() {
    let mut csrs = Csrs::for_supervisor(0);
    write(&mut csrs, number::STVEC, 0x8000_0100);
    write(&mut csrs, number::SSTATUS, status::SIE);
    assert_eq!(take_exception(&mut csrs, User, TRAP, 0x40), (Supervisor, 0x8000_0100));
    let recorded = [number::SCAUSE, number::SEPC, number::STVAL].map(|csr| read(&csrs, csr));
    assert_eq!(recorded, [13, 0x40, 0xABC]);
    let now = read(&csrs, number::SSTATUS);
    assert_eq!(now & (status::SIE | status::SPIE | status::SPP), status::SPIE);
    assert_eq!(return_from_supervisor(&mut csrs), (User, 0x40));
    assert_ne!(read(&csrs, number::SSTATUS) & status::SIE, 0);
}

#[test]
fn an_exception_that_is_not_delegated_goes_to_the_machine() {
    let mut csrs = Csrs::new(0);
    write(&mut csrs, number::MTVEC, 0x100);
    write(&mut csrs, number::MSTATUS, status::MIE);
    assert_eq!(take_exception(&mut csrs, Supervisor, TRAP, 0x40), (Machine, 0x100));
    let now = read(&csrs, number::MSTATUS);
    assert_eq!(now & status::MPP, 1 << status::MPP_SHIFT);
    assert_eq!(now & (status::MIE | status::MPIE), status::MPIE);
    assert_eq!(return_from_machine(&mut csrs), (Supervisor, 0x40));
}

#[test]
fn machine_mode_never_delegates_downwards() {
    let mut csrs = Csrs::for_supervisor(0);
    write(&mut csrs, number::MTVEC, 0x100);
    assert_eq!(take_exception(&mut csrs, Machine, TRAP, 0x40), (Machine, 0x100));
}

#[test]
fn vectored_mode_is_for_interrupts_only() {
    let mut csrs = Csrs::for_supervisor(0);
    write(&mut csrs, number::STVEC, 0x101);
    assert_eq!(take_exception(&mut csrs, User, TRAP, 0).1, 0x100);
    assert_eq!(take_interrupt(&mut csrs, User, interrupt::SUPERVISOR_TIMER, 0).1, 0x100 + 4 * 5);
    assert_eq!(read(&csrs, number::SCAUSE), 1 << 63 | 5);
}

#[test]
fn interrupts_need_both_enables_in_their_own_mode_and_none_below() {
    let mut csrs = Csrs::for_supervisor(0);
    csrs.set_software(true);
    assert_eq!(next_interrupt(&csrs, User), None, "not enabled in sie");
    write(&mut csrs, number::SIE, 1 << 1);
    assert_eq!(next_interrupt(&csrs, User), Some(1));
    assert_eq!(next_interrupt(&csrs, Supervisor), None);
    write(&mut csrs, number::SSTATUS, status::SIE);
    assert_eq!(next_interrupt(&csrs, Supervisor), Some(1));
    assert_eq!(next_interrupt(&csrs, Machine), None);
}

#[test]
fn external_comes_before_software_before_timer() {
    let mut csrs = Csrs::for_supervisor(0);
    write(&mut csrs, number::SIE, 1 << 1 | 1 << 5 | 1 << 9);
    csrs.set_stimecmp(0);
    csrs.update_timer(0);
    assert_eq!(next_interrupt(&csrs, User), Some(5));
    csrs.set_software(true);
    assert_eq!(next_interrupt(&csrs, User), Some(1));
    csrs.set_external(true);
    assert_eq!(next_interrupt(&csrs, User), Some(9));
}

#[test]
fn returning_below_machine_mode_ends_mprv() {
    let mut csrs = Csrs::new(0);
    write(&mut csrs, number::MSTATUS, status::MPRV | 3 << status::MPP_SHIFT);
    assert_eq!(return_from_machine(&mut csrs).0, Machine);
    assert_ne!(read(&csrs, number::MSTATUS) & status::MPRV, 0);
    assert_eq!(return_from_machine(&mut csrs).0, User);
    assert_eq!(read(&csrs, number::MSTATUS) & status::MPRV, 0);
}
