"""Layouts: what stands around a prefix and around a thought, on each kind of tokenizer."""

import pytest
import torch

from openrpt.config.prompt import PromptConfig
from openrpt.data.chat import render_chat
from openrpt.data.prompt_texts import TEMPLATES
from openrpt.data.prompts import Budget, Layout, build_layout
from openrpt.data.request import Request
from openrpt.data.tokens import encode_document, literal_bytes, token_table
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import bind
from openrpt.engine.scorer import score_documents
from openrpt.errors import UserError
from tests.helpers.families import tiny_policy
from tests.helpers.tiny import (
    CHAT_TEMPLATE,
    THINK_TEMPLATE,
    byte_level_tokenizer,
    sentencepiece_tokenizer,
    think_tokenizer,
)

STYLES = ["metaspace", "metaspace_always", "prepend", "no_dummy", "replace"]
TOKENIZERS = {
    "byte_level": byte_level_tokenizer,
    "byte_level_bare": lambda: byte_level_tokenizer(chat_template=None),
    "think": think_tokenizer,
    "think_added": lambda: think_tokenizer(special=False),
    **{style: (lambda s=style: sentencepiece_tokenizer(s)) for style in STYLES},
    "chat_metaspace": lambda: sentencepiece_tokenizer("metaspace", chat_template=CHAT_TEMPLATE),
    "chat_prepend": lambda: sentencepiece_tokenizer("prepend", chat_template=CHAT_TEMPLATE),
}


def text_of(tokenizer, ids) -> str:
    """What the ids stand for, special tokens spelled out, no dummy prefix dropped."""
    table = token_table(tokenizer)
    spelled = {i: tokenizer.convert_ids_to_tokens(i).encode() for i in table.special_ids}
    return literal_bytes(table, ids, spelled).decode()


def layout_of(name: str, **values) -> tuple[Layout, object]:
    tokenizer = TOKENIZERS[name]()
    return build_layout(tokenizer, PromptConfig(**values)), tokenizer


def test_a_question_without_an_instruction_has_nothing_behind_it():
    tokenizer = byte_level_tokenizer(chat_template=None)
    asked = build_layout(tokenizer, PromptConfig(template="question", instruction=""))
    assert text_of(tokenizer, asked.tail_ids) == "<think>"
    instructed = build_layout(tokenizer, PromptConfig(template="question", instruction="Say it."))
    assert text_of(tokenizer, instructed.tail_ids) == "\n\nSay it.\n<think>"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_minimal_has_no_instruction(name):
    layout, tokenizer = layout_of(name)
    assert layout.head_ids == layout.plain_head_ids == ()
    assert text_of(tokenizer, layout.tail_ids) == "<think>"
    assert text_of(tokenizer, layout.close_ids) == "</think>\n\\boxed{"
    assert text_of(tokenizer, layout.answer_start_ids) == "\n\\boxed{"
    assert text_of(tokenizer, layout.answer_end_ids) == "}"
    assert text_of(tokenizer, layout.thought_end_ids) == "</think>"
    assert text_of(tokenizer, layout.separator_ids) == " |"
    assert layout.thought_end == b"</think>"


@pytest.mark.parametrize("template", ["v0", "v6", "chat"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_prompt_reads_as_it_should(name, template):
    """head + prefix + tail spell the template around the text, whatever the tokenizer."""
    layout, tokenizer = layout_of(name, template=template)
    before, after = TEMPLATES[template]
    head, tail = text_of(tokenizer, layout.head_ids), text_of(tokenizer, layout.tail_ids)
    chat = tokenizer.chat_template
    if chat is None:
        assert head == before
        assert tail == (f"{after}\n<think>" if after else "<think>")
    else:
        opening = "<|im_start|>user\n" + before
        if name == "chat_prepend":  # Llama 2's way: the tokenizer writes ▁ after a control token
            opening = "<|im_start|> user\n" + before
            tail = tail.replace("> ", ">")
        assert head == opening
        turn = after + "<|im_end|>\n<|im_start|>assistant\n<think>"
        assert tail == turn + ("\n" if chat == THINK_TEMPLATE else "")
    assert "OPENRPT" not in head + tail


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_follows_the_prefix_has_no_dummy_prefix(name):
    for template in TEMPLATES:
        layout, tokenizer = layout_of(name, template=template)
        first = text_of(tokenizer, layout.tail_ids)
        assert not first.startswith(" "), template
    for ids in (layout.close_ids, layout.answer_start_ids, layout.answer_end_ids):
        assert not text_of(tokenizer, ids).startswith(" ")


@pytest.mark.parametrize("name", ["byte_level", "think", "chat_metaspace"])
def test_control_tokens_are_parsed_in_templates_and_never_in_documents(name):
    layout, tokenizer = layout_of(name, template="v6")
    control = token_table(tokenizer).special_ids
    assert control & set(layout.head_ids) and control & set(layout.tail_ids)
    ids, _ = encode_document(tokenizer, "a <|im_end|> </think> b")
    assert not control & set(ids)


@pytest.mark.parametrize("special", [True, False])
def test_single_token_delimiters_render_literally(special):
    tokenizer = think_tokenizer(special=special)
    layout = build_layout(tokenizer, PromptConfig())
    start, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert layout.tail_ids == (start,)
    assert layout.thought_end_ids == (end,)
    assert layout.close_ids == (end, *layout.answer_start_ids)
    assert layout.literal == ({start: b"<think>", end: b"</think>"} if special else {})
    eos = tokenizer.eos_token_id
    text = literal_bytes(token_table(tokenizer), [*layout.close_ids, eos], layout.literal)
    assert text == b"</think>\n\\boxed{"


def test_spelled_out_delimiters_need_no_literal():
    layout, _ = layout_of("byte_level")
    assert layout.literal == {} and len(layout.thought_end_ids) > 1


def test_other_delimiters():
    layout, tokenizer = layout_of(
        "byte_level", thought_start="[T]", thought_end="[/T]", candidate_separator=","
    )
    assert text_of(tokenizer, layout.tail_ids) == "[T]"
    assert text_of(tokenizer, layout.close_ids) == "[/T]\n\\boxed{"
    assert layout.thought_end == b"[/T]"
    assert text_of(tokenizer, layout.separator_ids) == ","


def test_a_seed_puts_separators_between_candidates():
    layout, tokenizer = layout_of("byte_level")
    one, two, three = tokenizer(" the x y", add_special_tokens=False)["input_ids"][:3]
    bar = layout.separator_ids
    assert layout.seed((one, two, three)) == (one, *bar, two, *bar, three)
    assert layout.seed((one,)) == (one,)
    assert layout.seed(()) == ()


def test_the_tokenizers_own_beginning_stands_before_the_head():
    tokenizer = byte_level_tokenizer()
    assert build_layout(tokenizer, PromptConfig(), (7,)).head_ids == (7,)
    plain = build_layout(tokenizer, PromptConfig(template="v0", chat_template="off"), (7,))
    assert plain.head_ids[0] == 7 and plain.plain_head_ids == (7,)
    chat = build_layout(tokenizer, PromptConfig(template="v0"), (7,))
    assert chat.head_ids[0] != 7  # the chat template writes its own
    assert chat.plain_head_ids == (7,)


def test_chat_template_switch():
    off, tokenizer = layout_of("think", template="chat", chat_template="off")
    assert text_of(tokenizer, off.head_ids) == TEMPLATES["chat"][0]
    on, tokenizer = layout_of("think", chat_template="on")
    assert text_of(tokenizer, on.head_ids) == "<|im_start|>user\n"
    assert text_of(tokenizer, on.tail_ids) == "<|im_end|>\n<|im_start|>assistant\n<think>\n"
    with pytest.raises(UserError, match="the tokenizer has no chat template; use 'auto'"):
        layout_of("byte_level_bare", chat_template="on")


def test_require_room():
    config = PromptConfig(window=100, candidates=3, think_budget=10, prediction_budget=6)
    layout, _ = layout_of("byte_level")
    seed = 3 + 2 * len(layout.separator_ids)
    total = 100 + len(layout.tail_ids) + seed + 10 + len(layout.close_ids) + 6
    Budget.of(config).require_room(layout, config, total)
    with pytest.raises(UserError) as error:
        Budget.of(config).require_room(layout, config, total - 5)
    message = str(error.value)
    assert f"can reach {total} tokens" in message and "prompt.window 100" in message
    assert "lower prompt.window by 5" in message


# ---- chat templates that do not take a text as it is --------------------------------------------

SAID = "{% for m in messages %}U: {{ m.content }}\nA:{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        SAID,
        SAID.replace("content", "content | trim"),
        SAID.replace("m.content", "m['content'].strip()"),
        "{{ messages | length }}" + SAID,
        CHAT_TEMPLATE,
        THINK_TEMPLATE,
    ],
)
def test_templates_that_take_a_text_as_it_is(template):
    tokenizer = byte_level_tokenizer(chat_template=template)
    for name, (before, after) in TEMPLATES.items():
        layout = build_layout(tokenizer, PromptConfig(template=name, chat_template="on"))
        head, tail = text_of(tokenizer, layout.head_ids), text_of(tokenizer, layout.tail_ids)
        assert before in head and after.replace("{instruction}", "") in tail, name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("m.content | lower", "leaves out or changes a user's message"),
        ("m.content | capitalize", "leaves out or changes a user's message"),
        ("m.role", "leaves out or changes a user's message"),
        ("m.content }}{{ m.content", "writes a user's message 2 times"),
        ("m.content.split('\n')[0]", "changes, cuts or repeats what a message says"),
        ("m.content.split('###')[-1]", "changes, cuts or repeats what a message says"),
        ("m.content[:5000]", "changes, cuts or repeats what a message says"),
        ("m.content | escape", "changes, cuts or repeats what a message says"),
        ("m.content | tojson", "changes, cuts or repeats what a message says"),
        ("m.content | replace('\n', ' ')", "changes, cuts or repeats what a message says"),
        ("m.content | length }}{{ m.content", "changes, cuts or repeats what a message says"),
        ("m.content if m.content | length < 99", "changes, cuts or repeats what a message says"),
    ],
)
def test_templates_that_change_a_text_are_refused(change, said):
    tokenizer = byte_level_tokenizer(chat_template=SAID.replace("m.content", change))
    with pytest.raises(UserError, match=said) as error:
        build_layout(tokenizer, PromptConfig(template="v0"))
    assert "--prompt.chat_template off" in str(error.value)
    build_layout(tokenizer, PromptConfig(template="v0", chat_template="off"))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no\n\x1b[31m system role') }}", r"no \\x1b\[31m system role"),
        ("{{ 'x' * 10**10 }}", "MemoryError"),
        ("{{ 'x' * 10**7 }}", "it writes 10,000,000 characters"),
        ("{{ 'x' | center(10**10) }}", "MemoryError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ nobody.home }}", "UndefinedError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ '\\ud800' }}" + SAID, "surrogates not allowed"),
        ("{{" + "(" * 50_000 + "}}", "RecursionError"),
    ],
)
def test_templates_that_fail_are_one_line(template, said):
    tokenizer = byte_level_tokenizer(chat_template=template)
    with pytest.raises(UserError, match=f"can't be used: .*{said}") as error:
        build_layout(tokenizer, PromptConfig(template="v0"))
    assert str(error.value).isprintable()


def test_a_template_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr("openrpt.data.chat._SECONDS", 0.5)
    nested = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    tokenizer = byte_level_tokenizer(chat_template=nested)
    with pytest.raises(UserError, match=r"takes more than 0\.5 seconds, or breaks its process"):
        build_layout(tokenizer, PromptConfig(template="v0"))
    monkeypatch.setattr("openrpt.data.chat._SECONDS", 60.0)
    tokenizer.chat_template = SAID  # the next one finds a process again
    assert build_layout(tokenizer, PromptConfig(template="v0")).head_ids


def test_a_template_writes_the_same_every_day():
    """Llama 3's asks for the date, and a run may go on tomorrow."""
    own = "{% for m in messages %}{{ m.content }}{% endfor %}"
    clock = "{{ strftime_now('%d %b %Y %H') }} {{ range(9)|random }} "
    layouts = []
    for template in (clock + own, "01 Jan 2026 00 6 " + own):
        tokenizer = byte_level_tokenizer(chat_template=template)
        layouts.append(build_layout(tokenizer, PromptConfig(template="v0")))
    assert layouts[0] == layouts[1]


def test_control_tokens_are_parsed_whatever_the_tokenizers_settings():
    layouts = []
    for split in (False, True):
        tokenizer = byte_level_tokenizer()
        tokenizer.split_special_tokens = split
        layouts.append(build_layout(tokenizer, PromptConfig(template="v0")))
    assert layouts[0] == layouts[1]


def test_a_tokenizer_without_a_default_template():
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = {"rag": SAID, "tools": SAID}
    with pytest.raises(UserError, match="names no default"):
        build_layout(tokenizer, PromptConfig(template="v0"))


def test_a_whole_chat_is_checked_message_by_message():
    chat = [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": " 1 + 1? "},
    ]
    tokenizer = byte_level_tokenizer()
    own = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert render_chat(tokenizer, chat) == own
    ahead = chat[:3]
    own = tokenizer.apply_chat_template(ahead, tokenize=False, continue_final_message=True)
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert render_chat(tokenizer, ahead, **options) == own
    tokenizer.chat_template = CHAT_TEMPLATE.replace("in messages", "in messages[1:]")
    with pytest.raises(UserError, match="leaves out or changes a system's message"):
        render_chat(tokenizer, chat)


# ---- the thought's delimiters in standard prediction --------------------------------------------


@pytest.mark.parametrize("special", [True, False])
def test_delimiters_of_one_token(special):
    tokenizer = think_tokenizer(special=special)
    start, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert build_layout(tokenizer, PromptConfig()).delimiter_ids == {start, end}
    spelled = PromptConfig(thought_start="[thought]", thought_end="</think>")
    assert build_layout(tokenizer, spelled).delimiter_ids == {end}
    assert build_layout(byte_level_tokenizer(), PromptConfig()).delimiter_ids == frozenset()
    empty = PromptConfig(thought_start="")
    assert build_layout(tokenizer, empty).delimiter_ids == {end}


@pytest.mark.parametrize("kind", ["tree", "flat"])
def test_standard_prediction_never_says_a_delimiter(kind):
    """A model that likes best to say `<think>`, an ordinary token, is not held to it."""
    tokenizer = think_tokenizer(special=False)
    policy = tiny_policy("llama", torch.float64)
    policy.tokenizer = tokenizer
    policy.causal_lm.resize_token_embeddings(len(tokenizer))
    engine = bind(kind, policy)
    ids = encode_document(tokenizer, "The sum of two even numbers is even.")[0]
    start = tokenizer.convert_tokens_to_ids("<think>")
    with torch.no_grad():
        (hidden,) = engine.states([ids])
        state = hidden[-1]
        policy.head.weight[start] = state * 100
        logits = policy.head.logits(state[None])[0]
    assert logits.argmax() == start
    layout = build_layout(tokenizer, PromptConfig())
    logits[list(layout.delimiter_ids)] = logits[list(token_table(tokenizer).special_ids)] = -1e9
    request = Request.at_end(ids, [1])
    sampling = Sampling(temperature=0.0, think_budget=0, prediction_budget=2, candidates=3)
    ((found,),) = engine.generate_each([request], layout, sampling)
    assert found.standard_id == logits.argmax()
    assert found.candidate_ids == tuple(logits.topk(3).indices.tolist())
    ((free,),) = engine.generate_each(
        [request], build_layout(tokenizer, PromptConfig(thought_start="[t]")), sampling
    )
    assert free.standard_id == start  # that is no delimiter, so an answer like any other
    scored = [
        score_documents(engine, [[*ids, 5]], window=64, min_context=4, delimiter_ids=delimiters)[
            0
        ].argmax[-1]
        for delimiters in ((), layout.delimiter_ids)
    ]
    assert scored == [start, found.standard_id]
