"""Pages from templates: text always escaped and hidden characters shown, scripts by hash, no request possible."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from page_kit.text import all_shown, number, shown, with_error, with_interval

_ASIDE = re.compile(r"([+-]?[\d.,]+|–) ((?:\[|\(|± ).*)", re.DOTALL)
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Figure:
    """A chart with its words.

    Attributes:
        title: what is drawn.
        svg: from `charts.to_svg`; None: there is nothing to draw, and `note` says why.
        note: small text beside or below it.
        unit: of the values, shown after the title.
        legend: a colour's name and what it stands for, in order.
        readout: what `charts.line_chart` gives for showing values under the pointer.
        anchor: id of the element; empty: none.
    """

    title: str
    svg: Markup | None
    note: str = ""
    unit: str = ""
    legend: Sequence[tuple[str, str]] = ()
    readout: dict[str, Any] | None = None
    anchor: str = ""


@dataclass(frozen=True)
class Table:
    """A table that sorts by a click or a key on a column's head.

    Attributes:
        columns: heads, the first of the rows' titles.
        rows: cells as text or numbers; all but the first `texts` of a row are aligned as numbers.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]
    title: str = ""
    note: str = ""
    texts: int = 1


@dataclass(frozen=True)
class _Script:
    text: str
    source: str = field(init=False)  # as a content security policy names it

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.text.encode()).digest()
        object.__setattr__(self, "source", f"'sha256-{base64.b64encode(digest).decode('ascii')}'")


def render(template: Path, *, styles: Sequence[Path] = (), scripts: Sequence[Path] = (), **context: Any) -> str:
    """The page that a template makes; the template extends ``base.html`` and may import ``parts.html``.

    Args:
        styles: files of CSS beside the kit's own.
        scripts: files of JavaScript beside the kit's own. They must not hold ``</script``.
        context: what the template names; every text in it is escaped, and its hidden characters are shown.

    Raises:
        jinja2.UndefinedError: the template names what the context has not.
    """
    texts = [_Script(_script(file)) for file in (_TEMPLATES / "page.js", *scripts)]
    css = "\n".join(file.read_text(encoding="utf-8") for file in (_TEMPLATES / "page.css", *styles))
    return (
        _environment(template.parent).get_template(template.name).render(kit_styles=css, kit_scripts=texts, **context)
    )


def _script(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if "</script" in text.lower():
        raise ValueError(f"{file}: '</script' would end the script in the page")
    return text


@cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_finalized,
        loader=jinja2.FileSystemLoader([folder, _TEMPLATES]),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "aside": _with_aside,
        "bdi": _isolated,
        "error": with_error,
        "interval": with_interval,
        "json_block": _json_block,
        "num": number,
    }
    return environment


def _finalized(value: Any) -> Any:
    """Every expression's value passes here before it is escaped, so that no template can forget it."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _isolated(value: Any) -> Markup:
    """Untrusted text in an element of its own direction."""
    return Markup("<bdi>{}</bdi>").format(shown(str(value)))


def _with_aside(cell: str | float) -> Markup | str | float:
    """A cell of a table; what stands after the number, its interval or a reason, is set apart from it."""
    found = _ASIDE.fullmatch(cell) if isinstance(cell, str) else None
    if found is None:
        return cell
    kind = "reason" if found[2].startswith("(") else "interval"
    return Markup('{} <span class="{}">{}</span>').format(shown(found[1]), kind, shown(found[2]))


def _json_block(value: Any, name: str) -> Markup:
    """Data for scripts, in an element that is never run.

    Raises:
        ValueError: a number that is not finite.
    """
    text = json.dumps(all_shown(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    safe = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup('<script type="application/json" id="{}">').format(name) + Markup(safe) + Markup("</script>")
