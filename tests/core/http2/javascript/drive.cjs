// The SDK's default client: node drive.cjs ENDPOINT NODE_MODULES [fan-out]
// Puts and gets; with fan-out, subscriptions.
const [endpoint, modules, what = "puts"] = process.argv.slice(2);
const sdk = require(`${modules}/@aws-sdk/client-kinesis`);
const StreamName = "js";

async function puts(client) {
  await client.send(new sdk.CreateStreamCommand({ StreamName, ShardCount: 1 }));
  await sdk.waitUntilStreamExists({ client, maxWaitTime: 20, minDelay: 1 }, { StreamName });

  const singles = Array.from({ length: 200 }, (_, i) =>
    client.send(
      new sdk.PutRecordCommand({ StreamName, PartitionKey: `k${i}`, Data: Buffer.from(`n${i}`) }),
    ),
  );
  const numbers = new Set((await Promise.all(singles)).map((put) => put.SequenceNumber));

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
  return {
    sequenceNumbers: numbers.size,
    failed: batch.FailedRecordCount,
    ...found,
    refusal: await refusal(client.send(new sdk.DescribeStreamSummaryCommand({ StreamName: "nope" }))),
  };
}

// Subscribes to four shards at once, splits one and merges two meanwhile, and follows the children.
async function fanOut(client) {
  await client.send(new sdk.CreateStreamCommand({ StreamName, ShardCount: 4 }));
  await sdk.waitUntilStreamExists({ client, maxWaitTime: 20, minDelay: 1 }, { StreamName });
  const { StreamDescriptionSummary: summary } = await client.send(
    new sdk.DescribeStreamSummaryCommand({ StreamName }),
  );
  const ConsumerARN = await consumer(client, summary.StreamARN, "fan");
  const found = { received: {}, ended: {}, wrong: 0, bothAtEnd: 0 };
  const following = [];
  let count = 0;

  async function follow(ShardId) {
    const events = await subscribe(client, ConsumerARN, ShardId, { Type: "TRIM_HORIZON" });
    for await (const { SubscribeToShardEvent: event } of events) {
      for (const record of event.Records) {
        const text = Buffer.from(record.Data).toString();
        found.wrong += text !== record.PartitionKey;
        found.received[text] = (found.received[text] ?? 0) + 1;
        count += 1;
      }
      const children = event.ChildShards ?? [];
      found.bothAtEnd += children.length > 0 && event.ContinuationSequenceNumber !== undefined;
      if (children.length) {
        found.ended[ShardId] = children.map((child) => child.ShardId).sort();
        for (const child of children) {
          // A merge's child is told of by both parents.
          const isLast = child.ParentShards.every((parent) => found.ended[parent]);
          if (isLast) start(child.ShardId);
        }
      }
    }
  }

  // How each ends: of itself, or by an exception's name.
  const start = (shard) =>
    following.push(follow(shard).then(() => "end", (error) => error.name));
  for (let i = 0; i < 4; i++) start(`shardId-00000000000${i}`);
  await put(client, 0, 1000);
  await until(() => count >= 1000);
  await client.send(
    new sdk.SplitShardCommand({
      StreamName,
      ShardToSplit: "shardId-000000000000",
      NewStartingHashKey: String(2n ** 125n),
    }),
  );
  await sdk.waitUntilStreamExists({ client, maxWaitTime: 20, minDelay: 1 }, { StreamName });
  await put(client, 1000, 1500);
  await client.send(
    new sdk.MergeShardsCommand({
      StreamName,
      ShardToMerge: "shardId-000000000002",
      AdjacentShardToMerge: "shardId-000000000003",
    }),
  );
  await sdk.waitUntilStreamExists({ client, maxWaitTime: 20, minDelay: 1 }, { StreamName });
  await put(client, 1500, 2000);
  await until(() => count >= 2000);

  found.again = await refusal(
    subscribe(client, ConsumerARN, "shardId-000000000006", { Type: "LATEST" }),
  );
  found.positions = await positions(client, summary.StreamARN);
  found.closed = await afterTheEnd(client, summary.StreamARN);
  await client.send(
    new sdk.DeleteStreamCommand({ StreamName, EnforceConsumerDeletion: true }),
  );
  found.endings = await Promise.all(following);
  return found;
}

// How many of the records of shard 1 each starting position gives, by a consumer of its own.
async function positions(client, StreamARN) {
  const shard = "shardId-000000000001";
  const { ShardIterator } = await client.send(
    new sdk.GetShardIteratorCommand({
      StreamName, ShardId: shard, ShardIteratorType: "TRIM_HORIZON",
    }),
  );
  const { Records: all } = await client.send(new sdk.GetRecordsCommand({ ShardIterator }));
  const middle = all[Math.floor(all.length / 2)];
  const from = {
    TRIM_HORIZON: {},
    AT_SEQUENCE_NUMBER: { SequenceNumber: middle.SequenceNumber },
    AFTER_SEQUENCE_NUMBER: { SequenceNumber: middle.SequenceNumber },
    AT_TIMESTAMP: { Timestamp: all[0].ApproximateArrivalTimestamp },
    LATEST: {},
  };
  const found = { all: all.length };
  for (const [Type, more] of Object.entries(from)) {
    const arn = await consumer(client, StreamARN, `fan-${Type}`);
    const events = await subscribe(client, arn, shard, { Type, ...more });
    found[Type] = 0;
    for await (const { SubscribeToShardEvent: event } of events) {
      found[Type] += event.Records.length;
      if (event.MillisBehindLatest === 0) break;
    }
  }
  return found;
}

// What one who subscribes to a closed shard at its tip is told: the children, then no more.
async function afterTheEnd(client, StreamARN) {
  const arn = await consumer(client, StreamARN, "fan-closed");
  const told = [];
  const events = await subscribe(client, arn, "shardId-000000000000", { Type: "LATEST" });
  for await (const { SubscribeToShardEvent: event } of events) {
    told.push([event.Records.length, event.ChildShards.map((child) => child.ShardId).sort()]);
  }
  return told;
}

async function consumer(client, StreamARN, ConsumerName) {
  const made = await client.send(new sdk.RegisterStreamConsumerCommand({ StreamARN, ConsumerName }));
  const { ConsumerARN } = made.Consumer;
  for (;;) {
    const got = await client.send(new sdk.DescribeStreamConsumerCommand({ ConsumerARN }));
    if (got.ConsumerDescription.ConsumerStatus === "ACTIVE") return ConsumerARN;
  }
}

async function subscribe(client, ConsumerARN, ShardId, StartingPosition) {
  const answer = await client.send(
    new sdk.SubscribeToShardCommand({ ConsumerARN, ShardId, StartingPosition }),
  );
  return answer.EventStream;
}

async function put(client, first, end) {
  for (; first < end; first += 500) {
    const Records = Array.from({ length: 500 }, (_, i) => ({
      PartitionKey: `r${first + i}`,
      Data: Buffer.from(`r${first + i}`),
    }));
    const { FailedRecordCount } = await client.send(
      new sdk.PutRecordsCommand({ StreamName, Records }),
    );
    if (FailedRecordCount) throw new Error(`${FailedRecordCount} records failed`);
  }
}

async function until(isSo) {
  for (const end = Date.now() + 30_000; !isSo(); ) {
    if (Date.now() > end) throw new Error("not within 30 s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function refusal(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}

async function main() {
  const client = new sdk.KinesisClient({
    endpoint,
    region: "us-east-1",
    credentials: { accessKeyId: "AKID", secretAccessKey: "secret" },
  });
  const found = await (what === "fan-out" ? fanOut : puts)(client);
  const handler = client.config.requestHandler.constructor.name;
  console.log(JSON.stringify({ handler, ...found }));
  client.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
