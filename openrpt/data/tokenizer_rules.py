"""The rules of a tokenizer, read off its own JSON: whether they lose bytes, and a copy that changes
no text.
"""

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer

SPACE = "▁"  # U+2581, not an underscore: SentencePiece's space
_KEEPS_ALL_TEXT = {"ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "UnicodeScripts"}
"""Pre-tokenizers that lose no byte."""


def _steps(spec: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    """Returns the steps of the stage "normalizer" or "pre_tokenizer", sequences flattened."""
    key = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}[stage]

    def flat(step: dict[str, Any]) -> list[dict[str, Any]]:
        return [s for inner in step[key] for s in flat(inner)] if key in step else [step]

    return flat(spec[stage]) if spec[stage] else []


def is_byte_level(spec: dict[str, Any]) -> bool:
    """Returns whether the tokenizer works on bytes, as GPT-2's does."""
    return any(step["type"] == "ByteLevel" for step in _steps(spec, "pre_tokenizer"))


def _makes_space(step: dict[str, Any]) -> bool:
    """Returns whether a step turns " " into "▁"."""
    if step["type"] == "Metaspace":
        return step["replacement"] == SPACE
    return (
        step["type"] == "Replace"
        and step["pattern"] == {"String": " "}
        and step["content"] == SPACE
    )


def _is_dummy_prefix(step: dict[str, Any]) -> bool:
    return step["type"] == "Prepend" and step["prepend"] == SPACE


def has_dummy_prefix(spec: dict[str, Any]) -> bool:
    """Returns whether the tokenizer puts a space before a text."""
    return any(_is_dummy_prefix(step) for step in _steps(spec, "normalizer")) or any(
        step.get("add_prefix_space") or step.get("prepend_scheme") in ("first", "always")
        for step in _steps(spec, "pre_tokenizer")
    )


def why_refused(spec: dict[str, Any]) -> str | None:
    """Returns why these rules lose bytes; None if they do not."""
    model = spec["model"]
    byte_level = is_byte_level(spec)
    if model["type"] not in (("BPE",) if byte_level else ("BPE", "Unigram")):
        return f"its model is {model['type']}, which turns what it does not know into one token"
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return "its tokens carry a word-part mark that is not in the text"
    for step in _steps(spec, "pre_tokenizer"):
        if step["type"] not in _KEEPS_ALL_TEXT or step.get("behavior") == "Removed":
            return f"its pre-tokenizer {step['type']} drops text"
    normalizers = _steps(spec, "normalizer")
    for step in normalizers:
        # NFC only composes characters, and byte-level BPE knows every byte: NFC can be left out.
        space = _makes_space(step) or _is_dummy_prefix(step)
        if not (step["type"] == "NFC" if byte_level else space):
            return f"its normalizer {step['type']} changes the text"
    if byte_level:
        return None
    if not model.get("byte_fallback"):
        return "it has no byte fallback, so characters that it does not know are lost"
    if not any(_makes_space(step) for step in normalizers + _steps(spec, "pre_tokenizer")):
        return "it neither is byte-level nor writes a space as ▁"
    return None


def plain_tokenizer(
    tokenizer: Tokenizer, spec: dict[str, Any], special_ids: frozenset[int], chat_template: str
) -> Tokenizer:
    """Returns a copy of the tokenizer, whose JSON `spec` is, that adds nothing, drops nothing and
    parses no control tokens. It has the same model, not another: reading one from JSON takes 0.2 s.

    The dummy prefix is taken out as well: some tokenizers add it again after each added token, or
    not at all before a text that begins with a space. Whoever encodes a text adds it, once.
    """
    spec["normalizer"] = {
        "type": "Sequence",
        "normalizers": [step for step in _steps(spec, "normalizer") if _makes_space(step)],
    }
    for step in _steps(spec, "pre_tokenizer"):
        if step["type"] == "ByteLevel":
            step["add_prefix_space"] = False
        if step["type"] == "Metaspace":
            step["prepend_scheme"] = "never"
    emptied = spec | {
        "model": {"type": "BPE", "vocab": {}, "merges": []},
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    plain = Tokenizer.from_str(json.dumps(emptied))
    plain.model = tokenizer.model
    for token in spec["added_tokens"]:  # ascending by id, so each is given its own again
        content, number = token.pop("content"), token.pop("id")
        in_template = not content.isspace() and content in chat_template
        strips = token["lstrip"] or token["rstrip"]  # would swallow the spaces around it
        token["special"] = number in special_ids or in_template or strips
        add = plain.add_special_tokens if token["special"] else plain.add_tokens
        add([AddedToken(content, **token)])
    plain.encode_special_tokens = True  # that is, as the text that they are spelled with
    return plain
