//! Two serving certificates of one authority: the webhook's and the issuer's.

use super::*;

fn issuer() -> ServingNames {
    ServingNames {
        secret: "tokenscope-issuer-tls".into(),
        hosts: vec!["tokenscope-issuer.tokenscope-system.svc".into()],
    }
}

fn certificate(world: &World, at: usize) -> Certificate {
    let secret = world.secrets.serving[at].as_ref().unwrap();
    let text = &secret.data.as_ref().unwrap()["tls.crt"].0;
    Certificate::all_in(text).0.into_iter().next().unwrap()
}

fn settled_with_both(world: &World) {
    for secret in world.state().serving {
        let serving = secret.certificate.unwrap();
        assert!(serving.by_authority && serving.names_fit && secret.bundle_is_copied);
    }
    assert!(
        certificate(world, 1)
            .names()
            .iter()
            .eq(["tokenscope-issuer.tokenscope-system.svc"]),
        "each certificate is for its own names alone"
    );
}

#[test]
fn an_issuer_from_the_start_has_its_certificate_at_once() {
    let mut world = World::new();
    world.names.serving.push(issuer());
    world.settle();
    assert_eq!(
        world.steps,
        [
            CertificateStep::CreateAuthority(IssueReason::Missing),
            CertificateStep::SignServing(0, IssueReason::Missing),
            CertificateStep::SignServing(1, IssueReason::Missing),
        ]
    );
    settled_with_both(&world);
}

#[test]
fn an_issuer_that_comes_later_is_served_at_once_and_the_webhook_never_shows_what_is_not_trusted() {
    let mut world = World::settled();
    world.pass(HOUR);
    world.names.serving.push(issuer());
    world.settle();
    assert_eq!(
        world.steps[..2],
        [
            CertificateStep::CreateAuthority(IssueReason::OtherNames),
            CertificateStep::SignServing(1, IssueReason::Missing),
        ],
        "the old authority may not sign for it"
    );
    world.pass(HOUR);
    settled_with_both(&world);
    assert_eq!(world.authorities().len(), 1, "the rotation came to its end");
}

#[test]
fn a_rotation_of_the_authority_renews_both_and_waits_for_both() {
    let mut world = World::new();
    world.names.serving.push(issuer());
    world.settle();
    let before = [0, 1].map(|at| certificate(&world, at));
    world.pass(HOUR);
    world.annotate("authority", "1");
    world.pass(HOUR);
    settled_with_both(&world);
    assert!([0, 1].into_iter().all(|at| certificate(&world, at) != before[at]));
    assert_eq!(world.authorities().len(), 1);
}

#[test]
fn a_deleted_secret_of_the_issuer_touches_nothing_of_the_webhook() {
    let mut world = World::new();
    world.names.serving.push(issuer());
    world.settle();
    world.steps.clear();
    world.secrets.serving[1] = None;
    world.settle();
    assert_eq!(world.steps, [CertificateStep::SignServing(1, IssueReason::Missing)]);
}
