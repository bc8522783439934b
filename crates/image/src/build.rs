//! Building an image: from a recipe to a published directory.

use std::fs;
use std::path::Path;

use crate::apt::{Apt, Keep, Package};
use crate::error::{At, BuildError};
use crate::guest_programs::{GuestProgram, compile};
use crate::kernel::{self, Kernel};
use crate::lock::Lock;
use crate::memory_driver;
use crate::mirror;
use crate::process::check_host;
use crate::progress::{Phase, Progress};
use crate::recipe::Recipe;
use crate::root::{write_root, write_scratch};
use crate::store::{
    BenchBoot, FILES, Image, ImageStore, Manifest, bench_command_line, command_line,
    no_memory_driver, recipe_digest,
};
use crate::tools::{Tools, host_architecture};

/// An index that is verified, with the packages a build takes from it.
struct Sources {
    apt: Apt,
    tools: Tools,
    kernel_packages: Vec<Package>,
    kernel: Kernel,
    /// Why guests keep the memory they boot with, if they do.
    fixed_memory: Option<String>,
}

impl ImageStore {
    /// The image that `recipe` describes, built if it is not there or if the
    /// recipe or the guest agent changed since.
    ///
    /// # Errors
    /// [`BuildError`] names cause and remedy.
    pub fn ensure(&self, recipe: &Recipe, progress: &dyn Progress) -> Result<Image, BuildError> {
        match self.current(recipe)? {
            Some(image) => Ok(image),
            None => self.build(recipe, progress),
        }
    }

    /// Builds the image anew from the suite's present packages. When nothing
    /// but the agent changed since the image was built, only its initramfs is
    /// made anew, without a download. An image of the same name stays in
    /// place until the new one is complete.
    ///
    /// # Errors
    /// [`BuildError`] names cause and remedy; nothing half-built remains.
    pub fn build(&self, recipe: &Recipe, progress: &dyn Progress) -> Result<Image, BuildError> {
        check_host()?;
        let images = self.images();
        fs::create_dir_all(&images).at(&images)?;
        let _lock = self.lock(&images, progress)?;
        let staging =
            tempfile::Builder::new().prefix(".building-").tempdir_in(&images).at(&images)?;
        let manifest = match self.renew_initrd(recipe, staging.path(), progress)? {
            Some(manifest) => manifest,
            None => self.build_whole(recipe, staging.path(), progress)?,
        };
        progress.phase(Phase::Publish);
        let text = serde_json::to_string_pretty(&manifest).map_err(|error| {
            BuildError::Damaged { name: recipe.name.clone(), reason: error.to_string() }
        })?;
        let file = staging.path().join("manifest.json");
        fs::write(&file, text).at(&file)?;
        let target = images.join(&recipe.name);
        publish(staging.path(), &target)?;
        self.get(&recipe.name)
    }

    /// Kernel and initramfs for `berth bench cpu`.
    ///
    /// # Errors
    /// [`BuildError`] names cause and remedy.
    pub fn bench_initrd(
        &self,
        image: &Image,
        progress: &dyn Progress,
    ) -> Result<BenchBoot, BuildError> {
        check_host()?;
        let _lock = self.lock(&self.images(), progress)?;
        let suite = &image.manifest.suite;
        let tools = Tools::cached(self.cache(), suite, &host_architecture()?)?;
        let kernel = Kernel::cached(self.cache(), &image.manifest.kernel_packages);
        let (tools, kernel) = match (tools, kernel) {
            (Some(tools), Some(kernel)) => (tools, kernel),
            _ => {
                let sources = self.sources(std::slice::from_ref(suite), progress)?;
                (sources.tools, sources.kernel)
            }
        };
        progress.phase(Phase::Agent);
        let program = compile(GuestProgram::Bench, &tools, self.cache())?;
        let initrd = self.cache().join("bench.initrd");
        let staging = self.cache().join(".building-bench.initrd");
        kernel.write_initrd(&program, &staging)?;
        fs::rename(&staging, &initrd).at(&initrd)?;
        Ok(BenchBoot { kernel: kernel.image(), initrd, command_line: bench_command_line() })
    }

    fn lock(&self, images: &Path, progress: &dyn Progress) -> Result<Lock, BuildError> {
        let cache = self.cache();
        let (tools, kernels, programs) =
            (cache.join("tools"), cache.join("kernels"), cache.join("programs"));
        Lock::take(cache, &[images, &tools, &kernels, &programs], progress)
    }

    /// Fetches the index of the first suite that can be had whole and
    /// verified, and what every build needs from it.
    fn sources(&self, suites: &[String], progress: &dyn Progress) -> Result<Sources, BuildError> {
        let architecture = host_architecture()?;
        let mirror = mirror::find()?;
        let chosen = std::env::var("BERTH_SUITE").ok().filter(|text| !text.is_empty());
        let suites = chosen.map_or_else(|| suites.to_vec(), |suite| vec![suite]);
        let mut reasons = String::new();
        let mut found = None;
        for suite in &suites {
            let apt = Apt::prepare(self.cache(), &mirror, suite, &architecture)?;
            match apt.update(progress) {
                Ok(()) => {
                    found = Some(apt);
                    break;
                }
                Err(BuildError::Tool { output, .. }) => {
                    progress.notice(&format!(
                        "suite {suite} cannot be had whole and verified from the mirror"
                    ));
                    reasons.push_str(&format!("{suite}: {output}\n"));
                }
                Err(other) => return Err(other),
            }
        }
        let Some(apt) = found else {
            return Err(BuildError::Index { mirror, reasons });
        };
        if Some(apt.suite()) != suites.first().map(String::as_str) {
            progress.notice(&format!("using suite {} instead", apt.suite()));
        }
        let tools = Tools::obtain(self.cache(), &apt, &architecture, progress)?;
        let plan = kernel::plan(&apt)?;
        let kernel = Kernel::obtain(self.cache(), &apt, &plan, &tools, progress)?;
        let kernel_packages = plan.packages;
        let driver =
            memory_driver::obtain(self.cache(), &apt, &architecture, &kernel, &tools, progress);
        let fixed_memory = driver.err().map(|error| {
            progress.notice(&memory_driver::notice(&error));
            error.to_string()
        });
        Ok(Sources { apt, tools, kernel_packages, kernel, fixed_memory })
    }

    fn build_whole(
        &self,
        recipe: &Recipe,
        into: &Path,
        progress: &dyn Progress,
    ) -> Result<Manifest, BuildError> {
        let sources = self.sources(&recipe.suites, progress)?;
        let ask: Vec<&str> = recipe.packages.iter().map(String::as_str).collect();
        let without: Vec<&str> = recipe.without.iter().map(String::as_str).collect();
        let plan = sources.apt.plan("riscv64", &ask, &Keep::Except(&without))?;
        sources.apt.download(&plan, progress)?;
        let packages = plan.packages;
        progress.phase(Phase::Agent);
        let agent = compile(GuestProgram::Agent, &sources.tools, self.cache())?;
        fs::copy(sources.kernel.image(), into.join("kernel")).at(into)?;
        sources.kernel.write_initrd(&agent, &into.join("initrd"))?;
        let root = into.join("root.squashfs");
        write_root(recipe, &sources.apt, &packages, &sources.tools, &root, progress)?;
        write_scratch(&sources.tools, &into.join("scratch.ext4"))?;
        Ok(Manifest {
            name: recipe.name.clone(),
            suite: sources.apt.suite().to_owned(),
            kernel: sources.kernel.release()?,
            command_line: command_line(),
            recipe_digest: recipe_digest(recipe)?,
            agent_digest: GuestProgram::Agent.digest(),
            packages,
            kernel_packages: sources.kernel_packages,
            fixed_memory: sources.fixed_memory,
        })
    }

    /// When only the agent changed and all caches are there: everything but
    /// the initramfs is taken over from the existing image.
    fn renew_initrd(
        &self,
        recipe: &Recipe,
        into: &Path,
        progress: &dyn Progress,
    ) -> Result<Option<Manifest>, BuildError> {
        let Ok(old) = self.get(&recipe.name) else { return Ok(None) };
        let manifest =
            Manifest { agent_digest: GuestProgram::Agent.digest(), ..old.manifest.clone() };
        let same_root = manifest.recipe_digest == recipe_digest(recipe)?;
        if !same_root || manifest == old.manifest {
            return Ok(None);
        }
        let Some(kernel) = Kernel::cached(self.cache(), &manifest.kernel_packages) else {
            return Ok(None);
        };
        let Some(tools) = Tools::cached(self.cache(), &manifest.suite, &host_architecture()?)?
        else {
            return Ok(None);
        };
        // The cache may have gained or lost the driver through other builds.
        let fixed_memory = (!kernel.has_memory_driver())
            .then(|| manifest.fixed_memory.clone().or_else(no_memory_driver))
            .flatten();
        let manifest = Manifest { fixed_memory, ..manifest };
        progress.phase(Phase::Agent);
        let agent = compile(GuestProgram::Agent, &tools, self.cache())?;
        kernel.write_initrd(&agent, &into.join("initrd"))?;
        let dir = self.images().join(&recipe.name);
        for file in FILES.iter().filter(|file| **file != "initrd") {
            fs::hard_link(dir.join(file), into.join(file)).at(&dir.join(file))?;
        }
        Ok(Some(manifest))
    }
}

/// Puts the finished directory in the place of an older one. Guests that run
/// from the older one keep its files open.
fn publish(staging: &Path, target: &Path) -> Result<(), BuildError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(staging, fs::Permissions::from_mode(0o755)).at(staging)?;
    let older = staging.with_extension("older");
    let replaced = target.exists();
    if replaced {
        fs::rename(target, &older).at(target)?;
    }
    if let Err(error) = fs::rename(staging, target) {
        if replaced {
            // Puts the older image back; the first error is the one to tell.
            let _ = fs::rename(&older, target);
        }
        return Err(BuildError::io(target, error));
    }
    if replaced {
        let _ = fs::remove_dir_all(&older);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_image_replaces_the_older_one_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (staging, target) = (dir.path().join(".building-x"), dir.path().join("image"));
        for (at, file) in [(&staging, "new"), (&target, "old")] {
            fs::create_dir(at).unwrap();
            fs::write(at.join(file), "").unwrap();
        }
        publish(&staging, &target).unwrap();
        assert!(target.join("new").exists() && !target.join("old").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_publication_leaves_the_older_image() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("image");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "").unwrap();
        assert!(publish(&dir.path().join(".building-absent"), &target).is_err());
        assert!(target.join("old").exists());
    }
}
