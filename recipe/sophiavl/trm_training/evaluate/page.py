"""An evaluation as one HTML page that needs nothing else: plots and images inline, all text escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from recipe.sophiavl.trm.images import BadImageError, data_url, digest_image, load_image
from recipe.sophiavl.trm_training.evaluate import plots
from recipe.sophiavl.trm_training.evaluate.outputs import Evaluation, lines_of, notes_of
from recipe.sophiavl.trm_training.evaluate.rows import EvaluationSet
from recipe.sophiavl.trm_training.evaluate.statistics import Floats

# Nothing but inline pictures and styles may load, whatever a row or a reply holds.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { text-align: left; padding: .2rem .8rem .2rem 0 }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; max-width: 34rem }
figure img { max-width: 100%; background: white }
article { border-top: 1px solid #8886; padding: 1rem 0; display: grid; grid-template-columns: 20rem 1fr; gap: 1.5rem }
article img { max-width: 100%; max-height: 24rem; border: 1px solid #8884; display: block; margin-bottom: .5rem }
dt { font-weight: 600; margin-top: .4rem }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem; overflow: auto }
.none { opacity: .6 }
@media (max-width: 48rem) { article { grid-template-columns: 1fr } }
</style></head><body>
<h1>{{ title }}</h1>
<p>Values in brackets are 95 % intervals over questions.</p>
{% for table in tables %}<h2>{{ table[0] }}</h2>
<table><tr><th></th><th>value</th>{% if compared %}<th>compared</th><th>difference</th>{% endif %}<th>n</th></tr>
{% for line in table[1] %}<tr><td>{{ line.title }}</td><td class="number">{{ line.value }}</td>
{% if compared %}<td class="number">{{ line.other }}</td><td class="number">{{ line.difference }}</td>{% endif %}
<td class="number">{{ line.n }}</td></tr>{% endfor %}
</table>{% endfor %}
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
<h2>Plots</h2>
<div class="plots">{% for name, url in plots %}<figure><figcaption>{{ name }}</figcaption>
<img src="{{ url }}" alt="{{ name }}"></figure>
{% else %}<p class="none">nothing to draw</p>{% endfor %}</div>
<h2>The {{ worst | length }} worst disagreements</h2>
{% for row in worst %}<article><div>
{% for url in row.images %}{% if url %}<img src="{{ url }}" alt="image {{ loop.index }} of row {{ row.number }}">
{% else %}<p class="none">an image that cannot be shown</p>{% endif %}
{% else %}<p class="none">no image</p>{% endfor %}</div>
<dl>{% for name, text in row.fields %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}</dl></article>
{% endfor %}</body></html>
"""


def render_page(
    evaluation: Evaluation,
    other: Evaluation | None,
    data: EvaluationSet,
    trm: Floats,
    worst: Sequence[Mapping[str, Any]],
) -> str:
    """The page.

    Args:
        other: an evaluation to show beside this one.
        trm: the TRM's scores, NaN where missing, shape (rows,).
        worst: rows with ``number``, ``question``, ``images``, ``thinking``, ``reference``, ``score`` and ``reply``.
    """
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    return page.render(
        title=f"Thinking reward model {evaluation['settings']['model']} on {data.file.name}",
        tables=lines_of(evaluation, other),
        compared=other is not None,
        notes=notes_of(evaluation, other),
        plots=_plots(evaluation, other, data, trm),
        worst=[_shown(row) for row in worst],
    )


def _plots(evaluation: Evaluation, other: Evaluation | None, data: EvaluationSet, trm: Floats) -> list[tuple[str, str]]:
    compared = other or {}
    drawn = {
        "TRM's score against the reference": plots.scatter(data.reference, trm),
        "Rows by interval": plots.confusion_map(evaluation["confusion"]["counts"]),
        "Reliability: mean reference by the TRM's interval, with the number of rows": plots.reliability_diagram(
            evaluation["reliability"], compared.get("reliability")
        ),
        "ROC: score as a predictor of the correct outcome": plots.roc_curves(data.reference, trm, data.outcome),
        "Sensitivity to edits": plots.sensitivity_bars(
            evaluation["sensitivity"] or {}, compared.get("sensitivity") or None
        ),
    }
    return [
        (name, "data:image/png;base64," + base64.b64encode(png).decode("ascii"))
        for name, png in drawn.items()
        if png is not None
    ]


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("number", "reference", "score", "question", "thinking", "reply")
    titles = ("row", "reference", "TRM", "question", "thinking", "the TRM's reply")
    fields = [(title, row[name]) for title, name in zip(titles, names, strict=True)]
    return {"number": row["number"], "images": [_url(image) for image in row["images"] or ()], "fields": fields}


def _url(image: Any) -> str | None:
    try:
        return data_url(digest_image(load_image(image)))
    except BadImageError:
        return None
