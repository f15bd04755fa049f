"""The annotation of pairs by a judge: nothing lost, nothing asked twice, and failures told apart from replies."""

import asyncio
import base64
import json
import random
import signal
import sys
import time
from dataclasses import fields

import pyarrow.parquet as pq
import pytest
from aiohttp import web

from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm_training.annotate import (
    CHANGES_NO_REPLY,
    AnnotateSettings,
    annotate,
    asked_with,
    journal_path,
    main,
)
from recipe.sophiavl.trm_training.journal import JournalError
from recipe.sophiavl.trm_training.pairs import PAIR_SCHEMA, PairsError
from testbed.vllm_server import free_port
from tests.support.judge import IMAGES, Judge, journalled, make_file, make_row, read, right_score, score_of
from tests.support.signals import heed_interrupts

pytestmark = pytest.mark.asyncio
KILLS = 10


async def run(url, files, out, settings=None, **changes):
    """`annotate` in a thread, beside the judge's event loop."""
    defaults = {"max_concurrency": 8, "backoff_base_s": 0.001, "backoff_max_s": 0.002}
    config = ClientSettings(urls=[url], **{"model": "judge", **defaults, **changes})
    files = [files] if not isinstance(files, list) else files
    return await asyncio.to_thread(annotate, files, out, config, settings or AnnotateSettings())


async def cli(*arguments):
    return await asyncio.to_thread(main, list(map(str, arguments)))


async def test_rows_in_order_with_scores_and_everything_else_kept(tmp_path):
    first, second = make_file(tmp_path / "a.parquet", range(300)), make_file(tmp_path / "b.parquet", range(280, 310))
    judge, out = Judge(), tmp_path / "out.parquet"
    async with judge.serve() as url:
        summary = await run(url, [first, second], out)
        again = await run(url, [first, second], out)
    numbers = [*range(300), *range(280, 310)]
    assert pq.read_schema(out).equals(PAIR_SCHEMA)
    rows = read(out)
    assert [row["index"] for row in rows] == numbers
    for row, number in zip(rows, numbers, strict=True):
        annotation = {"score": score_of(number), "spread": 0.0, "samples": 1, "reply": f"{score_of(number):.1f}"}
        assert row == dict.fromkeys(PAIR_SCHEMA.names) | make_row(number) | annotation
    assert sorted(judge.requests) == list(range(310)), "equal pairs are asked about once, and the second run asks none"
    assert (summary.rows, summary.pairs, summary.missing, summary.written) == (330, 310, 0, True)
    assert (summary.asked, summary.from_journal, len(summary.scores)) == (310, 0, 310)
    assert (again.asked, again.from_journal, len(again.scores)) == (0, 310, 310)
    assert judge.most_busy <= 8


async def test_what_the_judge_is_sent(tmp_path):
    judge, file = Judge(), make_file(tmp_path / "a.parquet", [2])
    async with judge.serve() as url:
        code = await cli(file, "--out", tmp_path / "out.parquet", "--url", url, "--model", "judge")
    assert code == 0
    (body,) = judge.bodies
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge", 0.0, 1024)
    sent = [part["image_url"]["url"] for part in body["messages"][1]["content"] if part["type"] == "image_url"]
    assert [base64.b64decode(url.partition(",")[2]) for url in sent] == IMAGES[:2]


async def test_samples_are_asked_apart_and_more_can_be_added(tmp_path):
    def answer(number, time_asked):
        return ["0.2", "no idea", "0.5", "0.9"][time_asked - 1] if number else "0.7"

    judge, file, out = Judge(answer), make_file(tmp_path / "a.parquet", range(2)), tmp_path / "out.parquet"
    how = {"temperature": 0.8, "max_retries": 0, "max_concurrency": 1}
    async with judge.serve() as url:
        await run(url, file, out, AnnotateSettings(samples=3), **how)
        steady, varied = read(out)
        assert (steady["score"], steady["spread"], steady["samples"]) == (0.7, 0.0, 3)
        assert (varied["score"], varied["spread"], varied["samples"]) == (0.35, 0.3, 2)
        assert varied["reply"] == "0.2"
        await run(url, file, out, AnnotateSettings(samples=4), **how)
        assert judge.asked == {0: 4, 1: 4}
        varied = read(out)[1]
        assert (varied["samples"], varied["spread"]) == (3, 0.7)
        await run(url, file, out, AnnotateSettings(samples=1), **how)
        assert read(out)[1]["score"] == 0.2
    assert judge.asked == {0: 4, 1: 4}


async def test_servers_failures_are_asked_again_and_scores_are_not(tmp_path):
    def answer(number, time_asked):
        return web.Response(status=400) if number % 3 == 0 and judge.ill else right_score(number, time_asked)

    judge, file, out = Judge(answer), make_file(tmp_path / "a.parquet", range(30)), tmp_path / "out.parquet"
    judge.ill = True
    async with judge.serve() as url:
        how = {"max_retries": 0, "max_concurrency": 1}
        # Two failures in a row would stop it: a score between them starts the count anew.
        summary = await run(url, file, out, AnnotateSettings(stop_after=2), **how)
        assert (summary.missing, summary.written, summary.failed) == (10, False, {"http_400": 10})
        assert not out.exists()
        judge.ill = False
        summary = await run(url, file, out, **how)
    assert (summary.asked, summary.from_journal, summary.written) == (10, 20, True)
    assert judge.asked == {number: 1 + (number % 3 == 0) for number in range(30)}
    assert [row["score"] for row in read(out)] == [score_of(number) for number in range(30)]


async def test_prose_is_paid_for_once_and_asked_again_only_when_told(tmp_path):
    def answer(number, time_asked):
        return "I like it \ud83d" if number == 1 and time_asked < 3 else "0.4"

    judge, file, out = Judge(answer), make_file(tmp_path / "a.parquet", range(3)), tmp_path / "out.parquet"
    retry = AnnotateSettings(retry_unreadable=True)
    async with judge.serve() as url:
        summary = await run(url, file, out)
        assert (summary.written, summary.unreadable, summary.failed) == (True, {"unparsable": 1}, {})
        row = read(out)[1]
        assert (row["score"], row["spread"], row["samples"], row["reply"]) == (None, None, 0, None)
        assert "I like it ?" in journal_path(out).read_text()
        await run(url, file, out)
        assert judge.asked[1] == 1
        await run(url, file, out, retry)
        assert judge.asked == {0: 1, 1: 2, 2: 1}
        summary = await run(url, file, out, retry)
    assert (summary.asked, summary.unreadable) == (1, {})
    assert read(out)[1]["score"] == 0.4


async def test_an_unreadable_image_is_recorded_and_one_without_bytes_stops(tmp_path):
    out = tmp_path / "out.parquet"
    broken = make_file(tmp_path / "a.parquet", [1], images=[{"bytes": b"no image", "path": None}])
    without = make_file(tmp_path / "b.parquet", [4], images=[{"bytes": None, "path": "x.png"}])
    judge = Judge()
    async with judge.serve() as url:
        summary = await run(url, broken, out, AnnotateSettings(stop_after=1))
        assert (summary.unreadable, summary.written, summary.stopped) == ({"bad_image": 1}, True, False)
        with pytest.raises(PairsError, match=r"b.parquet, row 0, field images"):
            await run(url, [broken, without], out)
    assert not judge.requests


async def test_a_judge_that_only_fails_is_left_alone(tmp_path, capsys):
    judge = Judge(lambda number, time_asked: web.Response(status=404))
    file, out = make_file(tmp_path / "a.parquet", range(200)), tmp_path / "out.parquet"
    where = ["--url", "", "--model", "judge", "--max-concurrency", 4]
    async with judge.serve() as where[1]:
        assert await cli(file, "--out", out, *where, "--stop-after", 20) == 1
        assert 20 <= len(judge.requests) <= 24
        output = capsys.readouterr()
        assert "results in a row without a score (http_404 2" in output.err
        assert "200 of 200 pairs have no score yet (http_404 2" in output.err
        assert "run the same command again" in output.err
        assert not out.exists()
        judge.answer = right_score
        where[3] = "right-name"
        # What never got a result binds nobody to a judge.
        assert await cli(file, "--out", out, *where, "--stop-after", 20) == 0
    assert "200 scores, 0 unreadable, 0 failed" in capsys.readouterr().out


async def test_output_with_gaps_only_when_asked_for(tmp_path, capsys):
    judge = Judge(lambda number, asked: web.Response(status=400) if number == 1 else "0.4")
    file, out = make_file(tmp_path / "a.parquet", range(3)), tmp_path / "out.parquet"
    async with judge.serve() as url:
        command = [file, "--out", out, "--url", url, "--model", "judge"]
        assert await cli(*command) == 1
        assert "1 of 3 pairs have no score yet (http_400 1): run the same command again" in capsys.readouterr().err
        assert await cli(*command, "--allow-missing") == 0
    output = capsys.readouterr()
    assert "asked 1 (from the journal: 2)" in output.out
    assert "mean score 0.400" in output.out
    assert "1 of 3 pairs" in output.err
    assert [row["score"] for row in read(out)] == [0.4, None, 0.4]


async def test_a_judge_that_says_the_same_of_all_is_complained_of(tmp_path, capsys):
    judge = Judge(lambda number, time_asked: "0.8")
    few, many = make_file(tmp_path / "a.parquet", range(49)), make_file(tmp_path / "b.parquet", range(50))
    async with judge.serve() as url:
        for file, complains in ((few, False), (many, True)):
            out = tmp_path / f"{file.stem}.out.parquet"
            assert await cli(file, "--out", out, "--url", url, "--model", "judge") == 0
            assert ("every one of the 50 scores is 0.8" in capsys.readouterr().err) == complains


async def test_what_the_servers_hold_replies_to_is_found_out_and_part_of_what_is_compared(tmp_path, capsys):
    judge, file, out = Judge(), make_file(tmp_path / "a.parquet", range(2)), tmp_path / "out.parquet"
    command = [file, "--out", out, "--model", "judge", "--structured-output", "auto"]
    async with judge.serve() as url:
        assert await cli(*command, "--url", url) == 0
        assert json.loads(journal_path(out).read_text().splitlines()[0])["asked_with"]["structured_output"] == "off"
        judge.enforces = True
        assert await cli(*command, "--url", url) == 2
        assert "structured_output was 'off', is 'choice'" in capsys.readouterr().err
    assert len(judge.requests) == 2
    assert await cli(*command, "--url", f"http://127.0.0.1:{free_port()}/v1") == 1
    assert "--structured-output auto: cannot be found out at" in capsys.readouterr().err


async def test_every_setting_of_the_client_is_compared_or_known_to_change_no_reply(tmp_path):
    compared = asked_with(ClientSettings(urls=["http://127.0.0.1:9/v1"], model="judge"))
    known = set(CHANGES_NO_REPLY) | {"prompt_path"}
    assert {one.name for one in fields(ClientSettings)} == (set(compared) - {"prompt_digest"}) | known
    assert {"max_tokens", "structured_output", "temperature"} <= set(compared)


async def test_limit_takes_the_first_rows(tmp_path):
    judge, out = Judge(), tmp_path / "out.parquet"
    files = [make_file(tmp_path / "a.parquet", range(3)), make_file(tmp_path / "b.parquet", range(3, 9))]
    async with judge.serve() as url:
        await run(url, files, out, AnnotateSettings(limit=5))
        assert sorted(judge.requests) == [0, 1, 2, 3, 4]
        assert [row["index"] for row in read(out)] == [0, 1, 2, 3, 4]
        await run(url, files, out)
    assert sorted(judge.requests) == list(range(9))


async def test_a_torn_last_line_is_asked_again(tmp_path):
    judge, file, out = Judge(), make_file(tmp_path / "a.parquet", range(5)), tmp_path / "out.parquet"
    async with judge.serve() as url:
        await run(url, file, out, max_concurrency=1)
        whole, table = journal_path(out).read_bytes(), pq.read_table(out)
        journal_path(out).write_bytes(whole[:-9])
        summary = await run(url, file, out, max_concurrency=1)
    assert (summary.asked, judge.asked[4]) == (1, 2)
    assert pq.read_table(out).equals(table)


async def test_another_judge_is_refused(tmp_path, capsys):
    judge, file, out = Judge(), make_file(tmp_path / "a.parquet", range(2)), tmp_path / "out.parquet"
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("user: 'Grade. {images} {question} {thinking}'\n")
    async with judge.serve() as url:
        await run(url, file, out)
        for changes in (
            *({"model": "b"}, {"temperature": 0.5}, {"prompt_path": str(prompt)}, {"max_thinking_chars": 9}),
            *({"max_tokens": 99}, {"score_mode": "expected"}, {"expected_min_mass": 0.9}),
        ):
            with pytest.raises(JournalError, match="was asked otherwise"):
                await run(url, file, out, **changes)
        assert await cli(file, "--out", out, "--url", url, "--model", "b") == 2
        assert "model was 'judge', is 'b'" in capsys.readouterr().err
        await run(url, file, out, timeout_s=33.0, max_concurrency=3, max_retries=1)
    assert len(judge.requests) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"thinking": None}, r"a.parquet, row 0, field thinking: None"),
        ({"question": None}, r"row 0, field question"),
        ({"pair_id": ""}, r"row 0, field pair_id"),
        ({"pair_id": "same"}, r"row 1, field pair_id: same stands for another"),
    ],
)
async def test_a_wrong_row_is_named_before_anything_is_paid_for(tmp_path, changes, says):
    file = make_file(tmp_path / "a.parquet", range(3), **changes)
    with pytest.raises(PairsError, match=says):
        await run("http://127.0.0.1:9/v1", file, tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--samples", 2], "--samples 2 with --temperature 0"),
        (["--samples", 0], "--samples=0: Input should be greater than or equal to 1"),
        (["--limit", 0], "--limit=0: "),
        (["--stop-after", 0], "--stop-after=0: "),
        (["--temperature", -1], "temperature"),
        (["--prompt-path", "missing.yaml"], "missing.yaml"),
    ],
)
async def test_wrong_settings_are_named(tmp_path, capsys, arguments, says):
    file = make_file(tmp_path / "a.parquet", range(2))
    command = [file, "--out", tmp_path / "o.parquet", "--url", "http://127.0.0.1:9/v1", "--model", "judge"]
    assert await cli(*command, *arguments) == 2
    assert says in capsys.readouterr().err


async def test_wrong_files_are_named(tmp_path, capsys):
    file = make_file(tmp_path / "a.parquet", range(2))
    server = ["--url", "http://127.0.0.1:9/v1", "--model", "judge"]
    assert await cli(file, "--out", file, *server) == 2
    assert "is an input too" in capsys.readouterr().err
    assert await cli(tmp_path / "none.parquet", "--out", tmp_path / "o.parquet", *server) == 2
    assert "none.parquet: cannot be read" in capsys.readouterr().err
    empty = make_file(tmp_path / "empty.parquet", [])
    assert await cli(empty, "--out", tmp_path / "o.parquet", *server) == 2
    assert "no rows" in capsys.readouterr().err


async def test_no_server_at_all(tmp_path):
    file, out = make_file(tmp_path / "a.parquet", range(5)), tmp_path / "out.parquet"
    url = f"http://127.0.0.1:{free_port()}/v1"
    summary = await run(url, file, out, max_retries=0, timeout_s=1.0, deadline_s=1.5)
    assert (summary.missing, summary.written) == (5, False)
    assert set(summary.failed) <= {"connect", "deadline"}
    assert journalled(out) == set()


async def start(file, out, url, *arguments):
    module = "recipe.sophiavl.trm_training.annotate"
    command = [sys.executable, "-m", module, file, "--out", out, "--url", url, "--model", "judge", *arguments]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *map(str, command), stdout=pipe, stderr=pipe, preexec_fn=heed_interrupts
    )


async def first_request(judge, process, before):
    limit = time.monotonic() + 60
    while len(judge.requests) <= before:
        assert process.returncode is None, "the process ended before it asked"
        assert time.monotonic() < limit, "the process asks nothing"
        await asyncio.sleep(0.002)


async def test_killed_again_and_again_nothing_is_lost_and_nothing_asked_twice(tmp_path):
    """Ten kill -9 at random moments; what comes out equals the output of one run that nobody disturbed."""
    concurrency, pairs = 8, 800
    file = make_file(tmp_path / "a.parquet", range(pairs))
    number_of = {make_row(number)["pair_id"]: number for number in range(pairs)}
    chooser = random.Random(0)
    judge, out = Judge(delay_s=0.03), tmp_path / "killed.parquet"
    flags = ("--max-concurrency", concurrency)
    in_mid_run = 0
    async with judge.serve() as url:
        for _ in range(KILLS):
            before = len(judge.requests)
            kept = journalled(out)
            process = await start(file, out, url, *flags)
            await first_request(judge, process, before)
            await asyncio.sleep(chooser.uniform(0.0, 0.3))
            in_mid_run += process.returncode is None
            process.kill()
            await process.communicate()
            assert kept <= journalled(out)
            assert not {number_of[pair] for pair in kept} & set(judge.requests[before:])
        assert in_mid_run == KILLS
        assert not out.exists()
        kept, before = journalled(out), len(judge.requests)
        assert kept
        process = await start(file, out, url, *flags)
        printed, complaints = await process.communicate()
        assert process.returncode == 0, complaints.decode()
        assert f"from the journal: {len(kept)}" in printed.decode()
        assert not {number_of[pair] for pair in kept} & set(judge.requests[before:])
        assert set(judge.requests) == set(range(pairs))
        assert len(judge.requests) - pairs <= KILLS * concurrency
        judge.delay_s = 0.0
        undisturbed = tmp_path / "undisturbed.parquet"
        assert await cli(file, "--out", undisturbed, "--url", url, "--model", "judge", *flags) == 0
    assert pq.read_table(out).equals(pq.read_table(undisturbed))
    assert out.read_bytes() == undisturbed.read_bytes()


async def test_two_at_once_are_refused_and_an_interrupt_ends_cleanly(tmp_path, capsys):
    file, out = make_file(tmp_path / "a.parquet", range(400)), tmp_path / "out.parquet"
    judge = Judge(delay_s=0.05)
    async with judge.serve() as url:
        process = await start(file, out, url, "--max-concurrency", 2)
        await first_request(judge, process, 4)
        assert await cli(file, "--out", out, "--url", url, "--model", "judge") == 2
        assert "another process is writing this journal" in capsys.readouterr().err
        process.send_signal(signal.SIGINT)
        _, complaints = await process.communicate()
        assert process.returncode == 130
        assert "run the same command again to go on" in complaints.decode()
        assert "Traceback" not in complaints.decode()
        asked = len(judge.requests)
        judge.delay_s = 0.0
        assert await cli(file, "--out", out, "--url", url, "--model", "judge") == 0
    assert asked < 400
    assert len(judge.requests) <= 402
