//! From a decision to the edits of one pod.
//!
//! The edits are the difference between what the pod should carry and what it carries, so that reviewing our own output
//! gives none. What an earlier review of ours added is known by the record that it left on the pod, and is changed or
//! taken away where the decision is another one by now. Nothing else that a user or another webhook wrote is ever changed.

use std::borrow::Cow;

use tokenscope_core::bounds::MOST_RECORD_BYTES;
use tokenscope_core::lock::{LockMode, holds_locked_token};
use tokenscope_core::pod::{AddedVariables, Container, EnvVar, Pod, SIDECAR, Volume, VolumeMount};
use tokenscope_core::{
    Audience, Decision, Enforcement, Grant, GrantRecord, Granted, Hint, Pairs, RecordedGrant, Request, SessionName,
    Settings, SpiffeId, TokenExpiration, TokenSource, TrustDomain, Untouched, WorkloadApi, annotations, fingerprint,
};

use crate::present_sidecar::PresentSidecars;
use crate::sidecar_container::{SOCKET_FOLDER, SidecarContainer};

/// What a review comes to, and how the pod changes.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What becomes of the pod.
    pub verdict: Verdict,
    /// How it changes, in the order in which it must change.
    pub edits: Vec<Edit<'a>>,
    /// What whoever creates the pod should know.
    pub warnings: Vec<String>,
    /// The name of the volume that is ours, or goes: the lock has no business with the tokens in it.
    pub own_volume: Option<&'static str>,
}

/// What becomes of a pod, once its own volumes and mounts were looked at too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets no credentials, and nobody asked for any.
    Untouched(Untouched),
    /// It gets credentials.
    Granted,
    /// It may not have what it asks for.
    Refused {
        /// One sentence each; never empty.
        reasons: Vec<String>,
        /// Whether it is kept out, or admitted without credentials.
        enforcement: Enforcement,
    },
}

/// One change of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<'a> {
    /// Puts a volume of ours before all others; `none` where the pod has no list of volumes yet.
    AddVolume {
        /// What it is.
        volume: NewVolume<'a>,
        /// Whether the pod has no list of volumes yet.
        none: bool,
    },
    /// Makes our volume another one.
    ReplaceVolume {
        /// The volume's index.
        volume: usize,
        /// What it is from now on.
        new: NewVolume<'a>,
    },
    /// Puts other tokens into our volume.
    ReplaceTokens {
        /// The volume's index.
        volume: usize,
        /// What is in it.
        tokens: Vec<TokenFile<'a>>,
    },
    /// Takes our volume away.
    RemoveVolume {
        /// The volume's index.
        volume: usize,
    },
    /// Puts variables behind all others.
    AddVariables {
        /// The container.
        container: Place,
        /// The variables; never empty.
        variables: Vec<Variable<'a>>,
        /// Whether the container has no list of variables yet.
        none: bool,
    },
    /// Gives our variable another value.
    ReplaceVariable {
        /// The container.
        container: Place,
        /// The variable's index.
        index: usize,
        /// What it is from now on.
        variable: Variable<'a>,
    },
    /// Takes our variable away.
    RemoveVariable {
        /// The container.
        container: Place,
        /// The variable's index.
        index: usize,
    },
    /// Puts our mount behind all others.
    AddMount {
        /// The container.
        container: Place,
        /// The mount.
        mount: Mount,
        /// Whether the container has no list of mounts yet.
        none: bool,
    },
    /// Sets our mount right.
    ReplaceMount {
        /// The container.
        container: Place,
        /// The mount's index.
        index: usize,
        /// The mount.
        mount: Mount,
    },
    /// Takes our mount away.
    RemoveMount {
        /// The container.
        container: Place,
        /// The mount's index.
        index: usize,
    },
    /// Puts the sidecar before all other init containers, so that each of them finds a token. All edits of init containers
    /// come before, since it moves their indices.
    AddSidecar {
        /// The sidecar.
        sidecar: SidecarContainer<'a>,
        /// Whether the pod has no list of init containers yet.
        none: bool,
    },
    /// Moves the sidecar before all other init containers.
    MoveSidecar {
        /// Its index among the init containers.
        from: usize,
    },
    /// Takes the sidecar away.
    RemoveSidecar {
        /// Its index among the init containers.
        index: usize,
    },
    /// Sets labels or annotations.
    SetMetadata {
        /// Which of the two.
        map: MetadataMap,
        /// Keys and values; never empty.
        entries: Vec<(&'static str, Cow<'static, str>)>,
        /// Whether the pod has none yet.
        none: bool,
    },
    /// Takes a label or an annotation away.
    RemoveMetadata {
        /// Which of the two.
        map: MetadataMap,
        /// Its key.
        key: &'static str,
    },
}

/// A map of a pod's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataMap {
    /// `metadata.labels`.
    Labels,
    /// `metadata.annotations`.
    Annotations,
}

impl MetadataMap {
    /// Its JSON Pointer (RFC 6901).
    pub fn path(self) -> &'static str {
        match self {
            Self::Labels => "/metadata/labels",
            Self::Annotations => "/metadata/annotations",
        }
    }
}

/// Where a container stands in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `initContainers` or `containers`.
    pub list: &'static str,
    /// Its index there.
    pub index: usize,
}

/// A volume of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume<'a> {
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub content: Content<'a>,
}

/// What is in a volume of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Tokens that the kubelet keeps.
    Tokens(Vec<TokenFile<'a>>),
    /// What the sidecar writes: a tmpfs, so that no token reaches a disk.
    Memory,
    /// The socket of the SPIFFE Workload API.
    Socket(&'a WorkloadApi),
}

/// One projected token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile<'a> {
    /// Whom it is for.
    pub audience: &'a Audience,
    /// How long it is valid.
    pub expiration: TokenExpiration,
    /// Its file in the volume.
    pub file: Cow<'static, str>,
}

/// An environment variable of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Value<'a>,
}

/// What a variable of ours holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// This text, which the kubelet takes as it is.
    Text(Cow<'a, str>),
    /// The pod's name, by the downward API.
    PodName,
}

/// A read-only mount of our volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name.
    pub volume: &'static str,
    /// Where it is mounted.
    pub path: &'static str,
}

/// The volume that has the Workload API's socket, where the pod brings none.
/// How many conflicts of one pod are told.
const MOST_CONFLICTS: usize = 8;

const SOCKET_VOLUME: &str = "tokenscope-spiffe-workload-api";

/// The variables that a container may get, in the order in which the EKS webhook adds them.
const STS_REGIONAL_ENDPOINTS: &str = "AWS_STS_REGIONAL_ENDPOINTS";
const DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";
const REGION: &str = "AWS_REGION";
const ROLE_ARN: &str = "AWS_ROLE_ARN";
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
const ROLE_SESSION_NAME: &str = "AWS_ROLE_SESSION_NAME";
const METADATA_DISABLED: &str = "AWS_EC2_METADATA_DISABLED";

/// All of them. A record that names any other variable is not ours, and does not make that one ours.
const VARIABLES: [&str; 7] = [
    STS_REGIONAL_ENDPOINTS,
    DEFAULT_REGION,
    REGION,
    ROLE_ARN,
    TOKEN_FILE,
    ROLE_SESSION_NAME,
    METADATA_DISABLED,
];

impl Mount {
    fn of(settings: &Settings) -> Self {
        if settings.eks_compatible {
            return Self {
                volume: "aws-iam-token",
                path: "/var/run/secrets/eks.amazonaws.com/serviceaccount",
            };
        }
        Self {
            volume: "tokenscope-aws-token",
            path: "/var/run/secrets/tokenscope.io/aws",
        }
    }

    /// The path of one of its files, as a program in the container writes it.
    fn file(self, name: &str, windows: bool) -> String {
        if windows {
            return format!("C:{}\\{name}", self.path.replace('/', "\\"));
        }
        [self.path, "/", name].concat()
    }
}

/// Says how a pod changes so that it carries what was decided about `request`, which is the request that `pod` gave.
///
/// `refused` says why nothing can be granted in the pod's namespace, if nothing can.
///
/// A pod whose own volume or mount stands where ours must go is refused although its role was granted: a token that we
/// did not put there is never trusted.
pub fn plan<'a, 'b, S: AsRef<str>>(
    pod: &'a Pod<S>,
    record: Option<&'b GrantRecord<'b>>,
    request: &'b Request<'b>,
    decision: &'a Decision,
    settings: &'a Settings,
    sidecars: &'b PresentSidecars,
    refused: Option<String>,
) -> Plan<'a> {
    let mut planner = Planner::new(pod, record, request, settings, sidecars);
    // What nobody could look at may be what the pod asks by. A pod that opts out asks for nothing.
    if let Some(reason) = refused
        && !matches!(decision, Decision::Untouched(Untouched::OptedOut))
    {
        return planner.refuse(vec![reason]);
    }
    match decision {
        Decision::Untouched(why) => {
            let reserved = planner.reserved_names();
            if planner.needs_mark() && !reserved.is_empty() {
                return planner.refuse(reserved);
            }
            let mut plan = planner.leave(Verdict::Untouched(why.clone()));
            if let Untouched::NoContainer { warnings } = why {
                plan.warnings.clone_from(warnings);
            }
            plan
        }
        Decision::Denied(denied) => planner.refuse(denied.sentences()),
        Decision::Granted(granted) => {
            let equipment = Equipment::of(granted, &planner);
            planner.adopt_volume(&equipment);
            match planner.conflicts(&equipment) {
                conflicts if conflicts.is_empty() => planner.grant(granted, equipment),
                conflicts => planner.refuse(conflicts),
            }
        }
    }
}

/// A pod, and what an earlier review left on it.
struct Planner<'a, 'b, S> {
    pod: &'a Pod<S>,
    containers: Vec<(Place, &'a Container<S>)>,
    record: Option<&'b GrantRecord<'b>>,
    /// The variables that it says are ours.
    added: AddedVariables<'b>,
    request: &'b Request<'b>,
    settings: &'a Settings,
    mount: Mount,
    windows: bool,
    /// The volume that has the name of ours.
    volume: Option<(usize, &'a Volume<S>)>,
    /// Whether what has the name of our volume is ours.
    owns_volume: bool,
    /// The volume that has the name of ours for the Workload API's socket.
    socket_volume: Option<(usize, &'a Volume<S>)>,
    /// Whether an earlier review added a sidecar, and with it maybe that volume.
    owns_sidecar: bool,
    /// The init containers of the sidecar's name, whole.
    sidecars: &'b PresentSidecars,
}

/// What the granted containers get.
struct Equipment<'a> {
    /// One for each granted container, in the pod's order.
    containers: Vec<Equipped<'a>>,
    /// One for each distinct audience.
    tokens: Vec<TokenFile<'a>>,
    /// Whether a role session name had to be left out.
    name_does_not_fit: bool,
}

/// What one container gets.
struct Equipped<'a> {
    /// Its index among all containers.
    container: usize,
    grant: &'a Grant,
    variables: Vec<Variable<'a>>,
    mounts: bool,
}

impl<'a> Equipment<'a> {
    /// Whether somebody but the kubelet must bring the tokens. Those of one pod have one source.
    fn needs_sidecar(&self) -> bool {
        let from_spiffe = |equipped: &Equipped<'_>| equipped.grant.source == TokenSource::Spiffe;
        !self.tokens.is_empty() && self.containers.first().is_some_and(from_spiffe)
    }

    fn of<S: AsRef<str>>(granted: &'a Granted, planner: &Planner<'a, '_, S>) -> Self {
        let mut equipment = Self {
            containers: Vec::with_capacity(granted.containers.len()),
            tokens: Vec::with_capacity(1),
            name_does_not_fit: false,
        };
        for granted in &granted.containers {
            // The decision's indices are those of the request, which was made from these containers.
            let Some((_, container)) = planner.containers.get(granted.container) else {
                continue;
            };
            equipment.equip(granted.container, container, &granted.grant, planner);
        }
        equipment
    }

    fn equip<S: AsRef<str>>(
        &mut self,
        index: usize,
        container: &Container<S>,
        grant: &'a Grant,
        planner: &Planner<'a, '_, S>,
    ) {
        let own = |name: &str| container.variable(name).filter(|_| !planner.is_ours(container, name));
        let mut variables = Vec::with_capacity(VARIABLES.len());
        let mut add = |name, value| variables.push(Variable { name, value });
        let text = |text: &'a str| Value::Text(Cow::Borrowed(text));

        if grant.sts_regional_endpoints && own(STS_REGIONAL_ENDPOINTS).is_none() {
            add(STS_REGIONAL_ENDPOINTS, text("regional"));
        }
        if let Some(region) = &grant.region
            && own(REGION).is_none()
            && own(DEFAULT_REGION).is_none()
        {
            add(DEFAULT_REGION, text(region.as_str()));
            add(REGION, text(region.as_str()));
        }
        if own(ROLE_ARN).is_none() {
            add(ROLE_ARN, Value::Text(unexpanded(grant.role.as_str())));
        }
        let own_file = own(TOKEN_FILE);
        // A file of its own elsewhere comes from a volume of its own, so it needs nothing of ours.
        let mounts = own_file.is_none_or(|file| {
            file.value
                .as_ref()
                .is_some_and(|path| is_within(path.as_ref(), planner.mount.path, planner.windows))
        });
        let file = if mounts {
            self.token(&grant.audience, grant.expiration)
        } else {
            ""
        };
        if own_file.is_none() {
            let path = planner.mount.file(file, planner.windows);
            add(TOKEN_FILE, Value::Text(Cow::Owned(path)));
        }
        if let Some(session_name) = &grant.session_name
            && own(ROLE_SESSION_NAME).is_none()
        {
            match session_name {
                SessionName::Text(name) => add(ROLE_SESSION_NAME, text(name)),
                SessionName::PodName if planner.pod_name_fits() => add(ROLE_SESSION_NAME, Value::PodName),
                SessionName::PodName => self.name_does_not_fit = true,
            }
        }
        if grant.disables_instance_metadata && own(METADATA_DISABLED).is_none() {
            add(METADATA_DISABLED, text("true"));
        }
        self.containers.push(Equipped {
            container: index,
            grant,
            variables,
            mounts,
        });
    }

    /// The file of a token for `audience`, which is valid for at most `expiration`.
    fn token(&mut self, audience: &'a Audience, expiration: TokenExpiration) -> &str {
        let known = self.tokens.iter().position(|token| token.audience == audience);
        let index = known.unwrap_or_else(|| {
            let file = if self.tokens.is_empty() {
                Cow::Borrowed("token")
            } else {
                Cow::Owned(audience.file_name())
            };
            self.tokens.push(TokenFile {
                audience,
                expiration,
                file,
            });
            self.tokens.len() - 1
        });
        let token = &mut self.tokens[index];
        token.expiration = token.expiration.min(expiration);
        &token.file
    }
}

impl<'a, 'b, S: AsRef<str>> Planner<'a, 'b, S> {
    fn new(
        pod: &'a Pod<S>,
        record: Option<&'b GrantRecord<'b>>,
        request: &'b Request<'b>,
        settings: &'a Settings,
        sidecars: &'b PresentSidecars,
    ) -> Self {
        let mount = Mount::of(settings);
        let volumes = || pod.spec.volumes.iter().flatten().enumerate();
        let volume = volumes().find(|(_, volume)| volume.name.as_ref() == mount.volume);
        Self {
            pod,
            containers: places(pod, record).collect(),
            record,
            added: AddedVariables::of(record),
            request,
            settings,
            mount,
            windows: pod.needs_windows(),
            volume,
            owns_volume: record.is_some() && volume.is_none_or(|(_, volume)| holds_tokens_only(volume)),
            socket_volume: volumes().find(|(_, volume)| volume.name.as_ref() == SOCKET_VOLUME),
            owns_sidecar: record.is_some_and(|record| record.sidecar),
            sidecars,
        }
    }

    /// Whether an earlier review added this variable.
    fn is_ours(&self, container: &Container<S>, variable: &str) -> bool {
        self.added.has(container.name.as_ref(), variable)
    }

    /// Where tokenscope follows the EKS webhook, that one may have been there before. A volume that is exactly what ours would
    /// be, and that is mounted only where and as ours would be, is taken for ours.
    fn adopt_volume(&mut self, equipment: &Equipment<'_>) {
        let Some((_, volume)) = self.volume else { return };
        if !self.settings.eks_compatible || self.record.is_some() || !holds(volume, &equipment.tokens) {
            return;
        }
        self.owns_volume = self.containers.iter().enumerate().all(|(index, (_, container))| {
            let mounted = equipment
                .containers
                .iter()
                .any(|equipped| equipped.container == index && equipped.mounts);
            let mut mounts = container.volume_mounts.iter().flatten();
            mounts.all(|mount| mount.name.as_ref() != self.mount.volume || mounted && self.mount.is(mount))
        });
    }

    /// What stands where our volume or one of its mounts must go, and what to do about it.
    fn conflicts(&self, equipment: &Equipment<'_>) -> Vec<String> {
        let Mount { volume, path } = self.mount;
        if equipment.tokens.is_empty() {
            return Vec::new();
        }
        let mut conflicts = self.reserved_names();
        if equipment.needs_sidecar() {
            self.sidecar_conflicts(&mut conflicts);
        }
        if self.volume.is_some() && !self.owns_volume {
            conflicts.push(format!(
                "the pod brings a volume {volume} of its own, which is the name of the volume that tokenscope adds: remove or rename it"
            ));
        }
        for (index, (_, container)) in self.containers.iter().enumerate() {
            let name = container.name.as_ref();
            let mounts = equipment
                .containers
                .iter()
                .any(|equipped| equipped.container == index && equipped.mounts);
            for foreign in container.volume_mounts.iter().flatten() {
                let by_name = foreign.name.as_ref() == volume;
                if by_name && !self.owns_volume {
                    conflicts.push(format!(
                        "container {name} mounts volume {volume} itself, which tokenscope adds: remove that mount"
                    ));
                } else if !by_name && mounts && is_within(foreign.mount_path.as_ref(), path, self.windows) {
                    conflicts.push(format!(
                        "container {name} mounts volume {} at {}, where tokenscope puts the token: mount it elsewhere",
                        foreign.name.as_ref(),
                        foreign.mount_path.as_ref()
                    ));
                }
            }
        }
        conflicts
    }

    /// What stands where the sidecar or the Workload API's volume must go.
    fn sidecar_conflicts(&self, conflicts: &mut Vec<String>) {
        if self.windows {
            conflicts.push(
                "tokens from SPIFFE are kept by a sidecar that runs on Linux only, and the pod needs Windows: give it a role by a policy with token.source ServiceAccount".to_owned(),
            );
        }
        if let Some(why) = &self.settings.sidecar.unsupported {
            conflicts.push(why.to_string());
        }
    }

    /// Where the pod bears a name of the sidecar's. In a reviewed pod these names are ours: an identity that a SPIFFE provider
    /// gives to a container of this name must not go to somebody else's.
    fn reserved_names(&self) -> Vec<String> {
        let mut conflicts = Vec::new();
        if self.socket_volume.is_some() && !self.owns_sidecar {
            conflicts.push(format!(
                "the pod brings a volume {SOCKET_VOLUME} of its own, which is the name of the volume that tokenscope adds: remove or rename it"
            ));
        }
        for (_, container) in &self.containers {
            let name = container.name.as_ref();
            if name == SIDECAR {
                conflicts.push(format!(
                    "the pod brings a container {SIDECAR} of its own, which is the name of the container that tokenscope adds: remove or rename it"
                ));
            }
            let mut mounts = container.volume_mounts.iter().flatten();
            if mounts.any(|mount| mount.name.as_ref() == SOCKET_VOLUME) {
                conflicts.push(format!(
                    "container {name} mounts volume {SOCKET_VOLUME} itself, which tokenscope adds for its sidecar alone: remove that mount"
                ));
            }
        }
        conflicts.truncate(MOST_CONFLICTS);
        conflicts
    }

    /// Whether the API server's own policies look for the mark on this pod.
    fn needs_mark(&self) -> bool {
        let lock = &self.settings.lock;
        let by_driver = || {
            let inline = self
                .pod
                .spec
                .volumes
                .iter()
                .flatten()
                .filter_map(|volume| volume.csi.as_ref());
            lock.applies_to(self.request.namespace)
                && inline.into_iter().any(|csi| lock.lists_driver(csi.driver.as_ref()))
        };
        let by_lock = || {
            self.request.pod.has_too_many_volumes_for_cel()
                || holds_locked_token(self.request, self.settings)
                || by_driver()
        };
        self.request.needs_mark() || (lock.mode == LockMode::Deny && by_lock())
    }

    fn grant(&self, granted: &'a Granted, equipment: Equipment<'a>) -> Plan<'a> {
        let record = self.record_of(granted, &equipment);
        if record.len() > MOST_RECORD_BYTES {
            return self.refuse(vec![format!(
                "the record of the grant would have {} bytes, and at most {MOST_RECORD_BYTES} are kept: use fewer labels or fewer annotations tokenscope.io/role-arn.<container>",
                record.len()
            )]);
        }
        let mut warnings = granted.warnings.clone();
        self.warn_about_other_credentials(&equipment, &mut warnings);
        if equipment.name_does_not_fit {
            warnings.push(format!(
                "AWS_ROLE_SESSION_NAME is left out: STS takes 2 to 64 characters, and the pod's name has {}",
                self.pod.metadata.name.as_ref().map_or(0, |name| name.as_ref().len())
            ));
        }

        let mut edits = Vec::with_capacity(equipment.containers.len() * 2 + 2);
        let sidecar = self.sidecar(&equipment);
        self.edit_volumes(equipment.tokens, sidecar.as_ref(), &mut edits);
        let mut equipped = equipment.containers.into_iter().peekable();
        for (index, (place, container)) in self.containers.iter().enumerate() {
            let equipped = equipped.next_if(|equipped| equipped.container == index);
            self.edit_container(*place, container, equipped, &mut edits);
        }
        self.edit_sidecar(sidecar, &mut edits);
        self.edit_metadata(Some(record), Some("granted"), &mut edits);
        Plan {
            verdict: Verdict::Granted,
            edits,
            warnings,
            own_volume: Some(self.mount.volume),
        }
    }

    fn refuse(&self, reasons: Vec<String>) -> Plan<'a> {
        let enforcement = if self.settings.never_denies(self.request.namespace) {
            Enforcement::Warn
        } else {
            self.settings.enforcement_in(&self.request.namespace_labels)
        };
        let verdict = Verdict::Refused { reasons, enforcement };
        if enforcement == Enforcement::Enforce {
            return Plan {
                verdict,
                edits: Vec::new(),
                warnings: Vec::new(),
                own_volume: None,
            };
        }
        self.leave(verdict)
    }

    /// Takes away what an earlier review added, and marks the pod where it needs the mark.
    fn leave(&self, verdict: Verdict) -> Plan<'a> {
        let mut edits = Vec::new();
        if self.record.is_some() {
            self.edit_volumes(Vec::new(), None, &mut edits);
            for (place, container) in &self.containers {
                self.edit_container(*place, container, None, &mut edits);
            }
            self.edit_sidecar(None, &mut edits);
        }
        let mark = match &verdict {
            // The guard does not look at these namespaces, so a pod that bears no mark needs no change.
            Verdict::Refused { .. } if !self.settings.never_denies(self.request.namespace) || self.is_marked() => {
                Some("refused")
            }
            Verdict::Refused { .. } => None,
            // A mark that the user brought must not stand there if it is not true.
            _ if self.needs_mark() || self.is_marked() => Some("untouched"),
            _ => None,
        };
        self.edit_metadata(None, mark, &mut edits);
        Plan {
            verdict,
            edits,
            warnings: Vec::new(),
            own_volume: self.owns_volume.then_some(self.mount.volume),
        }
    }

    /// The sidecar that the pod should have.
    fn sidecar(&self, equipment: &Equipment<'a>) -> Option<SidecarContainer<'a>> {
        let settings = &self.settings.sidecar;
        let grant = equipment
            .containers
            .first()
            .filter(|_| equipment.needs_sidecar())?
            .grant;
        let files: Vec<String> = equipment
            .tokens
            .iter()
            .map(|token| format!("{}={}", token.file, token.audience))
            .collect();
        let socket = format!("unix://{SOCKET_FOLDER}/{}", settings.socket_file);
        let mut variables = vec![
            ("TOKENSCOPE_DIRECTORY", Cow::Borrowed(self.mount.path)),
            ("TOKENSCOPE_JWT_SVIDS", unexpanded(&files.join(" ")).into_owned().into()),
            ("SPIFFE_ENDPOINT_SOCKET", Cow::Owned(socket)),
        ];
        let identity = [
            ("TOKENSCOPE_SPIFFE_ID", grant.spiffe.id.as_ref().map(SpiffeId::as_str)),
            ("TOKENSCOPE_HINT", grant.spiffe.hint.as_ref().map(Hint::as_str)),
            (
                "TOKENSCOPE_TRUST_DOMAIN",
                grant.spiffe.trust_domain.as_ref().map(TrustDomain::as_str),
            ),
            ("TOKENSCOPE_X509_SVID", grant.spiffe.x509_svid.then_some("true")),
            ("TOKENSCOPE_JWT_BUNDLE", grant.spiffe.jwt_bundle.then_some("true")),
        ];
        variables.extend(
            identity
                .into_iter()
                .filter_map(|(name, value)| Some((name, unexpanded(value?)))),
        );
        variables.push(("TOKENSCOPE_LOG_LEVEL", unexpanded(&settings.log_level)));
        Some(SidecarContainer {
            settings,
            variables,
            token_volume: self.mount.volume,
            token_folder: self.mount.path,
            socket_volume: self
                .own_workload_api()
                .map_or(Cow::Borrowed(SOCKET_VOLUME), Cow::Borrowed),
        })
    }

    /// A volume of the pod's own that has the Workload API's socket already.
    fn own_workload_api(&self) -> Option<&'a str> {
        let WorkloadApi::Csi { driver } = &self.settings.sidecar.workload_api else {
            return None;
        };
        let mut volumes = self.pod.spec.volumes.iter().flatten();
        let found = volumes.find(|volume| {
            // The driver refuses to mount it writable.
            volume.name.as_ref() != SOCKET_VOLUME
                && volume
                    .csi
                    .as_ref()
                    .is_some_and(|csi| csi.driver.as_ref() == &**driver && csi.read_only == Some(true))
        });
        found.map(|volume| volume.name.as_ref())
    }

    fn edit_volumes(
        &self,
        tokens: Vec<TokenFile<'a>>,
        sidecar: Option<&SidecarContainer<'a>>,
        edits: &mut Vec<Edit<'a>>,
    ) {
        let socket = sidecar
            .filter(|sidecar| sidecar.socket_volume == SOCKET_VOLUME)
            .map(|sidecar| NewVolume {
                name: SOCKET_VOLUME,
                content: Content::Socket(&sidecar.settings.workload_api),
            });
        let tokens = (!tokens.is_empty()).then_some(NewVolume {
            name: self.mount.volume,
            content: match sidecar {
                Some(_) => Content::Memory,
                None => Content::Tokens(tokens),
            },
        });
        let mut unwanted = Vec::new();
        let mut missing = Vec::new();
        // The last one that is added comes first in the end.
        let ours = [
            (self.socket_volume, self.owns_sidecar, socket),
            (self.volume, self.owns_volume, tokens),
        ];
        for (present, is_ours, wanted) in ours {
            match (present, wanted) {
                (None, wanted) => missing.extend(wanted),
                (Some(_), _) if !is_ours => {}
                (Some((volume, _)), None) => unwanted.push(volume),
                (Some((_, present)), Some(wanted)) if wanted.content.is(present) => {}
                (Some((volume, present)), Some(new)) => edits.push(match new.content {
                    Content::Tokens(tokens) if present.projected.is_some() => Edit::ReplaceTokens { volume, tokens },
                    _ => Edit::ReplaceVolume { volume, new },
                }),
            }
        }
        // From behind, so that the indices of those that are still to go stay true.
        unwanted.sort_unstable_by(|a, b| b.cmp(a));
        edits.extend(unwanted.into_iter().map(|volume| Edit::RemoveVolume { volume }));
        edits.extend(missing.into_iter().enumerate().map(|(index, volume)| Edit::AddVolume {
            volume,
            none: index == 0 && self.pod.spec.volumes.is_none(),
        }));
    }

    /// The sidecar is the first init container, so that each of the others finds a token too.
    fn edit_sidecar(&self, wanted: Option<SidecarContainer<'a>>, edits: &mut Vec<Edit<'a>>) {
        let init_containers = self.pod.spec.init_containers.as_deref();
        let equal = wanted
            .as_ref()
            .filter(|_| self.owns_sidecar)
            .and_then(|wanted| self.sidecars.only_one_equal_to(&wanted.json()));
        match equal {
            Some(0) => return,
            Some(from) => return edits.push(Edit::MoveSidecar { from }),
            None => {}
        }
        let present = init_containers.into_iter().flatten().enumerate();
        let present = present.filter(|(_, container)| self.owns_sidecar && container.name.as_ref() == SIDECAR);
        let present: Vec<usize> = present.map(|(index, _)| index).collect();
        // From behind, so that the indices of those that are still to go stay true.
        edits.extend(present.into_iter().rev().map(|index| Edit::RemoveSidecar { index }));
        edits.extend(wanted.map(|sidecar| Edit::AddSidecar {
            sidecar,
            none: init_containers.is_none(),
        }));
    }

    fn edit_container(
        &self,
        place: Place,
        container: &Container<S>,
        equipped: Option<Equipped<'a>>,
        edits: &mut Vec<Edit<'a>>,
    ) {
        let (variables, mounts) =
            equipped.map_or((Vec::new(), false), |equipped| (equipped.variables, equipped.mounts));
        self.edit_variables(place, container, variables, edits);
        self.edit_mounts(place, container, mounts, edits);
    }

    fn edit_variables(
        &self,
        place: Place,
        container: &Container<S>,
        mut wanted: Vec<Variable<'a>>,
        edits: &mut Vec<Edit<'a>>,
    ) {
        let mut unwanted: Vec<usize> = Vec::new();
        for name in VARIABLES.into_iter().filter(|name| self.is_ours(container, name)) {
            let Some(present) = container.variable(name) else {
                continue;
            };
            let index = present.index;
            match wanted.iter().find(|variable| variable.name == name) {
                Some(variable) if variable.is(present) => {}
                Some(variable) => edits.push(Edit::ReplaceVariable {
                    container: place,
                    index,
                    variable: variable.clone(),
                }),
                None => unwanted.push(index),
            }
        }
        // From behind, so that the indices of those that are still to go stay true.
        unwanted.sort_unstable_by(|a, b| b.cmp(a));
        edits.extend(unwanted.into_iter().map(|index| Edit::RemoveVariable {
            container: place,
            index,
        }));
        wanted.retain(|variable| container.variable(variable.name).is_none());
        if !wanted.is_empty() {
            edits.push(Edit::AddVariables {
                container: place,
                variables: wanted,
                none: container.env.is_none(),
            });
        }
    }

    fn edit_mounts(&self, place: Place, container: &Container<S>, wanted: bool, edits: &mut Vec<Edit<'a>>) {
        let container_mounts = container.volume_mounts.as_deref().unwrap_or_default();
        let mut ours = container_mounts
            .iter()
            .enumerate()
            .filter(|(_, mount)| self.owns_volume && mount.name.as_ref() == self.mount.volume);
        if wanted {
            match ours.next() {
                None => edits.push(Edit::AddMount {
                    container: place,
                    mount: self.mount,
                    none: container.volume_mounts.is_none(),
                }),
                Some((_, present)) if self.mount.is(present) => {}
                Some((index, _)) => edits.push(Edit::ReplaceMount {
                    container: place,
                    index,
                    mount: self.mount,
                }),
            }
        }
        let surplus: Vec<usize> = ours.map(|(index, _)| index).collect();
        edits.extend(surplus.into_iter().rev().map(|index| Edit::RemoveMount {
            container: place,
            index,
        }));
    }

    /// Whether the pod bears a mark already, or the annotation that was the mark before version 0.2.
    fn is_marked(&self) -> bool {
        self.pod.metadata.labels.pairs().value(annotations::REVIEWED).is_some()
            || self.pod.annotation(annotations::REVIEWED).is_some()
    }

    /// The record is an annotation and the mark a label. For one release the mark is an annotation too: the guard of version 0.1
    /// looks for that one while an upgrade runs.
    fn edit_metadata(&self, record: Option<String>, mark: Option<&'static str>, edits: &mut Vec<Edit<'a>>) {
        let present = |key| self.pod.annotation(key);
        if record.is_none() && present(annotations::GRANT).is_some() {
            edits.push(Edit::RemoveMetadata {
                map: MetadataMap::Annotations,
                key: annotations::GRANT,
            });
        }
        let mark = mark.map(|mark| (annotations::REVIEWED, Cow::Borrowed(mark)));
        let record = record.map(|record| (annotations::GRANT, Cow::Owned(record)));
        let annotations = record.into_iter().chain(mark.clone());
        let annotations: Vec<_> = annotations.filter(|(key, value)| present(key) != Some(value)).collect();
        let labels = &self.pod.metadata.labels;
        let label: Vec<_> = mark
            .into_iter()
            .filter(|(key, value)| labels.pairs().value(key) != Some(value))
            .collect();
        for (map, entries, none) in [
            (
                MetadataMap::Annotations,
                annotations,
                self.pod.metadata.annotations.is_none(),
            ),
            (MetadataMap::Labels, label, labels.is_empty()),
        ] {
            if !entries.is_empty() {
                edits.push(Edit::SetMetadata { map, entries, none });
            }
        }
    }

    /// The text of the annotation that the next review and the operator read.
    fn record_of(&self, granted: &'a Granted, equipment: &Equipment<'a>) -> String {
        let name = |index: usize| self.containers[index].1.name.as_ref();
        let mut record = GrantRecord {
            grants: Vec::with_capacity(1),
            hash: fingerprint(
                self.request.service_account,
                granted
                    .containers
                    .iter()
                    .map(|granted| (name(granted.container), &granted.grant)),
            )
            .into(),
            sidecar: equipment.needs_sidecar(),
            labels: Some(recorded(&self.request.pod.labels, |key| key != annotations::REVIEWED)),
            annotations: Some(recorded(&self.request.pod.annotations, annotations::decides)),
        };
        let mut kinds: Vec<&Equipped<'_>> = Vec::with_capacity(1);
        for equipped in &equipment.containers {
            let same = |other: &&Equipped<'_>| {
                other.grant.policy == equipped.grant.policy
                    && other.grant.role == equipped.grant.role
                    && names(other).eq(names(equipped))
            };
            let container = Cow::Borrowed(name(equipped.container));
            if let Some(kind) = kinds.iter().position(same) {
                record.grants[kind].containers.push(container);
                continue;
            }
            kinds.push(equipped);
            record.grants.push(RecordedGrant {
                policy: equipped.grant.policy.as_ref().map(|policy| policy.to_string().into()),
                role: equipped.grant.role.as_str().into(),
                containers: vec![container],
                env: names(equipped).map(Cow::Borrowed).collect(),
            });
        }
        // Strings and lists of them always serialise.
        serde_json::to_string(&record).unwrap_or_default()
    }

    /// SDKs look at access keys in the environment before they look at a web identity token.
    fn warn_about_other_credentials(&self, equipment: &Equipment<'_>, warnings: &mut Vec<String>) {
        for equipped in &equipment.containers {
            let container = self.containers[equipped.container].1;
            let name = container.name.as_ref();
            if container.variable("AWS_ACCESS_KEY_ID").is_some() {
                warnings.push(format!(
                    "container {name} sets AWS_ACCESS_KEY_ID, which SDKs prefer to the granted role: remove it"
                ));
            } else if container.env_from.as_ref().is_some_and(|sources| !sources.is_empty()) {
                warnings.push(format!(
                    "container {name} has envFrom: if that brings AWS_ACCESS_KEY_ID, SDKs prefer it to the granted role"
                ));
            }
        }
    }

    /// Whether STS takes the pod's name as a role session name: 2 to 64 characters, and all that a pod's name can have are
    /// allowed there. A generated name never has more than 63.
    fn pod_name_fits(&self) -> bool {
        let name = self
            .pod
            .metadata
            .name
            .as_ref()
            .map(AsRef::as_ref)
            .filter(|name| !name.is_empty());
        name.is_none_or(|name| (2..=64).contains(&name.len()))
    }
}

fn recorded<'r>(pairs: &'r Pairs<&str>, keep: impl Fn(&str) -> bool) -> Pairs<Cow<'r, str>> {
    let kept = pairs.iter().filter(|(key, _)| keep(key));
    kept.map(|(key, value)| (key.into(), value.into())).collect()
}

fn names(equipped: &Equipped<'_>) -> impl Iterator<Item = &'static str> {
    equipped.variables.iter().map(|variable| variable.name)
}

impl Variable<'_> {
    /// Whether it is there already.
    fn is<S: AsRef<str>>(&self, present: &EnvVar<S>) -> bool {
        match &self.value {
            Value::Text(text) => {
                present.value_from.is_none() && present.value.as_ref().is_some_and(|value| value.as_ref() == text)
            }
            Value::PodName => present
                .value_from
                .as_ref()
                .and_then(|from| from.field_ref.as_ref())
                .is_some_and(|field| field.field_path.as_ref() == "metadata.name"),
        }
    }
}

impl Mount {
    /// Whether it is there already.
    fn is<S: AsRef<str>>(self, present: &VolumeMount<S>) -> bool {
        present.mount_path.as_ref() == self.path
            && present.read_only == Some(true)
            && !present.sub_path.is_some()
            && !present.sub_path_expr.is_some()
    }
}

impl Content<'_> {
    /// Whether it is there already.
    fn is<S: AsRef<str>>(&self, present: &Volume<S>) -> bool {
        match self {
            Content::Tokens(tokens) => holds(present, tokens),
            Content::Memory => is_memory(present),
            Content::Socket(WorkloadApi::Csi { driver }) => present
                .csi
                .as_ref()
                .is_some_and(|csi| *csi.driver.as_ref() == **driver && csi.read_only == Some(true)),
            Content::Socket(WorkloadApi::HostPath { path }) => present
                .host_path
                .as_ref()
                .is_some_and(|host_path| *host_path.path.as_ref() == **path),
        }
    }
}

/// All containers in the order of a request's, and where they stand.
fn places<'a, S: AsRef<str>>(
    pod: &'a Pod<S>,
    record: Option<&GrantRecord<'_>>,
) -> impl Iterator<Item = (Place, &'a Container<S>)> {
    pod.users_containers(record)
        .map(|(list, index, container)| (Place { list, index }, container))
}

/// Whether the volume can be one of ours: a tmpfs, or projected, and service account tokens are all there is in it.
fn holds_tokens_only<S: AsRef<str>>(volume: &Volume<S>) -> bool {
    is_memory(volume) || volume.has_only_tokens()
}

fn is_memory<S: AsRef<str>>(volume: &Volume<S>) -> bool {
    let medium = volume.empty_dir.as_ref().and_then(|folder| folder.medium.as_ref());
    medium.is_some_and(|medium| medium.as_ref() == "Memory")
}

/// Whether exactly these tokens are in the volume.
fn holds<S: AsRef<str>>(volume: &Volume<S>, tokens: &[TokenFile<'_>]) -> bool {
    let present = volume.tokens().iter().map(|token| {
        let audience = token.audience.as_ref().map(AsRef::as_ref);
        (audience, token.expiration_seconds, token.path.as_ref())
    });
    let wanted = tokens.iter().map(|token| {
        let expiration = i64::from(token.expiration.seconds());
        (Some(token.audience.as_str()), Some(expiration), &*token.file)
    });
    volume.has_only_tokens() && present.eq(wanted)
}

/// The text as it must stand in a variable's value so that the kubelet does not expand it: `$(NAME)` is a reference to
/// another variable there, `$$` a dollar sign. A role's path may hold such characters.
fn unexpanded(text: &str) -> Cow<'_, str> {
    if text.contains('$') {
        return Cow::Owned(text.replace('$', "$$"));
    }
    Cow::Borrowed(text)
}

/// Whether `path` is `folder` or something in it, however its slashes are written.
fn is_within(path: &str, folder: &str, windows: bool) -> bool {
    let separator = |byte: &u8| *byte == b'/' || (windows && *byte == b'\\');
    let path = match path.as_bytes() {
        [drive, b':', path @ ..] if windows && drive.is_ascii_alphabetic() => path,
        path => path,
    };
    let begins_with_folder = |parts: &mut dyn Iterator<Item = &[u8]>| {
        let mut expected = folder
            .as_bytes()
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty());
        expected.all(|expected| {
            parts
                .next()
                .is_some_and(|part| part == expected || (windows && part.eq_ignore_ascii_case(expected)))
        })
    };
    let mut parts = path.split(separator).filter(|part| !matches!(*part, b"" | b"."));
    if !path.windows(2).any(|pair| pair == b"..") {
        return begins_with_folder(&mut parts);
    }
    let mut straight: Vec<&[u8]> = Vec::new();
    for part in parts {
        match part {
            b".." => drop(straight.pop()),
            part => straight.push(part),
        }
    }
    begins_with_folder(&mut straight.into_iter())
}
