"""Asks who it is and puts and gets an object, with the default chain of credentials. What it prints is in ../README.md."""

import os
import sys
import time

import boto3
import botocore.exceptions

bucket, key = os.environ["PROBE_BUCKET"], os.environ["PROBE_KEY"]
every = int(os.environ.get("PROBE_EVERY", "0"))
session = boto3.Session()
credentials = session.get_credentials()
if every and credentials:
    # An hour before they expire they are thought to be old, which is as soon as they are a round old: what happens to
    # every application once an hour happens now.
    credentials._advisory_refresh_timeout = credentials._mandatory_refresh_timeout = 3600 - every
sts, s3 = session.client("sts"), session.client("s3")

while True:
    try:
        arn = sts.get_caller_identity()["Arn"]
        s3.put_object(Bucket=bucket, Key=key, Body=f"written by {arn}".encode())
        text = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        print(f"caller: {arn}\nobject: {text}", flush=True)
        if every:
            print(f"key: {credentials.get_frozen_credentials().access_key}", flush=True)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        print(f"refused: {type(error).__name__}: {error}", flush=True)
        if not every:
            sys.exit(1)
    if not every:
        break
    time.sleep(every)
