"""The course of a completion, without a model: free thought, close, prediction, end.

Its tensors lie on the host, whatever device the model is on: who goes on, and with what, is decided
there, and the device is asked once a token, for what was drawn.

Legend: B rollouts still decoded, C tokens of the forced close, E tokens of the thought's own end,
S stop tokens.
"""

from collections.abc import Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openrpt.data.prompts import Layout


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """The token ids and budgets that decide the course of a completion."""

    close: Tensor  # [C] forced once the think budget is spent; may be empty
    end: Tensor  # [E] with which the policy ends its thought itself; E ≥ 1
    stops: Tensor  # [S]
    think_budget: int
    """Most free tokens of a thought; with 0 a completion begins with its prediction."""
    prediction_budget: int
    """Most tokens of a prediction, at least 1."""
    box_tokens: int
    """Tokens on top for a policy that ends its thought itself: those that open the box, which the
    forced close holds."""

    @classmethod
    def of(
        cls,
        layout: Layout,
        stop_ids: Set[int],
        *,
        think_budget: int,
        prediction_budget: int,
    ) -> "Rules":
        """Returns the rules under a layout."""
        return cls(
            close=torch.tensor(layout.close_ids, dtype=torch.long),
            end=torch.tensor(layout.thought_end_ids, dtype=torch.long),
            stops=torch.tensor(sorted(stop_ids), dtype=torch.long),
            think_budget=think_budget,
            prediction_budget=prediction_budget,
            box_tokens=len(layout.answer_start_ids),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """The state of each rollout that is still decoded.

    The thought ends when the policy has written its end (then it writes the box, too) or when the
    think budget is spent (then the close is forced). The completion ends behind a free stop token,
    or when the prediction's budget is spent.
    """

    rules: Rules
    token: int
    """Tokens since the opening: the same number for each rollout."""
    alive: Tensor  # [B] which of the rollouts it began with
    keys: Tensor  # [B] of their random draws
    row_of: Tensor  # [B] each one's row of the model
    forced_at: Tensor  # [B] index into the close of the token that comes next; −1: a free one
    thinking: Tensor  # [B] bool
    left: Tensor  # [B] tokens that the prediction may still have
    recent: Tensor  # [B, E] the last tokens; −1: none yet
    stopped: Tensor  # [B] bool: the last token was a stop

    @classmethod
    def begin(cls, rules: Rules, *, keys: Tensor, row_of: Tensor) -> "Course":
        """Returns all rollouts behind their opening; keys, row_of [B]."""
        alive = torch.arange(len(keys))
        no = torch.zeros_like(alive, dtype=torch.bool)
        return cls(
            rules=rules,
            token=0,
            alive=alive,
            keys=keys,
            row_of=row_of,
            forced_at=torch.full_like(alive, -1),
            thinking=torch.full_like(no, rules.think_budget > 0),
            left=torch.full_like(alive, rules.prediction_budget),
            recent=torch.full((len(keys), len(rules.end)), -1),
            stopped=no,
        )

    @property
    def free(self) -> Tensor:
        """True where the next token is drawn, not forced: [B]."""
        return self.forced_at < 0

    @property
    def predicting(self) -> Tensor:
        """True where the next token is drawn behind the thought: [B]."""
        return self.free & ~self.thinking

    @property
    def last(self) -> Tensor:
        """The last token of each rollout: [B]."""
        return self.recent[:, -1]

    def next_ids(self, drawn: Tensor) -> Tensor:
        """Returns the next token of each rollout: `drawn` [B] where it is free, else the
        close's."""
        if not len(self.rules.close):
            return drawn
        return torch.where(self.free, drawn, self.rules.close[self.forced_at.clamp_min(0)])

    def after(self, ids: Tensor, *, reached: Tensor | None = None) -> "Course":
        """Returns the course with one more token of each rollout, ids [B], those that end there
        included.

        `reached` [B]: True where the token ends what the caller stops behind.
        """
        rules, free, token = self.rules, self.free, self.token + 1
        stopped = torch.isin(ids, rules.stops) & free
        if reached is not None:
            stopped = stopped | reached
        recent = torch.cat([self.recent[:, 1:], ids[:, None]], dim=1)
        # A free thought goes to its own end, or to the forced close once the budget is spent.
        ended = self.thinking & (recent == rules.end).all(1)
        spent = self.thinking & ~ended & (token >= rules.think_budget)
        forced_at = torch.where(free, -1, self.forced_at + 1)
        forced_at = torch.where(forced_at >= len(rules.close), -1, forced_at)
        if len(rules.close):
            forced_at = torch.where(spent, 0, forced_at)
        return replace(
            self,
            token=token,
            forced_at=forced_at,
            thinking=self.thinking & ~ended & ~spent,
            left=self.left - self.predicting.long() + ended * rules.box_tokens,
            recent=recent,
            stopped=stopped,
        )

    def keep(self, index: Tensor) -> "Course":
        """Returns the course of these rollouts only: index [N] into the B."""
        return replace(
            self,
            alive=self.alive[index],
            keys=self.keys[index],
            row_of=self.row_of[index],
            forced_at=self.forced_at[index],
            thinking=self.thinking[index],
            left=self.left[index],
            recent=self.recent[index],
            stopped=self.stopped[index],
        )

    def going_on(self) -> "Course":
        """Returns the course of those that have not ended: B falls."""
        index = (~self.stopped & (self.left > 0)).nonzero()[:, 0]
        return self if len(index) == len(self.alive) else self.keep(index)

    @property
    def at_close(self) -> bool:
        """Whether every rollout has the whole close before it."""
        return bool((self.forced_at == 0).all())

    def past_close(self) -> "Course":
        """Returns the course with the whole close behind each rollout; only where all are
        `at_close`."""
        close, size = self.rules.close, len(self.rules.end)
        said = torch.cat([self.recent, close.expand(len(self.alive), -1)], dim=1)  # [B, E + C]
        return replace(
            self,
            token=self.token + len(close),
            forced_at=torch.full_like(self.forced_at, -1),
            recent=said[:, -size:],
        )
