//! The virtual machine itself.

use std::{
    env::consts::ARCH,
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Options, initramfs,
    kernel::{self, Kernel},
    script::Script,
};
use crate::command;

/// How many lines of the kernel's messages an error shows.
const SHOWN: usize = 20;

/// A machine that can be started.
#[derive(Debug)]
pub(super) struct Machine {
    options: Options,
    kernel: Kernel,
    scratch: Scratch,
}

/// A directory that goes with the machine.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    /// One below a directory that is for these and kernels, and removes those whose owner was killed.
    fn new(parent: &Path) -> Result<Self> {
        for entry in fs::read_dir(parent).with_context(|| format!("read {}", parent.display()))?.filter_map(Result::ok)
        {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix("run-"));
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                drop(Self(entry.path()));
            }
        }
        let path = parent.join(format!("run-{}", process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

impl Machine {
    /// One that has not been started.
    pub(super) fn new(options: Options, kernel: Kernel, root: &Path) -> Result<Self> {
        if ARCH != "x86_64" {
            bail!("virtual machines are for x86_64: one of {ARCH} cannot run this machine's programs on these kernels");
        }
        let scratch = Scratch::new(&kernel::directory(root))?;
        Ok(Self { options, kernel, scratch })
    }

    /// Starts it, passes on what the script says, and returns the script's exit code.
    pub(super) fn run(&self, script: &Script) -> Result<ExitCode> {
        let initramfs = self.scratch.file("initramfs");
        fs::write(&initramfs, initramfs::build(&self.kernel, script)?)
            .with_context(|| format!("write {}", initramfs.display()))?;
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        command::run(&mut self.qemu(terminal)?)?;
        self.code()
    }

    fn qemu(&self, terminal: bool) -> Result<Command> {
        let Options { kvm, memory, cpus, .. } = self.options;
        let mut qemu = Command::new("setpriv");
        // Whatever ends this program ends the machine.
        qemu.args(["--pdeathsig", "TERM", "--", "qemu-system-x86_64"]);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        if kvm {
            qemu.args(["-accel", "kvm", "-cpu", "host"]);
        } else {
            // An instruction takes a nanosecond of the machine's time, however long it takes here: what is bounded in
            // time keeps its bound, on an emulated processor and beside other work.
            qemu.args(["-accel", "tcg", "-cpu", "max", "-icount", "shift=0,sleep=on", "-rtc", "clock=vm"]);
        }
        qemu.args(["-m", &memory.to_string(), "-smp", &cpus.to_string()]);
        qemu.args(["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]);
        qemu.args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]);
        // Keys go to the machine, those that make signals too.
        qemu.args(["-chardev", "stdio,id=command,signal=off"]);
        for line in [self.file_line("console")?, "chardev:command".to_owned(), self.file_line("code")?] {
            qemu.args(["-serial", &line]);
        }
        let mut words = "console=ttyS0 quiet panic=-1 cgroup_no_v1=all".to_owned();
        if terminal {
            let size = rustix::termios::tcgetwinsize(io::stdin()).context("read the size of the terminal")?;
            words = format!("{words} TERMINAL={}x{}", size.ws_row, size.ws_col);
        } else {
            qemu.stdin(Stdio::null());
        }
        qemu.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(self.scratch.file("initramfs"));
        qemu.args(["-append", &words]);
        Ok(qemu)
    }

    /// A serial line that ends in a file.
    fn file_line(&self, name: &str) -> Result<String> {
        let file = self.scratch.file(name);
        let path = file.to_str().context("the path of the target directory is not UTF-8")?;
        // A comma would begin the next option.
        Ok(format!("file:{}", path.replace(',', ",,")))
    }

    /// What the script ended with, as the machine wrote it before it ended.
    fn code(&self) -> Result<ExitCode> {
        let text = fs::read_to_string(self.scratch.file("code")).unwrap_or_default();
        let Ok(code) = text.trim().parse::<u8>() else {
            let console = fs::read(self.scratch.file("console")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let lines: Vec<_> = console.lines().collect();
            let last = lines[lines.len().saturating_sub(SHOWN)..].join("\n  ");
            bail!("the machine ended before the command; the last messages of its kernel:\n  {last}");
        };
        Ok(ExitCode::from(code))
    }
}
