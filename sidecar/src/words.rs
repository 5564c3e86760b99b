//! Texts of other programs, made safe for messages and logs.

/// The least length of a part of a token that is looked for, in bytes.
const SHORTEST_PART: usize = 16;

/// Another program's words as one line of printable ASCII of at most `most` bytes, all else escaped.
pub(crate) fn shown(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        let length = shown.len();
        match character {
            ' '..='~' => shown.push(character),
            other => shown.extend(other.escape_unicode()),
        }
        if shown.len() > most {
            shown.truncate(length);
            break;
        }
    }
    shown
}

/// Another program's words without the token that it was sent. Words that were cut may end within a part of it: what is left of
/// the part goes too, if it has 16 bytes or more.
pub(crate) fn without(text: &str, token: &str) -> String {
    let parts = token.split('.').filter(|part| part.len() >= SHORTEST_PART);
    parts.fold(text.to_owned(), |text, part| {
        let mut text = text.replace(part, REMOVED);
        let most = text.len().saturating_sub(SHORTEST_PART);
        // No part is longer than the text's end that could be its beginning.
        let first = text.len().saturating_sub(part.len());
        let cut = (first..=most)
            .find(|&at| text.len() - at >= SHORTEST_PART && text.get(at..).is_some_and(|rest| part.starts_with(rest)));
        if let Some(at) = cut {
            text.replace_range(at.., REMOVED);
        }
        text
    })
}

/// The text in place of a part of a token.
const REMOVED: &str = "[token]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_token_are_removed_whole_and_where_the_words_were_cut_within_one() {
        let (head, body) = ("h".repeat(20), "bcdefghijklmnopqrstuvwxyz0123456789");
        let token = format!("{head}.{body}.short");
        for (text, left) in [
            (format!("no: {token} is wrong"), "no: [token].[token].short is wrong"),
            (format!("no: {}", &body[..20]), "no: [token]"),
            (format!("no: {head}.{}", &body[..16]), "no: [token].[token]"),
            (format!("no: {}", &head[..17]), "no: [token]"),
            (format!("ä{}", &body[..16]), "ä[token]"),
            (body[..16].to_owned(), "[token]"),
        ] {
            assert_eq!(without(&text, &token), left);
        }
        for text in ["", "no", "ä", &body[..15], &format!("{} is wrong", &body[..20])] {
            assert_eq!(without(text, &token), text);
        }
    }
}
