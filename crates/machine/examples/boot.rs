//! Boots a kernel in main storage of its own and shows its console:
//! `boot SIZE_MIB VCPUS KERNEL INITRD|- COMMAND_LINE [DISK…]`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use io_processors::{ClientRead, DiskMode};
use machine::{DiskConfig, Machine, MachineConfig, memory_map};
use main_storage::StorageRange;
use storage_window::{Backing, MainStorage, StorageWindow};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &'static str| arguments.next().ok_or(what);
    let size = next("a size")?.parse::<u64>()? << 20;
    let vcpus = next("a number of vCPUs")?.parse()?;
    let kernel = PathBuf::from(next("a kernel")?);
    let initrd = Some(next("an initial ramdisk")?).filter(|path| path != "-").map(PathBuf::from);
    let command_line = next("a command line")?;
    let disks =
        arguments.map(|path| DiskConfig { path: path.into(), mode: DiskMode::ReadOnly }).collect();

    let main = MainStorage::create(size, Backing::Memfd)?;
    let range = StorageRange::new(0, size)?;
    let window = StorageWindow::map(
        main.storage_fd(),
        main.keys_fd(),
        range,
        memory_map::STORAGE_BASE,
        size,
    )?;
    let config = MachineConfig {
        name: "boot".into(),
        vcpus,
        host_cpus: None,
        compile: true,
        kernel,
        initrd,
        command_line,
        disks,
        files: false,
        io_keys: BTreeMap::new(),
    };
    let machine = Machine::new(&config, &window)?;
    let client = machine.console().attach(true);
    let started = Instant::now();
    machine.start();
    std::thread::scope(|scope| {
        let end = scope.spawn(|| machine.wait());
        while !end.is_finished() {
            if let ClientRead::Output(bytes) = client.read(Duration::from_millis(100)) {
                // A closed terminal is no reason to stop the guest.
                let _ = std::io::stdout().write_all(&bytes);
                let _ = std::io::stdout().flush();
            }
        }
        println!("\nended after {:.2?}: {:?}", started.elapsed(), end.join().ok());
    });
    Ok(())
}
