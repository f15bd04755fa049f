"""SophiaVL-R1-130k: the published folder comes out as verl's RL rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from preprocess_builders import (
    FOLDERS,
    choice_row,
    good_rows,
    image_row,
    jpeg,
    output_rows,
    png,
    rejected_rows,
    text_row,
    write_dataset,
)

from data_preprocess import sophiavl_130k
from data_preprocess.schema import RL_SCHEMA, SYSTEM_PROMPT


def convert(source: Path, out: Path, *options: str) -> int:
    return sophiavl_130k.main([str(source), "--out", str(out), "--workers", "1", *options])


def test_every_folder_and_type_comes_out(tmp_path: Path) -> None:
    rows = good_rows(50)
    assert convert(write_dataset(tmp_path / "in", rows), tmp_path / "out") == 0
    made = output_rows(tmp_path / "out")
    assert len(made) == 50
    assert rejected_rows(tmp_path / "out") == []
    assert {row["ability"] for row in made} >= set(FOLDERS)
    assert {row["extra_info"]["problem_type"] for row in made} == {"numerical", "multiple choice", "OCR"}
    assert {row["data_source"] for row in made} == {row["data_source"] for row in rows}
    assert sorted(row["extra_info"]["index"] for row in made) == list(range(50))
    assert pq.read_schema(tmp_path / "out" / "train-00000.parquet").equals(RL_SCHEMA)


def test_an_image_row_field_by_field(tmp_path: Path) -> None:
    convert(write_dataset(tmp_path / "in", [image_row(7)]), tmp_path / "out")
    question = "Take away 7 of the balls. How many things remain?"
    assert output_rows(tmp_path / "out") == [
        {
            "data_source": "CLEVR-Math",
            "prompt": [
                {"role": "system", "content": SYSTEM_PROMPT},
                {"role": "user", "content": f"<image>{question}"},
            ],
            "images": [{"bytes": png(7), "path": None}],
            "ability": "Math",
            "reward_model": {"style": "rule", "ground_truth": "10"},
            "extra_info": {
                "split": "train",
                "index": 0,
                "problem_type": "numerical",
                "question": question,
                "options": [],
                "answer": "10",
            },
        }
    ]


def test_options_stand_on_their_own_lines_with_letters(tmp_path: Path) -> None:
    rows = [choice_row(1), choice_row(2, options=["bus", "car"], solution="<answer>car</answer>")]
    convert(write_dataset(tmp_path / "in", rows), tmp_path / "out")
    first, second = output_rows(tmp_path / "out")
    assert first["prompt"][1]["content"] == "<image>Which one is it?\nA. a bus\nB. a car\nC. a train"
    assert second["prompt"][1]["content"] == "<image>Which one is it?\nA. bus\nB. car"
    assert [row["reward_model"]["ground_truth"] for row in (first, second)] == ["B", "B"]


def test_an_image_folder_on_another_disk_is_read_with_follow_links(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", [image_row(7)])
    (source / "Math").rename(tmp_path / "disk")
    (source / "Math").symlink_to(tmp_path / "disk")
    assert convert(source, tmp_path / "out") == 1
    assert [bad["fault"] for bad in rejected_rows(tmp_path / "out")] == ["outside_image_root"]
    assert convert(source, tmp_path / "out2", "--follow-links") == 0
    assert [row["images"][0]["bytes"] for row in output_rows(tmp_path / "out2")] == [png(7)]


def test_text_only_rows_get_no_image(tmp_path: Path) -> None:
    convert(write_dataset(tmp_path / "in", [text_row(4), image_row(5)]), tmp_path / "out")
    text = next(row for row in output_rows(tmp_path / "out") if row["data_source"] == "gsm8k")
    assert text["images"] == []
    assert text["prompt"][1]["content"] == "What is 4 + 4?"


def test_a_text_row_that_names_an_image_stays_text_only(tmp_path: Path) -> None:
    convert(write_dataset(tmp_path / "in", [image_row(5, data_type="text")]), tmp_path / "out")
    assert [row["images"] for row in output_rows(tmp_path / "out")] == [[]]


def test_the_result_of_a_worked_solution_is_the_truth(tmp_path: Path) -> None:
    rows = [text_row(1, solution="1 + 1 = <<1+1=2>>2\n#### 2"), text_row(2, problem_type="OCR", solution="#### B")]
    convert(write_dataset(tmp_path / "in", rows), tmp_path / "out")
    assert [row["reward_model"]["ground_truth"] for row in output_rows(tmp_path / "out")] == ["2", "#### B"]


def test_images_pass_through_untouched(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", [image_row(1), image_row(2)])
    (source / "Math/CLEVR-Math/images/2.png").write_bytes(jpeg(2))
    convert(source, tmp_path / "out")
    assert [row["images"][0]["bytes"] for row in output_rows(tmp_path / "out")] == [png(1), jpeg(2)]


def test_json_inside_the_folders_with_paths_relative_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "Knowledge"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "1.png").write_bytes(png(1))
    (folder / "data.json").write_text(json.dumps([image_row(1, path="images/1.png")]))
    assert convert(tmp_path / "in", tmp_path / "out") == 0
    (row,) = output_rows(tmp_path / "out")
    assert (row["ability"], row["images"][0]["bytes"]) == ("Knowledge", png(1))


def test_the_hub_description_is_not_taken_for_data(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", [image_row(1)])
    (source / "json" / "math.json").rename(source / "math.json")
    (source / "json").rmdir()
    (source / "dataset_infos.json").write_text('{"default": {"features": {}}}')
    convert(source, tmp_path / "out")
    assert len(output_rows(tmp_path / "out")) == 1
    assert rejected_rows(tmp_path / "out") == []


def test_published_demo_type_is_free_form(tmp_path: Path) -> None:
    rows = [image_row(1, "Knowledge", problem_type="text", solution="<answer>Denali</answer>")]
    convert(write_dataset(tmp_path / "in", rows), tmp_path / "out")
    (row,) = output_rows(tmp_path / "out")
    assert (row["extra_info"]["problem_type"], row["reward_model"]["ground_truth"]) == ("free-form", "Denali")


def test_a_hub_name_is_downloaded_into_a_plain_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(name: str, *, repo_type: str, local_dir: Path) -> str:
        assert (name, repo_type) == ("bunny127/SophiaVL-R1-130k", "dataset")
        return str(write_dataset(local_dir, [image_row(3)]))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert convert(Path("bunny127/SophiaVL-R1-130k"), tmp_path / "out") == 0
    assert len(output_rows(tmp_path / "out")) == 1


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_nothing_to_read_is_an_error_with_a_message(tmp_path: Path, make, monkeypatch, capsys) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args: object, **kwargs: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    make(tmp_path / "in")
    assert convert(tmp_path / "in", tmp_path / "out") == 1
    assert str(tmp_path / "in") in capsys.readouterr().err


def test_the_summary_names_types_sources_and_files(tmp_path: Path, capsys) -> None:
    rows = [image_row(1), choice_row(2), text_row(3), image_row(4, solution="")]
    convert(write_dataset(tmp_path / "in", rows), tmp_path / "out")
    printed = capsys.readouterr().out
    for expected in (
        "4 rows read, 3 kept, 1 rejected",
        "multiple choice",
        "gsm8k",
        "empty_truth",
        "Text-only rows: train 1",
    ):
        assert expected in printed
    assert f"train: {tmp_path}/out/train-00000.parquet, " in printed


def test_the_summary_names_several_files_by_the_pattern_that_training_takes(tmp_path: Path, capsys) -> None:
    convert(write_dataset(tmp_path / "in", [text_row(n) for n in range(3)]), tmp_path / "out", "--shard-rows", "1")
    assert f"train: {tmp_path}/out/train-*.parquet (3 files), " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [text_row(1, solution="")],
            "field 'solution' (empty_truth); json/text.json, row 0 (from 0): the truth is empty",
        ),
        ([], "the source has no rows"),
    ],
)
def test_a_run_that_keeps_no_row_fails(tmp_path: Path, capsys, rows: list, message: str) -> None:
    source = write_dataset(tmp_path / "in", rows)
    (source / "json" / "empty.json").write_text("[]")
    for _ in range(2):  # a finished output is not made again: it fails again
        assert convert(source, tmp_path / "out") == 1
        assert message in capsys.readouterr().err
