//! Which CSI drivers the kubelet gives service account tokens for, and of which audiences.
//!
//! A driver whose `CSIDriver` object has `spec.tokenRequests` gets such tokens for every pod that mounts a volume of it
//! (storage.k8s.io/v1, CSIDriverSpec), so an inline volume of that driver counts as one that holds them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::storage::v1::CSIDriver;
use kube::runtime::watcher::Event;
use tokenscope_core::{HeldToken, TokenVolume};

/// How many drivers are kept. A cluster has a handful, and only cluster administrators make them.
const MOST_DRIVERS: usize = 256;
/// How many tokens of one driver are kept.
const MOST_TOKENS: usize = 32;

/// The drivers that get tokens.
#[derive(Debug, Default)]
pub struct CsiDrivers(RwLock<Drivers>);

#[derive(Debug, Default)]
struct Drivers {
    by_name: HashMap<Box<str>, Arc<[RequestedToken]>>,
    /// What the list that runs, if one does, has named so far.
    listed: Option<HashMap<Box<str>, Arc<[RequestedToken]>>>,
}

/// A token that a driver gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedToken {
    audience: Box<str>,
    expiration_seconds: Option<i64>,
}

/// The tokens of drivers that a pod's inline volumes are of.
pub type DriverTokens = HashMap<Box<str>, Arc<[RequestedToken]>>;

impl CsiDrivers {
    /// Takes in what a watch tells.
    pub fn take_in(&self, event: Event<CSIDriver>) {
        let mut drivers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => drivers.listed = Some(HashMap::new()),
            Event::InitApply(driver) => keep(drivers.listed.get_or_insert_default(), driver),
            Event::InitDone => drivers.by_name = drivers.listed.take().unwrap_or_default(),
            Event::Apply(driver) => keep(&mut drivers.by_name, driver),
            Event::Delete(driver) => {
                drivers
                    .by_name
                    .remove(driver.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    /// The tokens of the drivers of these names, of which only those that get any are in the answer.
    pub fn tokens_of<'n>(&self, names: impl Iterator<Item = &'n str>) -> DriverTokens {
        let drivers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if drivers.by_name.is_empty() {
            return HashMap::new();
        }
        names
            .filter_map(|name| drivers.by_name.get_key_value(name))
            .map(|(name, tokens)| (name.clone(), tokens.clone()))
            .collect()
    }
}

fn keep(drivers: &mut HashMap<Box<str>, Arc<[RequestedToken]>>, driver: CSIDriver) {
    let name = driver.metadata.name.unwrap_or_default();
    let tokens: Arc<[RequestedToken]> = driver
        .spec
        .token_requests
        .into_iter()
        .flatten()
        .take(MOST_TOKENS)
        .map(|request| RequestedToken {
            audience: request.audience.into(),
            expiration_seconds: request.expiration_seconds,
        })
        .collect();
    if tokens.is_empty() {
        drivers.remove(name.as_str());
    } else if drivers.len() < MOST_DRIVERS || drivers.contains_key(name.as_str()) {
        drivers.insert(name.into(), tokens);
    }
}

/// Says of each inline CSI volume which tokens its driver gets, and leaves out those whose driver gets none.
pub fn fill<'a>(volumes: &mut Vec<TokenVolume<'a>>, drivers: &'a DriverTokens) {
    for volume in volumes.iter_mut() {
        let tokens = volume.csi_driver.and_then(|driver| drivers.get(driver));
        volume.tokens.extend(
            tokens
                .into_iter()
                .flat_map(|tokens| tokens.iter())
                .map(|token| HeldToken {
                    audience: Some(&*token.audience).filter(|audience| !audience.is_empty()),
                    expiration_seconds: token.expiration_seconds,
                }),
        );
    }
    volumes.retain(|volume| !volume.tokens.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn driver(name: &str, audiences: &[&str]) -> CSIDriver {
        let requests: Vec<_> = audiences.iter().map(|audience| json!({"audience": audience})).collect();
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"tokenRequests": requests}})).unwrap()
    }

    fn names(drivers: &CsiDrivers) -> Vec<String> {
        let tokens = drivers.tokens_of(["a", "b", "c"].into_iter());
        let mut names: Vec<String> = tokens.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn only_drivers_that_get_tokens_are_known_and_a_new_list_replaces_the_old_one() {
        let drivers = CsiDrivers::default();
        drivers.take_in(Event::Apply(driver("a", &["sts.amazonaws.com"])));
        drivers.take_in(Event::Apply(driver("b", &[])));
        assert_eq!(names(&drivers), ["a"]);
        drivers.take_in(Event::Init);
        drivers.take_in(Event::InitApply(driver("c", &["vault"])));
        assert_eq!(names(&drivers), ["a"], "what was known stays known while a list runs");
        drivers.take_in(Event::InitDone);
        assert_eq!(names(&drivers), ["c"]);
        drivers.take_in(Event::Delete(driver("c", &["vault"])));
        assert!(names(&drivers).is_empty());
    }

    #[test]
    fn a_volume_of_a_driver_holds_the_tokens_that_the_driver_gets() {
        let drivers = CsiDrivers::default();
        drivers.take_in(Event::Apply(driver("a", &["sts.amazonaws.com"])));
        let volume = |name, csi_driver| TokenVolume {
            name,
            csi_driver: Some(csi_driver),
            tokens: Vec::new(),
            containers: Vec::new(),
        };
        let mut volumes = vec![volume("one", "a"), volume("two", "b")];
        let tokens = drivers.tokens_of(["a", "b"].into_iter());
        fill(&mut volumes, &tokens);
        assert_eq!(volumes.len(), 1);
        assert_eq!(volumes[0].tokens[0].audience, Some("sts.amazonaws.com"));
    }
}
