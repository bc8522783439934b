//! `berth up` and `berth down`: the host's life.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use host::host_file::{HostFileError, PartitionSpec};
use host::{GuestImage, Host, HostConfig, HostFile, Images, StateDir};
use image::{Dirs, Image, ImageStore, Recipe};
use main_storage::Size;
use operator_api::model::Command as Ask;
use operator_client::{Client, ClientError, Place};

use crate::args::{Global, UpArgs};
use crate::commands::status_json;
use crate::images::Terminal;
use crate::reach::{client, note};
use crate::{Failure, print_json, say_what_happens, state_dir};

const HOW_TO_WRITE_ONE: &str = r#"
A host file says how large main storage is and which partitions live in it:

    [main_storage]
    size = "512M"

    [[partition]]
    name = "first"
    size = "128M"
    image = "minimal"        # or "python"; built at the first `berth up`

Write that to berth.toml and type `berth up` again. Also possible for a
partition: origin = "128M", vcpus = 2, disk = "64M" (at /data), autostart =
false, host_cpus = [0, 1] with cpu_sharing = "exclusive" or "time-shared"."#;

/// How long the background half may take until it answers.
const ANSWERS: Duration = Duration::from_secs(60);
/// How long guests without a host may take to power off.
const POWER_OFF: Duration = Duration::from_secs(10);

pub(crate) fn up(global: &Global, args: &UpArgs) -> Result<(), Failure> {
    let dir = state_dir(global)?;
    let file = read(&args.file)?;
    check(&args.file, &file)?;
    // Before anything is built or started: is there a host already?
    let lock = dir.lock()?;
    let in_use = host::images_in_use(&dir, &lock)?;
    let images = images(&args.file, &file)?;
    build_again(&in_use)?;
    check_disks(&args.file, &file, &images)?;
    drop(lock);
    if args.detach {
        return detach(global, args, &dir);
    }
    if args.background {
        // What ends the terminal that started us does not end us.
        let _ = rustix::process::setsid();
    }
    say_what_happens(global.json);
    let config = HostConfig { images: Box::new(Guests(store()?)), file };
    let size = Size(config.file.main_storage);
    let host = Host::open(config, dir.clone())?;
    tracing::info!(main_storage = %size, state_dir = %dir.path().display(), "up; Ctrl-C ends it");
    // Only a service manager listens; without one this does nothing.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the service manager was not told that the host is up");
    }
    host.run()?;
    Ok(())
}

fn read(path: &Path) -> Result<HostFile, Failure> {
    HostFile::read(path).map_err(|source| match &source {
        HostFileError::Read { source: cause, .. }
            if cause.kind() == std::io::ErrorKind::NotFound =>
        {
            Failure::Other(format!("there is no host file {}\n{HOW_TO_WRITE_ONE}", path.display()))
        }
        _ => about(path, source),
    })
}

fn about(path: &Path, source: HostFileError) -> Failure {
    Failure::HostFile { path: path.display().to_string(), source }
}

fn check(path: &Path, file: &HostFile) -> Result<(), Failure> {
    file.check_host(&host::online_cpus()?).map_err(|source| about(path, source))
}

/// Every image the file names, built where missing or out of date.
fn images(path: &Path, file: &HostFile) -> Result<BTreeMap<String, Image>, Failure> {
    let store = store()?;
    let mut images = BTreeMap::new();
    for partition in &file.partitions {
        let name = &partition.image;
        if images.contains_key(name) {
            continue;
        }
        let image = if Recipe::built_in().any(|known| known == name) {
            store.ensure(&Recipe::find(name)?, &Terminal::new(name))?
        } else {
            store.get(name).map_err(|error| about(path, unknown_image(partition, &error)))?
        };
        images.insert(name.clone(), image);
    }
    Ok(images)
}

fn unknown_image(partition: &PartitionSpec, error: &image::BuildError) -> HostFileError {
    let known: Vec<_> = Recipe::built_in().collect();
    partition.wrong(format!("{error}; or use one that is built on demand: {}", known.join(", ")))
}

/// The user's images.
pub(crate) fn store() -> Result<ImageStore, Failure> {
    let dirs = Dirs::from_env().ok_or_else(|| {
        Failure::Other(
            "there is no home directory; set XDG_DATA_HOME and XDG_CACHE_HOME".to_owned(),
        )
    })?;
    Ok(ImageStore::open(dirs))
}

/// Where the host finds images while it runs.
#[derive(Debug)]
struct Guests(ImageStore);

impl Images for Guests {
    fn find(&self, name: &str) -> Result<GuestImage, String> {
        let image = self.0.get(name).map_err(|error| host::in_full(&error))?;
        let Image { kernel, initrd, root, scratch, command_line, .. } = image;
        Ok(GuestImage { kernel, initrd, root, scratch, command_line })
    }
}

/// Builds those images that partitions of an earlier host use and that are
/// built on demand. Others may be gone: their guests, if they run, go on.
fn build_again(names: &[String]) -> Result<(), Failure> {
    names
        .iter()
        .filter(|name| Recipe::built_in().any(|known| known == **name))
        .try_for_each(|name| build(name))
}

/// Builds an image that is built on demand, if it is missing or out of date.
pub(crate) fn build(name: &str) -> Result<(), Failure> {
    store()?.ensure(&Recipe::find(name)?, &Terminal::new(name))?;
    Ok(())
}

/// Whether data disks are no larger than the file systems they begin as.
fn check_disks(
    path: &Path,
    file: &HostFile,
    images: &BTreeMap<String, Image>,
) -> Result<(), Failure> {
    for partition in &file.partitions {
        let (Some(size), Some(image)) = (partition.disk, images.get(&partition.image)) else {
            continue;
        };
        let most = std::fs::metadata(&image.scratch)?.len();
        if size > most {
            let what = format!("a disk of {} is too large; at most {}", Size(size), Size(most));
            return Err(about(path, partition.wrong(what)));
        }
    }
    Ok(())
}

/// Starts the background half and waits until its guests serve commands.
fn detach(global: &Global, args: &UpArgs, dir: &StateDir) -> Result<(), Failure> {
    let path = dir.host_log();
    let mut options = OpenOptions::new();
    let mut log = options.create(true).append(true).read(true).mode(0o600).open(&path)?;
    let before = log.seek(SeekFrom::End(0))?;
    let mut child = Command::new("/proc/self/exe")
        .arg("--state-dir")
        .arg(dir.path())
        .args(["up", "--background", "-f"])
        .arg(&args.file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .spawn()?;
    let failed = |what: &str, mut log: File| {
        let mut said = String::new();
        let _ = log
            .seek(SeekFrom::Start(before))
            .and_then(|_| log.take(4096).read_to_string(&mut said));
        Failure::Other(format!("{what}; {} says:\n{}", path.display(), said.trim_end()))
    };
    let Some(mut client) = connect(dir, &mut child)? else {
        return Err(failed("the host did not start", log));
    };
    let up = if args.no_wait { Ok(()) } else { client.carry_out(&Ask::Await, note).map(drop) };
    if let Err(ClientError::Ended | ClientError::NoHost { .. }) = up {
        return Err(failed("the host ended while it started its guests", log));
    }
    up?;
    if global.json {
        print_json(&status_json(&client.state()?.host));
    } else {
        println!(
            "the host is up (process {}, log {}); `berth status` shows it, `berth down` ends it",
            child.id(),
            path.display()
        );
    }
    Ok(())
}

/// A connection to the host that `child` becomes; `None` if it ended first.
fn connect(dir: &StateDir, child: &mut Child) -> Result<Option<Client>, Failure> {
    let mut client = Client::new(&Place::Local(dir.api_socket()))?;
    let deadline = Instant::now() + ANSWERS;
    loop {
        match client.state() {
            Err(ClientError::NoHost { .. } | ClientError::Ended) if Instant::now() < deadline => {}
            result => return Ok(Some(result.map(|_| client)?)),
        }
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn down(global: &Global) -> Result<(), Failure> {
    let mut client = client(global)?;
    match client.carry_out(&Ask::Down, note) {
        // That it is gone before it says so is as good.
        Ok(_) | Err(ClientError::Ended) => client.wait_for_end(),
        Err(error @ ClientError::NoHost { .. }) => {
            if !end_leftovers(&state_dir(global)?)? {
                return Err(error.into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    if global.json {
        print_json(&serde_json::json!({ "result": "down" }));
    } else {
        println!("the host is down");
    }
    Ok(())
}

/// Ends what a host left that died; whether there was anything.
fn end_leftovers(dir: &StateDir) -> Result<bool, Failure> {
    if !dir.path().exists() {
        return Ok(false);
    }
    let lock = dir.lock()?;
    let mut hear = |guest: &host::Leftover| {
        eprintln!("{} runs without a host (process {}); ending it", guest.name, guest.pid);
    };
    Ok(host::clean_up(dir, &lock, POWER_OFF, &mut hear)?)
}
