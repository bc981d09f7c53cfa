"""The work on one window: its branches, of the greatest lengths that the configuration allows, and
what they count."""

from dataclasses import dataclass, replace

from openrpt.config.sections import Config
from openrpt.costs.flops import Count, count_tree, plain_passes, prefix_passes
from openrpt.costs.speed import spread_positions
from openrpt.data.prompts import Budget, Layout
from openrpt.engine.branches import Branch


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowWork:
    """The work on one window of a document."""

    config: Config
    layout: Layout
    window: int
    """Tokens of text in the window."""

    def branches(self, positions: int, rollouts: int) -> list[Branch]:
        """Returns the branches of one window, in lengths; all ids are 0. Without rollouts, no tail
        is run."""
        prompt, layout = self.config.prompt, self.layout
        head = len(layout.head_ids)
        budget = Budget.of(prompt)
        tail, own = len(layout.tail_ids) + budget.opening(layout), budget.drawn
        if budget.think:
            own += len(layout.close_ids)
        indices = spread_positions(positions, min(prompt.min_context, self.window), self.window)
        return [
            Branch(
                prefix_length=head + index,
                tail_ids=(0,) * tail if rollouts else (),
                completions=((0,) * own,) * rollouts,
            )
            for index in indices
        ]

    def answers(self, thoughts: list[Branch]) -> Count:
        """Counts thoughts with the right answers behind them (`reward.expected_tokens`), without
        the prefix; `thoughts`: branches whose completions are the thoughts as drawn."""
        layout, prompt = self.layout, self.config.prompt
        close = len(layout.close_ids) if prompt.think_budget else 0
        end = len(layout.answer_end_ids)
        most = min(self.config.reward.expected_tokens, prompt.prediction_budget - end)
        lengths = [k + end + int(k + end < prompt.prediction_budget) for k in range(1, most + 1)]
        count = Count()
        for branch in thoughts:
            # A thought that is only its seed is the same in all rollouts of a group.
            for drawn in branch.completions or ((),):
                behind = (0,) * (len(branch.tail_ids) + len(drawn) + close)
                answered = replace(
                    branch, tail_ids=behind, completions=tuple((0,) * n for n in lengths)
                )
                count.add(count_tree(0, [answered], sum(lengths)))
        return count

    def thoughts(self, branches: list[Branch]) -> list[Branch]:
        """Returns the branches with completions that end where the thought does."""
        think = self.config.prompt.think_budget
        return [
            replace(branch, completions=((0,) * think,) * (len(branch.completions) if think else 0))
            for branch in branches
        ]

    def drawn(self, branches: list[Branch]) -> int:
        """Returns the tokens that are drawn on these branches at most."""
        rollouts = sum(len(branch.completions) for branch in branches)
        return rollouts * Budget.of(self.config.prompt).drawn

    def generation(self, branches: list[Branch]) -> Count:
        """Counts the generation of these branches."""
        prefix = branches[-1].prefix_length
        count = count_tree(prefix, branches, len(branches) + self.drawn(branches))
        for _ in range(prefix_passes(self.config.prompt) - 1):
            count.run(prefix, 0, len(branches))
        return count

    def graded(self, branches: list[Branch]) -> Count:
        """Counts the generation of these branches with all that grades them: standard prediction on
        the text alone, and the right answers that rewards read. Another sampler than the trainer's
        own engine runs the prefix for itself."""
        count, prefix = self.generation(branches), branches[-1].prefix_length
        if self.config.engine.sampler != "same":
            count.run(prefix, 0)
        for _ in range(plain_passes(self.config.prompt, self.layout)):
            count.run(prefix, 0, len(branches))
        for _ in self.config.reward.exact_terms:
            count.run(prefix, 0)
            count.add(self.answers(self.thoughts(branches)))
        return count

    def update(self, branches: list[Branch], *, text: bool, drawn: int) -> Count:
        """Counts the update on these branches; `text`: with a loss on the plain prefix."""
        prefix = branches[-1].prefix_length
        return count_tree(prefix, branches, drawn + (prefix - 1 if text else 0))
