"""Probes against layers that provably hold a label, and labels that nothing holds."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from openrpt.cli.main import cli, main
from openrpt.config.loading import with_overrides
from openrpt.config.sections import Config
from openrpt.data.scored import ScoredCorpus, load_scored
from openrpt.engine.engine import Engine, open_engine
from openrpt.errors import UserError
from openrpt.evaluation.instrument import measure
from openrpt.evaluation.models import named_models
from openrpt.evaluation.probes.instrument import Probes
from openrpt.evaluation.probes.labels import ProbeSample, answer_span, document_roles, probe_sample
from openrpt.evaluation.probes.probes import (
    STRENGTHS,
    ProbeResult,
    control_labels,
    fit_all,
    fit_probe,
)
from openrpt.runs.run import Run, open_run
from openrpt.stages.score.score import score_corpus
from tests.helpers.tiny import sentencepiece_tokenizer
from tests.helpers.tiny_model import tiny_config, tiny_model_folder

pytest.importorskip("sklearn")

WORDS = ["alpha", "beta", "12", "7", "gamma", ",", ".", "+", "=", "delta", "345", "(x)", "zeta"]
PROBES = {"probe__positions": 400, "probe__positions_per_document": 20, "probe__layers": 0}


def mixed_corpus(path: Path, documents: int = 24) -> Path:
    """Questions and solutions of random words, numbers and signs, a boxed answer at the end."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(documents):
        words = " ".join(rng.choice(WORDS, 12))
        solution = " ".join(rng.choice(WORDS, 14))
        rows.append(
            {"problem": f"{number}: {words}", "solution": f"{solution} \\boxed{{{number}}}"}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("probes")
    corpus = mixed_corpus(folder / "mixed.jsonl")
    config = tiny_config(
        folder,
        corpus__path=str(corpus),
        corpus__template="{problem}\n\n{solution}",
        corpus__heldout_fraction=0.9,
        prompt__window=64,
        **PROBES,
    )
    run = open_run(config, min_free_bytes=0)
    score_corpus(config, run.scored)
    return run


@pytest.fixture(scope="module")
def corpus(run: Run) -> ScoredCorpus:
    return load_scored(run.scored)


def with_probe(run: Run, **settings: Any) -> Any:
    probe = run.config.probe.model_copy(update=settings)
    return run.config.model_copy(update={"probe": probe})


def probed(
    engine: Engine, corpus: ScoredCorpus, config: Config, sample: ProbeSample | None = None
) -> ProbeResult:
    sample = sample or probe_sample(corpus, config)
    return measure(Probes(corpus=corpus, config=config, sample=sample), engine)


def test_states_are_those_of_transformers(run: Run) -> None:
    ids = [5, 40, 9, 77, 3]
    plain = AutoModelForCausalLM.from_pretrained(run.config.model.path)
    expected = plain(torch.tensor([ids]), output_hidden_states=True).hidden_states
    for kind in ("tree", "flat"):
        config = with_overrides(run.config, {"engine.trainer": kind})
        with torch.no_grad():
            found = open_engine(config).states([ids], layers=(0, 1, -1))
        assert len(found) == len(expected) == 3
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.allclose(mine, theirs[0], atol=1e-5)


def test_the_token_read_last_stands_in_the_embeddings(run: Run, corpus: ScoredCorpus) -> None:
    """Layer 0 is a function of the token alone, so its class is linear in it where types recur."""
    engine = open_engine(run.config)
    result = probed(engine, corpus, run.config)
    assert result.layers == [0, 1, 2] and result.targets == ["token", "next", "answer"]
    token, majority = result.estimate("token/0"), result.estimate("token/majority")
    assert token.value > 0.85 > 0.6 > majority.value and token.documents > 5
    sample = probe_sample(corpus, run.config)
    labelled = (sample.roles == "test") & (sample.labels["token"] != "")
    assert token.n == majority.n == labelled.sum() > 0
    assert result.cost["flops"] > 0 and result.cost["seconds"] > 0


def test_a_layer_that_holds_the_label_is_read_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    documents = np.repeat(np.arange(40), 30)
    roles = np.array([("fit", "validation", "test", "test")[d % 4] for d in documents.tolist()])
    labels = rng.choice(["a", "b", "c"], size=len(documents), p=[0.5, 0.3, 0.2])
    noise = rng.normal(size=(len(documents), 20))
    held = noise.copy()
    held[:, 3] += 6 * (labels == "b")
    held[:, 4] += 6 * (labels == "c")
    test = labels[roles == "test"]
    said, _ = fit_probe(held, labels, roles)
    assert (said == test).mean() > 0.97
    said, strength = fit_probe(noise, labels, roles)
    majority = (test == "a").mean()
    error = math.sqrt(majority * (1 - majority) / len(test))
    assert (said == test).mean() < majority + 2 * error
    assert strength <= 1e-2  # nothing is there: the validation documents say so


def test_the_regularisation_is_chosen_on_documents_that_were_not_fitted() -> None:
    """Random labels in more dimensions than there are positions: any probe fits what it is given,
    and only documents that it was not given say that there is nothing to find."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(240, 300))
    labels = rng.choice(["a", "b"], size=240)
    roles = np.array(["fit", "validation", "test"]).repeat(80)
    said, strength = fit_probe(features, labels, roles)
    assert strength == min(STRENGTHS)
    assert abs((said == labels[roles == "test"]).mean() - 0.5) < 0.17  # three standard errors


def test_the_commonest_class_is_that_of_the_documents_that_are_fitted() -> None:
    roles = np.array(["fit"] * 6 + ["validation"] * 4 + ["test"] * 20)
    labels = np.array(["a", "a", "a", "a", "b", "b", "a", "a", "b", "b", *["b"] * 18, "a", "a"])
    sample = ProbeSample(
        works=(),
        documents=np.arange(30).astype(str),
        byte_offsets=np.arange(1, 31),
        types=labels,
        labels={"token": labels},
        roles=roles,
    )
    columns, _ = fit_all(np.eye(30)[None], [0], sample, seed=0)
    assert columns["token/majority"].mean() == 2 / 20


def test_a_control_can_only_be_learned_by_heart() -> None:
    """Random labels by type: known where the type was seen, a guess where it was not."""
    rng = np.random.default_rng(2)
    types = rng.integers(40, size=2000)
    names = np.array([f"{kind:02}" for kind in types.tolist()])
    roles = np.array(["fit"] * 1000 + ["validation"] * 200 + ["test"] * 800)
    labels = rng.choice(["a", "b"], size=2000)
    random = control_labels(names, labels, roles, 0, "token")
    assert {(n, r) for n, r in zip(names, random, strict=True)} == {
        (n, dict(zip(names.tolist(), random.tolist(), strict=True))[n]) for n in set(names.tolist())
    }
    onehot = np.eye(40)[types]
    said, _ = fit_probe(onehot, random, roles, (1.0,))
    assert (said == random[roles == "test"]).mean() == 1.0
    hidden = np.where(np.isin(types, range(20)) & (roles != "test"), 0, types)
    said, _ = fit_probe(np.eye(40)[hidden], random, roles, (1.0,))
    seen = ~np.isin(types[roles == "test"], range(20))
    right = said == random[roles == "test"]
    assert right[seen].mean() == 1.0 and right[~seen].mean() < 0.9
    again = control_labels(names[::-1], labels[::-1], roles[::-1], 0, "token")
    assert (again[::-1] == random).all()


def test_labels_are_what_they_say(run: Run, corpus: ScoredCorpus) -> None:
    sample = probe_sample(corpus, with_probe(run, min_examples=2))
    texts = {w.document.document_id: w.document for w in sample.works}
    spans = {"< 16": (0, 15), "16–63": (16, 63), "64–255": (64, 255)}
    rows = zip(
        sample.documents.tolist(),
        sample.byte_offsets.tolist(),
        sample.types.tolist(),
        sample.labels["answer"].tolist(),
        strict=True,
    )
    too_rare = any("'64–255'" in note for note in sample.notes)
    seen = set()
    for name, offset, kind, label in rows:
        document = texts[name]
        text = document.text.encode()
        assert text[:offset].endswith(bytes.fromhex(kind))
        left = text.rindex(b"\\boxed{") - offset
        in_solution = offset >= len(document.key.encode())
        if label:
            low, high = spans[label]
            assert in_solution and low <= left <= high
        else:
            assert not in_solution or left < 0 or (too_rare and left >= 64)
        seen.add(label)
    assert {"", "< 16", "16–63"} <= seen
    # A document is on one side alone.
    for name in texts:
        assert len(set(sample.roles[sample.documents == name].tolist())) == 1
    assert sample.about()["documents"]["test"] >= 2


def test_answer_span() -> None:
    assert answer_span("Frage: 1+1? \\boxed{x} ü \\boxed{2}", "Frage: 1+1?", "\\boxed{") == (11, 25)
    assert answer_span("no answer", "q", "####") is None
    assert answer_span("mark #### in the question: then nothing", "mark #### in", "####") is None


def test_roles() -> None:
    names = [f"d{i}" for i in range(10)]
    roles = document_roles(names, 0.4, seed=0)
    counts = [list(roles.values()).count(role) for role in ("fit", "validation", "test")]
    assert counts == [4, 2, 4] and roles != document_roles(names, 0.4, seed=1)
    few = document_roles(names[:4], 0.9, seed=0)
    assert sorted(few.values()) == ["fit", "test", "test", "validation"]


def test_side_by_side_as_a_command(run: Run, tmp_path: Path) -> None:
    other = tiny_model_folder(tmp_path / "other", seed=7)
    command = ["probe", "start", f"other={other}", "--run", str(run.path), "--probe.layers", "2"]
    shown = CliRunner().invoke(cli, command, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert shown.exit_code == 0 and "selectivity" in shown.output
    folder = run.path / "probes"
    document = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((folder / "probes.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(document["rows"]) == 3 * 2 * 2
    assert (folder / "probes.svg").read_text(encoding="utf-8").startswith("<svg")
    for row in document["rows"]:
        selectivity = row["value"] - row["control"]
        assert row["selectivity"] == pytest.approx(selectivity)
        if row["model"] == "start":
            assert row["difference_value"] == 0.0
    by = {(r["target"], r["model"], r["layer"]): r for r in document["rows"]}
    a, b = by["next", "other", 2], by["next", "start", 2]
    assert a["difference_value"] == pytest.approx(a["value"] - b["value"])
    assert document["models"]["start"]["cost"]["flops"] == 0.0
    # A second time nothing is fitted again.
    stored = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert len(stored) == 2
    again = CliRunner().invoke(cli, command, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert "probed before" in again.output
    assert stored == {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}


def test_other_tokenizers_meet_at_bytes(run: Run, corpus: ScoredCorpus, tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer()
    folder = tiny_model_folder(tmp_path / "foreign", tokenizer=tokenizer)
    foreign = open_engine(run.config, path=str(folder))
    whole = probe_sample(corpus, run.config)
    sample = probe_sample(corpus, run.config, [tokenizer])
    assert 0 < len(sample.documents) < len(whole.documents)
    assert "compared by bytes" in sample.notes[0]
    both = [
        probed(engine, corpus, run.config, sample=sample)
        for engine in (foreign, open_engine(run.config))
    ]
    assert (both[0].columns["byte_offset"] == both[1].columns["byte_offset"]).all()
    assert both[0].estimate("token/0").value > both[0].estimate("token/majority").value


def test_what_it_refuses(
    run: Run, corpus: ScoredCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as exit:
            main(["probe", *arguments])
        assert exit.value.code == 2
        message = capsys.readouterr().err.strip().splitlines()
        assert len([line for line in message if line.startswith("openrpt:")]) == 1
        return message[-1]

    at = ["--run", str(run.path)]
    assert "not a run folder" in refused("start", "--run", str(tmp_path))
    assert "the run has no 'trained' model yet" in refused("trained", *at)
    assert "two models are called 'start'" in refused("start", "start=other", *at)
    assert "no document of the development split" in refused(
        "start", *at, "--evaluate.split", "development"
    )
    assert "need 4 to be fitted" in refused("start", *at, "--evaluate.split", "train")
    few = refused("start", *at, "--probe.min_examples", "100000")
    assert "nothing to probe" in few and "lower probe.min_examples" in few
    none = refused("start", *at, "--probe.targets", "answer", "--probe.answer_mark", "####")
    assert "no document has '####'" in none
    assert "is none of token, next, answer" in refused("start", *at, "--probe.targets", "word")


def test_a_rare_class_is_left_out_and_named(run: Run, corpus: ScoredCorpus) -> None:
    whole = probe_sample(corpus, run.config)
    counts = whole.about()["classes"]["token"]
    rarest = min(counts, key=lambda name: counts[name])
    fit = whole.roles == "fit"
    least = int((whole.labels["token"][fit] == rarest).sum()) + 1
    sample = probe_sample(corpus, with_probe(run, min_examples=max(least, 2), targets=["token"]))
    assert rarest not in sample.labels["token"]
    assert any(f"'{rarest}' ({least - 1})" in note for note in sample.notes)


def test_named_models(run: Run) -> None:
    found = named_models(run, [f"again={run.path}", "start"])
    assert [model.label for model in found] == ["again", "start"]
    assert found[0].path == found[1].path == run.config.model.path
    assert [model.label for model in named_models(run, [])] == ["start"]


def test_results_are_read_back(run: Run, corpus: ScoredCorpus, tmp_path: Path) -> None:
    engine = open_engine(run.config)
    config = with_probe(run, targets=["next"], layers=2)
    result = probed(engine, corpus, config)
    result.save(tmp_path / "found.parquet")
    found = type(result).load(tmp_path / "found.parquet")
    assert found.strengths == result.strengths and found.sample == result.sample
    assert found.estimate("next/2") == result.estimate("next/2")
    (tmp_path / "found.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="delete it"):
        type(result).load(tmp_path / "found.parquet")
