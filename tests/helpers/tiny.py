"""Tiny tokenizers for the tests: trained here in milliseconds, the same each time."""

import json
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import AddedToken, PreTrainedTokenizerFast

TEXT = [
    "The sum of two even numbers is even, and the sum of two odd numbers is even too.",
    "Let x = 2 and y = 3. Then x + y = 5, so the answer is 5. Find the value of x and of y.",
    "We think about what comes next, then we say it: the next token of the text.",
    "Le café est fermé. Die Straße ist naß. 数学は楽しい。 😀 \\frac{1}{2} \\boxed{the end}",
]

SentencePieceStyle = Literal["metaspace", "metaspace_always", "prepend", "no_dummy", "replace"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As reasoning models have it: thoughts of earlier turns are dropped, the new turn opens one.
THINK_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def byte_level_tokenizer(
    *, chat_template: str | None = CHAT_TEMPLATE, vocab_size: int = 400, nfc: bool = False
) -> PreTrainedTokenizerFast:
    """Byte-level BPE in the manner of GPT-2; special tokens <|im_start|> and <|im_end|> (eos)."""
    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return _wrapped(tokenizer, chat_template)


def think_tokenizer(*, special: bool = True) -> PreTrainedTokenizerFast:
    """A reasoning model's: <think> and </think> are single tokens, special or merely added."""
    tokenizer = byte_level_tokenizer(chat_template=THINK_TEMPLATE)
    for content in ("<think>", "</think>"):
        token = AddedToken(content, special=special, normalized=False)
        tokenizer.add_tokens([token], special_tokens=special)
    return tokenizer


def sentencepiece_tokenizer(
    style: SentencePieceStyle = "metaspace", *, chat_template: str | None = None
) -> PreTrainedTokenizerFast:
    """SentencePiece-style BPE with byte fallback.

    "metaspace" and "metaspace_always" put a dummy prefix before a text in the pre-tokenizer,
    "prepend" in the normalizer (Llama 2); "no_dummy" (Metaspace) and "replace" (Gemma) put none.
    """
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    learned.train_from_iterator(TEXT, BpeTrainer(vocab_size=150, show_progress=False))
    model: dict[str, Any] = json.loads(learned.to_str())["model"]
    control = ["<unk>", "<|im_start|>", "<|im_end|>"]
    pieces = [*control, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[(left, right) for left, right in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    to_space = normalizers.Replace(" ", "▁")
    match style:
        case "metaspace":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        case "metaspace_always":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        case "no_dummy":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        case "prepend":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), to_space])
        case "replace":
            tokenizer.normalizer = to_space
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(control)
    return _wrapped(tokenizer, chat_template, unk_token="<unk>")


def _wrapped(
    tokenizer: Tokenizer, chat_template: str | None, **special_tokens: str
) -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", **special_tokens
    )
    wrapped.chat_template = chat_template
    return wrapped
