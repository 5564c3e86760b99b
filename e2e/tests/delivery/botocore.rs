//! The files of generated policies, as botocore reads them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokenscope_core::SessionName;
use tokenscope_core::config_file::{ConfigFile, FileHop, FileProfile};
use tokenscope_e2e::boto3;
use tokenscope_fixtures::Numbers;

/// Reads each file with botocore, and prints its profiles with all that they say.
const READ: &str = "
import json, os, sys, tempfile, botocore.session
found = []
for text in json.load(sys.stdin):
    with tempfile.NamedTemporaryFile('w', suffix='.config') as file:
        file.write(text)
        file.flush()
        os.environ['AWS_CONFIG_FILE'] = file.name
        session = botocore.session.Session()
        profiles = session.full_config['profiles']
        regions = {name: botocore.session.Session(profile=name).get_config_variable('region') for name in profiles}
        found.append({'profiles': profiles, 'regions': regions})
print(json.dumps(found))
";

const NAME: &str = "ABYZabyz0189_-";
const PLAIN: &str = "ABYZabyz0189_+=,.@:/-";
const SESSION: &str = "ABYZabyz0189_+=,.@-";

fn hop(numbers: &mut Numbers) -> FileHop {
    let path = numbers.text("abAB01_+=,.@:-", 1, 40);
    let name = numbers.text(SESSION, 1, 64);
    FileHop {
        role: format!("arn:aws:iam::444455556666:role/{path}/{name}").parse().unwrap(),
        external_id: numbers.some(|numbers| numbers.text(PLAIN, 2, 60).parse().unwrap()),
        session_name: match numbers.below(3) {
            0 => None,
            1 => Some(SessionName::PodName),
            _ => Some(SessionName::Text(numbers.text(SESSION, 2, 64).into())),
        },
    }
}

fn profile(name: Option<String>, numbers: &mut Numbers) -> FileProfile {
    let regions = ["eu-central-1", "us-gov-west-1", "default", "a"];
    FileProfile {
        name: name.map(|name| name.parse().unwrap()),
        region: regions[numbers.below(regions.len())].parse().unwrap(),
        first: FileHop {
            external_id: None,
            ..hop(numbers)
        },
        chain: (0..numbers.below(5)).map(|_| hop(numbers)).collect(),
    }
}

/// The roles that a profile takes, the last first, as what botocore has read says.
fn roles_of(profiles: &BTreeMap<String, BTreeMap<String, Value>>, name: &str) -> Vec<BTreeMap<String, Value>> {
    let mut taken = Vec::new();
    let mut next = Some(name.to_owned());
    while let Some(profile) = next.and_then(|name| profiles.get(&name)) {
        assert!(taken.len() < 8, "a circle");
        taken.push(profile.clone());
        next = profile
            .get("source_profile")
            .map(|name| name.as_str().unwrap().to_owned());
    }
    taken
}

fn expected(profile: &FileProfile) -> Vec<BTreeMap<String, Value>> {
    let hops = std::iter::once(&profile.first).chain(&profile.chain);
    let mut expected: Vec<BTreeMap<String, Value>> = hops
        .map(|hop| {
            let mut values = BTreeMap::from([
                ("role_arn".to_owned(), json!(hop.role.as_str())),
                ("region".to_owned(), json!(profile.region.as_str())),
            ]);
            values.extend(
                hop.external_id
                    .as_ref()
                    .map(|id| ("external_id".to_owned(), json!(id.as_str()))),
            );
            let name = match &hop.session_name {
                None => None,
                Some(SessionName::PodName) => Some("orders-0"),
                Some(SessionName::Text(name)) => Some(&**name),
            };
            values.extend(name.map(|name| ("role_session_name".to_owned(), json!(name))));
            values
        })
        .collect();
    expected[0].insert("web_identity_token_file".to_owned(), json!("/token"));
    expected.reverse();
    expected
}

#[test]
fn botocore_reads_every_profile_and_chain_as_it_was_meant() {
    let mut numbers = Numbers::new(1);
    let files: Vec<ConfigFile> = (0..200)
        .map(|_| {
            let mut names: Vec<String> = (0..numbers.below(5))
                .map(|at| format!("{at}{}", numbers.text(NAME, 1, 60)))
                .collect();
            names.dedup();
            let named: Vec<_> = names
                .into_iter()
                .map(|name| profile(Some(name), &mut numbers))
                .collect();
            let mut profiles = vec![profile(None, &mut numbers)];
            profiles.extend(named);
            ConfigFile { profiles }
        })
        .collect();
    let texts: Vec<String> = files.iter().map(|file| file.text("/token", Some("orders-0"))).collect();
    let found = boto3::run(READ, &[], &json!(texts)).unwrap();
    let found: Vec<Value> = serde_json::from_value(found).unwrap();

    assert_eq!(found.len(), files.len());
    for ((file, text), found) in files.iter().zip(&texts).zip(&found) {
        let read: BTreeMap<String, BTreeMap<String, Value>> =
            serde_json::from_value(found["profiles"].clone()).unwrap();
        let sources = file.profiles.iter().map(|profile| profile.chain.len()).sum::<usize>();
        assert_eq!(read.len(), file.profiles.len() + sources, "{text}");
        for profile in &file.profiles {
            let name = profile.name.as_ref().map_or("default", |name| name.as_str());
            let mut taken = roles_of(&read, name);
            for values in &mut taken {
                values.remove("source_profile");
            }
            assert_eq!(taken, expected(profile), "{text}");
            assert_eq!(found["regions"][name], profile.region.as_str());
        }
    }
}
