//! Which CSI drivers the kubelet gives service account tokens for, and of which audiences.
//!
//! A driver whose `CSIDriver` object has `spec.tokenRequests` gets such tokens for every pod that mounts a volume of it
//! (storage.k8s.io/v1, CSIDriverSpec), so an inline volume of that driver counts as one that holds them.

use k8s_openapi::api::storage::v1::CSIDriver;
use kube::runtime::watcher::Event;
use std::collections::BTreeMap;
use tokenscope_core::{HeldToken, Lock, TokenVolume};

/// How many drivers are kept. A cluster has a handful, and only its administrators make them.
const MOST_DRIVERS: usize = 256;
/// How many tokens of one driver are kept.
const MOST_TOKENS: usize = 32;

/// The drivers that get tokens.
#[derive(Debug, Default)]
pub(crate) struct CsiDrivers {
    by_name: BTreeMap<Box<str>, Box<[RequestedToken]>>,
    /// What the list that runs, if one does, has named so far.
    listed: Option<BTreeMap<Box<str>, Box<[RequestedToken]>>>,
}

/// A token that a driver gets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RequestedToken {
    audience: Box<str>,
    expiration_seconds: Option<i64>,
}

impl CsiDrivers {
    /// Takes in what a watch tells; answers whether other pods may hold tokens now.
    pub(crate) fn apply(&mut self, event: Event<CSIDriver>) -> bool {
        match event {
            Event::Init => {
                self.listed = Some(BTreeMap::new());
                false
            }
            Event::InitApply(driver) => {
                keep(self.listed.get_or_insert_default(), driver);
                false
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let changes = listed != self.by_name;
                self.by_name = listed;
                changes
            }
            Event::Apply(driver) => keep(&mut self.by_name, driver),
            Event::Delete(driver) => {
                let name = driver.metadata.name.unwrap_or_default();
                self.by_name.remove(name.as_str()).is_some()
            }
        }
    }

    /// Says of each inline CSI volume which tokens its driver gets, and leaves out those that hold none.
    pub(crate) fn fill<'a>(&'a self, volumes: &mut Vec<TokenVolume<'a>>) {
        for volume in volumes.iter_mut() {
            let tokens = volume.csi_driver.and_then(|driver| self.by_name.get(driver));
            let held = tokens.into_iter().flatten().map(|token| HeldToken {
                audience: Some(&*token.audience).filter(|audience| !audience.is_empty()),
                expiration_seconds: token.expiration_seconds,
            });
            volume.tokens.extend(held);
        }
        volumes.retain(|volume| !volume.tokens.is_empty());
    }

    /// The drivers that get a token of an audience that is locked everywhere, by name.
    pub(crate) fn with_locked_tokens<'a>(&'a self, lock: &'a Lock) -> impl Iterator<Item = &'a str> {
        let is_locked = |tokens: &[RequestedToken]| tokens.iter().any(|token| lock.locks(&token.audience));
        let drivers = self.by_name.iter();
        drivers
            .filter(move |(_, tokens)| is_locked(tokens))
            .map(|(name, _)| &**name)
    }
}

/// Answers whether anything changed.
fn keep(drivers: &mut BTreeMap<Box<str>, Box<[RequestedToken]>>, driver: CSIDriver) -> bool {
    let name: Box<str> = driver.metadata.name.unwrap_or_default().into();
    let requests = driver.spec.token_requests.into_iter().flatten().take(MOST_TOKENS);
    let tokens: Box<[RequestedToken]> = requests
        .map(|request| RequestedToken {
            audience: request.audience.into(),
            expiration_seconds: request.expiration_seconds,
        })
        .collect();
    if tokens.is_empty() {
        return drivers.remove(&name).is_some();
    }
    if drivers.len() >= MOST_DRIVERS && !drivers.contains_key(&name) {
        return false;
    }
    let before = drivers.insert(name, tokens.clone());
    before.is_none_or(|before| before != tokens)
}
