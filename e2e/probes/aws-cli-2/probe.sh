#!/bin/sh
# Asks who it is and puts and gets an object with version 2 of the AWS CLI. What it prints is in ../README.md.
set -uf # without -f a * in an error would stand for names of files

file=$HOME/object

# The words of both outputs on one line.
aws() {
    if ! answer=$(/aws/bin/aws "$@" 2>&1); then
        # shellcheck disable=SC2086 # echo writes one space between the words
        echo refused: $answer
        exit 1
    fi
}

aws sts get-caller-identity --query Arn --output text
arn=$answer
echo "written by $arn" >"$file"
# `aws s3` may take a client of its own for S3, which needs /proc and /dev.
aws s3api put-object --bucket "$PROBE_BUCKET" --key "$PROBE_KEY" --body "$file"
aws s3api get-object --bucket "$PROBE_BUCKET" --key "$PROBE_KEY" "$file"
read -r object <"$file" || [ -n "$object" ] # it may end without an end of line
echo "caller: $arn
object: $object"
