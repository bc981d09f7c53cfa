"""Shared settings (few threads, no network), and the browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)  # tiny models: a second thread only costs

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's own Chromium, else playwright's; skipped where there is neither."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser'")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    with playwright.sync_playwright() as started:
        if not found and not Path(started.chromium.executable_path).exists():
            pytest.skip("no Chromium: install one, or run 'playwright install chromium'")
        browser = started.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()
