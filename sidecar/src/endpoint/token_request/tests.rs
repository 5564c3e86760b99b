//! Who gets which token, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::endpoint::given_tokens::tests::token;
use crate::endpoint::request::read;

const METADATA: &str = "X-Aporeto-Metadata: secrets\r\n";

/// The seconds and the caller of a granted request, else status and code. The pod has the containers `app`, with the audiences `sts` and
/// `vault`, and `job`, with `sts` for ten minutes; its authorization tokens are their names.
fn ask(method: &str, query: &str, host: &str, headers: &str) -> Result<(TokenCaller, u32), String> {
    let (app, job) = (Authorization::of_test("app"), Authorization::of_test("job"));
    let (of_app, of_job) = ([token("sts", 43_200), token("vault", 3600)], [token("sts", 900)]);
    let head = format!("{method} /token{query} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    let request = read(head.as_bytes()).map_err(|why| why.to_string())?;
    assert!(is_for_token(&request));
    let granted = granted(&request, [(&app, &of_app[..]), (&job, &of_job[..])], &of_job);
    let refused = |answer: HttpAnswer| {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(!body["Message"].as_str().unwrap().is_empty());
        format!("{} {}", &answer.status[..3], body["Code"].as_str().unwrap())
    };
    granted
        .map(|granted| (granted.caller, granted.lifetime.seconds()))
        .map_err(refused)
}

fn here(query: &str, headers: &str) -> Result<(TokenCaller, u32), String> {
    ask("GET", query, "127.0.0.1:9912", &format!("{METADATA}{headers}"))
}

#[test]
fn anybody_gets_what_all_containers_have_and_a_container_what_it_has() {
    let (app, job) = ("Authorization: app\r\n", "Authorization: job\r\n");
    assert_eq!(here("?audience=sts", ""), Ok((TokenCaller::Anybody, 900)));
    assert_eq!(
        here("?audience=sts&type=OAUTH", app),
        Ok((TokenCaller::Container(0), 3600))
    );
    assert_eq!(
        here("?audience=vault&validity=10m", app),
        Ok((TokenCaller::Container(0), 600))
    );
    assert_eq!(
        here("?validity=12h&audience=sts", app),
        Ok((TokenCaller::Container(0), 43_200))
    );
    assert_eq!(here("?audience=sts", job), Ok((TokenCaller::Container(1), 900)));
    for (query, headers) in [
        ("?audience=vault", ""),
        ("?audience=vault", job),
        ("?audience=other", app),
    ] {
        assert_eq!(
            here(query, headers),
            Err("400 AudienceNotGranted".to_owned()),
            "{query} {headers}"
        );
    }
    // A wrong authorization is not the same as none.
    for wrong in [
        "Authorization: nobody\r\n",
        "Authorization: \r\n",
        "Authorization: Bearer app\r\n",
    ] {
        assert_eq!(
            here("?audience=sts", wrong),
            Err("403 InvalidAuthorization".to_owned()),
            "{wrong}"
        );
    }
}

#[test]
fn a_page_in_a_browser_and_whoever_is_made_to_fetch_a_url_get_nothing() {
    for headers in [
        "",
        "X-Aporeto-Metadata: \r\n",
        "X-Aporeto-Metadata: Secrets\r\n",
        "X-Aporeto-Metadata: secrets,secrets\r\n",
        "X-Aporeto: secrets\r\n",
    ] {
        let refused = ask("GET", "?audience=sts", "localhost", headers);
        assert_eq!(refused, Err("403 MetadataHeader".to_owned()), "{headers}");
    }
    let twice = METADATA.repeat(2);
    assert!(ask("GET", "?audience=sts", "localhost", &twice).is_err());
    for host in [
        "evil.example",
        "127.0.0.1.evil.example:9912",
        "169.254.254.1",
        "10.0.0.1",
    ] {
        assert_eq!(
            ask("GET", "?audience=sts", host, METADATA),
            Err("403 HostRefused".to_owned()),
            "{host}"
        );
    }
    for method in ["POST", "OPTIONS", "HEAD", "get"] {
        let refused = ask(method, "?audience=sts", "localhost", METADATA);
        assert_eq!(refused, Err("405 MethodNotAllowed".to_owned()), "{method}");
    }
    assert_eq!(
        ask("GET", "?audience=sts", "localhost", "x-aporeto-metadata:secrets\r\n"),
        Ok((TokenCaller::Anybody, 900)),
        "names of headers have no case"
    );
}

#[test]
fn a_validity_is_cut_to_what_is_granted_and_one_that_is_none_or_too_short_is_refused() {
    for validity in ["1h", "24h", "2562047h", "15m", "16m"] {
        assert_eq!(
            here(&format!("?audience=sts&validity={validity}"), ""),
            Ok((TokenCaller::Anybody, 900)),
            "{validity}"
        );
    }
    for validity in [
        "",
        "0s",
        "9m59s",
        "-1h",
        "1",
        "1d",
        "%31h%00",
        "%F0%9F%95%90h",
        "1h&validity=1h",
        "10m+",
    ] {
        let refused = here(&format!("?audience=sts&validity={validity}"), "").unwrap_err();
        let expected = if validity.contains('&') {
            "400 InvalidParameter"
        } else {
            "422 InvalidValidity"
        };
        assert_eq!(refused, expected, "{validity}");
    }
}

#[test]
fn a_query_that_could_be_read_in_two_ways_is_refused() {
    for query in [
        "",
        "?",
        "?audience=",
        "?audience=sts&audience=vault",
        "?audience=sts&type=X509",
        "?audience=sts&scope=x",
        "?AUDIENCE=sts",
        "?audience=s%74s%00",
        "?audience=st%C5%9F",
        "?audience=%E2%80%8Bsts",
        "?audience=%FF",
        "?audience=sts+vault",
        &format!("?audience={}", "a".repeat(256)),
    ] {
        assert_eq!(here(query, ""), Err("400 InvalidParameter".to_owned()), "{query}");
    }
    assert_eq!(
        here("?audience=s%74s", ""),
        Ok((TokenCaller::Anybody, 900)),
        "that is how a URL may be written"
    );
}

#[test]
fn another_path_is_none_of_tokens() {
    for path in [
        "/token/",
        "/tokens",
        "/token/x",
        "//token",
        "/TOKEN",
        "/token%3Faudience=sts",
        "/v1/credentials/token",
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(!is_for_token(&read(head.as_bytes()).unwrap()), "{path}");
    }
}

proptest! {
    #[test]
    fn no_query_makes_it_panic(query in "[!-~]{0,80}") {
        let _ = query_of(&query);
    }
}

fn query_of(query: &str) -> Result<(), String> {
    let head = format!("GET /token?{query} HTTP/1.1\r\nHost: localhost\r\n{METADATA}\r\n");
    let Ok(request) = read(head.as_bytes()) else {
        return Ok(());
    };
    granted(&request, [], &[token("sts", 900)])
        .map(drop)
        .map_err(|answer| answer.status.to_owned())
}
