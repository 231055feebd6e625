//! Floating IPs that netdiag serves by itself, the slow way: rules of its own in the host's namespace, bridge ports that give
//! back what is for who sent it, an address on the external device so that the kernel answers ARP, and announcements. Flow: policy.
//!
//! ```text
//! comes:  kept -> rules -> hairpin -> address -> connections of before removed -> announced
//! moves:  kept -> rules -> hairpin -> connections of before removed -> announced
//! goes:   address -> rules -> hairpin -> connections removed -> forgotten
//! ```
//!
//! What is served is kept in a file before it is: whoever starts next knows what is netdiag's, and takes nothing away that is not.
//! Every step is one that may have been done already.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Instant,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use self::rules::Rules;
use crate::{conntrack, policy_source::stored};

/// The address on the external device.
mod address;
/// Gratuitous ARP.
mod announce;
/// Bridge ports that give frames back.
mod hairpin;
/// Rules of netdiag's own.
mod rules;

/// Where it is kept what is served.
const FILE: &str = "floating.json";

/// A floating IP that is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Served {
    /// The address it stands for.
    pub(crate) fixed: Ipv4Addr,
    /// The host's device on the external network.
    pub(crate) device: String,
    /// The network of the instance, as the host routes it: who is on it reaches the floating IP by the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Ipv4Net>,
    /// The bridge port of the instance whose hairpin mode is netdiag's to switch on and off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hairpin: Option<String>,
}

/// Floating IPs by address.
pub(crate) type Wanted = BTreeMap<Ipv4Addr, Served>;

/// Why a floating IP is not served, or not taken away.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// It cannot be kept for the next start, so it is not served.
    #[error("keep what is served in {}", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The rules could not be written, read or removed.
    #[error(transparent)]
    Rules(#[from] rules::RulesError),
    /// The host has the address already, and not from netdiag.
    #[error("serve {floating} at {device}: it is an address of {holder} already, and not from netdiag")]
    Foreign {
        /// The floating IP.
        floating: Ipv4Addr,
        /// Where it should be.
        device: String,
        /// Who has it.
        holder: String,
    },
    /// The kernel refused.
    #[error("{step} {floating} at {device}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// The floating IP.
        floating: Ipv4Addr,
        /// The external device.
        device: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl OwnError {
    /// Which floating IP it is about, where it is about one.
    pub(crate) const fn floating(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Foreign { floating, .. } | Self::Kernel { floating, .. } => Some(*floating),
            Self::Keep { .. } | Self::Rules(_) => None,
        }
    }

    fn kernel(step: &'static str, floating: Ipv4Addr, served: &Served) -> impl FnOnce(io::Error) -> Self {
        let device = served.device.clone();
        move |source| Self::Kernel { step, floating, device, source }
    }
}

/// What is served.
#[derive(Debug)]
pub(crate) struct Own {
    file: PathBuf,
    served: Wanted,
    rules: Rules,
    announcers: BTreeMap<Ipv4Addr, AbortHandle>,
    /// What is not served any more, and since when.
    given_up: BTreeMap<Ipv4Addr, Instant>,
}

impl Own {
    /// What was served before, as it is kept below a directory.
    pub(crate) fn open(state: &Path) -> Self {
        let file = state.join(FILE);
        // Without what was kept, rules are found by their names, and addresses in those rules.
        let served = stored::read(&file).unwrap_or_default();
        Self { file, served, rules: Rules::default(), announcers: BTreeMap::new(), given_up: BTreeMap::new() }
    }

    /// What has been served at some time since then, or is.
    pub(crate) fn since(&mut self, then: Instant) -> BTreeSet<Ipv4Addr> {
        self.given_up.retain(|_, when| *when >= then);
        self.served.keys().chain(self.given_up.keys()).copied().collect()
    }

    /// Makes the host serve these and no others. All errors; what can be served is.
    pub(crate) fn serve(&mut self, wanted: &Wanted) -> Vec<OwnError> {
        if wanted.is_empty() && self.served.is_empty() {
            return Vec::new();
        }
        let mut errors = Vec::new();
        let wanted = self.possible(wanted, &mut errors);
        let mut all = self.served.clone();
        all.extend(wanted.clone());
        if let Err(error) = self.keep(&all) {
            errors.push(error);
            return errors;
        }
        let before = std::mem::replace(&mut self.served, all);
        let gone =
            before.iter().filter(|(floating, old)| wanted.get(floating).is_none_or(|new| new.device != old.device));
        errors.extend(gone.clone().filter_map(|(floating, old)| remove_address(*floating, old).err()));
        if let Err(error) = self.rules.set(&wanted) {
            errors.push(error.into());
            return errors;
        }
        errors.extend(give_back(&before, &wanted));
        let cut = before.iter().filter(|(floating, old)| wanted.get(floating).is_none_or(|new| new.fixed != old.fixed));
        for (floating, _) in cut {
            cut_connections(*floating);
        }
        for (floating, _) in gone {
            self.silence(*floating);
        }
        for (floating, new) in &wanted {
            let unchanged =
                before.get(floating).is_some_and(|old| (old.fixed, &old.device) == (new.fixed, &new.device));
            match address::add(*floating, &new.device) {
                Ok(false) if unchanged => {}
                Ok(added) => {
                    // Who has sent to it while nobody had it is tracked as translated to nobody, for as long as he goes on.
                    if added {
                        cut_connections(*floating);
                    }
                    self.announce(*floating, &new.device);
                }
                Err(error) => errors.push(OwnError::kernel("put", *floating, new)(error)),
            }
        }
        if errors.is_empty() {
            errors.extend(self.keep(&wanted).err());
            let gone = self.served.keys().filter(|floating| !wanted.contains_key(floating));
            self.given_up.extend(gone.map(|floating| (*floating, Instant::now())));
            self.served = wanted;
        }
        errors
    }

    /// Those that the host has not from somebody else.
    fn possible(&self, wanted: &Wanted, errors: &mut Vec<OwnError>) -> Wanted {
        let mut possible = wanted.clone();
        let held = match address::holders() {
            Ok(held) => held,
            Err(error) => {
                errors.extend(
                    wanted
                        .iter()
                        .next()
                        .map(|(floating, served)| OwnError::kernel("look who has", *floating, served)(error)),
                );
                return Wanted::new();
            }
        };
        possible.retain(|floating, served| match held.get(floating) {
            Some(holder) if !self.served.contains_key(floating) => {
                let (floating, device) = (*floating, served.device.clone());
                errors.push(OwnError::Foreign { floating, device, holder: holder.clone() });
                false
            }
            _ => true,
        });
        // A port that gives frames back already, and not by netdiag, is left alone for good.
        let ours: BTreeSet<&String> = self.served.values().filter_map(|served| served.hairpin.as_ref()).collect();
        for served in possible.values_mut() {
            served.hairpin.take_if(|port| !ours.contains(port) && hairpin::is_on(port).unwrap_or(true));
        }
        possible
    }

    fn keep(&self, served: &Wanted) -> Result<(), OwnError> {
        let keep = |source| OwnError::Keep { path: self.file.clone(), source };
        if stored::read::<Wanted>(&self.file).is_ok_and(|kept| kept == *served) {
            return Ok(());
        }
        stored::write(&self.file, served).map_err(keep)
    }

    fn announce(&mut self, floating: Ipv4Addr, device: &str) {
        self.silence(floating);
        self.announcers.insert(floating, announce::begin(floating, device));
    }

    fn silence(&mut self, floating: Ipv4Addr) {
        if let Some(announcer) = self.announcers.remove(&floating) {
            announcer.abort();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.announcers.values().for_each(AbortHandle::abort);
    }
}

/// Takes everything away that was served, as it is kept below a directory. All errors.
pub fn withdraw_all(state: &Path) -> Vec<OwnError> {
    let mut own = Own::open(state);
    let served = own.served.clone();
    let mut errors: Vec<_> =
        served.iter().filter_map(|(floating, served)| remove_address(*floating, served).err()).collect();
    if !served.is_empty() {
        errors.extend(own.rules.set(&Wanted::new()).err().map(OwnError::from));
        errors.extend(give_back(&served, &Wanted::new()));
        for floating in served.keys() {
            cut_connections(*floating);
        }
    }
    if errors.is_empty() {
        // A file that says nothing and one that is not there mean the same.
        drop(std::fs::remove_file(&own.file));
        own.served.clear();
    }
    errors
}

fn remove_address(floating: Ipv4Addr, served: &Served) -> Result<(), OwnError> {
    address::remove(floating, &served.device).map_err(OwnError::kernel("remove", floating, served))
}

/// Has the bridge ports of these floating IPs give frames back, and those of others before not any more. All errors.
fn give_back(before: &Wanted, wanted: &Wanted) -> Vec<OwnError> {
    let ports = |of: &Wanted| -> BTreeMap<String, Ipv4Addr> {
        of.iter().filter_map(|(floating, served)| Some((served.hairpin.clone()?, *floating))).collect()
    };
    let (old, new) = (ports(before), ports(wanted));
    let gone = old.iter().filter(|(port, _)| !new.contains_key(*port)).map(|port| (port, false));
    let failed = |((port, floating), on): ((&String, &Ipv4Addr), bool)| {
        let step = if on { "have its own questions given back to" } else { "have nothing given back any more to" };
        let (floating, device) = (*floating, port.clone());
        hairpin::set(port, on).err().map(|source| OwnError::Kernel { step, floating, device, source })
    };
    gone.chain(new.iter().map(|port| (port, true))).filter_map(failed).collect()
}

/// Forgets the connections of a floating IP, which would go on to be translated for whom it stood for.
fn cut_connections(floating: Ipv4Addr) {
    // Without connection tracking nothing is translated either.
    let Ok(entries) = conntrack::list() else { return };
    let of_it: Vec<_> = entries.into_iter().filter(|entry| entry.is_of(floating)).collect();
    drop(conntrack::remove(&of_it));
}
