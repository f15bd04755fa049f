"""Charts are SVG that an HTML page can hold several of, in the page's own colours, with labels as text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from matplotlib.figure import Figure

from page_kit.charts import SERIES, Series, colour, line_chart, styled, to_svg, to_svg_file


def chart(**changes) -> tuple[str, dict]:
    one = Series("runs/$x^2$ <b>\x1b", [1, 2, 3], [0.25, 0.5, 0.125], [0.2, 0.4, 0.1], [0.3, 0.6, 0.2])
    return line_chart([one], **{"xlabel": "step", **changes})


def test_colours_are_the_pages_variables() -> None:
    svg, _ = chart(warning=(0, 0.5))
    assert {"var(--accent)", "var(--line)", "var(--muted)", "var(--warn)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert "#fd" not in svg
    for forbidden in ("<style", "<metadata", "xmlns", "http", "<?xml", "width="):
        assert forbidden not in svg.partition(">")[0] or forbidden == "width="
        if forbidden != "width=":
            assert forbidden not in svg


def test_ids_are_unique_among_charts_and_the_same_drawing_gives_the_same_bytes() -> None:
    one, other = chart()[0], chart(limits=(0, 1))[0]
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])
    for svg, own in zip((one, other), ids, strict=True):
        used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
        assert {first or second for first, second in used} <= own
    assert chart()[0] == one


def test_labels_are_text_and_never_formulas() -> None:
    with styled():
        figure = Figure()
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=colour("s0"))
        axis.set_xlabel("$\\frac{1}{2}$ <script>")
        svg = to_svg(figure, 'a "title" <b>')
    assert "$\\frac{1}{2}$ &lt;script&gt;" in svg
    assert 'aria-label="a &quot;title&quot; &lt;b&gt;"' in svg


def test_the_values_under_the_pointer_are_those_of_the_lines() -> None:
    svg, readout = chart(limits=(0, 1))
    (line,) = readout["lines"]
    assert (line["label"], line["x"], line["y"]) == ("runs/$x^2$ <b>␛", [1, 2, 3], [0.25, 0.5, 0.125])
    left, right, top, bottom = readout["box"]
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    assert 0 < left < right <= width
    assert 0 <= top < bottom < height
    assert readout["xlim"][0] < 1 < 3 < readout["xlim"][1]


def test_a_quantity_that_stays_what_it_is_is_drawn_so() -> None:
    svg, _ = line_chart([Series("", [1, 2], [1.0, 1.0 - 1e-8])], xlabel="step")
    ticks = [float(text.replace("−", "-")) for text in re.findall(r">(−?[\d.]+)</text>", svg)]
    assert max(abs(tick - 1) for tick in ticks if 0.9 < tick < 1.1 and tick != 1) > 1e-4


def test_parts_of_a_whole_are_stacked_in_their_colours() -> None:
    parts = [Series(name, [1, 2], [1, 2], colour=key) for name, key in zip("abc", SERIES, strict=False)]
    svg, _ = line_chart(parts, xlabel="step", stacked=True)
    assert all(f"fill: var(--{key})" in svg for key in SERIES[:3])
    ticks = [float(text) for text in re.findall(r">([\d.]+)</text>", svg)]
    assert max(ticks) >= 6


def test_one_step_is_a_point() -> None:
    svg, _ = line_chart([Series("", [7], [0.5])], xlabel="step")
    assert "<use" in svg


def test_a_chart_as_a_file_brings_its_colours_along() -> None:
    with styled():
        figure = Figure(figsize=(4, 2))
        figure.subplots().plot([0, 1], [0, 1], color=colour("s0"))
        text = to_svg_file(figure, 'a "title"')
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (float(root.get("width")), float(root.get("height"))) == (288, 144)
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert {"--s0", "--bg", "--muted"} <= used
    for name in used:
        values = [re.search(rf"{name}: (#\w+);", part)[1] for part in (light, dark)]
        assert values[0] != values[1]
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}
