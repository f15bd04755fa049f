"""Prints what pip is configured with (files and PIP_* alike) as the environment that uv reads, for a shell's ``eval``.

uv does not read pip's configuration. A variable of uv's own (``UV_*``) that the user has set stays as it is.
"""

import ast
import os
import shlex
import subprocess
import sys

# pip's setting: the variables that say the same to uv, and what stands between several values
VARIABLES = {
    "index-url": (["UV_DEFAULT_INDEX"], " "),
    "extra-index-url": (["UV_INDEX"], " "),
    "find-links": (["UV_FIND_LINKS"], ","),
    "trusted-host": (["UV_INSECURE_HOST"], " "),
    "constraint": (["UV_CONSTRAINT"], " "),
    "timeout": (["UV_HTTP_TIMEOUT"], " "),
    "retries": (["UV_HTTP_RETRIES"], " "),
    "cert": (["SSL_CERT_FILE"], " "),
    "client-cert": (["SSL_CLIENT_CERT"], " "),
    "proxy": (["HTTP_PROXY", "HTTPS_PROXY"], " "),
}
SECTIONS = ("global", "install", ":env:")  # the later wins, as pip has it


def settings(listing: str) -> dict[str, list[str]]:
    """Values that hold for ``pip install``, by setting, from the output of ``pip config list``."""
    found: dict[str, list[str]] = {}
    lines = [line.partition("=") for line in listing.splitlines()]
    for section in SECTIONS:
        for key, _, value in lines:
            if key.startswith(f"{section}."):
                name = key.removeprefix(f"{section}.").removeprefix("default-")  # default-timeout is timeout
                found[name] = ast.literal_eval(value).split()
    return found


def uv_environment(listing: str, environment: dict[str, str]) -> dict[str, str]:
    """What to add to ``environment`` so that uv asks where pip would.

    Raises:
        ValueError: pip may ask no index, which no variable of uv's says.
    """
    found = settings(listing)
    if found.get("no-index", ["false"]) not in (["false"], ["0"], ["no"], ["off"]):
        raise ValueError("pip is configured with no-index, which uv's environment cannot say")
    # pip takes the best version from all indexes; uv by itself looks no further than the first that has the package
    added = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for name, (variables, separator) in VARIABLES.items():
        if values := found.get(name):
            added |= dict.fromkeys(variables, separator.join(values))
    return {name: value for name, value in added.items() if not (name.startswith("UV_") and environment.get(name))}


if __name__ == "__main__":
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    try:
        for name, value in uv_environment(listing, dict(os.environ)).items():
            print(f"export {name}={shlex.quote(value)}")
    except ValueError as error:
        sys.exit(f"uv_environment.py: {error}")
