"""Charts as inline SVG whose colours are the page's CSS variables, so that one drawing serves light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from page_kit.text import shown

SERIES = ("s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9")  # of several lines, in order
SCALE = ("q0", "q1", "q2", "q3", "q4", "q5")  # from little to much, or from early to late
_COLOURS = ("ink", "muted", "line", "bg", "accent", "right", "wrong", "warn", *SERIES, *SCALE)
_DASHES = ("-", "--", ":", "-.")
_STANDS_FOR = re.compile("#fd([0-9a-f]{2})fb")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_STYLES = Path(__file__).parent / "templates/page.css"
_VALUES = re.compile(r":root \{.*?^\}\n@media \(prefers-color-scheme: dark\) \{.*?^\}\n", re.DOTALL | re.MULTILINE)
_LEAST_SPAN = 0.005  # of an axis, in parts of its values: a quantity that stays what it is looks so
_DIGITS = 5  # of a value under the pointer


def colour(name: str) -> str:
    """The colour for matplotlib that becomes the page's variable ``--name``."""
    return f"#fd{_COLOURS.index(name):02x}fb"


_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "page",  # the same drawing gives the same bytes
    "text.parse_math": False,  # a run may be called $x$
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": colour("ink"),
    "axes.edgecolor": colour("line"),
    "axes.labelcolor": colour("muted"),
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.02,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "grid.color": colour("line"),
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "savefig.facecolor": "none",
    "xtick.color": colour("line"),
    "ytick.color": colour("line"),
    "xtick.labelcolor": colour("muted"),
    "ytick.labelcolor": colour("muted"),
}


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        x, y: as long as each other, `x` ascending.
        low, high: a band around it; None: without.
        colour: name of a colour, one of `SERIES` or ``accent``, ``right``, ``wrong``.
        dash: place in the order solid, dashed, dotted, dash-dotted.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    colour: str = "accent"
    dash: int = 0


@contextmanager
def styled() -> Iterator[None]:
    """The look of all charts; figures are made and turned into SVG inside it."""
    with mpl.rc_context(_STYLE):
        yield


def line_chart(
    series: Sequence[Series],
    *,
    xlabel: str,
    limits: tuple[float, float] | None = None,
    stacked: bool = False,
    warning: tuple[float, float] | None = None,
    size: tuple[float, float] = (4.2, 2.5),
    description: str = "",
) -> tuple[Markup, dict[str, Any]]:
    """Lines over one horizontal axis, and what a page needs to show their values under the pointer.

    Args:
        limits: ends of the vertical axis; None: from the values.
        stacked: whether the lines are parts of a whole, drawn on top of one another; all have the same `x` then.
        warning: a range of values that is shaded.
        size: in inches of 72 CSS pixels before the page scales it.
        description: for those who cannot see it.
    """
    with styled():
        figure = Figure(figsize=size)
        axis = figure.subplots()
        if warning is not None:
            axis.axhspan(*warning, color=colour("warn"), alpha=0.14, linewidth=0)
        if stacked and len({tuple(one.x) for one in series}) == 1:
            colours = [colour(one.colour) for one in series]
            axis.stackplot(series[0].x, *(one.y for one in series), colors=colours, alpha=0.75, linewidth=0)
        else:
            for one in series:
                _draw_line(axis, one)
        axis.set_xlabel(shown(xlabel))
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(5))
        _set_height(axis, (0, None) if stacked and limits is None else limits)
        svg = to_svg(figure, description)
        return svg, _readout(figure, axis, series, xlabel)


def _draw_line(axis: Axes, one: Series) -> None:
    drawn = {"color": colour(one.colour), "linestyle": _DASHES[one.dash % len(_DASHES)]}
    if len(one.x) == 1:
        drawn |= {"marker": "o", "markersize": 4}
    if one.low is not None and one.high is not None:
        axis.fill_between(one.x, one.low, one.high, color=drawn["color"], alpha=0.16, linewidth=0)
    axis.plot(one.x, one.y, **drawn)


def _set_height(axis: Axes, limits: tuple[float, float | None] | None) -> None:
    low, high = axis.get_ylim()
    if limits is None:
        short = _LEAST_SPAN * max(abs(low), abs(high)) - (high - low)
        if short > 0:
            axis.set_ylim(low - short / 2, high + short / 2)
    elif limits[1] is None:
        axis.set_ylim(bottom=limits[0])
    else:
        margin = 0.03 * (limits[1] - limits[0])
        axis.set_ylim(limits[0] - margin, limits[1] + margin)


def _readout(figure: Figure, axis: Axes, series: Sequence[Series], xlabel: str) -> dict[str, Any]:
    """Where the axes are in the drawing, and the values; lengths in the units of its view box."""
    width, height = (72 * length for length in figure.get_size_inches())
    box = axis.get_position()
    lines = [
        {
            "label": shown(one.label),
            "colour": one.colour,
            "x": [float(f"{value:.{_DIGITS}g}") if value % 1 else int(value) for value in one.x],
            "y": [float(f"{value:.{_DIGITS}g}") for value in one.y],
        }
        for one in series
    ]
    rounded = [
        round(edge, 2) for edge in (box.x0 * width, box.x1 * width, (1 - box.y1) * height, (1 - box.y0) * height)
    ]
    return {"box": rounded, "xlim": list(map(float, axis.get_xlim())), "xlabel": shown(xlabel), "lines": lines}


def to_svg(figure: Figure, description: str = "") -> Markup:
    """The figure as an element of a page: its colours are CSS variables, its ids its own, its text text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(
        _STANDS_FOR.sub(lambda found: f"var(--{_COLOURS[int(found[1], 16)]})", buffer.getvalue())
    )
    _tidy(root)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": shown(description)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def to_svg_file(figure: Figure, description: str = "") -> str:
    """The figure as a file of its own, with the page's colours for light and for dark: for Markdown, as an image."""
    root = ElementTree.fromstring(to_svg(figure, description))
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "width": width, "height": height}
    style = ElementTree.Element("style")
    style.text = _VALUES.search(_STYLES.read_text(encoding="utf-8"))[0]
    root.insert(0, ElementTree.Element("rect", width="100%", height="100%", fill="var(--bg)"))
    root.insert(0, style)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _tidy(root: ElementTree.Element) -> None:
    """Leave what HTML needs: no namespaces, metadata or styles for the whole page; ids unique among several charts."""
    for element in list(root.iter()):
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):
                element.remove(child)
    prefix = blake2b(ElementTree.tostring(root), digest_size=4).hexdigest()
    used: set[str] = set()
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in list(element.attrib):
            value = element.attrib.pop(name)
            bare = name.rpartition("}")[2]
            if bare == "href" and value.startswith("#"):
                used.add(value[1:])
                value = f"#{prefix}{value[1:]}"
            used.update(_REFERENCE.findall(value))
            if bare != "space":
                element.set(bare, _REFERENCE.sub(rf"url(#{prefix}\1)", value))
    for element in root.iter():
        if (name := element.attrib.pop("id", None)) in used:
            element.set("id", f"{prefix}{name}")
