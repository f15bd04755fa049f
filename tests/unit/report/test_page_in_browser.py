"""The pages in a real browser: nothing is asked for, nothing planted runs, and what can be pressed does its work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from data_preprocess import inspect
from recipe.sophiavl.report.load import load_run
from recipe.sophiavl.report.page import alone, report_page
from recipe.sophiavl.report.run_data import RunData, Sentence
from testbed.synthetic_run import SyntheticRun, write_data, write_run
from tests.support.browser import CHROMIUM, DRIVER, MISSING, browser, console, look, requests

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)

ATTACK = (
    "</script><script>window.ran=1</script><img src=x onerror=window.ran=2><svg onload=window.ran=3>"
    '<a href="javascript:window.ran=4">a</a>"\'><style>body{display:none}</style><base href=//evil>'
    "<meta http-equiv=refresh content=9;url=http://127.0.0.1:1/><iframe src=http://127.0.0.1:1/></iframe>\x1b[31m\u202e"
    + "W"
    * 300
)
MADE = SyntheticRun(steps=8, prompts=4, responses=4, rows=12, lost=0.1, unformatted=0.1, planted=ATTACK)


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    run = load_run(write_run(tmp_path_factory.mktemp("run"), MADE))
    return replace(run, name=ATTACK, sentences=[*run.sentences, Sentence("problem", ATTACK)])


@pytest.fixture(scope="module")
def file(run: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(report_page(alone(run)), encoding="utf-8")
    return file


@pytest.fixture
def page(driver: Chrome, file: Path) -> Iterator[Chrome]:
    """The page with its gallery, freshly opened; afterwards: no complaint, no request, and nothing planted ran."""
    yield from _opened(driver, file, "gallery")


def _opened(driver: Chrome, file: Path, anchor: str = "") -> Iterator[Chrome]:
    driver.get("about:blank")
    console(driver), requests(driver)
    look(driver, width=1400)
    driver.get(f"{file.as_uri()}#{anchor}")
    yield driver
    asked = [url for url in requests(driver) if url != "about:blank"]
    assert {urlsplit(url).path for url in asked} <= {file.as_posix()}
    assert all(url.startswith("file:") for url in asked)
    assert console(driver) == []
    assert driver.execute_script("return window.ran ?? null") is None


def all_of(page: Chrome, selector: str) -> list[WebElement]:
    return page.find_elements(By.CSS_SELECTOR, selector)


def one(page: Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def press(page: Chrome, *keys: str) -> None:
    ActionChains(page).send_keys(*keys).perform()


def shown(page: Chrome) -> str:
    """Id of the group in the detail view."""
    return one(page, ".detail article").get_attribute("id")


def test_planted_markup_is_text(page: Chrome) -> None:
    seen = one(page, ".response .said").get_property("textContent")
    assert ATTACK.replace("\x1b", "␛").replace("\u202e", "⟨U+202E⟩") in seen
    assert not all_of(page, "main script:not([type='application/json']), main iframe, main base, main style, main meta")
    assert one(page, "body").value_of_css_property("display") == "block"
    assert not all_of(page, "[onerror], [onload], a[href^=javascript]")
    assert "<svg onload" in one(page, "h1").text


def test_what_escaping_would_let_through_the_policy_refuses(driver: Chrome, file: Path, tmp_path: Path) -> None:
    """The second line of defence, with the attack put into the page as markup."""
    bad = tmp_path / "bad.html"
    bad.write_text(file.read_text(encoding="utf-8").replace("</main>", f"<p>here</p>{ATTACK}</main>"), encoding="utf-8")
    driver.get(bad.as_uri())
    assert driver.execute_script("return window.ran ?? null") is None
    refused = " ".join(console(driver))
    assert "inline script" in refused
    assert "inline event handler" in refused
    assert "frame-src" in refused
    requests(driver)


def test_filters_keep_their_groups_and_tell_how_many(page: Chrome, run: RunData) -> None:
    for stratum in run.gallery.strata:
        button = one(page, f'.filters [data-kind="{stratum.key}"]')
        kept = [group for group in run.gallery.groups if stratum.key in group.strata]
        assert button.text.endswith(str(len(kept)))
        assert button.is_enabled() == bool(kept)
        if kept:
            button.click()
            assert button.get_attribute("aria-pressed") == "true"
            links = [link.get_attribute("href").partition("#")[2] for link in all_of(page, ".list a")]
            assert links == [f"g-{group.id}" for group in kept]
            assert f"{len(kept)} of {len(run.gallery.groups)} groups shown." in one(page, ".meaning").text
            assert f"In the whole run: {stratum.groups} groups" in one(page, ".meaning").text
    one(page, '.filters [data-kind="all"]').click()
    assert len(all_of(page, ".list a")) == len(run.gallery.groups)


def test_search_finds_words_of_question_truth_and_responses(page: Chrome, run: RunData) -> None:
    press(page, "/")
    assert page.switch_to.active_element == one(page, "#gallery input")
    wanted = run.gallery.groups[3]
    press(page, wanted.id.upper(), " TRIANGLE")
    assert [link.get_attribute("href").partition("#")[2] for link in all_of(page, ".list a")] == [f"g-{wanted.id}"]
    assert shown(page) == f"g-{wanted.id}"
    assert "triangle" in {mark.text.lower() for mark in all_of(page, ".said mark")}
    press(page, " nothing.is(like[this")
    assert not all_of(page, ".list a")
    assert "No group is like that." in one(page, ".detail").text
    press(page, Keys.ESCAPE)
    assert len(all_of(page, ".list a")) == len(run.gallery.groups)
    press(page, "j")  # the search has given the keyboard back
    assert one(page, "#gallery input").get_property("value") == ""


def test_the_keyboard_pages_through_the_groups(page: Chrome, run: RunData) -> None:
    ids = [f"g-{group.id}" for group in run.gallery.groups]
    assert shown(page) == ids[0]
    for key, place in (("j", 1), (Keys.ARROW_RIGHT, 2), ("j", 3), ("k", 2), (Keys.ARROW_LEFT, 1), ("k", 0), ("k", 0)):
        press(page, key)
        assert shown(page) == ids[place]
        assert [link.get_attribute("href").partition("#")[2] for link in all_of(page, ".list [aria-current]")] == [
            ids[place]
        ]
    press(page, "j")
    assert page.current_url.endswith(f"#{ids[1]}")


def test_a_link_opens_its_group_whatever_is_filtered(driver: Chrome, file: Path, run: RunData) -> None:
    wanted = run.gallery.groups[-1]
    for opened in _opened(driver, file, f"g-{wanted.id}"):
        assert shown(opened) == f"g-{wanted.id}"
        top = opened.execute_script("return document.querySelector('.detail').getBoundingClientRect().top")
        assert 0 <= top < 900
        other = next(group for group in run.gallery.groups if group.strata != wanted.strata)
        one(opened, f'.filters [data-kind="{other.strata[0]}"]').click()
        absent = next(group for group in run.gallery.groups if other.strata[0] not in group.strata)
        opened.execute_script("location.hash = arguments[0]", f"g-{absent.id}")
        opened.execute_async_script("setTimeout(arguments[0], 50)")
        assert shown(opened) == f"g-{absent.id}"
        assert one(opened, '.filters [data-kind="all"]').get_attribute("aria-pressed") == "true"


def test_a_group_is_shown_with_all_that_is_known(page: Chrome, run: RunData) -> None:
    group = next(group for group in run.gallery.groups if group.images and group.gamma is not None)
    page.execute_script("location.hash = arguments[0]", f"g-{group.id}")
    page.execute_async_script("setTimeout(arguments[0], 50)")
    detail = one(page, ".detail")
    assert f"step {group.step}" in detail.text
    assert f"{group.gamma:.2f}" in detail.text
    cards = all_of(page, ".response")
    assert len(cards) == len(group.responses)
    for card, response in zip(cards, group.responses, strict=True):
        assert ("✓ right" if response.right else "✗ wrong") in card.text
        if response.thinking_reward is not None:
            assert f"{response.thinking_reward:.2f}" in card.text
        if response.thinking_error:
            assert response.thinking_error in card.text
    assert len(all_of(page, ".detail img")) == len(group.images)
    assert page.execute_script("return document.querySelector('.detail img').naturalWidth") == group.images[0].width


def test_tables_sort_by_click_and_by_key(page: Chrome) -> None:
    details = all_of(page, "details")[-1]
    page.execute_script("arguments[0].open = true", details)
    heads = details.find_elements(By.CSS_SELECTOR, "th button")

    def column(place: int) -> list[str]:
        script = (
            "return [...arguments[0].querySelectorAll('tbody tr')].map((row) => row.cells[arguments[1]].textContent)"
        )
        return page.execute_script(script, details, place)

    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", heads[2])
    heads[2].click()
    numbers = [float(text.replace(",", "")) for text in column(2)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 5
    heads[2].send_keys(Keys.ENTER)
    assert [float(text.replace(",", "")) for text in column(2)] == sorted(numbers, reverse=True)
    assert heads[2].find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    heads[0].click()
    assert column(0) == sorted(column(0), key=str.casefold)


def test_every_chart_is_read_at_the_step_under_the_pointer(page: Chrome, run: RunData) -> None:
    plot = one(page, "#chart-outcome .plot")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(page).move_to_element(plot).perform()
    step = int(one(page, "#chart-outcome .readout span").text.split()[-1])
    line = next(chart for chart in run.charts if chart.key == "outcome").lines[0]
    assert float(one(page, "#chart-outcome .readout").text.split()[-1]) == pytest.approx(
        line.values[line.steps.index(step)], rel=1e-3
    )
    assert f"step {step}" in one(page, "#chart-thinking .readout").text
    plot.send_keys(Keys.ARROW_RIGHT)
    assert f"step {step + 1}" in one(page, "#chart-thinking .readout").text


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_sticks_out_and_colours_follow_the_reader(page: Chrome, width: int, dark: bool) -> None:
    look(page, width=width, dark=dark)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    colours = page.execute_script(
        "const tick = document.querySelector('.plot svg text');"
        "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(tick).fill]"
    )
    ground, ink = (sum(int(part) for part in one[4:-1].split(",")) / 3 for one in colours)
    assert (ground < 60) == dark
    assert abs(ground - ink) > 90


def test_the_gallery_is_read_when_it_is_needed(driver: Chrome, file: Path) -> None:
    for opened in _opened(driver, file):
        look(opened, width=1400, height=600)
        opened.get("about:blank")
        opened.get(file.as_uri())
        assert not all_of(opened, ".list a")
        press(opened, "/")
        assert all_of(opened, ".list a")


def test_a_sample_sheet_asks_for_nothing_and_sorts(driver: Chrome, tmp_path: Path) -> None:
    write_data(tmp_path / "rows.parquet", MADE)
    assert inspect.main([str(tmp_path / "rows.parquet"), "--html", str(tmp_path / "sheet.html")]) == 0
    for sheet in _opened(driver, tmp_path / "sheet.html"):
        one(sheet, "#counts th button").click()
        assert one(sheet, "#counts th").get_attribute("aria-sort") == "ascending"
        assert len(all_of(sheet, "article")) == MADE.rows
        for width in (390, 1400):
            look(sheet, width=width)
            assert sheet.execute_script("return document.documentElement.scrollWidth") <= width


def test_hundreds_of_groups_are_shown_at_once(driver: Chrome, run: RunData, tmp_path: Path) -> None:
    groups = [replace(run.gallery.groups[place % len(run.gallery.groups)], id=f"{place:08x}") for place in range(600)]
    many = replace(run, gallery=replace(run.gallery, groups=groups))
    file = tmp_path / "many.html"
    file.write_text(report_page(alone(many)), encoding="utf-8")
    assert file.stat().st_size < 30e6
    for opened in _opened(driver, file, f"g-{599:08x}"):
        assert shown(opened) == f"g-{599:08x}"
        timing = opened.execute_script("return JSON.stringify(performance.getEntriesByType('navigation')[0])")
        print(f"page of {file.stat().st_size / 1e6:.1f} MB: loaded after {json.loads(timing)['loadEventEnd']:.0f} ms")
