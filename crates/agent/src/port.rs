//! The virtio port that leads to the host, found by its name.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use agent_protocol::PORT_NAME;

use crate::sys::O_NONBLOCK;

/// Opens the port if it is there and nobody else has it open.
pub(crate) fn open() -> Option<File> {
    let device = find(Path::new("/sys/class/virtio-ports"))?;
    OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(device).ok()
}

/// The device file of the port with our name, among those listed in `class`.
fn find(class: &Path) -> Option<PathBuf> {
    for entry in fs::read_dir(class).ok()?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            return Some(Path::new("/dev").join(entry.file_name()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let class = std::env::temp_dir().join(format!("berth-ports-{}", std::process::id()));
        for (port, name) in [("vport0p1", "other\n"), ("vport2p7", "berth.agent\n")] {
            fs::create_dir_all(class.join(port)).unwrap();
            fs::write(class.join(port).join("name"), name).unwrap();
        }
        fs::create_dir_all(class.join("vport9p9")).unwrap();
        assert_eq!(find(&class), Some(PathBuf::from("/dev/vport2p7")));
        fs::remove_dir_all(class.join("vport2p7")).unwrap();
        assert_eq!(find(&class), None);
        fs::remove_dir_all(class).unwrap();
    }
}
