"""A frozen linear layer with its low-rank updates on the CPU kernels: products, and gradients of trained parameters.

y = x W^T + b + sum over adapters of scaling * drop(x) A^T B^T on the adapter's columns. Several layers that read the
same input (query, key and value) are one `FusedLinear`, in which each adapter has its own span of columns. Hu et al.,
"LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from submillion.kernels import calls
from submillion.kernels.calls import Mask
from submillion.kernels.weights import LowRank, PackedWeight, find_panel_ranks, pack_weight
from submillion.model.dropout import KeyedDropout, column_keys


@dataclass(frozen=True, eq=False)
class Adapter:
    """A low-rank update of a span of columns.

    Attributes:
        first_column: First column of the span.
        a: Shape (R, K), float32.
        b: Shape (columns of the span, R), float32.
        scaling: Factor on the update.
        dropout: Dropout of the update's input, or None.
    """

    first_column: int
    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    dropout: KeyedDropout | None

    @property
    def end_column(self) -> int:
        """The column after the span's last one."""
        return self.first_column + self.b.shape[0]

    @property
    def rank(self) -> int:
        """R."""
        return self.a.shape[0]


def make_mask(dropout: KeyedDropout | None, width: int) -> Mask | None:
    """Return the masks of a site's next use over tokens, or None if nothing is dropped."""
    if dropout is None or not dropout.training or dropout.p == 0.0:
        return None
    keys = dropout.state.token_keys
    if keys is None:
        raise RuntimeError("a training forward pass needs DropoutState.set_step first")
    site = dropout.state.find_site(dropout.site)
    return Mask(keys, column_keys(torch.arange((width + 1) // 2), site), dropout.p)


class FusedLinear:
    """A frozen weight, its bias and its adapters.

    Args:
        weight: Shape (O, K), bfloat16, frozen.
        biases: Pieces of the bias along O, float32 or bfloat16; some may train.
        adapters: Low-rank updates of disjoint spans of columns, in their order.
    """

    def __init__(self, weight: torch.Tensor, biases: Sequence[torch.Tensor], adapters: Sequence[Adapter] = ()) -> None:
        self.weight = weight
        self.biases = tuple(biases)
        self.adapters = tuple(adapters)
        # Each adapter's ranks start at an even place, and zeros follow the last one up to a whole register.
        places, rank = [], 0
        for adapter in self.adapters:
            places.append(rank)
            rank += adapter.rank + adapter.rank % 2
        self._places = tuple(places)
        ends = [place + -(-adapter.rank // 16) * 16 for place, adapter in zip(places, self.adapters, strict=True)]
        self._low_width = -(-max([rank, *ends], default=0) // 16) * 16
        spans = [
            (adapter.first_column, adapter.end_column, place, adapter.rank)
            for place, adapter in zip(places, self.adapters, strict=True)
        ]
        self._panels = find_panel_ranks(spans, weight.shape[0])
        num_panels = -(-weight.shape[1] // 64)
        self._all_pairs = (
            torch.zeros(num_panels, dtype=torch.int32),
            torch.full((num_panels,), (rank + 1) // 2, dtype=torch.int32),
        )

    @cached_property
    def packed(self) -> PackedWeight:
        """The weight for products x W^T."""
        return pack_weight(self.weight)

    @cached_property
    def packed_transpose(self) -> PackedWeight:
        """The weight for products grad W."""
        return pack_weight(self.weight, transposed=True)

    @property
    def bias(self) -> torch.Tensor:
        """The bias, shape (O,), float32."""
        if any(piece.requires_grad for piece in self.biases):
            return torch.cat([piece.detach().float() for piece in self.biases])
        return self._frozen_bias

    @cached_property
    def _frozen_bias(self) -> torch.Tensor:
        return torch.cat([piece.detach().float() for piece in self.biases])

    def list_trained(self) -> list[torch.Tensor]:
        """Return the parameters that train, in the order of `find_gradients`."""
        matrices = [matrix for adapter in self.adapters for matrix in (adapter.a, adapter.b)]
        return [matrix for matrix in matrices if matrix.requires_grad] + [b for b in self.biases if b.requires_grad]

    def start(self, x: torch.Tensor) -> LowPass | None:
        """Project the input into the adapters' ranks; None without adapters."""
        if not self.adapters:
            return None
        masks = [make_mask(adapter.dropout, x.shape[1]) for adapter in self.adapters]
        if all(mask is None for mask in masks):
            joined = x.new_zeros((self._low_width, x.shape[1]), dtype=torch.float32)
            for place, adapter in zip(self._places, self.adapters, strict=True):
                joined[place : place + adapter.rank] = adapter.a.detach()
            low = calls.linear(x, pack_weight(joined))
        else:
            low = x.new_empty(len(x), self._low_width)
            for place, adapter, mask in zip(self._places, self.adapters, masks, strict=True):
                dropped = x if mask is None else calls.drop_rows(x, mask)
                calls.linear(dropped, pack_weight(adapter.a.detach()), out=low[:, place:])
        raised = torch.zeros(self._low_width, self.weight.shape[0])
        for place, adapter in zip(self._places, self.adapters, strict=True):
            span = slice(adapter.first_column, adapter.end_column)
            torch.mul(adapter.b.detach().t(), adapter.scaling, out=raised[place : place + adapter.rank, span])
        weight = pack_weight(raised, transposed=True)
        return LowPass(LowRank(low, weight, *self._panels), masks)

    def start_backward(self, grad: torch.Tensor) -> torch.Tensor | None:
        """Project the output's gradient (N, O) into the adapters' ranks: (N, R); None without adapters."""
        if not self.adapters:
            return None
        low = grad.new_empty(len(grad), self._low_width)
        for place, adapter in zip(self._places, self.adapters, strict=True):
            weight = pack_weight(adapter.b.detach(), transposed=True, factor=adapter.scaling)
            # Whole registers are written. An adapter writes zeros beyond its ranks, which the next adapter overwrites.
            calls.linear(grad[:, adapter.first_column : adapter.end_column], weight, out=low[:, place:])
        return low

    def make_backward_term(self, low_grad: torch.Tensor | None, forward: LowPass | None) -> LowRank | None:
        """Return the low-rank term of the input's gradient, for adapters whose input was not dropped."""
        if low_grad is None or forward is None or forward.is_dropped:
            return None
        rows = int(self._all_pairs[1][0]) * 2
        joined = torch.zeros(rows, self.weight.shape[1])
        for place, adapter in zip(self._places, self.adapters, strict=True):
            joined[place : place + adapter.rank] = adapter.a.detach()
        return LowRank(low_grad, pack_weight(joined, transposed=True), *self._all_pairs)

    def add_dropped_terms(self, grad_x: torch.Tensor, low_grad: torch.Tensor | None, forward: LowPass | None) -> None:
        """Add the gradient through dropped inputs to the input's gradient, in place."""
        if low_grad is None or forward is None or not forward.is_dropped:
            return
        for place, adapter, mask in zip(self._places, self.adapters, forward.masks, strict=True):
            rows = torch.zeros(adapter.rank + adapter.rank % 2, self.weight.shape[1])
            rows[: adapter.rank] = adapter.a.detach()
            low = low_grad[:, place : place + len(rows)]
            if mask is None:
                calls.linear(low, pack_weight(rows, transposed=True), added=grad_x, out=grad_x)
            else:
                term = calls.linear(low, pack_weight(rows, transposed=True))
                calls.drop_rows(term, mask, added_to=grad_x)

    def find_gradients(
        self, x: torch.Tensor | None, grad: torch.Tensor, forward: LowPass | None, low_grad: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return the gradients of `list_trained`, float32.

        Args:
            x: The layer's input; None without adapters.
            grad: The output's gradient.
            forward: Result of `start`.
            low_grad: Result of `start_backward`.
        """
        gradients = []
        if forward is not None and low_grad is not None:
            assert x is not None
            for_a = self._find_a_gradients(x, forward, low_grad)
            for index, (place, adapter) in enumerate(zip(self._places, self.adapters, strict=True)):
                if adapter.a.requires_grad:
                    gradients.append(for_a[index])
                if adapter.b.requires_grad:
                    low = forward.term.low[:, place : place + adapter.rank]
                    span = grad[:, adapter.first_column : adapter.end_column]
                    gradients.append(calls.outer(low, span, factor=adapter.scaling).t())
        return gradients + self.find_bias_gradients(grad)

    def find_bias_gradients(self, grad: torch.Tensor) -> list[torch.Tensor]:
        """Return the gradients of the pieces of the bias that train, float32, from the output's gradient."""
        gradients, first = [], 0
        for piece in self.biases:
            if piece.requires_grad:
                gradients.append(grad[:, first : first + len(piece)].sum(0, dtype=torch.float32))
            first += len(piece)
        return gradients

    def _find_a_gradients(self, x: torch.Tensor, forward: LowPass, low_grad: torch.Tensor) -> list[torch.Tensor]:
        if not forward.is_dropped:
            joined = calls.outer(low_grad[:, : int(self._all_pairs[1][0]) * 2], x)
            return [
                joined[place : place + adapter.rank] for place, adapter in zip(self._places, self.adapters, strict=True)
            ]
        gradients = []
        for place, adapter, mask in zip(self._places, self.adapters, forward.masks, strict=True):
            dropped = x if mask is None else calls.drop_rows(x, mask)
            gradients.append(calls.outer(low_grad[:, place : place + adapter.rank], dropped))
        return gradients


@dataclass(frozen=True, eq=False)
class LowPass:
    """Data that the adapters of a forward pass keep for its backward pass.

    Attributes:
        term: Low-rank term of the forward pass.
        masks: Dropout mask of each adapter's input.
    """

    term: LowRank
    masks: list[Mask | None]

    @property
    def is_dropped(self) -> bool:
        """Whether any adapter's input was dropped."""
        return any(mask is not None for mask in self.masks)


def find_term(low: LowPass | None) -> LowRank | None:
    """Return the low-rank term of a forward pass, if it has one."""
    return None if low is None else low.term
