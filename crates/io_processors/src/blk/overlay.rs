//! A disk whose writes go elsewhere.
//!
//! The overlay file: a header, a map with one bit per cluster of the disk, and
//! every cluster at the place its number gives it. Clusters never written are
//! holes. The map in the file is brought up to date by a flush, after the
//! data: what the file's map says is written, is.
//!
//! A copy is two of them: what another disk had when it was captured, which is only
//! read, and over it one that is emptied to put the disk back.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::backend::{ClusterSize, DiskBackend, OpenDiskError, RawDisk, lock};
use super::vectored::{self, Buffers};

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"BERTHOVL";
/// The only layout so far.
const VERSION: u32 = 2;
/// Bytes of the header: magic, version (u32), cluster size (u32), length of
/// the disk (u64), fingerprint of its base (u64), zeros. Also the unit in which the map is written.
const BLOCK: u64 = 4096;
/// The clusters begin at a multiple of this.
const DATA_ALIGN: u64 = 64 << 10;

/// Bytes that are copied at once for a capture.
const PIECE: u64 = 1 << 20;

/// A disk read from its base unless written since.
pub(super) struct Overlay {
    base: Box<dyn DiskBackend>,
    role: Role,
    file: File,
    cluster: u64,
    /// Where cluster 0 is in the file.
    data_start: u64,
    /// A bit per cluster: it is in the file.
    map: Vec<u8>,
    /// Blocks of the map that the file's map lacks.
    stale: BTreeSet<usize>,
}

/// What the file is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is kept: what was flushed is on the medium.
    Kept,
    /// It is read only.
    Captured,
    /// It is dropped when the disk is put back, or its guest gone.
    Scratch,
}

/// Neighbouring clusters that are treated alike.
struct Run {
    /// Disk offset of the first byte, and of the byte after the last.
    start: u64,
    end: u64,
    kind: RunKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RunKind {
    /// In the file.
    Present,
    /// In the base; the request covers whole clusters.
    AbsentWhole,
    /// In the base; the request covers a part of one cluster.
    AbsentPart,
}

impl Overlay {
    pub(super) fn open(
        base: RawDisk,
        path: &Path,
        cluster: ClusterSize,
    ) -> Result<Self, OpenDiskError> {
        let failed = |source| OpenDiskError::File { path: path.into(), source };
        let file = Self::own_file(path)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            let fingerprint = base.fingerprint().map_err(failed)?;
            return Self::create(Box::new(base), Role::Kept, fingerprint, file, cluster.bytes())
                .map_err(failed);
        }
        Self::existing(base, Role::Kept, file, path)
    }

    /// A copy of what `captured` was captured as.
    pub(super) fn copy(base: RawDisk, captured: &Path, path: &Path) -> Result<Self, OpenDiskError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenDiskError::File { path, source }
        };
        let fingerprint = base.fingerprint().map_err(failed(captured))?;
        let file = File::open(captured).map_err(failed(captured))?;
        lock(&file, captured, false)?;
        let captured = Self::existing(base, Role::Captured, file, captured)?;
        let file = Self::own_file(path)?;
        file.set_len(0).map_err(failed(path))?;
        let cluster = captured.cluster;
        Self::create(Box::new(captured), Role::Scratch, fingerprint, file, cluster)
            .map_err(failed(path))
    }

    /// The file at `path`, made if there is none, for this use alone.
    fn own_file(path: &Path) -> Result<File, OpenDiskError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|source| OpenDiskError::File { path: path.into(), source })?;
        lock(&file, path, true)?;
        Ok(file)
    }

    fn existing(base: RawDisk, role: Role, file: File, path: &Path) -> Result<Self, OpenDiskError> {
        let failed = |source| OpenDiskError::File { path: path.into(), source };
        let mut header = [0; 32];
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let wrong = |reason| OpenDiskError::Overlay { path: path.into(), reason };
        let cluster = check_header(header, base.length(), base.fingerprint().map_err(failed)?)
            .map_err(wrong)?;
        let mut overlay = Self::with(Box::new(base), role, file, cluster);
        overlay.file.read_exact_at(&mut overlay.map, BLOCK).map_err(failed)?;
        Ok(overlay)
    }

    fn create(
        base: Box<dyn DiskBackend>,
        role: Role,
        fingerprint: u64,
        file: File,
        cluster: u64,
    ) -> io::Result<Self> {
        let overlay = Self::with(base, role, file, cluster);
        let mut header = Vec::from(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((cluster as u32).to_le_bytes());
        header.extend(overlay.length().to_le_bytes());
        header.extend(fingerprint.to_le_bytes());
        overlay.file.set_len(overlay.end())?;
        overlay.file.write_all_at(&header, 0)?;
        Ok(overlay)
    }

    /// Bytes of the file.
    fn end(&self) -> u64 {
        self.data_start + self.length().div_ceil(self.cluster) * self.cluster
    }

    fn with(base: Box<dyn DiskBackend>, role: Role, file: File, cluster: u64) -> Self {
        let map_bytes = base.length().div_ceil(cluster).div_ceil(8).next_multiple_of(BLOCK);
        let data_start = (BLOCK + map_bytes).next_multiple_of(DATA_ALIGN);
        // A map of a disk that fits a file's length fits memory: 2^-15 of it.
        let map = vec![0; usize::try_from(map_bytes).unwrap_or(0)];
        Self { base, role, file, cluster, data_start, map, stale: BTreeSet::new() }
    }

    /// See `DiskControl::capture`.
    pub(super) fn capture(&mut self, target: &File) -> io::Result<u64> {
        if self.role != Role::Kept {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // Then the file's map is this one.
        self.flush()?;
        target.set_len(self.end())?;
        let mut bytes = vec![0; PIECE as usize];
        self.copy_to(target, 0, self.data_start, &mut bytes)?;
        let (mut at, mut copied) = (0, 0);
        while at < self.length() {
            let run = self.run(at, self.length());
            if run.kind == RunKind::Present {
                let end = self.data_start + run.end.next_multiple_of(self.cluster);
                self.copy_to(target, self.data_start + run.start, end, &mut bytes)?;
                copied += run.end - run.start;
            }
            at = run.end;
        }
        target.sync_all()?;
        Ok(copied)
    }

    fn copy_to(&self, target: &File, from: u64, to: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let most = (to - at).min(PIECE) as usize;
            let piece = bytes.get_mut(..most).unwrap_or_default();
            self.file.read_exact_at(piece, at)?;
            target.write_all_at(piece, at)?;
            at += most as u64;
        }
        Ok(())
    }

    /// See `DiskControl::put_back`.
    pub(super) fn put_back(&mut self) -> io::Result<u64> {
        if self.role != Role::Scratch {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let clusters: u64 = self.map.iter().map(|byte| u64::from(byte.count_ones())).sum();
        if clusters > 0 {
            self.map.fill(0);
            self.stale.clear();
            // All of its clusters become holes.
            self.file.set_len(self.data_start)?;
            self.file.set_len(self.end())?;
        }
        Ok(clusters * self.cluster)
    }

    fn is_present(&self, cluster: u64) -> bool {
        let byte = self.map.get((cluster / 8) as usize);
        byte.is_some_and(|byte| byte & 1 << (cluster % 8) != 0)
    }

    fn set_present(&mut self, start: u64, end: u64) {
        for cluster in start / self.cluster..end.div_ceil(self.cluster) {
            let index = (cluster / 8) as usize;
            let bit = 1 << (cluster % 8);
            if let Some(byte) = self.map.get_mut(index).filter(|byte| **byte & bit == 0) {
                *byte |= bit;
                self.stale.insert(index / BLOCK as usize);
            }
        }
    }

    /// The run that begins at `start` of a request that ends at `end`.
    fn run(&self, start: u64, end: u64) -> Run {
        let first = self.kind(start, end);
        let mut run_end = self.cluster_end(start).min(end);
        while first != RunKind::AbsentPart && run_end < end && self.kind(run_end, end) == first {
            run_end = self.cluster_end(run_end).min(end);
        }
        Run { start, end: run_end, kind: first }
    }

    fn kind(&self, start: u64, end: u64) -> RunKind {
        let whole = start % self.cluster == 0
            && (self.cluster_end(start) <= end || end >= self.base.length());
        match self.is_present(start / self.cluster) {
            true => RunKind::Present,
            false if whole => RunKind::AbsentWhole,
            false => RunKind::AbsentPart,
        }
    }

    fn cluster_end(&self, at: u64) -> u64 {
        (at / self.cluster + 1) * self.cluster
    }

    /// Writes a part of a cluster that is in the base: the whole cluster is
    /// put into the file.
    fn copy_up(&self, run: &Run, part: &Buffers<'_>) -> io::Result<()> {
        let cluster_start = run.start / self.cluster * self.cluster;
        let mut bytes = vec![0; self.cluster as usize];
        self.base.read(cluster_start, &Buffers::of_host(&mut bytes))?;
        let from = (run.start - cluster_start) as usize;
        part.copy_to(&mut bytes[from..]);
        self.file.write_all_at(&bytes, self.data_start + cluster_start)
    }
}

/// The cluster size, if the header is one of an overlay of such a disk.
fn check_header(header: [u8; 32], length: u64, base: u64) -> Result<u64, &'static str> {
    let [
        magic @ ..,
        v0,
        v1,
        v2,
        v3,
        c0,
        c1,
        c2,
        c3,
        l0,
        l1,
        l2,
        l3,
        l4,
        l5,
        l6,
        l7,
        f0,
        f1,
        f2,
        f3,
        f4,
        f5,
        f6,
        f7,
    ] = header;
    if &magic != MAGIC {
        return Err("it is not an overlay");
    }
    if u32::from_le_bytes([v0, v1, v2, v3]) != VERSION {
        return Err("it has an unknown version");
    }
    let other_length = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]) != length;
    if other_length || u64::from_le_bytes([f0, f1, f2, f3, f4, f5, f6, f7]) != base {
        return Err("it belongs to another disk");
    }
    let cluster = u64::from(u32::from_le_bytes([c0, c1, c2, c3]));
    let known = [ClusterSize::Kib4, ClusterSize::Kib64].map(ClusterSize::bytes);
    if known.contains(&cluster) { Ok(cluster) } else { Err("it has an unknown cluster size") }
}

impl DiskBackend for Overlay {
    fn length(&self) -> u64 {
        self.base.length()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        let end = offset + buffers.length();
        let mut at = offset;
        while at < end {
            let run = self.run(at, end);
            let part = buffers.part(at - offset, run.end - at);
            if run.kind == RunKind::Present {
                let done = vectored::read(&self.file, self.data_start + at, &part)?;
                if done < part.length() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            } else {
                self.base.read(at, &part)?;
            }
            at = run.end;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        let end = offset + buffers.length();
        let mut at = offset;
        while at < end {
            let run = self.run(at, end);
            let part = buffers.part(at - offset, run.end - at);
            if run.kind == RunKind::AbsentPart {
                self.copy_up(&run, &part)?;
            } else {
                vectored::write(&self.file, self.data_start + at, &part)?;
            }
            // Only now: a write that failed leaves the base's bytes visible.
            self.set_present(at, run.end);
            at = run.end;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.role != Role::Kept {
            return Ok(());
        }
        self.file.sync_data()?;
        if self.stale.is_empty() {
            return Ok(());
        }
        for block in &self.stale {
            let start = block * BLOCK as usize;
            let end = (start + BLOCK as usize).min(self.map.len());
            self.file.write_all_at(&self.map[start..end], BLOCK + start as u64)?;
        }
        self.file.sync_data()?;
        self.stale.clear();
        Ok(())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // The guest did not ask for it, but a partition stopped in good order
        // finds its disk as it left it.
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "an overlay could not be brought up to date");
        }
    }
}
