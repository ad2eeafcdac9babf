// A Flink job on a local cluster, until it is terminated: every record of one stream into another.
// java Copy.java ENDPOINT FROM_ARN TO_ARN POLLING|EFO CHECKPOINTS_FOLDER

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.kinesis.sink.KinesisStreamsSink;
import org.apache.flink.connector.kinesis.source.KinesisStreamsSource;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

public class Copy {
  public static void main(String[] arguments) throws Exception {
    Configuration source = new Configuration();
    source.setString("aws.endpoint", arguments[0]);
    source.setString("aws.region", "us-east-1");
    source.setString("source.init.position", "TRIM_HORIZON");
    source.setString("source.shard.discovery.interval", "1 s");
    source.setString("source.reader.type", arguments[3]);
    if (arguments[3].equals("EFO")) source.setString("source.efo.consumer.name", "flink");
    java.util.Properties sink = new java.util.Properties();
    sink.setProperty("aws.endpoint", arguments[0]);
    sink.setProperty("aws.region", "us-east-1");

    Configuration cluster = new Configuration();
    cluster.setString("execution.checkpointing.dir", "file://" + arguments[4]);
    StreamExecutionEnvironment flink =
        StreamExecutionEnvironment.createLocalEnvironment(2, cluster);
    flink.enableCheckpointing(1000);
    flink.fromSource(
            KinesisStreamsSource.<String>builder()
                .setStreamArn(arguments[1])
                .setSourceConfig(source)
                .setDeserializationSchema(new SimpleStringSchema())
                .build(),
            WatermarkStrategy.noWatermarks(), "from", Types.STRING)
        .uid("from")
        .sinkTo(
            KinesisStreamsSink.<String>builder()
                .setStreamArn(arguments[2])
                .setKinesisClientProperties(sink)
                .setSerializationSchema(new SimpleStringSchema())
                .setPartitionKeyGenerator(text -> text)
                .build());
    System.out.println("starting=true");
    flink.execute();
  }
}
