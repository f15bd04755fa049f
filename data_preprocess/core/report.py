"""The summary of a run, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_preprocess.core.pipeline import REJECTED

_MAX_SOURCES = 20


def print_summary(manifest: dict[str, Any], out: Path, console: Console) -> None:
    """Print what a manifest says: rows kept by side, type and source, and rows rejected by fault."""
    rows = manifest["rows"]
    console.print(
        f"[bold]{rows['read']}[/] rows read, [bold]{rows['kept']}[/] kept, [bold]{rows['rejected']}[/] rejected"
    )
    sides = sorted(manifest["kinds"])
    if sides:
        console.print(_counts("kept, by problem type", manifest["kinds"], sides))
        console.print(_counts("kept, by data source", manifest["data_sources"], sides))
    if manifest["text_only"]:
        console.print(
            "Text-only rows: " + ", ".join(f"{side} {count}" for side, count in manifest["text_only"].items())
        )
    if rows["rejected"]:
        table = Table("rejected", "rows")
        for fault, count in sorted(manifest["faults"].items(), key=lambda item: -item[1]):
            table.add_row(fault, str(count))
        console.print(table)
        console.print(f"Each rejected row: {escape(str(out / REJECTED))}", highlight=False, soft_wrap=True)
    for side in sides:
        shards = [shard for shard in manifest["shards"] if shard["split"] == side]
        files = str(out / shards[0]["file"]) if len(shards) == 1 else f"{out}/{side}-*.parquet ({len(shards)} files)"
        size = sum(shard["bytes"] for shard in shards) / 2**20
        console.print(f"{escape(side)}: {escape(files)}, {size:.1f} MiB", highlight=False, soft_wrap=True)
    if manifest["settings"]["val_fraction"] and "val" not in sides:
        console.print("[yellow]No row fell on the validation side: the data is small for this --val-fraction[/]")


def _counts(title: str, counts: dict[str, dict[str, int]], sides: list[str]) -> Table:
    table = Table(title, *sides)
    names = sorted({name for side in sides for name in counts[side]})
    names.sort(key=lambda name: -sum(counts[side].get(name, 0) for side in sides))
    for name in names[:_MAX_SOURCES]:
        table.add_row(escape(name), *(str(counts[side].get(name, 0)) for side in sides))
    if len(names) > _MAX_SOURCES:
        rest = names[_MAX_SOURCES:]
        table.add_row(f"{len(rest)} more", *(str(sum(counts[side].get(name, 0) for name in rest)) for side in sides))
    return table
