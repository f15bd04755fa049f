"""Headless Chromium of the system, for tests of the pages and for their pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "no Chromium here: install Debian's packages chromium and chromium-driver"


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A browser that notes what its pages say and ask for.

    Raises:
        RuntimeError: this machine has none.
    """
    if not (CHROMIUM and DRIVER):
        raise RuntimeError(MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Tests may run as root and in containers, where its sandbox and a small /dev/shm stop it.
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def look(driver: webdriver.Chrome, *, width: int, height: int = 900, dark: bool = False, scale: float = 1) -> None:
    """The size of the window, in CSS pixels, and the reader's preferences: colours, and no motion."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})


def console(driver: webdriver.Chrome) -> list[str]:
    """What the page has said since the last look, violations of its policy among it."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: webdriver.Chrome) -> list[str]:
    """What pages have asked for since the last look, themselves included; not what they hold as data."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent: list[dict[str, Any]] = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [event["request"]["url"] for event in sent if not event["request"]["url"].startswith("data:")]


def picture(driver: webdriver.Chrome, file: Path, *, full: bool = False) -> None:
    """A PNG of the window, or of the whole page."""
    if full:
        size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        width = driver.execute_script("return innerWidth")
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": int(size["height"]), "deviceScaleFactor": 1, "mobile": width < 600},
        )
    driver.save_screenshot(str(file))
