"""The case that both sides of a benchmark run: one window of a text, positions, lengths.

Prompts are cut from the window's ids by `openrpt` and handed to the peer as ids, so both sides
have the very same tokens.
"""

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrpt.config.loading import load_config
from openrpt.data.assets import demo_corpus_jsonl
from openrpt.data.prompts import build_layout
from openrpt.data.tokens import encode_document
from openrpt.engine.loading import resolve_model
from openrpt.errors import UserError

MODEL = "smollm2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """The prompt at a position is window_ids[:prefix_length] ⊕ tail_ids."""

    model: str
    """As `model.path` names it."""
    model_folder: str
    window_ids: list[int]
    prefix_lengths: list[int]
    """One a position, ascending, in tokens."""
    tail_ids: list[int]
    group_size: int
    new_tokens: int
    threads: int
    mixed: bool = False
    """Matrix products in bfloat16 beside float32 weights; else all in float32."""
    device: str = "cpu"
    seed: int = 0
    learning_rate: float = 1e-6

    @property
    def prompts(self) -> list[list[int]]:
        return [self.window_ids[:length] + self.tail_ids for length in self.prefix_lengths]

    @property
    def rollouts(self) -> int:
        return len(self.prefix_lengths) * self.group_size

    def job(self, **more: Any) -> dict[str, Any]:
        """For a child process."""
        return asdict(self) | more

    def facts(self) -> dict[str, Any]:
        """For the result file: no ids, no paths."""
        return {
            "model": self.model,
            "device": self.device,
            "window": len(self.window_ids),
            "positions": len(self.prefix_lengths),
            "prefix_lengths": self.prefix_lengths,
            "tail_tokens": len(self.tail_ids),
            "group_size": self.group_size,
            "new_tokens": self.new_tokens,
            "rollouts": self.rollouts,
            "threads": self.threads,
            "dtype": "float32, products in bfloat16" if self.mixed else "float32",
            "learning_rate": self.learning_rate,
            "window_sha256": hashlib.sha256(json.dumps(self.window_ids).encode()).hexdigest(),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, help="a .txt file; default: the demo's corpus")
    parser.add_argument("--positions", type=int, default=16, help="positions of the window")
    parser.add_argument("--group-size", type=int, default=8, help="rollouts of a position")
    parser.add_argument("--new-tokens", type=int, default=24, help="tokens of every completion")
    parser.add_argument("--window", type=int, default=512, help="longest prefix, in tokens")
    parser.add_argument(
        "--shortest-prefix",
        type=int,
        help="tokens; default: just over half the window, as in every window of a document but"
        " its first",
    )
    parser.add_argument("--model", default=MODEL, help="as model.path names it")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each side")


def make_case(given: argparse.Namespace) -> Case:
    """Raises UserError for a text that is no text or too short, and for sizes that can't be."""
    from transformers import AutoConfig, AutoTokenizer

    shortest = given.shortest_prefix or given.window // 2 + 1
    if not (1 <= shortest <= given.window and 2 <= given.positions <= given.window - shortest + 1):
        raise UserError(
            f"{given.positions} positions with prefixes of {shortest} to {given.window} tokens"
            " can't be; there must be 2 or more, each at a token of its own"
        )
    if given.group_size < 2 or given.new_tokens < 2 or given.threads < 1:
        raise UserError("--group-size and --new-tokens must be at least 2, --threads at least 1")
    folder = resolve_model(given.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tail_ids = build_layout(tokenizer, load_config().prompt).tail_ids
    longest = given.window + len(tail_ids) + given.new_tokens
    if longest > (room := AutoConfig.from_pretrained(folder).max_position_embeddings):
        raise UserError(
            f"--window, the tail and --new-tokens make {longest} tokens, and {given.model} holds"
            f" {room}; lower one of them"
        )
    ids, _ = encode_document(tokenizer, read_text(given.corpus))
    if len(ids) < given.window:
        raise UserError(
            f"{given.corpus or 'the demo corpus'} has {len(ids)} tokens; a window of"
            f" {given.window} needs a longer text"
        )
    steps = given.positions - 1
    return Case(
        model=given.model,
        device=given.device,
        model_folder=str(folder),
        window_ids=ids[: given.window],
        prefix_lengths=[
            shortest + i * (given.window - shortest) // steps for i in range(given.positions)
        ],
        tail_ids=list(tail_ids),
        group_size=given.group_size,
        new_tokens=given.new_tokens,
        threads=given.threads,
    )


def read_text(path: Path | None) -> str:
    """The file's text, or the demo's problems and solutions one after the other as one document.

    100,000 characters of it are enough for any window.
    """
    if path is None:
        rows = map(json.loads, demo_corpus_jsonl().read_text(encoding="utf-8").splitlines())
        return "\n\n".join(f"{row['problem']}\n\n{row['solution']}" for row in rows)[:100_000]
    try:
        return path.read_text(encoding="utf-8")[:100_000]
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); name a text file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; name a text file") from None
