//! botocore as the judge of our endpoints, bodies and signatures.

use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_aws::{
    AssumeRole, AssumeRoleWithWebIdentity, Credentials, EndpointFlavor, GetWebIdentityToken, Secret,
    SessionPolicyParameters, StsEndpoint, StsRequest, SubjectMode, get_caller_identity,
};
use tokenscope_core::outbound::AwsAlgorithm;
use tokenscope_core::{Region, RoleArn};
use tokenscope_fixtures::Numbers;

use crate::python;

/// Prints the URL of each region of each partition, for every kind of endpoint.
const ENDPOINTS: &str = "
import json
import botocore.endpoint_provider, botocore.session
loader = botocore.session.Session().get_component('data_loader')
partitions = loader.load_data('partitions')
rules = loader.load_service_model('sts', 'endpoint-rule-set-1')
provider = botocore.endpoint_provider.EndpointProvider(rules, partitions)
found = []
for partition in partitions['partitions']:
    for region in partition['regions']:
        for fips in (False, True):
            for dual_stack in (False, True):
                url = provider.resolve_endpoint(Region=region, UseFIPS=fips, UseDualStack=dual_stack).url
                found.append([partition['id'], region, fips, dual_stack, url])
print(json.dumps(found))
";

/// Writes each request itself and signs ours: `[{"action", "members", "url", "type", "body", "at", "region", keys}]`.
const SIGNATURES: &str = "
import datetime, json, sys
import botocore.auth, botocore.awsrequest, botocore.credentials, botocore.serialize, botocore.session
model = botocore.session.Session().get_service_model('sts')
serializer = botocore.serialize.create_serializer('query')
outcomes = []
for case in json.load(sys.stdin):
    now = datetime.datetime.fromtimestamp(case['at'], datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda *_, **__: now
    request = botocore.awsrequest.AWSRequest('POST', case['url'], {'Content-Type': case['type']}, case['body'])
    keys = botocore.credentials.Credentials(case['id'], case['secret'], case['token'])
    botocore.auth.SigV4Auth(keys, 'sts', case['region']).add_auth(request)
    written = serializer.serialize_to_request(case['members'], model.operation_model(case['action']))['body']
    outcomes.append({
        'headers': {name.lower(): value for name, value in request.headers.items()},
        'members': {name: str(value) for name, value in written.items()},
    })
print(json.dumps(outcomes))
";

#[tokio::test(flavor = "multi_thread")]
async fn every_region_of_every_partition_has_botocores_endpoint() {
    let found = python(ENDPOINTS, &[], &json!(null)).unwrap();
    let found = found.as_array().unwrap();
    let mut partitions: Vec<&str> = found.iter().map(|row| row[0].as_str().unwrap()).collect();
    partitions.dedup();
    assert_eq!(partitions.len(), 8, "{partitions:?}");
    for row in found {
        let (region, url) = (row[1].as_str().unwrap(), row[4].as_str().unwrap());
        let flavor = EndpointFlavor {
            fips: row[2].as_bool().unwrap(),
            dual_stack: row[3].as_bool().unwrap(),
        };
        let ours = match region {
            "aws-global" if flavor == EndpointFlavor::default() => StsEndpoint::global(),
            // The other pseudo-regions have no endpoint of STS behind the name.
            _ if region.ends_with("-global") => continue,
            _ => StsEndpoint::regional(&region.parse().unwrap(), flavor).unwrap(),
        };
        assert_eq!(format!("https://{}", ours.authority()), url, "{row}");
    }
}

const NAME: &str = "aZ09_+=,.@-";
const TAG: &str = "aZ09 _.:/=+-@ÄéЖ中😀";
const ANY: &str = " !\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~ÄéЖ中😀\n\t";
const KEY: &str = "aZ09/+=";

/// Our request, and the task for botocore, which is to write and sign the same.
struct Case {
    request: StsRequest,
    task: Value,
}

fn case(numbers: &mut Numbers) -> Case {
    const REGIONS: [&str; 4] = ["eu-central-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1"];
    let region: Region = REGIONS[numbers.below(4)].parse().unwrap();
    let endpoint = match numbers.below(3) {
        0 => StsEndpoint::custom("http://127.0.0.1:4566", &region).unwrap(),
        1 => StsEndpoint::custom("https://sts.test", &region).unwrap(),
        _ => StsEndpoint::regional(&region, EndpointFlavor::default()).unwrap(),
    };
    let credentials = Credentials {
        access_key_id: numbers.text("AZ27", 16, 20).into(),
        secret_access_key: Secret::new(numbers.text(KEY, 1, 60)),
        session_token: numbers.some(|numbers| Secret::new(numbers.text(KEY, 1, 500))),
    };
    // Between 2001 and 2069.
    let now = Timestamp::from_second(1_000_000_000 + i64::try_from(numbers.below(3_000_000_000)).unwrap()).unwrap();
    let (action, members, request) = match numbers.below(5) {
        0 => (
            "GetCallerIdentity",
            json!({}),
            get_caller_identity(&endpoint, &credentials, now),
        ),
        1 => web_identity_token(numbers, &endpoint, &credentials, now),
        2 => web_identity(numbers, &endpoint),
        _ => assume_role(numbers, &endpoint, &credentials, now),
    };
    let content_type = header(&request, "content-type").unwrap();
    let scheme = if endpoint.is_https() { "https" } else { "http" };
    let task = json!({
        "action": action, "members": members, "body": request.body(), "type": content_type,
        "url": format!("{scheme}://{}/", endpoint.authority()), "at": now.as_second(),
        "region": endpoint.signing_region(), "id": credentials.access_key_id,
        "secret": credentials.secret_access_key.expose(),
        "token": credentials.session_token.as_ref().map(Secret::expose),
    });
    Case { request, task }
}

/// The one request that isn't signed.
fn web_identity(numbers: &mut Numbers, endpoint: &StsEndpoint) -> Written {
    let role: RoleArn = "arn:aws-cn:iam::111122223333:role/shop/orders".parse().unwrap();
    let (session_name, token) = (numbers.text(NAME, 2, 64), Secret::new(numbers.text("aZ09-_.", 4, 2000)));
    let duration = 900 + u32::try_from(numbers.below(40_000)).unwrap();
    let policy = numbers.text(" {}\"[]:*\u{e9}", 1, 300);
    let members = json!({"RoleArn": role.as_str(), "RoleSessionName": session_name, "WebIdentityToken": token.expose(),
        "DurationSeconds": duration, "Policy": policy});
    let request = AssumeRoleWithWebIdentity {
        role: &role,
        session_name: &session_name,
        token: &token,
        duration_seconds: Some(duration),
        session_policy: SessionPolicyParameters {
            inline: Some(&policy),
            arns: &[],
        },
    };
    ("AssumeRoleWithWebIdentity", members, request.request(endpoint))
}

type Written = (&'static str, Value, StsRequest);

fn assume_role(numbers: &mut Numbers, endpoint: &StsEndpoint, credentials: &Credentials, now: Timestamp) -> Written {
    let role: RoleArn = format!("arn:aws:iam::111122223333:role/{}", numbers.text("aZ09+=,.@_-", 1, 30))
        .parse()
        .unwrap();
    let session_name = numbers.text(NAME, 2, 64);
    let external_id = numbers.some(|numbers| numbers.text("aZ09_+=,.@:/-", 2, 100));
    let duration = numbers.some(|numbers| 900 + u32::try_from(numbers.below(2000)).unwrap());
    let policy = numbers.some(|numbers| numbers.text(" !\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~\u{e9}", 1, 300));
    let arns: Vec<String> = (0..numbers.below(4))
        .map(|_| format!("arn:aws:iam::aws:policy/{}", numbers.text("aZ09", 1, 20)))
        .collect();
    let tags = tags(numbers);
    let source = numbers.some(|numbers| numbers.text(NAME, 2, 64));

    let mut members = json!({"RoleArn": role.as_str(), "RoleSessionName": session_name});
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members[name] = value;
        }
    };
    add("ExternalId", external_id.as_ref().map(|text| json!(text)));
    add("DurationSeconds", duration.map(|number| json!(number)));
    add("Policy", policy.as_ref().map(|text| json!(text)));
    add("SourceIdentity", source.as_ref().map(|text| json!(text)));
    let list = |items: Vec<Value>| (!items.is_empty()).then_some(json!(items));
    add("PolicyArns", list(arns.iter().map(|arn| json!({"arn": arn})).collect()));
    add("Tags", list(tag_members(&tags)));
    add(
        "TransitiveTagKeys",
        list(tags.iter().map(|(key, _)| json!(key)).collect()),
    );

    let arns: Vec<&str> = arns.iter().map(String::as_str).collect();
    let pairs: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let keys: Vec<&str> = tags.iter().map(|(key, _)| key.as_str()).collect();
    let request = AssumeRole {
        role: &role,
        session_name: &session_name,
        external_id: external_id.as_deref(),
        duration_seconds: duration,
        session_policy: SessionPolicyParameters {
            inline: policy.as_deref(),
            arns: &arns,
        },
        tags: &pairs,
        transitive_tag_keys: &keys,
        source_identity: source.as_deref(),
    };
    ("AssumeRole", members, request.request(endpoint, credentials, now))
}

fn web_identity_token(
    numbers: &mut Numbers,
    endpoint: &StsEndpoint,
    credentials: &Credentials,
    now: Timestamp,
) -> Written {
    let audiences: Vec<String> = (0..=numbers.below(3)).map(|_| numbers.text(ANY, 1, 60)).collect();
    let tags = tags(numbers);
    let scope = numbers.some(|numbers| numbers.text("aZ:/.", 1, 30));
    let mut members = json!({"Audience": audiences, "SigningAlgorithm": "ES384", "DurationSeconds": 600});
    if !tags.is_empty() {
        members["Tags"] = json!(tag_members(&tags));
    }
    if let Some(scope) = &scope {
        members["Scope"] = json!(scope);
        members["SubjectMode"] = json!("OriginIdentity");
    }
    let audiences: Vec<&str> = audiences.iter().map(String::as_str).collect();
    let pairs: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let request = GetWebIdentityToken {
        audiences: &audiences,
        algorithm: AwsAlgorithm::ES384,
        duration_seconds: Some(600),
        tags: &pairs,
        subject_mode: match scope {
            Some(_) => SubjectMode::OriginIdentity,
            None => SubjectMode::AwsIdentity,
        },
        scope: scope.as_deref(),
    };
    let request = request.request(endpoint, credentials, now).unwrap();
    ("GetWebIdentityToken", members, request)
}

fn tags(numbers: &mut Numbers) -> Vec<(String, String)> {
    let count = numbers.below(4);
    (0..count)
        .map(|_| (numbers.text(TAG, 1, 30), numbers.text(TAG, 0, 60)))
        .collect()
}

fn tag_members(tags: &[(String, String)]) -> Vec<Value> {
    let member = |(key, value): &(String, String)| json!({"Key": key, "Value": value});
    tags.iter().map(member).collect()
}

fn header<'a>(request: &'a StsRequest, name: &str) -> Option<&'a str> {
    let mut headers = request.headers().iter();
    headers.find_map(|(own, value)| (*own == name).then_some(value.as_str()))
}

/// The members of a body, decoded.
fn decoded(body: &str) -> Value {
    let decode = |text: &str| {
        let mut parts = text.split('%');
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            let (digits, rest) = part.split_at(2);
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            bytes.extend(rest.as_bytes());
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = body.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (decode(name), json!(decode(value))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn botocore_writes_the_same_members_and_finds_the_same_signature() {
    let mut numbers = Numbers::new(20_261_129);
    let cases: Vec<Case> = (0..500).map(|_| case(&mut numbers)).collect();
    let tasks: Vec<&Value> = cases.iter().map(|case| &case.task).collect();
    let outcomes = python(SIGNATURES, &[], &json!(tasks)).unwrap();
    assert_eq!(outcomes.as_array().unwrap().len(), cases.len());
    for (case, outcome) in cases.iter().zip(outcomes.as_array().unwrap()) {
        let Case { request, task } = case;
        let unsigned = task["action"] == "AssumeRoleWithWebIdentity";
        for name in ["authorization", "x-amz-date", "x-amz-security-token"] {
            if unsigned {
                assert_eq!(header(request, name), None, "{task}");
                continue;
            }
            assert_eq!(
                header(request, name),
                outcome["headers"][name].as_str(),
                "{name} {task}"
            );
        }
        assert_eq!(decoded(request.body()), outcome["members"], "{task}");
    }
}
