//! The texts about wrong values and what would be right, once for the API server's rules and for the reader.

pub(crate) const ROLES_EMPTY: &str = "should have allowed, default or both: without them the policy grants nothing";
pub(crate) const DEFAULT_ROLE: &str =
    "should be one of the roles in roles.allowed: add it there, or a pattern that covers it";
pub(crate) const DEFAULT_AUDIENCE: &str = "should be one of audiences.allowed: add it there";

pub(crate) const BOUNDARY_ROLES: &str =
    "should have at least one role or pattern: without them the boundary allows nothing";
pub(crate) const UNKNOWN_IN_BOUNDARY: &str = "is no field that this version of tokenscope knows, so nobody can keep to it: upgrade the chart tokenscope to the version of tokenscope-crds, or remove the field";
pub(crate) const BOUNDARY_SESSION_POLICY: &str =
    "should have inline or arns: without them no session can be inside. Leave it out if sessions need no policy";

pub(crate) const ALGORITHM_WITHOUT_ISSUER: &str =
    "should be left out unless token.source is Issuer: other sources choose their algorithm themselves";
pub(crate) const SUBJECT_WITHOUT_ISSUER: &str =
    "should not be Policy unless token.source is Issuer: other sources choose the subject themselves";
pub(crate) const LIFETIME_WITH_SPIFFE: &str = "should be left out with token.source SPIFFE: the SPIFFE provider decides how long its tokens are valid, in SPIRE by the entry's jwtSVIDTTL or default_jwt_svid_ttl";
pub(crate) const SPIFFE_WITHOUT_SOURCE: &str = "should be left out unless token.source is SPIFFE";
pub(crate) const TRUST_DOMAIN_OF_ID: &str = "should be the trust domain of token.spiffe.spiffeId, or be left out";

pub(crate) const CLAIMS_WITHOUT_ISSUER: &str =
    "should be left out unless token.source is Issuer: only tokenscope's own issuer can sign claims";
pub(crate) const TRANSITIVE_KEY: &str = "should name only keys of claims.principalTags, written in the same way";
pub(crate) const TAG_KEY: &str =
    "every key should have 1 to 128 letters, digits, spaces and _.:/=+-@, as AWS demands of a tag's key";
pub(crate) const TAG_KEY_OF_AWS: &str = "no key should start with aws:, which AWS keeps to itself";
pub(crate) const TAG_KEY_TWICE: &str =
    "two keys should differ by more than upper and lower case: to AWS they are one tag";
pub(crate) const TAG_VALUE: &str =
    "should have only letters, digits, spaces and _.:/=+-@ besides variables, as AWS demands of a tag's value";
pub(crate) const TAG_VALUE_LENGTH: &str = "should have at most 256 characters, as AWS demands of a tag's value";
pub(crate) const TAG_VALUE_OF_AWS: &str = "should not start with aws:, which AWS keeps to itself";
pub(crate) const CONTEXT_KEY: &str =
    "every key should have 1 to 64 letters, digits and _, since the claim's name is tokenscope_<key>";
pub(crate) const CONTEXT_VALUE: &str =
    "should have only printable ASCII characters without quotation marks and backslashes besides variables";
pub(crate) const CONTEXT_VALUE_LENGTH: &str =
    "should have 1 to 128 characters, as AWS demands of a value of its context";

pub(crate) const STS_NAME: &str = "should have only letters, digits and _+=,.@- besides variables, as AWS STS demands";
pub(crate) const STS_NAME_LENGTH: &str = "should have 2 to 64 characters, as AWS STS demands";
pub(crate) const SESSION_NAME: &str = "should be ${pod.name} alone, or a template without ${pod.name} and ${pod.uid}: these have no value yet when the pod is admitted";
pub(crate) const STS_REGIONAL_ENDPOINTS: &str =
    "was renamed: write aws.sts, {endpoints: Regional} in place of true and {endpoints: Global} in place of false";

pub(crate) const PROFILE_WITHOUT_TYPE: &str = "should be left out unless delivery.type is Profile";
pub(crate) const CHAIN_WITHOUT_TYPE: &str =
    "should be left out unless delivery.type is Profile or Endpoint: by a token's file, SDKs take one role only";
pub(crate) const SESSION_POLICY_WITHOUT_ENDPOINT: &str = "should be left out unless delivery.type is Endpoint: with File and Profile SDKs take roles themselves, without a session policy";
pub(crate) const DURATION_WITHOUT_ENDPOINT: &str = "should be left out unless delivery.type is Endpoint: with File and Profile SDKs choose how long their sessions last";
pub(crate) const REGIONS_WITHOUT_ENDPOINT: &str =
    "should be left out unless delivery.type is Endpoint: with File and Profile SDKs ask STS themselves, in aws.region";
pub(crate) const DURATION_WITH_CHAIN: &str = "should be at most 3600 with aws.roleChain: AWS limits a session that is taken with a role's credentials to one hour";
pub(crate) const FILES_WITH_ENDPOINT: &str =
    "should not have x509Svid or jwtBundle with delivery.type Endpoint: these are files, and the containers get none";
pub(crate) const ENDPOINT_WITHOUT_TYPE: &str = "should be left out unless delivery.type is Endpoint";
pub(crate) const APORETO_WITHOUT_ISSUER: &str = "should not be true unless token.source is Issuer: only tokenscope's own issuer gives tokens by audience while a pod runs";
pub(crate) const POLICY_DOCUMENT: &str =
    "should be a JSON object of at most 1024 printable ASCII characters, tabs and ends of lines";
pub(crate) const SESSION_POLICY_OF_STS: &str =
    "should have at most 2048 characters in inline and arns together, as AWS STS demands";
pub(crate) const PROFILE_TWICE: &str = "should be there once";
pub(crate) const PLAIN_ROLE: &str = "should have only letters, digits and _+=,.@:/-, since SDKs read other characters of a config file in different ways";

pub(crate) const OUTBOUND_WITHOUT_ENDPOINT: &str = "should not have source AWS unless delivery.type is Endpoint: the container that asks AWS with the role's credentials is there only then";
pub(crate) const OUTBOUND_AWS_LIFETIME: &str =
    "should be at most 3600 with source AWS, whose tokens are valid for an hour at most";
pub(crate) const OUTBOUND_WITHOUT_AWS: &str = "should be left out unless source is AWS";
pub(crate) const OUTBOUND_SCOPE: &str = "should have 1 to 256 printable ASCII characters without quotation marks, commas and backslashes: scopes between single spaces, none twice";
pub(crate) const OUTBOUND_SCOPE_WITHOUT_ORIGIN: &str =
    "should be left out unless subjectMode is OriginIdentity: AWS takes no scopes otherwise";
pub(crate) const OUTBOUND_WITHOUT_ISSUER: &str = "should not have source Issuer unless token.source is Issuer: the container that keeps the issuer's tokens is there only then";
pub(crate) const OUTBOUND_NAME: &str =
    "should have 1 to 63 lower case letters, digits and -, with a letter or digit at both ends";
pub(crate) const OUTBOUND_AUDIENCE: &str =
    "should have no quotation marks and backslashes: no party's audience has any";
pub(crate) const OUTBOUND_TWICE: &str = "should be there once";
pub(crate) const OUTBOUND_VARIABLE_TWICE: &str = "should be there once in all tokens of the policy and their presets";
pub(crate) const OUTBOUND_VALUE: &str = "should have either value or valueFrom";
pub(crate) const OUTBOUND_LITERAL: &str =
    "should have 1 to 256 printable ASCII characters without quotation marks and backslashes";
pub(crate) const OUTBOUND_VARIABLE: &str = "should have 1 to 64 upper case letters, digits and _, with a letter first";
pub(crate) const OUTBOUND_VARIABLE_FORBIDDEN: &str = "should not be a name that AWS SDKs, loaders, shells, language runtimes or proxies read: name only variables of the party that the token is for";

pub(crate) const SERVICE_ACCOUNT: &str =
    "should be the name of a service account, in which * stands for any characters, such as orders or orders-*";
pub(crate) const CONTAINER: &str =
    "should be the name of a container, in which * stands for any characters, such as app or worker-*";
pub(crate) const LABEL_KEY: &str = "should be a label's key, such as app or example.com/team";
pub(crate) const NEEDS_VALUES: &str = "should have at least one value, since operator is In or NotIn";
pub(crate) const TAKES_NO_VALUES: &str = "should be left out, since operator is Exists or DoesNotExist";
pub(crate) const MOMENT: &str = "should be a moment with a time zone as in RFC 3339, such as 2027-01-01T00:00:00Z";
