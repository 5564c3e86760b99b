//! The values that were given, by flag or variable, and how each is read.

use std::str::FromStr;

use tokenscope_core::sidecar::variables::INJECTED;
use tokenscope_core::sidecar::{JWT_BUNDLE_FILE, X509_BUNDLE_FILE, X509_KEY_FILE, X509_SVID_FILE};

use super::options::OptionSpec;
use super::{ConfigError, TokenFile};

/// The longest file name, in bytes; what is put around it while it is written has room beside it.
const LONGEST_NAME: usize = 200;

/// The flags and the environment.
pub(super) struct Given<E> {
    /// The flags and their values, in their order.
    pub(super) given: Vec<(&'static str, String)>,
    pub(super) environment: E,
}

impl<E: Fn(&str) -> Option<String>> Given<E> {
    /// An option's value, and where it stands.
    pub(super) fn text(&self, option: &OptionSpec) -> Option<(String, String)> {
        let flag = self.given.iter().find(|(flag, _)| *flag == option.flag);
        if let Some((flag, value)) = flag {
            return Some((format!("--{flag}"), value.clone()));
        }
        let value = (self.environment)(option.variable).filter(|value| !value.is_empty());
        value.map(|value| (option.variable.to_owned(), value))
    }

    pub(super) fn parsed<T>(
        &self,
        option: &OptionSpec,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((source_name, value)) = self.text(option) else {
            return Ok(None);
        };
        parse(&value)
            .map(Some)
            .map_err(|why| ConfigError::Value { source_name, why })
    }

    pub(super) fn switch(&self, option: &OptionSpec) -> Result<bool, ConfigError> {
        match self.text(option) {
            None => Ok(false),
            Some((_, value)) if value == "true" => Ok(true),
            Some((_, value)) if value == "false" => Ok(false),
            Some((source_name, value)) => Err(ConfigError::NoSwitch(source_name, value)),
        }
    }

    /// The first of some options that is given, where it stands. A switch that is off says nothing.
    pub(super) fn first_of(&self, options: &[&OptionSpec]) -> Option<String> {
        let mut given = options.iter().filter_map(|option| self.text(option));
        given
            .find(|(_, value)| value != "false")
            .map(|(source_name, _)| source_name)
    }

    /// The token files that an option lists.
    pub(super) fn files(&self, option: &OptionSpec) -> Result<Vec<TokenFile>, ConfigError> {
        let flags = self.given.iter().filter(|(flag, _)| *flag == option.flag);
        let flags: Vec<&str> = flags.map(|(_, value)| value.as_str()).collect();
        let variable = (self.environment)(option.variable).unwrap_or_default();
        let (source_name, values) = if flags.is_empty() {
            (option.variable.to_owned(), variable.split_ascii_whitespace().collect())
        } else {
            (format!("--{}", option.flag), flags)
        };
        let mut files: Vec<TokenFile> = Vec::new();
        for value in values {
            let file = token_file(value).and_then(|file| {
                let twice = files.iter().any(|other| other.name == file.name);
                if twice {
                    Err(format!("the file {} is named twice", file.name))
                } else {
                    Ok(file)
                }
            });
            files.push(file.map_err(|why| ConfigError::Value {
                source_name: source_name.clone(),
                why,
            })?);
        }
        Ok(files)
    }
}

/// True if the webhook wrote the environment.
pub(super) fn injected(environment: impl Fn(&str) -> Option<String>) -> Result<bool, ConfigError> {
    match environment(INJECTED).as_deref() {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(ConfigError::NoSwitch(INJECTED.to_owned(), other.to_owned())),
    }
}

fn token_file(text: &str) -> Result<TokenFile, String> {
    let (name, audience) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} should be FILE=AUDIENCE, such as token=sts.amazonaws.com"))?;
    let reserved = [X509_SVID_FILE, X509_KEY_FILE, X509_BUNDLE_FILE, JWT_BUNDLE_FILE];
    let byte_is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_plain = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(byte_is_plain);
    // An absolute path is one of plain names.
    if name.len() > LONGEST_NAME
        || !name.strip_prefix('/').unwrap_or(name).split('/').all(is_plain)
        || name.find('/') > Some(0)
    {
        return Err(format!(
            "{name:?} should be a plain file name: at most {LONGEST_NAME} letters, digits, dots, hyphens and underscores, and no dot first; or an absolute path of such names"
        ));
    }
    if name.rsplit('/').next().is_some_and(|file| reserved.contains(&file)) {
        return Err(format!("{name} is the name of another file that the sidecar writes"));
    }
    let audience = from_str(audience)?;
    Ok(TokenFile {
        name: name.to_owned(),
        audience,
    })
}

pub(super) fn from_str<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
