"""Pictures of the sample documents' report, for the README.

    python -m samples.picture OUTPUT FOLDER

OUTPUT is what `make run` wrote. Needs Chromium and its driver; Debian's `fonts-inter` gives the pictures in the repository.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.observe.conftest import Browser

WIDTH, HEIGHT = 1440, 900
DOCUMENT, BLOCK = "paper-two-columns.pdf, page 2", 4


def main(output: Path, folder: Path) -> None:
    report = max(output.resolve().glob("runs/*/report.html"), default=None)
    if report is None:
        raise SystemExit(f"no report below {output}: run `make run` first")
    found = re.search(rf'id="(page-\d+)"[^>]*aria-label="{re.escape(DOCUMENT)}"', report.read_text("utf-8"))
    if found is None:
        raise SystemExit(f"{report} does not show {DOCUMENT}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        try:
            shoot(browser, report, "", folder / "report-overview.webp")
            shoot(browser, report, f"{found.group(1)}.{BLOCK}", folder / "report.webp")
        finally:
            browser.driver.quit()


def shoot(browser: Browser, report: Path, fragment: str, target: Path) -> None:
    browser.open(report, WIDTH, HEIGHT)
    metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 2, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.js("document.documentElement.style.scrollBehavior = 'auto'; location.hash = arguments[0]", fragment)
    if fragment:
        browser.until(lambda: browser.js("return document.querySelector('.inspector.kept') !== null"), "the block")
    browser.js("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    with Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())) as image:
        image.convert("RGB").save(target, "WEBP", quality=82, method=6)
    print(f"{target}  {target.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
