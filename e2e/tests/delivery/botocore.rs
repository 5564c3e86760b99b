//! The files of generated policies, as botocore reads them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokenscope_core::SessionName;
use tokenscope_core::config_file::{ConfigFile, FileHop, FileProfile};
use tokenscope_xtask::tools::{Tool, resolve};

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

/// Numbers that follow from one another, the same in every run (Steele and Vigna, splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    }

    /// A text of characters that may stand in a file.
    fn text(&mut self, characters: &[u8], least: usize, most: usize) -> String {
        let length = least + self.next(most - least + 1);
        (0..length)
            .map(|_| char::from(characters[self.next(characters.len())]))
            .collect()
    }
}

const NAME: &[u8] = b"ABYZabyz0189_-";
const PLAIN: &[u8] = b"ABYZabyz0189_+=,.@:/-";
const SESSION: &[u8] = b"ABYZabyz0189_+=,.@-";

fn hop(numbers: &mut Numbers) -> FileHop {
    let path = numbers.text(b"abAB01_+=,.@:-", 1, 40);
    let name = numbers.text(SESSION, 1, 64);
    FileHop {
        role: format!("arn:aws:iam::444455556666:role/{path}/{name}").parse().unwrap(),
        external_id: (numbers.next(2) == 0).then(|| numbers.text(PLAIN, 2, 60).parse().unwrap()),
        session_name: match numbers.next(3) {
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
        region: regions[numbers.next(regions.len())].parse().unwrap(),
        first: FileHop {
            external_id: None,
            ..hop(numbers)
        },
        chain: (0..numbers.next(5)).map(|_| hop(numbers)).collect(),
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
    let mut numbers = Numbers(1);
    let files: Vec<ConfigFile> = (0..200)
        .map(|_| {
            let mut names: Vec<String> = (0..numbers.next(5))
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
    let mut python = Command::new(resolve(Tool::Boto3).unwrap())
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .env("HOME", "/nonexistent")
        .spawn()
        .unwrap();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(json!(texts).to_string().as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();

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
