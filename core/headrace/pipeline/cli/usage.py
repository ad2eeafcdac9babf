"""`headrace usage`: what streams were used for, by the hour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headrace.core.errors import ConfigError, HeadraceError, ServiceError
from headrace.core.units import format_size
from headrace.pipeline.cli.console import AsJson, plain_table, print_json, print_table, talk
from headrace.pipeline.cli.streams import with_client
from headrace.pipeline.cli.target import Endpoint, File, Region, make_target

if TYPE_CHECKING:
    from headrace.core.client import StreamClient

_MAX_HOURS = 400 * 24
_COUNTS = (
    "in", "records", "put units", "throttled", "out", "records", "fan-out", "peak/s", "behind",
)  # fmt: skip


def usage(
    stream: Annotated[
        str | None, typer.Argument(metavar="[STREAM]", help="One stream; all, if left out.")
    ] = None,
    hours: Annotated[
        int, typer.Option(min=1, max=_MAX_HOURS, help="How far back, this hour included.")
    ] = 24,
    by: Annotated[
        Literal["hour", "shard", "consumer"], typer.Option(help="Rows of one stream's table.")
    ] = "hour",
    as_json: AsJson = False,
    endpoint: Endpoint = None,
    region: Region = None,
    file: File = None,
) -> None:
    """Show what went in and out of streams, what was throttled, and what is stored.

    Of a stream that was deleted and made again, each is shown.
    """
    request: dict[str, Any] = {"Hours": hours}
    if stream is not None:
        request["StreamName"] = stream

    async def work(client: StreamClient) -> dict[str, Any]:
        if not client.is_headrace:
            raise ConfigError("AWS does not tell this; CloudWatch has its own figures")
        try:
            return await client.call("DescribeUsage", request, extension=True)
        except ServiceError as error:
            if error.wire_code == "UnknownOperationException":
                raise HeadraceError(
                    f"{client.endpoint} keeps no usage", hint="is it a Headrace, and up to date?"
                ) from error
            raise

    found = with_client(make_target(endpoint, region, file), work)
    if as_json:
        print_json(found)
    elif stream is None:
        _show_streams(found)
    else:
        for one in found["streams"]:
            _show_stream(one, by)
    if not found["streams"] and not as_json:
        talk.print(f"nothing in the last {hours} hours")


def _show_streams(found: Mapping[str, Any]) -> None:
    table = plain_table("stream", "mode", "shards", "stored", *_COUNTS)
    for one in found["streams"]:
        total = one["total"]
        table.add_row(
            one["stream"] + (" (deleted)" if one["is_deleted"] else ""),
            _mode(total),
            str(total["shards"]),
            format_size(total["stored_bytes"]),
            *_row(total),
        )
    print_table(table)


def _show_stream(one: Mapping[str, Any], by: str) -> None:
    total = one["total"]
    gone = ", deleted" if one["is_deleted"] else ""
    print(f"{one['stream']}: {_mode(total)}, created {one['created']}{gone}")
    print(f"  stored        {format_size(total['stored_bytes'])}")
    print(f"  shard hours   {total['shard_seconds'] / 3600:,.2f}, {total['shards']} shards at most")
    print(
        f"  consumers     {total['consumers']} at most, "
        f"{total['consumer_shard_seconds'] / 3600:,.2f} consumer shard hours"
    )
    if by == "consumer":
        table = plain_table("consumer", "out", "records", "behind")
        for consumer in one["consumers"]:
            sent = consumer["total"]
            table.add_row(
                consumer["consumer"].rpartition(":")[0],
                format_size(sent["fanout_bytes"]),
                f"{sent['fanout_records']:,}",
                _behind(sent),
            )
    elif by == "shard":
        table = plain_table("shard", *_COUNTS)
        for shard in one["shards"]:
            table.add_row(shard["shard_id"], *_row(shard["total"]))
    else:
        table = plain_table("hour", "shards", "stored", *_COUNTS)
        for hour in one["hours"]:
            shards, stored = str(hour["shards"]), format_size(hour["stored_bytes"])
            table.add_row(hour["hour"][:16].replace("T", " "), shards, stored, *_row(hour))
        table.add_row("all", "", "", *_row(total))
    print_table(table)


def _row(counts: Mapping[str, Any]) -> list[str]:
    """The cells of `_COUNTS`."""
    throttled = [f"{counts['throttled_records']:,} records"] * bool(counts["throttled_records"])
    throttled += [f"{counts['throttled_gets']:,} reads"] * bool(counts["throttled_gets"])
    return [
        format_size(counts["bytes_in"]),
        f"{counts['records_in']:,}",
        f"{counts['put_units']:,}",
        ", ".join(throttled) or "-",
        format_size(counts["bytes_out"]),
        f"{counts['records_out']:,}",
        format_size(counts["fanout_bytes"]) if counts["fanout_records"] else "-",
        f"{format_size(counts['peak_bytes_per_s'])}, {counts['peak_records_per_s']:,}",
        _behind(counts),
    ]


def _behind(counts: Mapping[str, Any]) -> str:
    return f"{counts['iterator_age_ms'] / 1000:,.1f} s"


def _mode(total: Mapping[str, Any]) -> str:
    return str(total["mode"]).lower().replace("_", "-")
