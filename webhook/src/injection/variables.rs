//! The variables of one container, put together: a variable of the container's own stays, and ours of the same name is left out.
//!
//! Their order is the caller's. Where the EKS webhook writes the same ones, it is that webhook's order.

use std::borrow::Cow;

use tokenscope_core::Region;
use tokenscope_core::pod::{Container, Text};

use super::context::Context;
use super::pieces::{
    DEFAULT_REGION, DesiredVariable, METADATA_DISABLED, REGION, STS_REGIONAL_ENDPOINTS, VARIABLES, VariableValue,
};

/// The variables that a container is to get.
#[derive(Debug)]
pub(super) struct ContainerVariables<'c, 'a> {
    container: &'c Container<Text<'a>>,
    context: &'c Context<'a>,
    desired: Vec<DesiredVariable<'a>>,
}

impl<'c, 'a> ContainerVariables<'c, 'a> {
    pub(super) fn of(container: &'c Container<Text<'a>>, context: &'c Context<'a>) -> Self {
        Self {
            container,
            context,
            desired: Vec::with_capacity(VARIABLES.len()),
        }
    }

    /// True if the container has a variable of this name that is not one of ours.
    pub(super) fn has_own(&self, name: &str) -> bool {
        self.context.own(self.container, name).is_some()
    }

    /// Adds a variable with this text, which the kubelet expands.
    pub(super) fn add(&mut self, name: &'a str, text: impl Into<Cow<'a, str>>) {
        self.add_value(name, VariableValue::Text(text.into()));
    }

    pub(super) fn add_value(&mut self, name: &'a str, value: VariableValue<'a>) {
        if !self.has_own(name) {
            self.desired.push(DesiredVariable { name, value });
        }
    }

    /// Has SDKs ask a region's STS, if that is wanted.
    pub(super) fn add_regional_endpoints(&mut self, wanted: bool) {
        if wanted {
            self.add(STS_REGIONAL_ENDPOINTS, "regional");
        }
    }

    /// Names the region by both variables. A container that has one of them keeps what it has.
    pub(super) fn add_region(&mut self, region: Option<&'a Region>) {
        if let Some(region) = region
            && !self.has_own(REGION)
            && !self.has_own(DEFAULT_REGION)
        {
            self.add(DEFAULT_REGION, region.as_str());
            self.add(REGION, region.as_str());
        }
    }

    /// Keeps SDKs from the role of the node, if that is wanted.
    pub(super) fn add_metadata_disabled(&mut self, wanted: bool) {
        if wanted {
            self.add(METADATA_DISABLED, "true");
        }
    }

    pub(super) fn into_desired(self) -> Vec<DesiredVariable<'a>> {
        self.desired
    }
}
