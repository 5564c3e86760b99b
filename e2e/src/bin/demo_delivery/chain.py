"""What the pods of the chain run: they show the file that the SDK reads, and who they are."""

import os

import boto3
import botocore.exceptions

print(open(os.environ["AWS_CONFIG_FILE"]).read())
try:
    print("caller:", boto3.client("sts").get_caller_identity()["Arn"])
except botocore.exceptions.ClientError as error:
    print("refused:", error)
