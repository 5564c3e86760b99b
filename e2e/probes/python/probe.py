"""Asks who it is and puts and gets an object, with the default chain of credentials. What it prints is in ../README.md."""

import os
import sys
import time

import boto3
import botocore.exceptions
from botocore.credentials import CachedCredentialFetcher, RefreshableCredentials

bucket, key = os.environ["PROBE_BUCKET"], os.environ["PROBE_KEY"]
every = int(os.environ.get("PROBE_EVERY", "0"))
if every:
    # Credentials last an hour. A round after they came they are thought to be old, by what refreshes them and by what keeps
    # them: what happens to every application once an hour happens now.
    old = 3600 - every
    RefreshableCredentials._advisory_refresh_timeout = RefreshableCredentials._mandatory_refresh_timeout = old
    CachedCredentialFetcher.DEFAULT_EXPIRY_WINDOW_SECONDS = old
session = boto3.Session()
sts, s3 = session.client("sts"), session.client("s3")

while True:
    try:
        arn = sts.get_caller_identity()["Arn"]
        s3.put_object(Bucket=bucket, Key=key, Body=f"written by {arn}".encode())
        text = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        print(f"caller: {arn}\nobject: {text}", flush=True)
        if every:
            print(f"key: {session.get_credentials().get_frozen_credentials().access_key}", flush=True)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        print(f"refused: {type(error).__name__}: {error}", flush=True)
        if not every:
            sys.exit(1)
    if not every:
        break
    time.sleep(every)
