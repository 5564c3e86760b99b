//! Texts for messages: cut where a character ends, and lists of which the first few are shown, with the number of what is missing.

use std::fmt;

/// The longest start of a text that has at most `most` bytes.
pub fn up_to(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or_default()]
}

/// The text; or, of one that has more than `most` bytes, its shortest start that still has.
pub fn beyond(text: &str, most: usize) -> &str {
    let end = (most + 1..text.len()).find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(text.len())]
}

/// A text of at most `most` bytes; one that is longer ends with an ellipsis.
pub(crate) fn bounded(mut text: String, most: usize) -> String {
    const ELLIPSIS: char = '…';
    if text.len() > most {
        let room = most - ELLIPSIS.len_utf8();
        text.truncate(up_to(&text, room).len());
        text.push(ELLIPSIS);
    }
    text
}

/// The end of a list of which `more` items are left out.
pub fn and_more(more: usize) -> String {
    format!("and {more} more")
}

/// The first few of many things, for a message.
pub(crate) fn some_of<T: fmt::Display>(things: &[T]) -> Box<str> {
    const MOST: usize = 5;
    let mut text = String::new();
    for (index, thing) in things.iter().take(MOST).enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(&thing.to_string());
    }
    match things.len() {
        0 => "none".into(),
        n if n > MOST => format!("{text} {}", and_more(n - MOST)).into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_a_character_ends() {
        assert_eq!(up_to("aä", 3), "aä");
        assert_eq!(up_to("aä", 2), "a");
        assert_eq!(up_to("ä", 1), "");
        assert_eq!(up_to("ab", 9), "ab");
    }

    #[test]
    fn what_is_kept_of_a_text_that_is_too_long_still_is() {
        assert_eq!(beyond("aä", 3), "aä");
        assert_eq!(beyond("abä", 2), "abä");
        assert_eq!(beyond("abc", 1), "ab");
        assert_eq!(beyond("ab", 9), "ab");
    }
}
