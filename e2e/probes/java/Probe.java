import software.amazon.awssdk.core.exception.SdkException;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.sts.StsClient;

/** Asks who it is and puts and gets an object, with the default chain of credentials. What it prints is in ../README.md. */
public final class Probe {
    public static void main(String[] arguments) {
        String bucket = System.getenv("PROBE_BUCKET");
        String key = System.getenv("PROBE_KEY");
        try (StsClient sts = StsClient.create(); S3Client s3 = S3Client.create()) {
            String arn = sts.getCallerIdentity().arn();
            s3.putObject(request -> request.bucket(bucket).key(key), RequestBody.fromString("written by " + arn));
            String text = s3.getObjectAsBytes(request -> request.bucket(bucket).key(key)).asUtf8String();
            System.out.println("caller: " + arn + "\nobject: " + text);
        } catch (SdkException error) {
            System.out.println("refused: " + error);
            System.exit(1);
        }
    }
}
