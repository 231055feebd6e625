//! What is asked for: files and the API, together one policy. Flow: policy.
//!
//! Both are read as documents, and all documents together are one transaction: where one object has a mistake, the whole new
//! state is refused and the one before stays. The last good texts of the files are kept, so that it stays across a restart too.

use std::{io, path::PathBuf, sync::Arc};

use netdiag_model::policy::{
    convert,
    types::Policy,
    wire::{Document, Mistake},
};

use self::state::State;

/// Policy files.
pub(crate) mod file;
/// What the API was told.
pub(crate) mod state;
/// Files of the agent's own, written whole or not at all.
pub(crate) mod stored;

/// Name of the document with what the API was told.
const API: &str = "api";

/// Where policy is read from and kept.
#[derive(Clone, Debug)]
pub struct Places {
    /// Directory with policy files.
    pub files: PathBuf,
    /// Directory for what the agent must know after a restart.
    pub state: PathBuf,
}

/// What is asked for, and where it comes from.
#[derive(Debug)]
pub(crate) struct Store {
    places: Places,
    /// Files as they were when there was no mistake.
    good: Vec<Document>,
    /// What the API was told.
    api: Arc<State>,
    /// All of it together; none until there was one without a mistake.
    policy: Option<Arc<Policy>>,
    /// What is wrong with the files as they are now.
    mistakes: Vec<Mistake>,
}

/// Why a change by the API was not taken. Nothing has changed then.
#[derive(Debug)]
pub(crate) enum Refused {
    /// With it the policy would have mistakes.
    Mistakes(Vec<Mistake>),
    /// It could not be kept for the next start.
    NotKept(io::Error),
}

impl Store {
    /// What was kept, and the files as they are now.
    pub(crate) fn open(places: Places) -> Self {
        let mut store = Self { places, good: Vec::new(), api: Arc::default(), policy: None, mistakes: Vec::new() };
        match (store.kept_api(), store.kept_files()) {
            (Ok(api), Ok(good)) => {
                (store.api, store.good) = (Arc::new(api), good);
                // Mistakes in what was good once come from a change of what is accepted; the files as they are now decide.
                store.policy = Self::convert(&store.good, &store.api).ok().map(Arc::new);
                store.reload();
            }
            (api, good) => {
                let unread = [(state::FILE, api.err()), (file::GOOD, good.err())];
                let mistake = |(name, error): (&str, Option<io::Error>)| {
                    let path = store.places.state.join(name).display().to_string();
                    error.map(|error| file::mistake(path, format!("cannot be read: {error}")))
                };
                store.mistakes = unread.into_iter().filter_map(mistake).collect();
            }
        }
        store
    }

    /// Reads the files anew. True where the policy has changed.
    pub(crate) fn reload(&mut self) -> bool {
        let read = file::read(&self.places.files, !self.good.is_empty());
        let converted = read.and_then(|files| Ok((Self::convert(&files, &self.api)?, files)));
        let (policy, files) = match converted {
            Ok(converted) => converted,
            Err(mistakes) => {
                self.mistakes = mistakes;
                return false;
            }
        };
        self.mistakes.clear();
        if files != self.good {
            self.good = files;
            if let Err(error) = stored::write(&self.places.state.join(file::GOOD), &self.good) {
                let path = self.places.state.join(file::GOOD).display().to_string();
                self.mistakes.push(file::mistake(
                    path,
                    format!("cannot be written: {error}; a restart forgets the files as they are now"),
                ));
            }
        }
        self.replace(policy)
    }

    /// Changes what the API was told, all of it or nothing. True where the policy has changed.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut State)) -> Result<bool, Refused> {
        let mut api = State::clone(&self.api);
        change(&mut api);
        let policy = Self::convert(&self.good, &api).map_err(Refused::Mistakes)?;
        stored::write(&self.places.state.join(state::FILE), &api).map_err(Refused::NotKept)?;
        self.api = Arc::new(api);
        Ok(self.replace(policy))
    }

    /// What the API was told.
    pub(crate) const fn api(&self) -> &Arc<State> {
        &self.api
    }

    /// The last good policy.
    pub(crate) const fn policy(&self) -> Option<&Arc<Policy>> {
        self.policy.as_ref()
    }

    /// What is wrong with the files as they are now.
    pub(crate) fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// True where there is such an object, and not by the API.
    pub(crate) fn is_of_files(&self, kind: state::Kind, id: &str) -> bool {
        let Some(policy) = &self.policy else { return false };
        match kind {
            state::Kind::SecurityGroups => policy.groups.keys().any(|key| key.0 == id),
            state::Kind::AddressGroups => policy.address_groups.keys().any(|key| key.0 == id),
            state::Kind::Ports => policy.ports.keys().any(|key| key.0 == id),
            state::Kind::Members => policy.members.keys().any(|key| key.0 == id),
            state::Kind::Floatingips => policy.floating_ips.keys().any(|key| key.0 == id),
        }
    }

    /// Names of the files that are in force.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.good.iter().map(|file| file.name.as_str())
    }

    fn replace(&mut self, policy: Policy) -> bool {
        let changed = self.policy.as_deref() != Some(&policy);
        if changed {
            self.policy = Some(Arc::new(policy));
        }
        changed
    }

    fn convert(files: &[Document], api: &State) -> Result<Policy, Vec<Mistake>> {
        let api = Document { name: API.to_owned(), text: api.document().to_string() };
        let documents: Vec<_> = files.iter().cloned().chain([api]).collect();
        convert::policy(&documents)
    }

    fn kept_api(&self) -> io::Result<State> {
        stored::read(&self.places.state.join(state::FILE))
    }

    fn kept_files(&self) -> io::Result<Vec<Document>> {
        stored::read(&self.places.state.join(file::GOOD))
    }
}
