//! Certificates at random: no bytes make their reader panic, take long, or give more than is in them.
//!
//! Each target runs for 5 seconds, or for a minute where `TOKENSCOPE_NIGHTLY=1`. Certificates that once mattered are in `tests/corpus`;
//! every run begins with them, with new ones, and with changes of both. The seed is another one each time, and
//! `TOKENSCOPE_FUZZ_SEED` repeats one.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use rcgen::{BasicConstraints, CertificateParams, CidrSubnet, GeneralSubtree, IsCa, KeyPair, NameConstraints};
use tokenscope_fixtures::fuzz::{changed, corpus, fuzz_bytes};
use tokenscope_platform::certificate::Certificate;

const NAMES: [&str; 4] = [
    "webhook.tokenscope-system.svc",
    "*.example.com",
    "10.0.0.1",
    "2001:db8::1",
];

fn signed(params: &CertificateParams) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

/// One for these names, and an authority for names of the same kinds.
fn new_certificates() -> [Vec<u8>; 2] {
    let server = CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("example.com".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix([10, 0, 0, 1].into(), 32)),
        ],
        excluded_subtrees: Vec::new(),
    });
    [server, authority].map(|params| signed(&params))
}

fn seeds() -> Vec<Vec<u8>> {
    let known = corpus(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/der"));
    known.into_iter().chain(new_certificates()).collect()
}

fn read(der: &[u8]) -> Option<Certificate> {
    Certificate::from_der(der.to_vec().into()).ok()
}

/// A certificate has nothing that its bytes have not, and its PEM is the same certificate.
fn check_der(der: &[u8]) -> TestCaseResult {
    let Some(certificate) = read(der) else {
        return Ok(());
    };
    prop_assert_eq!(certificate.der().as_ref(), der);
    let permitted = certificate.permitted_names.iter().flatten();
    for name in certificate.dns_names.iter().chain(permitted) {
        let is_there = der.windows(name.len().max(1)).any(|bytes| bytes == name.as_bytes());
        prop_assert!(
            is_there || name.is_empty() || name.parse::<std::net::IpAddr>().is_ok(),
            "{name:?}"
        );
    }
    prop_assert!(
        certificate
            .serial
            .split(':')
            .all(|byte| u8::from_str_radix(byte, 16).is_ok())
    );
    let (again, all) = Certificate::all_in(certificate.pem().as_bytes());
    prop_assert!(all && again == [certificate]);
    prop_assert!(
        read(&[der, &[0]].concat()).is_none(),
        "bytes after a certificate are taken for a part of it"
    );
    Ok(())
}

#[test]
fn a_certificate_that_was_read_has_nothing_that_its_bytes_have_not() {
    let [server, authority] = new_certificates().map(|der| read(&der).unwrap());
    assert!(NAMES.iter().all(|name| server.names().contains(*name)));
    assert!(authority.is_authority);
    assert_eq!(authority.permitted_names.unwrap().len(), 2);
    let seeds = seeds();
    let inputs = prop_oneof![8 => changed(select(seeds.clone())), 1 => vec(any::<u8>(), 0..512)];
    fuzz_bytes(&seeds, &inputs, check_der);
}

/// No more certificates are read than begin, and one that can't be read is told.
fn check_pem(text: &[u8]) -> TestCaseResult {
    let (certificates, all) = Certificate::all_in(text);
    let begin = b"-----BEGIN";
    let begun = text.windows(begin.len()).filter(|bytes| bytes == begin).count();
    prop_assert!(certificates.len() <= begun);
    let bytes: usize = certificates.iter().map(|certificate| certificate.der().len()).sum();
    prop_assert!(bytes <= text.len());
    prop_assert!(all || begun > 0);
    Ok(())
}

#[test]
fn no_text_in_place_of_certificates_makes_their_reader_fail() {
    let pem = |der: &Vec<u8>| read(der).map(|certificate| certificate.pem().into_bytes());
    let mut texts: Vec<Vec<u8>> = seeds().iter().filter_map(pem).collect();
    let all = texts.concat();
    texts.push(all);
    let inputs = prop_oneof![8 => changed(select(texts.clone())), 1 => vec(any::<u8>(), 0..512)];
    fuzz_bytes(&texts, &inputs, check_pem);
}
