//! Flags and environment, read once and checked. Nothing else configures the sidecar.
//!
//! clap would add 194 kB to a program of 1.96 MB. lexopt would add 7 kB, and replace only the loop over arguments
//! (docs/adr/0010).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokenscope_core::Audience;

use crate::log::{self, Log};
use crate::selection::SvidSelection;

/// The files of an X.509-SVID.
pub const X509_FILES: X509Files = X509Files {
    certificate: "svid.pem",
    key: "svid_key.pem",
    bundle: "svid_bundle.pem",
};

/// The file with the keys that JWT-SVIDs are signed with.
pub const BUNDLE_FILE: &str = "jwt_bundle.json";

/// The names of the files of an X.509-SVID.
#[derive(Clone, Copy, Debug)]
pub struct X509Files {
    /// The certificate, and those of authorities between.
    pub certificate: &'static str,
    /// The private key.
    pub key: &'static str,
    /// The authorities of the trust domain.
    pub bundle: &'static str,
}

/// The longest file name, in bytes; what is put around it while it is written has room beside it.
const LONGEST_NAME: usize = 200;
/// The longest path of a UNIX domain socket, in bytes.
const LONGEST_SOCKET: usize = 107;

/// What the process is to do.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Keep the files fresh.
    Run(Config),
    /// Say whether they are.
    Ready(Config),
    /// The help, or the version.
    Print(String),
}

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the files are written.
    pub directory: PathBuf,
    /// The tokens.
    pub jwt_svids: Vec<JwtFile>,
    /// Of which identity.
    pub wanted: SvidSelection,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Whether an X.509-SVID is written, too.
    pub x509_svid: bool,
    /// Whether the keys that JWT-SVIDs are signed with are written, too.
    pub jwt_bundle: bool,
    /// Whether to end when all is written once.
    pub once: bool,
    /// Where to serve `/livez`, `/readyz` and `/metrics`.
    pub observe: Option<SocketAddr>,
    /// What to log.
    pub log: Log,
    /// Whether the webhook put the process into a pod: then nobody but the container's own start may run it.
    pub injected: bool,
}

/// A token and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtFile {
    /// The file's name in the directory, or its absolute path.
    pub name: String,
    /// Whom the token is for.
    pub audience: Audience,
}

impl Config {
    /// The names by which health is kept: one for each token, one for the X.509-SVID, one for the keys.
    pub fn kept(&self) -> Vec<String> {
        let tokens = self.jwt_svids.iter().map(|file| file.name.clone());
        let certificate = self.x509_svid.then(|| X509_FILES.certificate.to_owned());
        let bundle = self.jwt_bundle.then(|| BUNDLE_FILE.to_owned());
        tokens.chain(certificate).chain(bundle).collect()
    }

    /// The folders that files are written to, the directory first. What is not a token is written to each of them.
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.directory.clone()];
        for file in &self.jwt_svids {
            let path = self.directory.join(&file.name);
            if let Some(folder) = path
                .parent()
                .filter(|folder| folders.iter().all(|known| known != folder))
            {
                folders.push(folder.to_owned());
            }
        }
        folders
    }
}

/// A mistake in flags or environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Something that is no option and no command.
    #[error("{0:?} is no option: see tokenscope-sidecar --help")]
    Unknown(String),
    /// An option stands last and wants a value.
    #[error("--{0} needs a value")]
    NoValue(&'static str),
    /// A switch was given something else than true or false.
    #[error("{0} should be true or false, and is {1:?}")]
    NoSwitch(String, String),
    /// An option that takes one value was given two.
    #[error("--{0} is given twice")]
    Twice(&'static str),
    /// Something that must be given.
    #[error("{0}")]
    Missing(&'static str),
    /// An option where the webhook has said all.
    #[error("this sidecar was put into its pod by tokenscope and takes no options: {0:?} is not looked at")]
    Injected(String),
    /// A value that can't be read.
    #[error("{source_name}: {why}")]
    Value {
        /// The flag or the variable.
        source_name: String,
        /// What is wrong with which value, and what it should be.
        why: String,
    },
}

struct Option_ {
    flag: &'static str,
    variable: &'static str,
    value: Option<&'static str>,
    help: &'static str,
}

const fn option(flag: &'static str, variable: &'static str, value: &'static str, help: &'static str) -> Option_ {
    Option_ {
        flag,
        variable,
        value: Some(value),
        help,
    }
}

const fn switch(flag: &'static str, variable: &'static str, help: &'static str) -> Option_ {
    Option_ {
        flag,
        variable,
        value: None,
        help,
    }
}

const DIRECTORY: Option_ = option(
    "directory",
    "TOKENSCOPE_DIRECTORY",
    "PATH",
    "where the files are written; it must exist",
);
const JWT_SVID: Option_ = option(
    "jwt-svid",
    "TOKENSCOPE_JWT_SVIDS",
    "FILE=AUDIENCE",
    "keep a token for this audience in this file; may be repeated (in the variable: separated by spaces or lines)",
);
const SPIFFE_ID: Option_ = option(
    "spiffe-id",
    "TOKENSCOPE_SPIFFE_ID",
    "ID",
    "the identity with this SPIFFE ID, such as spiffe://example.org/app",
);
const HINT: Option_ = option("hint", "TOKENSCOPE_HINT", "HINT", "the identity with this hint");
const TRUST_DOMAIN: Option_ = option(
    "trust-domain",
    "TOKENSCOPE_TRUST_DOMAIN",
    "NAME",
    "an identity in this trust domain",
);
const SOCKET: Option_ = option(
    "socket",
    "SPIFFE_ENDPOINT_SOCKET",
    "unix:///PATH",
    "the SPIFFE Workload API's socket",
);
const X509_SVID: Option_ = switch(
    "x509-svid",
    "TOKENSCOPE_X509_SVID",
    "keep svid.pem, svid_key.pem and svid_bundle.pem, too",
);
const JWT_BUNDLE: Option_ = switch("jwt-bundle", "TOKENSCOPE_JWT_BUNDLE", "keep jwt_bundle.json, too");
const ONCE: Option_ = switch("once", "TOKENSCOPE_ONCE", "end when every file is written once");
const OBSERVE: Option_ = option(
    "observe",
    "TOKENSCOPE_OBSERVE",
    "ADDRESS",
    "serve /livez, /readyz and /metrics over HTTP, such as at 127.0.0.1:9102",
);
const LOG_LEVEL: Option_ = option(
    "log-level",
    "TOKENSCOPE_LOG_LEVEL",
    "LEVEL",
    "off, error, warn, info (the default) or debug",
);

const OPTIONS: [&Option_; 11] = [
    &DIRECTORY,
    &JWT_SVID,
    &SPIFFE_ID,
    &HINT,
    &TRUST_DOMAIN,
    &SOCKET,
    &X509_SVID,
    &JWT_BUNDLE,
    &ONCE,
    &OBSERVE,
    &LOG_LEVEL,
];

/// What the process is to do, by its arguments and its environment. An argument beats the variable; an empty variable is none.
pub fn invocation(
    arguments: impl IntoIterator<Item = String>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Invocation, ConfigError> {
    let mut ready = false;
    let mut given: Vec<(&'static str, String)> = Vec::new();
    let mut arguments = arguments.into_iter();
    let injected = injected(&environment)?;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "ready" if !ready => {
                ready = true;
                continue;
            }
            "-h" | "--help" => return Ok(Invocation::Print(help())),
            "-V" | "--version" => return Ok(Invocation::Print(env!("CARGO_PKG_VERSION").to_owned())),
            // Whoever may run commands in the container would have a token for any audience.
            _ if injected => return Err(ConfigError::Injected(argument)),
            _ => {}
        }
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let known = name
            .strip_prefix("--")
            .and_then(|name| OPTIONS.into_iter().find(|option| option.flag == name));
        let option = known.ok_or_else(|| ConfigError::Unknown(argument.clone()))?;
        let value = match (attached, option.value) {
            (Some(value), _) => value,
            (None, None) => "true".to_owned(),
            (None, Some(_)) => arguments.next().ok_or(ConfigError::NoValue(option.flag))?,
        };
        let repeatable = option.flag == JWT_SVID.flag;
        if !repeatable && given.iter().any(|(flag, _)| *flag == option.flag) {
            return Err(ConfigError::Twice(option.flag));
        }
        given.push((option.flag, value));
    }
    let config = Config {
        injected,
        ..config(&Given { given, environment })?
    };
    Ok(if ready {
        Invocation::Ready(config)
    } else {
        Invocation::Run(config)
    })
}

/// The variable by which the webhook says that it wrote the environment.
const INJECTED: &str = "TOKENSCOPE_INJECTED";

fn injected(environment: impl Fn(&str) -> Option<String>) -> Result<bool, ConfigError> {
    match environment(INJECTED).as_deref() {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(ConfigError::NoSwitch(INJECTED.to_owned(), other.to_owned())),
    }
}

/// Where values come from.
struct Given<E> {
    given: Vec<(&'static str, String)>,
    environment: E,
}

fn config<E: Fn(&str) -> Option<String>>(given: &Given<E>) -> Result<Config, ConfigError> {
    let directory = given.text(&DIRECTORY);
    let directory = directory
        .map(|(_, value)| PathBuf::from(value))
        .ok_or(ConfigError::Missing(
            "where should the files be written? Give --directory or TOKENSCOPE_DIRECTORY",
        ))?;
    let socket = given.parsed(&SOCKET, socket)?.ok_or(ConfigError::Missing(
        "where is the SPIFFE Workload API? Give --socket or SPIFFE_ENDPOINT_SOCKET, such as unix:///spiffe-workload-api/spire-agent.sock",
    ))?;
    let config = Config {
        directory,
        socket,
        jwt_svids: given.files()?,
        wanted: SvidSelection {
            spiffe_id: given.parsed(&SPIFFE_ID, from_str)?,
            hint: given.parsed(&HINT, from_str)?,
            trust_domain: given.parsed(&TRUST_DOMAIN, from_str)?,
        },
        x509_svid: given.switch(&X509_SVID)?,
        jwt_bundle: given.switch(&JWT_BUNDLE)?,
        once: given.switch(&ONCE)?,
        observe: given.parsed(&OBSERVE, observe)?,
        log: Log {
            level: given.parsed(&LOG_LEVEL, level)?.unwrap_or(log::Level::Info),
        },
        injected: false,
    };
    if config.kept().is_empty() {
        return Err(ConfigError::Missing(
            "what should be written? Give --jwt-svid token=sts.amazonaws.com or TOKENSCOPE_JWT_SVIDS, or --x509-svid, or --jwt-bundle",
        ));
    }
    Ok(config)
}

impl<E: Fn(&str) -> Option<String>> Given<E> {
    /// An option's value, and where it stands.
    fn text(&self, option: &Option_) -> Option<(String, String)> {
        let flag = self.given.iter().find(|(flag, _)| *flag == option.flag);
        if let Some((flag, value)) = flag {
            return Some((format!("--{flag}"), value.clone()));
        }
        let value = (self.environment)(option.variable).filter(|value| !value.is_empty());
        value.map(|value| (option.variable.to_owned(), value))
    }

    fn parsed<T>(&self, option: &Option_, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, ConfigError> {
        let Some((source_name, value)) = self.text(option) else {
            return Ok(None);
        };
        parse(&value)
            .map(Some)
            .map_err(|why| ConfigError::Value { source_name, why })
    }

    fn switch(&self, option: &Option_) -> Result<bool, ConfigError> {
        match self.text(option) {
            None => Ok(false),
            Some((_, value)) if value == "true" => Ok(true),
            Some((_, value)) if value == "false" => Ok(false),
            Some((source_name, value)) => Err(ConfigError::NoSwitch(source_name, value)),
        }
    }

    fn files(&self) -> Result<Vec<JwtFile>, ConfigError> {
        let flags = self.given.iter().filter(|(flag, _)| *flag == JWT_SVID.flag);
        let flags: Vec<&str> = flags.map(|(_, value)| value.as_str()).collect();
        let variable = (self.environment)(JWT_SVID.variable).unwrap_or_default();
        let (source_name, values) = if flags.is_empty() {
            (
                JWT_SVID.variable.to_owned(),
                variable.split_ascii_whitespace().collect(),
            )
        } else {
            (format!("--{}", JWT_SVID.flag), flags)
        };
        let mut files: Vec<JwtFile> = Vec::new();
        for value in values {
            let file = jwt_file(value).and_then(|file| {
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

fn jwt_file(text: &str) -> Result<JwtFile, String> {
    let (name, audience) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} should be FILE=AUDIENCE, such as token=sts.amazonaws.com"))?;
    let reserved = [X509_FILES.certificate, X509_FILES.key, X509_FILES.bundle, BUNDLE_FILE];
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
    Ok(JwtFile {
        name: name.to_owned(),
        audience,
    })
}

fn socket(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
    let path = path.filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| {
        format!("{text:?} should be unix:// and an absolute path; other ways to reach an agent are not supported")
    })?;
    if path.len() > LONGEST_SOCKET {
        return Err(format!(
            "{path} has {} bytes, and the path of a socket has at most {LONGEST_SOCKET}",
            path.len()
        ));
    }
    Ok(path.into())
}

fn observe(text: &str) -> Result<SocketAddr, String> {
    if cfg!(not(feature = "observe")) {
        return Err("this build has no HTTP server".to_owned());
    }
    text.parse()
        .map_err(|_| format!("{text:?} should be an address and a port, such as 127.0.0.1:9102"))
}

fn level(text: &str) -> Result<log::Level, String> {
    log::level(text).ok_or_else(|| format!("{text:?} should be off, error, warn, info or debug"))
}

fn from_str<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn help() -> String {
    let mut text = String::from(
        "Keeps SPIFFE tokens (JWT-SVIDs) fresh in files, for AWS_WEB_IDENTITY_TOKEN_FILE.\n\n\
         Usage: tokenscope-sidecar [OPTION…]          keep the files fresh until SIGTERM\n       \
         tokenscope-sidecar ready [OPTION…]    exit status 0 if every file is there and valid now\n\n\
         Options, each also an environment variable:\n",
    );
    for option in OPTIONS {
        let value = option.value.map(|value| format!(" {value}")).unwrap_or_default();
        let flag = format!("--{}{value}", option.flag);
        let _ = writeln!(text, "  {flag:<27} {:<25} {}", option.variable, option.help); // a String takes everything
    }
    text.push_str("  --help, --version");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVIRONMENT: [(&str, &str); 3] = [
        ("TOKENSCOPE_DIRECTORY", "/var/run/secrets/tokenscope.io/aws"),
        ("SPIFFE_ENDPOINT_SOCKET", "unix:///spiffe-workload-api/spire-agent.sock"),
        ("TOKENSCOPE_JWT_SVIDS", "token=sts.amazonaws.com"),
    ];

    fn read(arguments: &[&str], changed: &[(&str, &str)]) -> Result<Config, String> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let variable = |name: &str| {
            let all = changed.iter().chain(&ENVIRONMENT);
            all.into_iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        match invocation(arguments, variable) {
            Ok(Invocation::Run(config) | Invocation::Ready(config)) => Ok(config),
            Ok(Invocation::Print(text)) => Err(text),
            Err(mistake) => Err(mistake.to_string()),
        }
    }

    #[test]
    fn the_environment_that_is_injected_is_enough() {
        let config = read(&[], &[]).unwrap();

        assert_eq!(config.directory.to_str(), Some("/var/run/secrets/tokenscope.io/aws"));
        assert_eq!(config.socket.to_str(), Some("/spiffe-workload-api/spire-agent.sock"));
        assert_eq!(config.jwt_svids[0].name, "token");
        assert_eq!(config.jwt_svids[0].audience.as_str(), "sts.amazonaws.com");
        assert_eq!(config.wanted, SvidSelection::default());
        assert!(!config.once && !config.x509_svid && !config.jwt_bundle);
        assert_eq!(config.log.level, log::Level::Info);
    }

    #[test]
    fn an_audience_may_hold_an_equals_sign_and_files_may_be_several() {
        let variable = (
            "TOKENSCOPE_JWT_SVIDS",
            "token=https://a.example/?x=1\n token-2=b  token-3=c\n",
        );
        let config = read(&[], &[variable]).unwrap();
        let files: Vec<_> = config
            .jwt_svids
            .iter()
            .map(|file| (file.name.as_str(), file.audience.as_str()))
            .collect();

        assert_eq!(
            files,
            [("token", "https://a.example/?x=1"), ("token-2", "b"), ("token-3", "c")]
        );
        assert_eq!(config.kept(), ["token", "token-2", "token-3"]);
    }

    #[test]
    fn a_file_may_be_in_another_folder_by_its_absolute_path() {
        let config = read(
            &[],
            &[("TOKENSCOPE_JWT_SVIDS", "token=a /var/run/b/token=b /var/run/b/other=c")],
        )
        .unwrap();

        assert_eq!(config.kept(), ["token", "/var/run/b/token", "/var/run/b/other"]);
        let folders = config.folders();
        assert_eq!(folders.len(), 2);
        assert!(folders[0].ends_with("tokenscope.io/aws") && folders[1].ends_with("var/run/b"));
        for path in [
            "/var/../etc/token",
            "/",
            "//token",
            "a/token",
            "/a/.b/token",
            "/a/svid.pem",
        ] {
            assert!(
                read(&[], &[("TOKENSCOPE_JWT_SVIDS", &format!("{path}=a"))]).is_err(),
                "{path}"
            );
        }
    }

    #[test]
    fn a_sidecar_that_was_injected_takes_the_probe_and_no_options() {
        let injected = [("TOKENSCOPE_INJECTED", "true")];
        assert!(read(&[], &injected).unwrap().injected);
        assert!(read(&["ready"], &injected).unwrap().injected);
        for option in [
            "--once",
            "--jwt-svid=mine=other",
            "--directory=/mine",
            "--log-level=debug",
        ] {
            let mistake = read(&[option], &injected).unwrap_err();
            assert!(mistake.contains("takes no options"), "{mistake}");
        }
        assert!(read(&["ready", "--once"], &injected).is_err());
        assert!(!read(&["--once"], &[("TOKENSCOPE_INJECTED", "false")]).unwrap().injected);
        assert!(read(&[], &[("TOKENSCOPE_INJECTED", "yes")]).is_err());
    }

    #[test]
    fn a_flag_beats_the_variable() {
        let flags = [
            "ready",
            "--jwt-svid",
            "a=b",
            "--jwt-svid=c=d",
            "--hint=aws",
            "--x509-svid",
            "--once=false",
        ];
        let config = read(&flags, &[("TOKENSCOPE_ONCE", "true"), ("TOKENSCOPE_HINT", "web")]).unwrap();

        assert_eq!(config.kept(), ["a", "c", "svid.pem"]);
        assert_eq!(config.wanted.hint.unwrap().as_str(), "aws");
        assert!(!config.once);
    }

    #[test]
    fn each_mistake_names_its_place_the_value_and_what_it_should_be() {
        let mistake = |arguments: &[&str], variable: (&str, &str)| read(arguments, &[variable]).unwrap_err();
        let cases = [
            (mistake(&["--frob"], ("", "")), r#""--frob" is no option"#),
            (mistake(&["run"], ("", "")), r#""run" is no option"#),
            (mistake(&["--hint"], ("", "")), "--hint needs a value"),
            (mistake(&["--hint=a", "--hint=b"], ("", "")), "--hint is given twice"),
            (
                mistake(&[], ("TOKENSCOPE_DIRECTORY", "")),
                "Give --directory or TOKENSCOPE_DIRECTORY",
            ),
            (
                mistake(&[], ("SPIFFE_ENDPOINT_SOCKET", "")),
                "Give --socket or SPIFFE_ENDPOINT_SOCKET",
            ),
            (
                mistake(&[], ("SPIFFE_ENDPOINT_SOCKET", "tcp://127.0.0.1:80")),
                r#""tcp://127.0.0.1:80" should be unix:// and"#,
            ),
            (
                mistake(&[], ("SPIFFE_ENDPOINT_SOCKET", "unix://a/b")),
                r#""unix://a/b" should be unix:// and"#,
            ),
            (
                mistake(&["--socket", &format!("unix:///{}", "a".repeat(107))], ("", "")),
                "has 108 bytes",
            ),
            (mistake(&[], ("TOKENSCOPE_JWT_SVIDS", " ")), "what should be written?"),
            (
                mistake(&[], ("TOKENSCOPE_JWT_SVIDS", "token")),
                r#""token" should be FILE=AUDIENCE"#,
            ),
            (
                mistake(&[], ("TOKENSCOPE_JWT_SVIDS", "../token=a")),
                r#""../token" should be a plain file name"#,
            ),
            (
                mistake(&[], ("TOKENSCOPE_JWT_SVIDS", ".reason=a")),
                r#"".reason" should be a plain file name"#,
            ),
            (
                mistake(&[], ("TOKENSCOPE_JWT_SVIDS", "svid.pem=a")),
                "svid.pem is the name of another file",
            ),
            (
                mistake(&[], ("TOKENSCOPE_JWT_SVIDS", "token=")),
                r#"TOKENSCOPE_JWT_SVIDS: "" is not an audience"#,
            ),
            (
                mistake(&[], ("TOKENSCOPE_JWT_SVIDS", "t=a t=b")),
                "the file t is named twice",
            ),
            (
                mistake(&[], ("TOKENSCOPE_SPIFFE_ID", "example.org/a")),
                "TOKENSCOPE_SPIFFE_ID: ",
            ),
            (
                mistake(&[], ("TOKENSCOPE_TRUST_DOMAIN", "A")),
                "TOKENSCOPE_TRUST_DOMAIN: ",
            ),
            (
                mistake(&["--once=1"], ("", "")),
                r#"--once should be true or false, and is "1""#,
            ),
            (
                mistake(&[], ("TOKENSCOPE_X509_SVID", "yes")),
                r#"TOKENSCOPE_X509_SVID should be true or false, and is "yes""#,
            ),
            (
                mistake(&[], ("TOKENSCOPE_OBSERVE", "9102")),
                r#"TOKENSCOPE_OBSERVE: "9102" should be an address and a port"#,
            ),
            (
                mistake(&["--log-level=loud"], ("", "")),
                r#"--log-level: "loud" should be off, error"#,
            ),
        ];
        for (message, part) in cases {
            assert!(message.contains(part), "{message:?} has no {part:?}");
        }
    }

    #[test]
    fn the_help_names_every_option_and_variable() {
        let help = read(&["--help"], &[]).unwrap_err();
        for option in OPTIONS {
            assert!(
                help.contains(&format!("--{}", option.flag)) && help.contains(option.variable),
                "{help}"
            );
        }
    }
}
