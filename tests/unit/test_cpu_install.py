"""Installing the CPU environment: uv asks where pip would, pip steps in where uv fails, a second start does no work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "cpu_support"))
from uv_environment import uv_environment  # noqa: E402

LISTING = """\
:env:.default-timeout='180'
:env:.find-links='/wheels /more wheels'
global.cert='/ca.pem'
global.extra-index-url='https://a/simple\\nhttps://b/simple'
global.find-links='/overridden'
global.index-url='https://mirror/simple'
global.quiet='1'
global.trusted-host='mirror'
install.index-url='https://install/simple'
"""


def test_uv_asks_where_pip_is_configured_to_ask():
    assert uv_environment(LISTING, {}) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://install/simple",  # the command's own section wins over global
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_FIND_LINKS": "/wheels,/more,wheels",  # the environment wins; pip splits at blanks too
        "UV_INSECURE_HOST": "mirror",
        "UV_HTTP_TIMEOUT": "180",
        "SSL_CERT_FILE": "/ca.pem",
    }


def test_what_the_user_told_uv_stays():
    added = uv_environment(LISTING, {"UV_DEFAULT_INDEX": "https://mine", "SSL_CERT_FILE": "/other.pem"})
    assert "UV_DEFAULT_INDEX" not in added
    assert added["SSL_CERT_FILE"] == "/ca.pem"  # not uv's own variable: pip prefers its setting too


def test_a_pip_without_index_cannot_be_followed():
    with pytest.raises(ValueError, match="no-index"):
        uv_environment("global.no-index='true'\n", {})
    assert "UV_DEFAULT_INDEX" not in uv_environment("global.no-index='false'\n", {})


# Stands for Python 3.11, its venv module, pip and uv; writes down what is asked of them.
STAND_IN = r"""#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$LOG"
case "$(basename "$0") $*" in
  "uv cache dir") echo "$(dirname "$LOG")/cache" ;;
  "uv pip install"*) [[ -z "${UV_FAILS:-}" ]] || { echo "no route to the index" >&2; exit 2; }
    # as uv does; but uv waits for ever
    flock --timeout 5 "$(dirname "$(dirname "$0")")/.lock" true || { echo "the environment is locked" >&2; exit 2; }
    sleep "${UV_TAKES:-0}"; echo "default index: ${UV_DEFAULT_INDEX:-}" >>"$LOG"
    printf "Installed 1 package\n + one==1\n" >&2 ;;
  *"-c import sys"*) echo 3.11 ;;
  *"-m pip show"*) [[ -f "$(dirname "$LOG")/made" ]] ;;
  *"-m venv "*) mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python"; touch "$(dirname "$LOG")/made" ;;
  *"-m pip install"*"uv=="*) [[ -z "${NO_UV:-}" ]] || { echo "no such package" >&2; exit 1; }
    cp "$0" "$(dirname "$0")/uv" ;;
  *"uv_environment.py"*) echo "export UV_DEFAULT_INDEX=https://mirror/simple" ;;
esac
"""


@pytest.fixture
def setup(tmp_path):
    """Starts setup_cpu.sh of a copy of the repository's installation files, with stand-ins for Python, pip and uv."""
    clone = tmp_path / "clone"
    for path in ("examples/setup_cpu.sh", "examples/common.sh", "requirements-cpu.txt", "pyproject.toml"):
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, clone / path)
    shutil.copytree(REPOSITORY / "cpu_support", clone / "cpu_support", ignore=shutil.ignore_patterns("__pycache__"))
    stand_in = tmp_path / "python3.11"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "LOG": str(tmp_path / "log"), "PYTHON": str(stand_in)}

    def start(**more: str) -> subprocess.Popen[str]:
        command = ["bash", str(clone / "examples/setup_cpu.sh")]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env={**environment, **more}, stdout=pipe, stderr=pipe, text=True)

    start.log = tmp_path / "log"
    start.clone = clone
    return start


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def installs(log: Path, tool: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith(f"{tool} ") and "pip install" in line]


def test_uv_installs_the_lock_and_a_second_start_does_nothing(setup):
    status, out, err = finish(setup())
    assert status == 0, err
    assert "Installed." in out
    assert "Installed 1 package" in err
    assert "+ one" not in err
    assert any("-r requirements-cpu.txt ./cpu_support --editable ." in line for line in installs(setup.log, "uv"))
    assert all("--no-deps" in line for line in installs(setup.log, "uv"))
    assert "default index: https://mirror/simple" in setup.log.read_text()
    setup.log.unlink()
    assert finish(setup()) == (0, "", "")
    assert not setup.log.exists()


def test_torch_alone_comes_from_its_own_index(setup):
    assert finish(setup(TORCH_INDEX="https://torch/cpu"))[0] == 0
    indexes = [line for line in setup.log.read_text().splitlines() if line.startswith("default index")]
    expected = ["https://mirror/simple", "https://torch/cpu", "https://mirror/simple"]  # setuptools, torch, the rest
    assert indexes == [f"default index: {url}" for url in expected]


@pytest.mark.parametrize(
    ("failure", "says"), [({"NO_UV": "1"}, "No uv to be had"), ({"UV_FAILS": "1"}, "uv failed")], ids=["none", "fails"]
)
def test_pip_steps_in(setup, failure, says):
    status, out, err = finish(setup(**failure))
    assert status == 0, err
    assert says in out
    assert any("-r requirements-cpu.txt ./cpu_support --editable ." in line for line in installs(setup.log, "python"))


def test_what_an_interrupted_start_left_half_installed_counts_as_absent(setup):
    packages = setup.clone / ".venv/lib/python3.11/site-packages"
    for name, files in (("half-1.dist-info", ["METADATA"]), ("whole-1.dist-info", ["METADATA", "INSTALLER"])):
        (packages / name).mkdir(parents=True)
        for file in files:
            (packages / name / file).touch()
    assert finish(setup())[0] == 0
    assert sorted(path.name for path in packages.iterdir()) == ["whole-1.dist-info"]


def test_a_second_start_waits_for_the_first(setup):
    first = setup(UV_TAKES="1")
    while not setup.log.exists() or "uv pip" not in setup.log.read_text():
        assert first.poll() is None
    status, out, _ = finish(setup())
    assert (status, finish(first)[0]) == (0, 0)
    assert "waiting for it" in out
    assert "Installing" not in out
    assert len(installs(setup.log, "uv")) == 3  # the first's


def test_the_pinned_uv_reads_what_is_printed():
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("this environment was made without uv")
    environment = {**os.environ, **uv_environment(LISTING, {}), "UV_FIND_LINKS": "/none/of,these", "UV_OFFLINE": "1"}
    environment.pop("SSL_CERT_FILE")
    command = [uv, "pip", "install", "--dry-run", "--python", sys.executable, "no-such-package-sophiavl"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "/none/of" in done.stderr  # the folders of find-links are looked into, and there are none
