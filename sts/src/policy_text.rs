//! Texts of policies: wildcards (IAM User Guide, "IAM JSON policy elements: Resource", "Condition operators") and
//! policy variables ("IAM policy elements: Variables and tags").

/// A text of a policy, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyText(Vec<TextPart>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum TextPart {
    Symbol(Symbol),
    /// `${key}` or `${key, 'default'}`.
    Variable {
        /// In lower case.
        key: String,
        default: Option<String>,
    },
}

/// A piece of a filled text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symbol {
    Char(char),
    /// `*`: any characters.
    Any,
    /// `?`: exactly one character.
    One,
}

impl PolicyText {
    /// With wildcards, as in Resource and StringLike.
    pub(crate) fn pattern(text: &str) -> Self {
        Self::read(text, true)
    }

    /// Without wildcards, as in StringEquals.
    pub(crate) fn plain(text: &str) -> Self {
        Self::read(text, false)
    }

    fn read(text: &str, wildcards: bool) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some((inside, behind)) = rest.strip_prefix("${").and_then(|tail| tail.split_once('}')) {
                parts.push(TextPart::variable(inside));
                rest = behind;
                continue;
            }
            parts.push(TextPart::Symbol(match c {
                '*' if wildcards => Symbol::Any,
                '?' if wildcards => Symbol::One,
                _ => Symbol::Char(c),
            }));
            rest = rest.strip_prefix(c).unwrap_or_default();
        }
        Self(parts)
    }

    /// Puts values in the place of the variables; `value` gets a key in lower case. `None` when a variable has neither a
    /// value nor a default. A `*` or `?` inside a value is no wildcard: who chooses a value must not widen a policy. IAM
    /// doesn't say so: not yet seen by AWS.
    pub(crate) fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Option<Vec<Symbol>> {
        let mut symbols = Vec::new();
        for part in &self.0 {
            match part {
                TextPart::Symbol(symbol) => symbols.push(*symbol),
                TextPart::Variable { key, default } => {
                    symbols.extend(value(key).or(default.as_deref())?.chars().map(Symbol::Char));
                }
            }
        }
        Some(symbols)
    }
}

/// The text of symbols that have no wildcards.
pub(crate) fn text(symbols: &[Symbol]) -> String {
    let characters = symbols.iter().map(|symbol| match symbol {
        Symbol::Char(c) => *c,
        Symbol::Any => '*',
        Symbol::One => '?',
    });
    characters.collect()
}

impl TextPart {
    fn variable(inside: &str) -> Self {
        match inside {
            "*" => Self::Symbol(Symbol::Char('*')),
            "?" => Self::Symbol(Symbol::Char('?')),
            "$" => Self::Symbol(Symbol::Char('$')),
            _ => {
                let (key, default) = match inside.split_once(',') {
                    None => (inside, None),
                    Some((key, default)) => {
                        let quoted = default
                            .trim()
                            .strip_prefix('\'')
                            .and_then(|text| text.strip_suffix('\''));
                        (key, quoted.map(str::to_owned))
                    }
                };
                Self::Variable {
                    key: key.trim().to_lowercase(),
                    default,
                }
            }
        }
    }
}

/// True if a pattern without variables stands for `text`.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    let symbols: Vec<_> = pattern
        .chars()
        .map(|c| match c {
            '*' => Symbol::Any,
            '?' => Symbol::One,
            _ => Symbol::Char(c),
        })
        .collect();
    matches(&symbols, text)
}

/// True if the symbols stand for `text`, in at most the product of both lengths.
pub(crate) fn matches(symbols: &[Symbol], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last `*`: the symbols behind it, and the text that it has swallowed so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = text.get(t) {
        match symbols.get(p) {
            Some(Symbol::Any) => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(symbol) if *symbol == Symbol::One || *symbol == Symbol::Char(*c) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((behind, swallowed)) = star else { return false };
                star = Some((behind, swallowed + 1));
                (p, t) = (behind, swallowed + 1);
            }
        }
    }
    symbols.iter().skip(p).all(|symbol| *symbol == Symbol::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str) -> Option<&'static str> {
        match key {
            "aws:principaltag/team" => Some("blue"),
            "aws:principaltag/star" => Some("*"),
            _ => None,
        }
    }

    #[test]
    fn a_variable_takes_its_value_whatever_its_case_and_a_missing_one_its_default() {
        for (pattern, text, expected) in [
            ("b/${aws:PrincipalTag/Team}/*", "b/blue/x/y", Some(true)),
            ("b/${AWS:principaltag/TEAM}/*", "b/red/x", Some(false)),
            ("b/${aws:PrincipalTag/other}/*", "b//x", None),
            ("b/${aws:PrincipalTag/other, 'all'}/*", "b/all/x", Some(true)),
            ("b/${aws:PrincipalTag/other, all}/*", "b/all/x", None),
            ("b/${*}${?}${$}{x}", "b/*?${x}", Some(true)),
            ("b/${*}", "b/x", Some(false)),
            ("b/${aws:PrincipalTag/Team", "b/${aws:PrincipalTag/Team", Some(true)),
        ] {
            let filled = PolicyText::pattern(pattern).fill(value);
            assert_eq!(
                filled.map(|symbols| matches(&symbols, text)),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn a_star_in_a_value_is_no_wildcard() {
        let symbols = PolicyText::pattern("b/${aws:PrincipalTag/star}/x").fill(value).unwrap();
        assert!(matches(&symbols, "b/*/x") && !matches(&symbols, "b/other/x"));
        let plain = PolicyText::plain("a*").fill(value).unwrap();
        assert!(matches(&plain, "a*") && !matches(&plain, "ab"));
    }

    #[test]
    fn a_pattern_of_many_stars_costs_no_more_than_both_lengths_multiplied() {
        let started = std::time::Instant::now();
        assert!(!like(&"*a".repeat(500), &"a".repeat(2000).replace("aa", "ab")));
        // With each star as another try it would take longer than there is time, on any machine.
        assert!(started.elapsed().as_secs() < 60);
    }
}
