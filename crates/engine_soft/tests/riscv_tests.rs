//! Runs the programs of the RISC-V foundation's test suite `riscv-tests`.
//!
//! `BERTH_RISCV_TESTS` names a directory of built programs (the ELF files
//! `rv64ui-p-add` and so on); without it there is nothing to run, which is
//! printed. `docs/conformance.md` says how to read the outcome.

#[path = "support/elf.rs"]
mod elf;
mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use elf::Program;
use engine::{Exit, Vcpu};
use engine_soft::{Firmware, SoftConfig, SoftVcpu};
use support::{NoDevices, get, put, soft_config, window};

const STORAGE: u64 = 16 << 20;
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The high bits of a request to print a character.
const PRINT: u64 = 0x0101;

/// Programs whose expectation the standard leaves to the implementation, and
/// why ours differs.
const IMPLEMENTATION_DEFINED: &[(&str, &str)] = &[(
    "rv64mi-p-pmpaddr",
    "a hart may have no PMP entries; then their registers are read-only zero",
)];

/// Runs one program until it reports.
fn run(path: &Path) -> Result<(), String> {
    let file = std::fs::read(path).map_err(|error| error.to_string())?;
    let program = Program::new(&file).ok_or("not an ELF64 file for RISC-V")?;
    let window = window(STORAGE);
    for (address, bytes) in program.segments() {
        put(&window, address, bytes);
    }
    let report = program.symbol("tohost").ok_or("no symbol tohost")?;
    let config =
        SoftConfig { firmware: Firmware::Guest, reset_vector: program.entry(), ..soft_config() };
    let mut vcpu = SoftVcpu::new(0, window.clone(), config);
    let handle = vcpu.handle();
    let deadline = Instant::now() + TIME_LIMIT;
    std::thread::scope(|scope| {
        let guest = scope.spawn(move || (vcpu.run(&NoDevices), vcpu));
        loop {
            let word = get(&window, report);
            if word >> 48 == PRINT {
                put(&window, report, &[0; 8]);
            } else if word != 0 || guest.is_finished() || Instant::now() > deadline {
                handle.kick();
                let (exit, mut vcpu) = guest.join().map_err(|_| "the vCPU panicked")?;
                let pc = vcpu.riscv().pc();
                return match get(&window, report) {
                    1 => Ok(()),
                    0 if exit != Exit::Kicked => Err(format!("{exit:?}")),
                    0 => Err(format!("no report in {TIME_LIMIT:?}, pc {pc:#x}")),
                    word => Err(format!("case {} failed, pc {pc:#x}", word >> 1)),
                };
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    })
}

#[test]
fn every_program_of_the_suite_passes() {
    let Some(directory) = std::env::var_os("BERTH_RISCV_TESTS") else {
        println!("skipped: BERTH_RISCV_TESTS does not name a directory of built programs");
        return;
    };
    let only = std::env::var("BERTH_RISCV_TESTS_ONLY").unwrap_or_default();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("rv64") && name.contains(&only) && !name.contains('.')
        })
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no program in {}", directory.display());
    let mut failed = Vec::new();
    let mut passed = 0;
    for path in &paths {
        let name = path.file_name().unwrap().to_string_lossy();
        match run(path) {
            Ok(()) => {
                passed += 1;
                println!("pass {name}");
            }
            Err(why) => match IMPLEMENTATION_DEFINED.iter().find(|(known, _)| *known == name) {
                Some((_, reason)) => println!("differs {name}: {why} ({reason})"),
                None => {
                    println!("FAIL {name}: {why}");
                    failed.push(name.into_owned());
                }
            },
        }
    }
    println!("{passed} of {} programs passed", paths.len());
    assert!(failed.is_empty(), "{failed:?}");
}
