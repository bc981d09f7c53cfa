"""A language so small that all completions of a position can be enumerated, in float64."""

from collections.abc import Iterator

import numpy as np
import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AddedToken, PreTrainedTokenizerFast

from openrpt.config.loading import load_config
from openrpt.config.sections import Config
from openrpt.data.positions import ScoredDocument, Window
from openrpt.data.prompts import Layout
from openrpt.data.work import Work
from openrpt.engine.model import Model
from openrpt.engine.tree.attention import NAME
from openrpt.types import Completion, Position

TEXT = "aba"
"""Tokens of the document, letter by letter or as `ab`, `a`, where the language has `ab`."""


def tiny_language(*, joined: bool) -> PreTrainedTokenizerFast:
    """Letters a and b, the box's two ends, a thought's two, a stop; `joined`: `ab` is one, too."""
    pieces = ["a", "b", "}"] + ["ab"] * joined
    bpe = models.BPE(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[("a", "b")] if joined else []
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    wrapped.add_tokens(
        [AddedToken(text, normalized=False) for text in ("<think>", "</think>", "\\boxed{")]
    )
    return wrapped


def tiny_speaker(*, joined: bool = False, seed: int = 0) -> Model:
    """A random model of that language; each of its tokens is far from improbable."""
    tokenizer = tiny_language(joined=joined)
    torch.manual_seed(seed)
    config = tf.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=8,
        n_layer=1,
        n_head=2,
        n_positions=24,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = tf.GPT2LMHeadModel(config).double().eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return Model(network=model, tokenizer=tokenizer, name="tiny")


def language_config(**values) -> Config:
    settings = {
        "prompt.candidates": 0,
        "prompt.think_budget": 1,
        "prompt.prediction_budget": 2,
        "prompt.answer_start": "\\boxed{",
        "reward.terms": {"expected": 1.0},
        "train.algorithm": "rloo",
        "train.group_size": 2,
        "train.ntp_weight": 0.0,
        "train.temperature": 0.9,
        "train.answer_gradient": "exact",
        "optim.max_grad_norm": 1e9,
    }
    return load_config(overrides=settings | {k.replace("__", "."): v for k, v in values.items()})


def language_work(policy: Model) -> Work:
    """The text TEXT twice, with one position in its middle."""
    ids = np.array(policy.tokenizer(TEXT * 2)["input_ids"])
    index = len(policy.tokenizer(TEXT)["input_ids"])
    zeros = np.zeros(len(ids), np.float32)
    document = ScoredDocument(
        document_id="tiny",
        key="",
        split="train",
        source="",
        text=TEXT * 2,
        token_ids=ids,
        byte_offsets=np.arange(len(ids)),
        negative_log_likelihood=zeros,
        entropy=zeros,
        entropy_top16=zeros,
        ntp_token_id=np.zeros(len(ids), np.int64),
        ntp_correct=np.zeros(len(ids), bool),
    )
    window = Window(start=0, end=len(ids), first=1)
    position = Position(document_id="tiny", index=index, entropy=1.0)
    return Work(document=document, window=window, positions=(position,))


def every_completion(
    policy: Model, work: Work, layout: Layout, config: Config
) -> Iterator[tuple[Completion, Tensor]]:
    """All completions of the position with their log-probabilities, which carry a gradient.

    By the rules as docs/concepts.md has them, and by whole sequences through transformers.
    """
    prompt = [*work.prefix_ids(layout, whole=False), *layout.tail_ids]
    policy.attention = "eager"
    none: list[Tensor] = []
    going = [([], none, [], True, config.prompt.prediction_budget)]
    while going:
        ids = [[*prompt, *said] for said, *_ in going]
        width = max(map(len, ids))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        logits = policy.network(padded).logits / config.train.temperature
        logprobs = logits.log_softmax(-1)
        after = []
        for row, (said, before, free, thinking, left) in enumerate(going):
            for token in range(logits.shape[2]):
                text, mask, room, thinks = [*said, token], [*free, True], left, thinking
                own = [*before, logprobs[row, len(ids[row]) - 1, token]]
                stops = token in policy.stop_ids
                if thinking and not stops:
                    if (token,) == layout.thought_end_ids:
                        thinks, room = False, left + len(layout.answer_start_ids)
                    elif len(text) == config.prompt.think_budget:
                        thinks, close = False, layout.close_ids
                        text, mask = [*text, *close], mask + [False] * len(close)
                        own = own + [torch.zeros_like(own[0])] * len(close)
                elif not thinking:
                    room -= 1
                if stops or room == 0:
                    yield _completion(text, own, mask, stops), torch.stack(own).sum()
                else:
                    after.append((text, own, mask, thinks, room))
        going = after
    policy.attention = NAME


def _completion(
    ids: list[int], logprobs: list[Tensor], mask: list[bool], stops: bool
) -> Completion:
    return Completion(
        token_ids=tuple(ids),
        sampler_logprobs=tuple(logprob.item() for logprob in logprobs),
        loss_mask=tuple(mask),
        finish_reason="stop" if stops else "length",
    )
