"""Tree or flat: the things that a stage asks of either."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from openrpt.engine import flat
from openrpt.engine.generation import Generator
from openrpt.engine.model import Policy
from openrpt.engine.tree import forest
from openrpt.engine.tree import levels as tree
from openrpt.engine.tree.generator import TreeGenerator


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    generator: Generator
    accumulate_gradients: Callable[..., None]
    """As tree.accumulate_gradients."""
    accumulate_each: Callable[..., None]
    """As forest.accumulate_each."""
    branch_hidden: Callable[..., list[list[Tensor]]]
    """As tree.branch_hidden."""


def make_engine(kind: str, policy: Policy, start: Policy | None = None) -> Engine:
    """`kind` is model.generator; `start` gives the candidates, where not the policy itself."""
    if kind == "flat":
        return Engine(
            generator=flat.FlatGenerator(policy=policy, start=start),
            accumulate_gradients=flat.accumulate_gradients,
            accumulate_each=flat.accumulate_each,
            branch_hidden=flat.branch_hidden,
        )
    return Engine(
        generator=TreeGenerator(policy=policy, start=start),
        accumulate_gradients=tree.accumulate_gradients,
        accumulate_each=forest.accumulate_each,
        branch_hidden=tree.branch_hidden,
    )
