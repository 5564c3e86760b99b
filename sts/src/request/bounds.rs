//! The bounds and patterns that STS gives to single parameters, and its words for what breaks them.

use super::Parameters;
use crate::aws_error::AwsError;
use crate::names::is_name_character;
use crate::tags::{MAX_KEY, MAX_TAGS, MAX_VALUE, is_tag_text};

pub(super) const NAME_PATTERN: &str = r"[\w+=,.@-]*";
pub(super) const ARN_PATTERN: &str =
    r"[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+";
const TAG_KEY_PATTERN: &str = r"[\p{L}\p{Z}\p{N}_.:/=+\-@]+";
const TAG_VALUE_PATTERN: &str = r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*";
pub(super) const POLICY_PATTERN: &str = r"[\u0009\u000A\u000D\u0020-\u00FF]+";

/// The bounds of a text.
pub(super) struct ParameterBounds {
    min: usize,
    max: usize,
    pattern: &'static str,
    allowed: fn(char) -> bool,
    sensitive: bool,
}

impl ParameterBounds {
    pub(super) fn text(min: usize, max: usize, pattern: &'static str, allowed: fn(char) -> bool) -> Self {
        Self {
            min,
            max,
            pattern,
            allowed,
            sensitive: false,
        }
    }

    pub(super) fn secret(min: usize, max: usize) -> Self {
        Self {
            sensitive: true,
            ..Self::text(min, max, "", |_| true)
        }
    }
}

/// Collects all problems, since AWS reports them together.
pub(super) struct Check<'a> {
    parameters: &'a Parameters,
    problems: Vec<String>,
}

impl<'a> Check<'a> {
    pub(super) fn new(parameters: &'a Parameters) -> Self {
        Self {
            parameters,
            problems: Vec::new(),
        }
    }

    /// `RoleArn`.
    pub(super) fn role_arn(&mut self) -> &'a str {
        let bounds = ParameterBounds::text(20, 2048, ARN_PATTERN, is_arn_character);
        self.required("RoleArn", "roleArn", &bounds)
    }

    /// `RoleSessionName`.
    pub(super) fn session_name(&mut self) -> &'a str {
        let bounds = ParameterBounds::text(2, 64, NAME_PATTERN, is_name_character);
        self.required("RoleSessionName", "roleSessionName", &bounds)
    }

    /// `Policy`, of at most `max` characters.
    pub(super) fn policy(&mut self, max: usize) -> Option<&'a str> {
        let bounds = ParameterBounds::text(1, max, POLICY_PATTERN, is_policy_character);
        self.optional("Policy", "policy", &bounds)
    }

    /// `DurationSeconds` of a role session.
    pub(super) fn session_duration(&mut self) -> Result<Option<u32>, AwsError> {
        self.number("DurationSeconds", "durationSeconds", 900, 43_200)
    }

    /// `MinimumSessionTokenSize`.
    pub(super) fn minimum_token_size(&mut self) -> Result<usize, AwsError> {
        let size = self.number("MinimumSessionTokenSize", "minimumSessionTokenSize", 0, 4096)?;
        Ok(usize::try_from(size.unwrap_or(0)).unwrap_or_default())
    }

    /// A list of texts, `<name>.member.N`.
    pub(super) fn list(
        &mut self,
        name: &str,
        member: &str,
        most: usize,
        bounds: &ParameterBounds,
    ) -> Result<Vec<&'a str>, AwsError> {
        self.members(name, "", member, most, bounds)
    }

    /// `Tags`: keys and values within their own bounds; that the keys differ is another's to check.
    pub(super) fn tags(&mut self) -> Result<Vec<(&'a str, &'a str)>, AwsError> {
        let key = ParameterBounds::text(1, MAX_KEY, TAG_KEY_PATTERN, is_tag_character);
        let value = ParameterBounds::text(0, MAX_VALUE, TAG_VALUE_PATTERN, is_tag_character);
        let keys = self.members("Tags", ".Key", "tags", MAX_TAGS, &key)?;
        let values = self.members("Tags", ".Value", "tags", MAX_TAGS, &value)?;
        if keys.len() != values.len() {
            return Err(not_a_list("Tags"));
        }
        Ok(keys.into_iter().zip(values).collect())
    }

    /// `TransitiveTagKeys`.
    pub(super) fn transitive_tag_keys(&mut self) -> Result<Vec<&'a str>, AwsError> {
        let bounds = ParameterBounds::text(1, MAX_KEY, TAG_KEY_PATTERN, is_tag_character);
        self.list("TransitiveTagKeys", "transitiveTagKeys", MAX_TAGS, &bounds)
    }

    /// The members of a list, or one field of each: `<name>.member.N<field>`.
    fn members(
        &mut self,
        name: &str,
        field: &str,
        member: &str,
        most: usize,
        bounds: &ParameterBounds,
    ) -> Result<Vec<&'a str>, AwsError> {
        let prefix = format!("{name}.");
        let is_of_field = |given: &&String| given.starts_with(&prefix) && given.ends_with(field);
        let given = self.parameters.0.keys().filter(is_of_field).count();
        let mut texts = Vec::new();
        for index in 1..=given {
            let shown = format!("{member}.{index}.member{}", lower_first(field));
            let text = self.optional(&format!("{name}.member.{index}{field}"), &shown, bounds);
            texts.push(text.ok_or_else(|| not_a_list(name))?);
        }
        if texts.len() > most {
            let list = format!("[{}]", texts.join(", "));
            let rule = format!("Member must have length less than or equal to {most}");
            self.problem(&list, member, false, &rule);
        }
        Ok(texts)
    }

    pub(super) fn required(&mut self, name: &str, member: &str, bounds: &ParameterBounds) -> &'a str {
        self.optional(name, member, bounds).unwrap_or_else(|| {
            let value = if bounds.sensitive { "Value" } else { "Value null" };
            self.problems.push(format!(
                "{value} at '{member}' failed to satisfy constraint: Member must not be null"
            ));
            ""
        })
    }

    pub(super) fn optional(&mut self, name: &str, member: &str, bounds: &ParameterBounds) -> Option<&'a str> {
        let value = self.parameters.value(name)?;
        let length = value.chars().count();
        if length < bounds.min {
            let rule = format!("Member must have length greater than or equal to {}", bounds.min);
            self.problem(value, member, bounds.sensitive, &rule);
        }
        if length > bounds.max {
            let rule = format!("Member must have length less than or equal to {}", bounds.max);
            self.problem(value, member, bounds.sensitive, &rule);
        }
        if !value.chars().all(bounds.allowed) {
            let rule = format!("Member must satisfy regular expression pattern: {}", bounds.pattern);
            self.problem(value, member, bounds.sensitive, &rule);
        }
        Some(value)
    }

    pub(super) fn number(&mut self, name: &str, member: &str, min: u32, max: u32) -> Result<Option<u32>, AwsError> {
        let Some(text) = self.parameters.value(name) else {
            return Ok(None);
        };
        let number: i64 = text
            .parse()
            .map_err(|_| AwsError::new(400, "MalformedInput", format!("Value at '{member}' is not an integer")))?;
        if number < i64::from(min) {
            self.problem(
                text,
                member,
                false,
                &format!("Member must have value greater than or equal to {min}"),
            );
        }
        if number > i64::from(max) {
            self.problem(
                text,
                member,
                false,
                &format!("Member must have value less than or equal to {max}"),
            );
        }
        Ok(u32::try_from(number).ok())
    }

    /// `PolicyArns`.
    pub(super) fn policy_arns(&mut self) -> Result<Vec<&'a str>, AwsError> {
        let bounds = ParameterBounds::text(20, 2048, ARN_PATTERN, is_arn_character);
        self.members("PolicyArns", ".arn", "policyArns", 10, &bounds)
    }

    /// A required member that isn't there.
    pub(super) fn missing(&mut self, member: &str) {
        let rule = format!("Value null at '{member}' failed to satisfy constraint: Member must not be null");
        self.problems.push(rule);
    }

    fn problem(&mut self, value: &str, member: &str, sensitive: bool, rule: &str) {
        let value = if sensitive {
            "Value".to_owned()
        } else {
            format!("Value '{value}'")
        };
        self.problems
            .push(format!("{value} at '{member}' failed to satisfy constraint: {rule}"));
    }

    pub(super) fn finish(self) -> Result<(), AwsError> {
        let count = self.problems.len();
        if count == 0 {
            return Ok(());
        }
        let errors = if count == 1 { "error" } else { "errors" };
        Err(AwsError::validation(format!(
            "{count} validation {errors} detected: {}",
            self.problems.join("; ")
        )))
    }
}

/// The class of tag keys and values, which `tags.rs` compares word for word.
fn is_tag_character(c: char) -> bool {
    is_tag_text(c.encode_utf8(&mut [0; 4]))
}

fn not_a_list(name: &str) -> AwsError {
    AwsError::new(400, "MalformedInput", format!("{name} is not a list counted from 1"))
}

/// A field as validation errors write it: `.Key` is `.key`.
fn lower_first(field: &str) -> String {
    let mut text = field.to_owned();
    if let Some(letter) = text.get_mut(1..2) {
        letter.make_ascii_lowercase();
    }
    text
}

pub(super) fn is_arn_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

pub(super) fn is_policy_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}')
}
