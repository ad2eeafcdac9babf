// Subscriptions to shards: what a consumer with its own throughput is sent, and from where on.

import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisClient;
import software.amazon.awssdk.services.kinesis.model.*;

final class FanOut {
  /** Several shards at once, from the beginning, through a split, to the end of the parent. */
  static void run(KinesisClient sync, KinesisAsyncClient async, String stream,
      List<Shard> shards, Instant since) throws Exception {
    String arn = sync.describeStreamSummary(r -> r.streamName(stream))
        .streamDescriptionSummary().streamARN();
    String consumer = sync.registerStreamConsumer(r -> r.streamARN(arn).consumerName("fan"))
        .consumer().consumerARN();
    Drive.until(() -> sync.describeStreamConsumer(r -> r.consumerARN(consumer))
        .consumerDescription().consumerStatus() == ConsumerStatus.ACTIVE);
    Map<String, Integer> pushed = new ConcurrentHashMap<>();
    Map<String, List<String>> children = new ConcurrentHashMap<>();
    Map<String, String> continuations = new ConcurrentHashMap<>();
    List<CompletableFuture<Void>> running = new ArrayList<>();
    for (Shard shard : shards) {
      running.add(subscribe(async, consumer, shard.shardId(),
          StartingPosition.builder().type(ShardIteratorType.TRIM_HORIZON).build(),
          pushed, children, continuations));
    }
    Drive.until(() -> pushed.size() >= 702);
    Drive.report("pushed", pushed.size());

    // What is put while subscribed comes, and comes soon.
    sync.putRecords(r -> r.streamName(stream).records(Drive.entries("e", 100)));
    Drive.until(() -> pushed.size() >= 802);
    Drive.report("again", Drive.refusal(() -> Drive.await(subscribe(
        async, consumer, shards.get(0).shardId(),
        StartingPosition.builder().type(ShardIteratorType.LATEST).build(),
        new ConcurrentHashMap<>(), children, continuations))));

    Shard parent = shards.get(0);
    sync.splitShard(r -> r.streamName(stream).shardToSplit(parent.shardId())
        .newStartingHashKey("85070591730234615865843651857942052864"));
    running.get(0).get(30, TimeUnit.SECONDS);
    Drive.report("children", new TreeSet<>(children.get(parent.shardId())));
    sync.waiter().waitUntilStreamExists(r -> r.streamName(stream));
    sync.putRecords(r -> r.streamName(stream).records(Drive.entries("f", 100)));
    for (String child : children.get(parent.shardId())) {
      subscribe(async, consumer, child,
          StartingPosition.builder().type(ShardIteratorType.TRIM_HORIZON).build(),
          pushed, new ConcurrentHashMap<>(), continuations);
    }
    Drive.until(() -> pushed.size() >= 902);
    Drive.report("pushedAfterSplit", pushed.size());
    Drive.report("pushedTwice", pushed.values().stream().filter(n -> n > 1).count());

    // Other consumers may begin elsewhere: at a time, after a record, at the tip.
    for (ShardIteratorType type : List.of(ShardIteratorType.AT_TIMESTAMP,
        ShardIteratorType.AFTER_SEQUENCE_NUMBER, ShardIteratorType.LATEST)) {
      String other = sync.registerStreamConsumer(r -> r.streamARN(arn)
          .consumerName("fan-" + type.name())).consumer().consumerARN();
      Drive.until(() -> sync.describeStreamConsumer(r -> r.consumerARN(other))
          .consumerDescription().consumerStatus() == ConsumerStatus.ACTIVE);
      Map<String, Integer> seen = new ConcurrentHashMap<>();
      Map<String, String> reached = new ConcurrentHashMap<>();
      StartingPosition.Builder at = StartingPosition.builder().type(type);
      if (type == ShardIteratorType.AT_TIMESTAMP) at.timestamp(since);
      if (type == ShardIteratorType.AFTER_SEQUENCE_NUMBER) {
        at.sequenceNumber(shards.get(1).sequenceNumberRange().startingSequenceNumber());
      }
      subscribe(async, other, shards.get(1).shardId(), at.build(), seen, new ConcurrentHashMap<>(), reached);
      Drive.until(() -> !reached.isEmpty());
      String mark = "g-" + type.name();
      sync.putRecord(r -> r.streamName(stream).partitionKey(mark).data(SdkBytes.fromUtf8String(mark))
          .explicitHashKey(shards.get(1).hashKeyRange().startingHashKey()));
      Drive.until(() -> seen.containsKey(mark));
      Drive.report("from" + type.name(), seen.size());
    }
    Drive.report("consumers", sync.listStreamConsumersPaginator(r -> r.streamARN(arn).maxResults(2))
        .stream().mapToInt(page -> page.consumers().size()).sum());
  }

  static CompletableFuture<Void> subscribe(KinesisAsyncClient async, String consumer, String shard,
      StartingPosition from, Map<String, Integer> pushed, Map<String, List<String>> children,
      Map<String, String> continuations) {
    SubscribeToShardResponseHandler.Visitor visitor =
        SubscribeToShardResponseHandler.Visitor.builder()
            .onSubscribeToShardEvent(event -> {
              for (var record : event.records()) pushed.merge(Drive.check(record), 1, Integer::sum);
              if (event.hasChildShards() && !event.childShards().isEmpty()) {
                children.put(shard, event.childShards().stream().map(ChildShard::shardId)
                    .collect(Collectors.toList()));
                if (event.continuationSequenceNumber() != null) Drive.report("bothAtEnd", shard);
              } else {
                continuations.put(shard, event.continuationSequenceNumber());
              }
            })
            .build();
    return async.subscribeToShard(
        r -> r.consumerARN(consumer).shardId(shard).startingPosition(from),
        SubscribeToShardResponseHandler.builder()
            .subscriber(visitor)
            .build());
  }
}
