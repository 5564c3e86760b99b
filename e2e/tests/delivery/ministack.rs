//! A chain of roles as a pod has it, judged by somebody else's IAM and STS (MiniStack) with the documents of the policy's status.

use anyhow::Result;
use serde_json::Value;
use tokenscope_e2e::fixtures::WHO_AM_I;

use super::accounts::{AT_THE_END, ChainedPod, TwoAccounts};

#[tokio::test(flavor = "multi_thread")]
async fn another_iam_takes_the_chain_of_the_file_by_the_documents_of_the_status_and_no_other() {
    let pod = ChainedPod::create("ministack", &Value::Null).await;
    let accounts = TwoAccounts::start().await;
    let url = accounts.url();
    let who = || -> Result<String> {
        let more = [("AWS_ENDPOINT_URL_STS", &*url)];
        let arn = tokio::task::block_in_place(|| pod.container.python(WHO_AM_I, &more))?;
        Ok(arn.trim().to_owned())
    };
    let refused = |action: &str| {
        let why = who().unwrap_err().to_string();
        assert!(why.contains("AccessDenied") && why.contains(action), "{why}");
    };

    let [first, second] = &pod.trust;
    refused("AssumeRoleWithWebIdentity");
    accounts.trust_first(first);
    refused("AssumeRole operation");
    accounts.trust_second(second);
    refused("AssumeRole operation"); // the first role has no permission yet
    accounts.permit(&pod.permission);
    assert_eq!(who().unwrap(), AT_THE_END);

    accounts.want_another_external_id(&pod);
    refused("AssumeRole operation");
}
