//! What is distrusted stays so, whatever somebody restores.

use super::super::distrust::{DISTRUSTED_CERTIFICATES, DistrustLedger, DistrustList};
use super::issuer::{Pod, crosses, world};
use super::*;

/// Distrusts what there is, and lets the new authority take over.
fn distrust(world: &mut World) {
    world.pass(HOUR);
    let wish = world.now.to_string();
    world.annotate_with("authority", DISTRUST, &wish);
    world.settle();
    world.shown = world.serving();
    world.pass(HOUR);
    world.steps.clear();
}

fn restore(world: &mut World, backup: &Secrets) {
    let now = world.now;
    world.secrets.take_authority(backup.authority.clone(), now);
}

/// A process that starts now: it knows the Secrets and nothing else.
fn restart(world: &mut World) {
    world.secrets = Secrets {
        authority: world.secrets.authority.clone(),
        serving: world.secrets.serving.clone(),
        ..Secrets::default()
    };
}

#[test]
fn a_backup_of_a_distrusted_authority_is_replaced_by_the_present_one_and_no_pod_notices() {
    let mut world = world();
    let (backup, old) = (world.secrets.clone(), Pod::admitted(&world));
    distrust(&mut world);
    let (present, pod) = (world.authorities(), Pod::admitted(&world));
    restore(&mut world, &backup);
    assert_eq!(world.secrets.bundle(world.now), None, "nobody is told of it meanwhile");
    world.settle();
    assert_eq!(world.steps[0], CertificateStep::CreateAuthority(IssueReason::CameBack));
    assert_eq!(world.authorities(), present);
    assert!(pod.trusts(&world) && !old.trusts(&world));
}

#[test]
fn a_process_that_starts_after_the_backup_was_restored_makes_a_new_authority() {
    let mut world = world();
    let (backup, old) = (world.secrets.clone(), Pod::admitted(&world));
    distrust(&mut world);
    let present = Pod::admitted(&world);
    restore(&mut world, &backup);
    restart(&mut world);
    world.settle();
    assert!(present.trusts(&world), "the certificate stays in use for the overlap");
    world.pass(HOUR);
    assert_eq!(world.steps[0], CertificateStep::CreateAuthority(IssueReason::CameBack));
    assert!(Pod::admitted(&world).trusts(&world) && !old.trusts(&world));
}

#[test]
fn both_secrets_from_a_backup_are_not_believed_by_whoever_remembers_or_reads_it_elsewhere() {
    for remembers in [true, false] {
        let mut world = world();
        let (backup, old) = (world.secrets.clone(), Pod::admitted(&world));
        distrust(&mut world);
        let elsewhere = DistrustLedger::default();
        elsewhere.learn(Trusting::Pods, &world.secrets.distrusted(world.now));
        restore(&mut world, &backup);
        world.secrets.take_serving(backup.serving.clone());
        if !remembers {
            restart(&mut world);
            // As the webhook configuration says it.
            world.secrets.distrusted.learn(&elsewhere.list(Trusting::Pods));
        }
        world.pass(HOUR);
        assert!(
            !old.trusts(&world) && Pod::admitted(&world).trusts(&world),
            "{remembers}"
        );
    }
}

#[test]
fn api_servers_are_at_no_moment_told_of_a_distrusted_authority_and_trust_what_webhooks_show() {
    let mut world = World::settled();
    let (backup, leaked) = (world.secrets.clone(), world.authorities());
    distrust(&mut world);
    restore(&mut world, &backup);
    // It looks at each moment whether API servers trust what webhooks show.
    world.pass(HOUR);
    assert_eq!(world.steps[0], CertificateStep::CreateAuthority(IssueReason::CameBack));
    for bundle in world.bundles.iter().flatten() {
        let (trusted, _) = Certificate::all_in(bundle);
        assert!(trusted.len() == 1 && !trusted.contains(&leaked[0]));
    }
    // The same where only the bundle of one Secret brings it.
    let bundle = [world.data("authority", "ca.crt"), leaked[0].pem().as_bytes()].concat();
    world.damage("authority", "ca.crt", &bundle);
    let told = world.secrets.bundle(world.now).unwrap();
    assert!(!Certificate::all_in(&told).0.contains(&leaked[0]));
    world.steps.clear();
    world.settle();
    assert_eq!(world.steps[0], CertificateStep::RepairBundle);
    assert!(!world.authorities().contains(&leaked[0]));
}

#[test]
fn an_authority_that_was_rotated_out_before_the_leak_is_distrusted_with_its_successor() {
    let mut world = world();
    let backup = world.secrets.clone();
    world.pass(HOUR);
    world.annotate("authority", "1");
    world.pass(HOUR);
    assert_eq!(world.authorities().len(), 1, "nothing shows the first one any more");
    let present = {
        distrust(&mut world);
        world.authorities()
    };
    restore(&mut world, &backup);
    world.settle();
    assert_eq!(world.authorities(), present);
}

#[test]
fn a_certificate_by_which_a_distrusted_authority_vouches_is_not_shown_again() {
    let mut world = world();
    world.pass(HOUR);
    world.annotate("authority", "1");
    world.pass(HOUR);
    let cross = world.data("authority", "cross.crt").to_vec();
    assert_eq!(crosses(&world), 1);
    distrust(&mut world);
    world.damage("authority", "cross.crt", &cross);
    world.secrets.serving = None;
    world.settle();
    let served = Certificate::all_in(world.data("serving", "tls.crt")).0;
    assert_eq!(served.len(), 1, "the leaf alone");
}

#[test]
fn what_is_distrusted_stands_in_both_secrets_and_is_written_again_where_it_is_missing() {
    let mut world = World::settled();
    distrust(&mut world);
    let list = world.secrets.distrusted(world.now);
    assert!(!list.is_empty());
    for which in ["authority", "serving"] {
        let annotations = |world: &mut World| world.secret(which).metadata.annotations.clone().unwrap();
        assert_eq!(annotations(&mut world)[DISTRUSTED_CERTIFICATES], list.text());
        world.secret(which).metadata.annotations = None;
        world.steps.clear();
        world.settle();
        assert_eq!(world.steps, [CertificateStep::NoteDistrust], "{which}");
        assert_eq!(annotations(&mut world)[DISTRUSTED_CERTIFICATES], list.text());
    }
}

#[test]
fn one_distrust_after_the_other_at_one_moment_comes_to_an_end() {
    let mut world = world();
    for wish in ["1", "2", "3"] {
        let old = world.authorities();
        world.annotate_with("authority", DISTRUST, wish);
        world.settle();
        assert!(world.authorities().iter().all(|authority| !old.contains(authority)));
    }
}

#[test]
fn a_deleted_authority_is_forgotten_after_a_while_since_nobody_knows_what_was_done_meanwhile() {
    for (minutes, is_restored) in [(9, true), (11, false)] {
        let mut world = world();
        let before = world.authorities();
        world.secrets.take_authority(None, world.now);
        world.now += SignedDuration::from_mins(minutes);
        world.secrets.forget_old(world.now);
        assert_eq!(world.secrets.former.is_some(), is_restored);
        world.settle();
        let first = Certificate::all_in(world.data("authority", "tls.crt")).0;
        assert_eq!(first == before, is_restored, "{minutes}");
    }
}

#[test]
fn a_replica_with_an_old_view_does_not_write_a_distrusted_authority_again() {
    let mut world = world();
    let stale = world.secrets.clone();
    distrust(&mut world);
    // Its watch of the authority was broken all the time, and now tells that the Secret is gone.
    let mut replica = stale;
    replica.take_serving(world.secrets.serving.clone());
    replica.take_authority(None, world.now);
    assert!(replica.restorable(&world.names, world.now).is_none());
    world.secrets = replica;
    world.settle();
    assert_eq!(world.steps[0], CertificateStep::CreateAuthority(IssueReason::Missing));
}

#[test]
fn a_list_is_bounded_reads_what_it_writes_and_forgets_what_has_ended() {
    let mut list = DistrustList::default();
    let mut world = World::settled();
    let mut certificates = Vec::new();
    for _ in 0..70 {
        world.now += HOUR;
        world.secrets = Secrets::default();
        world.bundles = None;
        world.settle();
        certificates.extend(world.authorities());
    }
    list.add(&certificates);
    assert_eq!(list.text().split(',').count(), 64);
    assert_eq!(DistrustList::read(Some(&list.text())), list);
    let all = certificates.iter().all(|certificate| list.has(certificate, world.now));
    assert!(all, "the oldest left the list, and are older than what is in it");
    assert!(list.clone().at(world.now + 400 * DAY).is_empty());
    let text = list.text();
    for broken in [
        "",
        ",",
        "a=b",
        "00=2026-01-01T00:00:00Z/2027-01-01T00:00:00Z",
        &text[..63],
        &"x".repeat(1 << 20),
    ] {
        assert!(DistrustList::read(Some(broken)).is_empty(), "{}", broken.len());
    }
    let more = format!("nonsense,{text}");
    assert_eq!(DistrustList::read(Some(&more)), list);
}

#[test]
fn an_entry_from_the_future_distrusts_nothing_else() {
    let mut world = World::settled();
    let authority = world.authorities().remove(0);
    world.now += DAY;
    let fingerprint = "ab".repeat(32);
    for (validity, has) in [
        ("2090-01-01T00:00:00Z/2091-01-01T00:00:00Z", false),
        ("2026-11-22T08:00:00Z/2026-11-22T09:00:00Z", false),
        ("2026-11-22T08:00:00Z/2090-01-01T00:00:00Z", true),
    ] {
        let list = DistrustList::read(Some(&format!("{fingerprint}={validity}")));
        assert_eq!(list.has(&authority, world.now), has, "{validity}");
    }
}
