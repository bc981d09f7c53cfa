"""Evaluation on tiny models: likelihoods and controls against plain transformers, comparisons."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openrpt.costs.flops import Shape, model_shape
from openrpt.data.evaluation_work import evaluation_work
from openrpt.data.kinds import ordered_kinds
from openrpt.data.prompts import build_layout
from openrpt.data.scored import load_scored
from openrpt.data.tokens import literal_bytes, token_bytes
from openrpt.data.work import retokenized
from openrpt.engine.checkpoint_record import TrainerState
from openrpt.engine.engine import bind
from openrpt.engine.loading import load_model
from openrpt.engine.model import Model
from openrpt.engine.tree.attention import NAME
from openrpt.errors import UserError
from openrpt.evaluation.instrument import measure
from openrpt.evaluation.models import training_cost
from openrpt.evaluation.next_token.compare import compare
from openrpt.evaluation.next_token.comparison_files import write_comparison
from openrpt.evaluation.next_token.evaluate import NextToken
from openrpt.evaluation.next_token.recorded import Recorded, find_evaluated
from openrpt.evaluation.next_token.results import EvaluationResult, paired_differences
from openrpt.evaluation.next_token.stage import evaluate_model
from openrpt.evaluation.next_token.subject import Subject
from openrpt.evaluation.next_token.thoughts import carried, changed_thoughts, swapped, thought_of
from openrpt.evaluation.next_token.verdict import thought_differences, verdict
from openrpt.evaluation.next_token.voting import commonest, voting_draws
from openrpt.evaluation.records import result_path
from openrpt.evaluation.statistics import Difference
from openrpt.rl.completions import extract_prediction
from openrpt.rl.grading import grade_groups
from openrpt.rl.rewards.matching import prefix_match
from openrpt.runs.checkpoints import save_checkpoint, step_folder
from openrpt.runs.metrics import append_metrics, read_metrics
from openrpt.runs.run import Run
from openrpt.stages.warmup.warmup import warmup
from openrpt.types import Completion, Rollout
from tests.helpers.tiny import TEXT, byte_level_tokenizer, sentencepiece_tokenizer
from tests.helpers.tiny_model import tiny_model_folder, tiny_run

SETTINGS = {
    "corpus__heldout_fraction": 0.4,
    "evaluate__min_entropy": 0.0,
    "evaluate__positions": 18,
    "evaluate__positions_per_document": 6,
}
EVERYTHING = {
    "evaluate__controls": ["emptied", "cut", "swapped", "ntp_voting"],
    "evaluate__likelihood": True,
}


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Run:
    """A run after warmup: its policy knows the letters' order, and copies its first candidate."""
    learned = {"warmup__ntp_weight": 1.0, "warmup__answer_sharpness": 1.0, "warmup__steps": 80}
    run = tiny_run(tmp_path_factory.mktemp("evaluation"), **SETTINGS, **learned)
    warmup(run)
    return run


@pytest.fixture(scope="module")
def policy(warm: Run) -> Model:
    return load_model(warm.config.model, path=str(warm.start))


def evaluated(warm: Run, policy: Model, flat: bool = False, **overrides) -> EvaluationResult:
    config = with_settings(warm, **(EVERYTHING | overrides))
    policy.network.set_attn_implementation("sdpa" if flat else NAME)
    try:
        instrument = NextToken.of(load_scored(warm.scored), config)
        return measure(instrument, bind("flat" if flat else "tree", policy), title="evaluate")
    finally:
        policy.network.set_attn_implementation(NAME)


@pytest.fixture(scope="module")
def everything(warm: Run, policy: Model) -> EvaluationResult:
    """With all controls, through the tree."""
    return evaluated(warm, policy)


def with_settings(run: Run, **overrides):
    from openrpt.config.loading import with_overrides

    return with_overrides(run.config, {k.replace("__", "."): v for k, v in overrides.items()})


@torch.no_grad()
def last_logprobs(policy: Model, ids: list[int]) -> torch.Tensor:
    """[V] after ids, by one plain forward pass of transformers."""
    policy.network.set_attn_implementation("sdpa")
    logits = policy.network(torch.tensor([ids])).logits[0, -1]
    policy.network.set_attn_implementation(NAME)
    return logits.double().log_softmax(-1)


def works_of(run: Run, config):
    keys = ("split", "positions", "positions_per_document", "min_entropy")
    settings = {key: getattr(config.evaluate, key) for key in keys}
    return evaluation_work(load_scored(run.scored), config, **settings)


# ---- likelihood and information gain ------------------------------------------------------------


@pytest.mark.parametrize("template", ["minimal", "chat"])
def test_likelihoods_are_those_of_a_plain_forward_pass(warm, policy, template):
    """Also under instructions, which plain text does not stand behind."""
    overrides = {"prompt__template": template, "prompt__chat_template": "off"}
    overrides |= {"evaluate__samples": 2, "prompt__think_budget": 2}
    result = evaluated(warm, policy, **overrides)
    config = with_settings(warm, **(EVERYTHING | overrides))
    layout = build_layout(policy.tokenizer, config.prompt, policy.bos_ids)
    assert (layout.head_ids != layout.plain_head_ids) == (template == "chat")
    subject = Subject(engine=bind("tree", policy), config=config, layout=layout)
    row = 0
    for work in works_of(warm, config):
        for position, outcome in zip(
            work.positions, next(subject.predict_each([work], 2)), strict=True
        ):
            ids = work.document.token_ids.tolist()
            prefix, true = ids[work.window.start : position.index], ids[position.index]
            plain = -float(last_logprobs(policy, [*layout.plain_head_ids, *prefix])[true])
            assert result.columns["nll_ntp"][row] == pytest.approx(plain, abs=1e-4)
            for column, changed in (("nll", slice(None)), ("nll_emptied", slice(0, 0))):
                values = []
                for completion in outcome.completions:
                    thought = thought_of(completion, layout)[changed]
                    before = [*layout.head_ids, *prefix, *layout.tail_ids, *thought]
                    values.append(-last_logprobs(policy, before + list(layout.close_ids))[true])
                assert result.columns[column][row] == pytest.approx(np.mean(values), abs=1e-4)
            row += 1
    assert row == result.num_positions == 18
    gain = result.columns["nll_ntp"] - result.columns["nll"]
    assert np.allclose(result.columns["information_gain"], gain)
    bits = result.summary()["information_gain_bits_a_byte"]["all"]["value"]
    assert bits == pytest.approx(gain.sum() / np.log(2) / result.columns["token_bytes"].sum())


def test_tree_and_flat_evaluate_alike(warm, policy, everything):
    tree, flat = everything, evaluated(warm, policy, flat=True)
    assert tree.columns.keys() == flat.columns.keys()
    for name, values in tree.columns.items():
        if values.dtype.kind == "f":
            assert np.allclose(values, flat.columns[name], atol=1e-4, equal_nan=True), name
        else:
            assert (values == flat.columns[name]).all()
    # Byte tokens: the position in tokens is the position in bytes, and letters follow letters.
    assert (tree.columns["byte_offset"] == tree.columns["position"]).all()
    assert set(tree.columns["token_class"]) == {"inside a word"}
    assert tree.estimate("closed").value > 0.9
    assert (tree.columns["agrees_start"] >= 0).all()  # the start model is the scorer


# ---- controls -----------------------------------------------------------------------------------


def test_the_real_thought_given_back_predicts_the_same(warm, policy):
    """What separates a control from the real run is the thought alone."""
    config = with_settings(warm, evaluate__samples=2, prompt__think_budget=0)
    layout = build_layout(policy.tokenizer, config.prompt, policy.bos_ids)
    subject = Subject(engine=bind("tree", policy), config=config, layout=layout)
    for work in works_of(warm, config)[:3]:
        real = next(subject.predict_each([work], 2))
        rows = [row for row in range(len(work.positions)) for _ in range(2)]
        completions = [c for outcome in real for c in outcome.completions]
        thoughts = [thought_of(c, layout) for c in completions]
        assert all(len(thought) > 1 for thought in thoughts)
        again = subject.predict_after(work, rows, thoughts)
        assert [o.completions[0].token_ids for o in again] == [c.token_ids for c in completions]


def test_emptied_is_the_prompt_without_a_thought(warm, policy, everything):
    """The control's accuracy is that of a prompt whose candidates are 0."""
    result = everything
    layout = build_layout(policy.tokenizer, warm.config.prompt, policy.bos_ids)
    config = with_settings(warm, prompt__candidates=0)
    subject = Subject(engine=bind("tree", policy), config=config, layout=layout)
    rewards = []
    for work in works_of(warm, config):
        ids = work.document.token_ids.tolist()
        groups = grade_groups(
            next(subject.predict_each([work], 1)),
            work.positions,
            ids,
            token_bytes(policy.tokenizer, ids),
            layout,
            policy.table,
        )
        rewards += [group.rewards[0] for group in groups]
    assert result.columns["emptied"].tolist() == rewards
    # The candidates are the thought here: without the right ones the answer is lost.
    accuracy = {name: result.estimate(name).value for name in ("reasoning", "swapped", "emptied")}
    assert accuracy["reasoning"] > accuracy["swapped"] > accuracy["emptied"]
    assert result.columns["carried"].tolist() == by_hand(warm, policy)
    assert result.estimate("information_gain").value > 0
    assert result.estimate("nll_swapped").value > result.estimate("nll").value


def by_hand(warm, policy) -> list[float]:
    """Each position's prediction after another's candidates, held against the other's own."""
    config = warm.config
    layout = build_layout(policy.tokenizer, config.prompt, policy.bos_ids)
    subject = Subject(engine=bind("tree", policy), config=config, layout=layout)

    def said(generated) -> bytes | None:
        (completion,) = generated.completions
        text = literal_bytes(policy.table, completion.token_ids, layout.literal)
        return extract_prediction(text, thought_end=layout.thought_end)

    works = works_of(warm, config)
    own = [one for work in works for one in next(subject.predict_each([work], 1))]
    documents = [p.document_id for work in works for p in work.positions]
    shift = max(documents.count(name) for name in documents)
    donors = [*own[shift:], *own[:shift]]
    after = []
    for work in works:
        given = [donors[len(after) + row] for row in range(len(work.positions))]
        thoughts = [thought_of(one.completions[0], layout) for one in given]
        after += subject.predict_after(work, range(len(thoughts)), thoughts)
    return [float(said(a) == said(b)) for a, b in zip(after, donors, strict=True)]


def test_a_swapped_thought_carries_its_own_positions_prediction():
    def said(prediction: bytes | None) -> Rollout:
        return Rollout(
            completion=completion_of(1),
            thought=b"",
            prediction=prediction,
            exact=False,
            reward=0.0,
        )

    rollouts = [[said(b"a"), said(b"b")], [said(None), said(b"c")], [said(b"d"), said(b"d")]]
    donors = [[b"a", b"a"], [b"c", None], [None, None]]
    assert carried(rollouts, donors).tolist() == pytest.approx(
        [0.5, 0.0, float("nan")], nan_ok=True
    )
    assert swapped(donors, ["a", "b", "c"]) == [*donors[1:], donors[0]]


def test_kinds_that_are_numbers_stand_in_their_order():
    assert ordered_kinds(["10", "9", "", "10", "-1", "2.5"]) == ["-1", "2.5", "9", "10"]
    assert ordered_kinds(["b", "10", "b", "nan"]) == ["b", "10", "nan"]
    assert ordered_kinds(["inf", "1", "1"]) == ["1", "inf"]


def completion_of(*ids: int, stop: bool = False) -> Completion:
    return Completion(
        token_ids=ids,
        sampler_logprobs=(0.0,) * len(ids),
        loss_mask=(True,) * len(ids),
        finish_reason="stop" if stop else "length",
    )


def test_the_thought_of_a_completion(warm, policy):
    layout = replace(
        build_layout(policy.tokenizer, warm.config.prompt, policy.bos_ids), thought_end_ids=(7, 8)
    )
    assert thought_of(completion_of(1, 2, 7, 8, 5), layout) == (1, 2)
    assert thought_of(completion_of(1, 7, 8, 5, 7, 8, 9), layout) == (1, 7, 8, 5)  # the last end
    assert thought_of(completion_of(7, 8, 9), layout) == ()
    assert thought_of(completion_of(1, 2, 3), layout) == (1, 2, 3)
    assert thought_of(completion_of(1, 2, 0, stop=True), layout) == (1, 2)
    thoughts = [((1, 2, 3, 4, 5), ()), ((6,), (7, 8))]
    assert changed_thoughts("cut", thoughts, ["a", "b"]) == [((1, 2, 3), ()), ((6,), (7,))]
    assert changed_thoughts("emptied", thoughts, ["a", "b"]) == [((), ()), ((), ())]


@pytest.mark.parametrize("sizes", [(3, 3), (1, 5, 2, 2), (4, 1, 1, 2), (1, 1), (5, 2), (2,)])
def test_a_swapped_thought_is_anothers(sizes):
    documents = [str(d) for d, size in enumerate(sizes) for _ in range(size)]
    thoughts = [((i,),) for i in range(len(documents))]
    found = [own[0][0] for own in swapped(thoughts, documents)]
    assert sorted(found) == list(range(len(documents)))
    assert all(i != other for i, other in enumerate(found))
    if 2 * max(sizes) <= len(documents):
        assert all(documents[i] != documents[other] for i, other in enumerate(found))
    with pytest.raises(UserError, match="two positions"):
        swapped(thoughts[:1], documents[:1])


def test_voting(warm, policy):
    """With next to no temperature all draws are the argmax, and voting is standard prediction."""
    result = evaluated(warm, policy, evaluate__temperature=1e-3)
    assert (result.columns["ntp_voting"] == result.columns["ntp"]).all()
    # Six tokens of a rollout in three passes cost about as much as that many draws.
    tokens = 3 + 2 + 1 + 4  # at least: tail, seed, close, prediction
    assert (result.columns["voting_draws"] > tokens / 2).all()


def test_special_tokens_have_no_vote():
    table = [b"", b"a", b"b"]
    assert commonest([0, 2, 1, 0, 0, 2, 9, 9, 9], table) == b"b"
    assert commonest([1, 2], table) == b"a"
    assert commonest([0, 9], table) is None


def test_voting_draws_are_counted_in_flops(warm, policy):
    config = warm.config
    layout = build_layout(policy.tokenizer, config.prompt, policy.bos_ids)
    work = works_of(warm, config)[0]
    request = work.request(layout, [(1, 2, 3) for _ in work.positions])
    subject = Subject(engine=bind("tree", policy), config=config, layout=layout)
    (generated,) = bind("tree", policy).generate_each([request], layout, subject.sampling)
    ids = work.document.token_ids.tolist()
    tokens = token_bytes(policy.tokenizer, ids)
    group = grade_groups(generated, work.positions, ids, tokens, layout, policy.table)[0]
    # Attention and head left out: one draw is one token.
    bare = Shape(matrix_weights=1, attention_width=0, layers=1, head_weights=0)
    free = sum(r.completion.num_trained_tokens for r in group.rollouts)
    opening = len(group.rollouts[0].completion.token_ids) - (
        group.rollouts[0].completion.num_trained_tokens
    )
    expected = len(layout.tail_ids) + opening + free - len(group.rollouts)
    assert voting_draws(bare, group, layout) == expected
    # The head alone: one draw is one logit read.
    head = replace(bare, matrix_weights=0, head_weights=1)
    assert voting_draws(head, group, layout) == free
    assert free <= voting_draws(model_shape(policy), group, layout) <= 2 * expected


def difference(value: float, low: float) -> Difference:
    more = {"high": 2 * value - low, "p": 0.5, "standard_error": 0.1, "n": 9, "documents": 3}
    return Difference(value=value, low=low, **more)


def test_verdict():
    better, unclear = difference(0.05, 0.01), difference(0.01, -0.02)
    every = dict.fromkeys(("standard", "emptied", "swapped", "no thought"), better)
    assert verdict(every).startswith(
        "Thinking helps: the real thought beats its own standard prediction (+5.0 points"
        " [+1.0, +9.0]), its emptied thought (+5.0 points [+1.0, +9.0]), "
    )
    missing = verdict({"standard": better, "emptied": better, "swapped": better})
    assert "is open" in missing and "a run trained without a thought was not compared" in missing
    for name in every:
        found = verdict(every | {name: unclear})
        assert found.startswith("Thinking is not said to help") and "+1.0 points" in found
    nothing = verdict({"emptied": difference(float("nan"), float("nan"))})
    assert nothing.startswith("Thinking is not said to help")


def test_a_verdict_names_prefix_match_and_whole_span_where_they_differ():
    better, worse = difference(0.075, 0.051), difference(-0.101, -0.131)
    others = dict.fromkeys(("emptied", "swapped"), better)
    found = verdict({"standard": worse} | others, better)
    assert found == (
        "Whether thinking helps depends on the grading: by prefix match the real thought does not"
        " beat its own standard prediction (-10.1 points [-13.1, -7.1]), by whole span (all of a"
        " number or word) it does (+7.5 points [+5.1, +9.9]). It beats its emptied thought (+7.5"
        " points [+5.1, +9.9]) and another position's thought (+7.5 points [+5.1, +9.9]). A run"
        " trained without a thought was not compared."
    )
    every = {"standard": better} | others | {"no thought": better}
    only_prefix = verdict(every, worse)
    assert "depends" in only_prefix and "it does not (-10.1 points" in only_prefix
    assert verdict(every, better).startswith("Thinking helps: the real thought beats its own")
    assert verdict(every, better).endswith(
        "By whole span it beats its own standard prediction, too (+7.5 points [+5.1, +9.9])."
    )
    emptied = verdict(every | {"standard": worse, "emptied": worse}, better)
    assert emptied.startswith(
        "Thinking is not said to help: the real thought does not beat its own"
    )
    assert "By whole span it beats its own standard prediction (+7.5" in emptied


# ---- another tokenizer --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def english(tmp_path_factory) -> Run:
    """Its tokens are finer than those of the models that it meets."""
    folder = tmp_path_factory.mktemp("english")
    tiny_model_folder(folder / "model", tokenizer=byte_level_tokenizer(vocab_size=300))
    texts = [" ".join(TEXT[i:] + TEXT[:i]) + f" {i}" for i in range(4)]
    lines = [json.dumps({"text": text}) + "\n" for text in [*texts, *(t[9:] for t in texts)]]
    (folder / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    return tiny_run(folder, **SETTINGS)


@pytest.mark.parametrize("tokenizer", [byte_level_tokenizer(), sentencepiece_tokenizer("prepend")])
def test_another_tokenizer_meets_at_bytes(english, tokenizer, tmp_path):
    """A foreign model's standard prediction stands on the same bytes with the same entropies."""
    path = tiny_model_folder(tmp_path / "other", tokenizer=tokenizer, seed=5)
    config = with_settings(english, evaluate__modes=["ntp"], evaluate__likelihood=True)
    evaluate_model(english, "start", config, label="start")
    _, result = evaluate_model(english, str(path), config, label="other")
    other = load_model(config.model, path=str(path))
    start = EvaluationResult.load(english.path / "evaluation" / "start.parquet")
    row = 0
    assert 0 < result.num_positions < start.num_positions
    for work in works_of(english, config):
        offsets = work.document.byte_offsets
        own = retokenized(work, other.tokenizer)
        ids = own.document.token_ids.tolist()
        pieces = token_bytes(tokenizer, ids)
        text = work.document.text.encode()
        assert b"".join(pieces) == text
        old = {int(offsets[p.index]): p for p in work.positions}
        for position in own.positions:
            before = b"".join(pieces[: position.index])
            assert text.startswith(before)
            assert position.entropy == old.pop(len(before)).entropy
            inside = b"".join(pieces[position.window_start : position.index])
            assert len(inside) <= len(before) - int(offsets[work.window.start])
            assert result.columns["byte_offset"][row] == len(before)
            logprobs = last_logprobs(other, ids[position.window_start : position.index])
            said = logprobs.masked_fill(other.masked_ids(), -np.inf).argmax()
            right = prefix_match(other.table.bytes[int(said)], pieces[position.index :])
            assert result.columns["ntp"][row] == right
            nll = -float(logprobs[ids[position.index]])
            assert result.columns["nll_ntp"][row] == pytest.approx(nll, abs=1e-4)
            row += 1
        # What is gone is no boundary of the other's tokens.
        ends = set(np.cumsum([len(piece) for piece in pieces]).tolist())
        assert not ends & old.keys()
    assert row == result.num_positions
    assert np.isnan(result.columns["agrees_start"]).all()
    comparison = compare(find_evaluated([str(english.path)]))
    assert any("compared by bytes" in note for note in comparison.notes)
    assert {m.result.num_positions for m in comparison.models} == {row}
    for name in ("byte_offset", "document_id", "entropy"):
        a, b = (model.result.columns[name] for model in comparison.models)
        assert (a == b).all()


# ---- comparing ----------------------------------------------------------------------------------


def test_compare(warm, tmp_path):
    sampled = with_settings(warm, evaluate__samples=3, evaluate__likelihood=True)
    evaluate_model(warm, "start", warm.config, label="start")
    evaluate_model(warm, "warmup", with_settings(warm, **EVERYTHING), label="warmup")
    evaluate_model(warm, "warmup", sampled, label="sampled")
    evaluate_model(warm, "start", with_settings(warm, evaluate__positions=7), label="few")
    comparison = compare(find_evaluated([str(warm.path)]), "start ntp")
    assert comparison.against == "start ntp"
    seen = "comes of a supervised warmup: it saw the true tokens"
    assert comparison.notes == [
        "left out, evaluated at other positions than start (--against compares with another): few",
        *(f"{model.name} {seen}" for model in comparison.models if model.name != "start"),
    ]
    assert compare(find_evaluated([str(warm.path)])).against == "start ntp"
    few_first = sorted(find_evaluated([str(warm.path)]), key=lambda one: one.name != "few")
    assert compare(few_first).against == "start ntp", "most was evaluated there"
    assert compare(few_first, "few").against == "few ntp"
    lines = {line.name: line for line in comparison.lines}
    assert {"start reasoning", "warmup ntp_voting", "sampled any_right"} <= lines.keys()
    assert "warmup any_right" not in lines
    by_hand = paired_differences(
        EvaluationResult.load(result_path(warm, "warmup")),
        "reasoning",
        EvaluationResult.load(result_path(warm, "start")),
        "ntp",
    )
    assert str(lines["warmup reasoning"].differences) == str(by_hand)  # NaN is not NaN
    assert lines["start ntp"].differences["all"].value == 0.0
    assert comparison.verdicts.keys() == {"warmup"}
    sources = [str(warm.path)]
    files = {path.suffix: path for path in write_comparison(comparison, tmp_path / "c", sources)}
    document = json.loads(files[".json"].read_text(encoding="utf-8"))
    rows = list(csv.DictReader(files[".csv"].read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(document["rows"]) > len(lines)
    for row, written in zip(rows, document["rows"], strict=True):
        assert (row["model"], row["mode"], row["slice"]) == tuple(
            written[name] for name in ("model", "mode", "slice")
        )
    first = next(r for r in document["rows"] if (r["mode"], r["slice"]) == ("reasoning", "all"))
    estimate = comparison.models[0].result.estimate("reasoning")
    assert first["value"] == pytest.approx(estimate.value)
    assert first["seconds"] == 0.0  # the start model
    assert document["models"]["warmup"]["cost"]["seconds"] > 0
    assert document["models"]["sampled"]["calibration"]["n"] > 0
    assert files[".svg"].read_text(encoding="utf-8").startswith("<svg")
    with pytest.raises(UserError, match="choose another --out"):
        write_comparison(comparison, tmp_path / "c", ["others"])
    own = find_evaluated([str(warm.start)])
    assert {model.label for model in own} == {"warmup", "sampled"}


def test_rows_may_stand_in_any_order(warm):
    """Positions are matched by what they are."""
    evaluate_model(warm, "warmup", warm.config, label="warmup")
    (model,) = [m for m in find_evaluated([str(warm.path)]) if m.label == "warmup"]
    turned = np.arange(model.result.num_positions)[::-1].copy()
    other = replace(model, name="turned", result=model.result.at(turned))
    comparison = compare([model, other])
    assert all(
        d.n == 0 or d.value == 0.0
        for line in comparison.lines
        if line.mode == "ntp"
        for d in line.differences.values()
    )


def test_a_run_without_a_thought_completes_the_verdict(warm):
    """Its evaluation is recognised by how its run was trained."""
    from openrpt.config.loading import to_toml
    from openrpt.files import write_text

    evaluate_model(warm, "warmup", with_settings(warm, **EVERYTHING), label="warmup")
    config = with_settings(warm, prompt__candidates=0, prompt__think_budget=0)
    folder = warm.path.parent / "no-thought"
    folder.mkdir()
    write_text(folder / "config.toml", to_toml(config))
    (model,) = [m for m in find_evaluated([str(warm.path)]) if m.label == "warmup"]
    columns = {"reasoning": np.zeros(model.result.num_positions)}
    result = replace(model.result, columns=model.result.columns | columns, thinks=False)
    path = str(folder / "checkpoints" / "step-000001")
    plain = Recorded(
        name="plain", run=folder, label="trained", result=result, entry={"model": path}
    )
    assert "a run trained without a thought was" in compare([model]).verdicts["warmup"] or (
        compare([model]).verdicts["warmup"].startswith("Thinking is not")
    )
    own = thought_differences(model.result)["standard"]
    expected = model.result.estimate("reasoning").value - model.result.estimate("ntp").value
    assert own.value == pytest.approx(expected)
    beaten = thought_differences(model.result, result)["no thought"]
    assert beaten.value == pytest.approx(model.result.estimate("reasoning").value)
    assert "no thought" not in thought_differences(model.result)
    both = compare([model, plain]).verdicts
    assert "was not compared" not in both["warmup"]


def test_training_cost(warm):
    start = training_cost(warm, warm.config.model.path)
    nothing = {"flops": 0.0, "seconds": 0.0, "joules": 0.0, "money": None}
    assert start == nothing | {"steps_without_flops": 0}
    priced = replace(warm, config=with_settings(warm, cost__price_per_hour=7.2))
    hour = training_cost(priced, str(warm.start))
    assert hour is not None and hour["money"] == pytest.approx((hour["seconds"] or 0) / 500)
    assert training_cost(warm, "elsewhere") is None
    rows = read_metrics(warm.metrics)
    before = training_cost(warm, str(warm.start))
    assert before is not None
    seconds = sum(v for row in rows for k, v in row.items() if k.startswith("time/"))
    assert before["seconds"] == pytest.approx(seconds, rel=0.2) and before["seconds"] > 0
    stored = warm.metrics.read_text()
    for step in (1, 2):
        cost = {"time/update": 5.0, "time/step": 6.0, "flops/update": 2.0}
        append_metrics(warm.metrics, {"stage": "train", "step": step} | cost)
    assert training_cost(warm, str(warm.start)) == before
    state = TrainerState(stage="train", step=1)
    folder = step_folder(warm.checkpoints, 1)
    save_checkpoint(folder, load_model(warm.config.model, trained=True), state, warm.config)
    after = training_cost(warm, str(folder))
    assert after is not None and after["seconds"] == pytest.approx(before["seconds"] + 5.0)
    assert after["flops"] == (before["flops"] or 0.0) + 2.0
    shutil.rmtree(warm.checkpoints)
    warm.metrics.write_text(stored)


def test_a_result_of_another_version_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="evaluate again"):
        EvaluationResult.load(tmp_path / "nothing.parquet")
