//! Writes that a program which runs already must not meet: they are done when it has ended.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Array, HashMap};
use netdiag_agent::enforce::{Enforcer, Options};
use netdiag_common::abi::{floating::Leaving, policy::GrantKey};
use netdiag_model::{
    compile::{Change, Op, Phase, Stage},
    floating::tables::FloatingTables,
};
use netdiag_tests::{Bpffs, private_host, program::Slow, require_ebpf};

/// How often a writer may be too late to meet the program it is to wait for.
const ROUNDS: u32 = 4;
/// For what takes some hundredths of a second, on a machine that is emulated much longer.
const PATIENCE: Duration = Duration::from_mins(2);
/// A place of a port.
const SLOT: u32 = 3;

/// Tells the program to stop, however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs the program until it is told to stop, with pauses for who writes.
fn run(slow: &Slow, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        slow.run().unwrap();
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the program has begun once more than it has ended; how often it has begun.
fn begun(slow: &Slow) -> u64 {
    let started = Instant::now();
    let (before, _) = slow.counted().unwrap();
    loop {
        let (begun, ended) = slow.counted().unwrap();
        if begun > before && begun > ended {
            return begun;
        }
        assert!(started.elapsed() < PATIENCE, "the program does not run");
    }
}

/// Writes while the program runs, and sees that nothing is there before it has ended.
fn waits(what: &str, slow: &Slow, write: impl FnOnce() + Send, is_written: impl Fn() -> bool) {
    assert!(!is_written(), "{what}: before it is written");
    let run = begun(slow);
    thread::scope(|scope| {
        let writer = scope.spawn(write);
        loop {
            let (written, (_, ended)) = (is_written(), slow.counted().unwrap());
            if ended >= run {
                break;
            }
            assert!(!written, "{what}: written while a program runs that has begun before");
        }
        writer.join().unwrap();
    });
    assert!(is_written(), "{what}: afterwards");
}

/// Whether somebody can write while a program runs: it has its processor for itself.
#[expect(clippy::print_stderr, reason = "a narrower test must be seen")]
fn has_processors() -> bool {
    let has = thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    if !has {
        eprintln!("NARROWED: with one processor nobody writes while a program runs");
    }
    has
}

#[test]
fn what_a_running_program_must_not_meet_is_written_when_it_has_ended() {
    if !(require_ebpf() && private_host::enter("what_a_running_program_must_not_meet_is_written_when_it_has_ended")) {
        return;
    }
    if !has_processors() {
        return;
    }
    let bpffs = Bpffs::new();
    let enforcer = Enforcer::load(Options { root: bpffs.root(), max_flows: Some(4096), ..Options::default() }).unwrap();
    let grants: HashMap<_, GrantKey, u32> = bpffs.hash("GRANTS");
    let leavings: Array<_, Leaving> = bpffs.array("LEAVING");
    let (slow, stop) = (Slow::load().unwrap(), AtomicBool::new(false));
    let leaving = Leaving { fixed: 1, floating: 2, ..Leaving::default() };
    let leads = FloatingTables { leaving: [(SLOT, leaving)].into(), ..FloatingTables::default() };
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| run(&slow, &stop));
        for round in 1..=ROUNDS {
            for stage in [Stage::Narrow, Stage::Widen, Stage::Retire] {
                let key = GrantKey { grants: round, remote: stage as u32, class: 1 };
                let phase = Phase { stage, ops: vec![Op::Grant(Change::Put(key, 1))] };
                let is_written = || grants.get(&key, 0).is_ok();
                waits(&format!("{stage:?}"), &slow, || enforcer.apply(&[phase]).unwrap(), is_written);
            }
            let none = FloatingTables::default();
            enforcer.apply_floating(&none, &leads).unwrap();
            let is_written = || leavings.get(&SLOT, 0).unwrap().floating == 0;
            let write = || enforcer.apply_floating(&leads, &none).unwrap();
            waits("a floating IP that goes", &slow, write, is_written);
        }
    });
}
