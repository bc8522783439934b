use super::{Counters, Csrs, number, status};
use crate::trap::Privilege::{Machine, Supervisor, User};

const NONE: Counters = Counters { time: 0, retired: 0 };

fn write(csrs: &mut Csrs, csr: u16, value: u64) -> u64 {
    csrs.write(csr, value, NONE);
    csrs.read(csr, NONE)
}

#[test]
fn privilege_in_the_number_is_enforced() {
    let csrs = Csrs::for_supervisor(0);
    assert!(csrs.check(number::MSTATUS, Supervisor, false).is_err());
    assert!(csrs.check(number::MSTATUS, Machine, true).is_ok());
    assert!(csrs.check(number::SSTATUS, User, false).is_err());
    assert!(csrs.check(number::SSTATUS, Supervisor, true).is_ok());
}

#[test]
fn read_only_csrs_are_not_written_and_unknown_ones_not_read() {
    let csrs = Csrs::new(0);
    assert!(csrs.check(number::MHARTID, Machine, false).is_ok());
    assert!(csrs.check(number::MHARTID, Machine, true).is_err());
    for unknown in [0x004, 0x180 + 1, 0x3A1, 0x7B0, 0xC03, 0xFFF] {
        assert!(csrs.check(unknown, Machine, false).is_err(), "{unknown:#x}");
    }
}

#[test]
fn sstatus_is_a_window_on_mstatus() {
    let mut csrs = Csrs::new(0);
    write(&mut csrs, number::MSTATUS, u64::MAX);
    let seen = csrs.read(number::SSTATUS, NONE);
    assert_eq!(seen & (status::MIE | status::MPP | status::TVM | status::MPRV), 0);
    let all = status::SIE | status::SPP | status::FS | status::SUM | status::MXR | status::SD;
    assert_eq!(seen & all, all);
    write(&mut csrs, number::SSTATUS, 0);
    assert_ne!(csrs.read(number::MSTATUS, NONE) & status::TVM, 0, "left alone");
}

#[test]
fn the_reserved_previous_mode_is_never_held() {
    let mut csrs = Csrs::new(0);
    write(&mut csrs, number::MSTATUS, 1 << status::MPP_SHIFT);
    let kept = write(&mut csrs, number::MSTATUS, 2 << status::MPP_SHIFT);
    assert_eq!(kept & status::MPP, 1 << status::MPP_SHIFT);
}

#[test]
fn satp_ignores_a_mode_it_has_not() {
    let mut csrs = Csrs::new(0);
    let sv39 = 8 << 60 | 0x1234;
    assert_eq!(write(&mut csrs, number::SATP, sv39), sv39);
    assert_eq!(write(&mut csrs, number::SATP, 10 << 60 | 1), sv39);
    assert_eq!(write(&mut csrs, number::SATP, 0), 0);
}

#[test]
fn tvm_takes_satp_from_supervisor_mode() {
    let mut csrs = Csrs::new(0);
    write(&mut csrs, number::MSTATUS, status::TVM);
    assert!(csrs.check(number::SATP, Supervisor, false).is_err());
    assert!(csrs.check(number::SATP, Machine, false).is_ok());
    assert!(csrs.sfence_is_illegal(Supervisor));
}

#[test]
fn counters_are_readable_as_far_as_enabled() {
    let mut csrs = Csrs::new(0);
    assert!(csrs.check(number::TIME, Machine, false).is_ok());
    assert!(csrs.check(number::TIME, Supervisor, false).is_err());
    write(&mut csrs, number::MCOUNTEREN, 2);
    assert!(csrs.check(number::TIME, Supervisor, false).is_ok());
    assert!(csrs.check(number::CYCLE, Supervisor, false).is_err());
    assert!(csrs.check(number::TIME, User, false).is_err());
    write(&mut csrs, number::SCOUNTEREN, 2);
    assert!(csrs.check(number::TIME, User, false).is_ok());
}

#[test]
fn a_written_counter_reads_back_at_the_next_instruction() {
    let mut csrs = Csrs::new(0);
    csrs.write(number::MINSTRET, 1000, Counters { time: 0, retired: 50 });
    let next = Counters { time: 0, retired: 51 };
    assert_eq!(csrs.read(number::MINSTRET, next), 1000);
    assert_eq!(csrs.read(number::MCYCLE, next), 51, "the other goes on");
}

#[test]
fn floating_point_csrs_need_the_unit_on_and_dirty_it() {
    let mut csrs = Csrs::new(0);
    assert!(csrs.check(number::FCSR, User, false).is_err());
    write(&mut csrs, number::MSTATUS, 1 << 13);
    assert!(csrs.check(number::FCSR, User, true).is_ok());
    assert_eq!(write(&mut csrs, number::FCSR, 0xFFFF), 0xFF);
    assert_eq!((csrs.read(number::FFLAGS, NONE), csrs.read(number::FRM, NONE)), (31, 7));
    assert_eq!(csrs.read(number::MSTATUS, NONE) & status::FS, status::FS);
}

/// Debian's 6.12.117 leaves `scounteren` as the firmware set it, and its `init`
/// died of the first `rdtime`.
#[test]
fn programs_may_read_the_time_as_firmware_hands_over() {
    let csrs = Csrs::for_supervisor(0);
    for counter in [number::CYCLE, number::TIME, number::INSTRET] {
        assert!(csrs.check(counter, User, false).is_ok(), "{counter:#x}");
    }
}

#[test]
fn pending_joins_software_line_and_timer() {
    let mut csrs = Csrs::for_supervisor(0);
    assert_eq!(csrs.pending(), 0);
    csrs.set_software(true);
    csrs.set_external(true);
    csrs.set_stimecmp(100);
    csrs.update_timer(99);
    assert_eq!(csrs.pending(), 1 << 1 | 1 << 9);
    csrs.update_timer(100);
    assert_eq!(csrs.pending(), 1 << 1 | 1 << 9 | 1 << 5);
    write(&mut csrs, number::SIP, 0);
    assert_eq!(csrs.pending(), 1 << 9 | 1 << 5, "only SSIP is the supervisor's to clear");
}

#[test]
fn setting_a_bit_of_mip_does_not_latch_the_controllers_line() {
    let mut csrs = Csrs::new(0);
    csrs.set_external(true);
    let base = csrs.read_for_modify(number::MIP, NONE);
    csrs.write(number::MIP, base | 1 << 1, NONE);
    csrs.set_external(false);
    assert_eq!(csrs.pending(), 1 << 1);
}

#[test]
fn stimecmp_needs_the_extension_enabled() {
    let mut csrs = Csrs::new(0);
    assert!(csrs.check(number::STIMECMP, Supervisor, true).is_err());
    write(&mut csrs, number::MENVCFG, 1 << 63);
    write(&mut csrs, number::MCOUNTEREN, 2);
    assert!(csrs.check(number::STIMECMP, Supervisor, true).is_ok());
}
