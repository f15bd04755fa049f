"""Pictures of a page: ``python -m tests.support.screenshot PAGE.html OUT.png [--width 390] [--dark] [--full]``.

The pictures of the README are of the report of a quickstart run; GROUP is the part after ``#`` of a group's link:

    python -m tests.support.screenshot outputs/quickstart/report.html docs/images/report.png --height 1620
    python -m tests.support.screenshot outputs/quickstart/report.html docs/images/report_gallery.png --height 780 \\
        --anchor GROUP
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

from PIL import Image

from tests.support.browser import browser, look, picture


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1400, help="of the window, in CSS pixels")
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--full", action="store_true", help="the whole page instead of the window")
    parser.add_argument("--anchor", default="", help="id of the element to start at")
    options = parser.parse_args()
    with browser() as driver:
        look(driver, width=options.width, height=options.height, dark=options.dark)
        driver.get(f"{options.page.resolve().as_uri()}{options.anchor and '#' + options.anchor}")
        time.sleep(0.5)  # pictures and the gallery are read when they come into view
        picture(driver, options.out, full=options.full)
    # Flat colours: a palette is a third of the size.
    small = Image.open(io.BytesIO(options.out.read_bytes())).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
