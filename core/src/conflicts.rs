//! Policies whose default roles contradict each other.
//!
//! Two policies of one level are in conflict if some pod can match both and they assign it different roles, or one role with tokens of
//! tokenscope's issuer that say different things. Names of service
//! accounts are compared by an index: exact names are sorted, and two names with `*` are compared by what stands before the
//! first and after the last `*`. So nothing is compared with everything, and what a policy's author can still make expensive
//! has a budget.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::pattern::{Pattern, glob_matches};
use crate::{Policy, PolicySet, RoleArn, Selector, Standing, Subject};

/// The most steps for one policy: each is one comparison of two short texts. They take a few milliseconds.
const MOST_STEPS: usize = 200_000;
/// The most steps for all policies of one namespace, or all of the cluster, so that one namespace can't hold up the others.
const MOST_STEPS_OF_A_LEVEL: usize = 20_000_000;
/// The most conflicts of one policy that are named: a person resolves one after the other.
const MOST_CONFLICTS: usize = 16;

/// Finds conflicts among the policies of one moment. It is made for many questions: its index serves all of them.
pub struct DefaultConflicts<'a> {
    policies: &'a PolicySet,
    now: Timestamp,
    levels: HashMap<(Option<Box<str>>, bool), PolicyLevel<'a>>,
}

/// The policies in conflict with one.
#[derive(Clone, Debug, Default)]
pub struct Conflicts<'a> {
    /// Policies that assign a different default role, or the same with another token or delivery, to pods that the policy is about too, by
    /// name: at most 16.
    pub with: Vec<&'a Arc<Policy>>,
    /// True if there are no others. Otherwise the budget did not suffice to compare the policy with all others.
    pub complete: bool,
}

impl<'a> DefaultConflicts<'a> {
    /// Looks at the policies that are in force, or will be by their schedule, at `now`.
    pub fn new(policies: &'a PolicySet, now: Timestamp) -> Self {
        Self {
            policies,
            now,
            levels: HashMap::new(),
        }
    }

    /// The policies that assign a different default role, or the same with another token or delivery, to pods that `policy` is about too, on the
    /// same level.
    ///
    /// Whether two label selectors can meet is answered from the selectors alone, so a pair that no pod of today meets counts.
    pub fn of(&mut self, policy: &Policy) -> Conflicts<'a> {
        let Some(default) = policy.roles.default.as_ref().filter(|_| is_in_force(policy, self.now)) else {
            return Conflicts {
                with: Vec::new(),
                complete: true,
            };
        };
        let (policies, now) = (self.policies, self.now);
        let key = (policy.name.namespace().map(Box::from), policy.fallback);
        let level = self
            .levels
            .entry(key)
            .or_insert_with(|| PolicyLevel::of(policy, policies, now));
        let mut search = Search {
            policy,
            default,
            level,
            steps: MOST_STEPS.min(level.steps_left),
            found: HashSet::new(),
            elsewhere: HashMap::new(),
        };
        let budget = search.steps;
        let complete = policy.subjects.iter().all(|subject| search.subject(subject).is_some());
        let (used, found) = (budget - search.steps, search.found);
        let mut with: Vec<_> = found
            .into_iter()
            .filter_map(|index| level.policies.get(index))
            .collect();
        with.sort_by(|one, other| one.name.cmp(&other.name));
        let with = with.into_iter().copied().collect();
        level.steps_left -= used;
        Conflicts { with, complete }
    }
}

fn is_in_force(policy: &Policy, now: Timestamp) -> bool {
    !matches!(policy.standing_in_time(now), Standing::Disabled | Standing::Expired)
}

/// The policies that can be in conflict with each other: those of one namespace, or of the cluster, with or without
/// `fallback`.
struct PolicyLevel<'a> {
    policies: Vec<&'a Arc<Policy>>,
    /// Exact names of service accounts, sorted.
    exact: Vec<(&'a str, SubjectPlace)>,
    /// Names with `*`, sorted by what they begin with. A subject without names has the name `*`.
    patterns: Vec<(Pattern<'a>, SubjectPlace)>,
    /// The lengths of what they begin with.
    prefixes: BTreeSet<usize>,
    steps_left: usize,
}

/// A subject of a policy, by their indices.
#[derive(Clone, Copy)]
struct SubjectPlace {
    policy: usize,
    subject: usize,
}

impl<'a> PolicyLevel<'a> {
    fn of(policy: &Policy, policies: &'a PolicySet, now: Timestamp) -> Self {
        let mut level = Self {
            policies: Vec::new(),
            exact: Vec::new(),
            patterns: Vec::new(),
            prefixes: BTreeSet::new(),
            steps_left: MOST_STEPS_OF_A_LEVEL,
        };
        // A namespaced policy meets those of its namespace; a cluster policy the other cluster policies, which are in every
        // answer.
        let others = policies.about(policy.name.namespace().unwrap_or_default());
        for other in others.filter(|other| {
            other.name.is_cluster() == policy.name.is_cluster()
                && other.fallback == policy.fallback
                && other.roles.default.is_some()
                && is_in_force(other, now)
        }) {
            level.add(other);
        }
        level.exact.sort_unstable_by_key(|(name, _)| *name);
        level.patterns.sort_unstable_by_key(|(pattern, _)| pattern.prefix);
        level.prefixes = level.patterns.iter().map(|(pattern, _)| pattern.prefix.len()).collect();
        level
    }

    /// The patterns that begin with the start of `text`, but with less than the whole of it.
    fn beginning_with_less(&self, text: &str) -> impl Iterator<Item = (&Pattern<'a>, SubjectPlace)> {
        let starts = self.prefixes.range(..text.len());
        let starts = starts.filter_map(|&length| text.get(..length));
        let equal = |start| {
            self.beginning_with(start)
                .take_while(move |(pattern, _)| pattern.prefix == start)
        };
        starts.flat_map(equal)
    }

    /// The patterns that begin with the whole of `text`, and maybe more.
    fn beginning_with(&self, text: &str) -> impl Iterator<Item = (&Pattern<'a>, SubjectPlace)> {
        let from = self.patterns.partition_point(|(pattern, _)| pattern.prefix < text);
        let patterns = self.patterns[from..].iter();
        let patterns = patterns.take_while(move |(pattern, _)| pattern.prefix.starts_with(text));
        patterns.map(|(pattern, place)| (pattern, *place))
    }

    fn add(&mut self, other: &'a Arc<Policy>) {
        let policy = self.policies.len();
        self.policies.push(other);
        for (subject, Subject { service_accounts, .. }) in other.subjects.iter().enumerate() {
            let place = SubjectPlace { policy, subject };
            if service_accounts.is_empty() {
                self.patterns.push((Pattern::ANY, place));
            }
            for name in service_accounts {
                match Pattern::of(name) {
                    Some(pattern) => self.patterns.push((pattern, place)),
                    None => self.exact.push((name.as_str(), place)),
                }
            }
        }
    }
}

/// A policy that is compared with the others of its level.
struct Search<'a, 'b> {
    policy: &'b Policy,
    default: &'b RoleArn,
    level: &'b PolicyLevel<'a>,
    /// The number that is left.
    steps: usize,
    found: HashSet<usize>,
    /// True if a policy is about other namespaces, as far as that was asked.
    elsewhere: HashMap<usize, bool>,
}

impl Search<'_, '_> {
    /// Finds what is in conflict by this subject; `None` where the budget does not suffice.
    fn subject(&mut self, subject: &Subject) -> Option<()> {
        if subject.service_accounts.is_empty() {
            return self.pattern(Pattern::ANY, subject);
        }
        for name in &subject.service_accounts {
            match Pattern::of(name) {
                Some(pattern) => self.pattern(pattern, subject)?,
                None => self.exact(name.as_str(), subject)?,
            }
        }
        Some(())
    }

    fn exact(&mut self, name: &str, subject: &Subject) -> Option<()> {
        let level = self.level;
        let from = level.exact.partition_point(|(other, _)| *other < name);
        for (_, place) in level.exact[from..].iter().take_while(|(other, _)| *other == name) {
            self.compare(*place, subject)?;
        }
        self.spend(level.prefixes.len())?;
        let equal = level
            .beginning_with(name)
            .take_while(|(pattern, _)| pattern.prefix == name);
        for (pattern, place) in level.beginning_with_less(name).chain(equal) {
            self.spend(1)?;
            if name.ends_with(pattern.suffix) && self.can_conflict(place.policy) {
                self.spend(cost_of_match(pattern.glob))?;
                if glob_matches(pattern.glob, name) {
                    self.compare(place, subject)?;
                }
            }
        }
        Some(())
    }

    fn pattern(&mut self, pattern: Pattern<'_>, subject: &Subject) -> Option<()> {
        let level = self.level;
        let from = level.exact.partition_point(|(other, _)| *other < pattern.prefix);
        let alike = level.exact[from..].iter();
        for (name, place) in alike.take_while(|(name, _)| name.starts_with(pattern.prefix)) {
            self.spend(cost_of_match(pattern.glob))?;
            if glob_matches(pattern.glob, name) {
                self.compare(*place, subject)?;
            }
        }
        self.spend(level.prefixes.len())?;
        let alike = level.beginning_with(pattern.prefix);
        for (other, place) in level.beginning_with_less(pattern.prefix).chain(alike) {
            self.spend(1)?;
            if pattern.overlaps(*other) {
                self.compare(place, subject)?;
            }
        }
        Some(())
    }

    /// Notes the policy of a subject whose names meet, if the labels can meet too.
    fn compare(&mut self, SubjectPlace { policy, subject }: SubjectPlace, own: &Subject) -> Option<()> {
        self.spend(1)?;
        if !self.can_conflict(policy) {
            return Some(());
        }
        let other = self.level.policies.get(policy)?;
        if !self.elsewhere.contains_key(&policy) {
            let (one, two) = (&self.policy.namespace_selector, &other.namespace_selector);
            self.spend(one.overlap_cost(two))?;
            self.elsewhere.insert(policy, !one.overlaps(two));
        }
        if self.elsewhere.get(&policy) == Some(&true) {
            return Some(());
        }
        let any = Selector::default();
        let one = own.pod_selector.as_ref().unwrap_or(&any);
        let two = other.subjects.get(subject)?.pod_selector.as_ref().unwrap_or(&any);
        self.spend(one.overlap_cost(two))?;
        if one.overlaps(two) {
            if self.found.len() == MOST_CONFLICTS {
                return None;
            }
            self.found.insert(policy);
        }
        Some(())
    }

    /// True if it is another policy, with another default or other tokens, that was not found yet.
    fn can_conflict(&self, policy: usize) -> bool {
        self.level.policies.get(policy).is_some_and(|other| {
            !self.found.contains(&policy)
                && other.name != self.policy.name
                && (other.roles.default.as_ref() != Some(self.default) || !other.grants_the_same_as(self.policy))
        })
    }

    fn spend(&mut self, steps: usize) -> Option<()> {
        let left = self.steps.checked_sub(steps);
        self.steps = left.unwrap_or_default();
        left.map(drop)
    }
}

/// The steps that a match of `glob` takes: each part between two `*` is looked for.
fn cost_of_match(glob: &str) -> usize {
    1 + glob.len() / 4
}
