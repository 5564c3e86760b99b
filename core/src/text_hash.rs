//! Short texts that tell one thing from another: decisions in records, audiences in names of volumes.
//!
//! Both are kept where other versions of the programs read them, so the function is FNV-1a of 64 bits, as it is published, and the
//! tests of `fingerprint` pin what comes out. They protect nothing. See docs/adr/0008.

use std::hash::Hasher;

use fnv::FnvHasher;

use crate::Audience;

/// The hash of several texts.
#[derive(Default)]
pub(crate) struct TextHasher(FnvHasher);

impl TextHasher {
    /// Adds one more text.
    pub(crate) fn write(&mut self, text: &str) {
        self.0.write(text.as_bytes());
        // This byte is in no UTF-8, so it ends the text.
        self.0.write(&[0xff]);
    }

    /// The hash of what was written.
    pub(crate) fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl Audience {
    /// The part of a volume's name that tells its token from others': 16 hexadecimal digits.
    pub fn short_hash(&self) -> String {
        let mut hash = FnvHasher::default();
        hash.write(self.as_str().as_bytes());
        format!("{:016x}", hash.finish())
    }
}

/// A short text that tells lists of texts apart: 16 hexadecimal digits.
pub fn hash_of_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = TextHasher::default();
    texts.into_iter().for_each(|text| hash.write(text));
    format!("{:016x}", hash.finish())
}
