// User records through the Kinesis Producer Library, each acknowledged or reported:
// java Produce.java HOST PORT CERTIFICATE STREAM COUNT aggregated|single TEMPORARY_FOLDER
// Record i has the key "key-i" and 100 bytes of data, i in front.
// Reports "ack I SHARD SEQUENCE_NUMBER ATTEMPTS" per record, or "failed I WHY".

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.MoreExecutors;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordFailedException;
import software.amazon.kinesis.producer.UserRecordResult;

public class Produce {
  public static void main(String[] arguments) throws Exception {
    String stream = arguments[3];
    int count = Integer.parseInt(arguments[4]);
    KinesisProducer producer = new KinesisProducer(new KinesisProducerConfiguration()
        .setKinesisEndpoint(arguments[0]).setKinesisPort(Long.parseLong(arguments[1]))
        .setCaCertFile(arguments[2])
        .setRegion("us-east-1")
        .setMetricsLevel("none")
        .setAggregationEnabled(arguments[5].equals("aggregated"))
        .setTempDirectory(arguments[6])
        .setRecordTtl(120_000));
    CountDownLatch left = new CountDownLatch(count);
    for (int i = 0; i < count; i++) {
      while (producer.getOutstandingRecordsCount() > 20_000) Thread.sleep(1);
      int number = i;
      byte[] data = String.format("%-100d", i).getBytes(StandardCharsets.US_ASCII);
      Futures.addCallback(producer.addUserRecord(stream, "key-" + i, ByteBuffer.wrap(data)),
          new FutureCallback<UserRecordResult>() {
            @Override
            public void onSuccess(UserRecordResult result) {
              System.out.println("ack " + number + " " + result.getShardId() + " "
                  + result.getSequenceNumber() + " " + result.getAttempts().size());
              left.countDown();
            }

            @Override
            public void onFailure(Throwable error) {
              String why = error instanceof UserRecordFailedException failed
                  ? failed.getResult().getAttempts().stream()
                      .map(attempt -> attempt.getErrorCode() + ": " + attempt.getErrorMessage())
                      .distinct().toList().toString()
                  : error.toString();
              System.out.println("failed " + number + " " + why);
              left.countDown();
            }
          }, MoreExecutors.directExecutor());
    }
    boolean isDone = left.await(150, TimeUnit.SECONDS);
    System.out.println("done=" + isDone);
    producer.destroy();
    System.exit(0);
  }
}
