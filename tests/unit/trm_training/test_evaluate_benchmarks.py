"""Public benchmarks, in folders of their published layouts with questions of our own."""

import base64
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.sophiavl.trm_training.evaluate import __main__ as evaluate
from recipe.sophiavl.trm_training.evaluate.benchmark_figures import _macro_f1, _steps
from recipe.sophiavl.trm_training.evaluate.public_benchmarks import READERS, read_benchmark
from recipe.sophiavl.trm_training.pairs import PairsError
from tests.support.scored_rows import png, scoring_server

VL_SOURCES = {
    "RLAIF-V-3": "hallucination",
    "mathverse_2": "reasoning",
    "mmmu_val_7": "reasoning",
    "kettle-1": "general",
}


def vl_rows():
    """Four pairs; the better response, "good 0.8", stands first in two of them."""
    for place, name in enumerate(VL_SOURCES):
        first = place % 2 == 0
        yield {
            "id": name,
            "query": f"<image>\nWhich lamp is lit, number {place}?",
            "response": ["good 0.8", "bad 0.3"] if first else ["bad 0.3", "good 0.8"],
            "image": {"bytes": png((place, 0, 0)), "path": None},
            "human_ranking": [0, 1] if first else [1, 0],
            "models": ["one", "another"],
            "judge": "people",
            "rationale": "",
            "query_source": "made up",
            "ground_truth": "",
        }


def vl_parquet(folder, rows=None):
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows or vl_rows())), folder / "data" / "test-00000-of-00001.parquet")
    return folder


def vl_jsonl(folder):
    base = folder / "data"
    (base / "images" / "ours").mkdir(parents=True)
    lines = []
    for place, row in enumerate(vl_rows()):
        image = row.pop("image")
        (base / "images" / "ours" / f"{place}.png").write_bytes(image["bytes"])
        lines.append(json.dumps({**row, "image_path": f"images/ours/{place}.png"}))
    (base / "data.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def multimodal(folder, **changes):
    base = folder / "data"
    (base / "images" / "lamps").mkdir(parents=True)
    rows = []
    for place, (name, category) in enumerate(
        [("pairs_1", "safety"), ("lamps_2", "safety"), ("mathvista_3", "reasoning"), ("lamps_4", "vqa")]
    ):
        (base / "images" / "lamps" / f"{place}.png").write_bytes(png((0, place, 0)))
        better = f"Output{1 + place % 2}"
        outputs = {"Output1": "bad 0.3", "Output2": "bad 0.3", better: "good 0.8"}
        image = f"images/lamps/{place}.png"
        rows.append(
            {"ID": name, "Text": "Is it lit?", "Image": image, **outputs, "Better": better, "Category": category}
        )
    rows[1] |= changes
    (base / "all_data.json").write_text(json.dumps(rows))
    return folder


def process(folder, **changes):
    """Two answers: a wrong step after a neutral one, and none."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for place, (steps, labels) in enumerate(
        [
            (["A lamp 0.9.", "Hm 0.9.", "It is green 0.2.", "So it is lit 0.3."], [1, 0, -1, 1]),
            (["A lamp 0.8.", "It is red 0.7."], [1, 1]),
        ]
    ):
        (folder / "images" / f"{place}.png").write_bytes(png((0, 0, place)))
        rows.append(
            {
                "image": [f"images/{place}.png"],
                "question": "What colour is the lamp?",
                "answer": "red",
                "response": {"steps": steps, "process_correctness": labels},
                "policy_model": "ours",
                "data_source": "Lamps",
            }
        )
    rows[1] |= changes
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


FOLDERS = {"vl_rewardbench": vl_parquet, "multimodal_rewardbench": multimodal, "visual_process_bench": process}


def last_number(text):
    """A TRM that writes the last number of the reasoning."""
    thinking = json.loads(text)[-1]["content"][-1]["text"]
    return re.findall(r"0\.\d", thinking.split("Reasoning")[-1])[-1]


def run(tmp_path, name, folder, answer, *arguments):
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("system: Grade.\nuser: |-\n  {images}{question}\n  Reasoning:\n  {thinking}\n  Grade:\n")
    with scoring_server(answer) as url:
        given = [str(folder), "--format", name, "--url", url, "--model", "trm", "--out", str(tmp_path / "out")]
        how = ["--prompt-path", str(prompt), "--structured-output", "off", "--bootstrap", "50"]
        status = evaluate.main([*given, *how, *arguments])
    assert status == 0
    return json.loads((tmp_path / "out" / "benchmark.json").read_text())


@pytest.mark.parametrize("make", [vl_parquet, vl_jsonl])
def test_vl_rewardbench(tmp_path, make, capsys):
    asked = []

    def answer(text):
        asked.append(json.loads(text)[-1]["content"])
        return last_number(text)

    found = run(tmp_path, "vl_rewardbench", make(tmp_path / "vl"), answer)
    values = {name: figure["value"] for name, figure in found["figures"].items()}
    groups = {f"accuracy/{group}": 1.0 for group in ("general", "hallucination", "reasoning")}
    assert values == {"accuracy": 1, "accuracy_mean": 1, **groups, "ties": 0, "scored_share": 1}
    assert (found["figures"]["accuracy"]["n"], found["figures"]["accuracy"]["images"]) == (4, 4)
    reasoning = found["figures"]["accuracy/reasoning"]
    assert (reasoning["n"], reasoning["questions"], reasoning["images"]) == (2, 2, 2)
    assert found["counts"] == {"cases": 4, "questions": 4, "images": 4, "texts": 8, "missing": {}}
    assert all(sum(part["type"] == "image_url" for part in content) == 1 for content in asked)
    scores = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert [(row["label"], row["score"]) for row in scores] == [(1, 0.8), (0, 0.3), (0, 0.3), (1, 0.8)] * 2
    assert "pairs with the better response above" in capsys.readouterr().out


def test_a_tie_is_half_right_and_a_pair_without_both_scores_is_none(tmp_path):
    def answer(text):
        if "number 0" in text and "bad" in text:
            return "I had rather not."
        return "0.3" if "number 1" in text else last_number(text)

    found = run(tmp_path, "vl_rewardbench", vl_parquet(tmp_path / "vl"), answer)
    assert (found["figures"]["accuracy"]["value"], found["figures"]["accuracy"]["n"]) == (pytest.approx(2.5 / 3), 3)
    assert found["figures"]["ties"]["value"] == pytest.approx(1 / 3)
    assert found["figures"]["accuracy/hallucination"]["reason"] == "no pair with two scores"
    assert found["figures"]["scored_share"]["value"] == 7 / 8
    assert found["counts"]["missing"] == {"unparsable": 1}
    assert found["notes"] == ["1 of 8 texts have no score: figures leave them out"]


def test_multimodal_rewardbench(tmp_path):
    def wrong_about_maths(text):
        # "good" is 0.8 and better; of the third case the scores are turned round.
        value = last_number(text)
        image = re.search(r"base64,([^\"]+)", text)[1]
        return f"{1 - float(value):.1f}" if image == third else value

    folder = multimodal(tmp_path / "mmrb")
    third = base64.b64encode(png((0, 2, 0))).decode()
    found = run(tmp_path, "multimodal_rewardbench", folder, wrong_about_maths)
    values = {name: figure["value"] for name, figure in found["figures"].items()}
    assert values["accuracy"] == values["accuracy_mean"] == 0.75
    groups = {"reasoning/math": 0, "safety/bias": 1, "safety/toxicity": 1, "vqa": 1}
    assert {name: values[f"accuracy/{name}"] for name in groups} == groups
    # The folder's data/ itself is the same folder.
    assert read_benchmark("multimodal_rewardbench", folder / "data").cases[0][0] == "pairs_1"


def test_visual_process_bench(tmp_path):
    asked = []

    def answer(text):
        asked.append(json.loads(text)[-1]["content"][-1]["text"])
        return last_number(text)

    found = run(tmp_path, "visual_process_bench", process(tmp_path / "vpb"), answer)
    values = {name: figure["value"] for name, figure in found["figures"].items()}
    # The steps up to each one are asked about as a whole.
    assert len(asked) == 6
    assert sorted(text.count("\n") for text in asked) == [3, 3, 4, 4, 5, 6]
    # Labelled steps: right at 0.9, 0.3, 0.8, 0.7, wrong at 0.2: one right step is called wrong, since it follows one.
    f1 = (2 * 3 / (2 * 3 + 1) + 2 * 1 / (2 * 1 + 1)) / 2
    assert values["step_f1"] == values["step_f1/Lamps"] == values["step_f1_mean"] == pytest.approx(f1)
    assert values["step_auc"] == values["so_far_auc"] == 1
    assert found["figures"]["step_auc"]["n"] == 5  # the neutral step is left out
    assert found["figures"]["so_far_auc"]["n"] == 6
    # 0.1 (from nothing), 0.0, 0.7, -0.1: the largest drop is at the wrong step.
    assert (values["first_wrong_found"], values["first_wrong_by_chance"]) == (1, 0.25)
    assert found["figures"]["first_wrong_found"]["n"] == 1


def test_after_a_wrong_step_a_score_of_what_is_so_far_cannot_be_right_about_single_steps():
    """Why the step figures are bounded: a perfect judge of "so far" misses every right step after a wrong one."""
    labels = np.array([1, -1, 1, 1])
    values = np.array([0.9, 0.1, 0.1, 0.1])
    figures = _steps(values, labels, np.array(["a"] * 4), np.zeros(4, dtype=int))
    assert figures["so_far_auc"].value() == figures["first_wrong_found"].value() == 1
    assert figures["step_auc"].value() < 1
    assert figures["step_f1"].value() == pytest.approx((2 / 4 + 2 / 4) / 2)


def test_macro_f1_of_weighted_steps_is_that_of_the_steps_written_out():
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(0)
    values, right, weights = generator.random(40), generator.random(40) > 0.4, generator.integers(0, 4, 40)
    statistic = _macro_f1(values, right, np.ones(40, dtype=bool))
    written = np.repeat(np.arange(40), weights)
    expected = f1_score(right[written], values[written] >= 0.5, average="macro")
    assert statistic(weights.astype(float)) == pytest.approx(expected)
    assert "all scored steps" in _macro_f1(values, right, right).undefined


def test_a_limit_takes_the_first_cases(tmp_path):
    assert [case[0] for case in read_benchmark("vl_rewardbench", vl_parquet(tmp_path / "vl"), 2).cases] == list(
        VL_SOURCES
    )[:2]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_another_layout_is_refused(tmp_path, name, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PairsError, match=r"empty: neither it nor its data/ has "):
        read_benchmark(name, tmp_path / "empty")
    given = ["--format", name, "--url", "http://127.0.0.1:1/v1", "--model", "trm", "--out", str(tmp_path / "out")]
    assert evaluate.main([str(tmp_path / "empty"), *given]) == 2
    assert evaluate.main([str(tmp_path / "empty"), *given, "--compare", "x.json"]) == 2
    assert "--compare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("multimodal_rewardbench", {"Better": "Output3"}, r"all_data\.json, row 1, field Better: 'Output3' is neither"),
        ("multimodal_rewardbench", {"Text": None}, r"row 1, field Text: must be text"),
        (
            "multimodal_rewardbench",
            {"Image": "images/none.png"},
            r"row 1, field image: images/none\.png cannot be read",
        ),
        ("visual_process_bench", {"response": "text"}, r"test\.jsonl, row 1, field response\.steps: must be"),
        (
            "visual_process_bench",
            {"response": {"steps": ["So."], "process_correctness": [2]}},
            r"row 1, field response\.process_correctness: must be -1, 0 or 1 for each of the 1 steps",
        ),
        ("visual_process_bench", {"image": ["images/none.png"]}, r"row 1, field image: images/none\.png"),
    ],
)
def test_a_bad_case_is_named(tmp_path, name, changes, message):
    with pytest.raises(PairsError, match=message):
        read_benchmark(name, FOLDERS[name](tmp_path / "bench", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response": ["one"]}, "field response: must be two texts"),
        ({"human_ranking": [1, 1]}, r"field human_ranking: \[1, 1\] is neither"),
        ({"image": {"bytes": None, "path": "a.png"}}, "field image: has no bytes"),
    ],
)
def test_a_bad_pair_is_named(tmp_path, changes, message):
    rows = list(vl_rows())[:1]
    with pytest.raises(PairsError, match=message):
        read_benchmark("vl_rewardbench", vl_parquet(tmp_path / "vl", [rows[0] | changes]))


def test_damaged_files_are_named(tmp_path):
    folder = process(tmp_path / "bench")
    (folder / "test.jsonl").write_text("{")
    with pytest.raises(PairsError, match=r"test\.jsonl: cannot be read"):
        read_benchmark("visual_process_bench", folder)
    (folder / "test.jsonl").write_text("[1]\n")
    with pytest.raises(PairsError, match=r"row 0: no object"):
        read_benchmark("visual_process_bench", folder)
    (folder / "test.jsonl").write_text("\n")
    with pytest.raises(PairsError, match="holds no cases"):
        read_benchmark("visual_process_bench", folder)


def test_every_reader_is_a_format():
    assert set(READERS) == set(FOLDERS)
