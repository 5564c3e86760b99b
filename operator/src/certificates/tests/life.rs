//! Renewals and rotations.

use super::*;

#[test]
fn a_settled_cluster_is_left_alone() {
    let mut world = World::settled();
    world.pass(HOUR);
    assert_eq!(world.steps, []);
}

#[test]
fn certificates_are_replaced_at_two_thirds_of_their_life_for_years_and_always_trusted() {
    let mut world = World::settled();
    let first = world.authorities();
    world.pass(19 * DAY);
    assert_eq!(world.steps, []);
    world.pass(2 * DAY);
    assert_eq!(world.steps, [CertificateStep::SignServing(IssueReason::Due)]);

    world.pass(221 * DAY);
    assert_eq!(world.authorities(), first, "two thirds of a year are not over");
    world.steps.clear();
    world.pass(3 * DAY);
    let rotation = [
        CertificateStep::CreateAuthority(IssueReason::Due),
        CertificateStep::CopyBundle,
        CertificateStep::NoteTrust,
        CertificateStep::SignServing(IssueReason::NewAuthority),
        CertificateStep::DropOthers,
        CertificateStep::CopyBundle,
    ];
    let began = world
        .steps
        .iter()
        .position(|step| *step == rotation[0])
        .expect("a rotation");
    assert_eq!(world.steps[began..began + rotation.len()], rotation);
    world.pass(400 * DAY);
    assert_eq!(world.authorities().len(), 1);
}

#[test]
fn a_rotation_waits_until_the_configuration_trusts_and_then_twice_for_the_overlap() {
    let mut world = World::settled();
    let old = world.authorities();
    world.bundles_are_kept = false;
    world.annotate("authority", "now");
    world.pass(HOUR);
    assert_eq!(
        world.steps,
        [
            CertificateStep::CreateAuthority(IssueReason::Requested),
            CertificateStep::CopyBundle
        ]
    );
    assert_eq!(world.authorities()[1], old[0], "the old one is still trusted");
    assert!(signed_by(&old[0], &world.serving().unwrap(), world.now), "and in use");

    world.steps.clear();
    world.bundles_are_kept = true;
    world.settle();
    assert_eq!(world.steps, [CertificateStep::NoteTrust]);
    world.pass(OVERLAP - SignedDuration::from_secs(5));
    assert_eq!(world.steps.len(), 1, "API servers need a moment to notice");
    world.pass(SignedDuration::from_secs(10));
    assert_eq!(
        world.steps[1..],
        [CertificateStep::SignServing(IssueReason::NewAuthority)]
    );
    assert_eq!(world.authorities().len(), 2, "webhooks need a moment to take it up");
    world.pass(OVERLAP);
    assert_eq!(
        world.steps[2..],
        [CertificateStep::DropOthers, CertificateStep::CopyBundle]
    );
    assert!(!world.authorities().contains(&old[0]));
}

#[test]
fn a_rotation_is_asked_for_once_by_each_new_value() {
    let mut world = World::settled();
    world.annotate("serving", "a");
    world.pass(HOUR);
    assert_eq!(world.steps, [CertificateStep::SignServing(IssueReason::Requested)]);
    let annotations = world.secret("serving").metadata.annotations.clone().unwrap();
    assert_eq!(annotations[ROTATED], "a");

    world.steps.clear();
    world.annotate("authority", "a");
    world.pass(HOUR);
    world.annotate("authority", "b");
    world.pass(HOUR);
    let created = world
        .steps
        .iter()
        .filter(|step| matches!(step, CertificateStep::CreateAuthority(_)));
    assert_eq!(created.count(), 2);
    world.annotate("authority", "");
    world.steps.clear();
    world.pass(HOUR);
    assert_eq!(world.steps, [], "an empty value asks for nothing");
}

#[test]
fn a_distrusted_authority_is_gone_at_once_even_in_the_middle_of_a_rotation() {
    for rotating in [false, true] {
        let mut world = World::settled();
        world.pass(HOUR);
        if rotating {
            world.annotate("authority", "now");
            world.settle();
            assert_eq!(world.authorities().len(), 2);
        }
        let old = world.authorities();
        world.steps.clear();
        world.annotate_with("authority", DISTRUST, "leaked");
        world.settle();

        assert_eq!(
            world.steps,
            [
                CertificateStep::CreateAuthority(IssueReason::Distrusted),
                CertificateStep::SignServing(IssueReason::NotTrusted)
            ]
        );
        assert_eq!(world.authorities().len(), 1);
        assert!(!old.contains(&world.authorities()[0]));
        assert_eq!(world.data("serving", "ca.crt"), world.data("authority", "tls.crt"));
        world.shown = None;
        world.steps.clear();
        world.pass(HOUR);
        assert_eq!(world.steps, [], "it is asked for once by each value");
    }
}

#[test]
fn a_serving_certificate_does_not_outlive_its_authority() {
    let mut world = World::new();
    world.settings = RotationSettings::new(
        Duration::from_secs(3600),
        Duration::from_secs(86400),
        Duration::from_secs(60),
    );
    world.settle();
    let state = world.state();
    assert_eq!(
        state.serving.unwrap().validity.not_after,
        state.authority.unwrap().not_after
    );
    world.pass(5 * HOUR);
    let created = world
        .steps
        .iter()
        .filter(|step| matches!(step, CertificateStep::CreateAuthority(IssueReason::Due)));
    assert!(created.count() >= 6, "every forty minutes: {:?}", world.steps);
}

#[test]
fn without_a_configuration_there_is_nobody_to_wait_for() {
    let mut world = World::settled();
    world.bundles = None;
    world.annotate("authority", "now");
    world.pass(HOUR);
    assert_eq!(world.authorities().len(), 1);
    assert!(world.steps.contains(&CertificateStep::DropOthers));
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
