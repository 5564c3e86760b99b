//! The pod's network, as far as a port on its loopback addresses depends on it.

use serde::Deserialize;
use tokenscope_core::bounds::MOST_CONTAINERS;
use tokenscope_core::pod::{BoundedList, Text, is_added_container};
use tokenscope_core::text::up_to;

use super::context::Context;
use super::review_spec;

/// The most ports of a container that are looked at. What a container declares binds it to nothing, so one behind them is not worth a
/// refusal: that the port is taken, the sidecar says itself.
const MOST_PORTS: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct NetworkSpec<'a> {
    #[serde(default)]
    host_network: Option<bool>,
    #[serde(default = "Option::default")]
    init_containers: Option<BoundedList<ReadContainer<'a>, MOST_CONTAINERS>>,
    #[serde(default = "Option::default")]
    containers: Option<BoundedList<ReadContainer<'a>, MOST_CONTAINERS>>,
}

#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct ReadContainer<'a> {
    name: Text<'a>,
    #[serde(default = "Option::default")]
    ports: Option<BoundedList<ReadPort<'a>, MOST_PORTS>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct ReadPort<'a> {
    #[serde(default)]
    container_port: i64,
    #[serde(default = "Option::default")]
    protocol: Option<Text<'a>>,
}

/// The reasons why the sidecar can't have its port in this pod, a sentence each.
pub(super) fn obstacles(context: &Context<'_>) -> Vec<String> {
    let port = context.settings.sidecar.endpoint_port;
    // The pod was read from this text, so what can't be read here has a port or a network of no known form.
    let Ok(spec) = review_spec::read::<NetworkSpec<'_>>(context.text) else {
        return vec![
            "the pod's hostNetwork or ports can't be read: give it a role by a policy with delivery.type File"
                .to_owned(),
        ];
    };
    let mut obstacles = Vec::new();
    if spec.host_network == Some(true) {
        obstacles.push(format!(
            "the pod has hostNetwork: true, so port {port}, where its sidecar would serve credentials, is the node's, and other pods could ask there: give it a role by a policy with delivery.type File or Profile, or remove hostNetwork"
        ));
    }
    let containers = spec.init_containers.iter().chain(&spec.containers).flatten();
    let mut others = containers.filter(|container| !is_added_container(&container.name));
    let is_ours = |found: &ReadPort<'_>| {
        let is_tcp = found.protocol.as_ref().is_none_or(|protocol| **protocol == *"TCP");
        found.container_port == i64::from(port) && is_tcp
    };
    if let Some(container) = others.find(|container| container.ports.iter().flatten().any(is_ours)) {
        obstacles.push(format!(
            "container {} declares port {port}, where the pod's sidecar serves credentials: let it use another port, or have the chart's value sidecar.endpoint.port changed",
            up_to(&container.name, 63)
        ));
    }
    obstacles
}
