//! Asks who it is and puts and gets an object, with the default chain of credentials. What it prints is in ../README.md.

use std::process::ExitCode;

use aws_sdk_s3::error::DisplayErrorContext;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match probe().await {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("refused: {}", DisplayErrorContext(&*error).to_string().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

async fn probe() -> Result<String, Box<dyn std::error::Error>> {
    let (bucket, key) = (std::env::var("PROBE_BUCKET")?, std::env::var("PROBE_KEY")?);
    let config = aws_config::load_from_env().await;
    let identity = aws_sdk_sts::Client::new(&config).get_caller_identity().send().await?;
    let arn = identity.arn().unwrap_or_default();
    let s3 = aws_sdk_s3::Client::new(&config);
    let text = format!("written by {arn}");
    s3.put_object().bucket(&bucket).key(&key).body(text.into_bytes().into()).send().await?;
    let object = s3.get_object().bucket(&bucket).key(&key).send().await?.body.collect().await?;
    Ok(format!("caller: {arn}\nobject: {}", String::from_utf8_lossy(&object.into_bytes())))
}
