"""Attention over a shared prefix and own keys: the kernel of the document tree.

Registered with transformers under `NAME`, for attention and for masks alike (an attention
without a mask entry silently gets no mask). Without a `tree_pass` argument it is plain SDPA, so
a model that carries it still answers `model(...)` and `generate` as ever.

Legend: B rows, n new tokens, L shared keys, M own keys, H heads, K key-value heads, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from openrpt.engine.tree.causal import causal_attention
from openrpt.engine.tree.kernel import branch_attention
from openrpt.engine.tree.key_set import KeyMask, SharedKeys
from openrpt.errors import UserError

NAME = "openrpt_tree"
"""Name of the tree's attention in transformers."""


class TreePass:
    """A forward pass over the tree: what its tokens may attend to, and where their own keys are
    left.

    Level 0 has neither shared nor own keys: plain causal attention, or that of several packed
    documents. A branch sees as many of the first keys of its document's prefix as that says, its
    own earlier keys, and its new tokens causally. No dataclass: the hooks of divided weights make
    each dataclass that a layer is called with anew, with other tensors, and what is left in one
    would be lost.
    """

    def __init__(
        self,
        *,
        query_positions: Tensor,  # [B, n] absolute
        own: "OwnKeys | None" = None,
        documents: "Sequence[DocumentKeys]" = (),
        lengths: tuple[int, ...] = (),
    ) -> None:
        """`documents`: the prefixes that are shared, each seen by rows of its own. `lengths`:
        tokens of each of the documents that are packed in one row: each attends to itself alone."""
        self.query_positions, self.lengths = query_positions, lengths
        self.own, self.documents = own, documents
        self.collected: dict[int, tuple[Tensor, Tensor]] = {}
        """New keys and values [B, K, n, D] by layer, as the model made them."""
        self._masks: dict[int | None, tuple[list[KeyMask], KeyMask]] = {}

    def masks(
        self, window: int | None, groups: int, dtype: torch.dtype
    ) -> tuple[list[KeyMask], KeyMask]:
        """Returns the masks of the shared keys, one a document, and of the row's own; `groups`
        query heads share a key-value head."""
        if window not in self._masks:
            query = self.query_positions[:, :, None]  # [B, n, 1]
            own = self.query_positions
            if self.own is not None:
                own = torch.cat([self.own.positions, own], dim=1)  # [B, M]
            own_mask = KeyMask.of(_visible(query, own[:, None, :], window), groups, dtype)
            shared_masks = []
            for one in self.documents:
                queries = query if one.rows is None else query[one.rows]  # [b, n, 1]
                keys = torch.arange(one.layers[0][0].shape[2], device=query.device)[None, None, :]
                visible = _visible(queries, keys, window)  # [b, n, L]
                visible = visible & (keys < one.lengths[:, None, None])
                shared_masks.append(KeyMask.of(visible, groups, dtype))
            self._masks[window] = shared_masks, own_mask
        return self._masks[window]


@dataclass(frozen=True, kw_only=True, eq=False)
class DocumentKeys:
    """A document's prefix and the rows that share it."""

    rows: Tensor | None  # [b] of the B rows; None = all of them
    layers: list[tuple[Tensor, Tensor]]  # keys, values [1, K, L, D]
    lengths: Tensor  # [b] keys that each of them sees


@dataclass(kw_only=True, eq=False)
class OwnKeys:
    """The keys and values that a row has for itself, from earlier passes.

    In training they are appended to (a new tensor a pass, with gradient); in decoding they lie in a
    preallocated buffer, and `length` of its columns are filled.
    """

    layers: list[tuple[Tensor, Tensor]]  # [B, K, M, D]; in decoding M is the buffer's capacity
    positions: Tensor  # [B, M] of the filled columns; a huge value = padding, never attended to
    length: int | None = None

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a layer's own keys and values [B, K, M + n, D] with the new ones [B, K, n, D]
        behind them."""
        keys, values = self.layers[layer]
        if self.length is None:
            return torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        end = self.length + key.shape[2]
        keys[:, :, self.length : end] = key
        values[:, :, self.length : end] = value
        return keys[:, :, :end], values[:, :, :end]


def _visible(query: Tensor, key: Tensor, window: int | None) -> Tensor:
    visible = key <= query
    if window is not None:
        visible = visible & (query - key < window)
    return visible


def _tree_attention(
    module: torch.nn.Module,
    query: Tensor,  # [B, H, n, D]
    key: Tensor,  # [B, K, n, D]
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    tree_pass: TreePass | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Attends as transformers calls it; returns [B, n, H, D].

    Raises UserError for attention sinks, which the tree does not share.
    """
    if tree_pass is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if s_aux is not None:
        raise UserError(
            "attention sinks can't be shared in the document tree; run with --engine.trainer flat"
        )
    if torch.is_autocast_enabled(query.device.type):  # rotary embeddings have made them float32
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    # A recomputation under checkpointing must not replace the tensors that the levels hold on to.
    tree_pass.collected.setdefault(layer, (key, value))
    if tree_pass.lengths:
        runs = [(length, len(list(equal))) for length, equal in groupby(tree_pass.lengths)]
        sizes = [length * count for length, count in runs]
        parts = (tensor.split(sizes, dim=2) for tensor in (query, key, value))
        starts = tree_pass.query_positions.split(sizes, dim=1)
        outputs = [
            _tree_attention(
                module,
                _side_by_side(q, count),  # [documents of one length, H, n, D]
                _side_by_side(k, count),
                _side_by_side(v, count),
                None,
                scaling,
                tree_pass=TreePass(query_positions=positions.view(count, -1)),
                sliding_window=sliding_window,
                softcap=softcap,
            )[0].flatten(0, 1)
            for (_, count), q, k, v, positions in zip(runs, *parts, starts, strict=True)
        ]
        return torch.cat(outputs)[None], None  # [B, n, H, D]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    plain = not tree_pass.documents and tree_pass.own is None and softcap is None
    if plain and (sliding_window is None or sliding_window >= key.shape[2]):
        output = causal_attention(query, key, value, scaling=scaling)
        return output.transpose(1, 2), None
    output = _attend(query, key, value, layer, tree_pass, scaling, sliding_window, softcap)
    return output.transpose(1, 2), None


def _side_by_side(joined: Tensor, count: int) -> Tensor:
    """Makes rows of documents as long as each other: [1, H, count · n, D] → [count, H, n, D]."""
    return joined[0].unflatten(1, (count, -1)).transpose(0, 1)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layer: int,
    tree_pass: TreePass,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    if tree_pass.own is not None:
        key, value = tree_pass.own.extend(layer, key, value)  # [B, K, M, D], the new ones last
    groups = query.shape[1] // key.shape[1]
    shared_masks, own_mask = tree_pass.masks(window, groups, query.dtype)
    documents = [
        SharedKeys(
            rows=one.rows, key=one.layers[layer][0][0], value=one.layers[layer][1][0], mask=mask
        )
        for one, mask in zip(tree_pass.documents, shared_masks, strict=True)
    ]
    return branch_attention(
        query, key, value, own_mask, documents=documents, scaling=scaling, softcap=softcap
    )


AttentionInterface.register(NAME, _tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
