//! What a machine starts from: a few modules, a shell and the scripts, in the archive format the kernel unpacks
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{kernel::Kernel, script::Script};
use crate::command;

/// What it takes to see the host's files: the rest is loaded from there.
const MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// The first process.
const INIT: &str = include_str!("init.sh");
/// What it becomes.
const START: &str = include_str!("start.sh");

/// File types and permissions of the entries.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Makes the archive for one kernel and one script.
pub(super) fn build(kernel: &Kernel, script: &Script) -> Result<Vec<u8>> {
    let busybox = command::find("busybox").context("there is no busybox (package busybox-static)")?;
    let mut archive = Archive::default();
    for directory in ["bin", "modules", "dev", "proc", "sys", "lower", "memory", "root"] {
        archive.add(directory, DIRECTORY, &[])?;
    }
    archive.add("bin/busybox", PROGRAM, &read(&busybox)?)?;
    archive.add("init", PROGRAM, INIT.as_bytes())?;
    archive.add("start", PROGRAM, START.as_bytes())?;
    archive.add("command", PROGRAM, script.text())?;
    archive.add("kernel-modules", PROGRAM, kernel.modules.as_os_str().as_encoded_bytes())?;
    // Numbered, because the shell lists them in the order of names.
    for (number, module) in load_order(kernel)?.iter().enumerate() {
        archive.add(&format!("modules/{number:02}.ko"), PROGRAM, &read(&kernel.modules.join(module))?)?;
    }
    Ok(archive.finish())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// Files of the wanted modules and of what they need, those that are needed first.
fn load_order(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let text = |name: &str| {
        let path = kernel.modules.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    order(&text("modules.dep")?, &text("modules.builtin")?, MODULES)
}

/// The same, out of the lists in a kernel's directory. A line of `modules.dep` is a module and everything it needs, the
/// next needed first (modules.dep(5)).
fn order(dependencies: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
    let needs: BTreeMap<_, _> = lines.map(|(module, needs)| (name(module), (module, needs))).collect();
    let mut order: Vec<PathBuf> = Vec::new();
    for module in wanted.iter().filter(|module| !builtin.lines().any(|line| name(line) == **module)) {
        let (file, needs) = needs.get(*module).with_context(|| format!("the kernel has no module {module}"))?;
        for file in needs.split_ascii_whitespace().rev().chain([*file]).map(PathBuf::from) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

/// The name of a module, out of its file's.
fn name(file: &str) -> &str {
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split_once('.').map_or(file, |(name, _)| name)
}

/// An archive in the making.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let name_size = u32::try_from(name.len() + 1).with_context(|| format!("{name} is too long"))?;
        let links = 1;
        // Magic, then: inode, mode, owner, group, links, time, size, device and special device in two halves each, size
        // of the name with its NUL, and a checksum this format does not use.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        self.bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    /// Names and contents begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        // A name of this length cannot fail.
        self.add("TRAILER!!!", 0, &[]).ok();
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Archive, order};

    #[test]
    fn a_module_is_loaded_after_what_it_needs_and_once() {
        let dependencies = "\
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz
kernel/fs/netfs/netfs.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
";
        let built_in = "kernel/drivers/virtio/virtio_pci.ko\n";
        let expected = ["fs/netfs/netfs", "net/9p/9pnet", "net/9p/9pnet_virtio", "fs/9p/9p"];
        let expected = expected.map(|file| PathBuf::from(format!("kernel/{file}.ko.xz")));
        assert_eq!(order(dependencies, built_in, &["virtio_pci", "9pnet_virtio", "9p"]).unwrap(), expected);
        assert!(order(dependencies, built_in, &["overlay"]).is_err());
    }

    #[test]
    fn names_and_contents_are_padded_to_four_bytes() {
        let mut archive = Archive::default();
        archive.add("a", 0o100_755, b"hello").unwrap();
        let bytes = archive.finish();
        assert_eq!(&bytes[..14], b"07070100000001");
        // A header of 110 bytes and a name of 2 end at a multiple of four.
        assert_eq!(&bytes[110..120], b"a\0hello\0\0\0");
        assert_eq!(&bytes[120..126], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }
}
