//! The objects that made a pod.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// An object that made the pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct OwnerReference<S> {
    /// Group and version.
    pub api_version: S,
    /// Kind.
    pub kind: S,
    /// Name.
    pub name: S,
    /// UID.
    pub uid: S,
    /// True if it is the managing controller.
    #[serde(default)]
    pub controller: Option<bool>,
}

/// Of a list of owners the controller, or the first one where none is it.
#[derive(Clone, Debug)]
pub struct Owner<S>(Option<OwnerReference<S>>);

impl<S> Owner<S> {
    /// The controller, or the first owner where none is it.
    pub fn main(&self) -> Option<&OwnerReference<S>> {
        self.0.as_ref()
    }

    /// The controller, or the first owner where none is it.
    pub fn into_main(self) -> Option<OwnerReference<S>> {
        self.0
    }

    /// The managing controller.
    pub fn controller(&self) -> Option<&OwnerReference<S>> {
        self.main().filter(|owner| owner.controller == Some(true))
    }
}

impl<S> Default for Owner<S> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for Owner<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<S>(PhantomData<S>);
        impl<'de, S: Deserialize<'de>> Visitor<'de> for Read<S> {
            type Value = Owner<S>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut main: Option<OwnerReference<S>> = None;
                while let Some(owner) = list.next_element::<OwnerReference<S>>()? {
                    let is_controller = |owner: &OwnerReference<S>| owner.controller == Some(true);
                    if main
                        .as_ref()
                        .is_none_or(|main| !is_controller(main) && is_controller(&owner))
                    {
                        main = Some(owner);
                    }
                }
                Ok(Owner(main))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Owner(None))
            }
        }
        deserializer.deserialize_any(Read(PhantomData))
    }
}
