"""An example function: passes on large orders, and reports the first order it cannot read.

It is a Lambda handler and runs on AWS as it is, except for `context.emit`, which is Headrace's:
there it would have to call PutRecords itself, and could put a record twice.
"""

import base64
import json
from typing import Any

LIMIT = 1000.0


def on_orders(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Called with up to 100 records of one shard of `orders`, in their order."""
    for record in event["Records"]:
        kinesis = record["kinesis"]
        sequence_number = kinesis["sequenceNumber"]
        try:
            order = json.loads(base64.b64decode(kinesis["data"]))
            is_big = order["total"] >= LIMIT
        except (ValueError, KeyError, TypeError) as error:
            # Done up to here. This order and those behind it are tried again; after the retries
            # they become one dead letter. What is printed goes to the runner's log.
            print(f"cannot read order {sequence_number}: {error!r}")
            return {"batchItemFailures": [{"itemIdentifier": sequence_number}]}
        if is_big:
            # Put once, together with this batch's checkpoint. Naming the record it stems from
            # matters only because this function may report a batch as done in part.
            context.emit(
                "big-orders",
                json.dumps(order),
                partition_key=str(order.get("id")),
                sequence_number=sequence_number,
            )
    return {"batchItemFailures": []}
