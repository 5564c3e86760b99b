//! Texts that are cut where a character ends.

/// The longest start of a text that has at most `most` bytes.
pub(crate) fn up_to(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or_default()]
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
}
