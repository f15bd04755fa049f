"""Turn a checkpoint of a run into a folder that transformers and vLLM load: ``python -m recipe.sophiavl.merge``.

verl's own merger (``verl.model_merger``) puts the ranks' shards together, in bfloat16. Of a run with adapters it leaves
base weights and adapters apart; here they become one model. The folder gets its name once it is whole.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.sophiavl.run_folder import RunFolder
from recipe.sophiavl.validation import SettingsError
from recipe.sophiavl.verl_support import environment, internals

_SHARDS = "fsdp_config.json"  # verl writes it into the folder of the shards
_ADAPTER = "lora_adapter"
_STEP = re.compile(r"global_step_(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        folder: holds the shards of the model, and its configuration and processor in ``huggingface``.
        shards: one file a rank, in their order.
        adapters: the model is base weights and adapters.
    """

    folder: Path
    shards: tuple[Path, ...]
    adapters: bool

    def describe(self) -> str:
        size = sum(shard.stat().st_size for shard in self.shards)
        kind = "base weights and adapters" if self.adapters else "weights"
        return f"{self.folder}: {kind} of {len(self.shards)} ranks, {size / 1e9:.3g} GB"


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint that a path means.

    Args:
        path: a run's folder or its ``checkpoints`` (the newest one), a ``global_step_N``, or the ``actor`` in it.

    Raises:
        SettingsError: there is none, or it was not written to its end.
    """
    if not path.is_dir():
        raise SettingsError(f"{path}: no such folder")
    folder = _shards_folder(path)
    _check_finished(folder)
    try:
        ranks = json.loads((folder / _SHARDS).read_text(encoding="utf-8"))["world_size"]
        shards = tuple(folder / f"model_world_size_{ranks}_rank_{rank}.pt" for rank in range(ranks))
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{folder / _SHARDS}: half-written, or not verl's ({error!r})") from error
    for file in (*shards, folder / "huggingface/config.json", folder / "huggingface/tokenizer_config.json"):
        if not file.is_file():
            raise SettingsError(f"{file}: missing, so the checkpoint is not whole")
    for shard in shards:
        if not zipfile.is_zipfile(shard):  # torch writes the archive's directory last
            raise SettingsError(f"{shard}: half-written (it has no end), so the checkpoint is not whole")
    return Checkpoint(folder, shards, (folder / "lora_train_meta.json").exists())


def _shards_folder(path: Path) -> Path:
    """The folder with the shards that a path means."""
    for folder in (path, path / "actor"):
        if (folder / _SHARDS).exists():
            return folder
    for run in (RunFolder(path), RunFolder(path, checkpoints=path)):
        if (step := run.latest_step()) is not None:
            newest = run.checkpoints / f"global_step_{step}"
            if not newest.is_dir():
                raise SettingsError(f"{newest}: missing, though it is the newest checkpoint of this run")
            return _shards_folder(newest)
        if any(_STEP.fullmatch(folder.name) for folder in run.checkpoints.glob("*/")):
            raise SettingsError(
                f"{run.checkpoints}: no checkpoint was finished here (verl notes the last one in "
                "latest_checkpointed_iteration.txt, which does not say)"
            )
    if (path / "config.json").exists():
        raise SettingsError(f"{path}: this is a model folder already, no checkpoint of a run")
    if path.name == "actor" or _STEP.fullmatch(path.name):
        raise SettingsError(f"{path}: half-written: it has no {_SHARDS}, which verl writes last")
    raise SettingsError(
        f"{path}: no checkpoint. Give a run's folder, its checkpoints/global_step_N, or the folder actor in it"
    )


def _check_finished(folder: Path) -> None:
    """Refuse a step after the last one that verl noted as saved."""
    for place in (folder, folder.parent):
        if (match := _STEP.fullmatch(place.name)) is not None:
            latest = RunFolder(place.parent, checkpoints=place.parent).latest_step()
            if latest is not None and int(match[1]) > latest:
                raise SettingsError(f"{place}: half-written: the last checkpoint that was finished is of step {latest}")


def check_target(out: Path) -> None:
    """Raises SettingsError unless ``out`` is a folder that may be made, or is empty."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise SettingsError(f"{out}: exists already, and is not empty; give another folder")


def merge(checkpoint: Checkpoint, out: Path) -> None:
    """Write the model of a checkpoint, with its processor and generation settings, and its adapters beside.

    Args:
        checkpoint: as `find_checkpoint` gives it.
        out: folder to make; it appears whole or not at all.

    Raises:
        SettingsError: there is something at ``out``, or the checkpoint holds adapters alone.
    """
    check_target(out)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if checkpoint.adapters:
            _check_base_weights(checkpoint)
        internals.merge_shards(checkpoint.folder, part)
        if checkpoint.adapters:
            _merge_adapters(part)
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_base_weights(checkpoint: Checkpoint) -> None:
    import torch

    names = torch.load(checkpoint.shards[0], map_location="meta", weights_only=False, mmap=True)
    if all("lora_" in name for name in names):
        raise SettingsError(
            f"{checkpoint.folder}: adapters alone (save_lora_only), without the base weights that a model needs"
        )


def _merge_adapters(folder: Path) -> None:
    """Add the adapters in ``lora_adapter`` to the weights beside it, in place (``W + alpha / r * B @ A``)."""
    from peft import PeftModel
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText

    adapter = folder / _ADAPTER
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
        names = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors.keys()}  # noqa: SIM118
    # verl names the last part only, which modules without an adapter share
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    text = json.dumps(config | {"target_modules": sorted(names)}, indent=2)
    (adapter / "adapter_config.json").write_text(text, encoding="utf-8")
    base = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")
    PeftModel.from_pretrained(base, adapter).merge_and_unload(safe_merge=True).save_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; what can't be merged ends it with one sentence and exit code 1."""
    parser = argparse.ArgumentParser(prog="merge", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="a run's folder (its newest checkpoint), global_step_N, or actor")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--dry-run", action="store_true", help="say what would be merged, and check it")
    given = parser.parse_args(arguments)
    try:
        checkpoint = find_checkpoint(given.checkpoint)
        check_target(given.out)
        print(f"{checkpoint.describe()} -> {given.out}", flush=True)
        if given.dry_run:
            return
        environment.configure()
        merge(checkpoint, given.out)
    except SettingsError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{given.out} loads in transformers (AutoModelForImageTextToText) and in `vllm serve {given.out}`")


if __name__ == "__main__":
    main(sys.argv[1:])
