//! The names that an authority may sign for.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tokenscope_platform::certificate::CertificatePair;

use super::super::x509::{SigningAuthority, create_authority};
use super::*;

#[test]
fn another_name_makes_another_authority_and_certificate() {
    let mut world = World::settled();
    world.pass(HOUR);
    world.names.hosts.push("webhook.example".into());
    world.pass(HOUR);
    let rotation = [
        CertificateStep::CreateAuthority(IssueReason::OtherNames),
        CertificateStep::CopyBundle,
        CertificateStep::NoteTrust,
        CertificateStep::SignServing(IssueReason::NewAuthority),
        CertificateStep::DropOthers,
        CertificateStep::CopyBundle,
    ];
    assert_eq!(world.steps, rotation, "the old authority may not sign for it");
    let serving = world.state().serving.unwrap();
    assert!(serving.names_fit && serving.by_authority);
}

#[test]
fn an_authority_is_constrained_to_the_names_of_the_serving_certificate() {
    let world = World::settled();
    let authority = SigningAuthority::read(
        world.data("authority", "tls.crt"),
        world.data("authority", "tls.key"),
        world.now,
    );
    let authority = authority.unwrap();
    let service = "tokenscope-webhook.tokenscope-system.svc";
    let accepts = |authority: &SigningAuthority, hosts: &[&str]| {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.into()).collect();
        let validity = world.settings.serving_validity(world.now, authority.validity());
        let pair = authority.sign(&hosts, validity).unwrap();
        let pair = CertificatePair::parse(pair.certificate.as_bytes(), pair.key.as_bytes(), world.now).unwrap();
        authority.signed(pair.certificate(), world.now)
    };
    assert!(accepts(&authority, &[service]) && accepts(&authority, &["127.0.0.1"]));
    assert!(!accepts(&authority, &["kubernetes.default.svc"]));
    assert!(!accepts(&authority, &["10.0.0.1"]));
    assert!(
        !accepts(&authority, &[service, "zone.example"]),
        "none of its names may be another one"
    );

    let validity = world.settings.authority_validity(world.now);
    let pair = create_authority("CA", &[service.into()], validity, 0, None)
        .unwrap()
        .pair;
    let named = SigningAuthority::read(pair.certificate.as_bytes(), pair.key.as_bytes(), world.now).unwrap();
    assert!(accepts(&named, &[service]) && !accepts(&named, &["127.0.0.1"]));
}

#[test]
fn an_authority_without_a_constraint_is_replaced_by_a_rotation_with_its_overlap() {
    let mut world = World::settled();
    world.pass(HOUR);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let epoch = rcgen::date_time_ymd(2026, 11, 1);
    (params.not_before, params.not_after) = (epoch, epoch + Duration::from_secs(365 * 86400));
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    for field in ["tls.crt", "ca.crt"] {
        world.damage("authority", field, pem.as_bytes());
    }
    world.damage("authority", "tls.key", key.serialize_pem().as_bytes());
    world.secrets.serving = None;
    world.shown = None;
    world.steps.clear();
    world.settle();
    let (old, _) = Certificate::all_in(pem.as_bytes());
    assert_eq!(
        world.steps[0],
        CertificateStep::SignServing(IssueReason::Missing),
        "it serves meanwhile"
    );
    assert_eq!(
        world.steps[1],
        CertificateStep::CreateAuthority(IssueReason::OtherNames)
    );

    world.pass(HOUR);
    assert!(
        world.steps.contains(&CertificateStep::NoteTrust) && world.steps.contains(&CertificateStep::DropOthers),
        "{:?}",
        world.steps
    );
    assert!(!world.authorities().contains(&old[0]) && world.authorities().len() == 1);
    assert_eq!(world.state().constraint, Constraint::Exact);
}
