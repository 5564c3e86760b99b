"""Asks who it is and puts and gets an object, with the default chain of credentials. What it prints is in ../README.md."""

import os
import sys

import boto3
import botocore.exceptions

bucket, key = os.environ["PROBE_BUCKET"], os.environ["PROBE_KEY"]
try:
    arn = boto3.client("sts").get_caller_identity()["Arn"]
    s3 = boto3.client("s3")
    s3.put_object(Bucket=bucket, Key=key, Body=f"written by {arn}".encode())
    text = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    print(f"caller: {arn}\nobject: {text}")
except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
    print(f"refused: {type(error).__name__}: {error}")
    sys.exit(1)
