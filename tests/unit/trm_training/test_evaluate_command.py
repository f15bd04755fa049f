"""The command from a parquet file to its results, against servers in a thread."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter

import pyarrow.parquet as pq
import pytest
from aiohttp import web

from recipe.sophiavl.trm.preflight import sample_text
from recipe.sophiavl.trm_training.evaluate import __main__ as evaluate
from recipe.sophiavl.trm_training.evaluate.sensitivity import HIDDEN
from testbed.vllm_server import free_port
from tests.support.scored_rows import make_row, png, scoring_server, write_rows, written_value
from tests.support.signals import heed_interrupts

ROWS = [make_row(question, response) for question in range(6) for response in (1, 4, 7, 9)]
REPEATED = "We see the image and count."


def careful(text):
    """A TRM that agrees with the reference and sees planted errors, mixed languages and repeats, but no images."""
    numbers = re.search(r"variant (\d+)", text), re.search(r"There are (\d+) shapes", text)
    value = float(written_value(text)) if re.search(r"value is \d", text) else 0.0
    if "value 是" in text or re.search("[一-鿿]", text):
        return "0.2"
    if numbers[1] is None or int(numbers[1][1]) != int(numbers[0][1]) + 2 or value not in (0.1, 0.4, 0.7, 0.9):
        return "0.1"
    return f"{value / 2:.1f}" if text.count("There are") > 1 or text.count(REPEATED) > 1 else f"{value}"


def run(tmp_path, url, *arguments, rows=ROWS, leave_out=(), out="out"):
    file = write_rows(tmp_path / "test.parquet", rows, leave_out)
    given = [str(file), "--url", url, "--model", "trm", "--out", str(tmp_path / out), "--bootstrap", "30"]
    return evaluate.main([*given, "--structured-output", "off", "--max-concurrency", "8", *arguments])


def evaluation_of(tmp_path, out="out"):
    return json.loads((tmp_path / out / "evaluation.json").read_text())


def refused(_text):
    return web.Response(status=400)


def test_from_file_to_results(tmp_path, capsys):
    with scoring_server(careful) as url:
        assert run(tmp_path, url) == 0
    found = evaluation_of(tmp_path)
    figures = {name: figure["value"] for name, figure in found["figures"].items()}
    assert (figures["mae"], figures["within_0.1"], figures["spearman"], figures["scored_share"]) == (0, 1, 1, 1)
    assert (figures["auc"], figures["gamma"], figures["distrusted"], figures["parse_failures"]) == (1, 1, 0, 0)
    assert found["figures"]["mae"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 24, "questions": 6, "images": 6}
    assert (figures["pairs_ordered"], figures["pairs_right"], found["figures"]["pairs_ordered"]["n"]) == (1, 1, 36)
    assert (figures["best_of_n"], figures["best_of_n_random"], figures["best_of_n_oracle"]) == (1, 0.5, 1)
    assert found["figures"]["best_of_n_majority"]["reason"] == "no response with an answer is known"
    assert found["figures"]["gamma"]["n"] == 6
    assert [found["counts"][name] for name in ("questions", "images", "tied_sets", "groups")] == [6, 6, 6, 6]
    assert found["confusion"]["counts"][7][7] == 6
    assert found["notes"] == []
    edits = found["sensitivity"]
    assert (edits["unchanged"]["mean_drop"]["value"], edits["unchanged"]["asked"]) == (0, 12)
    assert (edits["wrong_step/number"]["share_dropped"]["value"], edits["wrong_step"]["asked"]) == (1, 24)
    assert edits["wrong_step"]["made_by"] == {"negation": 12, "number": 12}
    assert edits["wrong_step/number"]["asked"] == edits["wrong_step/negation"]["asked"] == 12
    assert "judge_drop" not in edits["wrong_step"]
    assert edits["languages_mixed"]["share_dropped"]["value"] == 1
    assert edits["steps_repeated"]["mean_drop"]["value"] > 0.2
    assert edits["other_image"]["mean_drop"]["value"] == edits["other_image"]["share_rose"]["value"] == 0
    scores = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert scores[2] == {
        "pair_id": ROWS[2]["pair_id"],
        "row": 2,
        "reference": 0.7,
        "score": 0.7,
        "text_only": None,
        "error": None,
        "reply": "0.7",
    }
    assert "<!doctype html>" in (tmp_path / "out" / "evaluation.html").read_text()
    printed = capsys.readouterr().out
    assert "mean absolute error" in printed
    assert "evaluation.html" in printed
    assert "| Spearman's correlation with the reference | 1.00" in (tmp_path / "out" / "summary.md").read_text()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("edits.parquet", "evaluation.html", "evaluation.json", "scores.parquet", "summary.md")
    ]


def test_the_same_again_is_the_same_file(tmp_path):
    with scoring_server(careful) as url:
        assert run(tmp_path, url, "--limit", "12", "--edits-limit", "3") == 0
        assert run(tmp_path, url, "--limit", "12", "--edits-limit", "3", "--max-concurrency", "1", out="again") == 0
    for name in ("evaluation.json", "evaluation.html"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    for name in ("scores.parquet", "edits.parquet"):
        assert pq.read_table(tmp_path / "out" / name).equals(pq.read_table(tmp_path / "again" / name))
    found = evaluation_of(tmp_path)
    assert (found["counts"]["rows"], found["sensitivity"]["unchanged"]["asked"]) == (12, 3)
    assert "12 of the file's 24 rows were drawn" in found["notes"]


def test_each_edit_is_asked_as_it_was_written_and_nothing_else_of_the_row_moves(tmp_path):
    asked = []

    def answer(text):
        asked.append(text)
        return careful(text)

    with scoring_server(answer) as url:
        assert run(tmp_path, url) == 0
    texts = Counter(json.loads(text)[-1]["content"][-1]["text"] for text in asked)
    edits = pq.read_table(tmp_path / "out" / "edits.parquet").to_pylist()
    assert len(edits) == 6 * 12
    for edit in edits:
        assert edit["thinking"] in "".join(texts)
        assert ROWS[edit["row"]]["score"] >= 0.7
        assert (edit["thinking"] == ROWS[edit["row"]]["thinking"]) == (edit["edit"] in ("unchanged", "other_image"))
    assert len(asked) == 24 + 6 * 12
    # The row itself, its control and its image swap have one text.
    assert sum(count == 3 for count in texts.values()) == 12
    images = Counter(tuple(re.findall(r"base64,([^\"]+)", text)) for text in asked)
    assert len(images) == 6


def test_prose_is_a_missing_score_and_counted(tmp_path):
    def answer(text):
        return "Splendid! \ud800" if "value is 0.1" in text else careful(text)

    with scoring_server(answer) as url:
        assert run(tmp_path, url, "--no-edits") == 0
    found = evaluation_of(tmp_path)
    assert found["figures"]["parse_failures"]["value"] == found["figures"]["failure.unparsable"]["value"] == 0.25
    assert found["figures"]["mae"]["n"] == 18
    assert found["figures"]["mae"]["value"] == 0
    assert found["figures"]["scored_share"]["value"] == 0.75
    assert found["figures"]["spearman_missing_as_mean"]["value"] < 1
    assert found["sensitivity"] is None
    assert "6 of 24 rows have no TRM score: figures of agreement leave them out" in found["notes"]
    first = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()[0]
    assert (first["score"], first["error"], first["reply"]) == (None, "unparsable", "Splendid! ?")


def test_nothing_but_prose_is_a_result_too(tmp_path):
    with scoring_server(lambda _text: "Splendid!") as url:
        assert run(tmp_path, url) == 0
    found = evaluation_of(tmp_path)
    assert found["figures"]["parse_failures"]["value"] == 1
    for name in ("mae", "spearman", "spearman_missing_as_mean", "auc", "gamma"):
        assert found["figures"][name]["value"] is None
        assert found["figures"][name]["reason"]
    assert found["sensitivity"]["wrong_step"]["mean_drop"]["value"] is None
    assert found["sensitivity"]["wrong_step"]["rows"] == 0
    # The reference stands beside the TRM over the same responses: there are none.
    assert found["figures"]["gamma_reference"]["value"] is None


def test_some_lost_requests_are_missing_scores(tmp_path):
    def answer(text):
        return refused(text) if "value is 0.4" in text else careful(text)

    with scoring_server(answer) as url:
        assert run(tmp_path, url, "--no-edits") == 0
    found = evaluation_of(tmp_path)
    assert found["figures"]["failure.http_400"]["value"] == pytest.approx(0.25)
    assert found["figures"]["parse_failures"]["value"] == 0


def test_a_server_that_mostly_fails_ends_it(tmp_path, capsys):
    with scoring_server(lambda text: refused(text) if "value is 0.9" not in text else "0.5") as url:
        assert run(tmp_path, url) == 1
    told = capsys.readouterr().err
    assert re.search(r"of the first \d+ scores from http://127", told)
    assert "preflight" in told
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_no_server_at_all(tmp_path, capsys):
    assert run(tmp_path, f"http://127.0.0.1:{free_port()}/v1") == 1
    assert re.search(r"http://127.*: connect.*preflight", capsys.readouterr().err)


def test_an_early_end_spares_a_large_file(tmp_path):
    asked = []

    def answer(text):
        asked.append(text)
        return web.Response(status=404)

    with scoring_server(answer) as url:
        assert run(tmp_path, url, rows=[make_row(question) for question in range(600)]) == 1
    assert len(asked) < 100


def test_missing_columns_are_noted_and_never_guessed(tmp_path):
    with scoring_server(careful) as url:
        assert run(tmp_path, url, "--no-edits", leave_out=("outcome", "group", "question_id", "pair_id")) == 0
    found = evaluation_of(tmp_path)
    for name in ("auc", "auc_reference", "gamma", "distrusted_reference"):
        assert found["figures"][name]["value"] is None
        assert "no column outcome" in found["figures"][name]["reason"]
    assert [note.split(":")[0] for note in found["notes"]] == [
        "the file has no column outcome",
        "the file has no column group",
        "the file has no column question_id",
    ]
    assert found["counts"]["questions"] == 6
    assert found["figures"]["mae"]["low"] == 0
    assert pq.read_table(tmp_path / "out" / "scores.parquet")["pair_id"].null_count == 24


def test_edits_that_do_not_apply_say_why(tmp_path):
    prose = sample_text(6000)
    rows = [
        {**make_row(0, 9), "thinking": "hm 3 value 0.9", "images": []},
        # The only number is in the middle, and of so long a text the prompt shows both ends only.
        {**make_row(1, 9), "thinking": f"{prose} It is 42. {prose}", "images": []},
    ]
    with scoring_server(lambda _text: "0.9") as url:
        assert run(tmp_path, url, "--max-thinking-chars", "300", rows=rows) == 0
    edits = evaluation_of(tmp_path)["sensitivity"]
    assert edits["other_image"]["not_applied"] == {"no image to replace": 2}
    assert edits["languages_mixed"]["not_applied"]["too few words of the table of words"] == 1
    assert edits["wrong_step"]["made_by"]["number"] == edits["wrong_step/number"]["asked"] == 1
    assert edits["wrong_step"]["not_applied"] == {HIDDEN: 1}
    assert edits["other_image"]["mean_drop"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "questions": 0,
        "images": 0,
        "reason": "no row with a score before and after",
    }


def test_another_question_with_the_same_image_lends_none(tmp_path):
    rows = [{**row, "images": ROWS[0]["images"]} for row in ROWS]
    two = {"bytes": png((0, 99, 0)), "path": None}
    with scoring_server(careful) as url:
        assert run(tmp_path, url, rows=rows) == 0
        found = evaluation_of(tmp_path)
        assert found["sensitivity"]["other_image"]["asked"] == 0
        # Six questions, one image: no independent trials, and so no interval.
        assert found["figures"]["mae"]["reason"] == "all rows are tied by their images"
        assert (found["counts"]["questions"], found["counts"]["images"], found["counts"]["tied_sets"]) == (6, 1, 1)
        # A question with two images lends them to others with two; those with one have it, but no better one.
        assert run(tmp_path, url, rows=[*rows, {**make_row(9, 9), "images": [two, two]}]) == 0
    edits = pq.read_table(tmp_path / "out" / "edits.parquet").to_pylist()
    lent = {edit["detail"] for edit in edits if edit["edit"] == "other_image" and edit["row"] < 24}
    assert lent == {"images of row 24"}


def test_one_question_has_no_other_image(tmp_path):
    with scoring_server(careful) as url:
        assert run(tmp_path, url, rows=ROWS[:4]) == 0
    found = evaluation_of(tmp_path)
    assert found["sensitivity"]["other_image"]["not_applied"] == {"no other question with other images": 2}
    assert (found["figures"]["mae"]["value"], found["figures"]["mae"]["reason"]) == (
        0,
        "all rows are tied by their images",
    )


def test_a_server_that_is_not_greedy_is_noted(tmp_path):
    count = iter(range(10**6))
    with scoring_server(lambda _text: f"0.{next(count) % 10}") as url:
        assert run(tmp_path, url) == 0
    assert any("unchanged text" in note for note in evaluation_of(tmp_path)["notes"])


def test_two_evaluations_side_by_side(tmp_path, capsys):
    with scoring_server(lambda _text: "0.5") as url:
        assert run(tmp_path, url, out="untrained") == 0
    compare = ("--compare", str(tmp_path / "untrained" / "evaluation.json"))
    with scoring_server(careful) as url:
        assert run(tmp_path, url, *compare) == 0
        printed = capsys.readouterr().out
        assert run(tmp_path, url, *compare, rows=ROWS[:20], out="fewer") == 0
        (tmp_path / "untrained" / "scores.parquet").unlink()
        assert run(tmp_path, url, *compare, out="alone") == 0
    assert "difference" in printed
    found = evaluation_of(tmp_path)["compared"]
    mae, drop = found["figures"]["mae"]["value"], found["differences"]["mae"]
    # Both evaluations miss by the same in every question: the interval of the paired difference has no width.
    assert (mae, drop["value"], drop["low"], drop["high"]) == pytest.approx((0.275, -0.275, -0.275, -0.275))
    assert found["differences"]["auc"]["value"] == 0.5
    assert found["differences"]["wrong_step/number.mean_drop"]["value"] == pytest.approx(0.7)
    assert "of other rows" not in " ".join(evaluation_of(tmp_path)["notes"])
    assert evaluation_of(tmp_path, "fewer")["compared"]["differences"] == {}
    assert "of other rows" in evaluation_of(tmp_path, "fewer")["notes"][-1]
    assert "no scores.parquet" in evaluation_of(tmp_path, "alone")["notes"][-1]


def test_the_judges_own_drops_stand_beside(tmp_path):
    """A judge that rates every text off its template 0, and the others by the value that they write."""

    def judge(text):
        asked_of_judge.append(text)
        if not re.search(r"There are \d+ shapes\. So the value is [\d.]+ and that is all", text):
            return "Its form is not what it should be. Score: 0.0"
        return f"Score: {min(1.0, float(written_value(text)))}"

    asked_of_judge = []
    with scoring_server(careful) as url, scoring_server(judge) as judge_url:
        reference = ("--reference-url", judge_url, "--reference-model", "judge")
        assert run(tmp_path, url, *reference) == 0
    found = evaluation_of(tmp_path)
    edits = found["sensitivity"]
    # The TRM sees a wrong number, which this judge mostly does not; the negation is an error of form to it.
    assert edits["wrong_step/number"]["mean_drop"]["value"] == pytest.approx(0.7)
    assert abs(edits["wrong_step/number"]["judge_drop"]["value"]) < 0.2
    assert edits["wrong_step/negation"]["judge_drop"]["value"] == pytest.approx(0.8)
    assert edits["unchanged"]["judge_drop"]["value"] == edits["other_image"]["judge_drop"]["value"] == 0
    assert edits["steps_repeated"]["judge_drop"]["n"] == 12
    assert found["settings"]["judge"]["model"] == "judge"
    assert found["settings"]["judge"]["max_tokens"] == 1024
    rows = pq.read_table(tmp_path / "out" / "edits.parquet").to_pylist()
    asked = [row for row in rows if row["thinking"] is not None]
    texts = [text for text in asked_of_judge if "banana" not in text]
    assert len(texts) == len(asked) == sum(row["judge_score"] is not None for row in asked)
    assert "the judge&#39;s" in (tmp_path / "out" / "evaluation.html").read_text()


def test_a_text_only_scorer_is_fitted_beside_the_test_rows(tmp_path):
    # Of the training rows a word tells the score, of the test rows too: no image is needed for it.
    def row(question, good):
        return {**make_row(question, 9 if good else 1), "thinking": "so sound a step" if good else "so odd a guess"}

    train = write_rows(tmp_path / "train.parquet", [row(q, q % 2) for q in range(40)])
    with scoring_server(lambda _text: "0.5") as url:
        rows = [row(q, good) for q in range(40, 46) for good in (0, 1)]
        assert run(tmp_path, url, "--blind-baseline", str(train), rows=rows) == 0
    found = evaluation_of(tmp_path)
    assert found["figures"]["pairs_right_blind"]["value"] == 1
    assert found["figures"]["spearman_blind"]["value"] == pytest.approx(1)
    assert found["figures"]["mae_blind"]["value"] < 0.1 < found["figures"]["mae"]["value"]
    assert found["settings"]["text_only_rows"] == 40
    # It cannot see that the image was swapped.
    assert found["sensitivity"]["other_image"]["blind_drop"]["value"] == 0
    scores = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert all(abs(score["text_only"] - score["reference"]) < 0.15 for score in scores)


def test_a_text_only_scorer_needs_scored_text(tmp_path, capsys):
    train = tmp_path / "train.parquet"
    url = "http://127.0.0.1:1/v1"
    for rows, message in (
        ([make_row(q, score=None) for q in range(3)], "train.parquet: no text with a score"),
        ([make_row(0), {**make_row(1), "thinking": None}], "train.parquet, row 1, field thinking"),
    ):
        assert run(tmp_path, url, "--blind-baseline", str(write_rows(train, rows))) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "none.json"], "none.json: cannot be read"),
        (["--api-key-env", "NO_SUCH_KEY_HERE"], "NO_SUCH_KEY_HERE"),
        (["--prompt-path", "none.yaml"], "none.yaml"),
        (["--timeout-s", "0"], "thinking_reward.timeout_s"),
        (["--url", "ftp://x"], "base URL"),
        (["--reference-url", "http://127.0.0.1:1/v1"], "go together"),
        (["--reference-url", "http://x/v1", "--reference-model", "m", "--no-edits"], "--no-edits leaves them out"),
        (["--blind-baseline", "none.parquet"], "none.parquet"),
    ],
)
def test_wrong_settings_end_before_the_server_is_asked(tmp_path, capsys, arguments, message):
    assert run(tmp_path, "http://127.0.0.1:1/v1", *arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", "")


def test_wrong_files(tmp_path, capsys):
    assert run(tmp_path, "http://127.0.0.1:1/v1", leave_out=("score",)) == 2
    assert "lacks the column score" in capsys.readouterr().err
    assert run(tmp_path, "http://127.0.0.1:1/v1", rows=[{**ROWS[0], "score": 7.0}]) == 2
    assert "row 0, field score: 7.0 is no number in [0, 1]" in capsys.readouterr().err
    (tmp_path / "taken").write_text("")
    assert run(tmp_path, "http://127.0.0.1:1/v1", out="taken") == 1
    assert "taken" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--bootstrap", "-1"], ["--edits-limit", "x"], []])
def test_wrong_arguments(tmp_path, arguments):
    with pytest.raises(SystemExit) as ended:
        evaluate.main([str(tmp_path / "t.parquet"), "--url", "http://x/v1", *arguments])
    assert ended.value.code == 2


def test_ctrl_c(tmp_path):
    file = write_rows(tmp_path / "test.parquet", ROWS)
    asked, go_on = threading.Event(), threading.Event()

    def hangs(_text):
        asked.set()
        go_on.wait(300)
        return "0.5"

    with scoring_server(hangs) as url:
        command = [sys.executable, "-m", "recipe.sophiavl.trm_training.evaluate", str(file), "--url", url]
        process = subprocess.Popen(
            [*command, "--model", "trm", "--out", str(tmp_path / "out")],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )
        assert asked.wait(300)
        os.kill(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=120)
        go_on.set()
    assert process.returncode == 130
    assert "interrupted" in told
    assert "Traceback" not in told
