//! The contents of a grant: the role, and everything that the policy and the pod's request say about it.

use std::borrow::Cow;

use super::candidates::Candidates;
use super::checks::RoleRequest;
use crate::annotation_request::AnnotationRequest;
use crate::claims::fits_session_name;
use crate::config_file::{ConfigFile, FileHop, FileProfile};
use crate::delivery::{Delivery, ProfileName, RoleHop};
use crate::{
    Grant, GrantedEndpoint, InstanceMetadata, MOST_SESSION_NAME, OutsideBoundary, Policy, Region, RoleArn, SessionName,
    Spiffe, Template, TokenClaims, TokenSource, Variable, Variables,
};

impl Candidates<'_> {
    /// The grant of a role by a policy.
    pub(super) fn grant_by(&self, policy: &Policy, wanted: &RoleRequest<'_>, asks: &AnnotationRequest<'_>) -> Grant {
        Grant {
            role: wanted.role.clone(),
            audience: asks
                .audience
                .clone()
                .or_else(|| policy.audiences.or_default(&self.settings.default_audience).cloned())
                .unwrap_or_else(|| self.settings.default_audience.clone()),
            source: policy.token.source,
            expiration: match policy.token.source {
                TokenSource::Spiffe => policy.token.expiration,
                TokenSource::ServiceAccount | TokenSource::Issuer => asks.expiration.unwrap_or(policy.token.expiration),
            },
            spiffe: policy.token.spiffe.clone(),
            claims: (policy.token.source == TokenSource::Issuer).then(|| TokenClaims::of(policy)),
            region: policy
                .aws
                .region
                .clone()
                .or_else(|| self.settings.default_region.clone()),
            sts_regional_endpoints: asks
                .sts_regional_endpoints
                .or(policy.aws.sts_regional_endpoints)
                .unwrap_or(self.settings.sts_regional_endpoints),
            disables_instance_metadata: match self.settings.instance_metadata {
                InstanceMetadata::AlwaysDisabled => true,
                InstanceMetadata::WithRegionDisabled => policy.aws.region.is_some(),
                InstanceMetadata::NeverDisabled => false,
            },
            session_name: policy
                .aws
                .role_session_name
                .as_ref()
                .and_then(|template| self.session_name(template)),
            config_file: self.config_file(policy, &wanted.role),
            endpoint: self.endpoint(policy),
            outbound: policy.outbound.clone(),
            policy: Some(policy.name.clone()),
        }
    }

    /// The config file for a container that was granted `role`, if the policy delivers by one.
    fn config_file(&self, policy: &Policy, role: &RoleArn) -> Option<ConfigFile> {
        let Delivery::Profile(named) = &policy.delivery else {
            return None;
        };
        // A policy without a region grants nothing by a file.
        let region = policy.aws.region.as_ref().or(self.settings.default_region.as_ref())?;
        let default = self.file_profile(policy, None, region, role, &policy.aws.role_chain);
        let further = named.iter().map(|named| {
            let first = named.role.as_ref().unwrap_or(role);
            self.file_profile(policy, Some(&named.name), &named.region, first, &named.chain)
        });
        Some(ConfigFile {
            profiles: std::iter::once(default).chain(further).collect(),
        })
    }

    /// The sessions that a sidecar takes, if the policy delivers by one.
    fn endpoint(&self, policy: &Policy) -> Option<GrantedEndpoint> {
        let Delivery::Endpoint(endpoint) = &policy.delivery else {
            return None;
        };
        let own = policy.aws.region.as_ref().or(self.settings.default_region.as_ref());
        let regions = if endpoint.regions.is_empty() {
            // A policy without any grants nothing by an endpoint.
            vec![own?.clone()]
        } else {
            endpoint.regions.clone()
        };
        Some(GrantedEndpoint {
            regions,
            chain: policy.aws.role_chain.iter().map(|hop| self.hop(policy, hop)).collect(),
            duration: endpoint.duration,
            policy: endpoint.policy.clone(),
            gives_tokens: endpoint.gives_tokens,
        })
    }

    fn hop(&self, policy: &Policy, hop: &RoleHop) -> FileHop {
        let name = hop.session_name.as_ref().or(policy.aws.role_session_name.as_ref());
        FileHop {
            role: hop.role.clone(),
            external_id: hop.external_id.clone(),
            session_name: name.and_then(|name| self.session_name(name)),
        }
    }

    fn file_profile(
        &self,
        policy: &Policy,
        name: Option<&ProfileName>,
        region: &Region,
        first: &RoleArn,
        chain: &[RoleHop],
    ) -> FileProfile {
        let own_name = policy.aws.role_session_name.as_ref();
        FileProfile {
            name: name.cloned(),
            region: region.clone(),
            first: FileHop {
                role: first.clone(),
                external_id: None,
                session_name: own_name.and_then(|name| self.session_name(name)),
            },
            chain: chain.iter().map(|hop| self.hop(policy, hop)).collect(),
        }
    }

    /// The grant of a pod that no policy is about, if every boundary of its namespace allows it.
    pub(super) fn grant_without_policy(
        &self,
        wanted: &RoleRequest<'_>,
        asks: &AnnotationRequest<'_>,
    ) -> Result<Grant, OutsideBoundary> {
        let grant = Grant {
            role: wanted.role.clone(),
            audience: asks
                .audience
                .clone()
                .unwrap_or_else(|| self.settings.default_audience.clone()),
            source: TokenSource::ServiceAccount,
            expiration: asks.expiration.unwrap_or(self.settings.default_token_expiration),
            spiffe: Spiffe::default(),
            claims: None,
            region: self.settings.default_region.clone(),
            sts_regional_endpoints: asks
                .sts_regional_endpoints
                .unwrap_or(self.settings.sts_regional_endpoints),
            disables_instance_metadata: self.settings.instance_metadata == InstanceMetadata::AlwaysDisabled,
            session_name: None,
            config_file: None,
            endpoint: None,
            outbound: [].into(),
            policy: None,
        };
        let outside = self.set.outside_without_policy(&grant, &self.request.namespace_labels);
        outside.map_or(Ok(grant), Err)
    }

    /// `None` where the name would not fit: STS refuses every call with such a name, so the SDK had better choose its own.
    fn session_name(&self, template: &Template) -> Option<SessionName> {
        if template.only_variable() == Some(&Variable::PodName) {
            return Some(SessionName::PodName);
        }
        let text = template.render(self).ok()?;
        fits_session_name(&text).then(|| SessionName::Text(text.into()))
    }

    /// The warning where that is so, of any session that the grant is for.
    pub(super) fn session_name_warning(&self, policy: &Policy, grant: &Grant) -> Option<String> {
        let own = policy
            .aws
            .role_session_name
            .as_ref()
            .map(|template| ("roleSessionName", template));
        let takes_hops = grant.config_file.is_some() || grant.endpoint.is_some();
        let hops = policy.hops().filter(|_| takes_hops);
        let of_hops = hops.filter_map(|hop| Some(("roleSessionName of a role chain", hop.session_name.as_ref()?)));
        let (field, template) = own
            .into_iter()
            .chain(of_hops)
            .find(|(_, name)| self.session_name(name).is_none())?;
        let what = match template.render(self) {
            Ok(text) if text.len() > MOST_SESSION_NAME || text.len() < 2 => format!("has {}", text.len()),
            Ok(_) => "has others than letters, digits and =,.@_-".into(),
            Err(_) => "names a label that is absent or too long".into(),
        };
        Some(format!(
            "AWS_ROLE_SESSION_NAME is left out: STS takes 2 to 64 characters, and {field} of {} {what} for this pod",
            policy.name
        ))
    }
}

impl Variables for Candidates<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let value = match variable {
            Variable::Namespace => Some(self.request.namespace),
            Variable::ServiceAccount => Some(self.request.service_account),
            Variable::NamespaceLabel(key) => self.request.namespace_labels.value(key),
            Variable::PodLabel(key) => self.request.pod.labels.value(key),
            // Not known before the pod is stored.
            Variable::PodName | Variable::PodUid => None,
        };
        // A longer one does not fit anyway, and a template may name it many times: labels are not checked yet at admission.
        value
            .filter(|value| value.len() <= MOST_SESSION_NAME)
            .map(Cow::Borrowed)
    }
}
