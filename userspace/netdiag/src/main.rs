//! Parse, run, exit code. What a command does is in [`cmd`], what it prints is in the views crate.

use std::{io, process::ExitCode};

use clap::Parser;
use tokio::runtime;

/// The command line as clap reads it.
mod cli;
/// One function a command.
mod cmd;
/// Arguments and environment, checked and completed.
mod config;
/// Exit codes, in one table.
mod exit;

use cli::{Cli, Command, Sg};
use exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let watches = matches!(&cli.command, Command::Drops(_))
        || matches!(&cli.command, Command::Trace(trace) if trace.live || trace.probed.probe.is_some());
    // Whoever watches wakes up often, and takes no more of the host than he must: to wake another thread each time costs more than packets.
    let mut builder =
        if watches { runtime::Builder::new_current_thread() } else { runtime::Builder::new_multi_thread() };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("start the runtime")),
    };
    // The agent ends in its own time, and what watches says first what it came to.
    let interruptible = !watches && !matches!(&cli.command, Command::Agent(_));
    let result = runtime.block_on(async {
        tokio::select! {
            result = run(cli.command) => result,
            _ = tokio::signal::ctrl_c(), if interruptible => Ok(Exit::Interrupted),
        }
    });
    // A source that hangs in the kernel must not keep a finished command waiting.
    runtime.shutdown_background();
    match result {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Works.into(),
        Err(error) => fail(&error),
    }
}

async fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Trace(trace) => cmd::trace(&trace).await,
        Command::Watch(watch) => cmd::watch::run(&watch).await,
        Command::Drops(drops) => cmd::drops::run(&drops).await,
        Command::List { source, look, output } => cmd::list(&source, &look, output).await,
        Command::Agent(agent) => cmd::agent(&agent).await,
        Command::Sg(Sg::Show { instance, source, look, output }) => {
            cmd::sg::show(&instance, &source, &look, output).await
        }
        Command::Sg(Sg::Explain(asked)) => cmd::sg::explain(&asked).await,
        Command::Fip { way: Some(way), .. } => cmd::fip_way(&way).await,
        Command::Fip { way: None, instance, source, look, output } => {
            cmd::fip::run(instance.as_deref(), &source, &look, output).await
        }
        Command::Flows(flows) => cmd::flows::run(&flows).await,
        Command::Events(events) => cmd::events::run(&events).await,
        Command::Tui(asked) => cmd::tui::run(&asked).await,
        Command::Doctor { sockets, look, output } => cmd::doctor(&sockets, &look, output).await,
        Command::Snapshot { write, sockets, enforced } => cmd::snapshot(&write, &sockets, &enforced).await,
        Command::Schema { of } => cmd::schema(of),
        Command::Completions { shell } => cmd::completions(shell),
        Command::Man { dir } => cmd::man(dir.as_deref()),
    }
}

/// `netdiag trace web-1 | head` is no error: the reader has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe))
}

#[expect(clippy::print_stderr, reason = "errors belong on standard error")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("netdiag: {}", netdiag_views::escape::terminal(&format!("{error:#}"), false));
    Exit::of(error).into()
}
