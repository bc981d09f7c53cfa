"""Thought and prediction at the end of a text of one's own."""

import hashlib
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from openrpt.config.loading import validate_config
from openrpt.config.sections import Config
from openrpt.data.request import Request
from openrpt.data.tokens import encode_document
from openrpt.engine.checkpoint_record import RECORD, open_checkpoint
from openrpt.engine.decoding import Sampling
from openrpt.engine.engine import Engine, with_standard
from openrpt.errors import UserError
from openrpt.progress import SILENT, Progress
from openrpt.rl.grading import grade_groups
from openrpt.seeding import keys_of
from openrpt.types import Completion, Group, Position

_SAMPLES_AT_ONCE = 64
"""The number of rollouts between two words on the progress; never their result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A text's tokens, and its continuation's."""

    token_ids: tuple[int, ...]
    """The text's, then the continuation's."""
    token_bytes: tuple[bytes, ...]
    index: int
    """The token at which the continuation starts."""
    note: str = ""


def cut_at_end(tokenizer: object, text: str, continuation: str = "") -> Cut:
    """Returns the tokens of a text and of what follows it, as one document where they allow it.

    Where a token of the document straddles the text's end, the two are tokenized apart and `note`
    says so. Raises UserError for an empty text and one that the tokenizer does not give back.
    """
    if not text:
        raise UserError("the text is empty: there is nothing to predict from")
    ids, pieces = encode_document(tokenizer, text + continuation)  # type: ignore[arg-type]
    ends = list(accumulate(len(piece) for piece in pieces))
    if len(text.encode()) in ends:
        index = ends.index(len(text.encode())) + 1
        return Cut(token_ids=tuple(ids), token_bytes=tuple(pieces), index=index)
    ids, pieces = encode_document(tokenizer, text)  # type: ignore[arg-type]
    next_ids, next_pieces = encode_document(tokenizer, continuation)  # type: ignore[arg-type]
    return Cut(
        token_ids=(*ids, *next_ids),
        token_bytes=(*pieces, *next_pieces),
        index=len(ids),
        note="no token ends where the text does (does a space belong to the continuation?): the"
        " two were tokenized apart, which the model has seldom seen",
    )


def predict(
    engine: Engine,
    cut: Cut,
    config: Config,
    *,
    samples: int = 4,
    temperature: float = 1.0,
    progress: Progress = SILENT,
) -> Group:
    """Returns `samples` rollouts at the end of a text, graded against its continuation
    (temperature 0 = greedy), and what standard prediction says there.

    The prefix is the text's last `prompt.window` tokens. Without a continuation every reward is 0.
    Raises UserError where the prompt does not fit into the model.
    """
    settings = config.prompt
    window_start = max(0, cut.index - settings.window)
    prefix_ids = cut.token_ids[window_start : cut.index]
    layout = engine.model.layout(settings, window=len(prefix_ids))
    sampling = Sampling.of(settings, temperature=temperature)

    document_id = hashlib.sha256(b"".join(cut.token_bytes[: cut.index])).hexdigest()[:16]
    ids = layout.head_ids + prefix_ids
    keys = keys_of(samples, config.seed, "predict", document_id)
    progress.begin("predict", samples, "rollouts")
    completions: list[Completion] = []
    for first in range(0, samples, _SAMPLES_AT_ONCE):
        request = Request.at_end(ids, keys[first : first + _SAMPLES_AT_ONCE])
        ((generated,),) = engine.generate_each([request], layout, sampling)
        completions += generated.completions
        progress.update(len(completions))
    if layout.has_instructions:
        plain = layout.plain_head_ids + prefix_ids
        (generated,) = with_standard(engine, plain, [len(plain)], layout, [generated])
    (group,) = grade_groups(
        [replace(generated, completions=tuple(completions))],
        [Position(document_id=document_id, index=cut.index, window_start=window_start)],
        cut.token_ids,
        cut.token_bytes,
        layout,
        engine.model.table,
    )
    return group


def checkpoint_config(model: str) -> Config | None:
    """Returns the configuration that a checkpoint was trained with; None for any other model.

    Raises UserError for a damaged checkpoint.
    """
    folder = Path(model)
    if not (folder / RECORD).is_file():
        return None
    return validate_config(open_checkpoint(folder).config, source=f"{folder}/{RECORD}")
