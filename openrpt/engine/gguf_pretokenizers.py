"""The pre-tokenizers that GGUF files give by name only, and what each name stands for."""

from collections.abc import Mapping
from dataclasses import dataclass


def _splits(digits: str) -> str:
    """Returns the expression that Llama 3 and Qwen 2 split with; they differ in `digits`."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreTokenizer:
    """A pre-tokenizer's rules beyond vocabulary and merges, which the file gives by name only."""

    split: str = ""
    """The expression that splits the text; "" for GPT-2's, which ByteLevel has built in."""
    single_digits: bool = False
    """Whether every digit stands alone, before the split."""
    whole_words: bool = False
    """Whether a word that is a token is taken whole, whatever the merges give."""
    adds_bos: bool = False
    """Whether a text begins with BOS, where the file does not say so itself."""
    nfc: bool = False


_DIGITS = PreTokenizer(single_digits=True)
_LLAMA3 = PreTokenizer(split=_splits(r"\p{N}{1,3}"), whole_words=True, adds_bos=True)
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(),
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "qwen2": PreTokenizer(split=_splits(r"\p{N}"), nfc=True),
    "deepseek-r1-qwen": PreTokenizer(split=_splits(r"\p{N}")),
    "tekken": PreTokenizer(split=_TEKKEN, whole_words=True, adds_bos=True),
}
