//! The command line of the benches.

use std::{env, path::PathBuf};

use anyhow::{Result, bail};

/// What the command line asks for.
#[derive(Debug, Default)]
pub(crate) struct Args {
    /// A look, not a measurement.
    pub(crate) quick: bool,
    /// Where to write the figures.
    pub(crate) json: Option<PathBuf>,
    /// An eBPF object to measure in turn with the built one.
    pub(crate) against: Option<PathBuf>,
}

impl Args {
    /// Reads it.
    pub(crate) fn parse() -> Result<Self> {
        let mut args = Self::default();
        let mut words = env::args_os().skip(1);
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("--quick") => args.quick = true,
                Some("--json") => args.json = words.next().map(PathBuf::from),
                Some("--against") => args.against = words.next().map(PathBuf::from),
                // What cargo adds to every bench it runs.
                Some("--bench") => {}
                _ => bail!("no such option: {}", word.display()),
            }
        }
        Ok(args)
    }
}
