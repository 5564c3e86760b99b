//! The ends of strings, objects and lists, many bytes at a time.

use wide::u8x16;

/// As many bytes as are looked at together: a bit each in a mask.
const LANE: usize = 16;

/// The first quotation mark, backslash or control character at or after `from`, or the end.
pub(super) fn end_of_plain(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(lane) = bytes.get(at..).and_then(<[u8]>::first_chunk::<LANE>) {
        let lane = u8x16::new(*lane);
        let control = lane.min(u8x16::splat(b' ' - 1)).simd_eq(lane);
        match (control | lane.simd_eq(b'"') | lane.simd_eq(b'\\')).to_bitmask() {
            0 => at += LANE,
            found => return at + found.trailing_zeros() as usize,
        }
    }
    let special = |byte: &u8| matches!(byte, ..b' ' | b'"' | b'\\');
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(special).unwrap_or(rest.len())
}

/// Behind the string that begins at `from`; `None` where it does not end.
pub(super) fn end_of_string(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        at = end_of_plain(bytes, at);
        at += match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => 2,
            _ => 1,
        };
    }
}

/// Behind the object or list that begins at `from`; `None` where it does not end.
pub(super) fn end_of_nested(bytes: &[u8], from: usize) -> Option<usize> {
    let mut blocks = Blocks::default();
    let mut depth = 0;
    let mut at = from;
    while at < bytes.len() {
        let mut tail = [b' '; 4 * LANE];
        let block = if let Some(block) = bytes[at..].first_chunk() {
            block
        } else {
            tail[..bytes.len() - at].copy_from_slice(&bytes[at..]);
            &tail
        };
        let Brackets { opening, mut closing } = blocks.next(block);
        // Only where enough of them close can the end be here.
        if closing.count_ones() >= depth {
            let before = depth;
            let mut closed = 0;
            while closing != 0 {
                let bit = closing.trailing_zeros();
                closed += 1;
                if before + (opening & ((1 << bit) - 1)).count_ones() == closed {
                    return Some(at + bit as usize + 1);
                }
                closing &= closing - 1;
            }
            depth = before + opening.count_ones() - closed;
        } else {
            depth = depth + opening.count_ones() - closing.count_ones();
        }
        at += 4 * LANE;
    }
    None
}

/// The state that one block hands to the next.
#[derive(Default)]
struct Blocks {
    /// 1 where the next block begins with an escaped byte.
    escaped: u64,
    /// All ones where the next block begins within a string.
    in_string: u64,
}

/// Those outside of strings.
struct Brackets {
    opening: u64,
    closing: u64,
}

impl Blocks {
    fn next(&mut self, block: &[u8; 4 * LANE]) -> Brackets {
        // `{` and `[` differ in this bit only, and so do `}` and `]`.
        const CURLY: u8 = b'{' ^ b'[';
        let (lanes, _) = block.as_chunks::<LANE>();
        let (mut quotes, mut backslashes, mut opening, mut closing) = (0, 0, 0, 0);
        for (index, lane) in lanes.iter().enumerate() {
            let lane = u8x16::new(*lane);
            let curly = lane | u8x16::splat(CURLY);
            let mask = |found: u8x16| u64::from(found.to_bitmask()) << (index * LANE);
            quotes |= mask(lane.simd_eq(b'"'));
            backslashes |= mask(lane.simd_eq(b'\\'));
            opening |= mask(curly.simd_eq(b'{'));
            closing |= mask(curly.simd_eq(b'}'));
        }
        let escaped = self.escaped_by(backslashes);
        let strings = self.strings(quotes & !escaped);
        Brackets {
            opening: opening & !strings,
            closing: closing & !strings,
        }
    }

    /// The bytes behind backslashes that are not behind one themselves.
    fn escaped_by(&mut self, backslashes: u64) -> u64 {
        let mut escaped = std::mem::take(&mut self.escaped);
        let mut left = backslashes & !escaped;
        while left != 0 {
            let backslash = left & left.wrapping_neg();
            if backslash.leading_zeros() == 0 {
                self.escaped = 1;
                break;
            }
            escaped |= backslash << 1;
            left &= !(backslash | backslash << 1);
        }
        escaped
    }

    /// The bytes from each opening quotation mark up to its closing one.
    fn strings(&mut self, quotes: u64) -> u64 {
        // Each bit becomes the parity of those up to it.
        let mut parity = quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            parity ^= parity << shift;
        }
        let strings = parity ^ self.in_string;
        self.in_string = if strings.leading_zeros() == 0 { u64::MAX } else { 0 };
        strings
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As [`end_of_plain`], one byte after another: what it must come to on processors without any lanes.
    fn plain_by_bytes(bytes: &[u8], from: usize) -> usize {
        let special = |byte: &u8| matches!(byte, ..b' ' | b'"' | b'\\');
        let rest = bytes.get(from..).unwrap_or_default();
        from + rest.iter().position(special).unwrap_or(rest.len())
    }

    /// As [`end_of_nested`], one byte after another.
    fn nested_by_bytes(bytes: &[u8], from: usize) -> Option<usize> {
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        for (at, byte) in bytes.iter().enumerate().skip(from) {
            let is_escaped = std::mem::take(&mut escaped);
            match byte {
                b'\\' if !is_escaped => escaped = true,
                b'"' if !is_escaped => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![prop::sample::select(&b"{}[]\"\\, a"[..]), any::<u8>()];
        prop::collection::vec(byte, 0..300)
    }

    proptest! {
        #[test]
        fn many_bytes_at_a_time_come_to_what_one_after_another_does(mut bytes in any_bytes(), from in 0..80_usize) {
            prop_assert_eq!(end_of_plain(&bytes, from), plain_by_bytes(&bytes, from));
            bytes.insert(0, b'[');
            prop_assert_eq!(end_of_nested(&bytes, 0), nested_by_bytes(&bytes, 0));
        }
    }
}
