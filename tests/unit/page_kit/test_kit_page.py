"""What a template is given is escaped and shown, whatever it is; only the kit's own scripts may run."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import jinja2
import pytest

from page_kit.page import Figure, Table, render

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\x1b[31m\u202e"


def page(folder: Path, body: str, **context) -> str:
    template = folder / "page.html"
    template.write_text(
        '{% extends "base.html" %}{% import "parts.html" as parts %}{% block main %}' + body + "{% endblock %}"
    )
    return render(template, **{"title": "a page", **context})


def test_hostile_text_is_text_in_every_place(tmp_path: Path) -> None:
    body = (
        '{{ text }}<p title="{{ text }}"></p>{{ text|bdi }}{{ parts.table(table) }}{{ parts.figure(figure) }}'
        '{{ parts.sample(text, [none], [[text, text]]) }}{{ {"a": [text]}|json_block("data") }}'
    )
    table = Table((HOSTILE,), [(HOSTILE,)], HOSTILE, HOSTILE)
    figure = Figure(HOSTILE, None, HOSTILE, HOSTILE, [("accent", HOSTILE)])
    html = page(tmp_path, body, title=HOSTILE, text=HOSTILE, table=table, figure=figure)
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert not {"\x1b", "\u202e"} & set(html)
    assert html.count("␛[31m⟨U+202E⟩") >= 15
    assert html.count("</script>") == 2  # of the page's own script and of its data


def test_only_the_pages_own_scripts_may_run(tmp_path: Path) -> None:
    html = page(tmp_path, "")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1].replace("&#39;", "'")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}' ;" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_data_for_scripts_has_no_number_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        page(tmp_path, '{{ [value]|json_block("data") }}', value=float("nan"))


def test_a_name_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError):
        page(tmp_path, "{{ nobody }}")


def test_a_script_that_would_end_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.js").write_text("'</SCRIPT>'")
    template = tmp_path / "page.html"
    template.write_text('{% extends "base.html" %}')
    with pytest.raises(ValueError, match=r"bad\.js"):
        render(template, scripts=[tmp_path / "bad.js"], title="x")


def test_intervals_and_reasons_are_set_apart_in_cells(tmp_path: Path) -> None:
    table = Table(("", "a"), [("x", "0.5 [0.1, 0.9]"), ("y", "– (no row)"), ("z", "0.5 ± 0.1"), ("w", "5 apples")])
    html = page(tmp_path, "{{ parts.table(table) }}", table=table)
    assert '0.5 <span class="interval">[0.1, 0.9]</span>' in html
    assert '– <span class="reason">(no row)</span>' in html
    assert '0.5 <span class="interval">± 0.1</span>' in html
    assert ">5 apples</td>" in html
