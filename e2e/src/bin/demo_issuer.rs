//! Two tenants with one policy, isolated by the tags of their tokens, on a real API server and with a strict STS; and how Aporeto's
//! calls are made here.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tokenscope_core::pod::SUBJECT_TOKEN_VOLUME;
use tokenscope_e2e::fixtures::{PROPAGATION, Shop};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::install::Options;
use tokenscope_e2e::issuer::{assume, authority, document, exchange, sts, tag_condition};
use tokenscope_e2e::output::{DemoOutput, exit_code};
use tokenscope_e2e::sidecar::{FILE, Sidecar};
use tokenscope_e2e::token_maker::claims_of;
use tokenscope_e2e::{Environment, eventually, get_json, merge};
use tokenscope_sts::Server;

/// Shows tokens of tokenscope's own issuer on a real API server: two tenants, isolated by tags.
///
/// Example: cargo xtask demo --issuer --keep
#[derive(Parser)]
#[command(name = "cargo xtask demo --issuer", bin_name = "cargo xtask demo --issuer")]
struct Arguments {
    /// Leave everything running and print the kubeconfig; Ctrl-C ends it
    #[arg(long)]
    keep: bool,
    /// Show the whole pod as it came out of the API server
    #[arg(short, long)]
    verbose: bool,
}

/// The issuer. AWS allows no port in it, so the name stands for an address on 127.0.0.1.
const URL: &str = "https://tokens.tokenscope.test";
const HOST: &str = "tokens.tokenscope.test";
const STS: &str = "sts.amazonaws.com";
const ROLE: &str = "arn:aws:iam::111122223333:role/tenant";
const TENANTS: [&str; 2] = ["blue", "red"];
const POLICY: &str = "\
apiVersion: tokenscope.io/v1alpha1
kind: ClusterTokenScopePolicy
metadata: {name: tenants}
spec:
  description: every team has the same role, and its own tag
  namespaceSelector:
    matchExpressions: [{key: team, operator: Exists}]
  subjects:
  - serviceAccounts: [orders]
  roles:
    allowed: [\"arn:aws:iam::111122223333:role/tenant\"]
  audiences: {allowed: [sts.amazonaws.com]}
  token: {source: Issuer}
  claims:
    principalTags: {team: \"${namespace.labels['team']}\", app: \"${pod.labels['app']}\"}
    sourceIdentity: \"${namespace}.${serviceAccount}\"
";

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(demo(&Arguments::parse()).await)
}

/// A tenant's pod, whose sidecar has its token.
struct Tenant<'a> {
    shop: Shop<'a>,
    sidecar: Sidecar,
    /// The pod's own token, which the sidecar exchanges.
    subject: String,
}

impl Tenant<'_> {
    fn token(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.sidecar.directory().join(FILE))?)
    }
}

async fn demo(arguments: &Arguments) -> Result<()> {
    let tell = DemoOutput::new();
    tell.step("A real Kubernetes API server, and tokenscope with its issuer, as its Helm charts install it");
    let values = json!({"issuer": {"enabled": true, "url": URL}});
    tell.quote(&format!("values: {values}"));
    let environment = Environment::start(Options {
        values,
        issuers: 1,
        operator_arguments: vec![format!("--issuer-extra-serving-name={HOST}")],
        ..Options::default()
    })
    .await?;
    tell.done("operator, webhook and issuer are ready");

    let control_plane = &environment.control_plane;
    let [blue, red] = TENANTS;
    let shops = [
        Shop::open(control_plane, blue, &[("team", blue)]).await?,
        Shop::open(control_plane, red, &[("team", red)]).await?,
    ];
    let trust_policy = show_policy(&tell, &environment).await?;
    let tenants = show_pods(&tell, &environment, shops, arguments.verbose).await?;
    let port = environment.installed.issuer(0).1;
    let authorities = authority(&environment.control_plane.client().await?).await?;
    let [blue, red] = &tenants;
    show_isolation(&tell, (port, &authorities), &trust_policy, blue, red).await?;
    show_immutable_record(&tell, (port, &authorities), red).await?;
    show_aporeto(&tell, (port, &authorities), blue).await?;

    if arguments.keep {
        tell.step("Everything keeps running until Ctrl-C");
        println!(
            "  export KUBECONFIG={}",
            environment.control_plane.kubeconfig().display()
        );
        println!("  kubectl get clustertokenscopepolicies,pods --all-namespaces");
        tokio::signal::ctrl_c().await?;
    }
    println!("\nTeam blue has its session, and team red is refused");
    Ok(())
}

/// The trust policy that the operator wrote for the role.
async fn show_policy(tell: &DemoOutput, environment: &Environment) -> Result<Value> {
    tell.step("One policy for all tenants: their tokens say which team they are of");
    let control_plane = &environment.control_plane;
    tell.quote(POLICY);
    control_plane.apply_yaml(POLICY).await?;
    let client = control_plane.client().await?;
    let path = "/apis/tokenscope.io/v1alpha1/clustertokenscopepolicies/tenants";
    let document = eventually(PROPAGATION, "the status has a trust policy", async || {
        let policy = get_json(&client, path).await?;
        let document = policy["status"]["trustPolicies"][0]["document"].as_str();
        let document = document.with_context(|| policy["status"].to_string())?;
        ensure!(TENANTS.iter().all(|team| document.contains(team)), "{document}");
        Ok(document.to_owned())
    })
    .await?;
    tell.quote(&format!("status.trustPolicies:\n{document}"));
    tell.done("the operator accepted it, and wrote the trust policy that the role needs");
    Ok(serde_json::from_str(&document)?)
}

async fn show_pods<'a>(
    tell: &DemoOutput,
    environment: &'a Environment,
    [blue, red]: [Shop<'a>; 2],
    verbose: bool,
) -> Result<[Tenant<'a>; 2]> {
    tell.step("A pod of each team, whose sidecar exchanges the pod's own token");
    let tenants = [start(environment, blue).await?, start(environment, red).await?];
    for tenant in &tenants {
        let claims = claims_of(&tenant.token()?)?;
        let tags = &claims["https://aws.amazon.com/tags"]["principal_tags"];
        tell.quote(&format!(
            "team {}: sub {} tags {tags}",
            tenant.shop.namespace, claims["sub"]
        ));
        if verbose {
            let pod = get_json(&tenant.shop.client, &tenant.shop.path("pods/orders-1")).await?;
            tell.quote(&serde_json::to_string_pretty(&pod)?);
        }
    }
    tell.done("each token says its own team, with no code in the application");
    Ok(tenants)
}

async fn start<'a>(environment: &'a Environment, shop: Shop<'a>) -> Result<Tenant<'a>> {
    let control_plane = &environment.control_plane;
    let team = shop.namespace.as_str();
    let mut pod = shop.asking("orders-1", ROLE);
    pod["metadata"]["labels"] = json!({"app": "orders"});
    let admitted = shop.granted(&pod).await?.body;
    let subject = control_plane.pod_token(team, "orders-1", URL, 3600).await?;
    let folder = control_plane.folder().join(team);
    std::fs::create_dir_all(folder.join(SUBJECT_TOKEN_VOLUME))?;
    std::fs::write(folder.join(SUBJECT_TOKEN_VOLUME).join("token"), &subject)?;
    let service = format!("https://tokenscope-issuer.{NAMESPACE}.svc");
    let address = format!("https://127.0.0.1:{}", environment.installed.issuer(0).1);
    let reached = (service.as_str(), address.as_str());
    let sidecar = Sidecar::of_pod(&admitted, &folder, "sidecar", reached, control_plane.watchdog())?;
    sidecar
        .wait_for(PROPAGATION, "the token is in its file", |_| true)
        .await?;
    Ok(Tenant { shop, sidecar, subject })
}

/// The role of team blue at an STS that checks what AWS checks.
async fn show_isolation(
    tell: &DemoOutput,
    (port, authorities): (u16, &str),
    trust_policy: &Value,
    blue: &Tenant<'_>,
    red: &Tenant<'_>,
) -> Result<()> {
    tell.step("A role whose trust policy also asks for team blue, at an STS that checks what AWS checks");
    let mut trusted = trust_policy.clone();
    tag_condition(&mut trusted, "team", "blue");
    tell.quote(&serde_json::to_string_pretty(&trusted)?);
    let sts = sts(URL, authorities, port, (ROLE, &trusted)).await?;
    let (status, answer) = assume(&sts, ROLE, &blue.token()?).await?;
    ensure!(status == 200, "team blue is refused: {answer}");
    tell.quote(&format!("team blue: a session with the tags {}", tags(&sts, &answer)?));
    let (status, answer) = assume(&sts, ROLE, &red.token()?).await?;
    ensure!(status == 403, "team red is not refused: {status} {answer}");
    tell.quote(&format!(
        "team red: {status} {}",
        between(&answer, "<Message>").unwrap_or(&answer)
    ));
    sts.stop().await;
    tell.done("AWS tells the tenants apart, for the role and by ${aws:PrincipalTag/team} in any policy of a bucket");
    Ok(())
}

fn tags(sts: &Server, answer: &str) -> Result<Value> {
    let key = between(answer, "<AccessKeyId>").context("an answer has a key")?;
    let session = sts.session(key).context("the session is known")?;
    Ok(json!(session.principal_tags))
}

fn between<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    text.split(tag).nth(1)?.split('<').next()
}

async fn show_immutable_record(tell: &DemoOutput, (port, authorities): (u16, &str), red: &Tenant<'_>) -> Result<()> {
    tell.step("Somebody who may edit pods of team red changes the label that a tag is made of");
    let path = red.shop.path("pods/orders-1");
    let change = json!({"metadata": {"labels": {"app": "bank"}}});
    merge(&red.shop.client, &path, &change).await?;
    tell.quote("kubectl label pod orders-1 --overwrite app=bank");
    let (status, answer) = exchange(port, authorities, &red.subject, STS).await?;
    ensure!(status == 200, "{status} {answer}");
    let claims = claims_of(answer["access_token"].as_str().context("a token")?)?;
    let app = &claims["https://aws.amazon.com/tags"]["principal_tags"]["app"];
    ensure!(*app == json!(["orders"]), "the tag is {app}");
    tell.quote(&format!("the next token: app {app}"));
    tell.done("a token says what admission decided on, whatever the pod says now");
    Ok(())
}

/// The calls of Aporeto's documentation, as far as an issuer goes.
async fn show_aporeto(tell: &DemoOutput, (port, authorities): (u16, &str), blue: &Tenant<'_>) -> Result<()> {
    tell.step("Aporeto's calls, as they are made here");
    let path = "/.well-known/openid-configuration";
    let (_, discovery) = document(port, authorities, path).await?;
    tell.quote(&format!("GET /namespaces/:id/oauthinfo  →  GET {path}\n{discovery}"));
    let (_, keys) = document(port, authorities, "/keys").await?;
    let key = &keys["keys"][0];
    tell.quote(&format!(
        "GET /namespaces/:id/oauthkeys  →  GET /keys\nkid {} alg {}",
        key["kid"], key["alg"]
    ));
    let claims = claims_of(&blue.token()?)?;
    let scopes = &claims["https://aws.amazon.com/tags"]["principal_tags"];
    tell.quote(&format!(
        "GET /token?audience={STS}  →  POST /token (RFC 8693), by the sidecar\naud {}, and in place of scopes: {scopes}",
        claims["aud"]
    ));
    let (status, answer) = exchange(port, authorities, &blue.subject, "https://elsewhere.example").await?;
    ensure!(status == 400, "another audience is granted: {answer}");
    tell.quote(&format!(
        "an audience that no policy assigns: {}",
        answer["error_description"]
    ));

    let client = &blue.shop.client;
    let policy = "/apis/tokenscope.io/v1alpha1/clustertokenscopepolicies/tenants";
    merge(client, policy, &json!({"spec": {"disabled": true}})).await?;
    let refusal = eventually(
        Duration::from_secs(90),
        "a disabled policy grants nothing",
        async || {
            let (status, answer) = exchange(port, authorities, &blue.subject, STS).await?;
            ensure!(status == 400, "{status}");
            Ok(answer["error_description"].as_str().unwrap_or_default().to_owned())
        },
    )
    .await?;
    tell.quote(&format!("disabled: {refusal}"));
    tell.done("one issuer serves all namespaces, since the subject names the namespace");
    Ok(())
}
