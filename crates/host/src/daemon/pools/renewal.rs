//! What makes a machine differ from those made from the same capture.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::link::Renewal;

/// A renewal that no other machine gets.
pub(super) fn renewal(hostname: String, generation: u64) -> io::Result<Renewal> {
    let (machine_id, boot_id) = (random()?, random()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(Renewal {
        entropy: random::<64>()?.to_vec(),
        wall_clock_ns: u64::try_from(now.as_nanos()).map_err(io::Error::other)?,
        hostname,
        machine_id,
        boot_id,
        generation,
    })
}

fn random<const LENGTH: usize>() -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
