"""From a position to the ids that the model sees: `head ⊕ prefix ⊕ tail`, then the forced tokens.

Instructions stand in the head, so that all positions of a document share it; only a short tail
follows the prefix. The ids are cut from the document's own, never re-tokenized.

Examples of thoughts (`prompt.examples`) stand before all else, in the head: each is a whole prompt
of its own text with the completion of a policy that ends by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from openrpt.config.examples import Example
from openrpt.config.prompt import PromptConfig
from openrpt.data.chat import around_text
from openrpt.data.prompt_texts import template_of
from openrpt.data.tokens import encode_document, token_table
from openrpt.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The ids around a prefix and around a thought, for one tokenizer and one PromptConfig."""

    head_ids: tuple[int, ...]
    """The ids before the prefix: the examples, the tokenizer's own beginning, the instructions."""
    tail_ids: tuple[int, ...]
    """The ids behind the prefix, the thought's opening included."""
    plain_head_ids: tuple[int, ...]
    """The ids before plain text: the tokenizer's own beginning, if any."""
    separator_ids: tuple[int, ...]
    """The ids between two candidates."""
    close_ids: tuple[int, ...]
    """The forced close: the thought's end and the box's opening."""
    answer_start_ids: tuple[int, ...]
    """The ids that open the box."""
    answer_end_ids: tuple[int, ...]
    """The ids that close the box."""
    thought_end_ids: tuple[int, ...]
    """The ids that end the thought."""
    thought_end: bytes
    """The bytes that end the thought."""
    literal: dict[int, bytes]
    """Delimiters that are one special token and render literally in a completion."""
    delimiter_ids: frozenset[int] = frozenset()
    """Delimiters of the thought and of the box that are one token: see `Model.masked_ids`."""

    @property
    def has_instructions(self) -> bool:
        """Whether more than the tokenizer's own beginning stands before the text."""
        return self.head_ids != self.plain_head_ids

    @property
    def plain(self) -> "Layout":
        """The layout of the text alone, as standard prediction sees it: nothing behind it, nothing
        forced."""
        return replace(
            self, head_ids=self.plain_head_ids, tail_ids=(), close_ids=(), answer_start_ids=()
        )

    def seed(self, candidate_ids: Sequence[int]) -> tuple[int, ...]:
        """Returns the forced beginning of a candidate-seeded thought: `c1 | c2 | c3`."""
        ids: list[int] = []
        for candidate in candidate_ids:
            ids += [*self.separator_ids, candidate] if ids else [candidate]
        return tuple(ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The longest completion, in tokens: its free thought, and its prediction."""

    think: int
    """Most free tokens of the thought; at 0 it is closed at once, in the opening."""
    prediction: int
    """Most tokens of the prediction, the box's end included."""
    candidates: int = 0
    """Candidates that seed the thought."""

    @classmethod
    def of(cls, prompt: PromptConfig) -> "Budget":
        """Returns the budget that the prompt's keys give."""
        return cls(
            think=prompt.think_budget,
            prediction=prompt.prediction_budget,
            candidates=prompt.candidates,
        )

    @property
    def drawn(self) -> int:
        """Most tokens of thought and prediction alone."""
        return self.think + self.prediction

    def trained(self, layout: Layout) -> int:
        """Returns the most tokens that are trained: a thought that ends by itself leaves the box to
        the policy, too."""
        return self.drawn + (len(layout.answer_start_ids) if self.think else 0)

    def opening(self, layout: Layout) -> int:
        """Returns the number of forced tokens that a completion begins with: the seed, and the
        close of no thought."""
        seed = len(layout.seed((0,) * self.candidates))
        return seed + (0 if self.think else len(layout.close_ids))

    def new(self, layout: Layout) -> int:
        """Returns the most tokens behind the opening, forced ones included."""
        return self.drawn + len(layout.close_ids) + len(layout.answer_start_ids)

    def behind(self, layout: Layout) -> int:
        """Returns the most tokens behind a prefix that a prompt and its completion may take."""
        seed = len(layout.seed((0,) * self.candidates))
        return len(layout.tail_ids) + seed + self.drawn + len(layout.close_ids)

    def require_room(
        self, layout: Layout, prompt: PromptConfig, max_length: int, *, window: int | None = None
    ) -> None:
        """Checks that head + window + tail + budgets fit into the model. `window`: tokens of text
        before the position; None = `prompt.window`. Raises UserError."""
        names = ("prompt.window", "prompt.think_budget", "prompt.prediction_budget")
        if prompt.template == "question":  # as finetune's user knows them
            names = ("finetune.question_tokens", "finetune.think_budget", "finetune.answer_budget")
        parts = {
            "head": len(layout.head_ids),
            names[0]: prompt.window if window is None else window,
            "tail": len(layout.tail_ids),
            "seed": len(layout.seed((0,) * self.candidates)),
            names[1]: self.think,
            "close": len(layout.close_ids),
            names[2]: self.prediction,
        }
        total = sum(parts.values())
        if total > max_length:
            spelled = " + ".join(f"{name} {size}" for name, size in parts.items())
            raise UserError(
                f"a prompt can reach {total} tokens ({spelled}), but the model holds {max_length};"
                f" lower {names[0]} by {total - max_length} or the budgets"
            )


def build_layout(tokenizer: Any, config: PromptConfig, bos_ids: tuple[int, ...] = ()) -> Layout:
    """Returns the ids around a prefix and a thought. Raises UserError where the template asks for a
    chat template that the tokenizer lacks, and for a chat template that does not take a text as it
    is (`chat.render_chat`)."""
    before, after = template_of(config)
    wants_chat = config.chat_template == "on" or (
        config.chat_template == "auto" and config.template != "minimal"
    )
    require_chat_template(tokenizer, config)
    if wants_chat and tokenizer.chat_template:
        before, after = around_text(tokenizer, before, after)
        head_ids = tuple(_encode(tokenizer, before))
        if not after.rstrip().endswith(config.thought_start.strip()):
            after += config.thought_start
    else:
        head_ids = bos_ids + tuple(_encode(tokenizer, before))
        after = f"{after}\n{config.thought_start}" if after else config.thought_start
    thought_end = thought_end_ids(tokenizer, config)
    special = token_table(tokenizer).special_ids
    delimiters = [tuple(_encode(tokenizer, config.thought_start)), thought_end]
    names = [config.thought_start, config.thought_end]
    literal = {
        ids[0]: name.encode()
        for ids, name in zip(delimiters, names, strict=True)
        if len(ids) == 1 and ids[0] in special
    }
    layout = Layout(
        head_ids=head_ids,
        tail_ids=tuple(_encode(tokenizer, after)),
        plain_head_ids=bos_ids,
        separator_ids=tuple(_encode(tokenizer, config.candidate_separator)),
        close_ids=tuple(_encode(tokenizer, config.thought_end + config.answer_start)),
        answer_start_ids=tuple(_encode(tokenizer, config.answer_start)),
        answer_end_ids=tuple(_encode(tokenizer, config.answer_end)),
        thought_end_ids=thought_end,
        thought_end=config.thought_end.encode(),
        literal=literal,
        delimiter_ids=delimiter_ids(tokenizer, config),
    )
    shown = [_example_ids(tokenizer, layout, config, example) for example in config.examples]
    return replace(layout, head_ids=tuple(chain(*shown, head_ids)))


def _example_ids(
    tokenizer: Any, layout: Layout, config: PromptConfig, example: Example
) -> Iterator[int]:
    """Returns an example as the policy's own sequence has it: head, text, tail and completion.
    Raises UserError for a text that the tokenizer does not give back."""
    table = token_table(tokenizer)
    text_ids, _ = encode_document(tokenizer, example.text)
    thought, prediction = (
        table.plain_tokenizer.encode(text, add_special_tokens=False).ids
        for text in (example.thought, example.prediction)
    )
    free = layout.thought_end_ids + layout.answer_start_ids
    close = free if config.think_budget else layout.close_ids
    turn_end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return chain(
        layout.head_ids,
        text_ids,
        layout.tail_ids,
        thought,
        close,
        prediction,
        layout.answer_end_ids,
        turn_end,
    )


def require_chat_template(tokenizer: Any, config: PromptConfig) -> None:
    """Checks that the tokenizer has the chat template that the configuration asks for. Raises
    UserError."""
    if config.chat_template == "on" and not tokenizer.chat_template:
        raise UserError(
            "prompt.chat_template = 'on', but the tokenizer has no chat template; use 'auto'"
        )


def thought_end_ids(tokenizer: Any, config: PromptConfig) -> tuple[int, ...]:
    """Returns the ids that end a thought."""
    return tuple(_encode(tokenizer, config.thought_end))


def delimiter_ids(tokenizer: Any, config: PromptConfig) -> frozenset[int]:
    """Returns the thought's delimiters, each where it is one token of the vocabulary, and the box's
    opening where it is one that was added to it: no text goes on with either."""
    spelled = [_encode(tokenizer, text) for text in (config.thought_start, config.thought_end)]
    box = _encode(tokenizer, config.answer_start)
    if set(box) <= set(tokenizer.get_added_vocab().values()):
        spelled.append(box)
    return frozenset(ids[0] for ids in spelled if len(ids) == 1)


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Returns the ids of a template's text, as from inside a text (no dummy prefix). Control tokens
    are parsed here, as they never are in a document."""
    found = [text.find(token) for token in tokenizer.get_added_vocab() if token in text]
    start = min(found, default=len(text))  # the tokenizer itself would put a dummy prefix before
    plain = token_table(tokenizer).plain_tokenizer
    ids = plain.encode(text[:start], add_special_tokens=False).ids
    return ids + (tokenizer(text[start:], add_special_tokens=False)["input_ids"] if found else [])
