//! The time as the API server has it, by the header `Date` of an answer (RFC 9110 §6.6.1).

use http::{Request, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use kube::Client;
use kube::client::Body;

/// A path that everybody may read. A refusal has the header too (Kubernetes API, "version").
const PATH: &str = "/version";

/// The API server's time, to the second. None where it gives no answer, or one without a time that can be read. There is no deadline here.
pub async fn api_server_time(client: &Client) -> Option<Timestamp> {
    let request = Request::get(PATH).body(Body::empty()).ok()?;
    let response = client.send(request).await.ok()?;
    let date = response.headers().get(header::DATE)?;
    DateTimeParser::new().parse_timestamp(date.as_bytes()).ok()
}
