//! Policies that hold for a time, by the clock of the machine.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::json;
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::eventually;
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, orders_may, reviewed};

use crate::SHARED;

/// How long the policy that expires is in force at most.
const MOST: Duration = Duration::from_secs(60);

/// A pod is granted its role by a policy that expires soon: when. On a busy machine the end may come before the pod, and a later one is tried.
async fn granted_before_its_end(shop: &Shop<'_>) -> Result<Timestamp> {
    for life in [6, 20, MOST.as_secs()] {
        let end = Timestamp::from_second(Timestamp::now().as_second() + life.cast_signed())?;
        let mut spec = orders_may(&[ORDERS]);
        spec["expiresAt"] = json!(end.to_string());
        shop.policy("orders", spec).await?;
        let early = shop.asking(&format!("early-{life}"), ORDERS);
        let granted = eventually(Duration::from_secs(life), "the policy grants", async || {
            let answer = try_pod(&shop.client, &early).await?;
            ensure!(answer.accepted(), "{}", answer.message());
            ensure!(reviewed(&answer.body) == Some("granted"), "{}", answer.body);
            Ok(())
        });
        match granted.await {
            Ok(()) if Timestamp::now() < end => return Ok(end),
            granted => println!("a policy of {life} s has ended too soon: {granted:?}"),
        }
    }
    bail!("no pod was granted its role within {MOST:?}")
}

#[tokio::test]
async fn a_policy_grants_until_it_expires() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "expiring", &[]).await.unwrap();
    let end = granted_before_its_end(&shop).await.unwrap();

    eventually(MOST + PROPAGATION, "the policy has expired", async || {
        let before = Timestamp::now();
        let answer = try_pod(&shop.client, &shop.asking("late", ORDERS)).await?;
        let after = Timestamp::now();
        assert!(
            answer.accepted() || after >= end,
            "refused before {end}: {}",
            answer.message()
        );
        assert!(!answer.accepted() || before < end, "granted after {end}");
        ensure!(!answer.accepted(), "still granted");
        Ok(())
    })
    .await
    .unwrap();
    let refusal = shop.refused(&shop.asking("late", ORDERS), "expired").await.unwrap();
    assert!(
        refusal.contains(&format!("TokenScopePolicy expiring/orders expired at {end}")),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_policy_grants_while_a_window_of_its_schedule_is_open() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "scheduled", &[]).await.unwrap();
    // No whole hours from UTC, and no changes of the clocks.
    let zone = TimeZone::get("Asia/Kathmandu").unwrap();
    let scheduled = |from_now: jiff::Span, duration: &str| {
        let opening = Timestamp::now().checked_add(from_now).unwrap().to_zoned(zone.clone());
        let mut spec = orders_may(&[ORDERS]);
        spec["activeSchedule"] = json!({
            "cron": format!("{} {} * * *", opening.minute(), opening.hour()), "duration": duration, "timeZone": "Asia/Kathmandu",
        });
        (
            spec,
            opening
                .with()
                .second(0)
                .subsec_nanosecond(0)
                .build()
                .unwrap()
                .timestamp(),
        )
    };

    let (open_now, _) = scheduled(-10.minutes(), "1h30m");
    shop.policy("orders", open_now).await.unwrap();
    shop.granted(&shop.asking("in-time", ORDERS)).await.unwrap();

    let (closed_now, next) = scheduled(2.hours(), "1h");
    shop.policy("orders", closed_now).await.unwrap();
    let refusal = shop
        .refused(&shop.asking("too-early", ORDERS), "is not active now")
        .await
        .unwrap();
    assert!(
        refusal.contains(&format!("in Asia/Kathmandu, next at {next}")),
        "{refusal}"
    );

    let (over, opened) = scheduled(-2.hours(), "1h");
    shop.policy("orders", over).await.unwrap();
    let next = opened.checked_add(24.hours()).unwrap();
    let refusal = shop
        .refused(&shop.asking("too-late", ORDERS), &format!("next at {next}"))
        .await
        .unwrap();
    assert!(refusal.contains("is not active now"), "{refusal}");

    let mut disabled = orders_may(&[ORDERS]);
    disabled["disabled"] = json!(true);
    shop.policy("orders", disabled).await.unwrap();
    let refusal = shop.refused(&shop.asking("off", ORDERS), "is disabled").await.unwrap();
    assert!(
        refusal.contains("TokenScopePolicy scheduled/orders is disabled"),
        "{refusal}"
    );
}
