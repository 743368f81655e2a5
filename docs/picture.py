"""Draw `docs/run.png` again: a real run on this machine, and its page in Chromium (`make picture`)."""

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from joblib import Parallel, delayed
from playwright.sync_api import sync_playwright

import skyward as sky

PICTURE = Path(__file__).with_name("run.png")
WIDTH, HEIGHT = 1100, 632


def fit(candidate: int, folder: str) -> int:
    """Sleep, and now and then die at the first attempt."""
    time.sleep(random.Random(candidate).uniform(0.1, 0.6))
    died = Path(folder, f"died-{candidate}")
    if candidate % 70 == 69 and not died.exists():
        died.touch()
        os.abort()  # which costs its slot, and is tried again
    return candidate


def main() -> None:
    """Run, save the page, and look at it."""
    with tempfile.TemporaryDirectory() as folder:
        with sky.Compute(nodes=4, worker=sky.Worker(concurrency=4), plugins=[sky.plugins.joblib()]) as compute:
            Parallel(n_jobs=-1, batch_size=1)(delayed(fit)(candidate, folder) for candidate in range(300))
        page = Path(folder, "run.html")
        compute.report().save(page)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), chromium_sandbox=False)
            tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            tab.goto(page.as_uri())
            tab.wait_for_function("document.getElementById('chart').width > 0")
            tab.screenshot(path=PICTURE)
            browser.close()


if __name__ == "__main__":
    main()
