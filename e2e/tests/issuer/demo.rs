//! The demo, as `cargo xtask demo --issuer` runs it.

use std::process::Command;

#[test]
fn the_demo_shows_two_tenants_isolated_by_tags() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo_issuer")).output().unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(
        text.ends_with("Team blue has its session, and team red is refused\n"),
        "{text}"
    );
    for said in [
        "oauthinfo",
        "oauthkeys",
        "the next token: app [\"orders\"]",
        "disabled: ",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    assert!(!text.contains("eyJ"), "no token is shown");
}
