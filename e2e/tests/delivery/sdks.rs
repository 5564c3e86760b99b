//! How each SDK asks for container credentials, as the table of `docs/delivery.md` says: each row is compared with what is
//! measured here.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::SignedDuration;
use tokenscope_core::credentials_endpoint::{AUTHORIZATION_FILE_VARIABLE, FULL_URI_VARIABLE};
use tokenscope_e2e::local_probe::{LocalProbe, Ran};
use tokenscope_e2e::probes::Sdk;
use tokenscope_xtask::progress::say;
use tokenscope_xtask::root;

use super::recorder::{Asked, MESSAGE, Recorder, Says, duration_of};

/// What the authorization token's file has.
const AUTHORIZATION: &str = "the-token-of-this-container";

/// How much longer than in the table a busy machine may make it.
const SLACK: Duration = Duration::from_secs(10);

/// How far before and after the moment from which an SDK asks again the test looks.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// The time from the first request to the last.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// No pause between requests.
    NoTime,
    /// Pauses of always the same length, in seconds.
    Seconds(u64),
    /// Pauses of random length, in seconds at most.
    UpTo(u64),
}

/// What an SDK does while the endpoint answers with an error: how many requests, until the application is told of the failure.
#[derive(Clone, Copy, Debug)]
struct OnError(usize, Takes);

impl OnError {
    fn text(self) -> String {
        match self {
            Self(1, _) => "1".to_owned(),
            Self(requests, Takes::NoTime) => format!("{requests}, at once"),
            Self(requests, Takes::Seconds(seconds)) => format!("{requests} in {seconds} s"),
            Self(requests, Takes::UpTo(seconds)) => format!("{requests} in at most {seconds} s"),
        }
    }

    fn check(self, asked: &[Asked], what: &str) -> Result<()> {
        let Self(requests, takes) = self;
        let took = duration_of(asked);
        ensure!(
            asked.len() == requests,
            "{what}: {} requests within {took:?}, and not {requests}",
            asked.len()
        );
        let (least, most) = match takes {
            Takes::NoTime => (0, 1),
            Takes::Seconds(seconds) => (seconds, seconds),
            Takes::UpTo(seconds) => (0, seconds),
        };
        // A pause may be a little shorter between two requests that arrive than between the moments at which they are sent.
        ensure!(
            took + Duration::from_millis(500) >= Duration::from_secs(least),
            "{what}: {took:?}"
        );
        ensure!(took <= Duration::from_secs(most) + SLACK, "{what}: {took:?}");
        Ok(())
    }
}

/// What is known of an SDK.
struct Facts {
    sdk: Sdk,
    name: &'static str,
    /// How its `User-Agent` begins.
    user_agent: Option<&'static str>,
    accept: Option<&'static str>,
    /// By status: 403, 429, 500 and 503.
    on_error: [OnError; 4],
    shows_message: bool,
    /// How long before the expiry it begins to ask at each use: at the earliest and at the latest.
    again: [SignedDuration; 2],
    /// Requests of a run of the probe, which calls STS once and S3 twice (version 1 of the AWS CLI three times): with credentials that it keeps, and with
    /// credentials that it asks for again at each use.
    requests: [usize; 2],
    /// Whether it uses credentials that have expired already.
    uses_expired: bool,
}

const STATUSES: [u16; 4] = [403, 429, 500, 503];

impl Facts {
    /// Its row in the documentation.
    fn row(&self) -> String {
        let code = |text: Option<&str>| text.map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
        let mut cells = vec![
            format!("{} {}", self.name, self.sdk.version().unwrap()),
            code(self.user_agent),
            code(self.accept),
        ];
        cells.extend(self.on_error.iter().map(|on_error| on_error.text()));
        cells.push(if self.shows_message { "yes" } else { "no" }.to_owned());
        let [earliest, latest] = self.again.map(|time| time.as_secs());
        cells.push(match (earliest, latest) {
            (..60, _) => format!("{earliest} to {latest} s"),
            _ if earliest == latest => format!("{} min", latest / 60),
            _ => format!("{} to {} min", earliest / 60, latest / 60),
        });
        cells.push(if self.uses_expired { "uses them" } else { "fails" }.to_owned());
        format!("| {} |", cells.join(" | "))
    }

    /// Measures all of it.
    async fn check(&self) {
        let Some(probe) = tokio::task::block_in_place(|| LocalProbe::of(self.sdk)).unwrap() else {
            return;
        };
        let recorder = Recorder::start().await;
        let run = |says: Says| {
            recorder.says(says);
            let ran = run_once(&probe, &recorder);
            (ran, recorder.asked())
        };

        for (status, on_error) in STATUSES.into_iter().zip(self.on_error) {
            undisturbed(|| self.is_refused(&run, status, on_error));
        }
        undisturbed(|| self.is_given(&run));

        let documentation = fs::read_to_string(root().join("docs/delivery.md")).unwrap();
        let row = self.row();
        assert!(documentation.contains(&row), "docs/delivery.md has no such row:\n{row}");
    }

    /// What it does while the endpoint answers with an error.
    fn is_refused(&self, run: &Run<'_>, status: u16, on_error: OnError) -> Result<()> {
        let (ran, asked) = run(Says::Refuses(status));
        ensure!(!ran.well, "{status}: {}", ran.output);
        on_error.check(&asked, &format!("{} on {status}", self.name))?;
        ensure!(
            ran.output.contains(MESSAGE) == self.shows_message,
            "{status}: {}",
            ran.output
        );
        Ok(())
    }

    /// What it does with credentials that it keeps, that it asks for again at each use, and that have expired.
    fn is_given(&self, run: &Run<'_>) -> Result<()> {
        let ([kept, each_use], [earliest, latest]) = (self.requests, self.again);
        let (ran, asked) = run(Says::Gives(earliest + MARGIN));
        ensure!(ran.well, "{}", ran.output);
        let requests = asked.len();
        ensure!(requests == kept, "{} keeps them: {requests} requests", self.name);
        self.check_headers(&asked);
        // For an SDK that asks again less than the margin before the expiry, these credentials have expired already.
        let (ran, asked) = run(Says::Gives(latest - MARGIN));
        ensure!(ran.well == (latest > MARGIN || self.uses_expired), "{}", ran.output);
        let requests = asked.len();
        ensure!(
            requests == each_use,
            "{} asks at each use: {requests} requests",
            self.name
        );
        let (ran, _) = run(Says::Gives(-MARGIN));
        ensure!(ran.well == self.uses_expired, "{}", ran.output);
        Ok(())
    }

    fn check_headers(&self, asked: &[Asked]) {
        for asked in asked {
            assert_eq!((asked.method.as_str(), &*asked.path), ("GET", "/v1/credentials/app"));
            assert_eq!(asked.header("authorization"), Some(AUTHORIZATION), "{asked:?}");
            assert!(asked.header("host").unwrap().starts_with("127.0.0.1:"), "{asked:?}");
            assert_eq!(asked.header("accept"), self.accept, "{asked:?}");
            match (self.user_agent, asked.header("user-agent")) {
                (Some(start), Some(given)) => assert!(given.starts_with(start), "{given}"),
                (expected, given) => assert_eq!(given, expected),
            }
        }
    }
}

/// How often a measurement is made at most. An SDK waits a second or two for an answer: where the machine stands still for as long, it asks once more,
/// or takes longer. What an SDK does by itself it does each time.
const MEASUREMENTS: usize = 3;

/// Makes a measurement until nothing has disturbed it. Fails with what was wrong with the last one.
fn undisturbed(measure: impl Fn() -> Result<()>) {
    for _ in 1..MEASUREMENTS {
        match measure() {
            Ok(()) => return,
            Err(error) => say(&format!("  measured once more: {error:#}")),
        }
    }
    measure().unwrap();
}

/// Runs the probe against an endpoint that says this: how it ended, and who has asked.
type Run<'a> = dyn Fn(Says) -> (Ran, Vec<Asked>) + 'a;

/// Runs a probe once, as in a container for which the recorder is the sidecar.
fn run_once(probe: &LocalProbe, recorder: &Recorder) -> Ran {
    let file = probe.write("authorization", AUTHORIZATION).unwrap();
    let (url, credentials) = (recorder.url(), recorder.credentials_url());
    let environment = [
        (FULL_URI_VARIABLE, &*credentials),
        (AUTHORIZATION_FILE_VARIABLE, &*file),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL_STS", &*url),
        ("AWS_ENDPOINT_URL_S3", &*url),
    ];
    tokio::task::block_in_place(|| probe.run(&environment)).unwrap()
}

const ONCE: OnError = OnError(1, Takes::NoTime);

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_go_shows_the_reason_and_asks_at_each_use_in_the_last_five_minutes() {
    // Each of three attempts of the call makes three requests of its own after a fault of the server. The pauses are random, of
    // at most 2 s after the first and 4 s after the second.
    let on_fault = OnError(9, Takes::UpTo(24));
    let facts = Facts {
        sdk: Sdk::Go,
        name: "Go v2, `config`",
        user_agent: Some("Go-http-client/1.1"),
        accept: Some("application/json"),
        on_error: [ONCE, OnError(3, Takes::UpTo(6)), on_fault, on_fault],
        shows_message: true,
        again: [SignedDuration::from_mins(5); 2],
        requests: [1, 3],
        uses_expired: true,
    };
    facts.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_shows_the_reason_after_three_requests_and_asks_at_each_use_in_the_last_fifteen_minutes() {
    let facts = Facts {
        sdk: Sdk::Python,
        name: "boto3",
        user_agent: Some("python-urllib3/"),
        accept: Some("application/json"),
        on_error: [OnError(3, Takes::Seconds(2)); 4],
        shows_message: true,
        again: [SignedDuration::from_mins(15); 2],
        requests: [1, 4],
        uses_expired: false,
    };
    facts.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_does_as_boto3_in_each_command() {
    let facts = Facts {
        sdk: Sdk::AwsCli,
        name: "AWS CLI v1,",
        user_agent: Some("python-urllib3/"),
        accept: Some("application/json"),
        on_error: [OnError(3, Takes::Seconds(2)); 4],
        shows_message: true,
        again: [SignedDuration::from_mins(15); 2],
        requests: [3, 7],
        uses_expired: false,
    };
    facts.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_2_of_the_aws_cli_does_as_version_1() {
    let facts = Facts {
        sdk: Sdk::AwsCli2,
        name: "AWS CLI v2,",
        user_agent: Some("python-urllib3/"),
        accept: Some("application/json"),
        on_error: [OnError(3, Takes::Seconds(2)); 4],
        shows_message: true,
        again: [SignedDuration::from_mins(15); 2],
        requests: [3, 6],
        uses_expired: false,
    };
    facts.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_javascript_loses_the_reason_and_each_client_of_it_asks_by_itself() {
    let facts = Facts {
        sdk: Sdk::JavaScript,
        name: "JavaScript v3,",
        user_agent: None,
        accept: None,
        on_error: [OnError(5, Takes::Seconds(3)); 4],
        shows_message: false,
        again: [SignedDuration::from_mins(5); 2],
        requests: [2, 4],
        uses_expired: true,
    };
    facts.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_java_loses_the_reason_and_each_client_of_it_asks_by_itself() {
    let on_fault = OnError(6, Takes::NoTime);
    let facts = Facts {
        sdk: Sdk::Java,
        name: "Java v2,",
        user_agent: Some("aws-sdk-java/"),
        accept: Some("text/html, image/gif, image/jpeg, */*; q=0.2"),
        on_error: [ONCE, ONCE, on_fault, on_fault],
        shows_message: false,
        // A moment between the two, which is drawn for each answer.
        again: [SignedDuration::from_mins(15), SignedDuration::from_mins(2)],
        requests: [2, 3],
        uses_expired: true,
    };
    facts.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_rust_loses_the_reason_and_keeps_credentials_until_the_last_seconds() {
    // The pauses are random, of at most 1 s after the first request and 2 s after the second.
    let on_fault = OnError(3, Takes::UpTo(3));
    let facts = Facts {
        sdk: Sdk::Rust,
        name: "Rust, `aws-config`",
        user_agent: None,
        accept: Some("application/json"),
        on_error: [ONCE, ONCE, on_fault, on_fault],
        shows_message: false,
        // A moment between the two, which is drawn for each answer.
        again: [SignedDuration::from_secs(10), SignedDuration::from_secs(5)],
        requests: [1, 3],
        uses_expired: true,
    };
    facts.check().await;
}
