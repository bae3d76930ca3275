"""From the installation to ten named people in the browser: what a person waits for and clicks.

    python benchmarks/first_use.py

Needs Playwright and Chromium, as ``scripts/test --browser`` has them, and the package index. In an
empty folder, an environment is made and the package installed with the extras ``server`` and
``people``. The service is started with a folder of drawn photos: forty people, five photos of
each. In the browser the photos are indexed and the faces grouped on the page Jobs, and ten people
are named on the page People. Clicks and keys are counted; the time to read and to think is not.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, arguments, publish, table

PACKAGES = ("playwright",)
NAMES = ("Ada", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gil", "Hana", "Ivo", "Jo")
PATIENCE = 600_000  # milliseconds


class Hands:
    """A mouse and a keyboard that are counted."""

    def __init__(self, page) -> None:
        self.page, self.clicks, self.keys = page, 0, 0

    def click(self, selector: str) -> None:
        """Click on the first element that fits."""
        self.clicks += 1
        self.page.locator(selector).first.click()

    def type(self, text: str) -> None:
        """Type a text, and Enter."""
        self.keys += len(text) + 1
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")


def name_ten(address: str, browser) -> tuple[dict[str, float], Hands]:
    """Seconds of each step in the browser, and what was clicked."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    hands, seconds = Hands(page), {}

    def step(name: str, work) -> None:
        started = time.perf_counter()
        work()
        seconds[name] = time.perf_counter() - started

    def run(form: str) -> None:
        done = page.locator(".run[data-state='done']").count()
        hands.click(f"{form} button:not(#browse)")
        page.wait_for_function(
            "count => document.querySelectorAll(\".run[data-state='done']\").length > count",
            arg=done,
        )

    def name_all() -> None:
        hands.click("header a[href='/people']")
        page.wait_for_selector(".naming input")
        for place, name in enumerate(NAMES):
            hands.clicks += 1
            page.locator(".naming input").nth(place).click()
            hands.type(name)
            page.locator(".card bdi", has_text=re.compile(f"^{name}$")).wait_for()

    page.goto(address)
    hands.click("header a[href='/jobs']")
    step("photos are indexed", lambda: run("#index"))
    page.wait_for_selector("#group button")  # the page loads itself anew
    step("faces are grouped", lambda: run("#group"))
    step("ten people are named", name_all)
    return seconds, hands


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.parse_args()
    from playwright.sync_api import sync_playwright

    from face2vec import samples

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples.write(folder / "photos", people=40, photos=5)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
        package = f"{ROOT}[server,people]"
        subprocess.run([folder / "env/bin/pip", "install", "-q", package], check=True, cwd=folder)
        installed = time.perf_counter()
        command = [folder / "env/bin/face2vec", "serve", "gallery", "--root", "photos"]
        with subprocess.Popen(
            [*command, "--no-browser", "--port", "0"],
            cwd=folder, stderr=subprocess.PIPE, encoding="utf-8",
        ) as service:  # fmt: skip
            assert service.stderr is not None
            address = next(line for line in service.stderr if "http://" in line).strip()
            answers = time.perf_counter()
            try:
                with sync_playwright() as playwright:
                    browser = playwright.chromium.launch(
                        executable_path="/usr/bin/chromium", args=["--no-sandbox"]
                    )
                    steps, hands = name_ten(address, browser)
                    browser.close()
            finally:
                service.terminate()
    rows = [
        ["`pip install`, in a new environment", f"{installed - started:.0f} s"],
        ["`face2vec serve` answers", f"{answers - installed:.1f} s"],
        *([what, f"{seconds:.1f} s"] for what, seconds in steps.items()),
        ["clicks in the browser", str(hands.clicks)],
        ["keys: names, and Enter after each", str(hands.keys)],
    ]
    publish(
        "first-use",
        "From nothing to ten named people",
        table(["what", "measured"], rows),
        "python benchmarks/first_use.py",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
