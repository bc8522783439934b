//! Main storage on a device of the kind devdax, which few machines have: a PC is
//! emulated that has one, and a host of guests runs there.

#[path = "support/pc.rs"]
mod pc;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pc::{Ram, image, kernel, output, which};

const HOST: &str = r#"
[main_storage]
size = "512M"
backing = "file"
path = "/dev/dax0.0"

[[partition]]
name = "a"
origin = "0"
size = "112M"
image = "minimal"

[[partition]]
name = "b"
origin = "128M"
size = "112M"
image = "minimal"
"#;

/// What the shell of the emulated PC calls.
const APPLETS: [&str; 12] = [
    "sh", "mount", "cat", "insmod", "ip", "kill", "mkdir", "poweroff", "sleep", "tail", "tr", "ln",
];
const MODULES: [&str; 6] = [
    "nvdimm/libnvdimm.ko",
    "nvdimm/nd_btt.ko",
    "nvdimm/nd_pmem.ko",
    "acpi/nfit/nfit.ko",
    "dax/device_dax.ko",
    "dax/dax_pmem.ko",
];

#[test]
fn guest_lives_on_a_memory_device_and_moves_there() {
    let kernel = kernel();
    let ram = Ram::new(include_str!("devdax/init"), &APPLETS);
    ram.modules(&kernel, &MODULES);
    ram.write("host.toml", HOST);
    ram.program(&which("ndctl"), "ndctl");
    ram.program(Path::new(env!("CARGO_BIN_EXE_berth")), "berth");
    output(Command::new("strip").arg(ram.root().join("bin/berth")));
    let images = ram.root().join("root/.local/share/berth/images");
    fs::create_dir_all(&images).unwrap();
    output(Command::new("cp").arg("-a").args([&image("minimal"), &images]));

    let memory = "memory-backend-ram,id=device,size=768M";
    let device = "nvdimm,id=nvdimm,memdev=device";
    let pc = ["-machine", "pc,nvdimm=on", "-m", "3G,slots=2,maxmem=8G"];
    let pc = [&pc[..], &["-object", memory, "-device", device]].concat();
    let said = ram.run(&kernel, &pc, Duration::from_secs(480));

    said.row("the end");
    for done in [
        "0 berth move b --to 300M",
        "0 berth move a --to 34M",
        "0 berth move b --to 320M --mode stop",
        "0 berth exchange a b",
        "0 berth expand a --by 32M",
        "0 berth move b --to 200M",
        "0 berth down",
    ] {
        said.row(done);
    }
    assert_eq!(said.rows("0 berth up").len(), 2, "{}", said.0);
    assert!(said.row("1 berth move b --to 301M").contains("units of 2M"), "{}", said.0);
    assert!(said.row("0 berth exec a -- cat").contains("kept"), "{}", said.0);
    let report = said.row("0 berth exec b -- sh -c killall");
    assert!(report.contains("\"errors\":0"), "{report}");
}
