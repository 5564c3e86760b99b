//! A reader of the XML that STS answers with: nested elements with text, and nothing else of XML.
//!
//! Not a general reader. Attributes and comments are passed over, namespaces are not resolved, document types are refused. Size,
//! depth, names and the number of texts have bounds, so an answer that isn't from STS costs no more than its first 64 KiB, and the paths
//! of its texts no more than half a megabyte.
//! A library would read more of XML than may be here, and these bounds would be written beside it all the same; its size in the
//! sidecar was not measured.

use std::borrow::Cow;

/// Bytes of an answer. The longest has a token of 20,000 characters.
pub(crate) const MAX_ANSWER: usize = 64 << 10;
/// Elements in one another.
const MAX_DEPTH: usize = 16;
/// Elements with a text.
const MAX_TEXTS: usize = 256;
/// Bytes of an element's name. STS's longest has 33. Each text is kept with the names of all elements around it.
const MAX_NAME: usize = 128;

/// The texts of a document by their path, such as `ErrorResponse/Error/Code`.
#[derive(Debug)]
pub(crate) struct XmlTexts(Vec<(String, String)>);

impl XmlTexts {
    /// Reads a document; `None` for everything that isn't one of this kind.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_ANSWER {
            return None;
        }
        let mut rest = std::str::from_utf8(bytes).ok()?.trim_start_matches('\u{feff}');
        let mut path: Vec<&str> = Vec::new();
        let mut texts: Vec<(String, String)> = Vec::new();
        let mut text = String::new();
        // True while the innermost open element has had no child: only such an element has a text.
        let mut leaf = false;
        let mut ended = false;
        while let Some(position) = rest.find('<') {
            let (before, tag) = rest.split_at(position);
            if path.is_empty() && !before.trim().is_empty() {
                return None;
            }
            text.push_str(&unescape(before)?);
            if let Some(after) = tag.strip_prefix("<!--") {
                rest = after.split_once("-->")?.1;
                continue;
            }
            if let Some(after) = tag.strip_prefix("<?") {
                rest = after.split_once("?>")?.1;
                continue;
            }
            let (inside, after) = tag.get(1..)?.split_once('>')?;
            rest = after;
            if let Some(name) = inside.strip_prefix('/') {
                let ends = path.pop()? == name.trim_end();
                if !ends || texts.len() >= MAX_TEXTS {
                    return None;
                }
                if leaf {
                    path.push(name.trim_end());
                    texts.push((path.join("/"), std::mem::take(&mut text)));
                    path.pop();
                }
                leaf = false;
                ended = path.is_empty();
                continue;
            }
            // One element holds all others, and none is a document type or CDATA.
            if ended || path.len() >= MAX_DEPTH || inside.starts_with('!') {
                return None;
            }
            let (inside, empty) = inside
                .strip_suffix('/')
                .map_or((inside, false), |inside| (inside, true));
            let name = inside.split_ascii_whitespace().next()?;
            if name.len() > MAX_NAME {
                return None;
            }
            text.clear();
            leaf = !empty;
            if empty {
                ended = path.is_empty();
            } else {
                path.push(name);
            }
        }
        (ended && rest.trim().is_empty()).then_some(Self(texts))
    }

    /// The text at a path. `None` if there is none or several: nothing says which of them is meant.
    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(of, _)| of == path);
        let (_, text) = found.next()?;
        found.next().is_none().then_some(text)
    }
}

/// Puts characters in the place of references; `None` for one that XML doesn't have.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('&') {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (name, behind) = after.split_once(';')?;
        plain.push_str(before);
        plain.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let (digits, radix) = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => (hex, 16),
                    None => (number, 10),
                };
                // The parser of numbers takes a sign, which XML does not.
                if digits.starts_with('+') {
                    return None;
                }
                char::from_u32(u32::from_str_radix(digits, radix).ok()?)?
            }
        });
        rest = behind;
    }
    plain.push_str(rest);
    Some(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Vec<(String, String)>> {
        XmlTexts::read(text.as_bytes()).map(|texts| texts.0)
    }

    #[test]
    fn texts_are_found_by_their_path() {
        let document = "<?xml version=\"1.0\"?>\n<!-- c --><A xmlns=\"x\"><B>\n <C>1 &lt;&#x41;&#66;</C><D/><C>2</C></B><E> e </E></A>\n";
        let texts = XmlTexts::read(document.as_bytes()).unwrap();
        assert_eq!(
            (texts.get("A/E"), texts.get("A/B/C"), texts.get("A/B/D")),
            (Some(" e "), None, None)
        );
        assert_eq!(texts.0[0], ("A/B/C".to_owned(), "1 <AB".to_owned()));
    }

    #[test]
    fn everything_else_is_refused() {
        for wrong in [
            "",
            "x",
            "{}",
            "<A>",
            "<A></B>",
            "</A>",
            "<A></A><B></B>",
            "<A></A>x",
            "<A>&nbsp;</A>",
            "<A>&amp</A>",
            "<A>&#xD800;</A>",
            "<A>&#+65;</A>",
            "<A>&#x+41;</A>",
            "<!DOCTYPE a><A></A>",
            "<A><![CDATA[x]]></A>",
            "<A><!-- </A>",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read(&"<A>".repeat(17)), None);
        assert_eq!(read(&format!("<A>{}</A>", "<B>1</B>".repeat(300))), None);
        assert!(XmlTexts::read(&vec![b' '; MAX_ANSWER + 1]).is_none());
    }

    #[test]
    fn the_names_around_a_text_have_a_bound_since_they_are_kept_with_each() {
        let document = |bytes: usize| {
            let name = "N".repeat(bytes);
            format!("<{name}>{}</{name}>", "<B>1</B>".repeat(MAX_TEXTS - 1))
        };
        assert_eq!(read(&document(MAX_NAME)).map(|texts| texts.len()), Some(MAX_TEXTS - 1));
        // 30,000 bytes with each of 255 texts would be 8 MB, of an answer of 62 kB.
        for bytes in [MAX_NAME + 1, 30_000] {
            assert_eq!(read(&document(bytes)), None, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = read(&text);
        }

        #[test]
        fn nothing_that_looks_like_xml_makes_it_panic(parts in prop::collection::vec("(<A>|</A>|<B/>|<!--|-->|<\\?|\\?>|&lt;|&#|x|;)", 0..40)) {
            let _ = read(&parts.concat());
        }
    }
}
