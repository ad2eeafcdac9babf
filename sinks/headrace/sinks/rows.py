"""Records -> a table, every record a row, in order; a pure function of records and schema.

The way of a record's data:

1. a JSON object: each key's value goes into the key's column if it fits the column's type
   (see `json_types`), and into the JSON text of `_rest` if it does not or has no column;
2. other text (valid UTF-8): `data`, unchanged;
3. anything else: `_data_base64`.

The whole batch is first offered to Arrow's JSON reader in one piece (`rows_fast`): a batch
without surprises costs no Python per record. Otherwise it is offered in small blocks, and a block
that it cannot vouch for is read record by record (`rows_slow`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from headrace.core.limits import KIB
from headrace.core.model.records import Record
from headrace.sinks.json_types import JsonType
from headrace.sinks.rows_fast import parse
from headrace.sinks.rows_slow import read
from headrace.sinks.schema import RESERVED, TableSchema

#: What one surprise makes be read record by record. Smaller blocks cost more calls of the parser
#: than they save (measured; so does searching a block for its bad record by halving it).
BLOCK_BYTES = 64 * KIB
_WHITESPACE = b" \t\r\n"


@dataclass(slots=True)
class Converted:
    """A table, and what was seen that the schema has no room for (key -> type)."""

    table: pa.Table
    seen: dict[str, JsonType] = field(default_factory=dict)


def convert(
    records: Sequence[Record], shard_id: str, schema: TableSchema, *, stop_early: bool = False
) -> Converted:
    """One row per record.

    With `stop_early`, return (with an incomplete table) as soon as something was seen that the
    schema could grow by: the caller grows it and comes again.
    """
    data = [record.data for record in records]
    body = parse(data, schema)
    if body is not None:
        return Converted(_with_reserved(body, records, shard_id, schema))
    seen: dict[str, JsonType] = {}
    bodies = []
    for block in _blocks(data):
        bodies.append(_convert_block(block, schema, seen))
        if stop_early and schema.grown(seen) is not schema:
            break
    body = pa.concat_tables(bodies) if bodies else read([], schema, seen)
    return Converted(_with_reserved(body, records[: len(body)], shard_id, schema), seen)


def observe(records: Sequence[Record], schema: TableSchema) -> dict[str, JsonType]:
    """What some records have that the schema has no room for, without making a table."""
    seen: dict[str, JsonType] = {}
    read([record.data for record in records], schema, seen)
    return seen


def _blocks(data: list[bytes]) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    size = 0
    for item in data:
        if block and size + len(item) > BLOCK_BYTES:
            yield block
            block, size = [], 0
        block.append(item)
        size += len(item) + 1
    if block:
        yield block


def _convert_block(data: list[bytes], schema: TableSchema, seen: dict[str, JsonType]) -> pa.Table:
    """A block that may hold anything: what looks like one line of JSON apart from the rest."""
    lines = [item.strip(_WHITESPACE) for item in data]
    is_line = [line[:1] == b"{" and line[-1:] == b"}" and b"\n" not in line for line in lines]
    fast = [i for i, yes in enumerate(is_line) if yes]
    slow = [i for i, yes in enumerate(is_line) if not yes]
    parsed = parse([lines[i] for i in fast], schema)
    if parsed is None:
        return read(data, schema, seen)
    if not slow:
        return parsed
    both = pa.concat_tables([parsed, read([data[i] for i in slow], schema, seen)])
    place = [0] * len(data)
    for row, i in enumerate((*fast, *slow)):
        place[i] = row
    return both.take(pa.array(place))


def _with_reserved(
    body: pa.Table, records: Sequence[Record], shard_id: str, schema: TableSchema
) -> pa.Table:
    """The body columns behind what every row says about its record, in the file's order."""
    columns = [
        pa.array([record.sequence_number for record in records], pa.string()),
        pa.repeat(pa.scalar(shard_id, pa.string()), len(records)),
        pa.array([record.approximate_arrival_ms for record in records], RESERVED.field(2).type),
        pa.array([record.partition_key for record in records], pa.string()),
    ]
    wanted = schema.arrow_schema
    columns.extend(body.column(name) for name in wanted.names[len(columns) :])
    return pa.table(columns, schema=wanted)
