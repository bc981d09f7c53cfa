"""Plain next-token training: packing is exact, it learns, it resumes, it matches another run."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from openrpt.config.loading import with_overrides
from openrpt.data.scored import load_scored
from openrpt.engine.checkpoint_record import read_record
from openrpt.engine.engine import bind, open_engine
from openrpt.engine.packing import packs
from openrpt.engine.text_loss import TextTerms, text_loss
from openrpt.errors import UserError
from openrpt.evaluation.models import latest_model
from openrpt.evaluation.next_token.results import EvaluationResult, paired_differences
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.evaluation.records import result_path
from openrpt.rl.nonfinite import Places
from openrpt.rl.optimizer import learning_rate
from openrpt.runs.metrics import read_metrics
from openrpt.runs.run import Run, open_run
from openrpt.stages.finished import longest_step
from openrpt.stages.pretrain.batches import Piece, accumulate_gradients, all_targets, batches, cut
from openrpt.stages.pretrain.matched import (
    matched_batches,
    matched_works,
    spent_flops,
    spent_seconds,
)
from openrpt.stages.pretrain.pretrain import pretrain
from openrpt.stages.train import train
from tests.helpers.families import tiny_policy
from tests.helpers.tiny_model import copied_run, tiny_config, tiny_model_folder, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft

SETTINGS: dict[str, Any] = {
    "corpus__development_fraction": 0.2,
    "pretrain__sequence_length": 40,
    "pretrain__tokens_per_step": 100,
    "pretrain__microbatch_tokens": 90,
    "pretrain__learning_rate": 3e-3,
    "pretrain__eval_every": 0,
    "train__eval_positions": 20,
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("pretrain"), **SETTINGS)


@pytest.fixture(scope="module")
def reinforced(scored: Run) -> Run:
    """A run after three steps of `train`."""
    run = run_of(scored, "reinforced", train__steps=3)
    train(run)
    return run


def run_of(run: Run, name: str, **overrides: Any) -> Run:
    return copied_run(run, name, **SETTINGS | overrides)


def rows_of(run: Run) -> list[dict[str, Any]]:
    """What must not depend on the machine's mood."""
    skipped = ("seconds", "time/", "memory/", "energy/", "efficiency/")
    return [
        {k: v for k, v in row.items() if not k.startswith(skipped)}
        for row in read_metrics(run.metrics)
        if row["stage"] == "pretrain"
    ]


def weights_of(run: Run, step: int) -> dict[str, bytes]:
    folder = run.checkpoints_of("pretrain") / f"step-{step:06d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


# ---- packing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2", "gpt_neox"])
def test_packed_documents_are_as_separate_ones(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradient against transformers' own forward pass, a document at a time."""
    policy = tiny_policy(family)
    plain = tiny_policy(family).network
    plain.set_attn_implementation("eager")
    softmax = torch.nn.functional.softmax  # eager attention's goes through float32, unless kept
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda x, dim=-1, dtype=None: softmax(x, dim=dim)
    )
    documents = [[(5 * i + 11 * n + 3) % 97 for i in range(n)] for n in (9, 4, 17, 2)]
    total = sum(len(ids) - 1 for ids in documents)

    (hidden,) = bind("tree", policy).states([ids[:-1] for ids in documents])
    targets = torch.tensor([token for ids in documents for token in ids[1:]])
    loss, _, _ = text_loss(hidden, policy.head, TextTerms(targets=targets, ntp_scale=1 / total))
    loss.backward()

    expected = torch.zeros((), dtype=torch.float64)
    for ids in documents:
        logits = plain(torch.tensor([ids[:-1]]), use_cache=False).logits[0]
        expected = expected + torch.nn.functional.cross_entropy(
            logits, torch.tensor(ids[1:]), reduction="sum"
        )
    (expected / total).backward()
    assert abs(float(loss.detach()) - float(expected.detach()) / total) < 1e-10
    pairs = zip(policy.network.named_parameters(), plain.parameters(), strict=True)
    for (name, ours), theirs in pairs:
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None and theirs.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() < 1e-8, name


def test_packs_hold_every_sequence_once_and_in_order() -> None:
    lengths = [5, 1, 7, 2, 2, 9, 1]
    for tokens in (1, 4, 9, 100):
        found = packs(lengths, tokens)
        assert [i for pack in found for i in pack] == list(range(len(lengths)))
        assert all(len(p) == 1 or sum(lengths[i] for i in p) <= tokens for p in found)
    assert len(packs(lengths, 100)) == 1


def test_the_place_of_a_state_that_is_not_finite_is_named(scored: Run) -> None:
    engine, corpus = open_engine(scored.config, trained=True), load_scored(scored.scored)
    tokens = {name: corpus.document(name).token_ids[4:9].tolist() for name in corpus.ids("train")}
    first = next(iter(tokens))
    second = next(name for name, own in tokens.items() if own[2] not in tokens[first])
    ids, bad = [first, second], tokens[second][2]  # attention spreads it over the whole piece
    pieces = [Piece(document_id=name, start=4, end=9, targets=np.arange(5, 9)) for name in ids]
    embedding = engine.model.causal_lm.get_input_embeddings().weight
    with torch.no_grad():
        embedding[bad] = float("nan")
    places = Places(ids)
    total = sum(len(piece.targets) for piece in pieces)
    accumulate_gradients(engine, corpus, pieces, total=total, microbatch_tokens=1000, places=places)
    assert places.describe(math.nan) == f"a loss is not finite at document {second}, position 4"


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in float64, on a model that keeps it."""
    folder = tmp_path_factory.mktemp("exact")
    tiny_model_folder(folder / "model", family="gpt2", dtype=torch.float64)
    return tiny_run(folder, model__dtype="float64", **SETTINGS)


def gradients(
    run: Run,
    pieces: list[Piece],
    tokens: int,
    *,
    recompute: bool = False,
    trainer: str = "tree",
) -> list[torch.Tensor]:
    config = with_overrides(run.config, {"engine.trainer": trainer})
    engine, corpus = open_engine(config, trained=True, recompute=recompute), load_scored(run.scored)
    total = sum(len(piece.targets) for piece in pieces)
    loss = accumulate_gradients(
        engine, corpus, pieces, total=total, microbatch_tokens=tokens, places=Places([])
    )
    return [torch.tensor(loss), *(p.grad for p in engine.model.parameters() if p.grad is not None)]


def test_gradients_do_not_depend_on_how_they_are_computed(exact: Run) -> None:
    """The gradients of a whole step: packed as one, in parts, flat, and with checkpointing; and
    against transformers' own loss on the pieces."""
    corpus = load_scored(exact.scored)
    _, pieces = next(batches(corpus, exact.config, cursor=0, head_length=0))
    assert len(pieces) > 2
    found = gradients(exact, pieces, 1000)
    others = [
        gradients(exact, pieces, 30),
        gradients(exact, pieces, 1000, trainer="flat"),
        gradients(exact, pieces, 60, recompute=True),
    ]
    for other in others:
        pairs = zip(found, other, strict=True)
        assert all((one - same).abs().max() < 1e-10 for one, same in pairs)
    model = AutoModelForCausalLM.from_pretrained(exact.config.model.path, dtype=torch.float64)
    total = sum(len(piece.targets) for piece in pieces)
    nats = torch.zeros((), dtype=torch.float64)
    for piece in pieces:
        ids = corpus.document(piece.document_id).token_ids[piece.start : piece.end]
        tokens = torch.tensor(ids)[None]
        nats = nats + model(tokens, labels=tokens).loss.double() * len(piece.targets)
    (nats / total).backward()
    assert (
        abs(float(found[0]) - float(nats.detach()) / total) < 1e-6
    )  # transformers' loss is float32
    theirs = [p.grad for p in model.parameters() if p.grad is not None]
    for one, other in zip(found[1:], theirs, strict=True):
        assert (one - other).abs().max() < 1e-6


# ---- what is read -------------------------------------------------------------------------------


def test_pieces_are_even_and_whole() -> None:
    for num_tokens, length in itertools.product((2, 39, 40, 41, 500), (8, 40)):
        pieces = cut(num_tokens, length)
        sizes = [end - start for start, end in pieces]
        assert pieces[0][0] == 0 and pieces[-1][1] == num_tokens and sum(sizes) == num_tokens
        assert max(sizes) <= length and max(sizes) - min(sizes) <= 1


def test_every_token_is_read_once_an_epoch(scored: Run) -> None:
    corpus = load_scored(scored.scored)
    total = sum(corpus.entries[i].num_tokens for i in corpus.ids("train"))
    supply = batches(corpus, scored.config, cursor=0, head_length=0)
    stream = itertools.chain.from_iterable(pieces for _, pieces in supply)
    for _ in range(2):
        seen: list[tuple[str, int]] = []
        read = 0
        while read < total:
            piece = next(stream)
            read += piece.end - piece.start
            seen += [(piece.document_id, index) for index in piece.targets.tolist()]
            assert piece.targets.tolist() == list(range(piece.start + 1, piece.end))
        assert read == total and len(set(seen)) == len(seen)
    assert all_targets(3, 6, 1).tolist() == [3, 4, 5]  # behind a BOS token the first trains, too


def test_selected_tokens_are_those_of_the_strategy(scored: Run) -> None:
    corpus = load_scored(scored.scored)
    entropies = [corpus.document(i).entropy_top16 for i in corpus.ids("train")]
    median = float(np.nanmedian(np.concatenate(entropies)))
    run = run_of(scored, "picked", pretrain__tokens="selected", selection__min_entropy=median)
    found, possible = 0, 0
    _, pieces = next(batches(corpus, run.config, cursor=0, head_length=0))
    for piece in pieces:
        entropy = corpus.document(piece.document_id).entropy_top16
        chosen = set(piece.targets.tolist())
        for index in range(piece.start + run.config.prompt.min_context, piece.end):
            assert (index in chosen) == (entropy[index] >= median)
            possible += 1
        found += len(chosen)
    assert 0 < found < possible
    none = run_of(scored, "none", pretrain__tokens="selected", selection__min_entropy=50.0)
    with pytest.raises(UserError, match=r"no position passes selection\.strategy = 'entropy'"):
        pretrain(none)


# ---- training -----------------------------------------------------------------------------------


def test_the_loss_falls_and_the_development_split_is_learned(scored: Run) -> None:
    run = run_of(scored, "learns", pretrain__steps=60, pretrain__eval_every=30)
    pretrain(run)
    rows = rows_of(run)
    assert rows[0]["loss/ntp"] > 5.0  # log of the vocabulary: 6
    assert rows[-1]["loss/ntp"] < 0.5
    evaluated = [row for row in rows if "development/perplexity" in row]
    assert [row["step"] for row in evaluated] == [30, 60]
    assert evaluated[1]["development/perplexity"] < evaluated[0]["development/perplexity"]
    assert evaluated[1]["development/ntp_accuracy"] > 0.9
    assert rows[0]["tokens/trained"] <= rows[0]["tokens/update"] + 1
    card = (run.checkpoints_of("pretrain") / "step-000060" / "README.md").read_text()
    assert "continual next-token training, step 60" in card and "Supervised" in card


class Crash:
    """Progress that breaks off after a step, as a crash does: nothing is saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def begin(self, task: str, total: float, unit: str = "") -> None: ...

    def say(self, line: str) -> None: ...

    def update(self, completed: float, note: str = "") -> None:
        if completed >= self.step:
            raise ConnectionError


@pytest.mark.parametrize(
    "settings",
    [
        {"pretrain__eval_every": 3, "pretrain__tokens": "selected"},
        {"model__lora_rank": 4, "memory__gradient_checkpointing": True},
    ],
    ids=["selected", "lora"],
)
def test_a_broken_off_run_resumes_to_the_same_bits(scored: Run, settings: dict, request) -> None:
    settings = settings | {"pretrain__steps": 6, "checkpoints__every": 2}
    name = request.node.callspec.id
    whole, broken = run_of(scored, f"{name}-whole", **settings), run_of(scored, name, **settings)
    pretrain(whole)
    with pytest.raises(ConnectionError):
        pretrain(broken, progress=Crash(5))
    assert [row["step"] for row in rows_of(broken)] == [1, 2, 3, 4, 5]
    torch.rand(5)  # what else was drawn must not matter
    pretrain(broken)
    assert rows_of(whole) == rows_of(broken) and len(rows_of(whole)) == 6
    assert weights_of(whole, 6) == weights_of(broken, 6)
    assert weights_of(whole, 6).keys() == {"model.safetensors", "state.safetensors"}
    kept = sorted(path.name for path in broken.checkpoints_of("pretrain").iterdir())
    assert kept == ["step-000004", "step-000006"]
    assert not broken.checkpoints.exists()  # train's are elsewhere
    start = load_file(Path(scored.config.model.path) / "model.safetensors")
    trained = load_file(whole.checkpoints_of("pretrain") / "step-000006" / "model.safetensors")
    changed = {key for key in start if (start[key] != trained[key]).any()}
    assert changed and (len(changed) == len(start)) is ("model__lora_rank" not in settings)


def test_a_resumed_training_keeps_what_it_computes(scored: Run) -> None:
    run = run_of(scored, "bound", pretrain__steps=2)
    pretrain(run)

    def again(**changes: Any) -> int:
        section = run.config.pretrain.model_copy(update=changes)
        config = run.config.model_copy(update={"pretrain": section})
        return pretrain(replace(run, config=config)).steps

    with pytest.raises(UserError, match=r"with pretrain\.sequence_length = 40, not 50"):
        again(sequence_length=50)
    with pytest.raises(UserError, match=r"pretrain\.steps = 2, not 4"):
        again(steps=4)  # a cosine ends where it was to end
    assert again(eval_every=7) == 2
    longer = run_of(scored, "longer", pretrain__steps=2, pretrain__schedule="constant")
    pretrain(longer)
    config = longer.config.pretrain.model_copy(update={"steps": 3})
    update = {"pretrain": config}
    assert pretrain(replace(longer, config=longer.config.model_copy(update=update))).steps == 3


def test_the_schedules() -> None:
    settings = tiny_config_of(pretrain__learning_rate=0.2, pretrain__schedule_steps=4)
    rates = [learning_rate(settings, step, share=(step - 1) / 100) for step in range(1, 101)]
    assert rates[1] == pytest.approx(0.1, rel=0.01) and max(rates) < 0.2
    assert rates[50] == pytest.approx(0.1) and 0 < rates[-1] < 0.001
    constant = settings.model_copy(update={"schedule_steps": 0})
    assert {learning_rate(constant, step) for step in range(1, 9)} == {0.2}


def tiny_config_of(**overrides: Any) -> Any:
    from openrpt.config.loading import load_config

    return load_config(overrides={k.replace("__", "."): v for k, v in overrides.items()}).pretrain


def test_what_does_not_fit_is_refused(scored: Run) -> None:
    run = run_of(scored, "long", pretrain__sequence_length=500)
    with pytest.raises(UserError, match=r"pretrain\.sequence_length: 500 tokens do not fit"):
        pretrain(run)


# ---- as a control -------------------------------------------------------------------------------


def taken(run: Run) -> dict[int, dict[str, list[int]]]:
    """step → document → positions, as the rollouts of a run have them."""
    found: dict[int, dict[str, list[int]]] = {}
    for path in sorted((run.path / "rollouts").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            by_document = found.setdefault(row["step"], {})
            positions = by_document.setdefault(row["document_id"], [])
            if row["position"] not in positions:
                positions.append(row["position"])
    return found


@pytest.mark.parametrize(
    ("strategy", "terms"),
    [("entropy", {"prefix": 1.0}), ("pass_rate", {"prefix": 1.0}), ("pass_rate", {"random": 1.0})],
)
def test_matching_documents_takes_the_same_ones(
    scored: Run, strategy: str, terms: dict[str, float]
) -> None:
    """The same documents, positions and steps as the stored rollouts say; and what it trains on."""
    name = f"{strategy}-{'-'.join(terms)}"
    other = run_of(
        scored,
        f"other-{name}",
        reward__terms=terms,
        train__steps=12,  # into the second epoch, where pass rates are known
        selection__strategy=strategy,
        selection__pass_rate_low=1e-5,
        selection__pass_rate_high=0.2,
    )
    train(other)
    corpus = load_scored(other.scored)
    wanted = taken(other)
    config = other.config.model_copy(
        update={"pretrain": tiny_config_of(pretrain__tokens="selected")}
    )
    steps = list(matched_batches(other, corpus, config, head_length=0))
    assert len(steps) == 12
    for (_, pieces), expected in zip(steps, wanted.values(), strict=True):
        assert {p.document_id: p.targets.tolist() for p in pieces} == expected
    last = read_record(other.checkpoints / "step-000012")
    assert steps[-1][0] == last.state.cursor
    # All tokens of the same windows, from the same command in a run of its own.
    control = run_of(
        scored,
        f"control-{name}",
        pretrain__match=str(other.path),
        pretrain__tokens="full",
        selection__strategy="random",  # the matched run's own holds
    )
    assert pretrain(control).steps == 12
    windows = [sum(p.end - p.start - 1 for p in pieces) for _, pieces in steps]
    assert [row["tokens/trained"] for row in rows_of(control)] == windows
    assert rows_of(control)[0]["documents/pieces"] == len(wanted[1])


def test_a_matched_training_resumes_where_it_was(reinforced: Run) -> None:
    settings = {"pretrain__match": str(reinforced.path), "checkpoints__every": 1}
    runs = [run_of(reinforced, f"again-{i}", **settings) for i in range(2)]
    pretrain(runs[0])
    with pytest.raises(ConnectionError):
        pretrain(runs[1], progress=Crash(2))
    pretrain(runs[1])
    assert rows_of(runs[0]) == rows_of(runs[1]) and len(rows_of(runs[0])) == 3
    assert weights_of(runs[0], 3) == weights_of(runs[1], 3)
    assert (runs[1].checkpoints / "step-000003").is_dir()  # train's own stands as it was


def test_what_dynamic_sampling_dropped_is_followed_too(scored: Run) -> None:
    """Also where positions are selected by the pass rates of groups that no rollout file has."""
    settings: dict[str, Any] = {
        "train__steps": 2,
        "train__dynamic_sampling_from": 1,
        "train__group_size": 1,
        "train__dynamic_sampling_rounds": 2,
        "selection__strategy": "pass_rate",
        "selection__pass_rate_low": 0.0,
        "selection__pass_rate_high": 1.0,
    }
    other = run_of(scored, "dynamic", **settings)
    train(other)
    steps = list(matched_works(other, load_scored(other.scored)))
    state = read_record(other.checkpoints / "step-000002").state
    assert steps[-1][0] == state.cursor
    rates = state.pass_rates
    assert {work.document.document_id for _, works in steps for work in works} == set(rates)
    rows = [row for row in read_metrics(other.metrics) if row["stage"] == "train"]
    assert [row["group/generated"] for row in rows] == [
        sum(len(work.positions) for work in works) for _, works in steps
    ]
    (other.path / "works.jsonl").unlink()
    with pytest.raises(UserError, match=r"works\.jsonl: step 1 is not there.*match_by flops"):
        list(matched_works(other, load_scored(other.scored)))


def test_matching_flops_and_time(reinforced: Run, tmp_path: Path) -> None:
    """A new run without scores of its own reads those of the run that it matches."""
    for by in ("flops", "time"):
        config = reinforced.config.model_copy(
            update={
                "run": str(tmp_path / by),
                "pretrain": reinforced.config.pretrain.model_copy(
                    update={"match": str(reinforced.path), "match_by": by}
                ),
            }
        )
        run = open_run(config)
        summary = pretrain(run)
        rows = rows_of(run)
        if by == "flops":
            spent = [row["flops/update"] for row in rows]
            assert sum(spent) >= spent_flops(reinforced) > sum(spent[:-1])
        else:
            # A step begins where one as long as the longest so far would end in time.
            limit, done = spent_seconds(reinforced), read_metrics(run.metrics)
            assert summary.seconds == done[-1]["seconds"] >= limit - longest_step(done)
            assert all(
                done[n - 1]["seconds"] + longest_step(done[:n]) < limit for n in range(1, len(done))
            )
        assert rows[-1]["optim/learning_rate"] < 0.5 * config.pretrain.learning_rate


def test_a_run_that_was_not_trained_cannot_be_matched(scored: Run, tmp_path: Path) -> None:
    run = run_of(scored, "nothing", pretrain__match=str(scored.path))
    with pytest.raises(UserError, match="no step of `openrpt train`"):
        pretrain(run)
    run = run_of(scored, "nowhere", pretrain__match=str(tmp_path / "none"))
    with pytest.raises(UserError, match="not a run folder"):
        pretrain(run)


def test_other_documents_cannot_be_matched(reinforced: Run, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, corpus__limit=9)
    run = tiny_run(tmp_path, corpus__limit=9, pretrain__match=str(reinforced.path))
    assert config.corpus.limit == 9
    with pytest.raises(UserError, match="have other documents"):
        pretrain(run)


def test_it_is_evaluated_beside_the_others(scored: Run) -> None:
    run = run_of(
        scored,
        "beside",
        pretrain__steps=40,
        evaluate__split="development",
        evaluate__min_entropy=0.0,
        evaluate__positions=60,
        evaluate__modes=["ntp"],
    )
    assert latest_model(run) == "start"
    pretrain(run)
    assert latest_model(run) == "pretrained"
    for model in ("start", "pretrained"):
        label, _ = evaluate_model(run, model, run.config)
        assert label == ("start" if model == "start" else "pretrained")
    found = paired_differences(
        EvaluationResult.load(result_path(run, "pretrained")),
        "ntp",
        EvaluationResult.load(result_path(run, "start")),
        "ntp",
    )["all"]
    assert found.value > 0.5 and not math.isnan(found.low)
