"""Shared settings (few threads, no network, no deadlines), and the browser."""

import gc
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start, too
# Bytecode is kept, whatever the environment says: else each process that a test starts compiles the
# package again, and each worker every test.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from hypothesis import HealthCheck, settings

sys.dont_write_bytecode = False
# Half of the collection of the tests would go into looking for garbage among what stays.
gc.set_threshold(50_000)
os.fsync = lambda descriptor: None  # no test cuts the power, and a busy disk takes its time
# How long an example takes says how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

PATIENCE = 300_000
"""Milliseconds that the browser may take to start: other programs may have the processor."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")


LONGEST = (
    "integrations/test_ray.py",
    "rl/test_divided.py",
    "report/test_report_browser.py",
    "experiments/test_answers.py",
    "stages/test_train.py",
    "stages/test_processes.py",
    "test_learn.py",
    "experiments/test_lab.py",
    "stages/test_given_thoughts.py",
    "engine/test_generation.py",
    "stages/test_warmup.py",
    "evaluation/test_coding.py",
    "stages/test_curriculum.py",
    "stages/test_pretrain.py",
    "stages/test_other_device.py",
    "engine/test_devices.py",
    "evaluation/test_evaluation.py",
    "rl/test_process_group.py",
    "stages/test_trajectory.py",
    "experiments/test_sweep.py",
    "rl/test_paired_adam.py",
    "evaluation/test_gradings.py",
    "stages/test_failing_steps.py",
    "rl/test_answers.py",
    "rl/test_update.py",
    "report/test_watch_browser.py",
    "evaluation/test_budgets.py",
    "stages/test_finetune.py",
    "stages/test_sampled_traces.py",
    "engine/test_span_decoding.py",
    "stages/test_lab.py",
    "experiments/test_control.py",
    "data/test_streaming.py",
    "engine/test_course.py",
    "evaluation/test_writing.py",
    "stages/test_vllm_training.py",
    "report/test_hub.py",
    "evaluation/test_suite.py",
    "experiments/test_side_by_side.py",
    "test_notebook.py",
    "runs/test_stopping.py",
    "engine/test_branch_attention.py",
    "integrations/test_trl_contract.py",
    "test_scripts.py",
    "test_public.py",
)
"""The files that take long, the longest first, among them those of few tests and those that wait
for other processes: several of these at the end would leave cores idle."""


@pytest.hookimpl(optionalhook=True)  # the environments of other frameworks have no xdist
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: tests of servers and clusters mostly wait."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, then those with many tests: a worker takes a file at a time
    (`--dist loadfile`), and a long one that begins last runs alone."""
    folder, tests = Path(__file__).parent, Counter(item.path for item in items)
    place = {folder / name: n - len(LONGEST) for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(item.path, 0), -tests[item.path]))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what was imported is looked through no more


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    import torch  # not above: the process that hands out the tests needs none

    # Tiny models: a second thread only costs. A command that ran before may have set more.
    torch.set_num_threads(1)


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor's speed is measured by small products: where it has no instructions for
    bfloat16, one of a model's takes half a second."""
    monkeypatch.setattr("openrpt.costs.product_speed._SHAPES", [(8, 16, 32)])


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals do what they do in a terminal: in the background (nohup, &) some are ignored."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's own Chromium, else playwright's; skipped where there is neither."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser'")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    with playwright.sync_playwright() as started:
        if not found and not Path(started.chromium.executable_path).exists():
            pytest.skip("no Chromium: install one, or run 'playwright install chromium'")
        browser = started.chromium.launch(executable_path=found, args=list(FLAGS), timeout=PATIENCE)
        yield browser
        browser.close()
