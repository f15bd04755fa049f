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
    console.print(_counts("Kept, by problem type", manifest["kinds"], sides))
    console.print(_counts("Kept, by data source", manifest["data_sources"], sides))
    if manifest["text_only"]:
        console.print(
            "Text-only rows: " + ", ".join(f"{side} {count}" for side, count in manifest["text_only"].items())
        )
    if rows["rejected"]:
        table = Table("fault", "rows", title=f"Rejected (each row: {escape(str(out / REJECTED))})")
        for fault, count in sorted(manifest["faults"].items(), key=lambda item: -item[1]):
            table.add_row(fault, str(count))
        console.print(table)
    for side in sides:
        files = [str(out / shard["file"]) for shard in manifest["shards"] if shard["split"] == side]
        size = sum(shard["bytes"] for shard in manifest["shards"] if shard["split"] == side)
        listed = ",".join(files) if len(files) <= 8 else f"{files[0]},...,{files[-1]}"
        console.print(f"{escape(side)}: {len(files)} files, {size / 2**20:.1f} MiB", highlight=False)
        console.print(f"  {escape(f'[{listed}]')}", highlight=False, soft_wrap=True)
    if manifest["settings"]["val_fraction"] and "val" not in sides:
        console.print("[yellow]No row fell on the validation side: the data is small for this --val-fraction[/]")


def _counts(title: str, counts: dict[str, dict[str, int]], sides: list[str]) -> Table:
    table = Table("", *sides, title=title)
    names = sorted({name for side in sides for name in counts[side]})
    names.sort(key=lambda name: -sum(counts[side].get(name, 0) for side in sides))
    for name in names[:_MAX_SOURCES]:
        table.add_row(escape(name), *(str(counts[side].get(name, 0)) for side in sides))
    if len(names) > _MAX_SOURCES:
        rest = names[_MAX_SOURCES:]
        table.add_row(f"{len(rest)} more", *(str(sum(counts[side].get(name, 0) for name in rest)) for side in sides))
    return table
