"""The tokenizer of a GGUF file, built from what the file says.

Two kinds: byte-level BPE ("gpt2"), whose pre-tokenizer the file gives by name only, and
SentencePiece ("llama"), whose merges follow from its pieces' scores. Names that are not in the
table below are refused: another pre-tokenizer gives other tokens without a word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from openrpt.data.tokenizer_rules import SPACE
from openrpt.engine.gguf_file import GgufFile
from openrpt.engine.gguf_pretokenizers import PRE_TOKENIZERS, PreTokenizer

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
"""Numbers of llama.cpp's types of tokens; two more stand for unused tokens and single bytes."""
_KEYS = {
    "model",
    "pre",
    "tokens",
    "scores",
    "token_type",
    "merges",
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
    "token_type_count",  # of encoders such as BERT
    "add_sep_token",  # of encoders
}
_NEUTRAL = {"remove_extra_whitespaces": False, "precompiled_charsmap": []}
"""Keys that change the text, with the value that does not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Vocabulary:
    """The file's tokens, in the order of their ids."""

    tokens: Sequence[str]
    types: Sequence[int]
    ids: Mapping[str, int]

    def of_type(self, wanted: int) -> list[str]:
        return [
            token for token, kind in zip(self.tokens, self.types, strict=True) if kind == wanted
        ]


def read_tokenizer(file: GgufFile) -> PreTrainedTokenizerFast:
    """Returns the tokenizer that the file describes.

    Raises UserError, which names the key or the token, for one that can't be built exactly.
    """
    prefix = "tokenizer.ggml."
    said = {k[len(prefix) :]: v for k, v in file.metadata.items() if k.startswith(prefix)}
    for key, value in said.items():
        known = key in _KEYS or key.endswith("_token_id")
        if not known and _NEUTRAL.get(key) != value:
            raise file.refusal(f"it says {prefix}{key} = {str(value)[:40]}")
    vocabulary = _vocabulary(file, said)
    match said.get("model"):
        case "gpt2":
            rules = PRE_TOKENIZERS.get(said.get("pre", ""))
            if rules is None:
                name = f"{prefix}pre = {said['pre']!r}" if "pre" in said else f"no {prefix}pre"
                raise file.refusal(f"it says {name}, so its pre-tokenizer is unknown")
            backend = _byte_level(vocabulary, _pairs(file, said, vocabulary), rules)
            adds_bos = rules.adds_bos
        case "llama":
            if "scores" not in said:
                raise file.refusal(f"it has a SentencePiece tokenizer without {prefix}scores")
            dummy_prefix = said.get("add_space_prefix", True)
            backend = _sentencepiece(vocabulary, said["scores"], dummy_prefix)
            adds_bos = True
        case other:
            raise file.refusal(f"it says {prefix}model = {other!r}")
    _add_tokens(backend, vocabulary)
    special = _special_tokens(file, said, vocabulary)
    _frame(
        backend,
        before=special.get("bos_token") if said.get("add_bos_token", adds_bos) else None,
        after=special.get("eos_token") if said.get("add_eos_token", False) else None,
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.chat_template = file.metadata.get("tokenizer.chat_template")
    for i, token in enumerate(vocabulary.tokens):
        if tokenizer.convert_ids_to_tokens(i) != token:
            raise file.refusal(f"its token {i} ({token!r}) is spelled like another")
    return tokenizer


def _vocabulary(file: GgufFile, said: Mapping[str, Any]) -> _Vocabulary:
    tokens = said.get("tokens", [])
    types = said.get("token_type", [_NORMAL] * len(tokens))
    if not tokens or len(types) != len(tokens):
        raise file.refusal(f"it has {len(tokens)} tokens and {len(types)} types of tokens")
    return _Vocabulary(tokens=tokens, types=types, ids={t: i for i, t in enumerate(tokens)})


def _pairs(
    file: GgufFile, said: Mapping[str, Any], vocabulary: _Vocabulary
) -> list[tuple[str, str]]:
    """Returns the merges of byte-level BPE, in their order."""
    if "merges" not in said:
        raise file.refusal("it has a byte-level tokenizer without tokenizer.ggml.merges")
    pairs = []
    for merge in said["merges"]:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.ids.keys():
            raise file.damage(f"its merge {merge!r} is not of tokens")
        pairs.append((left, right))
    return pairs


def _byte_level(
    vocabulary: _Vocabulary, merges: list[tuple[str, str]], rules: PreTokenizer
) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(vocab=dict(vocabulary.ids), merges=merges, ignore_merges=rules.whole_words)
    )
    if rules.nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[pre_tokenizers.PreTokenizer] = []
    if rules.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if rules.split:
        steps.append(pre_tokenizers.Split(Regex(rules.split), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not rules.split))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(
    vocabulary: _Vocabulary, scores: Sequence[float], dummy_prefix: bool
) -> Tokenizer:
    unknown = vocabulary.of_type(_UNKNOWN)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=dict(vocabulary.ids),
            merges=_merges(vocabulary, scores),
            unk_token=unknown[0] if unknown else None,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = [normalizers.Prepend(SPACE)] if dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges(vocabulary: _Vocabulary, scores: Sequence[float]) -> list[tuple[str, str]]:
    """Returns the merges by which SentencePiece joins the neighbours that make the piece of the
    highest score."""
    ids, types = vocabulary.ids, vocabulary.types
    made = [i for i, kind in enumerate(types) if kind == _NORMAL and len(vocabulary.tokens[i]) > 1]
    return [
        (piece[:cut], piece[cut:])
        for piece in (vocabulary.tokens[i] for i in sorted(made, key=lambda i: -scores[i]))
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]


def _add_tokens(tokenizer: Tokenizer, vocabulary: _Vocabulary) -> None:
    """Adds control tokens as special ones, and user-defined ones, such as <think>, as never
    split."""
    control = [*vocabulary.of_type(_CONTROL), *vocabulary.of_type(_UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    own = vocabulary.of_type(_USER_DEFINED)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in own])


def _special_tokens(
    file: GgufFile, said: Mapping[str, Any], vocabulary: _Vocabulary
) -> dict[str, str]:
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    special = {}
    for key, name in names.items():
        token_id = said.get(f"{key}_token_id")
        if token_id is None:
            continue
        if not 0 <= token_id < len(vocabulary.tokens):
            raise file.damage(
                f"tokenizer.ggml.{key}_token_id = {token_id}, and there are"
                f" {len(vocabulary.tokens)} tokens"
            )
        special[f"{name}_token"] = vocabulary.tokens[token_id]
    return special


def _frame(tokenizer: Tokenizer, *, before: str | None, after: str | None) -> None:
    """Sets the tokens around every text."""
    parts = [*([before] if before else []), "$A", *([after] if after else [])]
    if len(parts) > 1:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(parts),
            special_tokens=[(t, tokenizer.token_to_id(t)) for t in (before, after) if t],
        )
