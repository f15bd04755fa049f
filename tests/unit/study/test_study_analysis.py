"""From raw results with known effects to comparisons, claims, tables and figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from scipy import stats

from recipe.sophiavl.study import figures, tables
from recipe.sophiavl.study.analysis import analyse, findings_of
from recipe.sophiavl.study.claims import verdict
from recipe.sophiavl.study.comparisons import MAIN_PAIRS, MAIN_SEEDS, PLAN
from recipe.sophiavl.study.grid import load_study
from tests.support.study_results import cell_lines, known, write_cell, write_grid

REPOSITORY = Path(__file__).resolve().parents[3]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_grid(folder, effect=known, noise=0.004)
    return write_grid(folder, ("default", "gdpo"), ("oracle", "length"), 3, effect=known, noise=0.004)


@pytest.fixture(scope="module")
def out(grid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    analyse(grid, folder)
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads((out / "results.json").read_text(), parse_constant=refuse)


def difference(found: dict[str, Any], label: str, reward_model: str, measure: str) -> dict[str, Any]:
    (one,) = (
        one
        for one in found["differences"]
        if (one["label"], one["reward_model"], one["measure"]) == (label, reward_model, measure)
    )
    return one


def test_known_effects_are_decided_as_they_are(found: dict[str, Any]):
    verdicts = {claim["key"]: claim["verdicts"] for claim in found["claims"]}
    main = {key: {name: of.get(name) for name in ("oracle", "noisy", "hackable")} for key, of in verdicts.items()}
    assert main == {
        "1": dict.fromkeys(("oracle", "noisy", "hackable"), "supported"),
        "2a": {"oracle": "undecided", "noisy": "undecided", "hackable": "supported"},
        "2b": {"oracle": None, "noisy": "undecided", "hackable": "supported"},
        "3a": dict.fromkeys(("oracle", "noisy", "hackable"), "against"),
        "3b": {"oracle": "against", "noisy": "against", "hackable": "undecided"},
        "4": dict.fromkeys(("oracle", "noisy", "hackable"), "supported"),
        "5": {"oracle": None, "noisy": "undecided", "hackable": "supported"},
    }


def test_a_difference_is_paired_by_seed_and_computed_by_the_raw_results(found: dict[str, Any]):
    one = difference(found, "default − outcome_only", "noisy", "greedy")
    raw = [
        cell_lines("default", "noisy", seed, noise=0.004)[13]["outcome"]
        - cell_lines("outcome_only", "none", seed, noise=0.004, effect=-0.06)[13]["outcome"]
        for seed in range(1, 7)
    ]
    assert list(one["by_seed"].values()) == pytest.approx(raw, abs=1e-5)
    interval = stats.ttest_1samp(raw, 0).confidence_interval(0.95)
    assert [one["low"], one["high"]] == pytest.approx(list(interval), abs=1e-4)
    corrected = stats.ttest_1samp(raw, 0).confidence_interval(1 - 0.05 / 12)
    assert one["corrected"]["comparisons"] == 12
    assert [one["corrected"]["low"], one["corrected"]["high"]] == pytest.approx(list(corrected), abs=1e-4)
    assert one["low"] < 0.06 < one["high"]


def test_pairing_takes_out_what_the_cells_of_a_seed_share(found: dict[str, Any]):
    cell = next(one for one in found["cells"] if (one["variant"], one["reward_model"]) == ("default", "oracle"))
    assert (
        difference(found, "default − outcome_only", "oracle", "greedy")["sd"] < 0.75 * cell["measures"]["greedy"]["sd"]
    )


def test_an_interaction_is_a_difference_of_differences(found: dict[str, Any]):
    one = difference(found, "(default − no_trust), hackable less oracle", "hackable", "sampled")
    bad = difference(found, "default − no_trust", "hackable", "sampled")
    good = difference(found, "default − no_trust", "oracle", "sampled")
    assert one["mean"] == pytest.approx(bad["mean"] - good["mean"], abs=1e-5)
    assert one["family"] == "interaction, main reward models"


def test_first_looks_and_other_variants_are_corrected_apart(found: dict[str, Any]):
    greedy = [one for one in found["differences"] if one["measure"] == "greedy"]
    families = {one["family"]: one["corrected"]["comparisons"] for one in greedy}
    assert families == {
        "planned, main reward models": 12,
        "planned, other reward models": 6,  # planned, though none but one has run
        "interaction, main reward models": 2,
        "other, main reward models": 10,
        "other, other reward models": 2,  # one of them beyond the plan
    }
    assert {one["n"] for one in greedy if one["reward_model"] == "length"} == {3}
    assert {one["measure"] for one in found["differences"] if one["kind"] == "detection"} == {"gamma"}


def test_the_measures_of_a_cell_are_those_of_its_lines(tmp_path: Path):
    lines = cell_lines("default", "oracle", 1)
    steps, (greedy, sampled) = lines[1:13], lines[13:]
    write_cell(tmp_path, lines)
    values = {name: of.get(1) for name, of in findings_of(tmp_path, 0.7).values["default", "oracle"].items()}
    outcomes = [step["outcome"] for step in steps]
    first = next(place for place in range(3, 13) if np.mean(outcomes[place - 3 : place]) >= 0.7)
    assert values == pytest.approx(
        {
            "greedy": greedy["outcome"],
            "sampled": sampled["outcome"],
            "area": (sum(outcomes) - (outcomes[0] + outcomes[-1]) / 2) / 11,
            "steps_to": first,
            "thinking": sampled["oracle"],
            "gamma": np.mean([step["gamma_mixed"] for step in steps]),
            "hacked": np.mean([step["hacked"] for step in steps[-3:]]),
            "length": sampled["length"],
        }
    )


def test_a_cell_that_never_got_there_is_a_lower_bound_in_the_table(tmp_path: Path):
    for seed in (1, 2):
        write_cell(tmp_path, cell_lines("default", "oracle", seed))
    text = tables.as_markdown(findings_of(tmp_path, 0.99), {})
    assert re.search(r"\| oracle \| default \| 2 \|.*\| ≥ 13.0 \|", text)
    assert "≥" not in re.search(r"\| oracle \| default .*", tables.as_markdown(findings_of(tmp_path, 0.6), {}))[0]
    assert tables.as_json(findings_of(tmp_path, 0.99))["cells"][0]["not_reached"] == [1, 2]


def test_a_difference_with_a_censored_seed_has_a_mean_and_no_more(tmp_path: Path):
    for seed in (1, 2, 3):
        write_cell(tmp_path, cell_lines("default", "oracle", seed, effect=0.15))
        write_cell(tmp_path, cell_lines("no_trust", "oracle", seed, effect=0.15 if seed < 3 else -0.2))
        write_cell(tmp_path, cell_lines("no_trust_no_annealing", "oracle", seed, effect=0.15))
    found = findings_of(tmp_path)
    lines = tables.as_json(found)
    assert next(one["not_reached"] for one in lines["cells"] if one["variant"] == "no_trust") == [3]
    assert re.search(r"\| oracle \| no_trust \| 3 \|.*\| ≥ [\d.]+ \|", tables.as_markdown(found, {})), "no ± of bounds"
    one = difference(lines, "default − no_trust", "oracle", "steps_to")
    assert (one["verdict"], one["reason"], one["n"]) == ("censored", "censored", 3)
    assert one["mean"] == pytest.approx(np.mean(list(one["by_seed"].values())), abs=1e-5)
    assert {one["low"], one["sd"], one["p"], one["corrected"]["pooled"], one["corrected"]["low"]} == {None}
    assert difference(lines, "default − no_trust_no_annealing", "oracle", "steps_to")["verdict"] != "censored"
    assert difference(lines, "default − no_trust", "oracle", "area")["corrected"]["low"] is not None
    row = re.search(r"\| default − no_trust \| oracle \| 3 \| [^|]* \| censored \|.*", tables.as_markdown(found, {}))[0]
    assert "[" not in row
    assert row.endswith("| censored | – | – |")


def test_the_plan_is_the_grid_of_the_studys_file():
    planned = load_study(REPOSITORY / "examples/study/study.yaml").cells()
    seeds = Counter((cell.variant, cell.reward_model) for cell in planned if cell.variant != "start")
    assert set(PLAN) == set(seeds)
    assert len(PLAN) == len(seeds)
    assert {seeds[pair] for pair in MAIN_PAIRS} == {MAIN_SEEDS}


def test_a_part_of_the_grid_is_corrected_as_the_whole(tmp_path: Path):
    found = findings_of(write_grid(tmp_path, ("default", "no_trust"), ("noisy",), 3))
    sizes = {one.contrast.family: one.test.comparisons for one in found.comparisons if one.measure == "sampled"}
    assert sizes == {"planned, main reward models": 12}


def test_two_seeds_give_no_verdict(tmp_path: Path):
    found = findings_of(write_grid(tmp_path, seeds=2, effect=known, noise=1e-6))
    assert {verdict(one) for one in found.comparisons if one.measure == "sampled"} == {"undecided (2 seeds)"}
    text = tables.as_markdown(found, {})
    assert "**undecided (2 seeds)**" in text
    assert "supported" not in text


@pytest.mark.parametrize(("seeds", "lost", "told"), [(6, 0, None), (6, 1, "1 of the 10"), (2, 0, "10 of the 10")])
def test_a_page_of_fewer_main_seeds_than_planned_says_so_at_its_top(
    tmp_path: Path, seeds: int, lost: int, told: str | None
):
    write_grid(tmp_path, seeds=seeds)
    for seed in range(seeds, seeds - lost, -1):
        (tmp_path / f"outcome_only.none.{seed}.jsonl").unlink()
    found = findings_of(tmp_path)
    top = tables.as_markdown(found, {}).split("\n\n")[1]
    assert ("interim" in top) == tables.as_json(found)["interim"] == (told is not None)
    assert told is None or told in top


def test_the_pooled_error_is_told_beside_every_verdict_and_by_reward_model(tmp_path: Path):
    random = np.random.default_rng(0)
    for variant, model in MAIN_PAIRS:
        for seed in range(1, 7):
            scatter = 0.05 if model == "noisy" else 0.002
            effect = scatter * random.normal() + 0.01 * (variant == "default" and model == "oracle")
            write_cell(tmp_path, cell_lines(variant, model, seed, effect=effect, noise=0.0))
    found = findings_of(tmp_path)
    errors = {model: of["sampled"].sd for model, of in found.errors_by_model.items()}
    assert errors["noisy"] > 10 * max(errors["oracle"], errors["hackable"])
    assert min(errors.values()) < found.errors["sampled"].sd < max(errors.values())
    one = next(answer for answer in found.answers if answer.claim.key == "1")
    oracle, noisy = (re.search(rf"{model} \([^)]*\)", one.sentence)[0] for model in ("oracle", "noisy"))
    assert re.search("supported with oracle .*undecided with", one.sentence)
    assert "by the pooled error undecided" in oracle
    assert "by the pooled error" in noisy
    close = difference(tables.as_json(found), "default − outcome_only", "oracle", "sampled")["corrected"]["spread_p"]
    assert close < 0.001
    page = tables.as_markdown(found, {})
    assert re.search(rf"\| default − outcome_only \| oracle \| .* \| {close:.2g} \|\n", page)
    assert re.search(rf"\| accuracy, sampled \| .* \| {errors['hackable']:.4f} \|\n", page)


def test_the_dose_of_trust_is_told_beside_its_claim(tmp_path: Path):
    lines = cell_lines("default", "hackable", 1, steps=2)
    lines[1] |= {"gamma": 0.8, "anneal": 0.9}
    lines[2] |= {"gamma": 1.0, "anneal": 0.3}
    write_cell(tmp_path, lines)
    write_cell(tmp_path, cell_lines("no_trust", "hackable", 1, steps=2))
    sentences = {one.claim.key: one.sentence for one in findings_of(tmp_path).answers}
    # 0.9 * 0.2 of 0.9 + 0.3
    assert sentences["2a"].endswith("weight, trust took away 15.0 % with hackable (default, all groups).")
    assert "smaller weight" in sentences["3a"]


def test_older_files_have_the_trust_weight_of_all_groups_and_never_the_two_together(tmp_path: Path):
    def older(seed: int) -> None:
        lines = cell_lines("default", "oracle", seed)
        for line in lines[1:13]:
            del line["gamma_mixed"]
        write_cell(tmp_path, lines)

    older(1)
    found = findings_of(tmp_path)
    assert found.values["default", "oracle"]["gamma"] == {1: pytest.approx(0.99)}
    assert "gamma, all groups" in tables.as_markdown(found, {})
    write_cell(tmp_path, cell_lines("default", "oracle", 2))
    found = findings_of(tmp_path)
    assert list(found.values["default", "oracle"]["gamma"]) == [2]
    assert "gamma, mixed groups" in tables.as_markdown(found, {})
    words = {
        element.text for element in ElementTree.fromstring(figures.draw(found)["curves.svg"][0]).iter(f"{SVG}text")
    }
    assert "gamma, mixed groups" in words


def test_the_curve_is_of_mixed_groups_also_beside_an_older_seed(tmp_path: Path):
    older, newer = (cell_lines("default", "oracle", seed) for seed in (1, 2))
    for line in older[1:13]:
        del line["gamma_mixed"]
    write_cell(tmp_path, older)

    def drawn(**changes: float) -> str:
        write_cell(tmp_path, [line | changes if line.get("step") == 5 else line for line in newer])
        return figures.draw(findings_of(tmp_path))["curves.svg"][0]

    assert drawn() == drawn(gamma=0.1) != drawn(gamma_mixed=0.1)


def test_a_step_without_a_mixed_group_is_a_gap(tmp_path: Path):
    for seed in (1, 2):
        lines = cell_lines("default", "hackable", seed)
        lines[12]["gamma_mixed"] = None
        write_cell(tmp_path, lines)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analyse(tmp_path, tmp_path.parent / "gap")
    steps = [step["gamma_mixed"] for step in cell_lines("default", "hackable", 1)[1:12]]
    assert findings_of(tmp_path).values["default", "hackable"]["gamma"][1] == pytest.approx(np.mean(steps))


def test_missing_scores_are_told(tmp_path: Path):
    write_cell(tmp_path, cell_lines("default", "oracle", 1))
    assert "did not give" not in tables.as_markdown(findings_of(tmp_path), {})
    lines = cell_lines("default", "oracle", 2)
    lines[0]["checks"]["missing_scores"] = 3
    write_cell(tmp_path, lines)
    found = findings_of(tmp_path)
    assert "asked for and did not give: 3 of `default.oracle.2`." in tables.as_markdown(found, {})
    assert tables.as_json(found)["runs"]["missing_scores"] == {"default.oracle.2": 3}


def test_the_same_results_give_the_same_bytes_in_another_process(tmp_path: Path):
    write_grid(tmp_path / "in", ("default", "gdpo"), ("hackable", "length"), 2)
    analyse(tmp_path / "in", tmp_path / "here")
    command = f"from pathlib import Path; from {analyse.__module__} import analyse; analyse(Path('in'), Path('there'))"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, env=environment, check=True, timeout=300)
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"results.json", "results.md", *figures.NAMES}
    for path in (tmp_path / "here").iterdir():
        assert (tmp_path / "there" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_page_is_markdown_whose_tables_are_whole_and_whose_figures_are_there(out: Path, found: dict[str, Any]):
    text = (out / "results.md").read_text()
    for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        assert (out / name).is_file()
    page = ElementTree.fromstring(f"<body>{MarkdownIt('commonmark').enable('table').render(text)}</body>")
    for table in page.iter("table"):
        assert len({len(list(row)) for row in table.iter("tr")}) == 1
    assert [head.text for head in page.iter("h1")] == ["What the study says"]
    for claim in found["claims"]:
        assert claim["sentence"] in text
    assert "nan" not in text.lower()
    assert "| oracle | no_trust_no_annealing | 6 |" in text


def test_the_table_has_the_means_by_answer_type_of_the_raw_results(out: Path):
    row = re.search(r"\| noisy \| default \| 6 \| (.*) \|", (out / "results.md").read_text())[1].split(" | ")
    cells = [cell_lines("default", "noisy", seed, noise=0.004) for seed in range(1, 7)]
    kinds = sorted(cells[0][14]["by_type"])
    assert row[:3] == [f"{np.mean([lines[14]['by_type'][kind] for lines in cells]):.3f}" for kind in kinds]
    assert row[3].startswith(f"{np.mean([lines[14]['outcome'] for lines in cells]):.3f} ± ")
    assert row[4].startswith(f"{np.mean([lines[13]['outcome'] for lines in cells]):.3f} ± ")


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_figure_stands_alone_in_light_and_dark(out: Path, name: str):
    text = (out / name).read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.get("aria-label")
    assert "var(" not in text
    assert "url(" not in re.sub(r"url\(#[^)]+\)", "", text)
    assert 'href="http' not in text
    words = {element.text for element in root.iter(f"{SVG}text")}
    assert "oracle" in words or "length" in words
    drawing = re.sub(r"<style>.*?</style>", "", text)
    used = set(re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", drawing))
    light = set(re.findall(r'style\*="((?:fill|stroke): #[0-9a-f]{6})"', text))
    assert used <= light, "a colour that a dark scheme does not change"


def test_a_figure_draws_a_line_for_each_variant(out: Path):
    words = [element.text for element in ElementTree.fromstring((out / "curves.svg").read_text()).iter(f"{SVG}text")]
    for variant in ("default", "no_trust", "no_trust_no_annealing", "outcome_only"):
        assert words.count(variant) == 1
    assert [word for word in words if word in ("oracle", "noisy", "hackable", "length")] == [
        "oracle",
        "noisy",
        "hackable",
    ]
