"""From a folder of raw results to what a study says: ``results.json``, ``results.md``, and figures."""

from __future__ import annotations

from pathlib import Path

from data_preprocess.core.files import replacing, write_json
from recipe.sophiavl.study import figures, tables
from recipe.sophiavl.study.claims import answers
from recipe.sophiavl.study.comparisons import compare, errors_by_model, errors_of, measures, missing_of, values_of
from recipe.sophiavl.study.findings import Findings
from recipe.sophiavl.study.results import read_results

ACCURACY = 0.8  # that `steps_to` counts to; fixed before any result, halfway from the start to the ceiling


def findings_of(results: Path, accuracy: float = ACCURACY) -> Findings:
    """All that the raw results say.

    Raises:
        ResultsError: a file of results is wrong.
    """
    read = read_results(results)
    measured = measures(accuracy, read.cells)
    values = values_of(read.cells, measured)
    comparisons, empty = compare(values, measured)
    missing = missing_of(values, empty)
    return Findings(
        results=read,
        measures=measured,
        values=values,
        comparisons=comparisons,
        errors=errors_of(values, measured),
        errors_by_model=errors_by_model(values, measured),
        answers=answers(comparisons, measured, read.cells),
        missing=missing,
        accuracy=accuracy,
    )


def analyse(results: Path, out: Path) -> None:
    """Analyse the raw results in a folder.

    Args:
        results: folder of the cells' JSONL files.
        out: folder of ``results.json``, ``results.md`` and the figures; the same results give the same bytes.

    Raises:
        ResultsError: a file of results is wrong; nothing is written then.
    """
    found = findings_of(results)
    drawn = figures.draw(found)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "results.json", tables.as_json(found))
    texts = {"results.md": tables.as_markdown(found, {name: text for name, (_, text) in drawn.items()})}
    for name, text in {**texts, **{name: svg for name, (svg, _) in drawn.items()}}.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for name in figures.NAMES:
        if name not in drawn:
            (out / name).unlink(missing_ok=True)
