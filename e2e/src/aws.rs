//! Somebody else's STS, IAM and S3 (VersityGW) in a cluster's network, which decides about tokens by itself: it fetches
//! the issuer's keys, checks signature, issuer, audience, subject and age, and evaluates the roles' trust policies.
//!
//! The cluster's issuer is published at its name, as [`IssuerSite`] does it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_xtask::tools::{Tool, resolve};

use crate::control_plane::ISSUER;
use crate::issuer_site::{IssuerSite, folder};
use crate::node::{NOTICED, Node};
use crate::pki::{CertificateAuthority, IssuedCertificate};

/// The address of the stand-in and of the published issuer; RFC 5737.
pub const ADDRESS: &str = "198.51.100.10";

/// The stand-in's only account.
pub const ACCOUNT: &str = "000000000000";

/// The region it answers for; that of signatures for IAM, which has no other.
pub const REGION: &str = "us-east-1";

/// The key of its administrator.
const KEY: (&str, &str) = ("administrator", "of-a-test-only");

/// Calls of AWS APIs, one after another: `[{"service", "call", "with"}]`. Prints the answers as JSON.
const CALLS: &str = "
import json, sys, boto3, botocore.config
clients = {}
answers = []
for step in json.load(sys.stdin):
    service = step['service']
    client = clients.get(service) or boto3.client(service)
    clients[service] = client
    answer = getattr(client, step['call'])(**step['with'])
    answer.pop('ResponseMetadata', None)
    if 'Body' in answer:
        answer['Body'] = answer['Body'].read().decode()
    answers.append(answer)
print(json.dumps(answers, default=str))
";

/// A running stand-in. It ends with the cluster.
#[derive(Debug)]
pub struct Aws {
    python: PathBuf,
    authority: CertificateAuthority,
}

impl Aws {
    /// Publishes the cluster's issuer, starts the stand-in, and makes the issuer known to it.
    pub fn start(node: &Node) -> Result<Self> {
        let gateway = resolve(Tool::VersityGateway)?;
        let aws = Self {
            python: resolve(Tool::Boto3)?,
            authority: CertificateAuthority::new("tokenscope aws")?,
        };
        let folder = folder(node);
        for part in ["iam", "s3", "metadata"] {
            fs::create_dir_all(folder.join(part))?;
        }
        aws.write_certificates(&folder)?;
        cluster_issuer().publish(node, &aws.authority)?;
        node.apply(&names())?;
        aws.start_iam(node, &gateway, &folder)?;
        aws.start_s3(node, &gateway, &folder)?;
        aws.call(
            node,
            &[json!({
                "service": "iam", "call": "create_open_id_connect_provider",
                "with": {"Url": ISSUER, "ClientIDList": ["sts.amazonaws.com"]},
            })],
        )?;
        Ok(aws)
    }

    fn write_certificates(&self, folder: &Path) -> Result<()> {
        let authority = &self.authority;
        fs::write(folder.join("ca.crt"), authority.certificate())?;
        authority.server(&["127.0.0.1"])?.write(folder, "iam")?;
        authority.client("gateway", "gateways")?.write(folder, "gateway")?;
        Ok(())
    }

    /// Starts STS and IAM. The gateway asks them as soon as it starts.
    fn start_iam(&self, node: &Node, gateway: &Path, folder: &Path) -> Result<()> {
        let (administrator, folder) = (administrator(), folder.display());
        let arguments = format!(
            "{administrator} --port {ADDRESS}:7078 iam --dir {folder}/iam --private-ports 127.0.0.1:7079 \
             --private-cert {folder}/iam.crt --private-cert-key {folder}/iam.key --private-client-ca {folder}/ca.crt"
        );
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let trusts = format!("{folder}/ca.crt");
        node.serve("aws-iam", gateway, &arguments, &[("SSL_CERT_FILE", &trusts)])?;
        self.answers(node, "iam", "list_roles")
    }

    /// Starts S3.
    fn start_s3(&self, node: &Node, gateway: &Path, folder: &Path) -> Result<()> {
        let (administrator, folder) = (administrator(), folder.display());
        let arguments = format!(
            "{administrator} --port {ADDRESS}:7077 --iam-standalone-endpoint 127.0.0.1:7079 \
             --iam-standalone-client-cert {folder}/gateway.crt --iam-standalone-client-cert-key {folder}/gateway.key \
             --iam-standalone-server-ca {folder}/ca.crt posix --sidecar {folder}/metadata {folder}/s3"
        );
        let arguments: Vec<&str> = arguments.split(' ').collect();
        node.serve("aws-s3", gateway, &arguments, &[])?;
        self.answers(node, "s3", "list_buckets")
    }

    /// The variables by which a container finds it: the two that every SDK knows.
    pub fn environment() -> Vec<Value> {
        vec![
            json!({"name": "AWS_ENDPOINT_URL_STS", "value": format!("http://{ADDRESS}:7078")}),
            json!({"name": "AWS_ENDPOINT_URL_S3", "value": format!("http://{ADDRESS}:7077")}),
        ]
    }

    /// The authority of issuers' certificates, which the stand-in trusts.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// A certificate for another issuer, of an authority that the stand-in trusts.
    pub fn certificate_for(&self, host: &str) -> Result<IssuedCertificate> {
        self.authority.server(&[host])
    }

    /// Makes a role with this trust policy that may use a bucket, which is made, too.
    pub fn role(&self, node: &Node, name: &str, path: &str, trust_policy: &str, bucket: &str) -> Result<()> {
        let permissions = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": format!("arn:aws:s3:::{bucket}/*"),
        }]});
        self.call(
            node,
            &[
                json!({"service": "s3", "call": "create_bucket", "with": {"Bucket": bucket}}),
                json!({"service": "iam", "call": "create_role", "with": {
                    "RoleName": name, "Path": path, "AssumeRolePolicyDocument": trust_policy,
                }}),
                json!({"service": "iam", "call": "put_role_policy", "with": {
                    "RoleName": name, "PolicyName": "bucket", "PolicyDocument": permissions.to_string(),
                }}),
            ],
        )?;
        Ok(())
    }

    /// The text of an object.
    pub fn object(&self, node: &Node, bucket: &str, key: &str) -> Result<String> {
        let answers = self.call(
            node,
            &[json!({"service": "s3", "call": "get_object", "with": {"Bucket": bucket, "Key": key}})],
        )?;
        let text = answers[0]["Body"].as_str();
        Ok(text.context("an object has a body")?.to_owned())
    }

    /// Calls AWS APIs as the stand-in's administrator.
    pub fn call(&self, node: &Node, calls: &[Value]) -> Result<Vec<Value>> {
        let sts = format!("AWS_ENDPOINT_URL_IAM=http://{ADDRESS}:7078");
        let s3 = format!("AWS_ENDPOINT_URL_S3=http://{ADDRESS}:7077");
        let region = format!("AWS_DEFAULT_REGION={REGION}");
        let key = format!("AWS_ACCESS_KEY_ID={}", KEY.0);
        let secret = format!("AWS_SECRET_ACCESS_KEY={}", KEY.1);
        let python = self.python.display().to_string();
        let text = node.run(
            "env",
            &[&sts, &s3, &region, &key, &secret, &python, "-c", CALLS],
            &json!(calls).to_string(),
        )?;
        let answers: Vec<Value> = serde_json::from_str(&text)?;
        ensure!(answers.len() == calls.len(), "{text}");
        Ok(answers)
    }

    fn answers(&self, node: &Node, service: &str, call: &str) -> Result<()> {
        node.eventually(NOTICED, &format!("the stand-in's {service} answers"), || {
            self.call(node, &[json!({"service": service, "call": call, "with": {}})])
        })?;
        Ok(())
    }
}

/// The cluster's own issuer, which the API server has the documents of.
pub(crate) fn cluster_issuer() -> IssuerSite<'static> {
    let document = |path| (path, format!("/{path}"));
    IssuerSite {
        url: ISSUER,
        address: ADDRESS,
        documents: [document(".well-known/openid-configuration"), document("openid/v1/jwks")],
    }
}

/// The flags that all servers of the stand-in have.
fn administrator() -> String {
    format!("--region {REGION} --access {} --secret {}", KEY.0, KEY.1)
}

/// The issuer's name for pods: the cluster's DNS server answers for the Services of this namespace.
fn names() -> Vec<Value> {
    let namespace = "tokenscope-test";
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "oidc", "namespace": namespace},
            "spec": {"clusterIP": "None", "ports": [{"name": "https", "port": 443}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "oidc", "namespace": namespace, "labels": {"kubernetes.io/service-name": "oidc"},
            },
            "addressType": "IPv4", "ports": [{"name": "https", "port": 443}],
            "endpoints": [{"addresses": [ADDRESS]}],
        }),
    ]
}
