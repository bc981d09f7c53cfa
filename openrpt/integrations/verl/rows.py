"""A row of the exported parquet files: a position with its prompt and what truly follows.

verl reads `prompt` (chat messages), `data_source`, `reward_model` and `extra_info`; our agent loop
reads `extra_info` alone, where all is exact: the prompt as token ids, and of the continuation the
bytes and where its tokens end in them.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from openrpt.config.prompt import PromptConfig
from openrpt.data.positions import bands
from openrpt.data.prompt_texts import prompt_text
from openrpt.data.prompts import Layout
from openrpt.data.work import Work
from openrpt.integrations.rows import position_rows

SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("index", pa.int64()),
                    ("prompt_ids", pa.list_(pa.int32())),
                    ("continuation", pa.binary()),
                    ("boundaries", pa.list_(pa.int32())),
                    ("document_id", pa.string()),
                    ("position", pa.int64()),
                    ("window_start", pa.int64()),
                    ("entropy", pa.float32()),
                ]
            ),
        ),
    ]
)
"""One schema for all files: `datasets` joins them."""

Row = dict[str, Any]


def rows_of(
    work: Work, layout: Layout, prompt: PromptConfig, tokenizer: Any, *, first: int
) -> Iterator[Row]:
    """Yields a row a position of the work; `first`: the number of the first one.

    `data_source` names the band of the scorer's entropy, so that verl's validation has a mean for
    each.
    """
    for number, row in enumerate(position_rows(work, layout, tokenizer), start=first):
        position, text = row.position, row.prefix.decode(errors="replace")
        shown = prompt_text(prompt, text).removesuffix(prompt.thought_start)
        truth = row.continuation[0].decode(errors="replace")
        yield {
            "data_source": f"openrpt/{_band(position.entropy)}",
            "prompt": [{"role": "user", "content": shown}],
            "reward_model": {"style": "rule", "ground_truth": truth},
            "extra_info": {
                "index": number,
                "prompt_ids": row.prompt_ids,
                "continuation": b"".join(row.continuation),
                "boundaries": list(accumulate(map(len, row.continuation))),
                "document_id": position.document_id,
                "position": position.index,
                "window_start": position.window_start,
                "entropy": position.entropy,
            },
        }


def _band(entropy: float) -> str:
    """Returns the band's name, in characters that every tracker takes."""
    found = bands(np.array([entropy])).items()
    name = next((name for name, flags in found if flags[0]), "unknown")
    return name.replace("<=", "at_most_").replace(">", "above_")


def continuation_of(info: Mapping[str, Any]) -> Sequence[bytes]:
    """Returns the bytes of the true tokens from the position on, of a row's `extra_info`.

    >>> continuation_of({"continuation": b" the end", "boundaries": [4, 8]})
    [b' the', b' end']
    """
    data = bytes(info["continuation"])
    return [data[start:end] for start, end in pairwise([0, *map(int, info["boundaries"])])]
