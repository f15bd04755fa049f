"""The page shows what was measured, and nothing that a row or a reply holds can do anything on it."""

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm_training.evaluate import evaluation as evaluating
from recipe.sophiavl.trm_training.evaluate.edits import Edit
from recipe.sophiavl.trm_training.evaluate.evaluation import Options, Results
from recipe.sophiavl.trm_training.evaluate.outputs import (
    EvaluationError,
    compared_with,
    load_evaluation,
    show,
    summary_of,
    tables_of,
)
from recipe.sophiavl.trm_training.evaluate.page import render_page, scatter
from recipe.sophiavl.trm_training.evaluate.rows import read_evaluation_set
from recipe.sophiavl.trm_training.evaluate.scoring import Scored, values_of
from recipe.sophiavl.trm_training.evaluate.sensitivity import EditedScore
from tests.support.scored_rows import make_row, write_rows

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)></dd>{{ 7 * 7 }}$x^2$ [red]"
CONFIG = ClientSettings(urls=("http://localhost:1/v1",), model=HOSTILE)


def make_results(tmp_path, edits=True, **changes):
    rows = [{**make_row(q, r), **changes} for q in range(4) for r in (2, 5, 8)]
    data = read_evaluation_set(write_rows(tmp_path / "t.parquet", rows))
    scores = [Scored(None if i == 3 else i / 12, "unparsable" if i == 3 else None, HOSTILE) for i in range(12)]
    edited = [
        EditedScore(i, "wrong_step", Edit("x", kind, HOSTILE), Scored(0.1, None, "0.1"), Scored(0.3, None, "0.3"), 0.05)
        for i in (5, 8, 11)
        for kind in ("number", "negation")
    ]
    edited = [*edited, EditedScore(5, "other_image", Edit(None, HOSTILE), None)] if edits else None
    options = Options(resamples=50, edits_limit=10 if edits else 0)
    blind = np.full(12, 0.4)
    evaluation = evaluating.evaluation_of(data, scores, blind, edited, CONFIG, options)
    return Results(data, scores, blind, edited, evaluation)


def page_of(results):
    worst = evaluating._worst(results.data, results.scores)
    return render_page(results.evaluation, results.data, values_of(results.scores), worst)


def plots_of(page):
    return dict(re.findall(r"<figcaption><b>(.*?)</b></figcaption>.*?(<svg .*?</svg>)", page, re.DOTALL))


def text_of(page):
    return re.sub(r"<[^>]*>", "", page)


def test_hostile_text_stays_text(tmp_path):
    page = page_of(make_results(tmp_path, question=HOSTILE, thinking=HOSTILE))
    assert page.count("<script") == 1  # the page's own, which its policy names by hash
    assert "onerror=alert(2)&gt;" in page
    assert not re.search(r"<img src=x", page)
    assert "{{ 7 * 7 }}" in page
    assert page.count("default-src 'none'") == 1
    assert not re.search(r"(?:src|href)=.?(?:https?:|//)", page)


def test_all_plots_are_pictures_inside_the_page(tmp_path):
    plots = plots_of(page_of(make_results(tmp_path)))
    assert [name.split()[0] for name in plots] == ["TRM&#39;s", "Rows", "Reliability", "ROC", "Best", "Sensitivity"]
    for svg in plots.values():
        assert svg.count("var(--") > 10  # drawn in the page's colours
        assert "#fd" not in svg
        assert len(re.findall("<(?:path|use) ", svg)) > 10


def test_without_edits_or_outcome_the_rest_is_drawn(tmp_path):
    plots = plots_of(page_of(make_results(tmp_path, edits=False, outcome=None)))
    assert [name.split()[0] for name in plots] == ["TRM&#39;s", "Rows", "Reliability"]


def test_nothing_scored_still_gives_a_page(tmp_path):
    results = make_results(tmp_path, edits=False)
    scores = [Scored(None, "unparsable", "no")] * 12
    evaluation = evaluating.evaluation_of(results.data, scores, None, None, CONFIG, Options(resamples=50))
    page = page_of(Results(results.data, scores, None, None, evaluation))
    assert "nothing to draw" in page
    assert "The 0 worst disagreements" in page
    assert evaluation["figures"]["mae"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "questions": 0,
        "images": 0,
        "reason": "no row has both scores",
    }


def test_the_worst_rows_are_shown_with_image_scores_and_reply(tmp_path):
    results = make_results(tmp_path)
    page = page_of(results)
    articles = page.split("<article>")[1:]
    assert len(articles) == 11  # of twelve rows one has no score
    assert "<dt>row</dt><dd>2</dd>" in articles[0]
    assert "<dt>reference</dt><dd>0.8</dd>" in articles[0]
    assert "<dt>TRM</dt><dd>0.16" in articles[0]
    assert 'src="data:image/png;base64,' in articles[0]
    assert "value is 0.8" in articles[0]
    assert "alert(1)" in articles[0]


def test_an_image_that_is_none_is_named(tmp_path):
    page = page_of(make_results(tmp_path, images=[{"bytes": b"<script>", "path": None}]))
    assert "an image that cannot be shown" in page
    assert page.count("<script") == 1
    assert "no image" in page_of(make_results(tmp_path, images=[]))


def test_another_evaluation_stands_beside(tmp_path):
    results = make_results(tmp_path)
    other = json.loads(json.dumps(results.evaluation))
    other["figures"]["mae"]["value"] -= 0.25
    difference = {"value": 0.25, "low": 0.1, "high": 0.4, "n": 11}
    beside = {**results.evaluation, "compared": compared_with(other, {"mae": difference})}
    console = Console(file=io.StringIO(), width=240)
    show(tables_of(beside), ["[red] and [/red]"], console)
    page = page_of(Results(results.data, results.scores, None, None, beside))
    for shown in (text_of(page), console.file.getvalue()):
        assert "+0.250 [0.100, 0.400]" in shown
    assert re.search(r"<th[^>]*>compared</th><th[^>]*>difference</th>", page)
    assert "[red] and [/red]" in console.file.getvalue()


def test_a_line_holds_all_raters_and_what_it_rests_on(tmp_path):
    figures, edits = tables_of(make_results(tmp_path).evaluation)
    assert figures.columns == ("TRM", "reference", "text only", "n", "questions", "images")
    lines = {row[0]: row[1:] for row in figures.rows}
    trm, reference, blind, *counts = lines["pairs of a group with the right answer above the wrong one"]
    assert trm.startswith("1.000 [")
    assert reference.startswith("1.000 [")
    assert blind.startswith("0.500 [")
    # Each group has two such pairs; the one wrong response of the second group has no score.
    assert counts == ["6", "3", "3"]
    assert lines["mean absolute error"][1] == ""
    kinds = [row[0] for row in edits.rows]
    assert kinds == [
        "unchanged, asked again",
        "a wrong step planted",
        "– by negation",
        "– by number",
        "languages mixed",
        "steps repeated",
        "other image",
    ]
    assert edits.columns[:5] == ("mean drop", "the judge's", "text only", "share that dropped", "share that rose")


def test_the_summary_is_a_markdown_table_of_who_scores(tmp_path):
    results = make_results(tmp_path)
    beside = {**results.evaluation, "compared": compared_with(results.evaluation, {})}
    lines = summary_of(beside).splitlines()
    assert lines[0] == "12 rows, 4 questions, 4 images; 95 % intervals by tied images"
    assert lines[2] == "|  | compared | TRM | reference | text only |"
    drops = [line.split(" | ") for line in lines if line.startswith("| mean drop: a wrong step")]
    assert [cell.split(" ")[0] for cell in drops[0][1:]] == ["0.57", "0.57", "0.50", "0.05"]
    assert {line.count("|") for line in lines[2:]} == {6}


def test_a_comparison_that_is_none_is_refused(tmp_path):
    good = make_results(tmp_path).evaluation
    file = tmp_path / "other.json"
    for text, message in (
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "no evaluation.json"),
        ('{"format": "other"}', "no evaluation.json"),
        (json.dumps({**good, "figures": 3}), "not as this command wrote it"),
        (json.dumps({name: value for name, value in good.items() if name != "settings"}), "not as this command wrote"),
        (json.dumps({**good, "figures": {"mae": {"value": "0.1"}}}), "not as this command wrote it"),
    ):
        if text is not None:
            file.write_text(text)
        with pytest.raises(EvaluationError, match=rf"other\.json: .*{message}"):
            load_evaluation(file)
    file.write_text(json.dumps(good))
    assert load_evaluation(file) == good


def test_many_rows_are_drawn_too(tmp_path):
    values = np.random.default_rng(0).random(5000).round(1)
    svg, legend = scatter(values, values[::-1])
    assert svg.count("var(--q") > 50
    assert legend[-1][1].endswith(" rows")
