"""The model that a command is given: behind a URL, or a folder or hub name that vLLM serves as long as it is needed."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from recipe.sophiavl.model_checks import check_model
from recipe.sophiavl.server_process import free_port, running_server
from recipe.sophiavl.trm.client_settings import BaseUrls
from recipe.sophiavl.trm.preflight import printable
from recipe.sophiavl.validation import SettingsError
from recipe.sophiavl.verl_support import cpu_resources
from recipe.sophiavl.verl_support.environment import cpu_environment, wants_cpu_platform

logger = logging.getLogger(__name__)

_URL = TypeAdapter(BaseUrls)


def check_target(model: str, flags: Sequence[str]) -> None:
    """Check what a command is given as its model, before anything is started.

    Raises:
        SettingsError: no usable URL, no whole model folder, no name that can be had, or flags for nobody.
    """
    if not is_url(model):
        check_model("MODEL", model)
        return
    base_url(model)
    if flags:
        raise SettingsError("--serve-flags: this URL is served already; they are for a model that is started here")


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Attributes:
        url: the server's base URL.
        process: of a server of our own; None where it is somebody else's.
        log: of a server of our own.
    """

    url: str
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None

    def died(self) -> str | None:
        """Why a server of our own will not come back; None while it may."""
        if self.process is None or self.process.poll() is None:
            return None
        return (
            f"the server has ended (exit status {self.process.returncode}); its log is {self.log}. The same command "
            "goes on with what is missing"
        )


def is_url(model: str) -> bool:
    """Whether a model is a server's base URL, and no folder or hub name."""
    return "://" in model


def add_serving_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments about a server that is started for the command."""
    parser.add_argument(
        "--serve-flags",
        type=shlex.split,
        default=[],
        metavar="'FLAGS'",
        help="further flags of vllm serve for a model that is no URL, such as '--max-model-len 16384'",
    )


def model_name(model: str) -> str:
    """The last part of a model folder's path or of a hub's name: under it a server of our own serves it."""
    return Path(model).expanduser().resolve().name or "model"


@contextlib.contextmanager
def served(model: str, log: Path, flags: Sequence[str] = (), start_limit_s: float = 1800.0) -> Iterator[Served]:
    """The server of `model`: the one at this URL, or one that is started here and ended when the block is left.

    Args:
        model: base URL, model folder, or name of a model on the hub; see `check_target`.
        log: takes the output of a server that is started.
        flags: further flags of ``vllm serve``, for a server that is started.
        start_limit_s: seconds that it may take to start.

    Raises:
        SettingsError: no usable URL, or no vLLM to serve with.
        ServerError: the server does not start.
    """
    if is_url(model):
        yield Served(base_url(model))
        return
    if importlib.util.find_spec("vllm") is None:
        raise SettingsError(f"MODEL={model}: vllm is not installed here: see README.md, or give a server's URL")
    port = free_port()
    command, environment = _command(model, port, flags)
    print(f"Serving {printable(model)} with vLLM (log: {log})", file=sys.stderr, flush=True)
    url = f"http://127.0.0.1:{port}"
    with running_server("vLLM", command, environment, f"{url}/health", log, start_limit_s) as process:
        yield Served(f"{url}/v1", process, log)


def base_url(url: str) -> str:
    """The base URL, checked. Raises SettingsError; the message holds no password."""
    try:
        return _URL.validate_python(url)[0]
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise SettingsError(f"MODEL: no base URL: {fault['msg'].removeprefix('Value error, ')}") from None


def _command(model: str, port: int, flags: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The server's command line and environment; on CPU with the platform's number format and all its threads."""
    # Without a generation_config.json's own sampling, such as a repetition penalty, which the rollout does not have.
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(Path(model).expanduser())]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", model_name(model)]
    command += ["--generation-config", "vllm"]
    environment = dict(os.environ)
    if wants_cpu_platform():
        variables, _ = cpu_environment(environment)
        environment |= variables
        command += ["--enforce-eager", "--dtype", variables[cpu_resources.DTYPE]]
    return [*command, *flags], environment
