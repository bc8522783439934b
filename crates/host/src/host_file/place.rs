//! Decides what the file leaves open and refuses what cannot be.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use main_storage::{AccessKey, BLOCK_SIZE, PartitionName, Refusal, Size, StorageMap, StorageRange};
use storage_window::{Backing, HugePage};
use toml::Spanned;

use super::pool::{self, RawPool};
use super::raw::{
    self, RawBacking, RawFile, RawGateway, RawMainStorage, RawPartition, RawSharing, RawSize,
};
use super::{
    CpuAssignment, Engine, GatewaySpec, HostFile, HostFileError, MAX_PARTITIONS, MAX_VCPUS,
    PartitionSpec,
};
use super::{database, files};

/// How long a move waits for busy I/O processors unless the file says so.
const DEVICE_WAIT: Duration = Duration::from_secs(10);

/// Turns a cause into an error that names its line.
pub(super) struct At<'a> {
    text: &'a str,
}

impl At<'_> {
    pub(super) fn error<T>(&self, at: &Spanned<T>, what: impl ToString) -> HostFileError {
        HostFileError::Value { line: raw::line(self.text, &at.span()), what: what.to_string() }
    }

    pub(super) fn size(&self, what: &str, size: &Spanned<RawSize>) -> Result<u64, HostFileError> {
        size.get_ref().bytes().map_err(|error| self.error(size, format!("{what}: {error}")))
    }
}

pub(super) fn decide(text: &str, file: RawFile) -> Result<HostFile, HostFileError> {
    let at = At { text };
    let mut file = file;
    let raw_pools = std::mem::take(&mut file.pool);
    let size = &file.main_storage.size;
    let main_storage = at.size("main storage", size)?;
    let (backing, numa_node) = backing(&at, &file.main_storage)?;
    let unit = backing.granularity();
    if main_storage % unit != 0 {
        let what = "a multiple of its pages";
        let (all, unit) = (Size(main_storage), Size(unit));
        return Err(
            at.error(size, format!("main storage of {all} is not {what}, which are {unit}"))
        );
    }
    let mut map = StorageMap::in_units(main_storage, unit).map_err(|_| {
        at.error(
            size,
            format!(
                "main storage of {} is not a positive multiple of 1M; storage is handed out in \
             blocks of 1M",
                Size(main_storage)
            ),
        )
    })?;
    let device_wait = match &file.host.device_wait {
        None => DEVICE_WAIT,
        Some(wait) => raw::duration(wait.get_ref())
            .map_err(|error| at.error(wait, format!("device_wait: {error}")))?,
    };
    if let Some(excess) = file.partition.get(MAX_PARTITIONS) {
        return Err(at.error(excess, format!("a host has at most {MAX_PARTITIONS} partitions")));
    }
    let placed = place(&at, &mut map, &file.partition)?;
    let partitions = file
        .partition
        .iter()
        .zip(placed)
        .map(|(raw, (name, range))| {
            let line = raw::line(text, &raw.span());
            partition(&at, raw.get_ref(), name, range, line)
        })
        .collect::<Result<Vec<_>, _>>()?;
    check_sharing(&partitions)?;
    let gateway = gateway(&at, file.gateway)?;
    let files = files::files(&at, file.files)?;
    let database = file.database.map(|raw| database::database(&at, raw)).transpose()?;
    let wrong = |span: &Range<usize>, what: &str| HostFileError::Value {
        line: raw::line(text, span),
        what: what.to_owned(),
    };
    let api = file.api.check(wrong)?;
    let telemetry = file.telemetry.check(wrong)?;
    let mut file = HostFile {
        api,
        telemetry,
        gateway,
        files,
        database,
        main_storage,
        backing,
        numa_node,
        device_wait,
        partitions,
        pools: Vec::new(),
    };
    for raw in &raw_pools {
        add_pool(&at, &mut map, raw, &mut file)?;
    }
    database::check(file.database.as_ref(), &file.pools)?;
    Ok(file)
}

/// Where users come in.
fn gateway(at: &At<'_>, raw: RawGateway) -> Result<GatewaySpec, HostFileError> {
    let listen = match &raw.listen {
        None => None,
        Some(listen) => Some(listen.get_ref().parse().map_err(|_| {
            let what = "listen: write an address and a port, like \"127.0.0.1:7600\"";
            at.error(listen, what)
        })?),
    };
    if let (Some(one), None) | (None, Some(one)) = (&raw.certificate, &raw.key) {
        return Err(at.error(one, "name certificate and key, or neither to have them made"));
    }
    let socket_mode = match &raw.socket_mode {
        None => 0o600,
        Some(mode) => u32::from_str_radix(mode.get_ref(), 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| at.error(mode, "socket_mode: write a file's mode, like \"0660\""))?,
    };
    Ok(GatewaySpec {
        listen,
        certificate: raw.certificate.map(Spanned::into_inner),
        key: raw.key.map(Spanned::into_inner),
        socket_mode,
        users: raw.users,
        jwks: raw.jwks,
        issuer: raw.issuer.unwrap_or_else(|| "berth".to_owned()),
        audience: raw.audience.unwrap_or_else(|| "berth".to_owned()),
    })
}

/// Adds a pool and its machines, which are placed where they fit best when all
/// else has its place.
fn add_pool(
    at: &At<'_>,
    map: &mut StorageMap,
    raw: &Spanned<RawPool>,
    file: &mut HostFile,
) -> Result<(), HostFileError> {
    let line = raw::line(at.text, &raw.span());
    let raw = raw.get_ref();
    let (spec, image, vcpus) = pool::pool(at, raw, line)?;
    let size = at.size(&format!("pool \"{}\"", spec.config.name), &raw.size)?;
    let about = |error: &dyn std::fmt::Display| format!("pool \"{}\": {error}", spec.config.name);
    let disk = disk(at, &format!("pool \"{}\"", spec.config.name), raw.disk.as_ref())?;
    for name in pool::member_names(at, raw, &spec)? {
        if file.partitions.len() >= MAX_PARTITIONS {
            let what =
                format!("a host has at most {MAX_PARTITIONS} partitions, with those of pools");
            return Err(at.error(&raw.size, about(&what)));
        }
        let range = map.best_fit(size).map_err(|error| at.error(&raw.size, about(&error)))?;
        map.assign(name.clone(), range).map_err(|error| at.error(&raw.size, about(&error)))?;
        file.partitions.push(PartitionSpec {
            name,
            range,
            declared: false,
            image: image.clone(),
            vcpus,
            cpus: CpuAssignment::Floating,
            disk,
            autostart: false,
            engine: Engine::Soft,
            io_keys: BTreeMap::new(),
            line,
        });
    }
    file.pools.push(spec);
    Ok(())
}

/// What main storage is made of, and the NUMA node it comes from.
fn backing(at: &At<'_>, raw: &RawMainStorage) -> Result<(Backing, Option<u32>), HostFileError> {
    let kind = raw.backing.as_ref().map_or(RawBacking::Memfd, |kind| *kind.get_ref());
    let reserve = raw.reserve.as_ref().map(|reserve| *reserve.get_ref());
    if let (Some(path), true) = (&raw.path, kind != RawBacking::File) {
        return Err(at.error(path, "a path is for backing = \"file\"; leave one of them out"));
    }
    if let (Some(reserve), true) =
        (&raw.reserve, reserve == Some(false) && kind != RawBacking::Memfd)
    {
        let what = "only memfd can be had without reservation; leave `reserve` out";
        return Err(at.error(reserve, what));
    }
    let backing = match kind {
        RawBacking::Memfd if reserve == Some(true) => Backing::Reserved,
        RawBacking::Memfd => Backing::Memfd,
        RawBacking::Huge2M => Backing::HugePages(HugePage::M2),
        RawBacking::Huge1G => Backing::HugePages(HugePage::G1),
        RawBacking::File => match &raw.path {
            Some(path) if path.get_ref().is_absolute() => Backing::Path(path.get_ref().clone()),
            Some(path) => return Err(at.error(path, "the path of a file or device begins with /")),
            None => {
                let what = "backing = \"file\" needs a path, e.g. path = \"/dev/dax0.0\"";
                return Err(at.error(&raw.size, what));
            }
        },
    };
    let node = match &raw.numa_node {
        None => None,
        Some(node) if kind == RawBacking::File => {
            let what = "numa_node is for memory; a file or device is where it is";
            return Err(at.error(node, what));
        }
        Some(node) => {
            Some(u32::try_from(*node.get_ref()).ok().filter(|n| *n < 64).ok_or_else(|| {
                at.error(node, format!("{} is not a NUMA node; they are 0 to 63", node.get_ref()))
            })?)
        }
    };
    Ok((backing, node))
}

/// Ranges for all, in the order of the file: declared origins first, then best
/// fit for the others.
fn place(
    at: &At<'_>,
    map: &mut StorageMap,
    partitions: &[Spanned<RawPartition>],
) -> Result<Vec<(PartitionName, StorageRange)>, HostFileError> {
    let mut placed: Vec<Option<(PartitionName, StorageRange)>> = vec![None; partitions.len()];
    let declared = |wanted: bool| {
        let each = partitions.iter().map(Spanned::get_ref).enumerate();
        each.filter(move |(_, raw)| raw.origin.is_some() == wanted)
    };
    for (index, raw) in declared(true).chain(declared(false)) {
        let name =
            PartitionName::new(raw.name.get_ref()).map_err(|error| at.error(&raw.name, error))?;
        let about = |error: &dyn std::fmt::Display| format!("partition \"{name}\": {error}");
        let size = at.size(&format!("partition \"{name}\""), &raw.size)?;
        StorageRange::new(0, size).map_err(|error| at.error(&raw.size, about(&error)))?;
        if size % map.unit() != 0 {
            let what = format!(
                "size {} is not a multiple of {}, the size of main storage's pages",
                Size(size),
                Size(map.unit())
            );
            return Err(at.error(&raw.size, about(&what)));
        }
        let (range, blame) = match &raw.origin {
            Some(origin) => {
                let bytes = at.size(&format!("origin of partition \"{name}\""), origin)?;
                let range = StorageRange::new(bytes, size);
                (range.map_err(|error| at.error(origin, about(&error)))?, origin)
            }
            None => {
                let range = map.best_fit(size);
                (range.map_err(|error| at.error(&raw.size, about(&error)))?, &raw.size)
            }
        };
        map.assign(name.clone(), range).map_err(|refusal| match refusal {
            Refusal::NameTaken(_) => at.error(&raw.name, about(&refusal)),
            Refusal::InTheWay { .. } => at.error(blame, overlap(map, &name, range, &refusal)),
            other => at.error(blame, about(&other)),
        })?;
        placed[index] = Some((name, range));
    }
    Ok(placed.into_iter().flatten().collect())
}

fn overlap(
    map: &StorageMap,
    name: &PartitionName,
    range: StorageRange,
    refusal: &Refusal,
) -> String {
    let who: Vec<_> =
        refusal.in_the_way().iter().map(|by| format!("\"{}\" ({})", by.name, by.range)).collect();
    let remedy = match map.best_fit(range.size()) {
        Ok(free) => {
            format!("origin {} would be free, or leave the origin out", Size(free.origin()))
        }
        Err(_) => {
            "no gap is large enough; make main storage larger or a partition smaller".to_owned()
        }
    };
    format!("partition \"{name}\" ({range}) overlaps {}; {remedy}", who.join(" and "))
}

fn partition(
    at: &At<'_>,
    raw: &RawPartition,
    name: PartitionName,
    range: StorageRange,
    line: usize,
) -> Result<PartitionSpec, HostFileError> {
    let image = raw.image.get_ref().clone();
    if !is_image_name(&image) {
        return Err(at.error(&raw.image, format!(
            "partition \"{name}\": {image:?} is not an image's name; `berth image list` shows those there are"
        )));
    }
    let cpus = cpus(at, raw, &name)?;
    let vcpus = vcpus(at, raw, &name, &cpus)?;
    let disk = disk(at, &format!("partition \"{name}\""), raw.disk.as_ref())?;
    let io_keys = io_keys(at, raw, &name)?;
    let (autostart, engine, declared) = (raw.autostart, raw.engine, raw.origin.is_some());
    Ok(PartitionSpec {
        name,
        range,
        declared,
        image,
        vcpus,
        cpus,
        disk,
        autostart,
        engine,
        io_keys,
        line,
    })
}

/// Bytes of the data disk of `whose`.
fn disk(
    at: &At<'_>,
    whose: &str,
    raw: Option<&Spanned<RawSize>>,
) -> Result<Option<u64>, HostFileError> {
    let Some(disk) = raw else { return Ok(None) };
    let bytes = at.size(&format!("disk of {whose}"), disk)?;
    if bytes == 0 || bytes % BLOCK_SIZE != 0 {
        let what = format!("a disk of {} is not a positive multiple of 1M", Size(bytes));
        return Err(at.error(disk, format!("{whose}: {what}")));
    }
    Ok(Some(bytes))
}

fn io_keys(
    at: &At<'_>,
    raw: &RawPartition,
    name: &PartitionName,
) -> Result<BTreeMap<String, AccessKey>, HostFileError> {
    let mut there = vec!["console", "agent", "blk0", "rng", "mem"];
    there.extend(raw.disk.as_ref().map(|_| "blk1"));
    let each = raw.io_keys.iter().map(|(processor, number)| {
        if !there.contains(&processor.as_str()) {
            return Err(at.error(number, format!(
                "partition \"{name}\": it has no I/O processor {processor:?} to give an access key; it has {}",
                there.join(", ")
            )));
        }
        let key = u8::try_from(*number.get_ref()).ok().and_then(AccessKey::new);
        let key = key.ok_or_else(|| at.error(number, format!(
            "partition \"{name}\": {} is not an access key; write a number from 0 to 15",
            number.get_ref()
        )))?;
        Ok((processor.clone(), key))
    });
    each.collect()
}

/// Whether it can be an image's name; such a name cannot leave the image store.
pub(crate) fn is_image_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let length = (1..=64).contains(&name.len());
    length && !name.starts_with('.') && name.bytes().all(legal)
}

fn cpus(
    at: &At<'_>,
    raw: &RawPartition,
    name: &PartitionName,
) -> Result<CpuAssignment, HostFileError> {
    let (listed, sharing) = match (&raw.host_cpus, &raw.cpu_sharing) {
        (None, None) => return Ok(CpuAssignment::Floating),
        (None, Some(sharing)) => {
            return Err(at.error(sharing, format!(
                "partition \"{name}\": cpu_sharing without host_cpus; name the host CPUs too, e.g. host_cpus = [0]"
            )));
        }
        (Some(listed), None) => {
            return Err(at.error(listed, format!(
                "partition \"{name}\": host_cpus without cpu_sharing; add cpu_sharing = \"exclusive\" or \"time-shared\""
            )));
        }
        (Some(listed), Some(sharing)) => (listed, *sharing.get_ref()),
    };
    let mut cpus: Vec<usize> = Vec::new();
    for number in listed.get_ref() {
        // The kernel's own limit of CPU numbers in a set.
        let cpu = usize::try_from(*number).ok().filter(|cpu| *cpu < 1024);
        match cpu {
            Some(cpu) if !cpus.contains(&cpu) => cpus.push(cpu),
            Some(cpu) => {
                return Err(at.error(
                    listed,
                    format!("partition \"{name}\": host CPU {cpu} is named twice; name each once"),
                ));
            }
            None => {
                return Err(at.error(
                    listed,
                    format!(
                        "partition \"{name}\": {number} is not a host CPU; they are numbered from 0"
                    ),
                ));
            }
        }
    }
    if cpus.is_empty() {
        return Err(at.error(
            listed,
            format!("partition \"{name}\": host_cpus is empty; name at least one or leave it out"),
        ));
    }
    Ok(match sharing {
        RawSharing::Exclusive => CpuAssignment::Exclusive(cpus),
        RawSharing::TimeShared => CpuAssignment::TimeShared(cpus),
    })
}

fn vcpus(
    at: &At<'_>,
    raw: &RawPartition,
    name: &PartitionName,
    cpus: &CpuAssignment,
) -> Result<u8, HostFileError> {
    let Some(vcpus) = &raw.vcpus else {
        let named = u8::try_from(cpus.named().len()).unwrap_or(MAX_VCPUS);
        return Ok(named.clamp(1, MAX_VCPUS));
    };
    let number = u8::try_from(*vcpus.get_ref()).ok().filter(|n| (1..=MAX_VCPUS).contains(n));
    let number = number.ok_or_else(|| {
        at.error(
            vcpus,
            format!(
                "partition \"{name}\": {} vCPUs are not possible; it can have 1 to {MAX_VCPUS}",
                vcpus.get_ref()
            ),
        )
    })?;
    match cpus {
        CpuAssignment::Exclusive(cpus) if usize::from(number) > cpus.len() => Err(at.error(
            vcpus,
            format!(
                "partition \"{name}\": {number} vCPUs on {} exclusive host CPU(s); name one host \
                 CPU for each vCPU, or share them with cpu_sharing = \"time-shared\"",
                cpus.len()
            ),
        )),
        _ => Ok(number),
    }
}

/// A host CPU that somebody has exclusively is nobody else's.
pub(super) fn check_sharing(partitions: &[PartitionSpec]) -> Result<(), HostFileError> {
    for (index, later) in partitions.iter().enumerate() {
        for earlier in &partitions[..index] {
            let shared = later.cpus.named().iter().find(|cpu| earlier.cpus.named().contains(cpu));
            let both = (&later.cpus, &earlier.cpus);
            let fine = matches!(both, (CpuAssignment::TimeShared(_), CpuAssignment::TimeShared(_)));
            if let (Some(cpu), false) = (shared, fine) {
                let owner = &earlier.name;
                return Err(later.wrong(format!(
                    "host CPU {cpu} is claimed by \"{owner}\" too, and one of them claims it \
                     exclusively; choose another, or make both time-shared"
                )));
            }
        }
    }
    Ok(())
}
