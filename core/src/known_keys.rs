//! Keys of annotations and labels that look like tokenscope's own and have no effect where they stand.

use Place::{NamespaceLabel, PodAnnotation, PodLabel, ServiceAccountAnnotation};

use crate::annotations::{
    AUDIENCE, AUDIT, CONTAINER_ROLE_ARN, CONTAINERS, EKS_AUDIENCE, EKS_ROLE_ARN, EKS_SKIP, EKS_SKIP_CONTAINERS,
    EKS_STS_REGIONAL_ENDPOINTS, EKS_TOKEN_EXPIRATION, ENFORCE, GRANT, INJECT, REQUIRED, REVIEWED, ROLE_ARN,
    SKIP_CONTAINERS, TOKEN_EXPIRATION, WARN,
};
use crate::arn::shortened;
use crate::{Request, Settings};

/// The most keys with one prefix that are kept of one object only to be warned of.
pub const MOST_KEPT: usize = 4;
/// The most keys with one prefix of one review for which a known one that may be meant is looked for.
const MOST_EXAMINED: usize = 16;
/// The most bytes that are kept of such a key.
pub const MOST_KEY_BYTES: usize = 120;

const OURS: &str = "tokenscope.io/";
const EKS: &str = "eks.amazonaws.com/";

/// The places where a key can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    PodAnnotation,
    PodLabel,
    ServiceAccountAnnotation,
    NamespaceLabel,
}

impl Place {
    fn kind(self) -> &'static str {
        match self {
            PodAnnotation | ServiceAccountAnnotation => "annotation",
            PodLabel | NamespaceLabel => "label",
        }
    }

    fn object(self) -> &'static str {
        match self {
            PodAnnotation | PodLabel => "pod",
            ServiceAccountAnnotation => "service account",
            NamespaceLabel => "namespace",
        }
    }
}

const KNOWN: [(&str, &[Place]); 18] = [
    (ROLE_ARN, &[PodAnnotation, ServiceAccountAnnotation]),
    (AUDIENCE, &[PodAnnotation, ServiceAccountAnnotation]),
    (TOKEN_EXPIRATION, &[PodAnnotation, ServiceAccountAnnotation]),
    (CONTAINERS, &[PodAnnotation, ServiceAccountAnnotation]),
    (SKIP_CONTAINERS, &[PodAnnotation, ServiceAccountAnnotation]),
    (INJECT, &[PodAnnotation, ServiceAccountAnnotation, NamespaceLabel]),
    (REVIEWED, &[PodLabel, PodAnnotation]),
    (GRANT, &[PodAnnotation]),
    (REQUIRED, &[NamespaceLabel]),
    (ENFORCE, &[NamespaceLabel]),
    (WARN, &[NamespaceLabel]),
    (AUDIT, &[NamespaceLabel]),
    (EKS_ROLE_ARN, &[ServiceAccountAnnotation]),
    (EKS_AUDIENCE, &[ServiceAccountAnnotation]),
    (EKS_STS_REGIONAL_ENDPOINTS, &[ServiceAccountAnnotation]),
    (EKS_TOKEN_EXPIRATION, &[PodAnnotation, ServiceAccountAnnotation]),
    (EKS_SKIP, &[PodLabel]),
    (EKS_SKIP_CONTAINERS, &[PodAnnotation]),
];

/// The room for keys of one object that are kept only to be warned of. Each prefix has its own: those of EKS, which has keys that
/// are none of our business, leave ours theirs.
#[derive(Clone, Copy, Debug)]
pub struct KeyRoom {
    ours: usize,
    eks: usize,
}

impl Default for KeyRoom {
    fn default() -> Self {
        Self {
            ours: MOST_KEPT,
            eks: MOST_KEPT,
        }
    }
}

impl KeyRoom {
    /// Takes a place for a key that begins as ours or those of EKS do, so that somebody may have meant one of them. False for
    /// other keys, and where no place is left.
    pub fn take(&mut self, key: &str) -> bool {
        let left = if begins(key, OURS) {
            &mut self.ours
        } else if begins(key, EKS) {
            &mut self.eks
        } else {
            return false;
        };
        let is_free = *left > 0;
        *left = left.saturating_sub(1);
        is_free
    }
}

fn looks_like_ours(key: &str) -> bool {
    begins(key, OURS) || begins(key, EKS)
}

/// True if a key has this prefix, in whatever case.
fn begins(key: &str, prefix: &str) -> bool {
    let start = key.as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Warnings of keys of a pod, its service account and its namespace that look like ours and have no effect, and of labels of the
/// namespace whose value is none. Those with our own prefix come before those of EKS. `unknown` are the pod's annotations of which a [`Request`] knows nothing.
pub fn warnings<'a>(
    request: &'a Request<'_>,
    unknown: impl Iterator<Item = &'a str>,
    settings: &Settings,
) -> Vec<String> {
    let with = |place| move |(key, _): (&'a str, &'a str)| (key, place);
    let labels = &request.namespace_labels;
    let keys = unknown
        .map(|key| (key, PodAnnotation))
        .chain(request.pod.annotations.iter().map(with(PodAnnotation)))
        .chain(request.pod.labels.iter().map(with(PodLabel)))
        .chain(
            request
                .service_account_annotations
                .iter()
                .map(with(ServiceAccountAnnotation)),
        )
        .chain(labels.iter().map(with(NamespaceLabel)));
    let strange = keys.filter(|(key, place)| !has_effect(key, *place));
    let (eks, ours): (Vec<_>, Vec<_>) = strange.partition(|(key, _)| begins(key, EKS));
    let first = |keys: Vec<_>| keys.into_iter().take(MOST_EXAMINED);
    let of_keys = first(ours)
        .chain(first(eks))
        .filter_map(|(key, place)| without_effect(key, place, settings));
    let values = labels.iter().filter(|(key, value)| {
        let is_flag = [INJECT, REQUIRED, ENFORCE, WARN, AUDIT].contains(key);
        is_flag && !["true", "false"].contains(value)
    });
    let of_values = values.map(|(key, value)| {
        let value = shortened(value);
        format!("label {key} of the namespace is {value:?} and has no effect: it should be \"true\" or \"false\"")
    });
    of_values.chain(of_keys).take(2 * MOST_KEPT).collect()
}

/// True for a key that says something at this place, and for one that is somebody else's.
fn has_effect(key: &str, place: Place) -> bool {
    let is_known = || {
        KNOWN
            .iter()
            .any(|(known, places)| *known == key && places.contains(&place))
    };
    !looks_like_ours(key) || (key.starts_with(CONTAINER_ROLE_ARN) && place == PodAnnotation) || is_known()
}

/// The warning of a key that has no effect at this place ([`has_effect`]).
fn without_effect(key: &str, place: Place, settings: &Settings) -> Option<String> {
    let known = KNOWN.into_iter().find(|(known, _)| *known == key);
    let known = known.or_else(|| {
        let of_container = key.starts_with(CONTAINER_ROLE_ARN);
        of_container.then_some((CONTAINER_ROLE_ARN, &[PodAnnotation] as &[Place]))
    });
    let is_eks = begins(key, EKS);
    if is_eks && !settings.eks_compatible {
        return None;
    }
    let begin = format!(
        "{} {} of the {} has no effect",
        place.kind(),
        shortened(key),
        place.object()
    );
    if let Some((_, places)) = known {
        let places: Vec<String> = places
            .iter()
            .map(|place| format!("{} of the {}", place.kind(), place.object()))
            .collect();
        return Some(format!("{begin}: it is an {}", places.join(" or ")).replace("an label", "a label"));
    }
    match nearest(key) {
        Some(near) => Some(format!("{begin}: {near} may be meant")),
        // EKS has further keys, which are none of our business.
        None if is_eks => None,
        None => Some(format!("{begin}: tokenscope has no such key")),
    }
}

/// The known key that is nearest to this one, if one is near.
fn nearest(key: &str) -> Option<&'static str> {
    const MOST_CHANGES: usize = 3;
    if key.len() > MOST_KEY_BYTES {
        return None;
    }
    let plain = |key: &str| -> Vec<u8> {
        let letters = key.bytes().filter(|byte| !matches!(byte, b'-' | b'_' | b'.'));
        letters.map(|byte| byte.to_ascii_lowercase()).collect()
    };
    let asked = plain(key);
    let near = KNOWN.iter().map(|(known, _)| (changes(&asked, &plain(known)), *known));
    let (least, known) = near.min_by_key(|(changes, _)| *changes)?;
    (least <= MOST_CHANGES).then_some(known)
}

/// The number of bytes that must be put in, taken out or changed to make one text of the other (Levenshtein).
fn changes(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, byte) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, of_other) in other.iter().enumerate() {
            let changed = diagonal + usize::from(byte != of_other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(key: &str, place: Place) -> String {
        let strange = !has_effect(key, place);
        let warning = strange.then(|| without_effect(key, place, &Settings::eks_compatible()));
        warning.flatten().unwrap_or_default()
    }

    #[test]
    fn the_key_that_may_be_meant_is_named() {
        for (key, meant) in [
            ("tokenscope.io/rolearn", ROLE_ARN),
            ("tokenscope.io/role_arn", ROLE_ARN),
            ("Tokenscope.io/role-arn", ROLE_ARN),
            ("tokenscope.io/role-arm", ROLE_ARN),
            ("tokenscope.io/container", CONTAINERS),
            ("tokenscope.io/token-expiry", TOKEN_EXPIRATION),
            ("tokenscope.io/skip-container", SKIP_CONTAINERS),
            ("eks.amazonaws.com/skip-container", EKS_SKIP_CONTAINERS),
        ] {
            let said = said(key, PodAnnotation);
            let expected = match meant {
                TOKEN_EXPIRATION => "tokenscope has no such key".to_owned(),
                meant => format!("{meant} may be meant"),
            };
            assert_eq!(said, format!("annotation {key} of the pod has no effect: {expected}"));
        }
        assert!(said("tokenscope.io/colour", PodAnnotation).ends_with("tokenscope has no such key"));
    }

    #[test]
    fn a_key_at_the_wrong_place_is_told_its_own() {
        assert_eq!(
            said(INJECT, PodLabel),
            "label tokenscope.io/inject of the pod has no effect: \
             it is an annotation of the pod or annotation of the service account or label of the namespace"
        );
        assert_eq!(
            said(EKS_ROLE_ARN, PodAnnotation),
            "annotation eks.amazonaws.com/role-arn of the pod has no effect: it is an annotation of the service account"
        );
        assert!(said(ENFORCE, PodAnnotation).ends_with("it is a label of the namespace"));
        assert!(said("tokenscope.io/role-arn.app", ServiceAccountAnnotation).ends_with("an annotation of the pod"));
    }

    #[test]
    fn nothing_is_said_of_what_has_an_effect_or_is_others() {
        for (key, place) in [
            (ROLE_ARN, PodAnnotation),
            (ROLE_ARN, ServiceAccountAnnotation),
            ("tokenscope.io/role-arn.app", PodAnnotation),
            (REVIEWED, PodLabel),
            (GRANT, PodAnnotation),
            (INJECT, NamespaceLabel),
            ("eks.amazonaws.com/fargate-profile", PodLabel),
            ("eks.amazonaws.com/compute-type", PodAnnotation),
            ("example.org/role-arn", PodAnnotation),
            ("tokenscope", PodAnnotation),
        ] {
            assert_eq!(said(key, place), "", "{key}");
        }
        let settings = Settings::default();
        assert_eq!(without_effect(EKS_ROLE_ARN, PodAnnotation, &settings), None);
    }

    #[test]
    fn keys_of_eks_leave_ours_their_room() {
        let mut room = KeyRoom::default();
        let mut kept = |key: &str| room.take(key);
        let of_eks: Vec<bool> = (0..6)
            .map(|number| kept(&format!("eks.amazonaws.com/{number}")))
            .collect();
        assert_eq!(of_eks, [true, true, true, true, false, false]);
        assert!(!kept("example.org/role-arn"));
        let ours: Vec<bool> = (0..6).map(|number| kept(&format!("TokenScope.io/{number}"))).collect();
        assert_eq!(ours, [true, true, true, true, false, false]);
    }
}
