//! What is missing or damaged.

use super::*;

#[test]
fn an_empty_cluster_gets_an_authority_and_a_certificate_at_once() {
    let mut world = World::new();
    world.settle();
    assert_eq!(
        world.steps,
        [
            CertificateStep::CreateAuthority(IssueReason::Missing),
            CertificateStep::SignServing(IssueReason::Missing)
        ]
    );

    let state = world.state();
    assert_eq!(state.trust, Trust::Confirmed);
    let serving = state.serving.unwrap();
    assert!(serving.by_authority && serving.names_fit);
    assert_eq!(serving.validity.not_after, world.now + 30 * DAY);
    assert_eq!(state.authority.unwrap().not_after, world.now + 365 * DAY);
    assert_eq!(world.data("serving", "ca.crt"), world.data("authority", "tls.crt"));
    assert!(world.serving().unwrap().names().iter().eq(&world.names.hosts));
}

#[test]
fn a_deleted_authority_is_made_anew_beside_the_old_one_that_is_still_known() {
    let mut world = World::settled();
    world.pass(HOUR);
    let old = world.authorities();
    world.secrets.authority = None;
    world.settle();
    assert_eq!(world.steps[0], CertificateStep::CreateAuthority(IssueReason::Missing));
    assert_eq!(world.authorities().len(), 2);
    assert_eq!(world.authorities()[1], old[0]);
    world.pass(HOUR);
    assert_eq!(world.authorities().len(), 1);
    assert_ne!(world.authorities(), old);
}

#[test]
fn two_deleted_secrets_are_made_anew_and_what_webhooks_still_show_stays_trusted() {
    let mut world = World::settled();
    world.pass(HOUR);
    world.secrets = Secrets::default();
    world.pass(HOUR);
    assert_eq!(world.steps[0], CertificateStep::CreateAuthority(IssueReason::Missing));
    assert_eq!(world.authorities().len(), 1);
}

#[test]
fn a_deleted_serving_certificate_is_signed_again_by_the_same_authority() {
    let mut world = World::settled();
    let authorities = world.authorities();
    world.secrets.serving = None;
    world.settle();
    assert_eq!(world.steps, [CertificateStep::SignServing(IssueReason::Missing)]);
    assert_eq!(world.authorities(), authorities);
}

#[test]
fn whatever_is_damaged_is_healed() {
    use IssueReason::{KeyMismatch, Unreadable};

    let made_anew = CertificateStep::CreateAuthority;
    let signed_anew = |reason| CertificateStep::SignServing(reason);
    let (other_key, other_certificate) = {
        let other = World::settled();
        (
            other.data("serving", "tls.key").to_vec(),
            other.data("serving", "tls.crt").to_vec(),
        )
    };
    let foreign_authority = World::settled().data("authority", "tls.crt").to_vec();
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
        let mut world = World::settled();
        world.pass(HOUR);
        world.damage(which, key, value);
        world.settle();
        assert_eq!(world.steps.first(), Some(&first), "{which} {key}");
        world.pass(HOUR);
        assert_eq!(world.authorities().len(), 1, "{which} {key}");
        assert!(world.state().serving.unwrap().by_authority, "{which} {key}");
    }
}

#[test]
fn a_pair_of_another_authority_is_not_served() {
    let mut world = World::settled();
    let other = World::settled();
    world.damage("serving", "tls.crt", other.data("serving", "tls.crt"));
    world.damage("serving", "tls.key", other.data("serving", "tls.key"));
    world.settle();
    assert_eq!(world.steps, [CertificateStep::SignServing(IssueReason::NotTrusted)]);
}

#[test]
fn after_a_long_sleep_everything_is_made_anew() {
    let mut world = World::settled();
    world.now += 1000 * DAY;
    world.settle();
    assert_eq!(
        world.steps[0],
        CertificateStep::CreateAuthority(IssueReason::NotValidNow)
    );
    assert_eq!(world.authorities().len(), 1, "what has expired is not trusted");
}

#[test]
fn no_key_is_in_what_is_shown() {
    let world = World::settled();
    let key = String::from_utf8(world.data("authority", "tls.key").to_vec()).unwrap();
    let shown = format!("{:?} {:?}", world.state(), world.serving());
    assert!(!shown.contains("PRIVATE") && !shown.contains(&key[40..60]));
}
