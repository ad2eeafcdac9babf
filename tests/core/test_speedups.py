"""The compiled twins answer as the Python functions do."""

from __future__ import annotations

import base64
import importlib
import json
import os
from array import array
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.core import speedups
from headrace.core.listener.plain_head import plain_head
from headrace.core.log.format import small_frame
from headrace.core.log.rendering import are_plain, join_objects, quote_keys, render, render_one
from headrace.core.model.blobs import decoded_sizes
from headrace.core.model.sequence import MAX_INDEX, STEP, compose, count_up, run
from headrace.core.service.routing import deal, hash_routes, split
from headrace.core.wire.authorization import usual_credential
from headrace.core.wire.hot_answers import join_answers
from headrace.core.wire.hot_requests import usual_puts
from speedups_support import compiled_only, plain


def test_the_extension_is_built_where_it_must_be() -> None:
    """In CI there is a compiler: without the twins, no test of them would mean anything."""
    if "CI" in os.environ:
        assert speedups.IS_COMPILED


@compiled_only
def test_every_marked_function_has_a_twin() -> None:
    _speedups = importlib.import_module("headrace.core._speedups")
    twins = {name for name, value in vars(_speedups).items() if callable(value)} - {"__loader__"}
    assert twins == set(speedups.PLAIN)
    for function in (
        are_plain, count_up, deal, decoded_sizes, hash_routes, join_answers, join_objects,
        plain_head, render_one, small_frame, split, usual_credential, usual_puts,
    ):  # fmt: skip
        assert function is getattr(_speedups, function.__name__)


BASE64 = st.binary(max_size=70).map(lambda data: base64.b64encode(data).decode())
NEARLY_BASE64 = st.text("AQgwEIZaz09+/=-_ \n\x7f\x80é", max_size=12)
# each place of a text is looked at, in whatever pieces the compiled loop goes
SPOILT = st.builds(
    lambda text, at, wrong: text[: at % (len(text) + 1)] + wrong + text[at % (len(text) + 1) + 1 :],
    st.binary(min_size=1, max_size=200).map(lambda data: base64.b64encode(data).decode()),
    st.integers(0, 300),
    st.characters(codec="utf-8"),
)


@compiled_only
@given(st.lists(BASE64 | NEARLY_BASE64 | SPOILT, max_size=5))
@example(["===="])
@example(["A==="])
@example(["AA=A"])
@example(["AB=="])
@example(["AAB="])
@example([""])
@example(["AAA\udc80"])
def test_sizes_of_base64(texts: list[str]) -> None:
    assert decoded_sizes(texts) == plain(decoded_sizes)(texts)
    assert decoded_sizes(tuple(texts)) == decoded_sizes(texts)


U64 = st.integers(0, 2**64 - 1)


@compiled_only
@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=5),
    st.lists(st.integers(0, 2**32 - 1), max_size=5),
    st.binary(max_size=20),
    st.integers(0, 2**32 - 1),
    st.tuples(U64, U64, U64, U64),
)
@example([b""], [], b"", 0, (0, 0, 0, 0))
@example([b"x" * 70_000, b"y"], [2**32 - 1], b"z" * 9, 2**32 - 1, (2**64 - 1,) * 4)
def test_a_small_frame(
    objects: list[bytes],
    ends: list[int],
    producers: bytes,
    shard: int,
    numbers: tuple[int, int, int, int],
) -> None:
    arguments = array("I", ends), objects, producers, shard, *numbers
    assert small_frame(*arguments) == plain(small_frame)(*arguments)


WORD = st.text("aZ0/;-_", min_size=1, max_size=6) | st.text(
    "a ,=\t\n\v\x0b\x1c\x85\xff", max_size=3
)
AUTHORIZATION = st.builds(
    lambda *parts: "".join(parts).encode("latin-1"),
    st.sampled_from(["AWS4-HMAC-SHA256 Credential=", "AWS4-HMAC-SHA256  Credential=", ""]),
    WORD,
    st.sampled_from(
        [", SignedHeaders=", ",SignedHeaders=", ",  SignedHeaders=", " SignedHeaders="]
    ),
    WORD,
    st.sampled_from([", Signature=", ",Signature=", ",", ""]),
    WORD,
)
SIGNED_HEADERS = st.lists(
    st.tuples(st.just(b"authorization"), AUTHORIZATION)
    | st.tuples(st.sampled_from([b"x-amz-date", b"date", b"dates", b"", b"host"]), st.binary()),
    max_size=4,
)
USUAL = b"AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=c;d, Signature=e"


@compiled_only
@given(SIGNED_HEADERS)
@example([(b"authorization", USUAL), (b"date", b"")])
@example([(b"x-amz-date", b""), (b"authorization", USUAL.replace(b", ", b","))])
@example([(b"authorization", USUAL + b"="), (b"date", b"")])
@example([(b"authorization", USUAL)])
@example([(b"authorization", USUAL), (b"authorization", b""), (b"date", b"")])
@example([(b"authorization", USUAL), (b"authorization", USUAL + b"f"), (b"date", b"")])
def test_a_usual_credential(headers: list[tuple[bytes, bytes]]) -> None:
    assert usual_credential(headers) == plain(usual_credential)(headers)
    assert usual_credential(tuple(headers)) == usual_credential(headers)


SECONDS = st.integers(0, 2**36 - 1)
KEYS = st.text(st.characters(codec="ascii"), max_size=20) | st.text(max_size=5)


@compiled_only
@given(
    SECONDS,
    st.integers(0, MAX_INDEX),
    st.integers(0, 2**36 * 1000 - 1),
    st.integers(0, 2**32 - 1),
    BASE64,
    KEYS,
    st.booleans(),
)
@example(0, 0, 0, 0, "", "", False)
@example(2**36 - 1, MAX_INDEX, 2**36 * 1000 - 1, 2**32 - 1, "QQ==", "~", True)
@example(1, 1, 1, 1, "QQ==", 'a"b', False)
@example(1, 1, 1, 1, "QQ==", "\\", False)
@example(1, 1, 1, 1, "QQ==", "\x7f", False)
@example(1, 1, 1, 1, "QQ==", "é", False)
def test_one_record(
    created_s: int,
    index: int,
    arrival_ms: int,
    shard: int,
    data: str,
    key: str,
    is_encrypted: bool,
) -> None:
    fields = created_s, index, arrival_ms, shard
    found = render_one(*fields, data, key, is_encrypted)
    assert found == plain(render_one)(*fields, data, key, is_encrypted)
    if found is not None:  # as records of several are made
        numbers = run(compose(created_s, index, arrival_ms // 1000, shard), 1)
        rendered = render(numbers, arrival_ms, [data], quote_keys([key]), is_encrypted)
        assert found == (numbers[0], rendered.objects)
        assert json.loads(found[1]).get("PartitionKey", "") == key


@compiled_only
@pytest.mark.parametrize("wrong", [c for c in map(chr, range(256)) if not c.isalnum()])
def test_every_character_that_is_not_of_the_alphabet(wrong: str) -> None:
    for length in (4, 16, 32, 36, 132):
        for at in range(length):
            text = "A" * at + wrong + "A" * (length - at - 1)
            assert decoded_sizes([text]) == plain(decoded_sizes)([text]), (length, at)


@compiled_only
@given(st.integers(10**55, 10**56), st.integers(1, 500))
@example(10**55, 500)
@example(10**55 + 10**30 - STEP, 1)
@example(10**55 + 10**30 - STEP, 2)
@example(10**55 + 10**30 - STEP - 1, 2)
@example(10**55 + 10**29 - 1, 3)
@example(10**55 + 10**15 - 1, 3)
def test_sequence_numbers(first: int, count: int) -> None:
    assert run(first, count) == [str(number) for number in range(first, first + count * STEP, STEP)]


@compiled_only
@given(st.lists(st.text(max_size=5) | st.text('ab"\\\x7f\x1f é', max_size=20), max_size=5))
@example(["\udc80"])
@example(["a" * 31 + '"'])
@example(["a" * 40 + "\\" + "a" * 40])
def test_plain_keys(keys: list[str]) -> None:
    assert are_plain(keys) is plain(are_plain)(keys)


STARTS = st.lists(st.binary(min_size=16, max_size=16), max_size=9).map(
    lambda starts: [bytes(16), *sorted(starts)]
)


@compiled_only
@given(STARTS, st.lists(st.text(max_size=130), max_size=40))
def test_routes(starts: list[bytes], keys: list[str]) -> None:
    assert hash_routes(starts, keys) == plain(hash_routes)(starts, keys)


ASCII = st.text(st.characters(codec="ascii"), max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@compiled_only
@given(
    st.tuples(ASCII, ASCII, ASCII, ASCII),  # it is ours, and the Python one counts on it
    st.lists(st.tuples(BASE64, TEXT, st.just("4" * 56)), min_size=1, max_size=8),
    st.integers(0, 10**6),
)
def test_objects(
    around: tuple[str, str, str, str], records: list[tuple[str, str, str]], start: int
) -> None:
    data, keys, numbers = ([record[i] for record in records] for i in range(3))
    joined = join_objects(around, data, keys, numbers, start)
    assert joined == plain(join_objects)(around, data, keys, numbers, start)


@compiled_only
@given(st.lists(st.integers(0, 5) | st.integers(0, 10_000), max_size=40), st.integers(0, 3))
def test_records_by_route(routes: list[int], columns: int) -> None:
    wide = tuple([f"{column}:{i}" for i in range(len(routes))] for column in range(columns))
    parts = split(routes, wide)
    assert parts == plain(split)(routes, wide)
    assert list(parts) == list(plain(split)(routes, wide))
    hands = {route: list(range(routes.count(route))) for route in routes}
    assert deal(routes, hands) == plain(deal)(routes, hands)


@compiled_only
@given(
    st.binary(max_size=9),
    st.lists(st.tuples(ASCII, st.just("shardId-1") | ASCII), min_size=1, max_size=9),
)
def test_answers(head: bytes, stored: list[tuple[str, str]]) -> None:
    numbers, ids = ([record[i] for record in stored] for i in range(2))
    assert join_answers(head, numbers, ids) == plain(join_answers)(head, numbers, ids)


# Bodies as clients send them, and everything that looks like one and is none, or is an unusual one.
KEY = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=9)
RECORD = st.fixed_dictionaries({"Data": BASE64, "PartitionKey": KEY})
USUAL_REQUEST = st.fixed_dictionaries(
    {
        "StreamName": st.text("aZ09_.-", min_size=1, max_size=9),
        "Records": st.lists(RECORD, min_size=1, max_size=4),
    }
)
ODD_MEMBER = st.sampled_from(
    ["Data", "PartitionKey", "ExplicitHashKey", "StreamName", "StreamARN", "Records", "", "data"]
)
ODD_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | BASE64 | NEARLY_BASE64,
    lambda inner: st.lists(inner | RECORD) | st.dictionaries(ODD_MEMBER, inner),
    max_leaves=6,
)
ODD = st.dictionaries(ODD_MEMBER, ODD_VALUE | st.lists(RECORD | ODD_VALUE, max_size=3))
BODIES = st.builds(
    lambda request, indent, separators, is_ascii: json.dumps(
        request, indent=indent, separators=separators, ensure_ascii=is_ascii
    ).encode(errors="surrogatepass"),
    USUAL_REQUEST | USUAL_REQUEST | ODD,
    st.none() | st.integers(0, 2) | st.just("\r\t "),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]),
    st.booleans(),
)
# a character or two are another's, or gone
SPOILT_BODIES = st.builds(
    lambda body, at, gone, put: body[: at % len(body)] + put + body[at % len(body) + gone :],
    BODIES,
    st.integers(0, 10**6),
    st.integers(0, 2),
    st.sampled_from([b"", b" ", b",", b'"', b"\\", b"{", b"}", b"]", b":", b"\0", b"\x7f", b"\xc3"])
    | st.binary(max_size=2),
)


@compiled_only
@given(BODIES | SPOILT_BODIES)
@example(b"")
@example(b"{}")
@example(b'{"StreamName":"a","Records":[]}')
@example(b'{"StreamName":"a","Records":[{}]}')
@example(b'{"StreamName":"","Records":[{"Data":"","PartitionKey":"k"}]}')
@example(b'{"StreamName":"a\\n","Records":[{"Data":"","PartitionKey":"k"}]}')
@example(b'{"StreamName":"a","Records":[{"Data":"","PartitionKey":""}]}')
@example(b'{"StreamName":"a","Records":[{"Data":"","PartitionKey":"k"},]}')
@example(b'{"StreamName":"a","Records":[{"Data":"","PartitionKey":"k",}]}')
@example(b'{"StreamName":"a","Records":[{"Data":"","PartitionKey":"k"}],}')
@example(b'{"StreamName":"a","Records":[{"Data":"","PartitionKey":"k"}]} x')
@example(b'{"StreamName":"a","Records":[{"Data":"","PartitionKey":"k"}]}\0')
# of two of one name the last counts, and both have to be right
@example(b'{"StreamName":"a","StreamName":"b","Records":[{"Data":"","PartitionKey":"k"}]}')
@example(b'{"StreamName":"-","Records":[{"Data":"!","Data":"","PartitionKey":"k"}]}')
@example(b'{"StreamName":"-","Records":[{"Data":"","Data":"!","PartitionKey":"k"}]}')
@example(b'{"StreamName":"-","Records":[{"Data":1,"Data":"","PartitionKey":"k"}]}')
@example(
    b'{"Records":[{"Data":"","PartitionKey":"k"}],"Records":[{"Data":"QQ==","PartitionKey":"l"}],'
    b'"StreamName":"a"}'
)
@example(b'{"Records":[{"Data":"!","PartitionKey":"k"}],"Records":[],"StreamName":"a"}')
@example(
    b'{"Records":[{"Data":"!","PartitionKey":"k"}],"Records":[{"Data":"","PartitionKey":"k"}],'
    b'"StreamName":"a"}'
)
def test_usual_bodies_of_puts(body: bytes) -> None:
    assert usual_puts(body) == plain(usual_puts)(body)


@compiled_only
@pytest.mark.parametrize("count", [1, 499, 500, 501])
@pytest.mark.parametrize("key", ["k" * 256, "k" * 257])
@pytest.mark.parametrize("name", ["n" * 128, "n" * 129])
def test_bounds_of_usual_puts(count: int, key: str, name: str) -> None:
    records = [{"Data": "QUJD", "PartitionKey": key}] * count
    body = json.dumps({"Records": records, "StreamName": name}).encode()
    found = usual_puts(body)
    assert found == plain(usual_puts)(body)
    assert (found is not None) == (count <= 500 and len(key) <= 256 and len(name) <= 128)


@compiled_only
@pytest.mark.parametrize(
    "call",
    [
        lambda: decoded_sizes(7),  # type: ignore[arg-type]
        lambda: are_plain([7]),  # type: ignore[list-item]
        lambda: are_plain(iter(["a"])),  # type: ignore[arg-type]
        lambda: plain_head("POST / HTTP/1.1"),  # type: ignore[arg-type]
        lambda: hash_routes([bytes(15)], ["a"]),
        lambda: hash_routes(["a"], ["a"]),  # type: ignore[list-item]
        lambda: hash_routes((bytes(16),), ["a"]),  # type: ignore[arg-type]
        lambda: hash_routes([bytes(16)], iter(["a"])),  # type: ignore[arg-type]
        lambda: hash_routes([bytes(16)], ["a" * 9, 7]),  # type: ignore[list-item]
        lambda: hash_routes([bytes(16)], ["a" * 99, "\udc80"]),
        lambda: count_up("1", 10**15, 0, 1),
        lambda: count_up("1", -1, 0, 1),
        lambda: count_up("1", 10**30, 0, 1),
        lambda: count_up("1", 0, 0, -1),
        lambda: count_up("1", 10**15 - 1, 10**15 - 1, 2),
        lambda: count_up("é", 0, 0, 1),
        lambda: join_objects(("h", "k", "n", "e"), [], [], [], 0),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], ["b", "c"], ["1"], 0),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], ["b"], [], 0),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], ["b"], ["1"], -1),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], ["b"], ["1"], 2**32),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], ["b"], ["1"], 2**63 - 1),
        lambda: join_objects(("h", "k", "n", "e"), 7, iter([]), ["1"], 0),  # type: ignore[arg-type]
        lambda: join_objects(("h", "k", "n", "e"), ["\udc80"], ["b"], ["1"], 0),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], [None], ["1"], 0),  # type: ignore[list-item]
        lambda: small_frame(array("I"), [], b"", 0, 0, 0, 0, 0),
        lambda: small_frame(array("I"), ["a"], b"", 0, 0, 0, 0, 0),  # type: ignore[list-item]
        lambda: small_frame(array("I"), [b"a"], b"", 2**32, 0, 0, 0, 0),
        lambda: small_frame(array("I"), [b"a"], b"", 0, -1, 0, 0, 0),
        lambda: small_frame(None, [b"a"], b"", 0, 0, 0, 0, 0),  # type: ignore[arg-type]
        lambda: render_one(2**36, 0, 0, 0, "", "", False),
        lambda: render_one(0, 2**64, 0, 0, "", "", False),
        lambda: render_one(0, 0, 0, 0, b"", "", False),  # type: ignore[arg-type]
        lambda: split((0,), (["a"],)),  # type: ignore[arg-type]
        lambda: split([0], ["a"]),  # type: ignore[type-var]
        lambda: split([0], (("a",),)),  # type: ignore[type-var]
        lambda: split([0], (["a", "b"],)),
        lambda: split([-1], (["a"],)),
        lambda: split([2**20], (["a"],)),
        lambda: split([2**80], (["a"],)),
        lambda: split(["a"], (["a"],)),  # type: ignore[list-item]
        lambda: deal([0], [["a"]]),  # type: ignore[arg-type]
        lambda: deal([0], {}),
        lambda: deal([0], {0: []}),
        lambda: deal([0], {0: ("a",)}),  # type: ignore[arg-type]
        lambda: deal([0, -1], {0: ["a"], -1: ["b"]}),
        lambda: join_answers("", ["1"], ["a"]),  # type: ignore[arg-type]
        lambda: join_answers(b"", [], []),
        lambda: join_answers(b"", ["1"], ["a", "b"]),
        lambda: join_answers(b"", ["1"], ("a",)),  # type: ignore[arg-type]
        lambda: join_answers(b"", ["1"], ["é"]),
        lambda: join_answers(b"", [1], ["a"]),  # type: ignore[list-item]
        lambda: usual_puts("{}"),  # type: ignore[arg-type]
        lambda: usual_puts(bytearray(b"{}")),  # type: ignore[arg-type]
        lambda: usual_credential(None),  # type: ignore[arg-type]
        lambda: usual_credential([(b"date", "")]),  # type: ignore[list-item]
        lambda: usual_credential([(b"date",)]),  # type: ignore[list-item]
    ],
)
def test_wrong_arguments_are_errors_and_no_more(call: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        call()


@compiled_only
def test_ends_are_those_of_an_array() -> None:
    objects, ends = join_objects(("<", "|", ":", ">"), ["aa", "b"], ["k", ""], ["1", "2"], 10)
    assert objects == b"<aa|k:1>,<b:2>"
    assert array("I", ends).tolist() == [18, 24]
