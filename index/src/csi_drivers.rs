//! The CSI drivers that the kubelet gives service account tokens for, and the audiences of these.
//!
//! A driver whose `CSIDriver` object has `spec.tokenRequests` gets such tokens for every pod that mounts a volume of it
//! (storage.k8s.io/v1, CSIDriverSpec), so an inline volume of that driver counts as one that holds them.
//!
//! No [`crate::Store`]: there is nothing to share out, and what a list that runs has named so far does not count yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::storage::v1::CSIDriver;
use kube::runtime::watcher::Event;
use tokenscope_core::lock::Lock;
use tokenscope_core::{HeldToken, TokenVolume};

/// The most drivers that are kept. A cluster has a handful, and only its administrators make them.
const MOST_DRIVERS: usize = 256;
/// The most tokens of one driver that are kept.
const MOST_TOKENS: usize = 32;

/// The drivers that get tokens, as a watch tells of them.
#[derive(Debug, Default)]
pub struct CsiDrivers {
    known: DriverTokens,
    /// The drivers that the running list has named so far, if a list runs.
    listed: Option<DriverTokens>,
    synced: bool,
}

/// The tokens that drivers get, by the driver's name; a driver that gets none is not in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DriverTokens(BTreeMap<Box<str>, Arc<[RequestedToken]>>);

/// A token that a driver gets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RequestedToken {
    audience: Box<str>,
    expiration_seconds: Option<i64>,
}

impl CsiDrivers {
    /// Takes in what a watch tells; answers whether other pods may hold tokens now.
    pub fn apply(&mut self, event: Event<CSIDriver>) -> bool {
        match event {
            Event::Init => {
                self.listed = Some(DriverTokens::default());
                false
            }
            Event::InitApply(driver) => {
                self.listed.get_or_insert_default().keep(driver);
                false
            }
            Event::InitDone => {
                self.synced = true;
                let listed = self.listed.take().unwrap_or_default();
                let changes = listed != self.known;
                self.known = listed;
                changes
            }
            Event::Apply(driver) => self.known.keep(driver),
            Event::Delete(driver) => {
                let name = driver.metadata.name.unwrap_or_default();
                self.known.0.remove(name.as_str()).is_some()
            }
        }
    }

    /// True if a list was whole once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The tokens of all drivers.
    pub fn tokens(&self) -> &DriverTokens {
        &self.known
    }

    /// The drivers that get a token of an audience that is locked everywhere, by name.
    pub fn with_locked_tokens<'a>(&'a self, lock: &'a Lock) -> impl Iterator<Item = &'a str> {
        let is_locked = |tokens: &[RequestedToken]| tokens.iter().any(|token| lock.locks(&token.audience));
        let drivers = self.known.0.iter();
        drivers
            .filter(move |(_, tokens)| is_locked(tokens))
            .map(|(name, _)| &**name)
    }
}

impl DriverTokens {
    /// Those of the drivers of these names.
    #[must_use]
    pub fn of<'n>(&self, names: impl Iterator<Item = &'n str>) -> Self {
        let found = names.filter_map(|name| self.0.get_key_value(name));
        Self(found.map(|(name, tokens)| (name.clone(), tokens.clone())).collect())
    }

    /// Says of each inline CSI volume which tokens its driver gets, and leaves out those that hold none.
    pub fn fill<'a>(&'a self, volumes: &mut Vec<TokenVolume<'a>>) {
        for volume in volumes.iter_mut() {
            let tokens = volume.csi_driver.and_then(|driver| self.0.get(driver));
            let tokens = tokens.into_iter().flat_map(|tokens| tokens.iter());
            volume.tokens.extend(tokens.map(|token| HeldToken {
                audience: Some(&*token.audience).filter(|audience| !audience.is_empty()),
                expiration_seconds: token.expiration_seconds,
            }));
        }
        volumes.retain(|volume| !volume.tokens.is_empty());
    }

    /// Answers whether anything changed.
    fn keep(&mut self, driver: CSIDriver) -> bool {
        let name: Box<str> = driver.metadata.name.unwrap_or_default().into();
        let requests = driver.spec.token_requests.into_iter().flatten().take(MOST_TOKENS);
        let tokens: Arc<[RequestedToken]> = requests
            .map(|request| RequestedToken {
                audience: request.audience.into(),
                expiration_seconds: request.expiration_seconds,
            })
            .collect();
        if tokens.is_empty() {
            return self.0.remove(&name).is_some();
        }
        if self.0.len() >= MOST_DRIVERS && !self.0.contains_key(&name) {
            return false;
        }
        let before = self.0.insert(name, tokens.clone());
        before.is_none_or(|before| before != tokens)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn driver(name: &str, audiences: &[&str]) -> CSIDriver {
        let requests: Vec<_> = audiences.iter().map(|audience| json!({"audience": audience})).collect();
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"tokenRequests": requests}})).unwrap()
    }

    fn names(drivers: &CsiDrivers) -> Vec<String> {
        let tokens = drivers.tokens().of(["a", "b", "c"].into_iter());
        tokens.0.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn only_drivers_that_get_tokens_are_known_and_a_new_list_replaces_the_old_one() {
        let mut drivers = CsiDrivers::default();
        drivers.apply(Event::Apply(driver("a", &["sts.amazonaws.com"])));
        drivers.apply(Event::Apply(driver("b", &[])));
        assert_eq!(names(&drivers), ["a"]);
        drivers.apply(Event::Init);
        drivers.apply(Event::InitApply(driver("c", &["vault"])));
        assert_eq!(names(&drivers), ["a"], "what was known stays known while a list runs");
        drivers.apply(Event::InitDone);
        assert_eq!(names(&drivers), ["c"]);
        drivers.apply(Event::Delete(driver("c", &["vault"])));
        assert!(names(&drivers).is_empty());
    }

    #[test]
    fn a_volume_of_a_driver_holds_the_tokens_that_the_driver_gets() {
        let mut drivers = CsiDrivers::default();
        drivers.apply(Event::Apply(driver("a", &["sts.amazonaws.com"])));
        let volume = |name, csi_driver| TokenVolume {
            name,
            csi_driver: Some(csi_driver),
            tokens: Vec::new(),
            containers: Vec::new(),
        };
        let mut volumes = vec![volume("one", "a"), volume("two", "b")];
        let tokens = drivers.tokens().of(["a", "b"].into_iter());
        tokens.fill(&mut volumes);
        assert_eq!(volumes.len(), 1);
        assert_eq!(volumes[0].tokens[0].audience, Some("sts.amazonaws.com"));
    }
}
