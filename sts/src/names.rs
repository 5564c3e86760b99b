//! The names that IAM and STS have in common: role ARNs, accounts, partitions, session names.

/// The parts of a role ARN that answers are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssumableRole {
    pub(crate) partition: String,
    pub(crate) account: String,
    /// Without the path.
    pub(crate) name: String,
}

impl AssumableRole {
    /// `None` when `text` is not the ARN of an IAM role.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let head = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let ("arn", partition, "iam", "") = head else {
            return None;
        };
        let (account, resource) = (parts.next()?, parts.next()?);
        let path_and_name = resource.strip_prefix("role/")?;
        let (path, name) = path_and_name.rsplit_once('/').unwrap_or(("", path_and_name));
        // IAM: path and its slashes up to 512 printable ASCII characters, name 1..=64 of [\w+=,.@-].
        let valid = is_partition(partition)
            && is_account(account)
            && path.len() <= 510
            && path.chars().all(|c| c.is_ascii_graphic())
            && (1..=64).contains(&name.len())
            && name.chars().all(is_name_character);
        valid.then(|| Self {
            partition: partition.to_owned(),
            account: account.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// True if `arn` is a managed policy of the role's account or of AWS itself.
pub(crate) fn is_policy_arn_of(arn: &str, role: &AssumableRole) -> bool {
    let rest = arn.strip_prefix(&format!("arn:{}:iam::", role.partition));
    let Some((account, policy)) = rest.and_then(|rest| rest.split_once(":policy/")) else {
        return false;
    };
    (account == "aws" || account == role.account) && !policy.is_empty()
}

/// The class `[\w+=,.@-]` of session names, source identities and role names.
pub(crate) fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
}

pub(crate) fn is_partition(text: &str) -> bool {
    (text == "aws" || text.starts_with("aws-")) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// The parts of an IAM user's ARN.
pub(crate) struct UserName {
    pub(crate) partition: String,
    pub(crate) account: String,
    /// Without the path.
    pub(crate) name: String,
}

impl UserName {
    /// `None` when `text` is not the ARN of an IAM user.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (head, resource) = text.split_once(":user/")?;
        // The rules are those of a role's ARN.
        let same = AssumableRole::parse(&format!("{head}:role/{resource}"))?;
        Some(Self {
            partition: same.partition,
            account: same.account,
            name: same.name,
        })
    }
}
