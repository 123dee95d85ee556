"""Dropout whose masks depend only on (seed, step, record, position, site).

The mask of a record does not change with the records packed beside it, the number of devices or a resume, because every
mask element is a hash of its place. The hash is a multiply-xorshift mix in the manner of Murmur3's finaliser (Appleby
2011) over 32-bit lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from submillion.config.run import ModelConfig
from submillion.encoding.batches import Batch
from submillion.model.untyped import Stock

# Names that families give to the dropout of their encoders, and those that mean the dropout of attention weights.
_ENCODER_DROPOUTS = ("hidden_dropout_prob", "dropout", "embedding_dropout", "mlp_dropout")
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK_64 = (1 << 64) - 1
# Odd 32-bit multipliers as signed integers, since torch has no unsigned product.
_LANE_1 = 0x85EBCA6B - (1 << 32)
_LANE_2 = 0xC2B2AE35 - (1 << 32)
# Distance between the column pairs of attention heads, which exceeds the length of any record.
HEAD_STRIDE = 1 << 16
# Distance between the numbers of a site's masks in one forward pass, which exceeds the number of sites of any model.
_CALL_STRIDE = 1 << 32


def mix_64(value: int) -> int:
    """Return a well-mixed 64-bit hash of a 64-bit integer (the finaliser of splitmix64, Steele et al. 2014)."""
    value = (value + _GOLDEN) & _MASK_64
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK_64
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK_64
    return value ^ (value >> 31)


def _mix_array(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        values = values + np.uint64(_GOLDEN)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(_MIX_1)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(_MIX_2)
        return values ^ (values >> np.uint64(31))


@dataclass
class DropoutState:
    """Keys of the masks in the current forward pass, shared by all sites of a model.

    Attributes:
        token_keys: Shape (N,) packed or (B, T) padded, int32; None outside of training.
        record_keys: Shape (B,), int32.
        step_key: Key of the step, for rows that belong to no record.
        num_calls: Number of masks drawn in this forward pass, by site.
    """

    token_keys: torch.Tensor | None = None
    record_keys: torch.Tensor | None = None
    step_key: int | None = None
    num_calls: dict[int, int] = field(default_factory=dict)

    def set_step(self, batch: Batch, *, seed: int, step: int, device: torch.device | None = None) -> None:
        """Key the next forward pass.

        Args:
            batch: The packed batch. Keys are computed on the CPU, so a batch on a GPU makes this wait for the GPU.
            seed: The run's seed.
            step: The optimizer step that this pass belongs to.
            device: Device of the forward pass; the batch's device if None.
        """
        base = np.uint64(mix_64(mix_64(seed) ^ step))
        records = _mix_array(batch.keys ^ base)
        offsets = batch.offsets.cpu().numpy()
        positions = batch.positions.cpu().numpy().astype(np.uint64)
        filler = np.zeros(len(positions) - offsets[-1], dtype=np.uint64)
        owners = np.concatenate([np.repeat(records, np.diff(offsets)), filler])
        tokens = _mix_array(owners ^ (positions + np.uint64(1)))
        device = batch.input_ids.device if device is None else device
        self.token_keys = _send(_to_lanes(tokens), device)
        self.record_keys = _send(_to_lanes(records), device)
        self.step_key = mix_64(int(base))
        self.num_calls = {}

    def clear(self) -> None:
        """Forget the keys, so that a training forward pass without new ones is an error."""
        self.token_keys = self.record_keys = self.step_key = None

    def make_table_keys(self, num_rows: int, device: torch.device) -> torch.Tensor:
        """Return keys of the rows of a table that all records share, int32 (num_rows,)."""
        if self.step_key is None:
            raise RuntimeError("a training forward pass needs DropoutState.set_step first")
        rows = np.arange(num_rows, dtype=np.uint64)
        return _send(_to_lanes(_mix_array(rows ^ np.uint64(self.step_key))), device)

    @contextmanager
    def replaying(self, num_calls: Mapping[int, int]) -> Iterator[None]:
        """Draw the masks of a forward pass again, from the point where `num_calls` was copied from the attribute."""
        before, self.num_calls = self.num_calls, dict(num_calls)
        try:
            yield
        finally:
            self.num_calls = before

    def find_site(self, site: int) -> int:
        """Return a site's number for its next mask of this forward pass.

        RoBERTa's head applies one dropout module twice and ALBERT's layers share theirs, so each use has its own mask.
        """
        call = self.num_calls.get(site, 0)
        self.num_calls[site] = call + 1
        return site + call * _CALL_STRIDE


def _to_lanes(keys: NDArray[np.uint64]) -> torch.Tensor:
    return torch.from_numpy((keys >> np.uint64(32)).astype(np.uint32).view(np.int32))


def _send(keys: torch.Tensor, device: torch.device) -> torch.Tensor:
    # A copy from pinned memory is queued behind the GPU's other work; without pinning, the CPU would wait for it.
    return keys.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else keys


def column_keys(pairs: torch.Tensor, site: int) -> torch.Tensor:
    """Return int32 keys for pairs of neighbouring columns of a site, in the shape of `pairs`."""
    offset = mix_64(site) & 0x7FFFFFFF
    keys = pairs.to(torch.int32) * 0x27D4EB2F + offset
    keys ^= keys >> 15
    keys *= _LANE_2
    return keys


def keep_mask(row_keys: torch.Tensor, pair_keys: torch.Tensor, width: int, probability: float) -> torch.Tensor:
    """Return the boolean keep mask of a site; one hash serves two neighbouring columns with 16 bits each.

    Args:
        row_keys: Keys of the rows, int32, shape (..., 1).
        pair_keys: `column_keys` of the pairs of columns, int32, shape (..., ceil(width / 2)).
        width: Number of columns.
        probability: Share of elements dropped, in [0, 1); rounded to 1/65536.
    """
    lanes = row_keys ^ pair_keys
    lanes *= _LANE_1
    lanes ^= lanes >> 13
    lanes *= _LANE_2
    # Products mix bits upwards only, so the well-mixed high half is mixed into the low half.
    lanes ^= (lanes >> 16) & 0xFFFF
    # The values are uniform over the signed 16-bit range, and the lowest share of it is dropped.
    return lanes.view(torch.int16)[..., :width] >= round(probability * 65536) - 32768


def drop(x: torch.Tensor, mask: torch.Tensor, probability: float) -> torch.Tensor:
    """Return `x` with dropped elements zero and the others divided by the keep probability, in `x`'s dtype."""
    # The mask is cast first: a product of bfloat16 and bool takes torch's slow path on CPUs, some 20 times slower.
    return (x * mask.to(x.dtype)).mul_(1.0 / (1.0 - probability))


class KeyedDropout(nn.Module):
    """Replacement of `nn.Dropout` at one site of a model.

    Args:
        probability: Share of elements dropped, in [0, 1).
        state: The model's shared keys.
        site: Number of this site; each site draws its own masks.
        per_record: Whether rows are records (a head's site) or tokens (an encoder's).
    """

    def __init__(self, probability: float, state: DropoutState, site: int, *, per_record: bool) -> None:
        super().__init__()
        self.p = probability
        self.state = state
        self.site = site
        self.per_record = per_record

    def mask(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return the keep mask for rows of `x`, or None if nothing is dropped.

        Args:
            x: Shape (..., H), where the leading axes are all tokens or all records. It may also be a table of shape
                (rows, H) or (1, rows, H) that all records share, such as DeBERTa's embeddings of relative positions. On
                the padded path, attention probabilities have shape (B, heads, T, T).
        """
        if not self.training or self.p == 0.0:
            return None
        keys = self.state.record_keys if self.per_record else self.state.token_keys
        if keys is None:
            raise RuntimeError("a training forward pass needs DropoutState.set_step first")
        site = self.state.find_site(self.site)
        if x.dim() == 4 and keys.dim() == 2:
            return attention_keep_mask(keys, x.shape[1], site, self.p)
        if not self.per_record and x.shape[:-1] not in {keys.shape, (1, *keys.shape)}:
            keys = self.state.make_table_keys(x.shape[-2], x.device)
        width = x.shape[-1]
        pairs = column_keys(torch.arange((width + 1) // 2, device=x.device), site)
        return keep_mask(keys.reshape(*x.shape[:-1], 1), pairs, width, self.p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` with dropped elements zero and the others divided by the keep probability."""
        mask = self.mask(x)
        return x if mask is None else drop(x, mask, self.p)

    def extra_repr(self) -> str:
        """Show the probability and the site."""
        return f"p={self.p}, site={self.site}"


def attention_keep_mask(token_keys: torch.Tensor, num_heads: int, site: int, probability: float) -> torch.Tensor:
    """Return the keep mask of attention probabilities.

    Args:
        token_keys: Keys of the query tokens, int32, shape (B, T).
        num_heads: Number of heads.
        site: Number of the site.
        probability: Share of elements dropped, in [0, 1).

    Returns:
        Shape (B, heads, T, T), bool. A record's mask does not depend on T.
    """
    length = token_keys.shape[1]
    device = token_keys.device
    heads = torch.arange(num_heads, device=device, dtype=torch.int32) * HEAD_STRIDE
    pairs = heads[:, None] + torch.arange((length + 1) // 2, device=device, dtype=torch.int32)[None, :]
    pair_keys = column_keys(pairs, site)[None, :, None, :]
    return keep_mask(token_keys[:, None, :, None], pair_keys, length, probability)


def replace_dropout(module: nn.Module, state: DropoutState, *, head_roots: frozenset[str]) -> None:
    """Replace every `nn.Dropout` inside a module by a keyed one, numbered in traversal order.

    Args:
        module: The model.
        state: The keys that all sites share.
        head_roots: Names of the children whose rows are records; the rows of all others are tokens.
    """
    site = 0
    for name, parent in list(module.named_modules()):
        for child_name, leaf in list(parent.named_children()):
            if type(leaf) is nn.Dropout:
                site += 1
                root = (f"{name}.{child_name}" if name else child_name).split(".", 1)[0]
                keyed = KeyedDropout(leaf.p, state, site, per_record=root in head_roots)
                keyed.train(parent.training)
                # Every container reads this slot, whether it is a plain module, a dict or a list.
                parent._modules[child_name] = keyed


def set_probabilities(config: Stock, model: ModelConfig) -> None:
    """Set the encoder dropout that a run asks for in a stock model's configuration, and keep the head's.

    Args:
        config: Configuration of the stock model, which is changed in place.
        model: Settings of the model: ``dropout`` is for the whole encoder, ``attention_dropout`` for attention weights.
    """
    if model.dropout is not None and getattr(config, "classifier_dropout", 0.0) is None:
        # The head's dropout defaults to the encoder's; only the encoder's is overridden.
        config.classifier_dropout = config.hidden_dropout_prob
    attention = model.dropout if model.attention_dropout is None else model.attention_dropout
    for names, probability in ((_ENCODER_DROPOUTS, model.dropout), (_ATTENTION_DROPOUTS, attention)):
        for name in names:
            if probability is not None and hasattr(config, name):
                setattr(config, name, probability)
