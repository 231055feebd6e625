//! A fault, and what must be said of it.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use netdiag_tests::Lab;
use serde_json::{Value, json};

/// What is sent.
pub(crate) enum Traffic<'t> {
    /// A command that netdiag runs, and ends with.
    Here(String),
    /// A command that a host of the lab repeats until netdiag has seen a packet die.
    From(&'static str, String),
    /// Packets that the test itself sends, again and again.
    Ours(Box<dyn Fn() + Sync + 't>),
}

/// A fault: how it is made and mended, what is sent, and what must be said.
pub(crate) struct Fault<'t> {
    pub(crate) name: &'static str,
    /// Where it is made, if not where the instance runs.
    pub(crate) at: Option<&'static str>,
    pub(crate) make: String,
    pub(crate) mend: String,
    pub(crate) traffic: Traffic<'t>,
    /// Which kind of guilt, or of finding; any if empty.
    pub(crate) code: &'static str,
    /// Part of the place that must be named.
    pub(crate) place: String,
    /// Words that must be said there.
    pub(crate) says: String,
    /// Words of what is true besides.
    pub(crate) also: &'static [&'static str],
    /// How long is watched for a packet that dies; where none does, that is how long it takes.
    pub(crate) patience: &'static str,
}

impl<'t> Fault<'t> {
    /// A fault, and who is guilty of it: kind, place, words.
    pub(crate) fn new(
        name: &'static str,
        (make, mend): (impl Into<String>, impl Into<String>),
        traffic: Traffic<'t>,
        (code, place, says): (&'static str, &str, &str),
    ) -> Self {
        Self {
            name,
            at: None,
            make: make.into(),
            mend: mend.into(),
            traffic,
            code,
            place: place.to_owned(),
            says: says.to_owned(),
            also: &[],
            patience: "15s",
        }
    }
}

/// What came of a fault.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// There was none.
    pub(crate) healthy: bool,
    /// The guilty one was named; where there is none, nobody.
    pub(crate) found: bool,
    /// Others who were named.
    pub(crate) wrong: Vec<String>,
    took: Duration,
    /// Everything that was said.
    said: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.found { "found " } else { "MISSED" };
        write!(f, "{mark} {:4.1} s  {}", self.took.as_secs_f64(), self.name)?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n       WRONG {wrong}"))?;
        let said = self.said.iter().filter(|_| !self.found);
        said.into_iter().try_for_each(|said| write!(f, "\n       said {said}"))
    }
}

/// An instance that faults are made around, one after the other.
pub(crate) struct Lane<'l> {
    lab: &'l Lab,
    host: &'static str,
    instance: String,
    /// More options of netdiag's.
    options: Vec<String>,
}

/// Something that is blamed.
#[derive(Clone, Debug)]
struct Named {
    code: String,
    place: String,
    says: String,
    /// What speaks for it: for who reads why this test failed.
    #[expect(dead_code, reason = "it is shown by `Debug`")]
    evidence: String,
    /// It names somebody, and does not only say what happened.
    guilty: bool,
}

impl Named {
    fn is(&self, code: &str, place: &str, says: &str) -> bool {
        (code.is_empty() || self.code == code) && self.place.contains(place) && self.says.contains(says)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// How watching ended, and what there was no record of.
fn end(code: Option<i32>, seen: &Value) -> String {
    let summary = &seen["summary"];
    let [lost, throttled, packets, took] = ["lost", "throttled", "packets", "took_ns"].map(|name| &summary[name]);
    let sentence = text(&summary["sentence"]);
    format!("exit {code:?}: {sentence}; {packets} packets in {took} ns, {lost} lost, {throttled} left out")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[][..], Vec::as_slice)
}

/// Everything and everybody that is blamed.
fn named(seen: &Value) -> Vec<Named> {
    let summary = &seen["summary"];
    let deaths = list(&summary["deaths"]).iter().map(|deaths| &deaths["blame"]).map(|blame| Named {
        code: text(&blame["code"]),
        place: text(&blame["place"]),
        says: format!("{} | {}", text(&blame["sentence"]), text(&blame["guilty"])),
        evidence: text(&blame["evidence"]),
        guilty: blame["guilty"].is_string() || !list(&blame["rules"]).is_empty(),
    });
    let findings = list(&summary["findings"]).iter().map(|finding| Named {
        code: text(&finding["code"]),
        place: text(&finding["object"]),
        says: text(&finding["message"]),
        evidence: text(&finding["evidence"]),
        guilty: finding["severity"] == "error",
    });
    deaths.chain(findings).collect()
}

impl<'l> Lane<'l> {
    pub(crate) fn of(lab: &'l Lab, host: &'static str, instance: &str) -> Self {
        Self { lab, host, instance: instance.to_owned(), options: Vec::new() }
    }

    /// The same with more options of netdiag's.
    pub(crate) fn with(self, options: &[&str]) -> Self {
        Self { options: options.iter().map(|option| (*option).to_owned()).collect(), ..self }
    }

    /// Makes, finds and mends one fault after the other.
    pub(crate) fn each(&self, faults: &[Fault<'_>]) -> Vec<Outcome> {
        faults.iter().map(|fault| self.one(fault)).collect()
    }

    fn one(&self, fault: &Fault<'_>) -> Outcome {
        let (at, began) = (fault.at.unwrap_or(self.host), Instant::now());
        let made = self.lab.sh(at, &fault.make);
        let (code, seen) = self.follow(&fault.traffic, &["--until-drop", "--duration", fault.patience]);
        let mended = self.lab.sh(at, &fault.mend);
        for step in [made, mended] {
            assert_eq!(step.code, Some(0), "{}: {step:#?}", fault.name);
        }
        let named = named(&seen);
        let is_it = |one: &&Named| one.is(fault.code, &fault.place, &fault.says);
        let is_true = |one: &Named| is_it(&one) || fault.also.iter().any(|words| one.is("", "", words));
        let wrong: Vec<String> =
            named.iter().filter(|one| one.guilty && !is_true(one)).map(|one| format!("{one:?}")).collect();
        let mut said: Vec<String> = named.iter().map(|one| format!("{one:?}")).collect();
        said.push(end(code, &seen));
        let found = named.iter().any(|one| is_it(&one));
        Outcome { name: fault.name, healthy: false, found, wrong, took: began.elapsed(), said }
    }

    /// Without a fault nothing is found.
    pub(crate) fn healthy(&self, name: &'static str, traffic: &Traffic<'_>) -> Outcome {
        let began = Instant::now();
        let (code, seen) = self.follow(traffic, &["--count", "8", "--duration", "15s"]);
        let wrong: Vec<String> = named(&seen).iter().map(|one| format!("{one:?}")).collect();
        let said = vec![end(code, &seen)];
        let found = code == Some(0) && wrong.is_empty();
        Outcome { name, healthy: true, found, wrong, took: began.elapsed(), said }
    }

    /// Follows the packets of the instance: its exit code and its answer. What ends by itself needs no bounds.
    fn follow(&self, traffic: &Traffic<'_>, bounds: &[&str]) -> (Option<i32>, Value) {
        // On a busy machine Docker takes its time.
        let mut words = vec!["trace", &self.instance, "--live", "-o", "json", "--timeout", "30"];
        words.extend(self.options.iter().map(String::as_str));
        match traffic {
            Traffic::Here(command) => self.netdiag(&[&words[..], &["--cmd", command]].concat()),
            Traffic::From(host, command) => {
                self.while_sending(&[&words[..], bounds].concat(), |stop| self.repeat(host, command, stop))
            }
            Traffic::Ours(send) => self.while_sending(&[&words[..], bounds].concat(), |stop| {
                while !stop.load(Ordering::Acquire) {
                    send();
                    thread::sleep(Duration::from_millis(200));
                }
            }),
        }
    }

    fn netdiag(&self, words: &[&str]) -> (Option<i32>, Value) {
        let said = self.lab.netdiag(self.host, words);
        assert!(said.code.is_some(), "ended by a signal: {said:#?}");
        let seen = serde_json::from_str(&said.out);
        (said.code, seen.unwrap_or_else(|_| json!({ "summary": { "sentence": said.err } })))
    }

    /// Follows while somebody sends.
    fn while_sending(&self, words: &[&str], send: impl FnOnce(&AtomicBool) + Send) -> (Option<i32>, Value) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let sender = scope.spawn(|| send(&stop));
            let seen = self.netdiag(words);
            stop.store(true, Ordering::Release);
            sender.join().unwrap();
            seen
        })
    }

    /// Repeats a command on a host.
    fn repeat(&self, host: &str, command: &str, stop: &AtomicBool) {
        static LOOPS: AtomicU32 = AtomicU32::new(0);
        let file = format!("/run/stop-{}", LOOPS.fetch_add(1, Ordering::Relaxed));
        let line = format!("while [ ! -e {file} ]; do {command}; sleep 0.2; done >/dev/null 2>&1; rm -f {file}");
        thread::scope(|scope| {
            let sending = scope.spawn(|| self.lab.sh(host, &line));
            while !stop.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(20));
            }
            self.lab.sh(host, &format!("touch {file}")).ok();
            sending.join().unwrap();
        });
    }
}
