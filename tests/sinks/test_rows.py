"""Any bytes in, the same value out of the columns: no row is lost, none is bent."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.sinks import rows_fast, rows_slow
from headrace.sinks.json_types import JsonType
from headrace.sinks.rows import convert
from headrace.sinks.schema import MAX_LEAVES, RESERVED, TableSchema
from headrace.sinks.strict_json import load_object
from headrace.sinks.testing import make_records

SHARD = "shardId-000000000000"


def settle(data: list[bytes], schema: TableSchema | None = None) -> tuple[pa.Table, TableSchema]:
    """Convert as delivery does: grow the schema until nothing new is seen."""
    current = schema or TableSchema()
    for _ in range(100):
        converted = convert(make_records(data), SHARD, current)
        grown = current.grown(converted.seen)
        if grown is current:
            return converted.table, current
        current = grown
    raise AssertionError("the schema never settles")


def without_nulls(value: Any) -> Any:
    """Members that are null count as absent, at every level of objects."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(v) for v in value]
    return value


def value_of(row: dict[str, Any], schema: TableSchema) -> bytes | Any:
    """What a row says its record held: raw bytes, or the object out of columns and _rest."""
    if row["data"] is not None:
        return row["data"].encode()
    if row["_data_base64"] is not None:
        return base64.b64decode(row["_data_base64"])
    value = json.loads(row["_rest"]) if row["_rest"] is not None else {}
    for column, _ in schema.materialised:
        if row[column.name] is not None:
            assert column.key not in value, "a key is in its column or in _rest, never in both"
            value[column.key] = row[column.name]
    return without_nulls(value)


def expected(item: bytes) -> bytes | Any:
    value = load_object(item)
    return item if value is None else without_nulls(value)


def assert_lossless(data: list[bytes], schema: TableSchema | None = None) -> TableSchema:
    table, schema = settle(data, schema)
    rows = table.to_pylist()
    assert [row["_sequence_number"] for row in rows] == [
        record.sequence_number for record in make_records(data)
    ]
    for row, item in zip(rows, data, strict=True):
        assert value_of(row, schema) == expected(item), item
    assert table.schema == schema.arrow_schema
    return schema


# -- the happy path ------------------------------------------------------------------------------


def test_objects_become_typed_columns_and_every_row_names_its_record() -> None:
    data = [
        json.dumps({"status": 200 + i, "path": f"/{i}", "ms": i / 2}).encode() for i in range(9)
    ]
    table, schema = settle(data)
    assert table.schema.field("status").type == pa.int64()
    assert table.schema.field("path").type == pa.string()
    assert table.schema.field("ms").type == pa.float64()
    assert table.column("status").to_pylist() == list(range(200, 209))
    records = make_records(data)
    assert table.column("_partition_key").to_pylist() == [r.partition_key for r in records]
    assert table.column("_arrival_time").cast(pa.int64()).to_pylist() == [
        r.approximate_arrival_ms for r in records
    ]
    assert set(table.column("_shard_id").to_pylist()) == {SHARD}
    assert rows_fast.parse(data, schema) is not None, "no Python per record on this path"


def test_objects_that_end_in_a_line_feed_stay_on_the_fast_path() -> None:
    data = [b'{"a":1}\n', b' {"a":2}\r\n', b'{"a":3}']
    _, schema = settle(data)
    assert rows_fast.parse(data, schema) is not None
    assert_lossless(data)


def test_a_block_with_one_surprise_does_not_change_the_rest() -> None:
    data = [json.dumps({"a": i}).encode() for i in range(50_000)]
    data[25_000] = b'{"a":"not a number"}'
    table, schema = settle(data)
    values = table.column("a").to_pylist()
    assert values[25_000] is None and table.column("_rest")[25_000].as_py() == (
        '{"a":"not a number"}'
    )
    del values[25_000]
    assert values == [i for i in range(50_000) if i != 25_000]
    assert schema.by_key["a"].type.kind == "int64"  # type: ignore[union-attr]


# -- every kind of surprise, alone and among good rows --------------------------------------------

AWKWARD = [
    b"",
    b" ",
    b"\n",
    b"null",
    b"[1]",
    b'"text"',
    b"plain text line",
    b"{",
    b"}",
    b'{"a":1',
    b'{"a":1}}',
    b'{"a":1}{"a":2}',
    b'{"a":1}\n{"a":2}',
    b'{"a":\n1}',
    b'\n{"a":1}\n\n',
    b'{"a":1,}',
    b"{'a':1}",
    b' {"a":1,}\n',
    b"\t{no json} ",
    b"{}",
    b'{"a":null}',
    b'{"a":{}}',
    b'{"a":[]}',
    b'{"a":[[]]}',
    b'{"a":[null]}',
    b'{"a":[{}]}',
    b'{"a":{"b":null}}',
    b'{"a":{"b":[]}}',
    b'{"a":{"b":{"c":1}}}',
    b'{"a":{"b":{"c":"x"}}}',
    b'{"a":[{"b":1},{"b":null},null,{"c":[1.5]}]}',
    b'{"a":[1,"x"]}',
    b'{"a":[1,2.5]}',
    b'{"a":true}',
    b'{"a":1}',
    b'{"a":-1}',
    b'{"a":-0}',
    b'{"a":-0.0}',
    b'{"a":1.0}',
    b'{"a":1.5}',
    b'{"a":1e3}',
    b'{"a":1e-400}',
    b'{"a":1e400}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":Inf}',
    b'{"a":9007199254740992}',
    b'{"a":9007199254740993}',
    b'{"a":9223372036854775807}',
    b'{"a":9223372036854775808}',
    b'{"a":-9223372036854775808}',
    b'{"a":-9223372036854775809}',
    b'{"a":' + b"9" * 400 + b"}",
    b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":01}',
    b'{"a":"x"}',
    b'{"a":"2026-11-22T16:00:00Z"}',
    b'{"a":"2026-11-22"}',
    b'{"a":"tab\there"}',
    b'{"a":"nul\\u0000"}',
    b'{"a":"\\ud83d\\ude00"}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\udc00x"}',
    b'{"\\ud800":1}',
    '{"a":"größe 😀"}'.encode(),
    b'{"a":"\xff"}',
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf" + b'{"a":1}',
    '{"a":1}'.encode("utf-16"),
    b'{"a":1,"a":2}',
    b'{"a":1,"a":null}',
    b'{"s":{"a":1,"a":2}}',
    b'{"a":1,"\\u0061":2}',
    b'{"A":1}',
    b'{"A":1,"a":2}',
    b'{"s":{"A":1,"a":2}}',
    b'{"s":{"A":1}}',
    b'{"":1}',
    b'{"data":1,"_rest":2,"_shard_id":"mine","_sequence_number":null}',
    b'{"Data":1,"data_2":2}',
    b'{"a.b":1,"a":{"b":2}}',
    b'{"line\\nfeed":1}',
    b'{"' + b"k" * 300 + b'":1}',
    b'{"a":"}\\n{"}',
    b'{"a":"}\n{"}',
    b'{"a":' * 17 + b"1" + b"}" * 17,
    b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
    b'{"a":' * 200 + b"1" + b"}" * 200,
    b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a":"' + b"[" * 1000 + b'"}',
    b'{"a":' + b"{" * 100_000,
]


@pytest.mark.parametrize("item", AWKWARD, ids=lambda item: item[:40].decode("latin-1"))
def test_one_awkward_record_lands_whole_and_disturbs_no_other(item: bytes) -> None:
    assert_lossless([item])
    good = [json.dumps({"a": i, "b": "x"}).encode() for i in range(20)]
    assert_lossless([*good[:7], item, *good[7:]])
    texts = [json.dumps({"a": "x" * i}).encode() for i in range(20)]
    assert_lossless([*texts[:7], item, *texts[7:]])


def test_all_awkward_records_together() -> None:
    assert_lossless(AWKWARD)
    assert_lossless(AWKWARD[::-1])


def test_a_record_of_ten_mebibytes() -> None:
    big = json.dumps({"a": "x" * (10 * 1024 * 1024 - 10)}).encode()
    schema = assert_lossless([b'{"a":"x"}', big, b'{"a":"y"}'])
    assert rows_fast.parse([b'{"a":"x"}', big, b'{"a":"y"}'], schema) is not None
    assert_lossless([b"\xff" * (10 * 1024 * 1024)])


# -- drift over files ------------------------------------------------------------------------------


def test_a_column_never_changes_its_type_once_a_file_has_it() -> None:
    schema = assert_lossless([b'{"ms":1}'])
    later = assert_lossless([b'{"ms":1.5}', b'{"ms":"x"}', b'{"ms":2}'], schema)
    assert later.by_key["ms"].type == schema.by_key["ms"].type
    table, _ = settle([b'{"ms":1.5}', b'{"ms":2}'], later)
    assert table.column("ms").to_pylist() == [None, 2]
    assert table.column("_rest").to_pylist() == ['{"ms":1.5}', None]


def test_integers_and_fractions_of_one_batch_make_one_double_column() -> None:
    schema = assert_lossless([b'{"ms":1}', b'{"ms":1.5}', b'{"ms":9007199254740993}'])
    assert schema.by_key["ms"].type.kind == "double"  # type: ignore[union-attr]


def test_a_struct_gains_members_and_keeps_those_it_has() -> None:
    schema = assert_lossless([b'{"s":{"a":1}}'])
    later = assert_lossless([b'{"s":{"b":"x"}}', b'{"s":{"a":2}}'], schema)
    names = [field.name for field in later.arrow_schema.field("s").type]
    assert names == ["a", "b"]


def test_a_list_that_was_always_empty_gets_its_type_later() -> None:
    schema = assert_lossless([b'{"tags":[]}', b"{}", b'{"tags":[],"o":{}}'])
    assert "tags" not in schema.arrow_schema.names
    assert rows_fast.parse([b'{"tags":[]}'], schema) is not None, "empty lists stay fast"
    later = assert_lossless([b'{"tags":["x"]}', b'{"tags":[]}'], schema)
    assert later.arrow_schema.field("tags").type == pa.list_(pa.string())


def test_keys_that_are_identifiers_do_not_make_columns_without_end() -> None:
    data = [json.dumps({f"id-{i}": i}).encode() for i in range(MAX_LEAVES + 500)]
    schema = assert_lossless(data)
    assert len(schema.columns) == MAX_LEAVES


def test_names_that_collide_get_a_number_and_keep_it() -> None:
    schema = assert_lossless([b'{"data":1,"A":2}', b'{"a":"x","DATA":true}'])
    names = {column.key: column.name for column in schema.columns}
    assert names == {"data": "data_2", "A": "A", "a": "a_2", "DATA": "DATA_3"}
    assert TableSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    folded = [name.casefold() for name in schema.arrow_schema.names]
    assert len(set(folded)) == len(folded)


# -- properties ------------------------------------------------------------------------------------

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["2026-11-22", "2026-11-22T10:00:00Z", "true", "1"])
)
_keys = st.sampled_from(["a", "b", "A", "data", "_rest", "ü", ""]) | st.text(max_size=3)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(_keys, _values, max_size=4)
_rows = st.lists(
    st.builds(
        lambda value, ascii_only, spaces: json.dumps(
            value, ensure_ascii=ascii_only, separators=(", ", ": ") if spaces else (",", ":")
        ).encode("utf-8", "surrogatepass"),
        _objects,
        st.booleans(),
        st.booleans(),
    )
    | st.binary(max_size=12)
    | st.sampled_from(AWKWARD[:60]),
    max_size=12,
)
_patient = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_patient
@given(first=_rows, second=_rows)
def test_every_value_comes_back_out_of_columns_or_rest(
    first: list[bytes], second: list[bytes]
) -> None:
    schema = assert_lossless(first)
    later = assert_lossless(second, schema)
    before = {column.name: column for column in schema.columns}
    for column in later.columns:
        known = before.get(column.name)
        assert known is None or known.key == column.key
    for field in schema.arrow_schema:
        new = later.arrow_schema.field(field.name)
        assert _extends(new.type, field.type), f"{field.name} flipped to {new.type}"
    assert_lossless(first, later)


def _extends(new: pa.DataType, old: pa.DataType) -> bool:
    if pa.types.is_struct(old) and pa.types.is_struct(new):
        return all(_extends(new.field(member.name).type, member.type) for member in old)
    if pa.types.is_list(old) and pa.types.is_list(new):
        return _extends(new.value_type, old.value_type)
    return bool(new == old)


@_patient
@given(rows=_rows)
def test_the_fast_path_agrees_with_the_slow_one(rows: list[bytes]) -> None:
    _, schema = settle(rows)
    fast = rows_fast.parse(rows, schema)
    if fast is None:
        return
    seen: dict[str, JsonType] = {}
    slow = rows_slow.read(rows, schema, seen)
    assert fast.schema == slow.schema
    for name in fast.schema.names:
        left, right = fast.column(name).to_pylist(), slow.column(name).to_pylist()
        if name == "_rest":
            left, right = ([v and without_nulls(json.loads(v)) for v in x] for x in (left, right))
        assert _same(left, right), name


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    return bool(left == right)


def test_no_records_make_an_empty_table_with_all_columns() -> None:
    table = convert([], SHARD, TableSchema()).table
    assert table.num_rows == 0 and table.schema == RESERVED
