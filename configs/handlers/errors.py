"""The demo's handler: an alert for every server error, counted by page within the batch."""

import base64
import json
from collections import Counter
from typing import Any


def on_errors(event: dict[str, Any], context: Any) -> None:
    """Called with up to 200 records of `access`; what it emits is put once, whatever crashes."""
    errors: Counter[str] = Counter()
    for record in event["Records"]:
        kinesis = record["kinesis"]
        line = json.loads(base64.b64decode(kinesis["data"]))
        if line["response"] < 500:
            continue
        page = line["request"].split()[1].partition("?")[0]
        errors[page] += 1
        alert = {
            "page": page,
            "status": line["response"],
            "errors_in_batch": errors[page],
            "request": line["request"],
            "at": line["datetime"],
        }
        context.emit("alerts", json.dumps(alert), partition_key=page)
