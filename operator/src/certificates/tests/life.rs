//! Renewals and rotations.

use super::*;

#[test]
fn a_settled_cluster_is_left_alone() {
    let mut cluster = SimulatedCluster::settled();
    cluster.pass(HOUR);
    assert_eq!(cluster.steps, []);
}

#[test]
fn certificates_are_replaced_at_two_thirds_of_their_life_for_years_and_always_trusted() {
    let mut cluster = SimulatedCluster::settled();
    let first = cluster.authorities();
    cluster.pass(19 * DAY);
    assert_eq!(cluster.steps, []);
    cluster.pass(2 * DAY);
    assert_eq!(cluster.steps, [CertificateStep::SignServing(IssueReason::Due)]);

    cluster.pass(221 * DAY);
    assert_eq!(cluster.authorities(), first, "two thirds of a year are not over");
    cluster.steps.clear();
    cluster.pass(3 * DAY);
    let rotation = [
        CertificateStep::CreateAuthority(IssueReason::Due),
        CertificateStep::CopyBundle,
        CertificateStep::NoteTrust,
        CertificateStep::SignServing(IssueReason::NewAuthority),
        CertificateStep::DropOthers,
        CertificateStep::CopyBundle,
    ];
    let began = cluster
        .steps
        .iter()
        .position(|step| *step == rotation[0])
        .expect("a rotation");
    assert_eq!(cluster.steps[began..began + rotation.len()], rotation);
    cluster.pass(400 * DAY);
    assert_eq!(cluster.authorities().len(), 1);
}

#[test]
fn a_rotation_waits_until_the_configuration_trusts_and_then_twice_for_the_overlap() {
    let mut cluster = SimulatedCluster::settled();
    let old = cluster.authorities();
    cluster.bundles_are_kept = false;
    cluster.annotate("authority", "now");
    cluster.pass(HOUR);
    assert_eq!(
        cluster.steps,
        [
            CertificateStep::CreateAuthority(IssueReason::Requested),
            CertificateStep::CopyBundle
        ]
    );
    assert_eq!(cluster.authorities()[1], old[0], "the old one is still trusted");
    assert!(
        signed_by(&old[0], &cluster.serving().unwrap(), cluster.now),
        "and in use"
    );

    cluster.steps.clear();
    cluster.bundles_are_kept = true;
    cluster.settle();
    assert_eq!(cluster.steps, [CertificateStep::NoteTrust]);
    cluster.pass(OVERLAP - SignedDuration::from_secs(5));
    assert_eq!(cluster.steps.len(), 1, "API servers need a moment to notice");
    cluster.pass(SignedDuration::from_secs(10));
    assert_eq!(
        cluster.steps[1..],
        [CertificateStep::SignServing(IssueReason::NewAuthority)]
    );
    assert_eq!(cluster.authorities().len(), 2, "webhooks need a moment to take it up");
    cluster.pass(OVERLAP);
    assert_eq!(
        cluster.steps[2..],
        [CertificateStep::DropOthers, CertificateStep::CopyBundle]
    );
    assert!(!cluster.authorities().contains(&old[0]));
}

#[test]
fn a_rotation_is_asked_for_once_by_each_new_value() {
    let mut cluster = SimulatedCluster::settled();
    cluster.annotate("serving", "a");
    cluster.pass(HOUR);
    assert_eq!(cluster.steps, [CertificateStep::SignServing(IssueReason::Requested)]);
    let annotations = cluster.secret("serving").metadata.annotations.clone().unwrap();
    assert_eq!(annotations[ROTATED], "a");

    cluster.steps.clear();
    cluster.annotate("authority", "a");
    cluster.pass(HOUR);
    cluster.annotate("authority", "b");
    cluster.pass(HOUR);
    let created = cluster
        .steps
        .iter()
        .filter(|step| matches!(step, CertificateStep::CreateAuthority(_)));
    assert_eq!(created.count(), 2);
    cluster.annotate("authority", "");
    cluster.steps.clear();
    cluster.pass(HOUR);
    assert_eq!(cluster.steps, [], "an empty value asks for nothing");
}

#[test]
fn a_distrusted_authority_is_gone_at_once_even_in_the_middle_of_a_rotation() {
    for rotating in [false, true] {
        let mut cluster = SimulatedCluster::settled();
        cluster.pass(HOUR);
        if rotating {
            cluster.annotate("authority", "now");
            cluster.settle();
            assert_eq!(cluster.authorities().len(), 2);
        }
        let old = cluster.authorities();
        cluster.steps.clear();
        cluster.annotate_with("authority", DISTRUST, "leaked");
        cluster.settle();

        assert_eq!(
            cluster.steps,
            [
                CertificateStep::CreateAuthority(IssueReason::Distrusted),
                CertificateStep::SignServing(IssueReason::NotTrusted)
            ]
        );
        assert_eq!(cluster.authorities().len(), 1);
        assert!(!old.contains(&cluster.authorities()[0]));
        assert_eq!(cluster.data("serving", "ca.crt"), cluster.data("authority", "tls.crt"));
        cluster.shown = None;
        cluster.steps.clear();
        cluster.pass(HOUR);
        assert_eq!(cluster.steps, [], "it is asked for once by each value");
    }
}

#[test]
fn a_serving_certificate_does_not_outlive_its_authority() {
    let mut cluster = SimulatedCluster::new();
    cluster.settings = RotationSettings::new(
        Duration::from_secs(3600),
        Duration::from_secs(86400),
        Duration::from_secs(60),
    );
    cluster.settle();
    let state = cluster.state();
    assert_eq!(
        state.serving.unwrap().validity.not_after,
        state.authority.unwrap().not_after
    );
    cluster.pass(5 * HOUR);
    let created = cluster
        .steps
        .iter()
        .filter(|step| matches!(step, CertificateStep::CreateAuthority(IssueReason::Due)));
    assert!(created.count() >= 6, "every forty minutes: {:?}", cluster.steps);
}

#[test]
fn without_a_configuration_there_is_nobody_to_wait_for() {
    let mut cluster = SimulatedCluster::settled();
    cluster.bundles = None;
    cluster.annotate("authority", "now");
    cluster.pass(HOUR);
    assert_eq!(cluster.authorities().len(), 1);
    assert!(cluster.steps.contains(&CertificateStep::DropOthers));
}

#[test]
fn an_overlap_that_is_too_long_for_the_authority_is_cut() {
    let long = RotationSettings::new(
        Duration::from_secs(900),
        Duration::from_secs(900),
        Duration::from_secs(86400),
    );
    assert_eq!(
        long,
        RotationSettings::new(
            Duration::from_secs(900),
            Duration::from_secs(900),
            Duration::from_secs(100)
        )
    );
}
