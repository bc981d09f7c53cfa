"""The report of a synthetic run folder, made by the real writers; no browser is needed."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from openrpt.config import Config, ModelConfig, TrainConfig, WarmupConfig
from openrpt.evaluation.records import record, record_differences
from openrpt.evaluation.results import MEASURES, EvaluationResult, PositionResult
from openrpt.metrics import append_metrics
from openrpt.positions import DIFFICULTIES
from openrpt.report import json_for_script, write_report
from openrpt.report.charts import PLANS, charts, series_values
from openrpt.report.glossary import EVALUATION, METRICS, WARMUP_KEYS, WARMUP_ONLY, metrics_markdown
from openrpt.report.samples import running, sample_steps, visible
from openrpt.report.summary import verdict, what_changed
from openrpt.rewards import REWARDS
from openrpt.rollouts import rollout_path, write_rollouts
from openrpt.run import Run, open_run

ROOT = Path(__file__).parent.parent
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
PAIRS = [
    (("trained", "reasoning"), ("warmup", "reasoning")),
    (("trained", "reasoning"), ("trained", "ntp")),
]


def evaluation_result(rate: float, *, documents: int = 24, positions: int = 12) -> EvaluationResult:
    """Every document has the same positions; which are right depends on the rate alone."""
    rng = np.random.default_rng(0)
    n = documents * positions
    draws = rng.random(n)
    columns = {name: np.zeros(n) for name in PositionResult.__dataclass_fields__}
    columns["document_id"] = np.repeat([f"d{i:02}" for i in range(documents)], positions)
    columns["position"] = np.tile(np.arange(positions), documents)
    columns["entropy"] = 0.6 + 1.5 * rng.random(n)
    columns["ntp"] = (rng.random(n) < 0.53).astype(float)
    columns["reasoning"] = (draws < rate).astype(float)
    return EvaluationResult(columns=columns, has_reasoning=True)


def rollout_rows(step: int, *, groups: int = 3, size: int = 5, text: str = "a b") -> list[dict]:
    continuation = [b" the", b"\n", b"\xf0\x9f", b"\x98\x80 ", text.encode()]
    return [
        {
            "step": step,
            "document_id": "9f86d081884c7d65",
            "position": 17 + g,
            "rollout": r,
            "entropy": 0.5 + 0.3 * g,
            "prefix_end": f"Let x = 2.\nThen {text} ".encode(),
            "continuation": continuation,
            "ntp_prediction": b" a" if g % 2 else b" the",
            "candidates": [b" the", b" a", b" \xe6\x95\xb0"],
            "thought": f"<think> the | a | {text}".encode(),
            "prediction": None if r == 4 else [b" the", text.encode(), b" th", b" a"][r % 4],
            "reward": float(r % 4 == 0 and r != 4),
            "exact": r % 4 == 0 and r != 4,
            "reward_terms": [],
            "advantage": 1.5 if r % 4 == 0 and r != 4 else -0.5,
            "finish_reason": "length" if r == 4 else "stop",
            "token_ids": [1, 2, 3],
            "sampler_logprobs": [0.0, -0.5, -0.1],
            "loss_mask": [False, True, True],
        }
        for g in range(groups)
        for r in range(size)
    ]


def train_row(step: int) -> dict:
    """Every key that a train step writes, with plausible values."""
    fade, wave = math.exp(-step / 30), math.sin(3 * step) / 30
    values = {key: 0.5 + wave for key in METRICS if key not in WARMUP_ONLY}
    values |= {
        "completion/closed_fraction": 0.97 + wave / 2,
        "completion/stopped_fraction": 0.93 + wave / 2,
        "completion/thought_bytes_mean": 31 + 20 * wave,
        "development/reasoning_accuracy": 0.53 - 0.05 * fade + wave / 9,
        "development/ntp_accuracy": 0.52 + wave / 9,
        "optim/grad_norm": 0.8 + 5 * wave,
        "policy/sampler_difference": 1e-6 * (1 + wave),
        "reward/mean": 0.52 - 0.16 * fade + wave,
        "pass_rate/easy": 0.55 - 0.16 * fade + wave,
        "pass_rate/medium": 0.44 - 0.14 * fade - wave,
        "pass_rate/hard": 0.36 - 0.12 * fade + wave,
        "group/flat_fraction": 0.7 - 0.4 * fade + wave,
        "policy/entropy": 0.9 * fade + 0.1,
        "loss/policy": wave / 1000,
        "time/generate": 6 + wave,
        "time/update": 9 + 5 * wave,
        "time/store": 0.05,
        "tokens/generate": 6000.0,
        "tokens/update": 5400.0 + 9000 * wave,
        "tokens/not_computed": 210_000.0,
        "flops/generate": 1.6e12,
        "flops/update": 4.1e12,
        "memory/peak_gib": 5.1,
    }
    if step % 5:
        values = {key: v for key, v in values.items() if not key.startswith("development/")}
    return {"stage": "train", "step": step} | values


def fill(run: Run, *, steps: int = 6, text: str = "a b", groups: int = 3, size: int = 5) -> None:
    """Everything that a finished run has."""
    for step in range(1, 4):
        row = dict.fromkeys(WARMUP_KEYS, 1.0 / step)
        append_metrics(run.metrics, {"stage": "warmup", "step": step} | row)
    for step in range(1, steps + 1):
        append_metrics(run.metrics, train_row(step))
    for step in (1, steps):
        write_rollouts(run.path, step, rollout_rows(step, groups=groups, size=size, text=text))
    for label, rate in (("start", 0.0), ("warmup", 0.48), ("trained", 0.53)):
        result = evaluation_result(rate)
        record(run, label, result, model="tiny", split="heldout")
    record_differences(run, PAIRS)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(Config(run=str(tmp_path / "demo")), min_free_bytes=0)


class Page(HTMLParser):
    """Tags with their attributes, the text outside scripts, and each script's body."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.in_script = self.in_style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.in_script, self.in_style = tag == "script", tag == "style"
        if self.in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_script = self.in_style = False

    def handle_data(self, data: str) -> None:
        if self.in_script:
            self.scripts[-1] += data
        elif not self.in_style:
            self.text += data


def report_page(run: Run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_report_of_a_whole_run(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    fill(run)
    path = write_report(run)
    assert capfd.readouterr() == ("", "")
    assert path == run.path / "report.html"
    assert not [*run.path.glob("*.partial")]
    assert path.stat().st_size < 2_000_000
    page = report_page(run)
    for name in ("start model", "trained model", "untrained", "after warmup", "after RPT"):
        assert name in page.text
    assert "not distinguishable" in page.text  # against the trained model's own NTP: equal
    assert "beyond noise" in page.text  # against warmup
    assert "Not evaluated" not in page.text
    specs = json.loads(page.scripts[0])
    assert len(specs) == len(PLANS)  # every chart has data
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert specs.keys() <= ids
    assert "vegaEmbed" in page.scripts[1]


def test_nothing_comes_from_a_network(run: Run) -> None:
    fill(run)
    page = report_page(run)
    for tag, attributes in page.tags:
        assert "src" not in attributes
        assert tag != "link" or attributes["href"] == "data:,"
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'")


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    """As corpus text, as thought and prediction, and as a name in the config."""
    config = Config(run=str(tmp_path / "demo"), model=ModelConfig(path=HOSTILE))
    run = open_run(config, min_free_bytes=0)
    fill(run, text=HOSTILE)
    record(run, HOSTILE[2:8], evaluation_result(0.5), model="m", note=HOSTILE, split=HOSTILE)
    page = report_page(run)
    kinds = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert kinds == ["application/json", "module", "module"]
    assert "alert(" not in "".join(page.scripts[i] for i in (0, 2))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert page.text.count("alert(1)") > 10  # seen, as text


def test_json_in_a_script_cannot_end_it() -> None:
    text = json_for_script({"series": f"{HOSTILE}<!-- &"})
    assert not re.search("[<>&]", text)
    assert json.loads(text) == {"series": f"{HOSTILE}<!-- &"}


def test_bytes_are_made_visible() -> None:
    assert visible(b" a\n") == '<i class="ws">␣</i>a<i class="ws">⏎</i>'
    assert visible(b"\xf0\x9f") == r"\xf0\x9f"
    assert visible("\u202eabc".encode()) == r"\u202eabc"  # would reverse what follows
    assert visible(b"\x00\x01") == r"\x00\x01"
    assert visible("数学".encode()) == "数学"
    assert running(b"a b\nc ") == 'a b<i class="ws">⏎</i>\nc<i class="ws">␣</i>'
    assert visible(b"<b>") == "&lt;b&gt;"


def test_empty_run_says_what_is_absent(run: Run) -> None:
    (run.path / "environment.json").unlink()
    text = report_page(run).text
    for absent in (
        "No model has been evaluated",
        "No metrics yet",
        "No rollouts are stored",
        "environment.json is absent",
        "has not been evaluated",
    ):
        assert absent in text


def test_damaged_files_are_named_and_the_rest_is_shown(run: Run) -> None:
    fill(run)
    run.evaluation.write_text('{"format": 1, "evalu')
    rollout_path(run.path, 6).write_bytes(b"PAR1")
    with run.metrics.open("a") as file:
        file.write('{"stage": "train", "st')  # a last line that was cut off
    page = report_page(run)
    assert "evaluation.json:1: damaged" in page.text
    assert "step-000006.parquet: not readable" in page.text
    assert len(json.loads(page.scripts[0])) == len(PLANS)


def test_evaluation_of_another_version(run: Run) -> None:
    run.evaluation.write_text('{"format": 99}')
    assert "written by another version" in report_page(run).text


def test_partial_evaluation(run: Run) -> None:
    record(run, "start", evaluation_result(0.0), model="tiny", split="heldout")
    record(run, "other", evaluation_result(0.2, documents=1), model="tiny", split="heldout")
    text = report_page(run).text
    assert "Not evaluated: Standard NTP of the trained model; Reasoning after" in text
    assert "other, reasoning" in text
    assert "± ?" in text  # one document gives no error


def test_supervised_warmup_is_labelled(tmp_path: Path) -> None:
    def page_of(name: str, warmup: WarmupConfig, ntp_weight: float) -> Page:
        config = Config(
            run=str(tmp_path / name), warmup=warmup, train=TrainConfig(ntp_weight=ntp_weight)
        )
        run = open_run(config, min_free_bytes=0)
        fill(run, steps=2)
        return report_page(run)

    def tags(page: Page) -> int:
        return sum(attributes.get("class") == "tag" for _, attributes in page.tags)

    assert tags(page_of("form", WarmupConfig(), 0.0)) == 0
    assert tags(page_of("truth", WarmupConfig(target="truth"), 0.0)) == 3
    assert tags(page_of("ntp", WarmupConfig(ntp_weight=0.1), 0.0)) == 3
    assert tags(page_of("train", WarmupConfig(), 0.5)) == 2


def test_verdicts() -> None:
    base = {"value": 0.02, "low": 0.01, "high": 0.03, "n": 99, "documents": 40}
    assert verdict(base | {"distinguishable": True}) == "beyond noise"
    assert verdict(base | {"low": -0.01, "distinguishable": False}) == "not distinguishable"
    assert "one document" in verdict(base | {"documents": 1, "distinguishable": True})
    assert "only 4 documents" in verdict(base | {"documents": 4, "distinguishable": True})


def test_sentence_gives_value_and_interval() -> None:
    easy = {"value": 0.5, "standard_error": 0.02, "n": 1024, "documents": 50}
    difference = {"value": -0.013, "low": -0.03, "high": 0.004, "n": 1024, "documents": 50}
    entry = {
        "a": {"label": "trained", "mode": "reasoning"},
        "b": {"label": "trained", "mode": "ntp"},
        "difference": {"easy": difference | {"distinguishable": False}},
    }
    sentence = what_changed({"trained": {"summary": {"reasoning": {"easy": easy}}}}, [entry])
    assert "50.0 ± 2.0 % of 1,024 positions" in sentence
    assert "−1.3 points against standard NTP of the trained model" in sentence
    assert "(95 % interval −3.0 to +0.4), not distinguishable" in sentence


def test_samples_are_bounded_and_say_so(run: Run) -> None:
    write_rollouts(run.path, 1, rollout_rows(1, groups=50, size=20))
    write_rollouts(run.path, 9, rollout_rows(9, groups=50, size=20))
    last, first = sample_steps(run.path)
    assert (last.step, first.step) == (9, 1)
    assert len(last.groups) + len(first.groups) == 24
    assert last.num_groups == 50
    assert len({group.position for group in last.groups}) == len(last.groups)
    assert (last.groups[0].num_rollouts, len(last.groups[0].rollouts)) == (20, 16)
    text = report_page(run).text
    assert "16 of 50 groups" in text and "4 more rollouts" in text


def test_values_that_are_no_numbers_leave_a_gap() -> None:
    rows = [{"stage": "train", "step": s, "reward/mean": v} for s, v in ((1, 0.5), (2, math.nan))]
    (chart,) = charts(rows)
    assert [value["step"] for value in series_values(rows, chart.plan)] == [1]
    json_for_script(chart.spec)  # would raise for NaN


def test_docs_come_from_the_glossary() -> None:
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == metrics_markdown() + "\n"


def test_glossary_has_every_metric_that_the_code_writes() -> None:
    """Read from the source: literal keys, and those made of a phase or a difficulty."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "openrpt").glob("*.py"))
    sections = "|".join(sorted({key.split("/")[0] for key in METRICS}))
    written = set(re.findall(rf'"((?:{sections})/[a-z_]+)"', source))
    written |= {f"time/{phase}" for phase in re.findall(r'timer\("(\w+)"\)', source)}
    written |= {f"pass_rate/{name}" for name in DIFFICULTIES}
    written |= {f"reward/{name}" for name in REWARDS}
    assert written == METRICS.keys()
    assert EVALUATION.keys() == set(MEASURES)
