"""The journal of a judge's results: what is written stays, and other judges' results stay apart."""

import json
import os
import subprocess
import sys

import pytest

from recipe.sophiavl.trm_training import line_file
from recipe.sophiavl.trm_training.journal import Journal, JournalError, Result

ASKED_WITH = {"model": "judge", "temperature": 0.0}


def result(pair="a", sample=0, score=0.5, error=None, reply="0.5"):
    return Result(pair, sample, score, error, reply, 0.25)


@pytest.fixture
def quick_disk(monkeypatch):
    """For tests that open a journal hundreds of times."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def changed(**fields):
    """A line of a journal with other values."""
    return json.dumps(vars(result()) | fields)


def write(file, *results, asked_with=ASKED_WITH):
    with Journal(file, asked_with) as journal:
        for one in results:
            journal.add(one)


def test_what_is_added_is_found_again(tmp_path):
    file = tmp_path / "new" / "x.journal.jsonl"
    hard = result("c", reply='"quoted"\n\u2028 ü \U0001f600')
    write(file, result("a"), result("a", 1, 1.0), result("b", 0, None, "unparsable", None), hard)
    with Journal(file, ASKED_WITH) as journal:
        assert len(journal) == 4
        assert journal.find("a", 1).score == 1.0
        assert journal.find("b", 0)[:2] == (None, "unparsable")
        assert journal.find("a", 2) is None
        assert journal.reply(journal.find("c", 0)) == hard.reply
        assert journal.reply(journal.find("b", 0)) is None
        journal.add(result("d", reply="new"))
        assert journal.reply(journal.find("d", 0)) == "new"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0]["asked_with"] == ASKED_WITH
    assert lines[1] == {
        "pair_id": "a",
        "sample": 0,
        "score": 0.5,
        "error": None,
        "reply": "0.5",
        "latency_s": 0.25,
    }


def test_a_result_is_in_the_file_before_add_returns(tmp_path):
    file = tmp_path / "x.jsonl"
    with Journal(file, ASKED_WITH) as journal:
        for number in range(3):
            journal.add(result(str(number)))
            assert len(file.read_bytes().splitlines()) == number + 2


def test_a_later_line_takes_the_place_of_an_earlier_one(tmp_path):
    write(tmp_path / "x", result(score=None, error="unparsable"), result(score=0.3, reply="now"))
    with Journal(tmp_path / "x", ASKED_WITH) as journal:
        assert journal.find("a", 0).score == 0.3
        assert journal.reply(journal.find("a", 0)) == "now"


def test_cut_off_anywhere_it_keeps_every_whole_line_and_can_be_continued(tmp_path, quick_disk):
    file = tmp_path / "x"
    write(file, result("a"), result("b", reply="ü\n"), result("c"))
    whole = file.read_bytes()
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        left = max(0, whole[:size].count(b"\n") - 1)
        with Journal(file, ASKED_WITH) as journal:
            assert len(journal) == left
            journal.add(result("d", reply="after"))
        with Journal(file, ASKED_WITH) as journal:
            assert len(journal) == left + 1
            assert journal.reply(journal.find("d", 0)) == "after"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 3: "),
        ("", "line 3: "),
        ("[]", "line 3: "),
        ('{"pair_id": "a"}', "line 3: .*sample"),
        (changed(score=1.5), r"line 3: result.score=1.5: Input should be less than or equal to 1"),
        (changed(score=float("nan")), "line 3: result.score=nan: "),
        (changed(score="0.5"), "line 3: result.score='0.5': "),
        (changed(score=None), "line 3: result.error=None with result.score=None"),
        (changed(error="timeout"), "line 3: result.error='timeout' with result.score=0.5"),
        (changed(sample=-1), "line 3: result.sample=-1"),
        (changed(sample=True), "line 3: result.sample=True"),
        (changed(pair_id=""), "line 3: result.pair_id=''"),
        (changed(reply=3), "line 3: result.reply=3"),
        (changed(latency_s=None), "line 3: result.latency_s=None"),
    ],
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, line, says):
    file = tmp_path / "x"
    write(file, result("a"), result("b"))
    lines = file.read_text().splitlines()
    lines.insert(2, line)
    file.write_text("\n".join(lines) + "\n")
    before = file.read_bytes()
    with pytest.raises(JournalError, match=says) as caught:
        Journal(file, ASKED_WITH)
    assert str(file) in str(caught.value)
    assert file.read_bytes() == before


def test_null_bytes_anywhere_lose_only_the_lines_that_they_touch(tmp_path, caplog, quick_disk):
    """As a file system leaves them that crashed: a block in the middle, from any byte to any other."""
    file = tmp_path / "x"
    write(file, *(result(str(number), reply=f"reply {number}") for number in range(6)))
    whole = file.read_bytes()
    starts = [place + 1 for place, byte in enumerate(whole) if byte == 10][:6]
    spans = list(zip(starts, [*starts[1:], len(whole)], strict=True))
    for first in (*range(starts[0], len(whole) - 1, 7), *(start - 1 for start in starts[1:])):
        for size in (1, 2, 50, 200, 333):
            last = min(first + size, len(whole) - 1)  # the last line keeps its end
            file.write_bytes(whole[:first] + bytes(last - first) + whole[last:])
            untouched = [n for n, (start, end) in enumerate(spans) if end - 1 <= first or start >= last]
            with Journal(file, ASKED_WITH) as journal:
                found = {number for number in range(6) if journal.find(str(number), 0)}
                assert set(untouched) <= found
                for number in untouched:
                    assert journal.reply(journal.find(str(number), 0)) == f"reply {number}"
                journal.add(result("new", reply="after"))
            with Journal(file, ASKED_WITH) as journal:
                assert journal.reply(journal.find("new", 0)) == "after"
                assert {number for number in range(6) if journal.find(str(number), 0)} == found
    assert "are damaged by null bytes" in caplog.text


def test_a_tail_of_null_bytes_is_cut_off(tmp_path):
    file = tmp_path / "x"
    write(file, result("a"), result("b"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-20] + bytes(4096))
    with Journal(file, ASKED_WITH) as journal:
        assert len(journal) == 1
        journal.add(result("c"))
    with Journal(file, ASKED_WITH) as journal:
        assert len(journal) == 2


def test_results_are_brought_to_the_disk_every_few_seconds(tmp_path, monkeypatch):
    """What a power cut leaves is what the last fsync saw: never older than SYNC_S when a result arrives."""
    now, synced, file = [100.0], [], tmp_path / "x"
    monkeypatch.setattr(line_file.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((now[0], os.fstat(fd).st_size)))
    with Journal(file, ASKED_WITH) as journal:
        assert synced == [(100.0, file.stat().st_size)], "the header, before anything is paid for"
        for _ in range(100):
            now[0] += 0.5
            journal.add(result())
            assert now[0] - synced[-1][0] < line_file.SYNC_S
        assert len(synced) == 1 + 100 * 0.5 / line_file.SYNC_S
    assert synced[-1][1] == file.stat().st_size, "everything, at the end"


@pytest.mark.parametrize(
    "content", ["notes of mine", "notes\n", '{"a": 1}\n', '{"journal": "other 1", "asked_with": {}}\n']
)
def test_another_file_is_neither_taken_nor_changed(tmp_path, content):
    file = tmp_path / "x"
    file.write_text(content)
    with pytest.raises(JournalError, match="line 1: no journal"):
        Journal(file, ASKED_WITH)
    assert file.read_text() == content


def test_another_judge_is_refused(tmp_path):
    file = tmp_path / "x"
    write(file, result())
    with pytest.raises(JournalError, match=r"model was 'judge', is 'other'.*another --out"):
        Journal(file, ASKED_WITH | {"model": "other"})
    with pytest.raises(JournalError, match=r"prompt was not written down .*, is 'p'; temperature was 0.0, is 1.0"):
        Journal(file, ASKED_WITH | {"prompt": "p", "temperature": 1.0})
    with pytest.raises(JournalError, match=r"temperature was 0.0, is None"):
        Journal(file, {"model": "judge"})
    # Nothing that was never written down is taken for equal, not even to null.
    with pytest.raises(JournalError, match=r"prompt was not written down"):
        Journal(file, ASKED_WITH | {"prompt": None})


def test_another_judge_may_begin_where_the_first_gave_no_result(tmp_path):
    write(tmp_path / "x")
    other = {"model": "other"}
    write(tmp_path / "x", result(), asked_with=other)
    with Journal(tmp_path / "x", other) as journal:
        assert len(journal) == 1


def test_a_second_process_is_refused_until_the_first_has_gone(tmp_path):
    file = tmp_path / "x"
    code = (
        "import sys; from pathlib import Path\n"
        "from recipe.sophiavl.trm_training.journal import Journal\n"
        "Journal(Path(sys.argv[1]), {}); print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(JournalError, match="another process"):
            Journal(file, {})
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    Journal(file, {}).close()


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "x"
    whole_write = os.write
    with Journal(file, ASKED_WITH) as journal:
        journal.add(result("a"))
        before = file.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: whole_write(fd, data[:7]))
            with pytest.raises(OSError, match=r"No space left.*x"):
                journal.add(result("b"))
        assert file.read_bytes() == before
        assert journal.find("b", 0) is None
        journal.add(result("c", reply="later"))
        assert journal.reply(journal.find("c", 0)) == "later"
