// Asks who it is and puts and gets an object, with the default chain of credentials. What it prints is in ../README.md.
import { S3Client, GetObjectCommand, PutObjectCommand } from "@aws-sdk/client-s3";
import { STSClient, GetCallerIdentityCommand } from "@aws-sdk/client-sts";

const { PROBE_BUCKET: Bucket, PROBE_KEY: Key } = process.env;
try {
  const { Arn } = await new STSClient().send(new GetCallerIdentityCommand());
  const s3 = new S3Client();
  await s3.send(new PutObjectCommand({ Bucket, Key, Body: `written by ${Arn}` }));
  const { Body } = await s3.send(new GetObjectCommand({ Bucket, Key }));
  console.log(`caller: ${Arn}`);
  console.log(`object: ${await Body.transformToString()}`);
} catch (error) {
  console.log(`refused: ${error.name}: ${error.message}`);
  process.exitCode = 1;
}
