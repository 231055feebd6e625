//! `cargo xtask test`: every test there is, those that need a real kernel included.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build, command,
    setup::{self, Scope},
    workspace,
};

/// Variables that must reach the tests through sudo.
const HANDED_ON: &str = "NETDIAG_CI,CI,NETDIAG_BIN,NETDIAG_XTASK,NETDIAG_BPF_OBJECT,PATH,INSTA_UPDATE,INSTA_WORKSPACE_ROOT,\
                         CARGO_MANIFEST_DIR,RUST_BACKTRACE,NETDIAG_DIFFERENTIAL_PACKETS,NETDIAG_DIFFERENTIAL_SEED";

/// Tests that wait for packets for most of their time, each in labs of its own. They run beside all others, which keeps
/// the whole run about as short as the others alone.
const WAITING: [&str; 13] = [
    "agent_ahead",
    "agent_floating",
    "agent_floating_own",
    "agent_seen",
    "floating_answers",
    "floating_faults",
    "floating_lab",
    "floating_midway",
    "floating_outside",
    "live_faults",
    "live_faults_life",
    "live_faults_sources",
    "live_trace",
];

/// How many tests of one of these run at once.
const AT_ONCE: &str = "8";

/// Options of `test`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: setup::Args,
    /// Only this file of tests/tests, by its name without `.rs`; may be repeated
    #[arg(long = "test", value_name = "NAME")]
    only: Vec<String>,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Sets up, builds, and runs every test, those after a failure too: one run tells all there is to tell.
pub(crate) fn run(args: Args) -> Result<()> {
    let Args { setup, only, filter } = args;
    let root = workspace::root()?;
    let programs = Programs::of(&root, &only)?;
    setup::ensure(Scope::Test, setup)?;
    let tests = Tests {
        binary: build::binary(&root, false)?,
        object: build::object(&root)?,
        this: env::current_exe().context("find this program")?,
        runner: runner(&root)?,
        root,
        filter,
    };
    let mut ran = Vec::new();
    if only.is_empty() {
        ran.push(command::run(&mut tests.cargo(&["--workspace", "--exclude", "netdiag-tests"])));
    }
    ran.extend(tests.privileged(&programs));
    let failed: Vec<_> = ran.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!(failed.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("; "))
}

/// What every run of cargo is told.
struct Tests {
    root: PathBuf,
    binary: PathBuf,
    object: PathBuf,
    /// This program, which the tests make labs with.
    this: PathBuf,
    /// What starts the privileged tests, where this is not root already.
    runner: Option<(String, String)>,
    filter: Option<String>,
}

impl Tests {
    /// `cargo test` of these targets.
    fn cargo(&self, targets: &[impl AsRef<OsStr>]) -> Command {
        let mut cargo = command::cargo(&self.root);
        cargo
            .arg("test")
            .args(targets)
            .args(["--locked", "--no-fail-fast"])
            .args(self.filter.as_deref())
            .env(build::OBJECT_VARIABLE, &self.object)
            .env("NETDIAG_BIN", &self.binary)
            .env("NETDIAG_XTASK", &self.this);
        cargo
    }

    /// The same, of the privileged tests.
    fn cargo_as_root(&self, targets: &[impl AsRef<OsStr>]) -> Command {
        let mut cargo = self.cargo(targets);
        cargo.args(["--package", "netdiag-tests"]);
        if let Some((variable, runner)) = &self.runner {
            cargo.env(variable, runner);
        }
        cargo
    }

    /// Runs the privileged tests: the outcome of each run of cargo.
    fn privileged(&self, programs: &Programs) -> Vec<Result<()>> {
        // Compiled before anything runs: two cargos would wait for each other, and then measure each other's compiler.
        let built = command::run(self.cargo_as_root(&programs.compiled()).arg("--no-run"));
        if built.is_err() {
            return vec![built];
        }
        thread::scope(|scope| {
            let waiting = scope.spawn(|| self.unless_none(&programs.waiting, &["--", "--test-threads", AT_ONCE]));
            let others = self.unless_none(&programs.others, &[]);
            let documentation = self.unless_none(&programs.documentation, &[]);
            let waiting = waiting.join().unwrap_or_else(|_| bail!("the thread of the tests that wait has died"));
            vec![others, documentation, waiting]
        })
    }

    /// Runs these targets: cargo takes none to mean all.
    fn unless_none(&self, targets: &[String], options: &[&str]) -> Result<()> {
        if targets.is_empty() {
            return Ok(());
        }
        let mut cargo = self.cargo_as_root(targets);
        cargo.args(options);
        if options.is_empty() { command::run(&mut cargo) } else { command::run_quietly(&mut cargo) }
    }
}

/// The privileged tests, as cargo is told of them.
#[derive(Debug, PartialEq, Eq)]
struct Programs {
    /// Those of [`WAITING`].
    waiting: Vec<String>,
    others: Vec<String>,
    documentation: Vec<String>,
}

impl Programs {
    /// All of them, or `only` these.
    fn of(root: &Path, only: &[String]) -> Result<Self> {
        let all = names(&root.join("tests/tests"))?;
        if let Some(unknown) = only.iter().find(|name| !all.contains(name)) {
            bail!("no test {unknown} in tests/tests; there are {}", all.join(", "));
        }
        let chosen = if only.is_empty() { &all } else { only };
        let target = |name: &String| format!("--test={name}");
        let (waiting, others): (Vec<_>, Vec<_>) = chosen.iter().partition(|name| WAITING.contains(&name.as_str()));
        let mut programs = Self {
            waiting: waiting.into_iter().map(target).collect(),
            others: others.into_iter().map(target).collect(),
            documentation: Vec::new(),
        };
        if only.is_empty() {
            programs.others.insert(0, "--lib".to_owned());
            programs.documentation.push("--doc".to_owned());
        }
        Ok(programs)
    }

    fn compiled(&self) -> Vec<String> {
        self.waiting.iter().chain(&self.others).cloned().collect()
    }
}

/// The files of a directory of tests, without `.rs`, sorted.
fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// How cargo has to start the privileged tests: through sudo, unless this is root already.
pub(crate) fn runner(root: &Path) -> Result<Option<(String, String)>> {
    if command::is_root() {
        return Ok(None);
    }
    command::require_sudo()?;
    let printed = command::output(Command::new("rustc").arg("-vV").current_dir(root))?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
    Ok(Some((variable, format!("sudo --preserve-env={HANDED_ON}"))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Programs, names};
    use crate::workspace;

    fn of(only: &[&str]) -> anyhow::Result<Programs> {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        Programs::of(&workspace::root()?, &only)
    }

    #[test]
    fn nothing_runs_beside_the_tests_that_were_asked_for() {
        let one = |waiting: &[&str], others: &[&str]| Programs {
            waiting: waiting.iter().map(|name| (*name).to_owned()).collect(),
            others: others.iter().map(|name| (*name).to_owned()).collect(),
            documentation: Vec::new(),
        };
        assert_eq!(of(&["behaviour"]).unwrap(), one(&[], &["--test=behaviour"]));
        assert_eq!(of(&["live_trace", "events"]).unwrap(), one(&["--test=live_trace"], &["--test=events"]));
        let error = of(&["behavior"]).unwrap_err().to_string();
        assert!(
            error.starts_with("no test behavior in tests/tests; there are ") && error.contains(", behaviour, "),
            "{error}"
        );
    }

    #[test]
    fn without_a_name_every_test_runs_once() {
        let Programs { waiting, others, documentation } = of(&[]).unwrap();
        let mut run: Vec<_> = waiting.into_iter().chain(others).collect();
        run.sort();
        let all = names(&workspace::root().unwrap().join("tests/tests")).unwrap();
        let expected: Vec<_> =
            ["--lib".to_owned()].into_iter().chain(all.iter().map(|name| format!("--test={name}"))).collect();
        assert_eq!((run, documentation), (expected, vec!["--doc".to_owned()]));
    }

    /// The code words in the last column of a page's tables.
    fn shown_by(page: &str) -> Vec<String> {
        let rows = page.lines().filter(|line| line.starts_with("| ") && !line.ends_with("shown by |"));
        let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_page_of_claims_names_every_test_and_none_that_is_not_there() {
        let root = workspace::root().unwrap();
        let directory = root.join("tests/tests");
        let words = shown_by(&fs::read_to_string(root.join("docs/PROOF.md")).unwrap());
        let mut named: Vec<&str> = Vec::new();
        for word in words.iter().filter(|word| !word.starts_with("cargo ")) {
            let (file, filter) = word.split_once(' ').unwrap_or((word, ""));
            let code = fs::read_to_string(directory.join(file).with_extension("rs")).unwrap_or_default();
            let mut tests =
                code.lines().filter_map(|line| line.trim_start().trim_start_matches("async ").strip_prefix("fn "));
            assert!(tests.any(|name| name.contains(filter)), "{word} is no test");
            named.push(file);
        }
        named.sort_unstable();
        named.dedup();
        assert_eq!(named, names(&directory).unwrap());
    }
}
