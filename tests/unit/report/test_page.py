"""The page says and draws what the run's data holds, for one run and for several, and lets no text out of its place."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from recipe.sophiavl.report.load import load_run, load_runs
from recipe.sophiavl.report.page import alone, report_page
from recipe.sophiavl.report.run_data import Chart, Comparison, Line, RunData
from recipe.sophiavl.report.trust_figures import distributions, means
from testbed.synthetic_run import SyntheticRun, write_run

HOSTILE = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">\x1b[31m\u202e"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    made = SyntheticRun(steps=6, prompts=4, responses=4, rows=8, lost=0.1, validate_every=3, planted=HOSTILE)
    return load_run(write_run(tmp_path_factory.mktemp("hostile"), made))


@pytest.fixture(scope="module")
def page(run: RunData) -> str:
    return report_page(alone(run))


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="gallery-data">(.*?)</script>', page)[1])


def test_sentences_charts_trust_and_gallery_are_there(run: RunData, page: str) -> None:
    assert [name for name in ("ten-seconds", "curves", "trust", "gallery") if f'<section id="{name}">' in page] == [
        "ten-seconds",
        "curves",
        "trust",
        "gallery",
    ]
    assert page.count('<li class="') == len(run.sentences)
    for chart in run.charts:
        assert f'id="chart-{chart.key}"' in page
    assert page.count('id="chart-auc"') == 1
    assert page.count("<svg") == len(run.charts) + 2


def test_the_galleries_data_are_the_groups_with_hidden_characters_shown(run: RunData, page: str) -> None:
    data = data_of(page)
    assert [group["key"] for group in data["groups"]] == [group.id for group in run.gallery.groups]
    first, shown = run.gallery.groups[0], data["groups"][0]
    assert shown["responses"][0]["right"] == first.responses[0].right
    assert shown["responses"][0]["text"] == first.responses[0].text.replace("\x1b", "␛").replace("\u202e", "⟨U+202E⟩")
    assert {kind["key"]: kind["groups"] for kind in data["kinds"].values()} == {
        stratum.key: stratum.groups for stratum in run.gallery.strata
    }


def test_hostile_text_is_nowhere_markup(page: str) -> None:
    assert HOSTILE.partition("</script>")[2][:20] not in page
    assert "<img src=x" not in page
    assert not {"\x1b", "\u202e"} & set(page)
    assert page.count("</script>") == 3  # the kit's, the gallery's, and its data


def test_a_run_without_anything_has_a_page(tmp_path: Path) -> None:
    page = report_page(alone(load_run(tmp_path)))
    assert "No step has been logged yet." in page
    assert '<section id="gallery">' not in page
    assert '<section id="trust">' not in page


@pytest.mark.parametrize(
    "changes", [{"thinking": False}, {"validate_every": 0}, {"steps": 1}, {"planned": 100}, {"combine": "gdpo"}]
)
def test_runs_of_all_kinds_have_a_page(tmp_path: Path, changes: dict) -> None:
    made = SyntheticRun(**{"steps": 3, "prompts": 2, "responses": 4, "rows": 4, **changes})
    run = load_run(write_run(tmp_path / "run", made))
    page = report_page(alone(run))
    assert ('<section id="trust">' in page) == made.thinking
    assert page.count('data-plot="') == len(run.charts)


def test_several_runs_have_a_colour_each_and_links_of_their_own(tmp_path: Path) -> None:
    folders = []
    for name, seed, alpha in (("one", 0, 0.3), ("two", 1, 0.3), ("three", 0, 0.1)):
        made = SyntheticRun(steps=3, prompts=2, responses=4, rows=4, seed=seed, alpha=alpha)
        folders.append(write_run(tmp_path / name, made))
    comparison = load_runs(folders)
    page = report_page(comparison)
    data = data_of(page)
    assert data["runs"] == ["one", "two", "three"]
    keys = [group["key"] for group in data["groups"]]
    assert len(set(keys)) == len(keys)
    validation = page[page.index('id="chart-validation"') :]
    assert "dash" not in validation[: validation.index("</figure>")], "one way of validation: a line for each run"
    outcome = page[page.index('id="chart-outcome"') :]
    outcome = outcome[: outcome.index("</figure>")]
    assert {"var(--s0)", "var(--s1)"} <= set(re.findall(r"var\(--s\d\)", outcome))
    assert page.count("differ in nothing but their seeds") == 1


def test_the_lines_of_a_run_among_others_differ_by_their_dashes(run: RunData) -> None:
    lines = [Line(f"{run}, {way}", [1, 2], [0.0, 1.0], run=run) for run in (0, 1) for way in ("greedy", "sampled")]
    groups = [*alone(run).groups, *alone(run).groups]
    page = report_page(Comparison([run, run], groups, [Chart("outcome", "Outcome", "", lines, "A note.")]))
    keys = ["s0 dash0", "s0 dash1", "s1 dash0", "s1 dash1"]
    assert re.findall(r'class="key (s\d dash\d)"', page) == keys
    drawn = page[page.index('id="chart-outcome"') :]
    assert drawn[: drawn.index("</figure>")].count("stroke-dasharray") >= 2


def test_a_chart_that_is_new_has_a_place_too(run: RunData) -> None:
    chart = Chart("novel", "Something new", "", [Line("a", [1, 2], [0.0, 1.0])], "A note.")
    page = report_page(alone(replace(run, charts=[*run.charts, chart])))
    assert "<h3>More</h3>" in page
    assert 'id="chart-novel"' in page


def test_a_comparison_of_nothing_measured(tmp_path: Path) -> None:
    runs = [load_run(tmp_path), load_run(tmp_path)]
    assert "2 runs compared" in report_page(Comparison(runs, alone(runs[0]).groups, ()))


def test_groups_are_coloured_by_step(run: RunData) -> None:
    figure = means(run.trust)
    assert [label for _, label in figure.legend] == [f"step {step}" for step in range(1, 7)]
    assert len(re.findall("<use ", figure.svg)) >= len(run.trust.points)
    assert figure.note.startswith(f"{run.trust.distrusted} of {run.trust.groups} groups")
    alike = replace(run.trust, points=run.trust.points[:1])
    assert len(means(alike).legend) == 1
    assert means(replace(run.trust, points=[])).svg is None


def test_both_sides_are_drawn_in_each_part_of_the_run(run: RunData) -> None:
    figure = distributions(run.trust)
    assert "fill: var(--right)" in figure.svg
    assert "fill: var(--wrong)" in figure.svg
    empty = [replace(one, right=[0] * 11, wrong=[0] * 11) for one in run.trust.bins]
    assert distributions(replace(run.trust, bins=empty)).svg is None
    many = replace(run.trust, bins=[replace(run.trust.bins[0], first=n, last=n) for n in range(1, 41)])
    assert re.findall(r">(\d+–\d+)</text>", distributions(many).svg)[0] == "1–5"
