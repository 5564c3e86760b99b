//! The head of a request, read strictly. Pure.
//!
//! SDKs send a GET without a body. A head that could be read in two ways is refused. It is read by hand because the server is: hyper's
//! would make the program larger (docs/adr/0010).

use tokenscope_core::credentials_endpoint::METADATA_HEADER;

/// The most bytes of a head. An SDK's has a few hundred.
pub(crate) const LONGEST_HEAD: usize = 8 << 10;

/// A head that has come whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// The header `Host`.
    pub(crate) host: &'a str,
    /// The header `Authorization`, of which there is one at most.
    pub(crate) authorization: Option<&'a str>,
    /// The header [`METADATA_HEADER`], of which there is one at most.
    pub(crate) metadata: Option<&'a str>,
}

/// The reason why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("the request has more than {LONGEST_HEAD} bytes")]
    TooLong,
    #[error("the request is no HTTP/1.1 with a path")]
    Line,
    #[error("the request has a header that is none")]
    Header,
    #[error("the request should have one header Host, at most one Authorization and at most one {METADATA_HEADER}")]
    Repeated,
    #[error("the request has a body")]
    Body,
}

/// The length of the head in what has come of a request, with the empty line at its end. `seen` bytes were looked at before.
pub(crate) fn head_length(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    let rest = bytes.get(from..)?;
    let found = rest.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(from + found + 4)
}

/// Reads a head, the empty line at its end included.
pub(crate) fn read(head: &[u8]) -> Result<RequestHead<'_>, BadRequest> {
    if head.len() > LONGEST_HEAD {
        return Err(BadRequest::TooLong);
    }
    let head = std::str::from_utf8(head).map_err(|_| BadRequest::Header)?;
    let head = head.strip_suffix("\r\n\r\n").ok_or(BadRequest::Line)?;
    let mut lines = head.split("\r\n");
    let (method, path) = request_line(lines.next().unwrap_or_default()).ok_or(BadRequest::Line)?;
    let (mut host, mut authorization, mut metadata) = (None, None, None);
    for line in lines {
        let (name, value) = header(line).ok_or(BadRequest::Header)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let is_body = is("content-length") && value != "0" || is("transfer-encoding");
        if is_body {
            return Err(BadRequest::Body);
        }
        let place = if is("host") {
            &mut host
        } else if is("authorization") {
            &mut authorization
        } else if is(METADATA_HEADER) {
            &mut metadata
        } else {
            continue;
        };
        if place.replace(value).is_some() {
            return Err(BadRequest::Repeated);
        }
    }
    Ok(RequestHead {
        method,
        path,
        host: host.ok_or(BadRequest::Repeated)?,
        authorization,
        metadata,
    })
}

/// Method and path, if it is a line of HTTP/1.1 (RFC 9112, section 3) with the path alone.
fn request_line(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    let is_visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_whole = words.next().is_none() && ["HTTP/1.1", "HTTP/1.0"].contains(&version);
    (is_whole && is_visible(method) && is_visible(path) && path.starts_with('/')).then_some((method, path))
}

/// Name and value of a header (RFC 9112, section 5). A line that continues another one has no name.
fn header(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    let is_header = !name.is_empty() && name.bytes().all(is_token) && value.bytes().all(is_text);
    is_header.then_some((name, value.trim_matches([' ', '\t'])))
}

/// True if a header `Host` names the pod itself. Another name is that of a page in a browser which had it resolved to the loopback
/// address (DNS rebinding).
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    // The parser of numbers takes a sign, which no port has.
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    port.is_none_or(is_port) && (["127.0.0.1", "[::1]"].contains(&name) || name.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(head: &str) -> BadRequest {
        read(head.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_heads_of_sdks_are_read() {
        let python = "GET /v1/credentials/app HTTP/1.1\r\nHost: 127.0.0.1:9912\r\nAccept-Encoding: identity\r\n\
                      Accept: application/json\r\nUser-Agent: x\r\nAuthorization: t0-_ken\r\n\r\n";
        let read = read(python.as_bytes()).unwrap();
        assert_eq!(
            (read.method, read.path, read.host),
            ("GET", "/v1/credentials/app", "127.0.0.1:9912")
        );
        assert_eq!(read.authorization, Some("t0-_ken"));
        let bare = super::read(b"GET / HTTP/1.1\r\nhost:localhost\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert_eq!((bare.host, bare.authorization), ("localhost", None));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for line in [
            "",
            "GET",
            "GET / HTTP/2",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 x",
            "GET http://127.0.0.1/ HTTP/1.1",
            "GET * HTTP/1.1",
            "GET\t/ HTTP/1.1",
        ] {
            assert_eq!(
                refused(&format!("{line}\r\nHost: localhost\r\n\r\n")),
                BadRequest::Line,
                "{line}"
            );
        }
        for (headers, why) in [
            ("Host: a\r\nHost: b", BadRequest::Repeated),
            ("Accept: a", BadRequest::Repeated),
            ("Host: a\r\nAuthorization: b\r\nauthorization: b", BadRequest::Repeated),
            ("Host : a", BadRequest::Header),
            ("Host: a\r\n b", BadRequest::Header),
            ("Host: a\nX: b", BadRequest::Header),
            ("Host: a\r\nx", BadRequest::Header),
            ("Host: a\r\nContent-Length: 1", BadRequest::Body),
            ("Host: a\r\nTransfer-Encoding: chunked", BadRequest::Body),
        ] {
            assert_eq!(
                refused(&format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n")),
                why,
                "{headers}"
            );
        }
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(LONGEST_HEAD));
        assert_eq!(refused(&long), BadRequest::TooLong);
    }

    #[test]
    fn a_head_ends_with_its_empty_line_wherever_it_is_cut() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore";
        for seen in 0..=bytes.len() - 4 {
            let partial = &bytes[..seen];
            let expected = (seen >= bytes.len() - 4).then_some(bytes.len() - 4);
            assert_eq!(head_length(partial, 0), expected, "{seen}");
            if seen < bytes.len() - 4 {
                assert_eq!(head_length(bytes, seen), Some(bytes.len() - 4), "{seen}");
            }
        }
    }

    #[test]
    fn only_the_names_of_the_pod_itself_are_hosts() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9912",
            "[::1]",
            "[::1]:9912",
            "localhost:9912",
            "LocalHost",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9912",
            "127.0.0.1.evil.example",
            "127.0.0.1:x",
            "::1",
            "127.0.0.1:",
            "127.0.0.1:+80",
            "127.0.0.1:-0",
            "[::1]:+80",
            "localhost:65536",
            "10.0.0.1",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), seen in 0_usize..300) {
            let _ = head_length(&bytes, seen);
            let _ = read(&bytes);
            let _ = is_loopback_host(&String::from_utf8_lossy(&bytes));
        }
    }
}
