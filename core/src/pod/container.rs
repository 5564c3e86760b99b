//! Containers, their variables and their mounts.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::added_names::is_added_container;
use super::list::{BoundedList, PassedOver};
use super::text::Text;
use super::windows::SecurityContext;
use crate::bounds::{MOST_ARGUMENTS, MOST_MOUNTS};
use crate::credentials_endpoint::{AUTHORIZATION_FILE_VARIABLE, ENDPOINT_VARIABLE, FULL_URI_VARIABLE};
use crate::sidecar::variables;

/// The variables that decisions and edits look at: those that SDKs of AWS read, and those of our sidecar.
pub const VARIABLES: [&str; 27] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    AUTHORIZATION_FILE_VARIABLE,
    FULL_URI_VARIABLE,
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    variables::SOCKET,
    variables::DIRECTORY,
    ENDPOINT_VARIABLE,
    variables::HINT,
    variables::ISSUER_CA,
    variables::JWT_BUNDLE,
    variables::JWT_SVIDS,
    variables::LOG_LEVEL,
    variables::SPIFFE_ID,
    variables::TRUST_DOMAIN,
    variables::X509_SVID,
];

/// What is read of a container behind the bound of a list: whether its name is one of ours.
#[derive(Clone, Copy, Debug)]
pub struct PassedOverContainer {
    has_added_name: bool,
}

impl PassedOver for PassedOverContainer {
    fn is_told(&self) -> bool {
        self.has_added_name
    }
}

impl<'de> Deserialize<'de> for PassedOverContainer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(bound(deserialize = "'de: 'a"))]
        struct Named<'a> {
            name: Text<'a>,
        }
        let Named { name } = Named::deserialize(deserializer)?;
        Ok(Self {
            has_added_name: is_added_container(&name),
        })
    }
}

/// A container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Container<S> {
    /// Its name.
    pub name: S,
    /// Its environment.
    #[serde(default = "Option::default")]
    pub env: Option<ContainerEnvironment<S>>,
    /// The sources of more of its environment.
    #[serde(default = "Option::default")]
    pub env_from: Option<Vec<IgnoredAny>>,
    /// Its volume mounts.
    #[serde(default = "Option::default")]
    pub volume_mounts: Option<BoundedList<VolumeMount<S>, MOST_MOUNTS>>,
    /// Its image.
    #[serde(default = "Option::default")]
    pub image: Option<S>,
    /// Its arguments.
    #[serde(default = "Option::default")]
    pub args: Option<BoundedList<S, MOST_ARGUMENTS>>,
    /// The items of its command, of which nothing but their number is kept.
    #[serde(default = "Option::default")]
    pub command: Option<Vec<IgnoredAny>>,
    /// `Always` makes an init container a native sidecar.
    #[serde(default = "Option::default")]
    pub restart_policy: Option<S>,
    /// Its security context.
    #[serde(default)]
    pub(super) security_context: Option<SecurityContext>,
}

impl<S> Container<S> {
    /// The variables of its environment that are among [`VARIABLES`], the empty ones too. Of several with one name the last
    /// counts, as it does for the kubelet.
    pub fn variables(&self) -> &[EnvVar<S>] {
        self.env.as_ref().map_or(&[], |env| &env.kept)
    }
}

impl<S: AsRef<str>> Container<S> {
    /// One of [`Self::variables`], unless it is empty: an SDK takes an empty variable for one that is not there.
    pub fn variable(&self, name: &str) -> Option<&EnvVar<S>> {
        let variable = self.variables().iter().find(|variable| variable.name == name);
        variable.filter(|variable| !variable.is_empty())
    }
}

/// The environment of a container: the last variable of each of the names in [`VARIABLES`].
#[derive(Clone, Debug)]
pub struct ContainerEnvironment<S> {
    kept: Vec<EnvVar<S>>,
    count: usize,
}

impl<S> ContainerEnvironment<S> {
    /// The number of variables in the list, whatever their names.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// An environment variable.
#[derive(Clone, Debug)]
pub struct EnvVar<S> {
    /// Its name.
    pub name: &'static str,
    /// Its index in the container's list.
    pub index: usize,
    /// Its value, where it is written out.
    pub value: Option<S>,
    /// The source of its value, where it isn't.
    pub value_from: Option<ValueFrom<S>>,
}

impl<S: AsRef<str>> EnvVar<S> {
    /// True if it has neither a value nor a source of one.
    pub fn is_empty(&self) -> bool {
        self.value_from.is_none() && self.value.as_ref().is_none_or(|value| value.as_ref().is_empty())
    }
}

/// The source of a variable's value.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct ValueFrom<S> {
    /// A field of the pod.
    #[serde(default = "Option::default")]
    pub field_ref: Option<FieldRef<S>>,
}

/// A field of the pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct FieldRef<S> {
    /// Its path.
    pub field_path: S,
}

/// A variable as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>, 'de: 'a"))]
struct WrittenVariable<'a, S> {
    name: Text<'a>,
    #[serde(default = "Option::default")]
    value: Option<S>,
    #[serde(default = "Option::default")]
    value_from: Option<ValueFrom<S>>,
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for ContainerEnvironment<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<S>(PhantomData<S>);
        impl<'de, S: Deserialize<'de>> Visitor<'de> for Read<S> {
            type Value = ContainerEnvironment<S>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let (mut kept, mut count) = (Vec::<EnvVar<S>>::new(), 0);
                while let Some(WrittenVariable {
                    name,
                    value,
                    value_from,
                }) = list.next_element::<WrittenVariable<'de, S>>()?
                {
                    let index = count;
                    count += 1;
                    let Some(&name) = VARIABLES.iter().find(|known| ***known == *name) else {
                        continue;
                    };
                    let variable = EnvVar {
                        name,
                        index,
                        value,
                        value_from,
                    };
                    match kept.iter_mut().find(|other| other.name == name) {
                        Some(earlier) => *earlier = variable,
                        None => kept.push(variable),
                    }
                }
                Ok(ContainerEnvironment { kept, count })
            }
        }
        deserializer.deserialize_seq(Read(PhantomData))
    }
}

/// A mount.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct VolumeMount<S> {
    /// The volume's name.
    pub name: S,
    /// The path at which it is mounted.
    pub mount_path: S,
    /// True if it can't be written.
    #[serde(default)]
    pub read_only: Option<bool>,
    /// The part of the volume that is mounted.
    #[serde(default)]
    pub sub_path: IsSet,
    /// The part of the volume that is mounted, with variables of the container in it.
    #[serde(default)]
    pub sub_path_expr: IsSet,
    /// The spreading of mounts below it.
    #[serde(default)]
    pub mount_propagation: IsSet,
    /// Set if mounts below it can't be written either.
    #[serde(default)]
    pub recursive_read_only: IsSet,
}

/// True if a text is there and not empty. The text itself is not kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct IsSet(bool);

impl IsSet {
    /// True if it is set.
    pub fn is_set(self) -> bool {
        self.0
    }
}

impl<'de> Deserialize<'de> for IsSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<Text<'de>>::deserialize(deserializer)?;
        Ok(Self(text.is_some_and(|text| !text.is_empty())))
    }
}
