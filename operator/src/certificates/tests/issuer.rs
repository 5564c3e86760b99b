//! The issuer's authority, which pods trust for as long as they run.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;

const SERVICE: &str = "tokenscope-issuer.tokenscope-system.svc";
/// The life of the authority in these tests.
const LIFE: SignedDuration = SignedDuration::from_hours(24 * 900);

/// A pod: what its sidecar was told to trust when it was admitted.
pub(super) struct Pod {
    admitted: Timestamp,
    authorities: Vec<u8>,
}

impl Pod {
    pub(super) fn admitted(cluster: &SimulatedCluster) -> Self {
        Self {
            admitted: cluster.now,
            authorities: cluster.data("serving", "ca.crt").to_vec(),
        }
    }

    /// True if its sidecar takes what the issuer shows.
    pub(super) fn trusts(&self, cluster: &SimulatedCluster) -> bool {
        let mut roots = RootCertStore::empty();
        for authority in Certificate::all_in(&self.authorities).0 {
            roots.add(authority.der().clone()).unwrap();
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let chain = Certificate::all_in(cluster.data("serving", "tls.crt")).0;
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|certificate| certificate.der().clone()).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(cluster.now.as_second().try_into().unwrap()));
        let name = ServerName::try_from(SERVICE).unwrap();
        let verified = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now);
        verified.is_ok()
    }
}

pub(super) fn cluster() -> SimulatedCluster {
    let mut cluster = SimulatedCluster::new();
    cluster.bundles = None;
    cluster.names = Names {
        trusting: Trusting::Pods,
        authority_secret: "tokenscope-issuer-ca".into(),
        serving_secret: "tokenscope-issuer-tls".into(),
        hosts: vec![SERVICE.into()],
    };
    cluster.settings = RotationSettings::new(
        LIFE.unsigned_abs(),
        Duration::from_secs(30 * 86400),
        Duration::from_secs(60),
    );
    cluster.settle();
    cluster.steps.clear();
    cluster
}

pub(super) fn crosses(cluster: &SimulatedCluster) -> usize {
    Certificate::all_in(cluster.data("authority", "cross.crt")).0.len()
}

#[test]
fn every_pod_trusts_what_the_issuer_shows_for_at_least_a_third_of_the_authoritys_life() {
    let mut cluster = cluster();
    let mut pods = Vec::new();
    let end = cluster.now + LIFE * 3;
    while cluster.now < end {
        pods.push(Pod::admitted(&cluster));
        for _ in 0..3 {
            cluster.now += 10 * DAY;
            // Each step of a rotation waits for the overlap.
            for _ in 0..3 {
                cluster.settle();
                cluster.now += OVERLAP;
            }
            pods.retain(|pod| pod.admitted + LIFE / 3 > cluster.now);
            for pod in &pods {
                assert!(pod.trusts(&cluster), "admitted {}, now {}", pod.admitted, cluster.now);
            }
        }
    }
    let rotations = cluster.steps.iter();
    let rotations = rotations.filter(|step| **step == CertificateStep::CreateAuthority(IssueReason::Due));
    assert_eq!(rotations.count(), 4);
    assert_eq!(
        cluster.authorities().len(),
        1,
        "new pods are told of the present one alone"
    );
}

#[test]
fn a_rotation_that_somebody_asks_for_breaks_no_pod_at_any_moment_of_it() {
    let mut cluster = cluster();
    let old = Pod::admitted(&cluster);
    cluster.annotate("authority", "1");
    let mut pods = vec![old];
    for _ in 0..60 {
        cluster.pass(SignedDuration::from_secs(5));
        pods.push(Pod::admitted(&cluster));
        assert!(pods.iter().all(|pod| pod.trusts(&cluster)));
    }
    assert!(
        cluster
            .steps
            .contains(&CertificateStep::SignServing(IssueReason::NewAuthority))
    );
    assert_eq!(cluster.authorities().len(), 1);
    assert!(!pods[0].authorities.starts_with(cluster.data("authority", "tls.crt")));
}

#[test]
fn of_many_rotations_in_a_row_the_last_three_are_bridged_and_the_chain_stays_short() {
    let mut cluster = cluster();
    let mut pods = Vec::new();
    for value in ["1", "2", "3", "4", "5"] {
        pods.push(Pod::admitted(&cluster));
        cluster.annotate("authority", value);
        cluster.pass(HOUR);
        assert!(crosses(&cluster) <= 3);
    }
    let trusting: Vec<_> = pods.iter().map(|pod| pod.trusts(&cluster)).collect();
    assert_eq!(trusting, [false, false, true, true, true]);
}

#[test]
fn a_leaked_authority_vouches_for_nobody_and_pods_that_trust_it_have_to_start_anew() {
    let mut cluster = cluster();
    cluster.annotate("authority", "1");
    cluster.pass(HOUR);
    let old = Pod::admitted(&cluster);
    cluster.annotate_with("authority", DISTRUST, "leaked");
    cluster.settle();
    assert_eq!(crosses(&cluster), 0);
    assert!(
        !old.trusts(&cluster),
        "what the thief signs is all that it could tell apart"
    );
    assert!(Pod::admitted(&cluster).trusts(&cluster));
    let leaked = Certificate::all_in(&old.authorities).0;
    assert!(!cluster.authorities().iter().any(|authority| leaked.contains(authority)));
}

#[test]
fn a_deleted_authority_is_written_again_as_it_was_since_pods_trust_no_other() {
    let mut cluster = cluster();
    cluster.annotate("authority", "1");
    cluster.pass(HOUR);
    let (pod, authorities) = (Pod::admitted(&cluster), cluster.authorities());
    cluster.secrets.take_authority(None, cluster.now);
    cluster.settle();
    assert_eq!(cluster.authorities(), authorities);
    assert_eq!(crosses(&cluster), 1);
    cluster.secrets.take_authority(None, cluster.now);
    cluster.secrets.serving = None;
    cluster.pass(HOUR);
    assert!(
        pod.trusts(&cluster),
        "nor does it matter if the serving certificate went with it"
    );
}

#[test]
fn a_chain_that_was_cut_off_is_made_whole() {
    let mut cluster = cluster();
    let old = Pod::admitted(&cluster);
    cluster.annotate("authority", "1");
    cluster.pass(HOUR);
    let leaf = cluster.serving().unwrap().pem();
    cluster.damage("serving", "tls.crt", leaf.as_bytes());
    assert!(!old.trusts(&cluster));
    cluster.steps.clear();
    cluster.settle();
    assert_eq!(cluster.steps, [CertificateStep::SignServing(IssueReason::ChainBroken)]);
    assert!(old.trusts(&cluster));
}

#[test]
fn whoever_has_the_authority_can_pose_as_the_issuer_and_as_nobody_else() {
    let cluster = cluster();
    let [authority] = &*cluster.authorities() else {
        panic!("one")
    };
    assert!(
        authority
            .permitted_names
            .as_ref()
            .is_some_and(|names| names.iter().eq([SERVICE]))
    );
}

#[test]
fn a_certificate_of_the_webhooks_authority_from_an_older_version_serves_until_the_overlap_is_over() {
    let mut older = SimulatedCluster::new();
    older.names.serving_secret = "tokenscope-issuer-tls".into();
    older.names.hosts = vec![SERVICE.into()];
    older.settle();
    let pod = Pod::admitted(&older);

    let mut cluster = cluster();
    cluster.secrets = Secrets {
        serving: older.secrets.serving.clone(),
        ..Secrets::default()
    };
    cluster.settle();
    assert_eq!(
        cluster.steps[..2],
        [
            CertificateStep::CreateAuthority(IssueReason::Missing),
            CertificateStep::CopyBundle,
        ]
    );
    assert!(pod.trusts(&cluster) && Pod::admitted(&cluster).trusts(&cluster));
    let between = Pod::admitted(&cluster);
    cluster.pass(HOUR);
    assert!(between.trusts(&cluster) && !pod.trusts(&cluster));
    assert_eq!(cluster.authorities().len(), 1);
}
