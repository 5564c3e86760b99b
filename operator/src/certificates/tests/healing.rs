//! What is missing or damaged.

use super::*;

#[test]
fn an_empty_cluster_gets_an_authority_and_a_certificate_at_once() {
    let mut cluster = SimulatedCluster::new();
    cluster.settle();
    assert_eq!(
        cluster.steps,
        [
            CertificateStep::CreateAuthority(IssueReason::Missing),
            CertificateStep::SignServing(IssueReason::Missing)
        ]
    );

    let state = cluster.state();
    assert_eq!(state.trust, Trust::Confirmed);
    let serving = state.serving.unwrap();
    assert!(serving.by_authority && serving.names_fit);
    assert_eq!(serving.validity.not_after, cluster.now + 30 * DAY);
    assert_eq!(state.authority.unwrap().not_after, cluster.now + 365 * DAY);
    assert_eq!(cluster.data("serving", "ca.crt"), cluster.data("authority", "tls.crt"));
    assert!(cluster.serving().unwrap().names().iter().eq(&cluster.names.hosts));
}

#[test]
fn a_deleted_authority_is_made_anew_beside_the_old_one_that_is_still_known() {
    let mut cluster = SimulatedCluster::settled();
    cluster.pass(HOUR);
    let old = cluster.authorities();
    cluster.secrets.authority = None;
    cluster.settle();
    assert_eq!(cluster.steps[0], CertificateStep::CreateAuthority(IssueReason::Missing));
    assert_eq!(cluster.authorities().len(), 2);
    assert_eq!(cluster.authorities()[1], old[0]);
    cluster.pass(HOUR);
    assert_eq!(cluster.authorities().len(), 1);
    assert_ne!(cluster.authorities(), old);
}

#[test]
fn two_deleted_secrets_are_made_anew_and_what_webhooks_still_show_stays_trusted() {
    let mut cluster = SimulatedCluster::settled();
    cluster.pass(HOUR);
    cluster.secrets = Secrets::default();
    cluster.pass(HOUR);
    assert_eq!(cluster.steps[0], CertificateStep::CreateAuthority(IssueReason::Missing));
    assert_eq!(cluster.authorities().len(), 1);
}

#[test]
fn a_deleted_serving_certificate_is_signed_again_by_the_same_authority() {
    let mut cluster = SimulatedCluster::settled();
    let authorities = cluster.authorities();
    cluster.secrets.serving = None;
    cluster.settle();
    assert_eq!(cluster.steps, [CertificateStep::SignServing(IssueReason::Missing)]);
    assert_eq!(cluster.authorities(), authorities);
}

#[test]
fn whatever_is_damaged_is_healed() {
    use IssueReason::{KeyMismatch, Unreadable};

    let made_anew = CertificateStep::CreateAuthority;
    let signed_anew = |reason| CertificateStep::SignServing(reason);
    let (other_key, other_certificate) = {
        let other = SimulatedCluster::settled();
        (
            other.data("serving", "tls.key").to_vec(),
            other.data("serving", "tls.crt").to_vec(),
        )
    };
    let foreign_authority = SimulatedCluster::settled().data("authority", "tls.crt").to_vec();
    let cases: [(&str, &str, &[u8], CertificateStep); 11] = [
        ("authority", "tls.key", b"", made_anew(Unreadable)),
        (
            "authority",
            "tls.key",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            made_anew(Unreadable),
        ),
        ("authority", "tls.key", &other_key, made_anew(KeyMismatch)),
        ("authority", "tls.crt", b"\xff\x00", made_anew(Unreadable)),
        ("authority", "ca.crt", b"", CertificateStep::RepairBundle),
        (
            "authority",
            "ca.crt",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            CertificateStep::RepairBundle,
        ),
        ("authority", "ca.crt", &foreign_authority, CertificateStep::RepairBundle),
        ("serving", "tls.key", b"?", signed_anew(Unreadable)),
        ("serving", "tls.crt", b"", signed_anew(Unreadable)),
        ("serving", "tls.crt", &other_certificate, signed_anew(KeyMismatch)),
        ("serving", "ca.crt", b"", CertificateStep::CopyBundle),
    ];
    for (which, key, value, first) in cases {
        let mut cluster = SimulatedCluster::settled();
        cluster.pass(HOUR);
        cluster.damage(which, key, value);
        cluster.settle();
        assert_eq!(cluster.steps.first(), Some(&first), "{which} {key}");
        cluster.pass(HOUR);
        assert_eq!(cluster.authorities().len(), 1, "{which} {key}");
        assert!(cluster.state().serving.unwrap().by_authority, "{which} {key}");
    }
}

#[test]
fn a_pair_of_another_authority_is_not_served() {
    let mut cluster = SimulatedCluster::settled();
    let other = SimulatedCluster::settled();
    cluster.damage("serving", "tls.crt", other.data("serving", "tls.crt"));
    cluster.damage("serving", "tls.key", other.data("serving", "tls.key"));
    cluster.settle();
    assert_eq!(cluster.steps, [CertificateStep::SignServing(IssueReason::NotTrusted)]);
}

#[test]
fn after_a_long_sleep_everything_is_made_anew() {
    let mut cluster = SimulatedCluster::settled();
    cluster.now += 1000 * DAY;
    cluster.settle();
    assert_eq!(
        cluster.steps[0],
        CertificateStep::CreateAuthority(IssueReason::NotValidNow)
    );
    assert_eq!(cluster.authorities().len(), 1, "what has expired is not trusted");
}

#[test]
fn no_key_is_in_what_is_shown() {
    let cluster = SimulatedCluster::settled();
    let key = String::from_utf8(cluster.data("authority", "tls.key").to_vec()).unwrap();
    let shown = format!("{:?} {:?}", cluster.state(), cluster.serving());
    assert!(!shown.contains("PRIVATE") && !shown.contains(&key[40..60]));
}
