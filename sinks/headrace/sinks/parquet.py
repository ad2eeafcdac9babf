"""A table as the bytes of one Parquet file, and what the file says of itself in its footer.

The bytes are a pure function of table, settings and footer for one version of the writer, which
the footer names: what is made again after a crash can be compared byte for byte, and after an
upgrade in between by plan and rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.sinks.schema import SEQUENCE_NUMBER

_PREFIX = b"headrace."
_FORMAT = 1  # of the rows: raise it when the same records would become other rows


def writer() -> str:
    """What made a file: two files of one plan by the same writer are the same bytes."""
    try:
        version = metadata.version("headrace")
    except metadata.PackageNotFoundError:
        version = "checkout"
    return f"headrace {version}, rows {_FORMAT}, pyarrow {pa.__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """What a file says of itself; enough to rebuild the plan log from the files alone.

    `rows` 0 with `is_void` marks a file that only holds its name: the records of its plan
    expired before they could be written.
    """

    plan: str
    sink: str
    stream: str
    shard: str
    number: int
    first: str
    last: str
    rows: int
    schema: str
    is_void: bool
    writer: str

    def encode(self) -> dict[bytes, bytes]:
        pairs = {name: getattr(self, name) for name in self.__dataclass_fields__}
        pairs["is_void"] = "true" if self.is_void else "false"
        return {_PREFIX + name.encode(): str(value).encode() for name, value in pairs.items()}

    @classmethod
    def decode(cls, pairs: dict[bytes, bytes]) -> Footer | None:
        """The footer out of a file's key-values; None for a file that is not ours."""
        try:
            text = {name: pairs[_PREFIX + name.encode()].decode() for name in cls._names()}
            return cls(
                plan=text["plan"],
                sink=text["sink"],
                stream=text["stream"],
                shard=text["shard"],
                number=int(text["number"]),
                first=text["first"],
                last=text["last"],
                rows=int(text["rows"]),
                schema=text["schema"],
                is_void=text["is_void"] == "true",
                writer=text["writer"],
            )
        except (KeyError, ValueError):
            return None

    @classmethod
    def _names(cls) -> list[str]:
        return list(cls.__dataclass_fields__)


def write(table: pa.Table, footer: Footer, *, compression: str) -> bytes:
    """The file's bytes. `compression` is zstd, snappy, gzip or none."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks().replace_schema_metadata(footer.encode()),
        sink,
        compression=compression,
        # A sequence number shares nearly all its digits with the one before and never comes
        # twice: no dictionary for it, only what differs.
        use_dictionary=_dictionary_columns(table.schema),
        column_encoding={SEQUENCE_NUMBER: "DELTA_BYTE_ARRAY"},
        write_statistics=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_footer(data: bytes) -> Footer | None:
    """What a file says of itself; None if it is no Parquet file or none of ours."""
    try:
        pairs = pq.read_metadata(pa.BufferReader(data)).metadata
    except pa.ArrowInvalid:
        return None
    return Footer.decode(pairs or {})


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """Leaf paths of all columns but the sequence number's, as the writer names them."""
    paths: list[str] = []
    for field in schema:
        if field.name != SEQUENCE_NUMBER:
            _add_paths(field.name, field.type, paths)
    return paths


def _add_paths(path: str, kind: pa.DataType, paths: list[str]) -> None:
    if pa.types.is_struct(kind):
        for member in kind:
            _add_paths(f"{path}.{member.name}", member.type, paths)
    elif pa.types.is_list(kind):
        _add_paths(f"{path}.list.element", kind.value_type, paths)
    else:
        paths.append(path)
