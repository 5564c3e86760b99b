//! Flags and environment, and what is said of a mistake in them.

use super::options::{OF_ISSUER, OF_SPIFFE, OPTIONS};
use super::*;
use crate::log;

const ENVIRONMENT: [(&str, &str); 3] = [
    ("TOKENSCOPE_DIRECTORY", "/var/run/secrets/tokenscope.io/aws"),
    ("SPIFFE_ENDPOINT_SOCKET", "unix:///spiffe-workload-api/spire-agent.sock"),
    ("TOKENSCOPE_JWT_SVIDS", "token=sts.amazonaws.com"),
];

fn read(arguments: &[&str], changed: &[(&str, &str)]) -> Result<Config, String> {
    let arguments = arguments.iter().map(OsString::from);
    let variable = |name: &str| {
        let all = changed.iter().chain(&ENVIRONMENT);
        all.into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    match invocation(arguments, variable) {
        Ok(Invocation::Run(config) | Invocation::Ready(config)) => Ok(config),
        Ok(Invocation::Print(text)) => Err(text),
        Ok(Invocation::Write(files)) => Err(format!("{files:?}")),
        Err(mistake) => Err(mistake.to_string()),
    }
}

#[test]
fn the_environment_that_is_injected_is_enough() {
    let config = read(&[], &[]).unwrap();

    assert_eq!(config.directory.to_str(), Some("/var/run/secrets/tokenscope.io/aws"));
    assert_eq!(config.tokens[0].name, "token");
    assert_eq!(config.tokens[0].audience.as_str(), "sts.amazonaws.com");
    let agent = config.workload_api().unwrap();
    assert_eq!(agent.socket.to_str(), Some("/spiffe-workload-api/spire-agent.sock"));
    assert_eq!(agent.wanted, SvidSelection::default());
    assert!(!config.once && !agent.x509_svid && !agent.jwt_bundle);
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
        .tokens
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
fn a_sidecar_that_was_injected_writes_no_files_from_arguments() {
    let write = ["write", "/config", "--once"];
    assert!(read(&write, &[]).unwrap_err().contains("--once"), "a text is no option");
    let mistake = read(&write, &[("TOKENSCOPE_INJECTED", "true")]).unwrap_err();
    assert!(mistake.contains("takes no options"), "{mistake}");
    assert!(read(&["ready", "write"], &[]).is_err() && read(&["--once", "write"], &[]).is_err());
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
    let hint = config.workload_api().unwrap().wanted.hint.clone();
    assert_eq!(hint.unwrap().as_str(), "aws");
    assert!(!config.once);
}

/// The error of these arguments and this variable.
fn mistake(arguments: &[&str], variable: (&str, &str)) -> String {
    read(arguments, &[variable]).unwrap_err()
}

fn each_says<const N: usize>(cases: [(String, &str); N]) {
    for (message, part) in cases {
        assert!(message.contains(part), "{message:?} has no {part:?}");
    }
}

#[test]
fn each_mistake_names_its_place_the_value_and_what_it_should_be() {
    each_says([
        (mistake(&["--frob"], ("", "")), r#""--frob" is no option"#),
        (mistake(&["run"], ("", "")), r#""run" is no option"#),
        (mistake(&["--hint"], ("", "")), "--hint needs a value"),
        (mistake(&["--hint=a", "--hint=b"], ("", "")), "--hint is given twice"),
        (
            mistake(&[], ("TOKENSCOPE_DIRECTORY", "")),
            "give --directory or TOKENSCOPE_DIRECTORY",
        ),
        (
            mistake(&[], ("SPIFFE_ENDPOINT_SOCKET", "")),
            "give --socket or SPIFFE_ENDPOINT_SOCKET",
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
    ]);
}

#[test]
fn each_mistake_about_files_names_the_file_and_what_it_should_be() {
    each_says([
        (mistake(&[], ("TOKENSCOPE_JWT_SVIDS", " ")), "there is nothing to write"),
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
    ]);
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

#[test]
fn files_of_one_audience_share_a_token() {
    let config = read(&[], &[("TOKENSCOPE_JWT_SVIDS", "token=a /b/token=b /c/token=a")]).unwrap();
    let shared: Vec<_> = config
        .shared_tokens()
        .into_iter()
        .map(|token| (token.audience.to_string(), token.files.join(" ")))
        .collect();

    assert_eq!(
        shared,
        [
            ("a".to_owned(), "token /c/token".to_owned()),
            ("b".to_owned(), "/b/token".to_owned())
        ]
    );
}

#[test]
fn tokens_come_from_one_source() {
    let values = |option: &&str| match *option {
        "TOKENSCOPE_X509_SVID" | "TOKENSCOPE_JWT_BUNDLE" => "true".to_owned(),
        _ => "x".to_owned(),
    };
    for option in OF_ISSUER {
        let mistake = read(&[], &[(option.variable, "x")]).unwrap_err();
        assert!(
            mistake.contains("SPIFFE or from tokenscope's issuer") || mistake.contains("exchanges no tokens"),
            "{mistake}"
        );
        assert!(mistake.contains(option.variable), "{mistake}");
    }
    for option in OF_SPIFFE {
        let spiffe = (option.variable, &*values(&option.variable));
        let nothing = ENVIRONMENT[1..].iter().map(|(name, _)| (*name, ""));
        let changed: Vec<_> = [spiffe, ("TOKENSCOPE_ISSUER", "x")]
            .into_iter()
            .chain(nothing)
            .collect();
        let mistake = read(&[], &changed).unwrap_err();
        assert!(
            mistake.contains(&format!(
                "{} and TOKENSCOPE_ISSUER can't be given together",
                option.variable
            )),
            "{mistake}"
        );
    }
}

#[test]
#[cfg(not(feature = "issuer"))]
fn a_build_without_the_exchange_says_so_and_names_the_image_that_has_it() {
    let mistake = read(
        &[],
        &[
            ("TOKENSCOPE_JWT_SVIDS", ""),
            ("SPIFFE_ENDPOINT_SOCKET", ""),
            ("TOKENSCOPE_ISSUED_TOKENS", "token=sts.amazonaws.com"),
        ],
    )
    .unwrap_err();
    assert!(
        mistake.starts_with("TOKENSCOPE_ISSUED_TOKENS: this build exchanges no tokens")
            && mistake.contains("tokenscope-sidecar-issuer"),
        "{mistake}"
    );
}

#[cfg(feature = "issuer")]
mod of_the_issuer {
    use super::*;

    fn authority() -> String {
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap()
            .pem()
    }

    fn read_issuer(changed: &[(&str, &str)]) -> Result<Config, String> {
        let authority = authority();
        let given = [
            ("TOKENSCOPE_JWT_SVIDS", ""),
            ("SPIFFE_ENDPOINT_SOCKET", ""),
            (
                "TOKENSCOPE_ISSUED_TOKENS",
                "token=sts.amazonaws.com /var/run/b/token=vault",
            ),
            ("TOKENSCOPE_ISSUER", "https://tokenscope-issuer.tokenscope-system.svc"),
            ("TOKENSCOPE_ISSUER_CA", &*authority),
            ("TOKENSCOPE_SUBJECT_TOKEN", "/tokenscope-subject-token/token"),
            ("TOKENSCOPE_TOKEN_LIFETIME", "900"),
            ("TOKENSCOPE_INJECTED", "true"),
        ];
        let all: Vec<_> = changed.iter().copied().chain(given).collect();
        read(&[], &all)
    }

    #[test]
    fn the_environment_that_is_injected_is_enough() {
        let config = read_issuer(&[]).unwrap();
        assert_eq!(config.kept(), ["token", "/var/run/b/token"]);
        assert_eq!(config.folders().len(), 2);
        let SourceSettings::Issuer(issuer) = &config.source else {
            panic!("{config:?}");
        };
        assert_eq!(
            issuer.endpoint.to_string(),
            "https://tokenscope-issuer.tokenscope-system.svc/token"
        );
        assert_eq!(issuer.subject_token.to_str(), Some("/tokenscope-subject-token/token"));
        assert_eq!(issuer.lifetime.unwrap().seconds(), 900);
        assert_eq!(issuer.authorities.len(), 1);
    }

    #[test]
    fn each_mistake_names_its_variable() {
        for (name, value, part) in [
            ("TOKENSCOPE_ISSUED_TOKENS", "", "give --issued-token"),
            ("TOKENSCOPE_ISSUED_TOKENS", "token", "should be FILE=AUDIENCE"),
            ("TOKENSCOPE_ISSUER", "", "give --issuer or"),
            (
                "TOKENSCOPE_ISSUER",
                "http://issuer.example",
                "should begin with https://",
            ),
            ("TOKENSCOPE_ISSUER_CA", "", "give --issuer-ca or"),
            ("TOKENSCOPE_ISSUER_CA", "-----BEGIN CERTIFICATE-----\n", "no PEM"),
            ("TOKENSCOPE_ISSUER_CA", "none", "should have a certificate"),
            (
                "TOKENSCOPE_ISSUER_CA",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "can't be read",
            ),
            ("TOKENSCOPE_SUBJECT_TOKEN", "", "give --subject-token or"),
            ("TOKENSCOPE_SUBJECT_TOKEN", "token", "should be an absolute path"),
            ("TOKENSCOPE_TOKEN_LIFETIME", "60", "600"),
        ] {
            let mistake = read_issuer(&[(name, value)]).unwrap_err();
            assert!(mistake.contains(name) && mistake.contains(part), "{mistake}");
        }
        assert!(read_issuer(&[("TOKENSCOPE_TOKEN_LIFETIME", "")]).is_ok());
    }
}
