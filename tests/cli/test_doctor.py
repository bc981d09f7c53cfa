import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from openrpt.cli import doctor
from openrpt.data.assets import DEMO_CORPUS, DEMO_MODEL, asset_status


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_products: None) -> Path:
    folder = tmp_path / "not" / "made" / "yet"
    monkeypatch.setenv("OPENRPT_CACHE", str(folder))
    return folder


def printed(findings: list[doctor.Diagnosis]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    doctor.print_report(findings, console)
    return console.export_text()


def test_diagnosis_covers_the_machine_and_changes_nothing(cache: Path) -> None:
    threads = torch.get_num_threads()
    findings = doctor.diagnose()
    names = [finding.name for finding in findings]
    for name in (
        "python",
        "processor",
        "memory",
        "torch",
        "threads",
        "device",
        "CPU speed",
        "disk",
    ):
        assert names.count(name) == 1
    assert names.count("asset") == len(asset_status())
    assert torch.__version__ in next(f.value for f in findings if f.name == "torch")
    assert torch.get_num_threads() == threads
    assert not cache.exists()


def test_assets_are_absent_without_fault_and_damaged_with_one(cache: Path) -> None:
    def assets() -> list[doctor.Diagnosis]:
        return [finding for finding in doctor.diagnose() if finding.name == "asset"]

    assert all(finding.ok and "downloads it" in finding.advice for finding in assets())
    cache.mkdir(parents=True)
    (cache / DEMO_MODEL.file_name).write_bytes(b"GGUF, cut short")
    model, corpus, *_ = assets()
    assert not model.ok and "damaged" in model.advice
    assert corpus.ok and DEMO_CORPUS.name in corpus.value


@pytest.mark.parametrize(("threads", "ok"), [(1, True), (4, True), (5, False)])
def test_threads_beyond_the_cores_are_advised_against(threads: int, ok: bool) -> None:
    finding = doctor.check_threads(threads, cores=4)
    assert finding.ok is ok
    assert ("OMP_NUM_THREADS=4" in finding.advice) is not ok


@pytest.mark.parametrize(
    ("content", "cores"), [("200000 100000\n", 2), ("350000 100000\n", 3), ("50000 100000\n", 1)]
)
def test_cpu_quota_of_a_container(tmp_path: Path, content: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert doctor._cpu_quota(tmp_path / "cpu.max") == cores


def test_no_cpu_quota(tmp_path: Path) -> None:
    everything = doctor._cpu_quota(tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert doctor._cpu_quota(tmp_path / "cpu.max") == everything >= doctor.usable_cores() >= 1


def test_report_prints_brackets_as_they_are() -> None:
    bad = doctor.Diagnosis(name="x", value="y", ok=False, advice="pip install 'openrpt[lora]'")
    text = printed([bad, doctor.Diagnosis(name="fine", value="z")])
    assert "pip install 'openrpt[lora]'" in text
    marks = [line.split()[1] for line in text.splitlines() if line.startswith("│")]
    assert marks == ["no", "ok"]
