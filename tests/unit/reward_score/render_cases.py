"""Writes the tables of docs/outcome_rewards.md from the cases: python tests/unit/reward_score/render_cases.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CASES = Path(__file__).with_name("cases")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "outcome_rewards.md"
FILES = {"numerical": "numerical", "multiple choice": "multiple_choice", "OCR": "ocr", "free-form": "free_form"}
MARK = "<!-- Below: made by tests/unit/reward_score/render_cases.py from the cases beside it. -->\n"


def read_cases(problem_type: str) -> list[dict[str, Any]]:
    """The entries of a type: why, truth, and right and wrong answers, or rewards by answer; options and settings."""
    return yaml.safe_load((CASES / f"{FILES[problem_type]}.yaml").read_text(encoding="utf-8"))


def rewards(entry: dict[str, Any]) -> dict[str, float]:
    """The reward of each answer of an entry."""
    return {
        **dict.fromkeys(entry.get("right", ()), 1.0),
        **dict.fromkeys(entry.get("wrong", ()), 0.0),
        **entry.get("rewards", {}),
    }


def render() -> str:
    """The whole page: its own text down to the mark, then a table for each type."""
    lines = [PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK]
    for problem_type in FILES:
        entries = read_cases(problem_type)
        lines += [f"\n### {problem_type}: {sum(len(rewards(entry)) for entry in entries)} cases\n"]
        if any("rewards" in entry for entry in entries):
            lines += ["| why | truth | answer: reward |", "|-|-|-|"]
            lines += [f"| {_why(e)} | {_code(e['truth'])} | {_priced(e['rewards'])} |" for e in entries]
        else:
            lines += ["| why | truth | right | wrong |", "|-|-|-|-|"]
            lines += [
                f"| {_why(e)} | {_code(e['truth'])} | {_listed(e.get('right', ()))} | {_listed(e.get('wrong', ()))} |"
                for e in entries
            ]
    return "\n".join(lines) + "\n"


def _why(entry: dict[str, Any]) -> str:
    settings = "".join(f"; {name}: {str(value).lower()}" for name, value in entry.get("settings", {}).items())
    options = f"; options {_listed(entry['options'])}" if "options" in entry else ""
    return entry["why"].replace("|", "&#124;") + settings + options


def _listed(answers: list[str]) -> str:
    return " &nbsp; ".join(map(_code, answers))


def _priced(priced: dict[str, float]) -> str:
    return " &nbsp; ".join(f"{_code(answer)}: {reward:g}" for answer, reward in priced.items())


def _code(text: str) -> str:
    """A text as code in a table's cell, with signs for what can't be seen."""
    visible = {"\n": "⏎", "\t": "⇥"}
    shown = "".join(c if c == " " or c.isprintable() else visible.get(c, f"<U+{ord(c):04X}>") for c in text)
    fence = "``" if "`" in shown else "`"
    padding = " " if "`" in shown else ""
    return f"{fence}{padding}{shown}{padding}{fence}".replace("|", "\\|") if shown.strip() else "(nothing)"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
