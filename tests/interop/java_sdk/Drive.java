// Kinesis through both clients of the AWS SDK for Java v2, as they come:
// java Drive ENDPOINT STREAM            everything a stream's life has
// java Drive ENDPOINT STREAM throttled  puts until one is refused for its speed
// java Drive ENDPOINT STREAM iterator=X reads with a given iterator

import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.core.interceptor.Context;
import software.amazon.awssdk.core.interceptor.ExecutionAttributes;
import software.amazon.awssdk.core.interceptor.ExecutionInterceptor;
import software.amazon.awssdk.core.interceptor.SdkExecutionAttribute;
import software.amazon.awssdk.retries.DefaultRetryStrategy;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisClient;
import software.amazon.awssdk.services.kinesis.model.*;

public class Drive {
  static final Set<String> mediaTypes = new ConcurrentSkipListSet<>();

  static final ExecutionInterceptor listener =
      new ExecutionInterceptor() {
        @Override
        public void beforeTransmission(Context.BeforeTransmission context, ExecutionAttributes a) {
          context.httpRequest().firstMatchingHeader("Content-Type").ifPresent(
              type -> mediaTypes.add(type + " "
                  + a.getAttribute(SdkExecutionAttribute.OPERATION_NAME)));
        }
      };

  static void report(String key, Object value) {
    System.out.println(key + "=" + value);
  }

  public static void main(String[] arguments) throws Exception {
    URI endpoint = URI.create(arguments[0]);
    String stream = arguments[1];
    String mode = arguments.length > 2 ? arguments[2] : "life";
    try (KinesisClient sync =
            KinesisClient.builder()
                .endpointOverride(endpoint)
                .overrideConfiguration(c -> c.addExecutionInterceptor(listener)
                    .retryStrategy(DefaultRetryStrategy.doNotRetry()))
                .build();
        KinesisAsyncClient async =
            KinesisAsyncClient.builder()
                .endpointOverride(endpoint)
                .overrideConfiguration(c -> c.addExecutionInterceptor(listener)
                    .retryStrategy(DefaultRetryStrategy.doNotRetry()))
                .build()) {
      if (mode.equals("throttled")) {
        throttled(sync, async, stream);
      } else if (mode.startsWith("iterator=")) {
        String iterator = mode.substring("iterator=".length());
        report("sync", refusal(() -> sync.getRecords(r -> r.shardIterator(iterator))));
        report("async", refusal(() -> async.getRecords(r -> r.shardIterator(iterator)).join()));
      } else {
        life(sync, async, stream);
      }
      report("mediaTypes", mediaTypes);
    }
    System.exit(0);
  }

  static void life(KinesisClient sync, KinesisAsyncClient async, String stream) throws Exception {
    report("unknown", refusal(() -> sync.describeStreamSummary(r -> r.streamName("nope"))));
    report("unknownAsync",
        refusal(() -> async.describeStreamSummary(r -> r.streamName("nope")).join()));
    sync.createStream(r -> r.streamName(stream).shardCount(2));
    sync.waiter().waitUntilStreamExists(r -> r.streamName(stream));
    async.waiter().waitUntilStreamExists(r -> r.streamName(stream)).join();
    report("twice", refusal(() -> sync.createStream(r -> r.streamName(stream).shardCount(2))));
    StreamDescriptionSummary summary =
        sync.describeStreamSummary(r -> r.streamName(stream)).streamDescriptionSummary();
    report("status", summary.streamStatusAsString());
    report("createdAgoS", Duration.between(summary.streamCreationTimestamp(), Instant.now()).toSeconds());

    // Every record once, through either client, at once and in batches.
    List<CompletableFuture<PutRecordResponse>> singles =
        IntStream.range(0, 200)
            .mapToObj(i -> async.putRecord(r -> r.streamName(stream).partitionKey("a" + i)
                .data(SdkBytes.fromUtf8String("a" + i))))
            .toList();
    Set<String> numbers = new TreeSet<>();
    for (CompletableFuture<PutRecordResponse> single : singles) {
      numbers.add(single.join().sequenceNumber());
    }
    report("sequenceNumbers", numbers.size());
    PutRecordsResponse batch = sync.putRecords(r -> r.streamName(stream).records(entries("b", 500)));
    report("failed", batch.failedRecordCount());
    sync.putRecord(r -> r.streamName(stream).partitionKey("c0").data(large()));
    async.putRecord(r -> r.streamName(stream).partitionKey("c1").data(large())).join();
    report("tooLarge", refusal(() -> sync.putRecord(r -> r.streamName(stream).partitionKey("d")
        .data(SdkBytes.fromByteArray(new byte[1024 * 1024 + 1])))));

    List<Shard> shards = sync.listShards(r -> r.streamName(stream)).shards();
    report("shards", shards.size());
    Map<String, Integer> polled = new HashMap<>();
    Instant latest = Instant.EPOCH;
    Instant oldest = Instant.MAX;
    for (Shard shard : shards) {
      String iterator = sync.getShardIterator(r -> r.streamName(stream).shardId(shard.shardId())
          .shardIteratorType(ShardIteratorType.TRIM_HORIZON)).shardIterator();
      for (long behind = 1; behind > 0; ) {
        String now = iterator;
        GetRecordsResponse got = async.getRecords(r -> r.shardIterator(now)).join();
        for (software.amazon.awssdk.services.kinesis.model.Record record : got.records()) {
          polled.merge(check(record), 1, Integer::sum);
          Instant at = record.approximateArrivalTimestamp();
          latest = at.isAfter(latest) ? at : latest;
          oldest = at.isBefore(oldest) ? at : oldest;
        }
        behind = got.millisBehindLatest();
        iterator = got.nextShardIterator();
      }
    }
    report("polled", polled.size());
    report("polledTwice", polled.values().stream().filter(n -> n > 1).count());
    report("arrivedAgoS", Duration.between(oldest, Instant.now()).toSeconds());
    report("arrivedAhead", latest.isAfter(Instant.now().plusMillis(5)));

    Instant since = oldest;
    int atTime = 0;
    for (Shard shard : shards) {
      String iterator = sync.getShardIterator(r -> r.streamName(stream).shardId(shard.shardId())
          .shardIteratorType(ShardIteratorType.AT_TIMESTAMP).timestamp(since)).shardIterator();
      for (long behind = 1; behind > 0; ) {
        String now = iterator;
        GetRecordsResponse got = sync.getRecords(r -> r.shardIterator(now));
        atTime += got.records().size();
        behind = got.millisBehindLatest();
        iterator = got.nextShardIterator();
      }
    }
    report("atTime", atTime);
    report("badIterator", refusal(() -> sync.getRecords(r -> r.shardIterator("x"))));

    FanOut.run(sync, async, stream, shards, since);

    // Pages, then the end of a stream.
    for (int i = 0; i < 5; i++) {
      String name = stream + "-page-" + i;
      sync.createStream(r -> r.streamName(name).shardCount(1));
    }
    report("pages", sync.listStreamsPaginator(r -> r.limit(2)).streamNames().stream()
        .filter(name -> name.startsWith(stream)).count());
    List<String> names = new ArrayList<>();
    async.listStreamsPaginator(r -> r.limit(2)).streamNames().subscribe(names::add).get(30, TimeUnit.SECONDS);
    report("pagesAsync", names.stream().filter(name -> name.startsWith(stream)).count());
    sync.deleteStream(r -> r.streamName(stream).enforceConsumerDeletion(true));
    sync.waiter().waitUntilStreamNotExists(r -> r.streamName(stream));
    report("gone", refusal(() -> sync.listShards(r -> r.streamName(stream))));
  }

  static void throttled(KinesisClient sync, KinesisAsyncClient async, String stream) {
    sync.createStream(r -> r.streamName(stream).shardCount(1));
    sync.waiter().waitUntilStreamExists(r -> r.streamName(stream));
    PutRecordsResponse batch = null;
    for (int i = 0; i < 20 && (batch == null || batch.failedRecordCount() == 0); i++) {
      batch = sync.putRecords(r -> r.streamName(stream).records(entries("t", 500)));
    }
    report("failed", batch.failedRecordCount() > 0);
    report("entry", batch.records().stream().map(PutRecordsResultEntry::errorCode)
        .filter(code -> code != null).distinct().toList());
    report("sync", refusal(() -> {
      for (int i = 0; i < 3000; i++) {
        sync.putRecord(r -> r.streamName(stream).partitionKey("k").data(large()));
      }
    }));
    report("async", refusal(() -> {
      for (int i = 0; i < 3000; i++) {
        async.putRecord(r -> r.streamName(stream).partitionKey("k").data(large())).join();
      }
    }));
  }

  static SdkBytes large() {
    byte[] bytes = new byte[1_000_000];
    java.util.Arrays.fill(bytes, (byte) 0xf7);
    return SdkBytes.fromByteArray(bytes);
  }

  static List<PutRecordsRequestEntry> entries(String prefix, int count) {
    return IntStream.range(0, count)
        .mapToObj(i -> PutRecordsRequestEntry.builder().partitionKey(prefix + i)
            .data(SdkBytes.fromUtf8String(prefix + i)).build())
        .toList();
  }

  /** The record's key; data that is not what was put with it fails the run. */
  static String check(software.amazon.awssdk.services.kinesis.model.Record record) {
    String key = record.partitionKey();
    byte[] data = record.data().asByteArray();
    boolean isRight = key.startsWith("c")
        ? java.util.Arrays.equals(data, large().asByteArray())
        : new String(data, StandardCharsets.UTF_8).equals(key);
    if (!isRight) {
      System.err.println("wrong data in " + key);
      System.exit(1);
    }
    return key;
  }

  interface Call { void run() throws Exception; }

  /** Which exception a call throws, by class, and its message. */
  static String refusal(Call call) {
    try {
      call.run();
      return "none";
    } catch (Throwable thrown) {
      Throwable error = thrown;
      while (error instanceof CompletionException
          || error instanceof java.util.concurrent.ExecutionException) {
        error = error.getCause();
      }
      String text = error instanceof KinesisException k
          ? k.awsErrorDetails().errorMessage() : String.valueOf(error.getMessage());
      return error.getClass().getSimpleName() + ": " + text;
    }
  }

  static void await(CompletableFuture<Void> future) throws Exception {
    future.get(30, TimeUnit.SECONDS);
  }

  static void until(BooleanSupplier isSo) throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
    while (!isSo.getAsBoolean()) {
      if (System.nanoTime() > deadline) throw new IllegalStateException("not within 30 s");
      Thread.sleep(20);
    }
  }
}
