"""`headrace streams list|create|describe|delete`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from headrace.core.errors import ConfigError, ResourceInUse
from headrace.pipeline.cli.console import AsJson, plain_table, print_json, print_table, talk
from headrace.pipeline.cli.target import Endpoint, File, Region, make_target

if TYPE_CHECKING:
    from headrace.core.client import StreamClient
    from headrace.core.part import StreamTarget

T = TypeVar("T")

Name = Annotated[str, typer.Argument(metavar="STREAM", help="The stream's name.")]

streams_app = typer.Typer(name="streams", help="List, create, describe, delete streams.")
streams_app.callback(no_args_is_help=True)(lambda: None)


@streams_app.command("list")
def list_streams(
    as_json: AsJson = False, endpoint: Endpoint = None, region: Region = None, file: File = None
) -> None:
    """List the streams with their state and mode."""

    async def work(client: StreamClient) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        request: dict[str, Any] = {}
        while True:
            answer = await client.call("ListStreams", request)
            found += answer.get("StreamSummaries") or [
                {"StreamName": name} for name in answer["StreamNames"]
            ]
            if not answer.get("HasMoreStreams"):
                return found
            request = {"ExclusiveStartStreamName": found[-1]["StreamName"]}

    summaries = with_client(make_target(endpoint, region, file), work)
    if as_json:
        print_json(summaries)
        return
    table = plain_table("stream", "status", "mode", "created")
    for one in summaries:
        mode = one.get("StreamModeDetails", {}).get("StreamMode", "-")
        created = _when(one.get("StreamCreationTimestamp"))
        table.add_row(one["StreamName"], one.get("StreamStatus", "-"), mode, created)
    print_table(table)
    if not summaries:
        talk.print("no streams yet; headrace streams create STREAM makes one")


@streams_app.command()
def create(
    stream: Name,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Shards of a provisioned stream.")
    ] = None,
    retention: Annotated[
        str, typer.Option(help="How long records are kept, such as 24h or 7d.")
    ] = "24h",
    endpoint: Endpoint = None,
    region: Region = None,
    file: File = None,
) -> None:
    """Create STREAM and wait until it is active; on-demand unless --shards is given.

    An existing stream is brought to what is asked for.
    """
    from pydantic import ValidationError

    from headrace.core.stream_part import ensure_declared
    from headrace.core.stream_section import StreamSpec

    mode = "provisioned" if shards else "on-demand"
    try:
        spec = StreamSpec.model_validate({"mode": mode, "shards": shards, "retention": retention})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first.get("ctx", {}).get("error", first["msg"])
        raise ConfigError(f"--{first['loc'][0]}: {reason}") from None
    with_client(
        make_target(endpoint, region, file), lambda client: ensure_declared(client, stream, spec)
    )
    talk.print(f"{stream} is active", markup=False)


@streams_app.command()
def describe(
    stream: Name,
    as_json: AsJson = False,
    endpoint: Endpoint = None,
    region: Region = None,
    file: File = None,
) -> None:
    """Show STREAM's settings and shards."""

    async def work(client: StreamClient) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        answer = await client.call("DescribeStreamSummary", {"StreamName": stream})
        return answer["StreamDescriptionSummary"], await _shards(client, stream)

    summary, shards = with_client(make_target(endpoint, region, file), work)
    if as_json:
        print_json({**summary, "Shards": shards})
        return
    mode = summary.get("StreamModeDetails", {}).get("StreamMode", "-")
    print(f"{summary['StreamName']}: {summary['StreamStatus']}, {mode}")
    print(f"  arn        {summary['StreamARN']}")
    print(f"  retention  {summary['RetentionPeriodHours']} h")
    print(f"  created    {_when(summary.get('StreamCreationTimestamp'))}")
    print(f"  shards     {summary['OpenShardCount']} open of {len(shards)}")
    table = plain_table("shard", "state", "share of hash keys", "parents")
    for shard in shards:
        keys = shard["HashKeyRange"]
        share = (int(keys["EndingHashKey"]) - int(keys["StartingHashKey"]) + 1) / 2**128
        is_closed = "EndingSequenceNumber" in shard["SequenceNumberRange"]
        parents = [shard.get("ParentShardId"), shard.get("AdjacentParentShardId")]
        table.add_row(
            shard["ShardId"],
            "closed" if is_closed else "open",
            f"{share:.2%}",
            " ".join(p for p in parents if p) or "-",
        )
    print_table(table)


@streams_app.command()
def delete(
    stream: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    file: File = None,
) -> None:
    """Delete STREAM and every record in it. Asks for the name first, unless --yes is given."""
    if not yes:
        typed = typer.prompt(f"This deletes every record of {stream}. Type its name to go on")
        if typed != stream:
            talk.print("not deleted")
            raise typer.Exit(1)
    request = {"StreamName": stream, "EnforceConsumerDeletion": True}
    with_client(
        make_target(endpoint, region, file), lambda client: client.call("DeleteStream", request)
    )
    talk.print(f"{stream} is being deleted", markup=False)


def with_client(target: StreamTarget, work: Callable[[StreamClient], Awaitable[T]]) -> T:
    """Run some calls on one client."""
    from headrace.core.client import StreamClient

    async def run() -> T:
        async with StreamClient(target) as client:
            return await work(client)

    return asyncio.run(run())


async def _shards(client: StreamClient, stream: str) -> list[dict[str, Any]]:
    """Every shard as the wire has it, all pages."""
    found: list[dict[str, Any]] = []
    request: dict[str, Any] = {"StreamName": stream}
    while True:
        try:
            answer = await client.call("ListShards", request)
        except ResourceInUse:  # CREATING or DELETING
            return []
        found += answer["Shards"]
        token = answer.get("NextToken")
        if not token:
            return found
        request = {"NextToken": token}


def _when(timestamp: Any) -> str:
    if not isinstance(timestamp, int | float):
        return "-"
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
