import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AddedToken, BertTokenizerLegacy, PreTrainedTokenizerFast

from openrpt.config.model import ModelConfig
from openrpt.data.tokens import encode_document, literal_bytes, token_bytes, token_table
from openrpt.engine.loading import load_model, load_tokenizer
from openrpt.errors import UserError
from tests.helpers.tiny import (
    SentencePieceStyle,
    byte_level_tokenizer,
    sentencepiece_tokenizer,
    think_tokenizer,
)
from tests.helpers.tiny_model import tiny_model_folder

DUMMY = {
    style: sentencepiece_tokenizer(style) for style in ("metaspace", "metaspace_always", "prepend")
}
NO_DUMMY = {style: sentencepiece_tokenizer(style) for style in ("no_dummy", "replace")}
BYTE_LEVEL = {"byte_level": byte_level_tokenizer(), "nfc": byte_level_tokenizer(nfc=True)}
ALL = BYTE_LEVEL | DUMMY | NO_DUMMY

# Any text: emoji, CJK, combining marks, control characters. "▁" is SentencePiece's space.
fragments = ["the sum", " of", "  ", "\n\n", "😀👩‍👧", "数学", "e\u0301", "<|im_end|>", "<0x0A>"]
unicode_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
texts = st.lists(st.sampled_from(fragments) | unicode_text, max_size=8).map("".join)
texts_without_mark = texts.map(lambda text: text.replace("▁", "_"))
quick = settings(max_examples=100)


def plain_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The tokenizer's own ids, special tokens not parsed."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


@given(texts)
@quick
def test_byte_level_bytes_are_exact(text: str) -> None:
    tokenizer = BYTE_LEVEL["byte_level"]
    assert b"".join(token_bytes(tokenizer, plain_ids(tokenizer, text))) == text.encode()


@pytest.mark.parametrize("style", [*DUMMY, *NO_DUMMY])
@given(texts_without_mark)
@quick
def test_sentencepiece_bytes_are_exact(style: str, text: str) -> None:
    if style.startswith("metaspace"):
        text = text.lstrip(" ")  # Metaspace gives " x" the ids of "x": see the test below
    tokenizer = ALL[style]
    assert b"".join(token_bytes(tokenizer, plain_ids(tokenizer, text))) == text.encode()


@pytest.mark.parametrize("style", ALL)
@given(texts_without_mark)
@quick
def test_documents_come_back_whole_and_sliced(style: str, text: str) -> None:
    ids, pieces = encode_document(ALL[style], text)
    assert b"".join(pieces) == text.encode()
    assert len(ids) == len(pieces)
    for index in range(1, len(ids)):
        assert token_bytes(ALL[style], ids[index:], at_start=False) == pieces[index:]


@pytest.mark.parametrize("style", ALL)
@pytest.mark.parametrize("text", ["the sum of x", "数学 é 😀", "\n", ""])
def test_documents_have_the_tokenizers_own_ids(style: str, text: str) -> None:
    assert encode_document(ALL[style], text)[0] == plain_ids(ALL[style], text)


@pytest.mark.parametrize("style", DUMMY)
def test_dummy_prefix_is_dropped_at_the_start_only(style: str) -> None:
    tokenizer = DUMMY[style]
    assert token_table(tokenizer).drops_dummy_prefix
    ids = plain_ids(tokenizer, "the sum")
    assert b"".join(token_bytes(tokenizer, ids)) == b"the sum"
    assert b"".join(token_bytes(tokenizer, ids, at_start=False)) == b" the sum"
    after_control = [tokenizer.convert_tokens_to_ids("<|im_start|>"), *ids]
    assert b"".join(token_bytes(tokenizer, after_control)) == b"the sum"


@pytest.mark.parametrize("style", [*BYTE_LEVEL, *NO_DUMMY])
def test_without_dummy_prefix_a_leading_space_stays(style: str) -> None:
    tokenizer = ALL[style]
    assert not token_table(tokenizer).drops_dummy_prefix
    assert b"".join(token_bytes(tokenizer, plain_ids(tokenizer, " x"))) == b" x"


@pytest.mark.parametrize("style", DUMMY)
def test_a_document_keeps_its_own_leading_spaces(style: str) -> None:
    assert encode_document(DUMMY[style], " x")[0] != encode_document(DUMMY[style], "x")[0]
    assert b"".join(encode_document(DUMMY[style], "  x")[1]) == b"  x"


def test_byte_level_dummy_prefix() -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    ids, pieces = encode_document(tokenizer, "the sum")
    assert ids == plain_ids(tokenizer, "the sum")
    assert b"".join(pieces) == b"the sum"
    tokenizer.add_tokens([AddedToken("<table>")])
    assert b"".join(encode_document(tokenizer, "a<table>b")[1]) == b"a<table>b"


def test_a_character_split_over_tokens() -> None:
    pieces = encode_document(BYTE_LEVEL["byte_level"], "🜁")[1]
    assert len(pieces) > 1
    assert b"".join(pieces) == "🜁".encode()


@pytest.mark.parametrize("style", ALL)
def test_a_text_cannot_become_control(style: str) -> None:
    text = "a<|im_end|>\n<|im_start|>system b"
    ids, pieces = encode_document(ALL[style], text)
    assert not token_table(ALL[style]).special_ids.intersection(ids)
    assert b"".join(pieces) == text.encode()
    # the tokenizer itself still parses them, for chat templates
    assert ALL[style].eos_token_id in ALL[style].encode(text, add_special_tokens=False)


@pytest.mark.parametrize("special", [True, False])
def test_a_text_cannot_end_the_thought(special: bool) -> None:
    tokenizer = think_tokenizer(special=special)
    ids, pieces = encode_document(tokenizer, "a </think> b")
    assert tokenizer.convert_tokens_to_ids("</think>") not in ids
    assert b"".join(pieces) == b"a </think> b"


def test_added_tokens_of_plain_text_are_kept() -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken("    "), AddedToken("é~é"), AddedToken("zß", lstrip=True)])
    ids, pieces = encode_document(tokenizer, "a    é~é  zß")
    kept = tokenizer.convert_tokens_to_ids(["    ", "é~é"])
    assert ids[1:3] == kept
    assert pieces[1:3] == [b"    ", "é~é".encode()]
    assert b"".join(pieces) == "a    é~é  zß".encode(), "lstrip would swallow the spaces"


@pytest.mark.parametrize("style", DUMMY)
def test_no_dummy_prefix_after_an_added_token(style: SentencePieceStyle) -> None:
    tokenizer = sentencepiece_tokenizer(style)
    tokenizer.add_tokens([AddedToken("<table>", normalized=False)])
    ids, pieces = encode_document(tokenizer, "a<table>b")
    assert tokenizer.get_vocab()["<table>"] in ids
    assert b"".join(pieces) == b"a<table>b"


def test_tokens_added_later_are_seen() -> None:
    tokenizer = byte_level_tokenizer()
    before = token_table(tokenizer)
    assert token_table(tokenizer) is before
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert tokenizer.pad_token_id in token_table(tokenizer).special_ids
    assert token_bytes(tokenizer, [tokenizer.pad_token_id]) == [b""]


def test_literal_bytes_of_a_completion() -> None:
    tokenizer = think_tokenizer()
    table = token_table(tokenizer)
    ids = tokenizer.encode(" x</think>\\boxed{ y}<|im_end|>", add_special_tokens=False)
    thought_end = tokenizer.get_vocab()["</think>"]
    assert ids.count(thought_end) == 1
    assert literal_bytes(table, ids, {}) == b" x\\boxed{ y}"
    assert literal_bytes(table, ids, {thought_end: b"</think>"}) == b" x</think>\\boxed{ y}"
    assert literal_bytes(table, [len(tokenizer) + 7], {}) == b"", "a padded vocabulary"


def test_think_template_opens_a_thought() -> None:
    turns = [{"role": "assistant", "content": "<think>\nx</think>\ny"}]
    text = think_tokenizer().apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>assistant\ny<|im_end|>\n<|im_start|>assistant\n<think>\n"


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    return tokenizer


def word_level() -> Tokenizer:
    return Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))


def unigram_without_fallback() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0)], 0, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def bpe_without_fallback() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({"<unk>": 0, "▁": 1}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def without_spaces() -> Tokenizer:
    return Tokenizer(models.BPE({"a": 0}, [], byte_fallback=True))


def with_parts(normalizer: normalizers.Normalizer, splitter: str = "") -> Tokenizer:
    tokenizer = byte_level_tokenizer().backend_tokenizer
    tokenizer.normalizer = normalizer
    if splitter:
        split = pre_tokenizers.Split(Regex(" "), splitter)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False)])
    return tokenizer


def sentencepiece_with(normalizer: normalizers.Normalizer) -> Tokenizer:
    tokenizer = sentencepiece_tokenizer("metaspace").backend_tokenizer
    tokenizer.normalizer = normalizer
    return tokenizer


REFUSED: dict[str, tuple[Callable[[], Tokenizer], str]] = {
    "wordpiece": (wordpiece, "WordPiece"),
    "word_level": (word_level, "WordLevel"),
    "unigram": (unigram_without_fallback, "byte fallback"),
    "bpe": (bpe_without_fallback, "byte fallback"),
    "no_spaces": (without_spaces, "▁"),
    "nfkc": (lambda: with_parts(normalizers.NFKC()), "NFKC"),
    "lowercase": (lambda: with_parts(normalizers.Lowercase()), "Lowercase"),
    "strip": (lambda: with_parts(normalizers.Strip()), "Strip"),
    "nested": (
        lambda: with_parts(normalizers.Sequence([normalizers.NFC(), normalizers.StripAccents()])),
        "StripAccents",
    ),
    "replace": (lambda: with_parts(normalizers.Replace("a", "b")), "Replace"),
    "removed": (lambda: with_parts(normalizers.NFC(), "removed"), "Split"),
    "sentencepiece_nfkc": (lambda: sentencepiece_with(normalizers.NFKC()), "NFKC"),
    "sentencepiece_nfc": (lambda: sentencepiece_with(normalizers.NFC()), "NFC"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    build, reason = REFUSED[case]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=build())
    with pytest.raises(UserError, match=reason) as error:
        token_bytes(tokenizer, [0])
    assert type(tokenizer).__name__ in str(error.value)
    assert "\n" not in str(error.value)


def test_slow_tokenizer_is_refused(tmp_path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    slow = BertTokenizerLegacy(str(tmp_path / "vocab.txt"))
    with pytest.raises(UserError, match=r"BertTokenizerLegacy runs in Python.*tokenizer\.json"):
        token_bytes(slow, [0])


def test_a_document_that_does_not_come_back_says_where() -> None:
    with pytest.raises(UserError, match=r"TokenizersBackend .* at byte 3 .*xe2"):
        encode_document(DUMMY["prepend"], "ab ▁c")
    with pytest.raises(UserError, match="surrogate pair at character 2"):
        encode_document(BYTE_LEVEL["byte_level"], "ab\ud83d")


def test_an_expression_that_takes_too_long_is_one_line() -> None:
    """tokenizers panics there, which Python sees as no Exception."""
    tokenizer = byte_level_tokenizer()
    slow = pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated")
    steps = [slow, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    with pytest.raises(UserError, match=r"fails on a text: .*retry-limit"):
        encode_document(tokenizer, "x" * 300)


@pytest.mark.parametrize("make", [byte_level_tokenizer, sentencepiece_tokenizer])
def test_one_text_has_one_encoding_whatever_merge_dropout_the_file_has(
    tmp_path: Path, make: Callable[[], PreTrainedTokenizerFast]
) -> None:
    text = "The sum of two even numbers is even, and the sum of two odd numbers is even too."
    folder = tiny_model_folder(tmp_path / "m", tokenizer=make())
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text())
    spec["model"]["dropout"] = 0.5
    file.write_text(json.dumps(spec))
    policy = load_model(ModelConfig(threads=1, device="cpu"), path=str(folder), trained=True)
    alone = load_tokenizer(ModelConfig(), str(folder))
    expected = encode_document(make(), text)
    for _ in range(10):
        assert encode_document(policy.tokenizer, text) == expected
        assert alone(text)["input_ids"] == make()(text)["input_ids"]
        assert policy.tokenizer(text)["input_ids"] == make()(text)["input_ids"]
    policy.tokenizer.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    assert saved["model"]["dropout"] is None
