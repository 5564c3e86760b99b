//! The authorization token of a container: new at each start, and in a file that only this container sees.

use std::{fmt, io};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokenscope_core::credentials_endpoint::AUTHORIZATION_FILE;

use crate::directory::{Directory, Readers};

/// The random bytes of a token.
const BYTES: usize = 32;

/// An authorization token. `Debug` doesn't show it.
#[derive(Clone)]
pub(super) struct Authorization(Box<str>);

impl Authorization {
    /// A new one, that nobody can guess.
    pub(super) fn generate() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes).into()))
    }

    /// True if a header has it. The time of the comparison depends on the length alone.
    pub(super) fn is(&self, header: &str) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), header.as_bytes()).is_ok()
    }

    /// Puts it into its file in the container's folder, without an end of line: SDKs send the file as it is, and botocore refuses one.
    pub(super) fn write(&self, folder: &Directory) -> io::Result<()> {
        folder.replace(AUTHORIZATION_FILE, self.0.as_bytes(), Readers::AllForReading)
    }

    #[cfg(test)]
    pub(super) fn of_test(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Authorization(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_new_each_time_and_readable_by_every_user_of_its_container() {
        let folder = std::env::temp_dir().join(format!("tokenscope-authorization-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("token");
        let mut texts = Vec::new();
        for _ in 0..2 {
            let token = Authorization::generate().unwrap();
            token.write(&Directory::open(&folder).unwrap()).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(token.is(&text) && !token.is(&text[1..]) && !token.is(""));
            assert_eq!(
                (
                    text.len(),
                    std::fs::metadata(&path).unwrap().permissions().mode() & 0o777
                ),
                (43, 0o444)
            );
            assert_eq!(format!("{token:?}"), "Authorization(…)");
            texts.push(text);
        }
        assert_ne!(texts[0], texts[1]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
