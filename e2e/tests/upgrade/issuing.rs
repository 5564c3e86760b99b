//! The issuer and sidecars of both versions: tokens and pods of the one before and after the other's issuer took its place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokenscope_core::pod::SUBJECT_TOKEN_VOLUME;
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::eventually;
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, orders_may};
use tokenscope_e2e::forward::Forward;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::install::{Installed, Options};
use tokenscope_e2e::issuer::{assume, authority, exchange, sts};
use tokenscope_e2e::rollout::{Leaving, Rollout};
use tokenscope_e2e::sidecar::{FILE, Sidecar, program};
use tokenscope_e2e::token_maker::claims_of;
use tokenscope_fixtures::free_port;
use tokenscope_xtask::releases::LAST_PUBLISHED;

use crate::{SIDE_BY_SIDE, options_of};

/// The issuer of the tests. AWS allows no port in an issuer, so the name stands for an address on 127.0.0.1.
const URL: &str = "https://tokens.tokenscope.test";
const HOST: &str = "tokens.tokenscope.test";
const STS: &str = "sts.amazonaws.com";

/// An installation with an issuer.
fn with_issuer(options: Options) -> Options {
    Options {
        values: json!({"issuer": {"enabled": true, "url": URL}}),
        issuers: 1,
        operator_arguments: vec![format!("--issuer-extra-serving-name={HOST}")],
        ..options
    }
}

/// A pod of one version's webhook, with that version's sidecar.
struct Supplied {
    name: &'static str,
    /// What its kubelet brought the sidecar.
    subject: String,
    sidecar: Sidecar,
}

/// The cluster, and the address that stands for the issuer's Service.
struct Issuing<'a> {
    control_plane: &'a ControlPlane,
    shop: Shop<'a>,
    service: Forward,
}

impl Issuing<'_> {
    /// Creates a pod by the webhook that is installed, starts its sidecar with this program, and waits for its first token.
    async fn supply(&self, name: &'static str, program: PathBuf) -> Supplied {
        let shop = &self.shop;
        let pod = shop.granted(&shop.asking(name, ORDERS)).await.unwrap().body;
        let folder = self.control_plane.folder().join(name);
        let subject = self.subject(name, &folder).await;
        let service = format!("https://tokenscope-issuer.{NAMESPACE}.svc");
        let address = format!("https://127.0.0.1:{}", self.service.port());
        let reached = (&*service, &*address);
        let watchdog = self.control_plane.watchdog();
        let sidecar = Sidecar::of_pod_by(program, &pod, &folder, name, reached, watchdog).unwrap();
        let supplied = Supplied { name, subject, sidecar };
        supplied.wait().await;
        supplied
    }

    /// The pod's own token, where its kubelet puts it.
    async fn subject(&self, pod: &str, folder: &Path) -> String {
        let token = self.control_plane.pod_token(&self.shop.namespace, pod, URL, 3600);
        let token = token.await.unwrap();
        fs::create_dir_all(folder.join(SUBJECT_TOKEN_VOLUME)).unwrap();
        fs::write(folder.join(SUBJECT_TOKEN_VOLUME).join("token"), &token).unwrap();
        token
    }

    /// Leads sidecars to the issuer that is installed now, and lets the programs before it end.
    async fn hand_over(&self, rollout: &Rollout, leaving: Leaving) {
        self.service.add(rollout.installed().issuer(0).1);
        self.service.remove(leaving.installed().issuer(0).1);
        rollout.end(self.control_plane, leaving).await.unwrap();
    }

    /// Fails unless AWS, which reads the documents of this installation's issuer, takes each token.
    async fn aws_takes(&self, installed: &Installed, tokens: &[(&str, String)]) {
        let (_, port) = installed.issuer(0);
        let authorities = authority(&self.shop.client).await.unwrap();
        let trusted = trust_policy();
        let sts = sts(URL, &authorities, port, (ORDERS, &trusted)).await.unwrap();
        for (what, token) in tokens {
            let (status, answer) = assume(&sts, ORDERS, token).await.unwrap();
            assert_eq!(status, 200, "{what}: {answer}");
        }
    }

    /// Fails unless this issuer gives each pod a token for its own.
    async fn issues_to(&self, installed: &Installed, pods: &[&Supplied]) {
        let (_, port) = installed.issuer(0);
        let authorities = authority(&self.shop.client).await.unwrap();
        for pod in pods {
            let what = format!("the issuer gives pod {} a token", pod.name);
            eventually(PROPAGATION, what, async || {
                let (status, answer) = exchange(port, &authorities, &pod.subject, STS).await?;
                ensure!(status == 200, "{status} {answer}");
                let token = answer["access_token"].as_str().context("a token")?;
                let issuer = &claims_of(token)?["iss"];
                ensure!(issuer == URL, "by {issuer}");
                Ok(())
            })
            .await
            .unwrap();
        }
    }
}

impl Supplied {
    /// Waits for a token in the sidecar's file, and gives its text.
    async fn wait(&self) -> String {
        let what = format!("the sidecar of pod {} has a token", self.name);
        self.sidecar.wait_for(PROPAGATION, &what, |_| true).await.unwrap();
        self.token()
    }

    fn token(&self) -> String {
        fs::read_to_string(self.sidecar.directory().join(FILE)).unwrap()
    }

    /// Has the sidecar fetch its token anew, as when its container starts again on another volume.
    async fn renewed(&self) -> String {
        let before = self.token();
        self.sidecar.process.kill().unwrap();
        fs::remove_file(self.sidecar.directory().join(FILE)).unwrap();
        self.sidecar.process.restart().unwrap();
        let token = self.wait().await;
        assert_ne!(token, before, "{} got a token of its own", self.name);
        assert_eq!(self.sidecar.probe().unwrap(), Ok(()), "{}", self.name);
        token
    }
}

/// Grants the role by tokens of the issuer, with a session tag.
fn policy() -> Value {
    let mut policy = orders_may(&[ORDERS]);
    policy["token"] = json!({"source": "Issuer"});
    policy["claims"] = json!({"principalTags": {"team": "${namespace}"}});
    policy
}

/// Lets the pods of the shop take the role.
fn trust_policy() -> Value {
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"Federated": format!("arn:aws:iam::111122223333:oidc-provider/{HOST}")},
        "Action": ["sts:AssumeRoleWithWebIdentity", "sts:TagSession"],
        "Condition": {"StringEquals": {
            format!("{HOST}:aud"): STS,
            format!("{HOST}:sub"): "system:serviceaccount:shop:orders",
            "aws:RequestTag/team": "shop",
        }},
    }]})
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_sidecars_of_either_version_go_on_when_the_other_versions_issuer_takes_its_place() {
    let Some(built) = LAST_PUBLISHED.build().unwrap() else {
        return;
    };
    let old = with_issuer(options_of(&built));
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let mut rollout = Rollout::start(&control_plane, old.clone()).await.unwrap();
    let service = Forward::listen(free_port().unwrap()).unwrap();
    service.add(rollout.installed().issuer(0).1);
    let cluster = Issuing {
        control_plane: &control_plane,
        shop: Shop::open(&control_plane, "shop", &[]).await.unwrap(),
        service,
    };
    cluster.shop.policy("orders", policy()).await.unwrap();
    let of_old = cluster.supply("old", built.programs.join("tokenscope-sidecar")).await;
    let before = of_old.token();
    cluster
        .aws_takes(rollout.installed(), &[("before the upgrade", before.clone())])
        .await;

    // Both issuers answer, with one set of keys.
    let leaving = rollout
        .begin(&control_plane, "next-", with_issuer(Options::default()))
        .await
        .unwrap();
    for installed in [leaving.installed(), rollout.installed()] {
        cluster.issues_to(installed, &[&of_old]).await;
        cluster
            .aws_takes(installed, &[("while both run", before.clone())])
            .await;
    }
    cluster.hand_over(&rollout, leaving).await;

    let by_new = of_old.renewed().await;
    let of_new = cluster.supply("new", program().unwrap()).await;
    cluster.issues_to(rollout.installed(), &[&of_old, &of_new]).await;
    let after = of_new.token();
    let tokens = [
        ("of before the upgrade", before.clone()),
        ("of the old sidecar, by the new issuer", by_new.clone()),
        ("of the new sidecar, by the new issuer", after.clone()),
    ];
    cluster.aws_takes(rollout.installed(), &tokens).await;

    // The way back.
    let leaving = rollout.begin(&control_plane, "back-", old).await.unwrap();
    tokio::time::sleep(SIDE_BY_SIDE).await;
    cluster.hand_over(&rollout, leaving).await;
    cluster.issues_to(rollout.installed(), &[&of_old, &of_new]).await;
    let tokens = [
        ("of before the upgrade", before),
        ("of the old sidecar, by the new issuer", by_new),
        ("of the new sidecar, by the new issuer", after),
        ("of the old sidecar, on the way back", of_old.renewed().await),
        ("of the new sidecar, by the old issuer", of_new.renewed().await),
    ];
    cluster.aws_takes(rollout.installed(), &tokens).await;
}
