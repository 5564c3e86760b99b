//! What unmodified SDKs make of the config file that an init container has written: each row of the table in `docs/delivery.md` is compared
//! with what is measured here. Roles are taken at somebody else's IAM and STS (MiniStack).

use std::fs;

use serde_json::Value;
use tokenscope_core::config_file::CONFIG_FILE;
use tokenscope_e2e::local_probe::{LocalProbe, Ran};
use tokenscope_e2e::probes::Sdk;
use tokenscope_xtask::root;

use super::accounts::{AT_THE_END, ChainedPod, TwoAccounts};
use super::recorder::Recorder;

/// The first role of the chain.
const AT_THE_START: &str = "arn:aws:sts::111122223333:assumed-role/orders/orders-1";

/// What an SDK takes if it finds the variables of web identity beside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    /// The file: it ends with the last role of the chain.
    File,
    /// The variables: it ignores the chain.
    Variables,
}

/// What is known of an SDK.
struct Facts {
    sdk: Sdk,
    name: &'static str,
    /// What its error has when the external id is wrong.
    shows: &'static str,
    beside: Beside,
}

static FACTS: [Facts; 7] = [
    Facts {
        sdk: Sdk::Go,
        name: "Go v2, `config`",
        shows: "AccessDenied",
        beside: Beside::Variables,
    },
    Facts {
        sdk: Sdk::Python,
        name: "boto3",
        shows: "AccessDenied",
        beside: Beside::File,
    },
    Facts {
        sdk: Sdk::AwsCli,
        name: "AWS CLI v1,",
        shows: "AccessDenied",
        beside: Beside::File,
    },
    Facts {
        sdk: Sdk::AwsCli2,
        name: "AWS CLI v2,",
        shows: "AccessDenied",
        beside: Beside::File,
    },
    Facts {
        sdk: Sdk::JavaScript,
        name: "JavaScript v3,",
        shows: "AccessDenied",
        beside: Beside::File,
    },
    Facts {
        sdk: Sdk::Java,
        name: "Java v2,",
        shows: "is not authorized to perform: sts:AssumeRole",
        beside: Beside::Variables,
    },
    Facts {
        sdk: Sdk::Rust,
        name: "Rust, `aws-config`",
        shows: "AccessDenied",
        beside: Beside::File,
    },
];

impl Facts {
    /// Its row in the documentation.
    fn row(&self) -> String {
        let beside = match self.beside {
            Beside::File => "the file",
            Beside::Variables => "the variables",
        };
        let version = self.sdk.version().unwrap();
        format!("| {} {version} | works | `{}` | {beside} |", self.name, self.shows)
    }
}

/// The probes, each with a home directory in which nothing is: the AWS CLI keeps credentials there for later commands.
fn probes() -> Vec<(&'static Facts, LocalProbe)> {
    let probe_of = |facts: &'static Facts| {
        let probe = tokio::task::block_in_place(|| LocalProbe::of(facts.sdk)).unwrap();
        Some((facts, probe?))
    };
    FACTS.iter().filter_map(probe_of).collect()
}

/// Runs a probe as in the pod's container, with more variables.
fn run(probe: &LocalProbe, pod: &ChainedPod, urls: [&str; 2], with_web_identity: bool) -> Ran {
    let token_file = pod.token_file();
    let token = probe.write("token", &fs::read_to_string(&token_file).unwrap()).unwrap();
    // The file as it was written; only the folder of the container's files is another one in the probe's files.
    let text = pod.config_file().replace(&token_file, &token);
    let config_file = probe.write("config", &text).unwrap();
    let mut environment: Vec<(&str, &str)> = Vec::new();
    for (name, value) in &pod.container.environment {
        let is_config_file = value == CONFIG_FILE;
        environment.push((name, if is_config_file { &config_file } else { value }));
    }
    environment.extend([("AWS_ENDPOINT_URL_STS", urls[0]), ("AWS_ENDPOINT_URL_S3", urls[1])]);
    if with_web_identity {
        environment.extend([
            ("AWS_ROLE_ARN", tokenscope_e2e::fixtures::ORDERS),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
            ("AWS_ROLE_SESSION_NAME", "orders-1"),
        ]);
    }
    tokio::task::block_in_place(|| probe.run(&environment)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sdk_takes_the_chain_of_the_file_across_accounts_and_is_refused_with_a_wrong_external_id() {
    let pod = ChainedPod::create("profile-sdks", &Value::Null).await;
    let accounts = TwoAccounts::of(&pod).await;
    let s3 = Recorder::start().await; // what the probes do after they have asked STS who they are
    let (sts_url, s3_url) = (accounts.url(), s3.url());
    let urls = [&*sts_url, &*s3_url];
    let documentation = fs::read_to_string(root().join("docs/delivery.md")).unwrap();
    let mut failures = Vec::new();
    let mut expect = |facts: &Facts, is_right: bool, what: &str, text: &str| {
        if !is_right {
            failures.push(format!("{}: {what}: {text}", facts.name));
        }
    };
    let is = |ran: &Ran, who: &str| ran.well && ran.output.contains(&format!("caller: {who}\n"));
    for (facts, probe) in &probes() {
        let ran = run(probe, &pod, urls, false);
        expect(facts, is(&ran, AT_THE_END), "the chain", &ran.output);
        let ran = run(probe, &pod, urls, true);
        let who = match facts.beside {
            Beside::File => AT_THE_END,
            Beside::Variables => AT_THE_START,
        };
        expect(facts, is(&ran, who), "variables beside the file", &ran.output);
        let row = facts.row();
        expect(
            facts,
            documentation.contains(&row),
            "docs/delivery.md has no such row",
            &row,
        );
    }
    accounts.want_another_external_id(&pod);
    for (facts, probe) in &probes() {
        let ran = run(probe, &pod, urls, false);
        let is_refused = !ran.well && ran.output.contains(facts.shows);
        expect(facts, is_refused, "a wrong external id", &ran.output);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(s3.asked().len(), 0, "nobody else was asked for credentials");
}
