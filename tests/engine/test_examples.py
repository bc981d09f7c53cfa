"""Examples of thoughts before the text: what the model sees of them, on either engine."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from openrpt.config.binding import label_settings
from openrpt.config.examples import Example
from openrpt.config.loading import load_config, to_toml
from openrpt.config.prompt import PromptConfig
from openrpt.data.prompts import build_layout
from openrpt.data.tokens import encode_document, literal_bytes, token_table
from openrpt.data.work import work_at
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import bind, open_engine, with_plain_standard
from openrpt.errors import UserError
from openrpt.stages.predict import cut_at_end, predict
from openrpt.stages.train import train
from openrpt.stages.warmup.warmup import open_warmup, warmup
from tests.helpers.tiny import byte_level_tokenizer
from tests.helpers.tiny_model import copied_run, tiny_model_folder, tiny_run

SHOWN = (
    {"text": "Two of 12: 2 * 12 =", "thought": "\n2 * 12 = 24", "prediction": " 24"},
    {"text": "the fox", "thought": "", "prediction": " jumps"},
)
EXAMPLES = tuple(Example(**shown) for shown in SHOWN)
FREE: dict[str, Any] = {"candidates": 1, "think_budget": 6, "prediction_budget": 4}
TEXT = "the quick brown fox jumps over the lazy dog and the cat, 12 of them, and again."


def written(path: Path, *shown: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in shown), encoding="utf-8")
    return path


def test_an_example_reads_as_a_rollout_that_ends_by_itself():
    tokenizer = byte_level_tokenizer()
    layout = build_layout(tokenizer, PromptConfig(examples=EXAMPLES, **FREE))
    eos = tokenizer.eos_token_id
    text = literal_bytes(token_table(tokenizer), layout.head_ids, {eos: b"<|im_end|>"}).decode()
    assert text == (
        "Two of 12: 2 * 12 =<think>\n2 * 12 = 24</think>\n\\boxed{ 24}<|im_end|>"
        "the fox<think></think>\n\\boxed{ jumps}<|im_end|>"
    )
    ids, _ = encode_document(tokenizer, SHOWN[0]["text"])
    assert layout.head_ids[: len(ids)] == tuple(ids)  # as a document's, never as template text
    plain = build_layout(tokenizer, PromptConfig(**FREE))
    assert layout.tail_ids == plain.tail_ids and layout.plain == plain.plain
    assert layout.has_instructions and not plain.has_instructions


@pytest.mark.parametrize("template", ["v0", "v6", "chat"])
def test_each_example_stands_in_the_template(template: str):
    tokenizer, bos = byte_level_tokenizer(), (7,)
    bare = PromptConfig(template=template, chat_template="off", **FREE)
    one = build_layout(tokenizer, bare, bos)
    shown = build_layout(tokenizer, bare.model_copy(update={"examples": EXAMPLES}), bos)
    assert shown.head_ids[-len(one.head_ids) :] == one.head_ids
    starts = [
        n
        for n in range(len(shown.head_ids))
        if shown.head_ids[n : n + len(one.head_ids)] == one.head_ids
    ]
    assert len(starts) == len(EXAMPLES) + 1
    ids, _ = encode_document(tokenizer, SHOWN[0]["text"])
    behind = len(one.head_ids) + len(ids)
    assert shown.head_ids[behind : behind + len(one.tail_ids)] == one.tail_ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples")
    tiny_model_folder(path / "model", family="gpt2", dtype=torch.float64, n_positions=256)
    texts = [json.dumps({"text": TEXT[n:] + TEXT}) for n in range(8)]
    (path / "corpus.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["tree", "flat"])
def test_rollouts_are_those_of_the_plain_model_behind_the_examples(folder: Path, kind: Any):
    config = load_config(overrides={"model.path": str(folder / "model"), "model.dtype": "float64"})
    config = config.model_copy(update={"prompt": PromptConfig(examples=EXAMPLES, **FREE)})
    engine = bind(kind, open_engine(config).model)
    group = predict(engine, cut_at_end(engine.model.tokenizer, TEXT), config, samples=3)
    own = tf.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float64).eval()
    tokenizer = tf.AutoTokenizer.from_pretrained(folder / "model")

    def logprobs(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return own(torch.tensor([ids])).logits[0].double().log_softmax(-1)

    spelled = "".join(
        f"{one.text}<think>{one.thought}</think>\n\\boxed{{{one.prediction}}}<|im_end|>"
        for one in EXAMPLES
    )
    table = token_table(tokenizer)
    text = literal_bytes(table, group.prompt.token_ids, {tokenizer.eos_token_id: b"<|im_end|>"})
    assert text.decode() == spelled + TEXT + "<think>"
    prompt = list(group.prompt.token_ids)
    for rollout in group.rollouts:
        ids = prompt + list(rollout.completion.token_ids)
        found = logprobs(ids)
        for t, (token, said, drawn) in enumerate(
            zip(
                rollout.completion.token_ids,
                rollout.completion.sampler_logprobs,
                rollout.completion.loss_mask,
                strict=True,
            )
        ):
            if drawn:
                assert said == pytest.approx(float(found[len(prompt) + t - 1, token]), abs=1e-9)
    # Standard prediction is that of the text alone, the candidate that of what the policy sees.
    plain = logprobs(list(group.prompt.prefix_ids))[-1]
    for token, said in group.ntp_top:
        assert said == pytest.approx(float(plain[token]), abs=1e-9)
    seen = logprobs(list(group.prompt.head_ids + group.prompt.prefix_ids))[-1]
    (candidate,) = group.candidate_ids
    assert group.candidate_logprobs[0] == pytest.approx(float(seen[candidate]), abs=1e-9)


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    shown = written(folder / "examples.jsonl", *SHOWN)
    own = {f"prompt__{name}": value for name, value in FREE.items()}
    more = {"model__dtype": "float64", "prompt__examples": str(shown), "warmup__steps": 2}
    return own | more | {"selection__strategy": "random", "train__steps": 2} | changes


def test_the_stages_run_behind_examples_and_keep_what_they_said(folder: Path):
    run = tiny_run(folder, **settings(folder))
    warmup(run)
    train(run)
    stored = (run.path / "config.toml").read_text(encoding="utf-8")
    (folder / "examples.jsonl").unlink()
    assert load_config(run.path / "config.toml").prompt.examples == EXAMPLES
    assert to_toml(load_config(run.path / "config.toml")) == stored


def test_the_plain_text_of_a_warmup_is_the_documents(folder: Path):
    """Its loss over a document is that of a plain model behind the examples, on the text alone."""
    changes = {
        "run": str(folder / "text"),
        "warmup__ntp_weight": 1.0,
        "warmup__text_kl_weight": 1.0,
    }
    run = tiny_run(folder, **settings(folder, **changes))
    stage = open_warmup(run)
    work = stage._take(tail_only=False)[0]
    loss = stage.loss([work])
    loss.accumulate([work], [None])
    ids = list(work.prefix_ids(stage.layout, whole=True))
    head = len(stage.layout.head_ids)
    own = tf.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float64).eval()
    with torch.no_grad():
        found = own(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = -sum(float(found[t - 1, ids[t]]) for t in range(head, len(ids))) / (len(ids) - head)
    assert loss.terms()["loss/ntp"] == pytest.approx(expected, rel=1e-9)
    # Standard prediction takes a pass of its own, on either side of a generation.
    work = work_at(work.document, work.window, [work.window.first + 1])
    request = work.request(stage.layout, [(1,)])
    sampling = Sampling.of(run.config.prompt, temperature=1.0)
    (generated,) = stage.engine.generate_each([request], stage.layout, sampling)
    (outcome,) = with_plain_standard(stage.engine, work, stage.layout, generated)
    with torch.no_grad():
        end = head + work.positions[0].index - work.window.start
        plain = own(torch.tensor([ids[head:end]])).logits[0, -1].log_softmax(-1)
    token, said = outcome.standard_top[0]
    assert said == pytest.approx(float(plain[token]), abs=1e-9)


def test_other_examples_are_another_prompt(folder: Path):
    run = tiny_run(folder, **settings(folder, run=str(folder / "bound")))
    other = written(folder / "other.jsonl", SHOWN[0])
    changed = copied_run(run, "changed", **settings(folder, prompt__examples=str(other)))
    before, now = label_settings(run.config), label_settings(changed.config)
    assert {key for key in now if now[key] != before[key]} == {"prompt.examples"}
    assert str(now["prompt.examples"]).startswith("1-")


def test_examples_that_do_not_fit(folder: Path):
    tokens = len(build_layout(byte_level_tokenizer(), PromptConfig(examples=EXAMPLES)).head_ids)
    many = settings(folder, prompt__window=200)
    config = load_config(
        overrides={key.replace("__", "."): value for key, value in many.items()}
        | {"model.path": str(folder / "model")}
    )
    with pytest.raises(UserError, match=rf"head {tokens} \+ prompt\.window 200"):
        open_engine(config).model.layout(config.prompt)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a", "thought": "b"}', r"line 1: field 'prediction': field required"),
        ('{"text": "", "thought": "b", "prediction": "c"}', r"line 1: field 'text'"),
        ('{"text": "a", "thought": 1, "prediction": "c"}', r"line 1: field 'thought'"),
        ('{"key": "p", "text": "a", "thought": "b", "prediction": "c"}', r"field 'key'"),
        ("no", "line 1: no JSON"),
        ("[]", "line 1: input should be"),
        ("", "no examples"),
        (
            '{"text": "a", "thought": "</think>", "prediction": "c"}',
            "'</think>' in example 1 would end its thought",
        ),
    ],
)
def test_files_that_hold_no_examples(tmp_path: Path, line: str, said: str):
    path = tmp_path / "examples.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_config(overrides={"prompt.examples": str(path)})
    with pytest.raises(UserError, match=r"prompt\.examples = .*: no such file"):
        load_config(overrides={"prompt.examples": str(tmp_path / "absent.jsonl")})
    assert load_config(overrides={"prompt.examples": ""}).prompt.examples == ()
