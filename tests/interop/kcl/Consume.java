// One worker of the Kinesis Client Library, until it is terminated:
// java Consume.java KINESIS_ENDPOINT DYNAMODB_AND_CLOUDWATCH_ENDPOINT STREAM APPLICATION WORKER polling|fan-out
// Reports a line per event: "UNIX_MS record SHARD SEQUENCE_NUMBER SUBSEQUENCE_NUMBER DATA" and others.

import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsLevel;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

public class Consume {
  static synchronized void report(String line) {
    System.out.println(System.currentTimeMillis() + " " + line);
    System.out.flush();
  }

  static class Processor implements ShardRecordProcessor {
    private String shard;

    @Override
    public void initialize(InitializationInput input) {
      shard = input.shardId();
      report("started " + shard + " " + input.extendedSequenceNumber().sequenceNumber());
    }

    @Override
    public void processRecords(ProcessRecordsInput input) {
      for (KinesisClientRecord record : input.records()) {
        report("record " + shard + " " + record.sequenceNumber() + " "
            + record.subSequenceNumber() + " "
            + StandardCharsets.UTF_8.decode(record.data().duplicate()));
      }
      try {
        if (!input.records().isEmpty()) input.checkpointer().checkpoint();
      } catch (Exception error) {
        report("not-saved " + shard + " " + error);
      }
    }

    @Override
    public void leaseLost(LeaseLostInput input) {
      report("lost " + shard);
    }

    @Override
    public void shardEnded(ShardEndedInput input) {
      try {
        input.checkpointer().checkpoint();
        report("ended " + shard);
      } catch (Exception error) {
        report("not-ended " + shard + " " + error);
      }
    }

    @Override
    public void shutdownRequested(ShutdownRequestedInput input) {
      try {
        input.checkpointer().checkpoint();
        report("released " + shard);
      } catch (Exception error) {
        report("not-saved " + shard + " " + error);
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    URI stream = URI.create(arguments[0]);
    URI others = URI.create(arguments[1]);
    KinesisAsyncClient kinesis = KinesisClientUtil.createKinesisAsyncClient(
        KinesisAsyncClient.builder().endpointOverride(stream));
    DynamoDbAsyncClient dynamo = DynamoDbAsyncClient.builder().endpointOverride(others).build();
    CloudWatchAsyncClient watch = CloudWatchAsyncClient.builder().endpointOverride(others).build();
    ConfigsBuilder configs = new ConfigsBuilder(
        new SingleStreamTracker(arguments[2], InitialPositionInStreamExtended
            .newInitialPosition(InitialPositionInStream.TRIM_HORIZON)),
        arguments[3], kinesis, dynamo, watch, arguments[4], Processor::new);

    var retrieval = configs.retrievalConfig();
    if (arguments[5].equals("polling")) {
      retrieval.retrievalSpecificConfig(
          new PollingConfig(arguments[2], kinesis).idleTimeBetweenReadsInMillis(200));
    } else {
      retrieval.retrievalSpecificConfig(new FanOutConfig(kinesis)
          .streamName(arguments[2]).applicationName(arguments[3]));
    }
    // Only what makes a test wait less; the defaults are for streams that live for months.
    var leases = configs.leaseManagementConfig()
        .failoverTimeMillis(3000).shardSyncIntervalMillis(1000);
    var coordinator = configs.coordinatorConfig()
        .parentShardPollIntervalMillis(500).shardConsumerDispatchPollIntervalMillis(100)
        .schedulerInitializationBackoffTimeMillis(200);
    Scheduler scheduler = new Scheduler(configs.checkpointConfig(), coordinator, leases,
        configs.lifecycleConfig(), configs.metricsConfig().metricsLevel(MetricsLevel.NONE),
        configs.processorConfig(), retrieval);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      try {
        report("stopped " + scheduler.startGracefulShutdown().get(15, TimeUnit.SECONDS));
      } catch (Exception error) {
        report("not-stopped " + error);
      }
    }));
    scheduler.run();
  }
}
