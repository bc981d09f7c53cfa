"""A model whose weights are divided among processes: FSDP2 (`torch.distributed.fsdp.fully_shard`,
arXiv 2304.11277), each transformer layer a unit.

At rest a process has its rows of each matrix, and of that matrix's gradient. A layer's matrices are
gathered as the layer is called, by all processes at once, and freed behind it; on the way back they
are gathered again, and their gradient is summed into the shards (a reduce-scatter). They are
gathered in the precision of the products, summed in float32 or wider. Embeddings and head are read
outside of the layers, and their gradient is written in place (`engine.head_gradient`): they are
whole as long as passes are made, and their gradient is summed once behind the last. Vectors (norms,
biases) are whole in each process.

Each process makes as many passes as its documents have, and all must gather alike. So passes are
taken in turns (`Divided.turns`): before each one the processes say whether they want to go forward
or back, forward goes first, and who wants neither, or the other, takes part with one token, whose
gradient is 0. What generates or evaluates makes thousands of passes without a gradient
(`Divided.reading`); there the weights are gathered once, whole, or, where they have no room, layer
by layer in each pass, by the same turns.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from openrpt.engine.divided_matrix import DividedMatrix, places_of
from openrpt.engine.tree.attention import TreePass
from openrpt.errors import UserError

if TYPE_CHECKING:
    from openrpt.engine.model import Model

_T = TypeVar("_T")
_OLDEST = Version("2.13")
"""The torch that this was built on; `set_reduce_scatter_unused_params` is not in those of 2025."""
_Direction = Literal["forward", "backward"]
_Phase = Literal["at rest", "reading whole", "reading in turns", "turns"]


class Processes(Protocol):
    """What dividing a model asks of the processes (`openrpt.rl.workers.Workers`)."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0 on."""

    @property
    def mesh(self) -> DeviceMesh:
        """The processes, as torch divides tensors among them."""

    def gather(self, value: _T) -> list[_T]:
        """Returns the values of all processes."""

    def gather_amid_passes(self, value: _T) -> list[_T]:
        """Does so without `taking_part` before it."""

    def taking_part(self, take_part: Callable[[], None]) -> AbstractContextManager[None]:
        """Encloses passes that all processes take part in: inside, each runs `take_part` before it
        meets the others, which returns once none has a pass left."""

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Makes each parameter's `.grad` the sum over the processes."""

    def within(self, place: str) -> AbstractContextManager[None]:
        """Encloses exchanges that torch makes by itself."""


class Divided:
    """The division of a model's weights: what is gathered, when, and what is summed."""

    def __init__(
        self,
        model: "Model",
        processes: Processes,
        *,
        layers: Sequence[FSDPModule],
        outer: Sequence[DividedMatrix],
        hash_before: str,
        by_layer: bool,
    ) -> None:
        """`hash_before`: the weights' before they were divided; `by_layer`: layers are gathered one
        at a time where they are only read, too."""
        self._model, self._processes, self._layers = model, processes, layers
        self._by_layer = by_layer
        self.hash_before = hash_before
        self._outer = outer
        """The matrices that are read outside of the layers."""
        self._vectors = [p for p in model.parameters() if not isinstance(p, DTensor)]
        self._phase: _Phase = "at rest"
        self._spare: list[Tensor] = []
        """The states of tokens that were run to take part, for the way back."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Encloses passes without a gradient: each process makes as many as it likes. All come to
        the beginning together."""
        if self._by_layer:
            take_part = self._processes.taking_part(self._finish_turns)
            with self._gathered("reading in turns"), take_part:
                yield
                self._finish_turns()
        else:
            with self._gathered("reading whole"), self._layers_gathered():
                yield

    @contextmanager
    def _layers_gathered(self) -> Iterator[None]:
        with self._processes.within("gather of all weights"):
            self._root.set_reshard_after_forward(False)
            for layer in self._layers:
                layer.unshard()
        try:
            yield
        finally:
            self._root.set_reshard_after_forward(True)
            for layer in self._layers:
                layer.reshard()

    @contextmanager
    def turns(self) -> Iterator[None]:
        """Encloses passes of which each goes forward and back once; at the end all parameters have
        the gradient's sum over the processes, each its own part of it."""
        with self._gathered("turns"):
            yield
            self._finish_turns()
            self._spare.clear()
            self._sum_outer()
        self._processes.sum_gradients(self._vectors)

    def forward(self, inputs: dict[str, Any]) -> Any:
        """Runs the backbone."""
        assert self._phase != "at rest", "a pass over weights that are divided"
        if self._phase == "reading whole":
            return self._run(inputs)
        return self._take_turn("forward", lambda: self._run(inputs))

    def backward(self, roots: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """Goes back through one pass, which the roots come from."""
        self._take_turn("backward", lambda: torch.autograd.backward(roots, gradients))

    def whole_weights(self) -> dict[str, Tensor]:
        """Gathers all weights, a matrix at a time, in the host memory of the first process: returns
        them there by name, and nothing on the others. All processes call this."""
        found: dict[str, Tensor] = {}
        gathered: dict[int, Tensor] = {}  # by the id of a parameter: a shared one stays shared
        first = self._processes.rank == 0
        with self._processes.within("gather of all weights"):
            for name, tensor in self._model.network.state_dict(keep_vars=True).items():
                if id(tensor) not in gathered:
                    values = tensor.detach()
                    values = values.full_tensor() if isinstance(values, DTensor) else values
                    gathered[id(tensor)] = values.cpu() if first else values.new_empty(0)
                found[name] = gathered[id(tensor)]
        return found if first else {}

    def own_parts(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns this process' parts of divided tensors; of others, all."""
        return {n: t.to_local() if isinstance(t, DTensor) else t for n, t in tensors.items()}

    def clip(self, max_norm: float) -> float:
        """Clips the gradient, of which each process has a part; returns the whole one's norm."""
        parameters = self._model.parameters()
        parts = [p.grad for p in parameters if isinstance(p.grad, DTensor)]
        vectors = [p.grad for p in self._vectors if p.grad is not None]
        norm = get_total_norm(vectors)
        if parts:
            norm = torch.hypot(norm, get_total_norm(parts).full_tensor())  # type: ignore[attr-defined]
        for some in (self._vectors, [p for p in parameters if isinstance(p, DTensor)]):
            clip_grads_with_norm_(some, max_norm, norm)
        return float(norm)

    @property
    def _root(self) -> Any:
        return self._model.backbone

    def _run(self, inputs: dict[str, Any]) -> Any:
        grad = torch.is_grad_enabled() and self._phase != "reading in turns"
        with torch.set_grad_enabled(grad), self._model.autocast(), warnings.catch_warnings():
            # Of the last states, which nothing changes in place.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
            return self._root(**inputs)

    @contextmanager
    def _gathered(self, phase: _Phase) -> Iterator[None]:
        assert self._phase == "at rest", f"weights are gathered for '{self._phase}' already"
        with self._processes.within("gather of the embeddings"):
            for one in self._outer:
                one.gather()
        self._phase = phase
        try:
            yield
        finally:
            self._phase = "at rest"
            for one in self._outer:
                one.release()
            self._model.forget_rounded()

    def _finish_turns(self) -> None:
        """Takes part in passes until no process has one left."""
        self._take_turn(None)

    def _take_turn(self, own: _Direction | None, run: Callable[[], _T] | None = None) -> _T | None:
        """Takes part in passes until this process's own is due, and runs that; None: until no
        process has one left."""
        while True:
            wanted = self._processes.gather_amid_passes(own)
            due = next((one for one in ("forward", "backward") if one in wanted), None)
            if due is None:
                return None
            with self._processes.within(f"pass {due}"):
                if due == own and run is not None:
                    return run()
                self._take_part(due)

    def _take_part(self, due: str) -> None:
        """Runs one token, forward or back, so that all processes gather and sum alike."""
        if due == "forward":
            hidden = self._run(self._one_token()).last_hidden_state
            if self._phase == "turns":
                self._spare.append(hidden)
            return
        hidden = self._spare.pop()
        torch.autograd.backward([hidden], [torch.zeros_like(hidden)])

    def _one_token(self) -> dict[str, Any]:
        """Returns a pass's inputs: a token whose embedding is 0, and no row of the embeddings."""
        weight = self._model.causal_lm.get_input_embeddings().weight
        positions = torch.zeros(1, 1, dtype=torch.int64, device=weight.device)
        return {
            "inputs_embeds": weight.new_zeros(1, 1, weight.shape[1]).requires_grad_(),
            "position_ids": positions,
            "attention_mask": torch.zeros(1, 1, 1, 1, device=weight.device),
            "tree_pass": TreePass(query_positions=positions),
            "use_cache": False,
        }

    def _sum_outer(self) -> None:
        missing = self._processes.gather([one.whole.grad is None for one in self._outer])
        with self._processes.within("sum of the embeddings' gradients"):
            for one, by_rank in zip(self._outer, zip(*missing, strict=True), strict=True):
                if not all(by_rank):
                    one.sum_gradient()


def divide(model: "Model", processes: Processes, *, by_layer: bool = False) -> None:
    """Divides a model's weights among processes that all have it whole; what it runs on is the
    document tree. `by_layer`: no process ever has more of its layers than one, nor to generate.

    A model in the host's memory moves to the mesh's device, a layer at a time and each process's
    part of it. Raises UserError for a model without layers that can be told, and for a torch whose
    FSDP2 can't do it.
    """
    if Version(torch.__version__) < _OLDEST:
        raise UserError(
            f"parallel.shard divides weights with torch {_OLDEST} or later, and {torch.__version__}"
            " is installed: earlier ones can't sum gradients over processes of which some have none"
        )
    layers, mesh, hash_before = model.layers, processes.mesh, model.weights_hash
    others = _read_outside(model)
    precision = MixedPrecisionPolicy(
        param_dtype=model.compute_dtype,
        reduce_dtype=torch.promote_types(model.causal_lm.dtype, torch.float32),
        cast_forward_inputs=False,
    )
    for layer in layers:
        unit = fully_shard(layer, mesh=mesh, mp_policy=precision, ignored_params=others)
        unit.set_force_sum_reduction_for_comms(True)
        unit.set_gradient_divide_factor(1.0)  # the sum: losses are divided by the step's totals
        unit.set_reduce_scatter_unused_params(True)
    # On the way back a layer gathers the one before it; else FSDP goes by the order of all forward
    # passes so far, of which each process may have made others.
    for before, layer in zip([layers[0], *layers], layers, strict=False):
        layer.set_modules_to_backward_prefetch([before])  # of the first: itself, so nothing
    fully_shard(model.backbone, mesh=mesh, ignored_params=others)
    for vector in (p for p in others if p.ndim <= 1):
        vector.data = vector.data.to(mesh.device_type)
    outer = [DividedMatrix(places, mesh) for places in places_of(model.network, others)]
    model.divided = Divided(
        model,
        processes,
        layers=layers,
        outer=outer,
        hash_before=hash_before,
        by_layer=by_layer,
    )


def _read_outside(model: "Model") -> set[nn.Parameter]:
    """Returns the parameters that no layer gathers: vectors, embeddings and head."""
    in_layers = {p for layer in model.layers for p in layer.parameters() if p.ndim > 1}
    return {p for p in model.network.parameters() if p not in in_layers}
