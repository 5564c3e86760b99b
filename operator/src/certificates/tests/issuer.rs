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
    pub(super) fn admitted(world: &World) -> Self {
        Self {
            admitted: world.now,
            authorities: world.data("serving", "ca.crt").to_vec(),
        }
    }

    /// True if its sidecar takes what the issuer shows.
    pub(super) fn trusts(&self, world: &World) -> bool {
        let mut roots = RootCertStore::empty();
        for authority in Certificate::all_in(&self.authorities).0 {
            roots.add(authority.der().clone()).unwrap();
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let chain = Certificate::all_in(world.data("serving", "tls.crt")).0;
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|certificate| certificate.der().clone()).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(world.now.as_second().try_into().unwrap()));
        let name = ServerName::try_from(SERVICE).unwrap();
        let verified = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now);
        verified.is_ok()
    }
}

pub(super) fn world() -> World {
    let mut world = World::new();
    world.bundles = None;
    world.names = Names {
        trusting: Trusting::Pods,
        authority_secret: "tokenscope-issuer-ca".into(),
        serving_secret: "tokenscope-issuer-tls".into(),
        hosts: vec![SERVICE.into()],
    };
    world.settings = RotationSettings::new(
        LIFE.unsigned_abs(),
        Duration::from_secs(30 * 86400),
        Duration::from_secs(60),
    );
    world.settle();
    world.steps.clear();
    world
}

pub(super) fn crosses(world: &World) -> usize {
    Certificate::all_in(world.data("authority", "cross.crt")).0.len()
}

#[test]
fn every_pod_trusts_what_the_issuer_shows_for_at_least_a_third_of_the_authoritys_life() {
    let mut world = world();
    let mut pods = Vec::new();
    let end = world.now + LIFE * 3;
    while world.now < end {
        pods.push(Pod::admitted(&world));
        for _ in 0..3 {
            world.now += 10 * DAY;
            // Each step of a rotation waits for the overlap.
            for _ in 0..3 {
                world.settle();
                world.now += OVERLAP;
            }
            pods.retain(|pod| pod.admitted + LIFE / 3 > world.now);
            for pod in &pods {
                assert!(pod.trusts(&world), "admitted {}, now {}", pod.admitted, world.now);
            }
        }
    }
    let rotations = world.steps.iter();
    let rotations = rotations.filter(|step| **step == CertificateStep::CreateAuthority(IssueReason::Due));
    assert_eq!(rotations.count(), 4);
    assert_eq!(
        world.authorities().len(),
        1,
        "new pods are told of the present one alone"
    );
}

#[test]
fn a_rotation_that_somebody_asks_for_breaks_no_pod_at_any_moment_of_it() {
    let mut world = world();
    let old = Pod::admitted(&world);
    world.annotate("authority", "1");
    let mut pods = vec![old];
    for _ in 0..60 {
        world.pass(SignedDuration::from_secs(5));
        pods.push(Pod::admitted(&world));
        assert!(pods.iter().all(|pod| pod.trusts(&world)));
    }
    assert!(
        world
            .steps
            .contains(&CertificateStep::SignServing(IssueReason::NewAuthority))
    );
    assert_eq!(world.authorities().len(), 1);
    assert!(!pods[0].authorities.starts_with(world.data("authority", "tls.crt")));
}

#[test]
fn of_many_rotations_in_a_row_the_last_three_are_bridged_and_the_chain_stays_short() {
    let mut world = world();
    let mut pods = Vec::new();
    for value in ["1", "2", "3", "4", "5"] {
        pods.push(Pod::admitted(&world));
        world.annotate("authority", value);
        world.pass(HOUR);
        assert!(crosses(&world) <= 3);
    }
    let trusting: Vec<_> = pods.iter().map(|pod| pod.trusts(&world)).collect();
    assert_eq!(trusting, [false, false, true, true, true]);
}

#[test]
fn a_leaked_authority_vouches_for_nobody_and_pods_that_trust_it_have_to_start_anew() {
    let mut world = world();
    world.annotate("authority", "1");
    world.pass(HOUR);
    let old = Pod::admitted(&world);
    world.annotate_with("authority", DISTRUST, "leaked");
    world.settle();
    assert_eq!(crosses(&world), 0);
    assert!(
        !old.trusts(&world),
        "what the thief signs is all that it could tell apart"
    );
    assert!(Pod::admitted(&world).trusts(&world));
    let leaked = Certificate::all_in(&old.authorities).0;
    assert!(!world.authorities().iter().any(|authority| leaked.contains(authority)));
}

#[test]
fn a_deleted_authority_is_written_again_as_it_was_since_pods_trust_no_other() {
    let mut world = world();
    world.annotate("authority", "1");
    world.pass(HOUR);
    let (pod, authorities) = (Pod::admitted(&world), world.authorities());
    world.secrets.take_authority(None, world.now);
    world.settle();
    assert_eq!(world.authorities(), authorities);
    assert_eq!(crosses(&world), 1);
    world.secrets.take_authority(None, world.now);
    world.secrets.serving = None;
    world.pass(HOUR);
    assert!(
        pod.trusts(&world),
        "nor does it matter if the serving certificate went with it"
    );
}

#[test]
fn a_chain_that_was_cut_off_is_made_whole() {
    let mut world = world();
    let old = Pod::admitted(&world);
    world.annotate("authority", "1");
    world.pass(HOUR);
    let leaf = world.serving().unwrap().pem();
    world.damage("serving", "tls.crt", leaf.as_bytes());
    assert!(!old.trusts(&world));
    world.steps.clear();
    world.settle();
    assert_eq!(world.steps, [CertificateStep::SignServing(IssueReason::ChainBroken)]);
    assert!(old.trusts(&world));
}

#[test]
fn whoever_has_the_authority_can_pose_as_the_issuer_and_as_nobody_else() {
    let world = world();
    let [authority] = &*world.authorities() else {
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
    let mut older = World::new();
    older.names.serving_secret = "tokenscope-issuer-tls".into();
    older.names.hosts = vec![SERVICE.into()];
    older.settle();
    let pod = Pod::admitted(&older);

    let mut world = world();
    world.secrets = Secrets {
        serving: older.secrets.serving.clone(),
        ..Secrets::default()
    };
    world.settle();
    assert_eq!(
        world.steps[..2],
        [
            CertificateStep::CreateAuthority(IssueReason::Missing),
            CertificateStep::CopyBundle,
        ]
    );
    assert!(pod.trusts(&world) && Pod::admitted(&world).trusts(&world));
    let between = Pod::admitted(&world);
    world.pass(HOUR);
    assert!(between.trusts(&world) && !pod.trusts(&world));
    assert_eq!(world.authorities().len(), 1);
}
