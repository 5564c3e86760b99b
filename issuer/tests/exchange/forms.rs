//! Requests as they arrive: their media type, their pieces, their bytes, and what stands around the form.

use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Builder;
use http::{Request, StatusCode, header};
use http_body_util::channel::Channel;
use serde_json::{Value, json};

use crate::setup::{Setup, URL, form};

const STS: &str = "sts.amazonaws.com";
const FORM: &str = "application/x-www-form-urlencoded";

fn post(path: &str) -> Builder {
    Request::post(path).header(header::CONTENT_TYPE, FORM)
}

#[tokio::test]
async fn the_media_type_is_that_of_a_form_in_any_case_and_with_any_parameter() {
    let setup = Setup::new().await;
    let send = async |content_type: Option<&str>| {
        let mut request = Request::post("/token");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let body = Body::from(form(&setup.subject(), STS));
        setup.send(request.body(body).unwrap()).await
    };
    for good in [
        FORM,
        "application/x-www-form-urlencoded;charset=UTF-8",
        "Application/X-WWW-Form-URLEncoded ; charset=utf-8; q=1",
    ] {
        let (status, body) = send(Some(good)).await;
        assert_eq!(status, StatusCode::OK, "{good}: {body}");
    }
    for bad in [
        None,
        Some(""),
        Some("text/plain"),
        Some("multipart/form-data; boundary=x"),
        Some("application/x-www-form-urlencoded2"),
        Some("application/x-www-form-urlencoded, text/plain"),
        Some("text/plain; application/x-www-form-urlencoded"),
    ] {
        let (status, body) = send(bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad:?}");
        assert_eq!(body["error"], "invalid_request", "{bad:?}");
    }
}

#[tokio::test]
async fn a_form_that_comes_in_pieces_is_read_as_a_whole() {
    let setup = Setup::new().await;
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    let text = form(&setup.subject(), STS);
    tokio::spawn(async move {
        for piece in text.into_bytes().chunks(7) {
            sender.send_data(Bytes::copy_from_slice(piece)).await.unwrap();
        }
    });
    let (status, body) = setup.send(post("/token").body(Body::new(body)).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn a_form_that_names_no_length_and_never_ends_is_refused_at_its_bound() {
    let setup = Setup::new().await;
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
    // Nobody takes more once it is refused.
    tokio::spawn(async move { while sender.send_data(Bytes::from_static(&[b'a'; 1024])).await.is_ok() {} });
    let (status, body) = setup.send(post("/token").body(Body::new(body)).unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error_description"], "the request has more than 16 KiB");
}

#[tokio::test]
async fn bytes_that_are_no_text_and_digits_of_other_scripts_are_refused_where_they_stand() {
    let setup = Setup::new().await;
    let honest = form(&setup.subject(), STS);
    for (body, error) in [
        (honest.replace("audience=sts", "audience=%FFsts"), "invalid_target"),
        (honest.replace("audience=sts", "audience=%00sts"), "invalid_target"),
        (honest.replace("audience=sts", "audience=\u{441}ts"), "invalid_target"),
        (honest.replace("subject_token=", "subject_token=%FF"), "invalid_grant"),
        (honest.replace("subject_token=", "subject_token=+"), "invalid_grant"),
        (
            honest.replace("token-exchange", "token-exchange%FF"),
            "unsupported_grant_type",
        ),
        (format!("{honest}&expires_in=%D9%A6%D9%A0%D9%A0"), "invalid_request"),
        (format!("{honest}&expires_in=0x258"), "invalid_request"),
        (format!("{honest}&expires_in=6e2"), "invalid_request"),
        (format!("{honest}&%65xpires_in=600&expires_in=600"), "invalid_request"),
    ] {
        assert_ne!(body, honest);
        let (status, answer) = setup.post(&body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer["error"], error, "{body}: {answer}");
    }
}

#[tokio::test]
async fn neither_the_query_nor_a_header_adds_to_the_form_or_chooses_the_issuer() {
    let setup = Setup::new().await;
    let honest = form(&setup.subject(), STS);
    let request = post("/token?audience=https://evil.example&expires_in=61")
        .header(header::HOST, "evil.example")
        .header(header::AUTHORIZATION, "Bearer other")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-proto", "http")
        .header("x-original-url", "https://evil.example/token")
        .header("forwarded", "host=evil.example");
    let (status, body) = setup.send(request.body(Body::from(honest.clone())).unwrap()).await;
    assert_eq!((status, &body["expires_in"]), (StatusCode::OK, &json!(3600)), "{body}");
    let payload = body["access_token"].as_str().unwrap().split('.').nth(1).unwrap();
    let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!((&token["iss"], &token["aud"]), (&json!(URL), &json!(STS)));

    let without = honest.replace("&audience=sts.amazonaws.com", "");
    let request = post("/token?audience=sts.amazonaws.com").body(Body::from(without));
    let (status, body) = setup.send(request.unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error_description"], "audience is missing");
}
