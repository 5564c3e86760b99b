//! The values that are about the credentials that are served.

use std::path::PathBuf;
use std::sync::Arc;

use tokenscope_core::credentials_endpoint::AUTHORIZATION_FOLDERS as DEFAULT_FOLDERS;
use tokenscope_core::sidecar::variables::POD_NAME;

use super::ConfigError;
use super::given::Given;
use super::options::{AUTHORIZATION_FOLDERS, ENDPOINT, OBSERVE, OF_ISSUER, ONCE};
use crate::endpoint::settings::EndpointSettings;

/// The variable that the container runtime sets to the pod's name; at most 63 characters of it.
const HOST_NAME: &str = "HOSTNAME";

/// The settings of the endpoint, if anything is served.
pub(super) fn endpoint<E: Fn(&str) -> Option<String>>(
    given: &Given<E>,
) -> Result<Option<Arc<EndpointSettings>>, ConfigError> {
    let folders = given.text(&AUTHORIZATION_FOLDERS);
    let folders = folders.map_or_else(|| PathBuf::from(DEFAULT_FOLDERS), |(_, path)| path.into());
    let variable = |name: &str| (given.environment)(name).filter(|value| !value.is_empty());
    let pod_name = variable(POD_NAME).or_else(|| variable(HOST_NAME));
    let read = |text: &str| {
        let settings = EndpointSettings::read(text, folders.clone(), pod_name.as_deref())?;
        if settings.gives_tokens() && given.first_of(&OF_ISSUER).is_none() {
            return Err("tokens: only tokenscope's issuer gives tokens by audience, and none is configured".to_owned());
        }
        Ok(Arc::new(settings))
    };
    let endpoint = given.parsed(&ENDPOINT, read)?;
    if endpoint.is_some()
        && let Some(other) = given.first_of(&[&ONCE, &OBSERVE])
    {
        return Err(ConfigError::NotWithEndpoint(other));
    }
    Ok(endpoint)
}
