"""Asks who it is and puts and gets an object with the AWS CLI, as a shell script would. What it prints is in ../README.md."""

import os
import subprocess
import sys

target = f"s3://{os.environ['PROBE_BUCKET']}/{os.environ['PROBE_KEY']}"


def aws(*arguments, data=None):
    command = [sys.executable, "-m", "awscli", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print("refused:", " ".join(done.stderr.split()))
        sys.exit(1)
    return done.stdout.strip()


arn = aws("sts", "get-caller-identity", "--query", "Arn", "--output", "text")
aws("s3", "cp", "-", target, data=f"written by {arn}")
print(f"caller: {arn}\nobject: {aws('s3', 'cp', target, '-')}")
