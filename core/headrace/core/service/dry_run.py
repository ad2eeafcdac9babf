"""DryRun, which PutRecord, PutRecords, GetRecords, GetShardIterator and SubscribeToShard take."""

from __future__ import annotations

from headrace.core.errors import DryRun


def refuse_dry_run(is_dry: bool) -> None:
    """A dry run of what would have worked is answered with an error, as AWS does."""
    if is_dry:
        raise DryRun(
            "The request would have succeeded, but it was rejected because the DryRun parameter "
            "was specified."
        )
