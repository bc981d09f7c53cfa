"""End tasks through lm-eval: our model class against lm-eval's own, and the whole stage."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import decoders, processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.helpers.tiny import byte_level_tokenizer, sentencepiece_tokenizer
from tests.helpers.tiny_model import tiny_model_folder

pytest.importorskip("lm_eval", reason="needs the extra 'lm-eval'")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from openrpt.cli.main import cli, main
from openrpt.config.loading import load_config
from openrpt.config.prompt import PromptConfig
from openrpt.data.prompts import build_layout
from openrpt.engine import generation
from openrpt.engine.engine import open_engine
from openrpt.errors import UserError
from openrpt.evaluation.end_tasks.answer_book import AnswerBook
from openrpt.evaluation.end_tasks.asked import Asked
from openrpt.evaluation.end_tasks.harness import OpenRPTLM
from openrpt.evaluation.end_tasks.respondent import Respondent, model_identity
from openrpt.evaluation.end_tasks.zero_shot import RECORD, outcome_path, zero_shot
from openrpt.evaluation.questions.results import AnswerResult
from openrpt.evaluation.records import read_models
from openrpt.progress import Silent
from openrpt.runs.run import Run, open_run
from openrpt.stopping import Interrupted

CHOICES = [
    {
        "question": f"Which letter is number {n}?",
        "options": ["a", "b", "c", "d"][: 2 + n % 3],
        "answer": "AB"[n % 2],
        "category": f"kind {n % 2}",
        "difficulty": ["easy", "hard"][n // 4],
    }
    for n in range(8)
]
SHORT = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zero-shot")
    tiny_model_folder(folder / "model", max_position_embeddings=512)
    tiny_model_folder(folder / "other", max_position_embeddings=512, seed=1)
    tiny_model_folder(folder / "lively", initializer_range=0.5)  # says more than one thing
    for name, rows in (("choices", CHOICES), ("short", SHORT)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def config_of(folder: Path, name: str = "run", **overrides: Any):
    values = {
        "run": str(folder / name),
        "model.path": str(folder / "model"),
        "model.threads": 1,
        "model.device": "cpu",
        "zeroshot.tasks": [f"mmlu_pro={folder}/choices.jsonl"],
        "zeroshot.think_budget": 6,
        "zeroshot.answer_budget": 5,
    }
    more = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(overrides=values | more)


def run_of(folder: Path, name: str, **overrides: Any) -> Run:
    return open_run(config_of(folder, name, **overrides), min_free_bytes=0)


def request(kind: str, *arguments: Any, doc: int = 0) -> Instance:
    return Instance(
        request_type=kind,  # type: ignore[arg-type]
        doc={},
        arguments=arguments,
        idx=0,
        metadata=("task", doc, 1),
    )


TEXTS = [
    ("The sum of two even numbers is", " even"),
    ("The sum of two even numbers is", " odd, and so on"),
    ("The sum of two even numbers is ", "even"),  # the space belongs to what is rated
    ("Let x = 2.\n\nThen", " x + y = 5, so the answer is 5."),
    ("", "The sum of two"),
    ("<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n", "2"),
]


@pytest.mark.parametrize("family", ["byte-level", "sentencepiece"])
def test_it_rates_as_lm_evals_own_model_class(tmp_path, family):
    tokenizer = None if family == "byte-level" else sentencepiece_tokenizer()
    path = tiny_model_folder(tmp_path / "model", tokenizer=tokenizer)
    ours = OpenRPTLM(path=str(path), device="cpu", threads=1)
    theirs = HFLM(pretrained=str(path), device="cpu", batch_size=1, dtype="float32")
    requests = [request("loglikelihood", *pair, doc=n) for n, pair in enumerate(TEXTS)]
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    found = ours.loglikelihood(requests)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    difference = np.abs(np.array(found)[:, 0] - np.array(expected)[:, 0])
    assert difference.max() <= 1e-4
    # Of a greedy text, and of one that is longer than the model can hold.
    prompt = "Let x = 2 and"
    said = ours.generate_until(
        [request("generate_until", prompt, {"until": [], "max_gen_toks": 8})]
    )[0]
    longer = [
        request("loglikelihood", prompt, said[: len(said) // 2]),
        request("loglikelihood", "x + y = " * 60, "5."),
    ]
    assert np.allclose(
        [logprob for logprob, _ in ours.loglikelihood(longer)],
        [logprob for logprob, _ in theirs.loglikelihood(longer, disable_tqdm=True)],
        atol=1e-4,
    )
    rolling = [request("loglikelihood_rolling", "The sum of two even numbers is even. " * 9)]
    assert np.allclose(
        ours.loglikelihood_rolling(rolling),
        theirs.loglikelihood_rolling(rolling, disable_tqdm=True),
        atol=1e-3,
    )


@pytest.mark.parametrize("generator", ["tree", "flat"])
def test_it_says_what_transformers_generates(folder, generator):
    lively = str(folder / "lively")
    config = config_of(folder, model__path=lively, engine__trainer=generator)
    lm = OpenRPTLM(Respondent(open_engine(config), config))
    model = AutoModelForCausalLM.from_pretrained(lively)
    tokenizer = AutoTokenizer.from_pretrained(lively)
    lengths = []
    for prompt in ("The sum of two", "Let x = 2 and y", "<|im_start|>user\nWho?<|im_end|>\n"):
        ids = tokenizer(prompt, return_tensors="pt")
        expected = model.generate(**ids, max_new_tokens=24, do_sample=False, pad_token_id=0)
        text = tokenizer.decode(expected[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        settings = {"until": [], "max_gen_toks": 24}
        assert lm.generate_until([request("generate_until", prompt, settings)]) == [text]
        # It stops where it is told to, and not later.
        found = re.search(r"[ -~]{2}", text[2:])
        assert found
        stop = found[0]
        at_stop = settings | {"until": ["never", stop]}
        assert lm.generate_until([request("generate_until", prompt, at_stop)]) == [
            text.partition(stop)[0]
        ]
        whole, cut = (
            lm.respondent.book.answers[lm.respondent.key(prompt, lm.asked(given, 1))]
            for given in (settings, at_stop)
        )
        lengths.append((cut.lengths[0], whole.lengths[0]))
    assert all(cut <= whole for cut, whole in lengths)
    assert sum(cut for cut, _ in lengths) < sum(whole for _, whole in lengths)


def test_a_thought_is_closed_and_taken_off(folder):
    config = config_of(folder)
    respondent = Respondent(open_engine(config), config)
    prompt = "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    ids = respondent.encode(prompt)
    asked = Asked(max_tokens=5, think_budget=6, answer_start="\n\\boxed{", samples=3)
    answer = respondent.say(prompt, asked)
    assert all(text.startswith("\n\\boxed{") for text in answer.texts)
    assert all(answer.thoughts) and not any(answer.closed)
    assert len(set(answer.thoughts)) > 1  # samples differ
    layout = respondent._layout(prompt, asked)
    close = len(layout.close_ids)
    assert max(answer.lengths) <= 6 + close + 5
    # The prompt is run once for all samples.
    shared, alone = answer.cost["flops"], answer.cost["flops_alone"]
    assert shared < alone and answer.cost["tokens"] < len(ids) + 3 * (1 + 6 + close + 5) + 20
    # A template that opens the thought is not opened twice.
    assert respondent._layout(prompt + "<think>\n", asked).tail_ids == ()
    assert respondent.say(prompt, asked) is answer
    with pytest.raises(Exception, match="leave no room for a question"):
        respondent.say(prompt, Asked(max_tokens=600))


def test_the_stage(folder):
    tasks = [f"mmlu_pro={folder}/choices.jsonl", f"gsm8k={folder}/short.jsonl"]
    pytest.importorskip("math_verify")
    run = run_of(folder, "stage", zeroshot__tasks=tasks)
    label, found = zero_shot(run, None, run.config)
    assert label == "start" and set(found) == {"mmlu_pro", "gsm8k"}
    direct, think = (found["mmlu_pro"][mode] for mode in ("direct", "think 6"))
    for one in (direct, think):
        measures = one["summary"]["measures"]
        assert measures["accuracy"]["n"] == 8
        assert one["summary"]["categories"].keys() == {"kind 0", "kind 1"}
        assert one["summary"]["difficulties"].keys() == {"easy", "hard"}
        assert one["cost"]["flops"] > 0 and one["cost"]["seconds"] > 0
    # The letters by transformers alone.
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    columns = AnswerResult.load(outcome_path(run.path, "start", "mmlu_pro", "direct")).columns
    for row, said, right in zip(CHOICES, columns["answer"], columns["accuracy"], strict=True):
        options = "".join(f"{x}. {o}\n" for x, o in zip("ABCD", row["options"], strict=False))
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"{row['question']}\n{options}"}], tokenize=False
        )
        ids = tokenizer(f"{chat}<|im_start|>assistant\nAnswer:", return_tensors="pt")["input_ids"]
        if ids.shape[1] > 512:
            pytest.fail("the question does not fit")
        scores = {}
        for letter in "ABCD"[: len(row["options"])]:
            new = tokenizer(f" {letter}", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logp = model(torch.tensor([[*ids[0], *new]])).logits[0].log_softmax(-1)
            places = range(ids.shape[1] - 1, ids.shape[1] - 1 + len(new))
            scores[letter] = sum(float(logp[p, t]) for p, t in zip(places, new, strict=True))
        assert said == max(scores, key=scores.__getitem__)
        assert right == float(said == row["answer"])
    measures = think["summary"]["measures"]
    stored = AnswerResult.load(outcome_path(run.path, "start", "mmlu_pro", "think 6")).columns
    wrong = (stored["outside"] + stored["unanswered"]) * stored["accuracy"]
    assert not wrong.any() and measures["tokens"]["value"] > 6


class Impatient(Silent):
    """A person who has enough after so many questions of the think mode."""

    def __init__(self, questions: int) -> None:
        self.questions, self.task = questions, ""

    def begin(self, task: str, total: float, unit: str = "") -> None:
        self.task = task

    def update(self, completed: float, note: str = "") -> None:
        if self.task.endswith("think") and completed == self.questions:
            raise KeyboardInterrupt


def test_a_stopped_evaluation_goes_on(folder, monkeypatch):
    monkeypatch.setattr(generation, "_SIDE_BY_SIDE_ROWS", 6)  # three questions of two samples
    settings = {"zeroshot__samples": 2, "zeroshot__temperature": 1.0}
    whole, parts = (run_of(folder, name, **settings) for name in ("whole", "parts"))
    _, expected = zero_shot(whole, None, whole.config)
    with pytest.raises(Interrupted, match="the same command goes on"):
        zero_shot(parts, None, parts.config, progress=Impatient(3))
    book = parts.path / "zero_shot" / "start" / "answers.jsonl"
    before = book.read_text(encoding="utf-8").splitlines()
    assert len(before) == 1 + 8 + 3  # whose they are, direct, think
    with book.open("a", encoding="utf-8") as file:
        file.write('{"key": "cut off')  # killed while it wrote
    _, found = zero_shot(parts, None, parts.config)
    after = book.read_text(encoding="utf-8").splitlines()
    assert after[: len(before)] == before and len(after) == 1 + 8 + 8
    for mode in ("direct", "think 6, 2 samples"):
        one, other = (entry["mmlu_pro"][mode] for entry in (expected, found))
        assert one["summary"] == other["summary"]
        assert one["cost"]["flops"] == other["cost"]["flops"]
    # Nothing is asked again; another budget is another result.
    zero_shot(parts, None, parts.config)
    assert book.read_text(encoding="utf-8").splitlines() == after
    wider = config_of(folder, "parts", **settings, zeroshot__think_budget=7)
    zero_shot(parts, None, wider)
    assert len(read_models(parts.path / RECORD)["start"]) == 3
    # Another model does not take its answers over.
    with pytest.raises(Exception, match="another model"):
        zero_shot(parts, str(folder / "other"), parts.config, label="start")


def test_answers_belong_to_a_tokenizer_and_its_template_too(tmp_path):
    path = tiny_model_folder(tmp_path / "model")
    config = config_of(tmp_path)
    found = {model_identity(config, str(path))}
    for name, old, new in (
        ("chat_template.jinja", "assistant", "helper"),
        ("tokenizer.json", "<|im_start|>", "<|im_begin|>"),
        ("config.json", "128", "127"),
    ):
        file = path / name
        file.write_text(file.read_text().replace(old, new))
        found.add(model_identity(config, str(path)))
    assert len(found) == 4


def test_models_side_by_side(folder):
    runner, arguments = CliRunner(), ["--run", str(folder / "beside"), "--model.threads", "1"]
    arguments += ["--zeroshot.tasks", f"mmlu_pro={folder}/choices.jsonl"]
    arguments += ["--zeroshot.think_budget", "4", "--zeroshot.questions_per_category", "3"]
    for model in ("model", "other"):
        shown = runner.invoke(
            cli, ["zeroshot", str(folder / model), *arguments], env={"COLUMNS": "160"}
        )
        assert shown.exit_code == 0, shown.output
    assert list(read_models(folder / "beside" / RECORD)) == ["model", "other"]
    assert "| model" in shown.output and "mmlu_pro by category" in shown.output
    for line in ("other, direct − model, direct", "other, think 4 − other, direct"):
        assert f"mmlu_pro: {line} = " in shown.output
    assert "mean of categories" in shown.output and "(6)" in shown.output


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    *progress, error = capsys.readouterr().err.splitlines()
    assert all(at.endswith(" …") or "cores are busy" in at for at in progress), progress
    return error


def test_what_it_refuses(folder, tmp_path, capsys):
    run = ["--run", tmp_path / "new", "--model.device", "cpu"]

    def asked(tasks: str, *more: object) -> str:
        return refused(capsys, "zeroshot", folder / "model", *run, "--zeroshot.tasks", tasks, *more)

    assert "no task 'mmlu_por'; nearest: 'mmlu_pro'" in asked("mmlu_por")
    assert "absent.jsonl: no such file" in asked("mmlu=absent.jsonl")
    assert not (tmp_path / "new").exists()
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "?", "options": ["a", "b"]}\n', encoding="utf-8")
    assert "broken.jsonl:1: no answer" in asked(f"mmlu={broken}")
    broken.write_text('{"question": "?", "answer": "A"}\n', encoding="utf-8")
    assert "broken.jsonl:1: 0 options" in asked(f"mmlu={broken}")
    good = f"mmlu={folder}/choices.jsonl"
    assert "no slashes" in asked(good, "--label", "a/b")
    gone = refused(capsys, "zeroshot", tmp_path / "gone", *run, "--zeroshot.tasks", good)
    assert "no such model folder" in gone
    damaged = tmp_path / "answers.jsonl"
    damaged.write_text('{"format": 1, "owner": "x"}\n{}\n', encoding="utf-8")
    with pytest.raises(Exception, match="damaged"):
        AnswerBook(damaged, owner="x")


def test_without_the_extra(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "openrpt.evaluation.end_tasks.harness")
    tasks = f"mmlu={folder}/choices.jsonl"
    said = refused(capsys, "zeroshot", "--run", tmp_path / "run", "--zeroshot.tasks", tasks)
    assert 'pip install "openrpt[lm-eval]"' in said
    assert not (tmp_path / "run").exists()


def test_a_task_file_of_ones_own(folder, tmp_path):
    """By lm-eval alone, with our model class as its command makes it."""
    task = tmp_path / "mine.yaml"
    task.write_text(
        "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: "
        f"{folder}/short.jsonl}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{question}}'\n"
        "doc_to_target: '{{answer}}'\ngeneration_kwargs: {until: ['!'], max_gen_toks: 4}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
        encoding="utf-8",
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    model = f"path={folder}/model,device=cpu,threads=1,think_budget=3"
    lm = get_model("openrpt").create_from_arg_string(model)
    loaded = manager.load(["mine"])
    loaded["tasks"]["mine"].set_config("num_fewshot", 0)
    found = evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0)
    assert found is not None and found["results"]["mine"]["exact_match,none"] == 0
    said = found["samples"]["mine"]
    assert len(said) == 4
    (answer,) = lm.given["mine", 0]
    assert answer.thoughts[0] and said[0]["resps"] == [[answer.texts[0]]]
    with pytest.raises(Exception, match=r"samples with top_p = 0\.9"):
        lm.asked({"until": [], "do_sample": True, "top_p": 0.9}, 1)


def respondent_of(folder: Path, tokenizer: Any) -> Respondent:
    tiny_model_folder(folder, tokenizer=tokenizer)
    config = load_config(overrides={"model.path": str(folder), "model.device": "cpu"})
    return Respondent(open_engine(config), config)


@pytest.mark.parametrize("form", ["$A E", "B $A E", "B B $A E E", "B $A", "$A"])
def test_no_end_of_text_stands_behind_a_prompt(tmp_path, form):
    """Whatever a tokenizer's post-processor puts behind a text; what it puts before one stays."""
    tokenizer, names = byte_level_tokenizer(), {"B": "<|im_start|>", "E": "<|im_end|>"}
    pieces = [names.get(piece, piece) for piece in form.split()]
    tokens = [(name, tokenizer.convert_tokens_to_ids(name)) for name in names.values()]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=pieces, pair=[*pieces, "$B"], special_tokens=tokens
    )
    tokenizer.bos_token = "<|im_start|>"
    respondent = respondent_of(tmp_path / "m", tokenizer)
    bare = tokenizer.encode("ab c", add_special_tokens=False)
    start = tokenizer.bos_token_id
    assert respondent.encode("ab c") == [start] * form.count("B") + bare
    assert respondent.encode("<|im_start|>ab c") == [start, *bare]
    lm = OpenRPTLM(respondent)
    assert lm.tok_encode("ab c") == lm.tok_encode("ab c", add_special_tokens=True)
    assert lm.tok_encode("ab c", add_special_tokens=False) == bare
    # Of a whole text, too: its own tokens count, each once, behind one beginning.
    rolling = lm.loglikelihood_rolling([request("loglikelihood_rolling", "ab c")])
    assert rolling == [logprob for logprob, _ in lm._loglikelihood_tokens([(None, [start], bare)])]
    context, continuation = lm._encode_pair("ab", " c")
    assert context + continuation == respondent.encode("ab c")


def test_a_chat_begins_as_in_training(tmp_path):
    """With what its template writes and no more, where the tokenizer itself begins texts with a
    token of its own."""
    template = "{% for m in messages %}U: {{ m.content }}{% endfor %}"
    tokenizer = byte_level_tokenizer(chat_template=template)
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A",
        pair="<|im_start|> $A $B",
        special_tokens=[("<|im_start|>", start)],
    )
    tokenizer.bos_token = "<|im_start|>"
    respondent = respondent_of(tmp_path / "m", tokenizer)
    assert respondent.policy.bos_ids == (start,)
    layout = build_layout(tokenizer, PromptConfig(template="v0"), respondent.policy.bos_ids)
    lm = OpenRPTLM(respondent)
    assert lm.tok_encode("U: ab")[0] == start
    chat = lm.apply_chat_template([{"role": "user", "content": "ab"}])
    assert lm.tok_encode(chat)[0] == layout.head_ids[0] != start
    (asked,) = {lm.asked({"until": ["x"], "max_gen_toks": 4}, 1)}
    assert asked.chat
    request = respondent._question(chat, asked).request
    assert list(request.prefix_ids) == lm.tok_encode(chat)


def test_a_beginning_need_be_no_special_token(tmp_path):
    tokenizer = byte_level_tokenizer()
    start = tokenizer.convert_tokens_to_ids("x")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="x $A", pair="x $A $B", special_tokens=[("x", start)]
    )
    respondent = respondent_of(tmp_path / "m", tokenizer)
    assert respondent.policy.bos_ids == (start,)
    assert respondent.encode("ab") == tokenizer.encode("ab")


@pytest.mark.parametrize("think_budget", [None, 0])
@pytest.mark.parametrize("text", ["    return x + y\n", " a", "a", "\tb é", "   "])
def test_an_answer_keeps_its_first_space(tmp_path, text, think_budget):
    """Llama 2's and Mistral 0.1's decoders strip one; an answer is made of its tokens' bytes."""
    tokenizer = sentencepiece_tokenizer("metaspace")
    tokenizer.backend_tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    respondent = respondent_of(tmp_path / "m", tokenizer)
    ids = respondent.policy.table.plain_tokenizer.encode(text, add_special_tokens=False).ids
    asked = Asked(max_tokens=5, think_budget=think_budget)
    said = [*ids, tokenizer.eos_token_id]
    assert respondent._parts(said, respondent._layout("x", asked), asked)[2] == text


def test_chats_are_checked_for_lm_eval_too(tmp_path):
    template = "{% for m in messages %}U: {{ m.content | lower }}{% endfor %}"
    lm = OpenRPTLM(respondent_of(tmp_path / "m", byte_level_tokenizer(chat_template=template)))
    with pytest.raises(UserError, match="leaves out or changes a user's message"):
        lm.apply_chat_template([{"role": "user", "content": "Hello"}])
