// Puts and gets through the SDK's default client: node drive.cjs ENDPOINT NODE_MODULES
const [endpoint, modules] = process.argv.slice(2);
const sdk = require(`${modules}/@aws-sdk/client-kinesis`);

async function main() {
  const client = new sdk.KinesisClient({
    endpoint,
    region: "us-east-1",
    credentials: { accessKeyId: "AKID", secretAccessKey: "secret" },
  });
  const StreamName = "js";
  await client.send(new sdk.CreateStreamCommand({ StreamName, ShardCount: 1 }));
  await sdk.waitUntilStreamExists({ client, maxWaitTime: 20, minDelay: 1 }, { StreamName });

  const puts = Array.from({ length: 200 }, (_, i) =>
    client.send(
      new sdk.PutRecordCommand({ StreamName, PartitionKey: `k${i}`, Data: Buffer.from(`n${i}`) }),
    ),
  );
  const numbers = new Set((await Promise.all(puts)).map((put) => put.SequenceNumber));

  const large = Array.from({ length: 10 }, (_, i) => ({
    PartitionKey: `b${i}`,
    Data: Buffer.alloc(1_000_000, i),
  }));
  const batch = await client.send(new sdk.PutRecordsCommand({ StreamName, Records: large }));

  const found = { small: [], largeBytes: 0, wrongBytes: 0, arrived: true };
  let { ShardIterator } = await client.send(
    new sdk.GetShardIteratorCommand({
      StreamName,
      ShardId: "shardId-000000000000",
      ShardIteratorType: "TRIM_HORIZON",
    }),
  );
  for (let count = 0; count < 210; ) {
    const got = await client.send(new sdk.GetRecordsCommand({ ShardIterator }));
    for (const record of got.Records) {
      found.arrived &&= Math.abs(Date.now() - record.ApproximateArrivalTimestamp) < 600_000;
      if (record.PartitionKey.startsWith("k")) {
        found.small.push(Buffer.from(record.Data).toString());
      } else {
        found.largeBytes += record.Data.length;
        const value = Number(record.PartitionKey.slice(1));
        found.wrongBytes += record.Data.some((byte) => byte !== value);
      }
    }
    count += got.Records.length;
    ShardIterator = got.NextShardIterator;
  }

  let refusal = null;
  try {
    await client.send(new sdk.DescribeStreamSummaryCommand({ StreamName: "nope" }));
  } catch (error) {
    refusal = `${error.name}: ${error.message}`;
  }
  console.log(
    JSON.stringify({
      handler: client.config.requestHandler.constructor.name,
      sequenceNumbers: numbers.size,
      failed: batch.FailedRecordCount,
      ...found,
      refusal,
    }),
  );
  client.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
