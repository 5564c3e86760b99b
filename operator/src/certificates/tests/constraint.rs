//! The names that an authority may sign for.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tokenscope_platform::certificate::CertificatePair;

use super::super::x509::{SigningAuthority, create_authority};
use super::*;

#[test]
fn another_name_makes_another_authority_and_certificate() {
    let mut cluster = SimulatedCluster::settled();
    cluster.pass(HOUR);
    cluster.names.hosts.push("webhook.example".into());
    cluster.pass(HOUR);
    let rotation = [
        CertificateStep::CreateAuthority(IssueReason::OtherNames),
        CertificateStep::CopyBundle,
        CertificateStep::NoteTrust,
        CertificateStep::SignServing(IssueReason::NewAuthority),
        CertificateStep::DropOthers,
        CertificateStep::CopyBundle,
    ];
    assert_eq!(cluster.steps, rotation, "the old authority may not sign for it");
    let serving = cluster.state().serving.unwrap();
    assert!(serving.names_fit && serving.by_authority);
}

#[test]
fn an_authority_is_constrained_to_the_names_of_the_serving_certificate() {
    let cluster = SimulatedCluster::settled();
    let authority = SigningAuthority::read(
        cluster.data("authority", "tls.crt"),
        cluster.data("authority", "tls.key"),
        cluster.now,
    );
    let authority = authority.unwrap();
    let service = "tokenscope-webhook.tokenscope-system.svc";
    let accepts = |authority: &SigningAuthority, hosts: &[&str]| {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.into()).collect();
        let validity = cluster.settings.serving_validity(cluster.now, authority.validity());
        let pair = authority.sign(&hosts, validity).unwrap();
        let pair = CertificatePair::parse(pair.certificate.as_bytes(), pair.key.as_bytes(), cluster.now).unwrap();
        authority.signed(pair.certificate(), cluster.now)
    };
    assert!(accepts(&authority, &[service]) && accepts(&authority, &["127.0.0.1"]));
    assert!(!accepts(&authority, &["kubernetes.default.svc"]));
    assert!(!accepts(&authority, &["10.0.0.1"]));
    assert!(
        !accepts(&authority, &[service, "zone.example"]),
        "none of its names may be another one"
    );

    let validity = cluster.settings.authority_validity(cluster.now);
    let pair = create_authority("CA", &[service.into()], validity, 0, None)
        .unwrap()
        .pair;
    let named = SigningAuthority::read(pair.certificate.as_bytes(), pair.key.as_bytes(), cluster.now).unwrap();
    assert!(accepts(&named, &[service]) && !accepts(&named, &["127.0.0.1"]));
}

#[test]
fn an_authority_without_a_constraint_is_replaced_by_a_rotation_with_its_overlap() {
    let mut cluster = SimulatedCluster::settled();
    cluster.pass(HOUR);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let epoch = rcgen::date_time_ymd(2026, 11, 1);
    (params.not_before, params.not_after) = (epoch, epoch + Duration::from_secs(365 * 86400));
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    for field in ["tls.crt", "ca.crt"] {
        cluster.damage("authority", field, pem.as_bytes());
    }
    cluster.damage("authority", "tls.key", key.serialize_pem().as_bytes());
    cluster.secrets.serving = None;
    cluster.shown = None;
    cluster.steps.clear();
    cluster.settle();
    let (old, _) = Certificate::all_in(pem.as_bytes());
    assert_eq!(
        cluster.steps[0],
        CertificateStep::SignServing(IssueReason::Missing),
        "it serves meanwhile"
    );
    assert_eq!(
        cluster.steps[1],
        CertificateStep::CreateAuthority(IssueReason::OtherNames)
    );

    cluster.pass(HOUR);
    assert!(
        cluster.steps.contains(&CertificateStep::NoteTrust) && cluster.steps.contains(&CertificateStep::DropOthers),
        "{:?}",
        cluster.steps
    );
    assert!(!cluster.authorities().contains(&old[0]) && cluster.authorities().len() == 1);
    assert_eq!(cluster.state().constraint, Constraint::Exact);
}
