"""What a loaded model must hold before a stage may trust it: one gate for tree and flat.

Its weights are finite; its tokenizer gives a text the same ids each time, and each of them has a
row in the model; a second pass gives the same logits, which do not depend on later tokens; the
head over the backbone gives the model's own logits; and the tree gives what the plain model gives.
What does not hold is refused by name.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import openrpt
from openrpt.config.engine import Trainer
from openrpt.data.tokens import encode_document
from openrpt.engine.branches import Branch
from openrpt.engine.files import ModelFiles
from openrpt.engine.flat import flat_hidden
from openrpt.engine.model import Model
from openrpt.engine.remembered import REMEMBERED_BYTES, place_of, remember
from openrpt.engine.tree.attention import NAME as TREE_ATTENTION
from openrpt.engine.tree.levels import branch_states
from openrpt.errors import UserError, foreign
from openrpt.hashes import file_stamp

_TOLERANCE = 1e-2
"""Largest difference of log-probabilities, in nats, between two ways to the same ones."""
_LOWEST = -1e3
"""Nats in place of minus infinity, which a model gives for what it never says: it has no
difference."""
_LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}
_WINDOW = 4
"""Sliding windows in the tree's case, which is shorter than a model's own."""
_WAY_OUT = "run with --engine.trainer flat"
_PASSED: set[Path] = set()
"""The marks of the models that have passed in this process."""
_SAMPLE = (
    "Let x_1 = 2 and y = 3.14. Then the sum of both, which is what we were looking for, is 5.14:\n"
    "\tfor item in unknowns[0:12]:  # internationalization, reconsidered, notwithstanding\n"
    "The quick brown fox jumps over the lazy dog; nobody understands why it would do so again.\n"
) * 2


def check_model(policy: Model, files: ModelFiles, *, trainer: Trainer) -> None:
    """Checks that a stage may trust a loaded model. Raises UserError that names the model, what
    does not hold, and the way out.

    What has passed once is remembered until a file of the model or a version changes: by this
    process, and that of large files in the cache folder. The model is left as it was.
    """
    mark = _mark(policy, files, trainer)
    if mark in _PASSED or os.path.isfile(mark):
        return
    require_finite(policy.causal_lm.state_dict().items(), what=f"model '{policy.name}'")
    require_tokenizer(policy)
    require_flat_support(policy)
    if trainer == "tree":
        require_tree_support(policy)
    if files.bytes >= REMEMBERED_BYTES:
        remember(mark, policy.name)
    _PASSED.add(mark)


def _mark(policy: Model, files: ModelFiles, trainer: Trainer) -> Path:
    """Returns the file that the cache has once this model, as it is on the disk, has passed."""
    facts = [
        *_versions(),
        trainer,
        str(policy.causal_lm.dtype),
        str(policy.product_dtype),
        policy.device.type,
        str(files.folder.resolve()),
    ]
    for path in sorted(path for path in files.folder.iterdir() if path.is_file()):
        facts.append(f"{path.name}:{file_stamp(path)}")
    return place_of("checked", facts)


@cache
def _versions() -> tuple[str, ...]:
    return (openrpt.__version__, *map(version, ("torch", "transformers", "tokenizers")))


def require_finite(named_tensors: Iterable[tuple[str, Tensor]], *, what: str) -> None:
    """Checks that there is no NaN and no infinity in any tensor. Raises UserError that names the
    first.

    `what` stands before the name: "model 'x'", "the checkpoint of step 3". One pass over each
    tensor, without a copy; the host waits for a GPU once.
    """
    ends = {
        name: torch.stack(tensor.detach().aminmax()).double()  # [2] the least, the greatest
        for name, tensor in named_tensors
        if tensor.is_floating_point() and tensor.numel()
    }
    found = torch.stack([*ends.values()]).tolist() if ends else []  # [tensors][2]
    for name, pair in zip(ends, found, strict=True):
        if any(map(math.isnan, pair)):
            raise UserError(f"{what} has NaN in the weights ({name})")
        if any(map(math.isinf, pair)):
            raise UserError(f"{what} has infinity in the weights ({name})")


def require_tokenizer(policy: Model) -> None:
    """Checks that a text has the same ids each time, and that the model has a row for each of them.
    Raises UserError."""
    tokenizer, rows = policy.tokenizer, policy.head.weight.shape[0]
    with foreign(f"the tokenizer of model '{policy.name}' can't be used"):
        first, _ = encode_document(tokenizer, _SAMPLE)
        again = (encode_document(tokenizer, _SAMPLE)[0] for _ in range(3))
        if any(ids != first for ids in again):
            raise UserError(
                f"the tokenizer of model '{policy.name}' gives a text other tokens each time (merge"
                " dropout); set dropout to null in its tokenizer.json"
            )
        bos_ids = policy.bos_ids
    stops = policy.causal_lm.generation_config.eos_token_id
    if not all(isinstance(i, int | None) for i in (stops if isinstance(stops, list) else [stops])):
        raise UserError(
            f"model '{policy.name}': eos_token_id = {stops!r} in its generation_config.json is no"
            " token id; correct it or remove the file"
        )
    ordinary = [i for i, piece in enumerate(policy.table.bytes) if piece]
    used = (*bos_ids, tokenizer.eos_token_id or 0, *ordinary)
    beyond = next((i for i in used if i >= rows), None)
    if beyond is not None:
        token = tokenizer.convert_ids_to_tokens(beyond)
        raise UserError(
            f"model '{policy.name}': its tokenizer's token {token!r} has id {beyond}, but the model"
            f" has {rows} rows; use the tokenizer that it was trained with, or resize its embedding"
        )


@torch.no_grad()
def require_flat_support(policy: Model) -> None:
    """Checks each sequence alone: the same in each pass, causal, with the logits of the model's own
    head and plain attention. Raises UserError."""
    model, ids = policy.causal_lm, _small_case(policy)
    kind = f"model '{policy.name}' (type '{model.config.model_type}')"
    with foreign(f"{kind} can't be run"), policy.autocast():

        def own(ids: list[int]) -> Tensor:
            return model(torch.tensor([ids], device=policy.device), use_cache=False).logits[0]

        fast = policy.attention
        expected, again, shorter = own(ids), own(ids), own(ids[: len(ids) // 2])
        with _attending(policy, "eager"):
            plain = own(ids)
        found = policy.head.logits(flat_hidden(policy, ids))
    # Either: some CPUs' sdpa kernels hide what is not a number from the one.
    if any(bool(logits.log_softmax(-1).isnan().any()) for logits in (expected, plain)):
        raise UserError(
            f"{kind} gives NaN or infinity as logits, though its weights are finite; use another"
            " model, or the state before its training went wrong"
        )
    for logits, what in (
        (again, "gives other results in a second pass over the same text"),
        (shorter, "reads later tokens, too, so it is no causal language model"),
        (plain, f"gives other results by '{fast}' attention than by the plain one"),
        (found, "has something between its last layer and its logits that is not known here"),
    ):
        difference, allowed = _difference(logits, expected[: len(logits)], policy.product_dtype)
        if not difference <= allowed:
            raise UserError(
                f"{kind} {what} (log-probabilities differ by {difference:.2g}); use another model"
            )


def require_tree_support(policy: Model) -> None:
    """Refuses by name what the document tree can't share, then compares tree and flat.

    Raises UserError that names the model type and the way out.
    """
    model = policy.causal_lm
    config = model.config.to_dict()
    kind = config.get("model_type")
    kinds = set(config.get("layer_types") or []) - {"full_attention", "sliding_attention"}
    if kinds or model._is_stateful:
        what = ", ".join(sorted(kinds)) or "recurrent state"
        raise UserError(f"model type '{kind}' has layers that can't share ({what}); {_WAY_OUT}")
    rope = json.dumps(config.get("rope_parameters") or config.get("rope_scaling") or {})
    for name in _LENGTH_DEPENDENT_ROPE:
        if f'"{name}"' in rope:
            raise UserError(f"model type '{kind}' scales RoPE with length ({name}); {_WAY_OUT}")
    if not model._supports_attention_backend:
        raise UserError(f"model type '{kind}' has attention that can't be replaced; {_WAY_OUT}")
    with (
        foreign(f"model type '{kind}' can't be run in the tree", advice=_WAY_OUT),
        _short_windows(model),
    ):
        found, expected = _tree_case(policy)
    difference, allowed = _difference(found, expected, policy.product_dtype)
    if not difference <= allowed:
        raise UserError(
            f"model type '{kind}' gives other results in the tree (log-probabilities differ by"
            f" {difference:.2g}); {_WAY_OUT}"
        )


@contextlib.contextmanager
def _attending(policy: Model, name: str) -> Iterator[None]:
    """Lets the model's layers attend by that name."""
    own = policy.attention
    policy.attention = name
    try:
        yield
    finally:
        policy.attention = own


@contextlib.contextmanager
def _short_windows(model: Any) -> Iterator[None]:
    """Lets a model's sliding windows hold _WINDOW tokens, so that a few show whether the tree knows
    of them: some families hand theirs to their own attention masks alone."""
    owners = [model.config, model.config.get_text_config(), *model.modules()]
    own = [(o, o.sliding_window) for o in owners if getattr(o, "sliding_window", None)]
    try:
        for owner, _ in own:
            owner.sliding_window = _WINDOW
        yield
    finally:
        for owner, window in own:
            owner.sliding_window = window


@torch.no_grad()
def _tree_case(policy: Model) -> tuple[Tensor, Tensor]:
    """Returns logits [2, V] of a small case: by the tree, and by the plain model."""
    model, ids = policy.causal_lm, _small_case(policy)
    prefix, tail, completion = ids[:8], ids[8:10], ids[10:]
    flat = ids[:5] + tail + completion
    with _attending(policy, "eager"), policy.autocast():
        expected = model(torch.tensor([flat], device=policy.device), use_cache=False).logits[0]
    branch = Branch(prefix_length=5, tail_ids=tuple(tail), completions=(tuple(completion),))
    with _attending(policy, TREE_ATTENTION):
        hidden = branch_states(policy, prefix, [branch])[0][0]  # [2, d]
    # What follows the tail, and the first token.
    return policy.head.logits(hidden), expected[6:8]


def _small_case(policy: Model) -> list[int]:
    return [(7 * i + 3) % min(policy.head.weight.shape[0], 97) for i in range(12)]


def _difference(found: Tensor, expected: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """Returns the largest difference of log-probabilities [n, V], and how large it may be.

    bfloat16 rounds to 3 digits, so a tenth of their spread is allowed; elsewhere _TOLERANCE, or
    less where they hardly differ among themselves, as a new model's.
    """
    wide = torch.promote_types(found.dtype, torch.float32)
    given, wanted = (
        logits.to(wide).log_softmax(-1).clamp(min=_LOWEST) for logits in (found, expected)
    )
    spread = max(float(wanted.max() - wanted.min()), _TOLERANCE)
    allowed = 0.1 * spread if dtype == torch.bfloat16 else _TOLERANCE * min(spread, 1.0)
    return float((given - wanted).abs().max()), allowed
