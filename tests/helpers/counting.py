"""FLOPs of tiny models as PyTorch counts them, and what the tests count them of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from openrpt.data.scored import ScoredCorpus
from openrpt.data.training_work import take_work
from openrpt.engine.model import Model
from openrpt.rl.batch import Graded, Weighted
from openrpt.stages.text_task import TextTask
from openrpt.stages.train import Trainer, open_train
from openrpt.types import Completion
from tests.helpers.tiny_model import tiny_model_folder, tiny_run

WIDE = {"hidden_size": 256, "intermediate_size": 1024}


# The CPU's attention kernels, which torch's counter leaves out, by its own formulas.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, query, key, value, *_, **__: sdpa_backward_flop_count(grad, query, key, value)
    ),
}


def counted(function: Callable[[], object]) -> float:
    """FLOPs as torch counts them: every matrix product, attention's included."""
    counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
    with sdpa_kernel(SDPBackend.MATH), counter:
        function()
    return float(counter.get_total_flops())


class Calls(TorchDispatchMode):
    """What runs inside: tokens that are embedded, logits that are multiplied out, kernel calls
    (views are none).

    A model with so many rows in its head and no matrix else of that many.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.tokens = self.logits = self.kernels = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        self.kernels += not func.is_view
        if isinstance(found, Tensor) and found.ndim > 1:
            rows, columns = found.shape[:-1].numel(), found.shape[-1]
            if func.overloadpacket is torch.ops.aten.embedding:
                self.tokens += rows
            if func.overloadpacket in PRODUCTS and columns == self.vocabulary:
                self.logits += rows
        return found


PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm}


def calls(policy: Model, function: Callable[[], object]) -> Calls:
    with Calls(policy.head.weight.shape[0]) as found:
        function()
    return found


def trainer_of(folder: Path, **overrides: object) -> Trainer:
    tiny_model_folder(folder / "model", **WIDE)
    return open_train(tiny_run(folder, corpus__development_fraction=0.2, **overrides))


def corpus_of(trainer: Trainer) -> ScoredCorpus:
    assert isinstance(trainer.task, TextTask)
    return trainer.task.corpus


def generate(trainer: Trainer) -> Graded:
    config = trainer.config
    _, work = next(take_work(corpus_of(trainer), config, cursor=0, count=4, purpose="positions"))
    return next(trainer.collector.rollouts_each([work], trainer.state.step))


def live(graded: Graded, *, repeat: bool = False) -> Weighted:
    """Half of its groups have a gradient; with `repeat`, one rollout of each is another's."""
    advantages = torch.zeros(len(graded.groups), len(graded.groups[0].rollouts))
    advantages[::2] = torch.tensor([1.0, -1.0, 0.5, -0.5])
    groups = graded.groups
    if repeat:
        groups = tuple(replace(g, rollouts=(g.rollouts[1], *g.rollouts[1:])) for g in groups)
    return replace(graded, groups=groups).weighted(advantages.double())


def completion(*ids: int, forced: int = 0) -> Completion:
    mask = (False,) * forced + (True,) * (len(ids) - forced)
    return Completion(
        token_ids=ids, sampler_logprobs=(0.0,) * len(ids), loss_mask=mask, finish_reason="length"
    )
