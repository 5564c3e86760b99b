//! The names of variables that a policy may write into the containers that it grants a role.
//!
//! Whoever may write policies is not always allowed to run code in the pods that they are about. So no name is taken by which a
//! loader, a shell, a language's runtime or a tool finds code, options, certificates or a proxy. A list of names can't be
//! complete: names that an application reads of its own are its author's to know (docs/threat-model.md).

use std::fmt;
use std::str::FromStr;

use crate::arn::shortened;

/// The most characters of a name.
pub const MOST_VARIABLE_NAME: usize = 64;

/// The beginnings of names that no policy may write.
pub const FORBIDDEN_PREFIXES: [&str; 74] = [
    "ANSIBLE_",
    "ASPNETCORE_",
    "AWS_",
    "BASH",
    "BUNDLE_",
    "BUN_",
    "CARGO_",
    "CLOUDSDK_PYTHON",
    "CORECLR_",
    "COR_",
    "CURL_",
    "DENO_",
    "DOCKER_",
    "DOTNET_",
    "DYLD_",
    "ELECTRON_",
    "ERL_",
    "GCONV_",
    "GDAL_",
    "GEM_",
    "GIO_",
    "GIT_",
    "GI_",
    "GLIBC_",
    "GRPC_",
    "GST_",
    "GTK_",
    "GUILE_",
    "HELM_",
    "HTTPS_",
    "HTTP_",
    "JAVA_",
    "JDK_",
    "JULIA_",
    "KRB5",
    "KUBECTL_",
    "KUBERNETES_",
    "LD_",
    "LESS",
    "LIBC_",
    "LUA_",
    "MAGICK_",
    "MALLOC_",
    "MAVEN_",
    "MONO_",
    "NODE_",
    "NPM_",
    "ODBC",
    "OPENSSL_",
    "OTEL_",
    "PERL",
    "PHP",
    "PIP_",
    "POD_IDENTITY_",
    "PYENV_",
    "PYTHON",
    "QT_",
    "RES_",
    "RUBY",
    "RUST",
    "R_",
    "SPIFFE_",
    "SPRING_",
    "SSH_",
    "SSL_",
    "TERM",
    "TF_",
    "TOKENSCOPE_",
    "UV_",
    "VIRTUAL_ENV",
    "WASM",
    "XDG_",
    "YARN_",
    "ZSH",
];

/// Whole names that no policy may write.
pub const FORBIDDEN_NAMES: [&str; 71] = [
    "BOTO_CONFIG",
    "BROWSER",
    "CDPATH",
    "CLASSPATH",
    "CVS_RSH",
    "DJANGO_SETTINGS_MODULE",
    "EDITOR",
    "ENV",
    "FLASK_APP",
    "FPATH",
    "GETCONF_DIR",
    "GLOBIGNORE",
    "GNUPGHOME",
    "GOBIN",
    "GOCACHE",
    "GOCOVERDIR",
    "GODEBUG",
    "GOENV",
    "GOFLAGS",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES",
    "GOPACKAGESDRIVER",
    "GOPATH",
    "GOPRIVATE",
    "GOPROXY",
    "GOROOT",
    "GOSUMDB",
    "GOTOOLCHAIN",
    "GOTRACEBACK",
    "HOME",
    "HOSTALIASES",
    "HOSTNAME",
    "IFS",
    "INPUTRC",
    "KUBECONFIG",
    "LOCALDOMAIN",
    "LOCPATH",
    "LOGGING_CONFIG",
    "LOGNAME",
    "MAKEFLAGS",
    "MANPATH",
    "MYSQL_HOME",
    "NETRC",
    "NLSPATH",
    "PAGER",
    "PATH",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "PROMPT_COMMAND",
    "PS1",
    "PS2",
    "PS4",
    "PWD",
    "RSYNC_RSH",
    "SHELL",
    "SHELLOPTS",
    "SHLVL",
    "SSLKEYLOGFILE",
    "TCLLIBPATH",
    "TEMP",
    "TMP",
    "TMPDIR",
    "TNS_ADMIN",
    "TZ",
    "TZDIR",
    "USER",
    "VISUAL",
    "WGETRC",
    "ZDOTDIR",
];

/// The ends of names that no policy may write.
pub const FORBIDDEN_SUFFIXES: [&str; 20] = [
    "_ARGS",
    "_CAFILE",
    "_CA_BUNDLE",
    "_CA_CERT",
    "_CA_CERTS",
    "_CA_FILE",
    "_CLASSPATH",
    "_CMD",
    "_COMMAND",
    "_EDITOR",
    "_EXECUTABLE",
    "_FLAGS",
    "_HOOKS",
    "_LIBRARY_PATH",
    "_OPTIONS",
    "_OPTS",
    "_PAGER",
    "_PRELOAD",
    "_PROXY",
    "_SHELL",
];

/// The name of a variable that a policy may write: 1 to 64 upper case letters, digits and `_`, a letter first, and none by which
/// something other than the SDK of the token's party is changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariableName(Box<str>);

impl VariableName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VariableName {
    type Err = InvalidVariableName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_uppercase());
        if !begins || text.len() > MOST_VARIABLE_NAME || !text.bytes().all(is_allowed) {
            return Err(InvalidVariableName::Form(shortened(text)));
        }
        let is_forbidden = FORBIDDEN_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
            || FORBIDDEN_NAMES.contains(&text)
            || FORBIDDEN_SUFFIXES.iter().any(|suffix| text.ends_with(suffix));
        if is_forbidden {
            return Err(InvalidVariableName::Forbidden(text.into()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The reason why a text is no name of a variable that a policy may write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVariableName {
    /// It has another form.
    #[error("{0:?} should have 1 to 64 upper case letters, digits and _, with a letter first")]
    Form(Box<str>),
    /// It changes more than the SDK of the token's party.
    #[error(
        "{0} should not be a name that AWS SDKs, loaders, shells, language runtimes or proxies read: name only variables of the party that the token is for"
    )]
    Forbidden(Box<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names by which loaders, shells, runtimes or tools find code, options or certificates.
    const CHANGE_PROGRAMS: &str = "\
        LD_PRELOAD LD_AUDIT DYLD_INSERT_LIBRARIES PATH PYTHONPATH PYTHONSTARTUP PYTHONWARNINGS NODE_OPTIONS \
        NODE_EXTRA_CA_CERTS JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS CATALINA_OPTS BASH_ENV ENV IFS PS4 SHELLOPTS \
        PROMPT_COMMAND AWS_ROLE_ARN AWS_ENDPOINT_URL AWS_CONFIG_FILE GIT_SSH_COMMAND HTTP_PROXY HTTPS_PROXY \
        ALL_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE KUBERNETES_SERVICE_HOST \
        KUBECONFIG GODEBUG PERL5OPT PERL5LIB RUBYOPT RUBYLIB PHPRC PHP_INI_SCAN_DIR DOTNET_STARTUP_HOOKS \
        CORECLR_PROFILER_PATH GCONV_PATH LOCPATH OPENSSL_CONF OPENSSL_ENGINES SSLKEYLOGFILE \
        GRPC_DEFAULT_SSL_ROOTS_FILE_PATH HOME XDG_CONFIG_HOME TMPDIR EDITOR SSH_AUTH_SOCK DOCKER_HOST HOSTALIASES \
        RES_OPTIONS OTEL_EXPORTER_OTLP_ENDPOINT CLOUDSDK_PYTHON GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES \
        TOKENSCOPE_DIRECTORY SPIFFE_ENDPOINT_SOCKET ES_JAVA_OPTS MALLOC_CONF LESSOPEN RUSTC_WRAPPER ERL_FLAGS \
        R_PROFILE VISUAL MAKEFLAGS RSYNC_RSH CVS_RSH LOGGING_CONFIG DJANGO_SETTINGS_MODULE FLASK_APP BOTO_CONFIG \
        PGSERVICEFILE INPUTRC GNUPGHOME SPRING_APPLICATION_JSON ASPNETCORE_HOSTINGSTARTUPASSEMBLIES \
        GUILE_LOAD_PATH HELM_PLUGINS KUBECTL_EXTERNAL_DIFF MAGICK_CONFIGURE_PATH GDAL_DRIVER_PATH ODBCINI \
        ODBCSYSINI MONO_PATH TCLLIBPATH GI_TYPELIB_PATH GST_PLUGIN_PATH GOPACKAGESDRIVER ELECTRON_RUN_AS_NODE \
        ANSIBLE_CONFIG TF_CLI_CONFIG_FILE KRB5_CONFIG MYSQL_HOME NETRC WGETRC TNS_ADMIN PGSYSCONFDIR DENO_CERT \
        BUN_CONFIG_REGISTRY GOCOVERDIR";

    #[test]
    fn variables_of_vendors_are_taken() {
        for name in [
            "A",
            "ANTHROPIC_IDENTITY_TOKEN_FILE",
            "ANTHROPIC_FEDERATION_RULE_ID",
            "AZURE_TENANT_ID",
            "AZURE_AUTHORITY_HOST",
            "DATABRICKS_HOST",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "OPENAI_TOKEN_FILE",
            "SNOWFLAKE_TOKEN_FILE_PATH",
            "VAULT_ADDR",
            "JFROG_TOKEN_FILE",
            &"A".repeat(64),
        ] {
            assert!(name.parse::<VariableName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn what_changes_how_programs_run_is_refused() {
        for name in CHANGE_PROGRAMS.split_whitespace() {
            let refused = name.parse::<VariableName>();
            assert_eq!(refused, Err(InvalidVariableName::Forbidden(name.into())), "{name}");
        }
    }

    #[test]
    fn a_name_of_another_form_is_refused() {
        for name in [
            "",
            "a",
            "http_proxy",
            "_JAVA_OPTIONS",
            "1A",
            "A-B",
            "A=B",
            "A B",
            "A\n",
            "Ä",
            "A$(B)",
            &"A".repeat(65),
        ] {
            let refused = name.parse::<VariableName>();
            assert!(matches!(refused, Err(InvalidVariableName::Form(_))), "{name}");
        }
    }
}
