"""The seam for data parallelism: processes that each run a part of every step.

Each process holds the whole model, or its part of the weights (`engine.divided`). A step's
documents are shared out to be generated at and graded (`Collector`); what came of them is gathered,
so that from there on every process knows the whole step: its pass rates, its live groups, its
advantages (those of `reinforce_plus_plus` are divided by a deviation over the whole step) and the
totals that losses are divided by. Its batch is shared out again for the update (`update_policy`),
gradients are summed before they are clipped, and every process makes the same step. Only last
bits depend on the number of processes: gradients are added in another order, and documents of few
rollouts share a pass of the sampler with others.

An implementation (`rl.process_group.ProcessGroup`) has to see to this:
- All processes begin with the same configuration, weights and trainer's state
  (`stages.alike.require_alike` compares them), and sum gradients to the same bits (an all-reduce
  does), so that they never part.
- `gather`, `first` and `sum_gradients` are met by all processes in the same order. A process that
  fails (a reward that raises, an interrupt) must end the others, which wait for it; a gradient that
  is not finite is met by all of them, since its norm is taken after the sum.
- Files of the run folder are written by the process of rank 0, which evaluates, too (`first`).

It can't be torch's DistributedDataParallel: its hooks wait for one backward pass that reaches
every parameter once. Here a step is many backward passes, one a micro-batch; the head's gradient
is written into `weight.grad` from inside them (`engine.head_gradient`), and the embeddings' comes
behind the last of them (`engine.tree.gradients.embeddings_as_leaves`). Hooks would see some
gradients early and others never. So gradients are summed once, when all are there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch

from openrpt.engine.model import Model

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")


class Workers(Protocol):
    """The processes of a training run, as one of them sees them.

    Process r of n has the items r, r + n, r + 2n … of what is shared out.
    """

    @property
    def rank(self) -> int:
        """The number of this process, from 0 on; 0 writes the files and speaks for all."""

    @property
    def count(self) -> int:
        """The number of processes, n."""

    def share(self, items: Sequence[T]) -> list[T]:
        """Returns this process' part of a list that all of them have."""

    def gather(self, value: T) -> list[T]:
        """Returns the values that all n processes have given, in the order of the processes."""

    def gather_amid_passes(self, value: T) -> list[T]:
        """Does so inside of `taking_part`, for the passes' own sake: nothing is run before."""

    def taking_part(self, take_part: Callable[[], None]) -> AbstractContextManager[None]:
        """Encloses passes that all processes take part in, of which each has another number: before
        it meets the others otherwise, a process runs `take_part`, which returns once none has a
        pass left."""

    def first(self, do: Callable[[], T]) -> T:
        """Lets the process of rank 0 do something, however long it takes, and returns what it
        returned to all of them."""

    @property
    def mesh(self) -> "DeviceMesh":
        """The processes, as torch divides weights among them (`engine.divided`)."""

    def within(self, place: str) -> AbstractContextManager[None]:
        """Encloses exchanges that torch makes by itself, which fail where a process is gone."""

    def spread(self, owned: Sequence[Sequence[torch.nn.Parameter]]) -> None:
        """Gives each parameter the values that it has in the process that owns it; `owned`: the
        parameters of each process."""

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Makes each parameter's `.grad` the sum over the processes, the same in each of them.

        A process that ran nothing has None where others have a gradient: it counts as 0. Where all
        have None, it stays None.
        """


class Alone:
    """One process, which does everything: nothing is shared, gathered or summed."""

    rank = 0
    count = 1

    def share(self, items: Sequence[T]) -> list[T]:
        """Returns all items."""
        return list(items)

    def gather(self, value: T) -> list[T]:
        """Returns the one process's value."""
        return [value]

    def gather_amid_passes(self, value: T) -> list[T]:
        """Returns the one process's value."""
        return [value]

    def taking_part(self, take_part: Callable[[], None]) -> AbstractContextManager[None]:
        """Encloses nothing: no other process has a pass."""
        return nullcontext()

    def first(self, do: Callable[[], T]) -> T:
        """Does it."""
        return do()

    @property
    def mesh(self) -> "DeviceMesh":
        """No mesh: one process has nothing to divide."""
        raise AssertionError("one process divides no weights")

    def within(self, place: str) -> AbstractContextManager[None]:
        """Encloses nothing: no process is waited for."""
        return nullcontext()

    def spread(self, owned: Sequence[Sequence[torch.nn.Parameter]]) -> None:
        """Leaves the parameters as they are: all are its own."""
        return None

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Leaves the gradients as they are: there is nothing to add."""
        return None


ALONE = Alone()


@contextmanager
def summed(policy: Model, workers: Workers) -> Iterator[None]:
    """Encloses the passes of a gradient, which the processes have summed at the end: each of them
    all of it, or its own part where the weights are divided."""
    if policy.divided is not None:
        with policy.divided.turns():
            yield
    else:
        yield
        workers.sum_gradients(policy.parameters())
