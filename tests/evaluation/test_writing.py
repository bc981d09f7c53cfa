"""Completions judged: hand-worked counts, the divergence curve against integration by hand, and
the command on tiny models."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from openrpt.cli.main import cli, main
from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config
from openrpt.engine.engine import Engine, bind, open_engine
from openrpt.engine.loading import load_model
from openrpt.errors import UserError
from openrpt.evaluation.instrument import measure as measured
from openrpt.evaluation.intervals import Resampled, mean_interval
from openrpt.evaluation.kept import Kept
from openrpt.evaluation.patterns.measures import distinct, words_of
from openrpt.evaluation.resamples import document_weights
from openrpt.evaluation.writing.instrument import Writing
from openrpt.evaluation.writing.mauve import divergence_area, mauve_like, quantise
from openrpt.evaluation.writing.passages import Passage, passages
from openrpt.evaluation.writing.writing import MEASURES, WritingResult, pooled_distinct
from openrpt.runs.run import Run, open_run
from openrpt.stages.score.score import score_corpus
from tests.helpers.tiny import sentencepiece_tokenizer
from tests.helpers.tiny_model import tiny_config, tiny_model_folder

pytest.importorskip("sklearn")

SETTINGS: dict[str, Any] = {
    "writing__documents": 12,
    "writing__prefix_tokens": 12,
    "writing__completion_tokens": 16,
}


def test_distinct_and_repetition_by_hand() -> None:
    # "a b a b a b": 6 words, 2 of them different; 5 pairs, 2; 4 triples, 2; 3 4-grams, 2.
    words = words_of("a b a b a b")
    assert [distinct([words], n) for n in (1, 2, 3, 4)] == [2 / 6, 2 / 5, 2 / 4, 2 / 3]
    # A second text adds "a b" again and "c": of 9 words a, b, c; of 5 + 2 pairs ab, ba, bc.
    texts = [words, words_of("A b c")]
    assert pooled_distinct(texts, 1)[0] == 3 / 9 == distinct(texts, 1)
    value, without = pooled_distinct(texts, 2)
    assert value == 3 / 7 == distinct(texts, 2)
    assert without.tolist() == [2 / 2, 2 / 5]  # each text alone: ab, bc; ab, ba


def result_of(real: list[str], generated: list[str]) -> WritingResult:
    count = len(real)
    half = np.arange(count) % 2
    return WritingResult(
        columns={
            "document_id": np.array([f"d{i}" for i in range(count)]),
            "real": np.array(real, dtype=object),
            "generated": np.array(generated, dtype=object),
            "stopped": np.arange(count) % 4 == 0,
            "bits": np.arange(count, dtype=float),
            "bytes": np.full(count, 2.0),
            "real_cluster": half,
            "generated_cluster": half,
        },
        features="none",
        settings={},
        halves={"real": 0.5, "generated": 0.4},
    )


def test_measures_of_a_result() -> None:
    loops, plain = "so it is so it is so it is", "one two three four five six seven eight nine"
    result = result_of([plain] * 8, [loops] * 4 + [plain] * 4)
    # 9 words are 6 4-grams; the loop has 3 different ones.
    assert result.measure("rep_4").value == pytest.approx((4 * 0.5 + 4 * 0.0) / 8)
    assert result.measure("rep_4", "real").value == 0.0
    assert result.measure("words").value == 9 and result.measure("stopped").value == 0.25
    assert result.measure("bits_per_byte").value == pytest.approx(28 / 16)
    assert result.measure("distinct_1").value == (3 + 9) / 72
    assert result.measure("mauve_like").value == pytest.approx(1.0)
    found = result.measure("mauve_like_halves").interval()
    assert found.value == 0.4 and math.isnan(found.low)
    low, high = (getattr(result.measure("rep_4").interval(), key) for key in ("low", "high"))
    assert low < 0.25 < high
    none = result.measure("rep_4").minus(result.measure("rep_4")).interval()
    assert (none.low, none.value, none.high) == (0.0, 0.0, 0.0)
    empty = result_of([plain] * 8, [""] * 8)
    assert math.isnan(empty.measure("rep_4").value) and empty.measure("words").value == 0


def test_resampled_intervals() -> None:
    """The interval of a mean is as the bootstrap and the jackknife that are known."""
    values = np.random.default_rng(0).normal(3, 2, size=60)
    draws = (document_weights(60) @ values) / 60
    mean = Resampled(value=float(values.mean()), draws=draws, documents=60).interval()
    other = mean_interval(values, np.arange(60))
    assert mean.low == pytest.approx(other.low, abs=0.06)
    assert mean.high == pytest.approx(other.high, abs=0.06)
    without = np.array([np.delete(values, i).mean() for i in range(60)])
    jackknife = Resampled(value=mean.value, draws=without, documents=60, jackknife=True).interval()
    error = values.std(ddof=1) / math.sqrt(60)
    assert jackknife.high - jackknife.value == pytest.approx(1.96 * error)
    single = Resampled(value=1.0, draws=np.array([1.0]), documents=1).interval()
    assert math.isnan(single.low)


def by_integration(p: list[float], q: list[float]) -> float:
    """The area under the paper's curve by adaptive quadrature over λ, y dx with dx/dλ by hand."""
    integrate = pytest.importorskip("scipy.integrate")
    a, b = np.array(p), np.array(q)

    def divergence(one: np.ndarray, r: np.ndarray) -> float:
        return float((one[one > 0] * np.log(one[one > 0] / r[one > 0])).sum())

    def slope(weight: float) -> float:  # y · −dx/dλ
        r = weight * a + (1 - weight) * b
        x, y = (math.exp(-5 * divergence(one, r)) for one in (b, a))
        inner = float((b[b > 0] * (a - b)[b > 0] / r[b > 0]).sum())  # −d KL(q‖r) / dλ
        return y * -5 * x * inner

    area: float = integrate.quad(slope, 0, 1)[0]
    # To the left of the curve's first point its height is 1.
    end = math.exp(-5 * divergence(b, a)) if (a[b > 0] > 0).all() else 0.0
    return area + end


def test_the_divergence_curve() -> None:
    alike = np.array([0.2, 0.3, 0.5])
    assert divergence_area(alike, alike) == pytest.approx(1.0)
    # Disjoint: x = (1 − λ)^5, y = λ^5, so the area is 5·B(6, 5) = 5 · 5! · 4! / 10!.
    disjoint = divergence_area(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert disjoint == pytest.approx(5 * 120 * 24 / math.factorial(10), rel=2e-3)
    for p, q in [
        ([0.5, 0.5], [0.9, 0.1]),
        ([0.7, 0.2, 0.1], [0.1, 0.2, 0.7]),
        ([0.6, 0.4, 0.0], [0.0, 0.5, 0.5]),
        ([0.5, 0.5, 0.0], [0.3, 0.3, 0.4]),
    ]:
        found = divergence_area(np.array(p), np.array(q))
        assert found == pytest.approx(by_integration(p, q), abs=1e-3)
        assert found == pytest.approx(float(divergence_area(np.array(q), np.array(p))), abs=1e-3)
    shares = np.linspace(0, 1, 11)[:, None]
    mixed = (1 - shares) * np.array([[1.0, 0.0]]) + shares * np.array([[0.0, 1.0]])
    areas = divergence_area(np.array([[1.0, 0.0]]).repeat(11, axis=0), mixed)
    assert (np.diff(areas) < 0).all()


def test_sets_of_features() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 16)) * 4
    real = centres[rng.integers(6, size=200)] + rng.normal(size=(200, 16))
    found = []
    for share in (0.0, 0.3, 0.6, 1.0):  # of texts that are of another kind
        other = centres[rng.integers(6, size=200)] + rng.normal(size=(200, 16))
        alien = rng.permutation(200)[: round(200 * share)]
        other[alien] = -3 * centres[0] + rng.normal(size=(len(alien), 16))
        found.append(mauve_like(real, other))
    assert mauve_like(real, real) == pytest.approx(1.0)
    assert found[0] > 0.9 and found[-1] < 0.02 and found == sorted(found, reverse=True)
    same = np.ones((12, 4))
    assert mauve_like(same, same) == pytest.approx(1.0)
    assert len(quantise(real, real[:50])[1]) == 50


def test_against_the_authors_package() -> None:
    """Where `mauve-text` is installed: the same histograms give its area, but for its 25 points."""
    theirs = pytest.importorskip("mauve.compute_mauve")
    rng = np.random.default_rng(1)
    for _ in range(5):
        p, q = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(12))
        weights = np.linspace(1e-6, 1 - 1e-6, 1000)
        curve = theirs.get_divergence_curve_for_multinomials(p, q, weights, 5)
        x, y = curve[:, 0], curve[:, 1]
        area = np.trapezoid(y[np.argsort(x)], np.sort(x))
        assert divergence_area(p, q) == pytest.approx(area, abs=2e-3)


def prose(path: Path, documents: int = 40) -> Path:
    words = ["alpha", "beta", "and", "gamma", "then", "delta", "we", "find", "x = 2,", "so"]
    rng = np.random.default_rng(0)
    rows = [{"text": f"{n}: " + " ".join(rng.choice(words, 30))} for n in range(documents)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("writing")
    config = tiny_config(
        folder,
        corpus__path=str(prose(folder / "prose.jsonl")),
        corpus__heldout_fraction=0.6,
        prompt__window=64,
        **SETTINGS,
    )
    run = open_run(config, min_free_bytes=0)
    score_corpus(config, run.scored)
    return run


def texts_of(run: Run) -> list[tuple[str, Any]]:
    lines = (run.path.parent / "prose.jsonl").read_text(encoding="utf-8").splitlines()
    return [(f"d{n}", lambda line=line: json.loads(line)["text"]) for n, line in enumerate(lines)]


def test_passages(run: Run) -> None:
    policy = load_model(run.config.model)
    found = passages(texts_of(run), run.config, policy.tokenizer)
    texts = {name: read() for name, read in texts_of(run)}
    assert len(found) == len({p.document_id for p in found}) == 12
    for passage in found:
        assert texts[passage.document_id].startswith(passage.prefix + passage.real)
        assert passage.real[0] == " "  # the prefix ends where a word does
    again = passages(reversed(texts_of(run)), run.config, policy.tokenizer)
    assert again == found
    long = run.config.writing.model_copy(update={"prefix_tokens": 500})
    with pytest.raises(UserError, match="0 of 40 documents have"):
        passages(texts_of(run), run.config.model_copy(update={"writing": long}), policy.tokenizer)


def written(
    engine: Engine, given: Sequence[Passage], config: Config, store: Path | None = None
) -> WritingResult:
    instrument = Writing(text="texts", passages=given, config=config, judge=config.model.path)
    return measured(instrument, engine, kept=Kept(path=store))


def test_completions_are_the_models_own(run: Run) -> None:
    """Greedily: what transformers generates behind the prefix. Nothing is forced or added."""
    from openrpt.engine.tree.attention import NAME

    policy = load_model(run.config.model)
    greedy = run.config.writing.model_copy(update={"temperature": 0.0})
    config = run.config.model_copy(update={"writing": greedy})
    given = passages(texts_of(run), config, policy.tokenizer)
    engine = bind("tree", policy)
    found = written(engine, given, config)
    policy.network.set_attn_implementation("sdpa")
    for passage, text in zip(given, found.columns["generated"], strict=True):
        ids = torch.tensor([[*policy.bos_ids, *policy.tokenizer.encode(passage.prefix)]])
        out = policy.network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=config.writing.completion_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        assert text == policy.tokenizer.decode(out[0, ids.shape[1] :])
    policy.network.set_attn_implementation(NAME)


def _made(row: str) -> dict[str, Any]:
    """Returns a row without what it took."""
    return {key: value for key, value in json.loads(row).items() if key not in ("cost", "sha256")}


def test_completions_are_kept_as_they_are_made(run: Run, tmp_path: Path) -> None:
    policy = load_model(run.config.model)
    engine = bind("tree", policy)
    given = passages(texts_of(run), run.config, policy.tokenizer)
    store = tmp_path / "made.jsonl"
    whole = written(engine, given, run.config, store=store)
    rows = store.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(rows) == 12
    first = json.loads(rows[0]) | {"text": "kept"}
    del first["sha256"]  # as an earlier version wrote it
    store.write_text(json.dumps(first) + "\n" + rows[1] + rows[2][:7], encoding="utf-8")
    again = written(engine, given, run.config, store=store)
    texts = again.columns["generated"].tolist()
    assert texts[0] == "kept" and texts[1:] == whole.columns["generated"].tolist()[1:]
    kept = store.read_text(encoding="utf-8").splitlines(keepends=True)
    assert kept[1] == rows[1] and [_made(row) for row in kept[1:]] == [
        _made(row) for row in rows[1:]
    ]
    again.save(tmp_path / "made.parquet")
    loaded = WritingResult.load(tmp_path / "made.parquet")
    assert str(loaded.summary()) == str(again.summary())  # NaN is not NaN
    # The flat engine and other company draw the same.
    flat = open_engine(with_overrides(run.config, {"engine.trainer": "flat"}))
    few = written(flat, given[3:], run.config)
    assert few.columns["generated"].tolist() == whole.columns["generated"].tolist()[3:]


def test_writing_as_a_command(run: Run, tmp_path: Path) -> None:
    foreign = tiny_model_folder(tmp_path / "foreign", tokenizer=sentencepiece_tokenizer())
    command = ["writing", "start", f"foreign={foreign}", "--run", str(run.path)]
    shown = CliRunner().invoke(cli, command, env={"COLUMNS": "220"}, catch_exceptions=False)
    assert shown.exit_code == 0 and "real text" in shown.output
    folder = run.path / "writing"
    document = json.loads((folder / "heldout.json").read_text(encoding="utf-8"))
    rows = {(row["measure"], row["model"]): row for row in document["rows"]}
    assert {measure for measure, _ in rows} == set(MEASURES)
    for measure in MEASURES:
        mine, base = rows[measure, "foreign"], rows[measure, "start"]
        assert mine["difference_value"] == pytest.approx(mine["value"] - base["value"])
    assert rows["words", "real text"]["value"] > 1
    assert document["models"]["start"]["evaluation_cost"]["flops"] > 0
    again = CliRunner().invoke(cli, command, env={"COLUMNS": "220"}, catch_exceptions=False)
    assert "has written before" in again.output
    prose = tmp_path / "prose.jsonl"
    prose.write_bytes((run.path.parent / "prose.jsonl").read_bytes() + b'{"text": null}\n')
    other = ["--text", str(prose), "--writing.temperature", "0"]
    shown = CliRunner().invoke(
        cli, ["writing", "start", "--run", str(run.path), *other], catch_exceptions=False
    )
    assert shown.exit_code == 0 and "skipped, not text: 1 document (prose.jsonl:" in shown.output
    assert (folder / "prose.json").is_file()


def test_what_it_refuses(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit:
            main(["writing", "--run", str(run.path), *arguments])
        assert exit.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "no document of the development split" in refused("--evaluate.split", "development")
    assert "give one by --text PATH" in refused("--corpus.limit", "3")
    assert "at least 10 are needed" in refused("--writing.completion_tokens", "2000")
