//! What is distrusted stays so, whatever somebody restores.

use super::super::distrust::{DISTRUSTED_CERTIFICATES, DistrustLedger, DistrustList};
use super::issuer::{Pod, cluster, crosses};
use super::*;

/// Distrusts what there is, and lets the new authority take over.
fn distrust(cluster: &mut SimulatedCluster) {
    cluster.pass(HOUR);
    let wish = cluster.now.to_string();
    cluster.annotate_with("authority", DISTRUST, &wish);
    cluster.settle();
    cluster.shown = cluster.serving();
    cluster.pass(HOUR);
    cluster.steps.clear();
}

fn restore(cluster: &mut SimulatedCluster, backup: &Secrets) {
    let now = cluster.now;
    cluster.secrets.take_authority(backup.authority.clone(), now);
}

/// A process that starts now: it knows the Secrets and nothing else.
fn restart(cluster: &mut SimulatedCluster) {
    cluster.secrets = Secrets {
        authority: cluster.secrets.authority.clone(),
        serving: cluster.secrets.serving.clone(),
        ..Secrets::default()
    };
}

#[test]
fn a_backup_of_a_distrusted_authority_is_replaced_by_the_present_one_and_no_pod_notices() {
    let mut cluster = cluster();
    let (backup, old) = (cluster.secrets.clone(), Pod::admitted(&cluster));
    distrust(&mut cluster);
    let (present, pod) = (cluster.authorities(), Pod::admitted(&cluster));
    restore(&mut cluster, &backup);
    assert_eq!(
        cluster.secrets.bundle(cluster.now),
        None,
        "nobody is told of it meanwhile"
    );
    cluster.settle();
    assert_eq!(
        cluster.steps[0],
        CertificateStep::CreateAuthority(IssueReason::CameBack)
    );
    assert_eq!(cluster.authorities(), present);
    assert!(pod.trusts(&cluster) && !old.trusts(&cluster));
}

#[test]
fn a_process_that_starts_after_the_backup_was_restored_makes_a_new_authority() {
    let mut cluster = cluster();
    let (backup, old) = (cluster.secrets.clone(), Pod::admitted(&cluster));
    distrust(&mut cluster);
    let present = Pod::admitted(&cluster);
    restore(&mut cluster, &backup);
    restart(&mut cluster);
    cluster.settle();
    assert!(present.trusts(&cluster), "the certificate stays in use for the overlap");
    cluster.pass(HOUR);
    assert_eq!(
        cluster.steps[0],
        CertificateStep::CreateAuthority(IssueReason::CameBack)
    );
    assert!(Pod::admitted(&cluster).trusts(&cluster) && !old.trusts(&cluster));
}

#[test]
fn both_secrets_from_a_backup_are_not_believed_by_whoever_remembers_or_reads_it_elsewhere() {
    for remembers in [true, false] {
        let mut cluster = cluster();
        let (backup, old) = (cluster.secrets.clone(), Pod::admitted(&cluster));
        distrust(&mut cluster);
        let elsewhere = DistrustLedger::default();
        elsewhere.learn(Trusting::Pods, &cluster.secrets.distrusted(cluster.now));
        restore(&mut cluster, &backup);
        cluster.secrets.take_serving(backup.serving.clone());
        if !remembers {
            restart(&mut cluster);
            // As the webhook configuration says it.
            cluster.secrets.distrusted.learn(&elsewhere.list(Trusting::Pods));
        }
        cluster.pass(HOUR);
        assert!(
            !old.trusts(&cluster) && Pod::admitted(&cluster).trusts(&cluster),
            "{remembers}"
        );
    }
}

#[test]
fn api_servers_are_at_no_moment_told_of_a_distrusted_authority_and_trust_what_webhooks_show() {
    let mut cluster = SimulatedCluster::settled();
    let (backup, leaked) = (cluster.secrets.clone(), cluster.authorities());
    distrust(&mut cluster);
    restore(&mut cluster, &backup);
    // It looks at each moment whether API servers trust what webhooks show.
    cluster.pass(HOUR);
    assert_eq!(
        cluster.steps[0],
        CertificateStep::CreateAuthority(IssueReason::CameBack)
    );
    for bundle in cluster.bundles.iter().flatten() {
        let (trusted, _) = Certificate::all_in(bundle);
        assert!(trusted.len() == 1 && !trusted.contains(&leaked[0]));
    }
    // The same where only the bundle of one Secret brings it.
    let bundle = [cluster.data("authority", "ca.crt"), leaked[0].pem().as_bytes()].concat();
    cluster.damage("authority", "ca.crt", &bundle);
    let told = cluster.secrets.bundle(cluster.now).unwrap();
    assert!(!Certificate::all_in(&told).0.contains(&leaked[0]));
    cluster.steps.clear();
    cluster.settle();
    assert_eq!(cluster.steps[0], CertificateStep::RepairBundle);
    assert!(!cluster.authorities().contains(&leaked[0]));
}

#[test]
fn an_authority_that_was_rotated_out_before_the_leak_is_distrusted_with_its_successor() {
    let mut cluster = cluster();
    let backup = cluster.secrets.clone();
    cluster.pass(HOUR);
    cluster.annotate("authority", "1");
    cluster.pass(HOUR);
    assert_eq!(cluster.authorities().len(), 1, "nothing shows the first one any more");
    let present = {
        distrust(&mut cluster);
        cluster.authorities()
    };
    restore(&mut cluster, &backup);
    cluster.settle();
    assert_eq!(cluster.authorities(), present);
}

#[test]
fn a_certificate_by_which_a_distrusted_authority_vouches_is_not_shown_again() {
    let mut cluster = cluster();
    cluster.pass(HOUR);
    cluster.annotate("authority", "1");
    cluster.pass(HOUR);
    let cross = cluster.data("authority", "cross.crt").to_vec();
    assert_eq!(crosses(&cluster), 1);
    distrust(&mut cluster);
    cluster.damage("authority", "cross.crt", &cross);
    cluster.secrets.serving = None;
    cluster.settle();
    let served = Certificate::all_in(cluster.data("serving", "tls.crt")).0;
    assert_eq!(served.len(), 1, "the leaf alone");
}

#[test]
fn what_is_distrusted_stands_in_both_secrets_and_is_written_again_where_it_is_missing() {
    let mut cluster = SimulatedCluster::settled();
    distrust(&mut cluster);
    let list = cluster.secrets.distrusted(cluster.now);
    assert!(!list.is_empty());
    for which in ["authority", "serving"] {
        let annotations = |cluster: &mut SimulatedCluster| cluster.secret(which).metadata.annotations.clone().unwrap();
        assert_eq!(annotations(&mut cluster)[DISTRUSTED_CERTIFICATES], list.text());
        cluster.secret(which).metadata.annotations = None;
        cluster.steps.clear();
        cluster.settle();
        assert_eq!(cluster.steps, [CertificateStep::NoteDistrust], "{which}");
        assert_eq!(annotations(&mut cluster)[DISTRUSTED_CERTIFICATES], list.text());
    }
}

#[test]
fn one_distrust_after_the_other_at_one_moment_comes_to_an_end() {
    let mut cluster = cluster();
    for wish in ["1", "2", "3"] {
        let old = cluster.authorities();
        cluster.annotate_with("authority", DISTRUST, wish);
        cluster.settle();
        assert!(cluster.authorities().iter().all(|authority| !old.contains(authority)));
    }
}

#[test]
fn a_deleted_authority_is_forgotten_after_a_while_since_nobody_knows_what_was_done_meanwhile() {
    for (minutes, is_restored) in [(9, true), (11, false)] {
        let mut cluster = cluster();
        let before = cluster.authorities();
        cluster.secrets.take_authority(None, cluster.now);
        cluster.now += SignedDuration::from_mins(minutes);
        cluster.secrets.forget_old(cluster.now);
        assert_eq!(cluster.secrets.former.is_some(), is_restored);
        cluster.settle();
        let first = Certificate::all_in(cluster.data("authority", "tls.crt")).0;
        assert_eq!(first == before, is_restored, "{minutes}");
    }
}

#[test]
fn a_replica_with_an_old_view_does_not_write_a_distrusted_authority_again() {
    let mut cluster = cluster();
    let stale = cluster.secrets.clone();
    distrust(&mut cluster);
    // Its watch of the authority was broken all the time, and now tells that the Secret is gone.
    let mut replica = stale;
    replica.take_serving(cluster.secrets.serving.clone());
    replica.take_authority(None, cluster.now);
    assert!(replica.restorable(&cluster.names, cluster.now).is_none());
    cluster.secrets = replica;
    cluster.settle();
    assert_eq!(cluster.steps[0], CertificateStep::CreateAuthority(IssueReason::Missing));
}

#[test]
fn a_list_is_bounded_reads_what_it_writes_and_forgets_what_has_ended() {
    let mut list = DistrustList::default();
    let mut cluster = SimulatedCluster::settled();
    let mut certificates = Vec::new();
    for _ in 0..70 {
        cluster.now += HOUR;
        cluster.secrets = Secrets::default();
        cluster.bundles = None;
        cluster.settle();
        certificates.extend(cluster.authorities());
    }
    list.add(&certificates);
    assert_eq!(list.text().split(',').count(), 64);
    assert_eq!(DistrustList::read(Some(&list.text())), list);
    let all = certificates
        .iter()
        .all(|certificate| list.has(certificate, cluster.now));
    assert!(all, "the oldest left the list, and are older than what is in it");
    assert!(list.clone().at(cluster.now + 400 * DAY).is_empty());
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
    let mut cluster = SimulatedCluster::settled();
    let authority = cluster.authorities().remove(0);
    cluster.now += DAY;
    let fingerprint = "ab".repeat(32);
    for (validity, has) in [
        ("2090-01-01T00:00:00Z/2091-01-01T00:00:00Z", false),
        ("2026-11-22T08:00:00Z/2026-11-22T09:00:00Z", false),
        ("2026-11-22T08:00:00Z/2090-01-01T00:00:00Z", true),
    ] {
        let list = DistrustList::read(Some(&format!("{fingerprint}={validity}")));
        assert_eq!(list.has(&authority, cluster.now), has, "{validity}");
    }
}
