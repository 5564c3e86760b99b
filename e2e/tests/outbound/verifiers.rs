//! Verifiers of tokens as a third party would write them, with tokens that a real API server signed for a pod, with those of tokenscope's own
//! issuer, and with those of an account of AWS.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use tokenscope_core::Algorithm;
use tokenscope_e2e::node::is_ci;
use tokenscope_e2e::token_maker::{KeySet, TokenMaker};
use tokenscope_xtask::fetching::fetch_quietly;
use tokenscope_xtask::progress::say;

use super::shown::Shown;
use super::*;

#[path = "../../../examples/verify/rust/verify.rs"]
#[allow(unreachable_pub, reason = "it is an example of a module that others use")]
mod verify;

use verify::Refused;

impl Shown {
    fn jwks(&self) -> PathBuf {
        self.folder.join("jwks.json")
    }

    /// Tokens that prove nothing, each with what is wrong with it.
    fn forged(&self) -> Vec<(&'static str, String)> {
        let parts: Vec<&str> = self.token.split('.').collect();
        let change = |part: &str, change: &dyn Fn(&mut Value)| {
            let mut document: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
            change(&mut document);
            URL_SAFE_NO_PAD.encode(document.to_string())
        };
        let other_subject = change(parts[1], &|claims| {
            claims["sub"] = json!("system:serviceaccount:shop:admin");
        });
        let other_issuer = change(parts[1], &|claims| claims["iss"] = json!("https://evil.example"));
        let none = change(parts[0], &|header| header["alg"] = json!("none"));
        let by_secret = change(parts[0], &|header| header["alg"] = json!("HS256"));
        let other_key = change(parts[0], &|header| header["kid"] = json!("other"));
        vec![
            ("another subject", [parts[0], &other_subject, parts[2]].join(".")),
            ("another issuer", [parts[0], &other_issuer, parts[2]].join(".")),
            ("a changed signature", changed_signature(&self.token)),
            ("no signature", [&*none, parts[1], ""].join(".")),
            ("a signature by a secret", [&*by_secret, parts[1], parts[2]].join(".")),
            ("an unknown key", [&*other_key, parts[1], parts[2]].join(".")),
            ("no token", "x".to_owned()),
            ("too long", "x".repeat(30_000)),
        ]
    }

    /// What a program says of a token, or why it refuses it.
    fn judged(&self, program: &mut Command, token: &str, audience: &str) -> Result<Value, String> {
        let output = self.run(program, token, audience);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            assert!(!error.contains("Traceback") && !error.contains("panic"), "{error}");
            return Err(error);
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("it prints no JSON: {error}"))
    }

    fn run(&self, program: &mut Command, token: &str, audience: &str) -> Output {
        let mut child = program
            .args(["--issuer", &self.issuer, "--audience", audience, "--jwks"])
            .arg(self.jwks())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that has seen enough reads no further.
        let _ = child.stdin.take().unwrap().write_all(token.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// A program takes the token for its audience, and nothing else.
    fn judge(&self, program: impl Fn() -> Command) {
        std::fs::create_dir_all(&self.folder).unwrap();
        std::fs::write(self.jwks(), self.keys.to_string()).unwrap();
        let claims = self.judged(&mut program(), &self.token, CLAUDE).unwrap();
        assert_eq!(
            (&claims["sub"], &claims["iss"]),
            (&json!(self.subject), &json!(self.issuer))
        );
        let refusal = self
            .judged(&mut program(), &self.token, "https://api.openai.com/v1")
            .unwrap_err();
        assert!(refusal.to_lowercase().contains("audience"), "{refusal}");
        for (what, token) in self.forged() {
            let Err(refusal) = self.judged(&mut program(), &token, CLAUDE) else {
                panic!("{what}")
            };
            assert!(!refusal.contains("eyJ"), "{what}: {refusal}");
        }
    }
}

/// The token with another bit in the middle of its signature.
pub(crate) fn changed_signature(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let middle = signature.len() / 2;
    signature[middle] ^= 1;
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/verify")
}

/// The verifier in Python.
fn python() -> Command {
    let mut command = Command::new(resolve(Tool::Anthropic).unwrap());
    command.arg(examples().join("python/verify.py"));
    command
}

/// The verifier in Go, compiled into a folder; `None` where there is no Go.
fn go(folder: &Path) -> Option<PathBuf> {
    if Command::new("go").arg("version").output().is_err() {
        assert!(!is_ci(), "there is no Go, and nothing may be left out with CI=true");
        say("left out: the verifier in Go, because there is no Go");
        return None;
    }
    std::fs::create_dir_all(folder).unwrap();
    let program = folder.join("verify");
    let mut build = Command::new("go");
    build
        .current_dir(examples().join("go"))
        .env_remove("GOWORK")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".");
    fetch_quietly(&build).unwrap();
    Some(program)
}

/// The verifier in Rust takes the token for its audience while it is valid, and nothing else.
fn judge_in_rust(shown: &Shown) {
    let keys = BTreeMap::from([(shown.issuer.clone(), shown.keys.clone())]);
    let now = Timestamp::now().as_second();
    let judged = |token: &str, audience: &str, now: i64| verify::verify(token, audience, &keys, now);
    let claims = judged(&shown.token, CLAUDE, now).unwrap();
    assert_eq!(claims["sub"], *shown.subject);
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        shown.lifetime
    );
    assert_eq!(
        judged(&shown.token, "x", now),
        Err(Refused("the token is for another audience"))
    );
    assert_eq!(
        judged(&shown.token, CLAUDE, now + shown.lifetime + 100),
        Err(Refused("the token has expired"))
    );
    assert_eq!(
        judged(&shown.token, CLAUDE, now - 1000),
        Err(Refused("the token is not valid yet"))
    );
    for (what, token) in shown.forged() {
        assert!(judged(&token, CLAUDE, now).is_err(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_verifier_takes_a_pods_token_and_none_that_was_changed() {
    let shown = Shown::by_a_pod_of("python").await;
    tokio::task::block_in_place(|| shown.judge(python));
}

#[tokio::test]
async fn the_rust_verifier_takes_a_pods_token_and_none_that_was_changed() {
    judge_in_rust(&Shown::by_a_pod_of("rust").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_verifier_takes_a_pods_token_and_none_that_was_changed() {
    let shown = Shown::by_a_pod_of("go").await;
    tokio::task::block_in_place(|| {
        if let Some(program) = go(&shown.folder) {
            shown.judge(|| Command::new(&program));
        }
    });
}

/// All three verifiers, with one token.
pub(crate) fn judge_in_all(shown: &Shown) {
    judge_in_rust(shown);
    tokio::task::block_in_place(|| {
        shown.judge(python);
        if let Some(program) = go(&shown.folder) {
            shown.judge(|| Command::new(&program));
        }
    });
}

/// Asks an issuer that sends whoever asks to another address, and prints why the verifier does not go there. It ends with an error if it does.
const REDIRECTED: &str = r#"
import io, sys, urllib.request, urllib.response
from email.message import Message

sys.path.insert(0, sys.argv[1])
import verify

def elsewhere(self, request):
    headers = Message()
    headers["Location"] = sys.argv[2]
    answer = urllib.response.addinfourl(io.BytesIO(b""), headers, request.full_url, 302)
    answer.msg = "Found"
    return answer

urllib.request.HTTPSHandler.https_open = elsewhere
urllib.request.HTTPHandler.http_open = lambda self, request: sys.exit("asked without TLS")
try:
    verify.keys_of("https://issuer.example")
except verify.Refused as refused:
    print(refused)
"#;

#[test]
fn the_python_verifier_follows_an_issuer_to_no_address_without_tls() {
    let mut command = Command::new(resolve(Tool::Anthropic).unwrap());
    let folder = examples().join("python");
    let output = command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-c", REDIRECTED])
        .arg(folder)
        .arg("http://issuer.example/keys")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("must come over https"), "{said}");
}

/// What an issuer signed properly, but at another time: with what is wrong with it, and the words of a refusal.
const OUT_OF_TIME: [(&str, [i64; 2], &str); 3] = [
    ("it expired a minute ago", [-960, -60], "expired"),
    ("it is valid in an hour", [3600, 4500], "not "),
    ("it is valid for two days", [0, 172_800], "more than a day"),
];

#[test]
fn every_verifier_refuses_what_its_issuer_signed_for_another_time() {
    let maker = TokenMaker::start(&Algorithm::ALL, KeySet::Plain).unwrap();
    let folder = std::env::temp_dir().join(format!("tokenscope-verifiers-{}", std::process::id()));
    let go = go(&folder);
    for algorithm in Algorithm::ALL {
        let now = Timestamp::now().as_second();
        let claims = |[from, to]: [i64; 2]| {
            json!({"iss": maker.url(), "sub": "orders", "aud": CLAUDE, "iat": now + from, "exp": now + to}).to_string()
        };
        let key = maker.key(algorithm).unwrap();
        let shown = Shown {
            token: key.token(&claims([0, 900])).unwrap(),
            issuer: maker.url().to_owned(),
            subject: "orders".to_owned(),
            lifetime: 900,
            keys: serde_json::from_slice(maker.keys()).unwrap(),
            folder: folder.clone(),
        };
        judge_in_rust(&shown);
        let mut programs: Vec<Box<dyn Fn() -> Command>> = vec![Box::new(python)];
        if let Some(program) = &go {
            programs.push(Box::new(move || Command::new(program)));
        }
        for program in programs {
            shown.judge(&program);
            for (what, times, words) in OUT_OF_TIME {
                let token = key.token(&claims(times)).unwrap();
                let refusal = shown.judged(&mut program(), &token, CLAUDE).unwrap_err();
                assert!(refusal.contains(words), "{what}: {refusal}");
            }
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verifier_takes_a_token_of_our_own_issuer_and_none_that_was_changed() {
    judge_in_all(&Shown::of_our_issuer("own-issuer").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verifier_takes_tokens_of_an_account_of_aws_with_either_algorithm_and_none_that_was_changed() {
    let shown = Shown::of_aws("of-aws").await;
    assert_eq!(shown.len(), 2);
    shown.iter().for_each(judge_in_all);
}
