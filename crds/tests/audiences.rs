//! The audience of a pod that asks for none.

use kube::core::DynamicObject;
use serde_json::json;
use tokenscope_crds::read;

#[test]
fn f03_the_only_allowed_audience_is_the_default() {
    let default = |audiences: serde_json::Value| {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {
                "subjects": [{}], "roles": {"default": "arn:aws:iam::111122223333:role/orders"}, "audiences": audiences,
            },
        }))
        .unwrap();
        let policy = read::read(&object).1.unwrap();
        policy.audiences.default.map(|audience| audience.to_string())
    };
    let china = "sts.amazonaws.com.cn";
    assert_eq!(default(json!({"allowed": [china]})), Some(china.to_owned()));
    assert_eq!(default(json!({"allowed": [china, "other"]})), None);
    assert_eq!(
        default(json!({"allowed": [china, "other"], "default": "other"})),
        Some("other".to_owned())
    );
    assert_eq!(default(json!({})), None);
}
