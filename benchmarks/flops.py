"""Floating-point operations of an encoder's linear layers and attention for real tokens, by pure functions.

The formula, with N tokens, sum(T^2) over the records' lengths T, and H the width of attention:

- a linear layer: 2 N in out forward, and the same again if its input needs a gradient. Frozen weights need no
  gradients. An input needs a gradient if something trainable comes before it, so there is none at or below the first
  trainable layer.
- a low-rank update: 6 N R (in + out) in training (2 forward, 2 for the gradients of A and B, 2 for the input's
  gradient), and nothing in scoring, since it is merged into its layer.
- attention: 4 sum(T^2) H forward (scores, and weights times values), and twice that backward if its queries, keys or
  values need a gradient.

Embeddings, norms, activations, softmax, the head, the optimizer and padding are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from submillion.budget.count import Linear
from submillion.budget.families import FAMILIES
from submillion.errors import ModelError

COUNTED_FAMILIES = tuple(sorted(name for name, family in FAMILIES.items() if family.is_plain))
"""Families in which every layer attends to whole records and has each linear layer of `_STAGES` once."""

# The order of computation in a layer; the parts of one stage read the same input.
_STAGES: Mapping[str, int] = {"query": 0, "key": 0, "value": 0, "attention_output": 1, "ffn_in": 2, "ffn_out": 3}


@dataclass(frozen=True)
class Lengths:
    """Facts about records for the count: their tokens, and the squares of their lengths.

    Attributes:
        num_tokens: Sum of T.
        num_squares: Sum of T^2.
    """

    num_tokens: int = 0
    num_squares: int = 0

    @classmethod
    def of(cls, lengths: Iterable[int]) -> Lengths:
        """Sum up the lengths of records, with special tokens but without padding."""
        listed = [int(length) for length in lengths]
        return cls(sum(listed), sum(length * length for length in listed))

    def __add__(self, other: Lengths) -> Lengths:
        return Lengths(self.num_tokens + other.num_tokens, self.num_squares + other.num_squares)


@dataclass(frozen=True)
class EncoderFlops:
    """A counter of the operations of one encoder.

    Attributes:
        linears: Linear layers of the encoder.
        ranks: Rank of each adapted layer, by (layer, kind); empty if nothing is trained.
    """

    linears: tuple[Linear, ...]
    ranks: Mapping[tuple[int, str], int]

    def count_forward(self, lengths: Lengths) -> int:
        """Return the operations of one forward pass with merged adapters."""
        return self._count_linears(self.linears, lengths) + self._count_attention(range(self.num_layers), lengths)

    def count_training(self, lengths: Lengths) -> int:
        """Return the operations of one forward and backward pass.

        Raises:
            ModelError: Nothing is trained in the encoder.
        """
        if not self.ranks:
            raise ModelError("no linear layer of the encoder is trained, so there is no backward pass to count")
        first = min((layer, _STAGES[kind]) for layer, kind in self.ranks)
        with_gradient = [linear for linear in self.linears if (linear.layer, _STAGES[linear.kind]) > first]
        attending = [layer for layer in range(self.num_layers) if (layer, 0) >= first]
        adapted = (linear for linear in self.linears if (linear.layer, linear.kind) in self.ranks)
        low_rank = sum(
            6 * lengths.num_tokens * self.ranks[linear.layer, linear.kind] * (linear.in_features + linear.out_features)
            for linear in adapted
        )
        backward = self._count_linears(with_gradient, lengths) + 2 * self._count_attention(attending, lengths)
        return self.count_forward(lengths) + backward + low_rank

    @property
    def num_layers(self) -> int:
        """Number of transformer layers."""
        return 1 + max(linear.layer for linear in self.linears)

    @staticmethod
    def _count_linears(linears: Iterable[Linear], lengths: Lengths) -> int:
        return sum(2 * lengths.num_tokens * linear.in_features * linear.out_features for linear in linears)

    def _count_attention(self, layers: Sequence[int], lengths: Lengths) -> int:
        width = next(linear.out_features for linear in self.linears if linear.kind == "query")
        return len(layers) * 4 * lengths.num_squares * width


def open_flops(family: str, linears: Sequence[Linear], ranks: Mapping[tuple[int, str], int]) -> EncoderFlops:
    """Return the counter of an encoder.

    Args:
        family: ``model_type`` of the encoder.
        linears: Linear layers from `submillion.budget.count.list_linears`.
        ranks: Rank of each adapted layer, by (layer, kind).

    Raises:
        ModelError: The formula does not hold for this family.
    """
    if family not in COUNTED_FAMILIES:
        raise ModelError(
            f"the operations of {family!r} encoders are not counted",
            hint=f"bench knows these families: {', '.join(COUNTED_FAMILIES)}.",
        )
    return EncoderFlops(tuple(linear for linear in linears if linear.kind in _STAGES), dict(ranks))
