//! The Secrets that the kubelet pulls the sidecar's image with, in the pod's list of them.
//!
//! Only the pod's own namespace can hold them, and the webhook may read no Secret: whoever creates the pod is told which must be
//! there. One that is added stays, also where a later review takes the sidecar away: it grants nothing, and could be the user's.

use serde::Deserialize;
use tokenscope_core::pod::{BoundedList, Text};

use super::context::Context;
use super::desired::Desired;
use super::list::{DesiredItem, ListDifference, Order};
use super::review_spec;
use crate::patch::{Json, JsonObject, Patch, Pointer};

/// The most Secrets of a pod that are looked at. Of one behind them it is not known that it is there, and twice does no harm.
const MOST: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct PullSecretsSpec<'a> {
    #[serde(default = "Option::default")]
    image_pull_secrets: Option<BoundedList<PresentSecret<'a>, MOST>>,
}

/// An item of the pod's list.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct PresentSecret<'a> {
    #[serde(default)]
    name: Option<Text<'a>>,
}

/// A Secret that the list should have.
#[derive(Debug)]
struct WantedSecret<'a>(&'a str);

impl Json for WantedSecret<'_> {
    fn write(&self, text: &mut String) {
        JsonObject(&[("name", self.0)]).write(text);
    }
}

impl DesiredItem for WantedSecret<'_> {
    type Present = ();

    fn is_in_place_of(&self, (): &()) -> bool {
        false
    }

    fn is(&self, (): &()) -> bool {
        false
    }
}

/// Adds what is missing for the sidecar or the writer of config files, if the pod gets one, and says so.
pub(super) fn write(context: &Context<'_>, desired: &Desired<'_>, warnings: &mut Vec<String>, patch: &mut Patch) {
    let wanted = &context.settings.sidecar.pull_secrets;
    let runs_our_image = desired.sidecar.is_some() || desired.config_writer.is_some();
    if !runs_our_image || wanted.is_empty() {
        return;
    }
    // The pod was read from this text.
    let Ok(spec) = review_spec::read::<PullSecretsSpec<'_>>(context.text) else {
        return;
    };
    let present = spec.image_pull_secrets;
    let is_there = |name: &str| {
        let mut names = present.iter().flatten().filter_map(|secret| secret.name.as_ref());
        names.any(|present| **present == *name)
    };
    let missing: Vec<_> = wanted.iter().filter(|name| !is_there(name)).collect();
    if missing.is_empty() {
        return;
    }
    let names: Vec<&str> = missing.iter().map(|name| &***name).collect();
    warnings.push(format!(
        "the sidecar's image is pulled with imagePullSecrets {}: the namespace {} must have them, or the pod may wait for the image",
        names.join(", "),
        context.request.namespace
    ));
    let spec = Pointer::ROOT.member("spec");
    let list = ListDifference {
        path: spec.member("imagePullSecrets"),
        exists: present.is_some(),
        order: Order::Last,
    };
    let missing: Vec<_> = names.into_iter().map(WantedSecret).collect();
    list.write(&[], &missing, patch);
}
