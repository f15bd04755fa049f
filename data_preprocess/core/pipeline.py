"""The whole run: source rows -> parts (parallel, resumable) -> shards, rejected rows and a manifest."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_preprocess.core.adapter import Adapter
from data_preprocess.core.errors import StrictError, WorkError
from data_preprocess.core.files import locked, read_json, replacing, write_json
from data_preprocess.core.parts import PartJob, kept_rows, make_part, rejections
from data_preprocess.core.pool import ordered_results
from data_preprocess.core.shards import SHARD_PATTERN, assemble
from data_preprocess.core.sources import RawRow, Source
from data_preprocess.core.splits import SplitAssigner

FORMAT_VERSION = 4
"""Raise it when the same source and settings give other output: unfinished work of the old version is then refused."""

PART_ROWS = 256
PART_BYTES = 16 * 2**20
MANIFEST, REJECTED = "manifest.json", "rejected.jsonl"
_WORK, _RUN = ".work", "run.json"


@dataclass(frozen=True)
class Settings:
    """What the user chose.

    Attributes:
        val_fraction: expected share of validation, in [0, 1); rows whose side the source fixes are left alone.
        seed: of the split.
        limit: read no more than this many source rows, bad ones included; None for all.
        max_pixels: scale larger images down to this many pixels; None leaves every image alone.
        follow_links: links may lead out of the image root; paths may not.
        shard_rows, shard_bytes: bounds of one shard (bytes of Arrow data, before compression of the text).
        strict: stop at the first bad row.
        workers: processes; the output does not depend on it.
        overwrite: throw away what the output folder holds, and start from the beginning.
        progress: show progress bars.
    """

    val_fraction: float = 0.0
    seed: int = 0
    limit: int | None = None
    max_pixels: int | None = None
    follow_links: bool = False
    shard_rows: int = 5000
    shard_bytes: int = 512 * 2**20
    strict: bool = False
    workers: int = 1
    overwrite: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.val_fraction < 1.0:
            raise WorkError(f"--val-fraction must be at least 0 and below 1, not {self.val_fraction}")
        if not -(2**63) <= self.seed < 2**63:
            raise WorkError(f"--seed must fit 64 bits, which {self.seed} does not")
        for name in ("limit", "max_pixels", "shard_rows", "shard_bytes", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise WorkError(f"--{name.replace('_', '-')} must be at least 1, not {value}")

    def identity(self) -> dict[str, Any]:
        """The settings that the output depends on."""
        without = ("strict", "workers", "overwrite", "progress")
        return {name: value for name, value in asdict(self).items() if name not in without}


def run(source: Source, adapter: Adapter, settings: Settings, out: Path) -> dict[str, Any]:
    """Preprocess `source` into the folder `out` and return the manifest.

    Killed at any moment and started again with the same arguments, it goes on from the last finished part, and the
    output is the same as that of an uninterrupted run. A finished output is returned as it is, unless no row was kept:
    then it is made again, by whatever arguments.

    Raises:
        SourceError: the source cannot be read.
        StrictError: a bad row under `settings.strict`.
        WorkError: `out` holds the work of another source or other settings, or is in use.
    """
    identity = {
        "version": FORMAT_VERSION,
        "source": source.identity(),
        "adapter": repr(adapter),
        "settings": settings.identity(),
    }
    out.mkdir(parents=True, exist_ok=True)
    work = out / _WORK
    with locked(out):
        for leftover in out.glob(".*.tmp"):
            leftover.unlink()
        if settings.overwrite or _kept_nothing(out, identity):
            (out / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(work, ignore_errors=True)
        if not settings.overwrite:
            _check_same_run(out, identity)
        manifest = read_json(out / MANIFEST)
        if manifest is None:
            work.mkdir(exist_ok=True)
            write_json(work / _RUN, identity)
            parts = _make_parts(source, adapter, settings, work)
            manifest = identity | _finish(parts, adapter, settings, out)
            write_json(out / MANIFEST, manifest)
        shutil.rmtree(work, ignore_errors=True)
        if settings.strict and manifest["rows"]["rejected"]:
            advice = f"repair the row and run again with --overwrite, for {out} is finished"
            raise _strict_error(next(rejected_rows(out)), advice)
        return manifest


def _kept_nothing(out: Path, identity: Mapping[str, Any]) -> bool:
    """Whether `out` holds a run that kept no row, finished or begun by another command: it is in nobody's way."""
    if manifest := read_json(out / MANIFEST):
        return not manifest["rows"]["kept"]
    begun = read_json(out / _WORK / _RUN)
    return begun not in (None, identity) and not any(map(kept_rows, (out / _WORK).glob("*.parquet")))


def _check_same_run(out: Path, identity: dict[str, Any]) -> None:
    found = read_json(out / MANIFEST) or read_json(out / _WORK / _RUN)
    if found is None:
        if foreign := sorted(out.glob(SHARD_PATTERN)):
            raise WorkError(f"{foreign[0]} is there, but not from this program. Choose another --out, or --overwrite")
        return
    changed = [name for name in identity if found.get(name) != identity[name]]
    if changed:
        raise WorkError(
            f"{out} holds the output of another run (different: {', '.join(changed)}). "
            "Choose another --out, or --overwrite to replace it"
        )


def _make_parts(source: Source, adapter: Adapter, settings: Settings, work: Path) -> list[tuple[Path, dict[str, int]]]:
    """Make every part that is not done yet; return all of them, each with its manifest."""
    parts: list[Path] = []

    def jobs() -> Iterator[PartJob]:
        first = 0
        for number, rows in enumerate(_chunks(islice(source.rows(), settings.limit))):
            parts.append(work / f"{number:06d}.parquet")
            yield PartJob(
                parts[-1],
                first,
                rows,
                adapter,
                source.image_root,
                settings.max_pixels,
                settings.follow_links,
                retry_rejected=settings.strict,
            )
            first += len(rows)

    manifests: list[dict[str, int]] = []
    rejected = 0
    total = settings.limit or source.total_rows()
    with tqdm(total=total, unit="row", desc="rows", disable=not settings.progress) as bar:
        for manifest in ordered_results(make_part, jobs(), settings.workers):
            if settings.strict and manifest["rejected"]:
                part = parts[len(manifests)]
                bad = rejections(part)[0]
                part.unlink()  # so that it is made again, also by a run without --strict
                raise _strict_error(bad, "repair the row and run again")
            manifests.append(manifest)
            rejected += manifest["rejected"]
            bar.update(manifest["read"])
            bar.set_postfix(rejected=rejected)
    return list(zip(parts, manifests, strict=True))


def _chunks(rows: Iterator[RawRow]) -> Iterator[list[RawRow]]:
    """The rows of each part: bounded in number, and in the size of what they carry (long texts, embedded images)."""
    chunk: list[RawRow] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += _content_size(row.fields)
        if len(chunk) == PART_ROWS or size >= PART_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _content_size(value: Any) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_content_size, value.values()))
    if isinstance(value, list):
        return sum(map(_content_size, value))
    return 0


def rejected_rows(out: Path) -> Iterator[dict[str, Any]]:
    """The bad rows of a finished output, in source order."""
    with (out / REJECTED).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _strict_error(bad: dict[str, Any], advice: str) -> StrictError:
    return StrictError(
        f"{bad['file']}, row {bad['row']} (from 0), field {bad['field']!r}: {bad['reason']} [{bad['fault']}]; {advice}"
    )


def _finish(
    parts: list[tuple[Path, dict[str, int]]], adapter: Adapter, settings: Settings, out: Path
) -> dict[str, Any]:
    """Write shards and ``rejected.jsonl``; return what the manifest says about them."""
    faults: Counter[str] = Counter()
    with replacing(out / REJECTED) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for bad in (bad for part, manifest in parts if manifest["rejected"] for bad in rejections(part)):
            # A reason may quote half a character of a broken text: ASCII with escapes holds anything.
            lines.write(json.dumps(bad) + "\n")
            faults[bad["fault"]] += 1
    assembled = assemble(
        [part for part, _ in parts],
        adapter.schema,
        SplitAssigner(settings.val_fraction, settings.seed),
        out,
        max_rows=settings.shard_rows,
        max_bytes=settings.shard_bytes,
        tied=any(manifest["tied"] for _, manifest in parts),
        progress=settings.progress,
    )
    return {
        "rows": {name: sum(manifest[name] for _, manifest in parts) for name in ("read", "kept", "rejected")},
        "shards": [asdict(shard) for shard in assembled.shards],
        "faults": dict(sorted(faults.items())),
        "kinds": _nested(assembled.kinds),
        "data_sources": _nested(assembled.sources),
        "text_only": dict(sorted(assembled.text_only.items())),
    }


def _nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """{side: {name: count}} in a fixed order."""
    nested: dict[str, dict[str, int]] = {}
    for (side, name), count in sorted(counts.items()):
        nested.setdefault(side, {})[name] = count
    return nested
