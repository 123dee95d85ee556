"""Each kernel against the same formula in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from submillion.encoding.batches import pack
from submillion.errors import ModelError
from submillion.kernels import calls
from submillion.kernels.attention import AttentionCall, attend, attend_backward
from submillion.kernels.calls import Mask, Norm
from submillion.kernels.native import find_kernels
from submillion.kernels.weights import LowRank, find_panel_ranks, pack_weight, quantise_weight
from submillion.model.distance_bias import DistanceBias
from submillion.model.dropout import DropoutState, KeyedDropout, column_keys

pytestmark = pytest.mark.skipif(
    find_kernels().library is None, reason=f"the CPU kernels do not run here: {find_kernels().reason}"
)
# Fewer rows than a tile, whole tiles, a row more than a block, and shares of several blocks a thread.
ROWS = (1, 5, 6, 7, 97, 400)
# One to four registers, a whole panel and a part of the next.
COLUMNS = (32, 48, 64, 96, 160)


def random(*shape: int, seed: int = 0, std: float = 1.0) -> torch.Tensor:
    return std * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def is_close(result: torch.Tensor, wanted: torch.Tensor, *, steps: float = 1.0) -> bool:
    """Whether bfloat16 results are the rounded ones, or next to them, up to float32's own sums."""
    allowed = steps * 2**-8 * wanted.abs() + 1e-5 * wanted.abs().max()
    return bool(((result.double() - wanted).abs() <= allowed).all())


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_linear(num_rows: int, columns: int) -> None:
    x, weight = random(num_rows, 64).bfloat16(), random(columns, 64, seed=1).bfloat16()
    bias, added = random(columns, seed=2), random(num_rows, columns, seed=3).bfloat16()
    wanted = x.double() @ weight.double().t()
    assert is_close(calls.linear(x, pack_weight(weight)), wanted)
    both = calls.linear(x, pack_weight(weight), bias=bias, added=added)
    assert is_close(both, wanted + bias.double() + added.double())


def test_linear_of_slices_and_transposes() -> None:
    wide, weight = random(50, 96).bfloat16(), random(64, 32, seed=1).bfloat16()
    x, out = wide[:, 64:], torch.zeros(50, 128, dtype=torch.bfloat16)
    calls.linear(x, pack_weight(weight), out=out[:, 64:])
    assert is_close(out[:, 64:], x.double() @ weight.double().t())
    assert not out[:, :64].any()
    y = wide[:, :64]
    assert is_close(calls.linear(y, pack_weight(weight, transposed=True)), y.double() @ weight.double())


@pytest.mark.parametrize("spans", [[(0, 64, 0, 3)], [(0, 32, 0, 5), (32, 96, 6, 2)], [(96, 160, 0, 16)]])
def test_low_rank_terms_reach_their_columns(spans: list[tuple[int, int, int, int]]) -> None:
    columns, ranks = 160, 16
    x, weight = random(40, 64).bfloat16(), random(columns, 64, seed=1).bfloat16()
    low, raised = random(40, ranks, seed=2).bfloat16(), torch.zeros(ranks, columns)
    for first, end, rank, count in spans:
        raised[rank : rank + count, first:end] = random(count, end - first, seed=3)
    term = LowRank(low, pack_weight(raised, transposed=True), *find_panel_ranks(spans, columns))
    wanted = x.double() @ weight.double().t() + low.double() @ raised.bfloat16().double()
    assert is_close(calls.linear(x, pack_weight(weight), low_rank=term), wanted)


def test_gelu_and_its_derivative() -> None:
    x = torch.linspace(-12, 12, 32 * 500).reshape(-1, 32).bfloat16()
    identity = pack_weight(torch.eye(32).bfloat16())
    result, slope = calls.linear_gelu(x, identity, torch.zeros(32), keep_slope=True)
    exact = x.double().requires_grad_()
    wanted = torch.nn.functional.gelu(exact)
    wanted.sum().backward()
    assert slope is not None
    assert exact.grad is not None
    # Half a step of bfloat16, and the approximations' own errors.
    assert ((result.double() - wanted).abs() <= 2**-8 * wanted.abs() + 2e-5).all()
    assert ((slope.double() - exact.grad).abs() <= 2**-8 * exact.grad.abs() + 2e-4).all()
    alone, none = calls.linear_gelu(x, identity, torch.zeros(32), keep_slope=False)
    assert none is None
    assert ((alone.double() - wanted).abs() <= 2**-8 * wanted.abs() + 2e-5).all()


def test_norm_and_its_gradient() -> None:
    x, weight, residual = random(97, 64).bfloat16(), random(96, 64, seed=1).bfloat16(), random(97, 96, seed=2)
    norm = Norm(random(96, seed=3), random(96, seed=4), 1e-5)
    bias = random(96, seed=5)
    result = calls.linear_norm(
        x, pack_weight(weight), bias=bias, residual=residual.bfloat16(), norm=norm, keep_normalised=True
    )
    z = (x.double() @ weight.double().t() + bias.double()).requires_grad_()
    wanted = torch.nn.functional.layer_norm(
        z + residual.bfloat16().double(), (96,), norm.weight.double(), norm.bias.double(), 1e-5
    )
    assert ((result.out.double() - wanted).abs() <= 2**-8 * wanted.abs() + 1e-4).all()
    grad = random(97, 96, seed=6).bfloat16()
    wanted.backward(grad.double())
    ours, same = calls.norm_backward(grad, result, norm, None)
    assert same is ours
    assert z.grad is not None
    assert (ours.double() - z.grad).norm() <= 5e-3 * z.grad.norm()


def make_mask(num_rows: int, width: int, probability: float) -> tuple[Mask, KeyedDropout]:
    from tests.tiny_classifiers import make_features

    state = DropoutState()
    state.set_step(pack(make_features((num_rows,))), seed=1, step=2)
    dropout = KeyedDropout(probability, state, 7, per_record=False).train()
    assert state.token_keys is not None
    return Mask(state.token_keys, column_keys(torch.arange(width // 2), 7), probability), dropout


def test_masks_are_those_of_keyed_dropout() -> None:
    mask, dropout = make_mask(60, 96, 0.3)
    x = random(len(mask.row_keys), 96).bfloat16()
    kept = dropout.mask(x)
    assert kept is not None
    ours = calls.drop_rows(x, mask)
    assert torch.equal(ours != 0, kept & (x != 0))
    assert is_close(ours, torch.where(kept, x.double() / 0.7, 0.0))
    added = calls.drop_rows(x, mask, added_to=x.clone())
    assert is_close(added, x.double() + torch.where(kept, x.double() / 0.7, 0.0))


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("ranks", [1, 8, 19])
def test_outer(num_rows: int, ranks: int) -> None:
    left, right = random(num_rows, 32).bfloat16(), random(num_rows, 128, seed=1).bfloat16()
    result = calls.outer(left[:, 2 : 2 + ranks], right[:, 32:96], factor=0.5)
    wanted = 0.5 * left[:, 2 : 2 + ranks].double().t() @ right[:, 32:96].double()
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), wanted, rtol=1e-4, atol=1e-3)


def attend_exactly(qkv: torch.Tensor, bias: DistanceBias | None) -> torch.Tensor:
    """Attend within one record by torch: q, k, v (N, 3, A, D) to (N, A, D)."""
    q, k, v = qkv.permute(1, 2, 0, 3)
    added = None if bias is None else bias.spread(len(qkv)).double()
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=added).transpose(0, 1)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("reach", [None, 131, 200])
def test_attention_and_its_gradient(size: int, reach: int | None) -> None:
    lengths, num_heads = (1, 2, 17, 64, 65, 131), 2
    bias = None if reach is None else DistanceBias(random(num_heads, 2 * reach - 1, seed=2, std=2.0), reach)
    table = None if bias is None else bias.table
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    hidden = num_heads * size
    qkv = random(int(offsets[-1]), 3 * hidden, std=0.7).bfloat16()
    sums = torch.empty(2, num_heads, len(qkv))
    call = AttentionCall(qkv, num_heads, size**-0.5, offsets, None, sums[0], sums[1], table)
    out = attend(call)
    exact = qkv.double().requires_grad_()
    wanted = torch.cat(
        [
            attend_exactly(part.view(len(part), 3, num_heads, size), bias).reshape(len(part), hidden)
            for part in exact.split(list(lengths))
        ]
    )
    assert (out.double() - wanted).norm() <= 5e-3 * wanted.norm()
    grad = random(*out.shape, seed=1).bfloat16()
    wanted.backward(grad.double())
    ours = attend_backward(call, out, grad)
    assert exact.grad is not None
    for part, whole in zip(ours.double().split(hidden, 1), exact.grad.split(hidden, 1), strict=True):
        assert (part - whole).norm() <= 1e-2 * whole.norm()


def test_large_scores_do_not_overflow() -> None:
    qkv = (40.0 * random(33, 3 * 32)).bfloat16()
    offsets = torch.tensor([0, 33])
    out = attend(AttentionCall(qkv, 1, 1.0, offsets, None, None, None))
    q, k, v = qkv.double().split(32, 1)
    assert torch.isfinite(out).all()
    assert (out.double() - torch.softmax(q @ k.t(), 1) @ v).norm() <= 1e-2 * v.norm()


@pytest.mark.parametrize("num_rows", ROWS)
def test_int8_rounds_rows_by_their_own_range(num_rows: int) -> None:
    x = (random(num_rows, 64) * torch.logspace(-3, 3, num_rows)[:, None] + 0.1).bfloat16()
    weight, bias = random(160, 64, seed=1), torch.zeros(160)
    wanted = x.double() @ weight.double().t()
    result = calls.linear(x, quantise_weight(weight), bias=bias).double()
    # Rows differ by a factor of a million; each keeps its own precision.
    assert ((result - wanted).norm(dim=1) <= 0.02 * wanted.norm(dim=1)).all()


def test_int8_of_rows_of_zeros_is_the_bias() -> None:
    bias = random(64)
    result = calls.linear(torch.zeros(7, 32).bfloat16(), quantise_weight(random(64, 32)), bias=bias)
    assert torch.equal(result, bias.bfloat16().expand(7, 64))


@pytest.mark.parametrize("is_int8", [False, True])
def test_the_joint_feed_forward_is_its_parts(is_int8: bool) -> None:
    x, norm = random(200, 64).bfloat16(), Norm(torch.ones(64), torch.zeros(64), 1e-12)
    w_in, w_out = random(96, 64, seed=1, std=0.1), random(64, 96, seed=2, std=0.1)
    b_in, b_out = random(96, seed=3), random(64, seed=4)
    inside = torch.nn.functional.gelu(x.double() @ w_in.double().t() + b_in.double())
    wanted = torch.nn.functional.layer_norm(inside @ w_out.double().t() + b_out.double() + x.double(), (64,))
    if is_int8:
        out = calls.int8_ffn_norm(
            x, quantise_weight(w_in), quantise_weight(w_out), bias_in=b_in, bias_out=b_out, norm=norm
        )
    else:
        packed = pack_weight(w_in.bfloat16()), pack_weight(w_out.bfloat16())
        out = calls.ffn_norm(x, *packed, bias_in=b_in, bias_out=b_out, norm=norm)[0].out
    assert (out.double() - wanted).norm() <= 0.01 * wanted.norm()


@pytest.mark.parametrize("bad", [-1, 50])
def test_ids_beyond_their_table_are_refused(bad: int) -> None:
    norm = Norm(torch.ones(32), torch.zeros(32), 1e-12)
    tables: dict[str, Any] = {"words": random(50, 32).bfloat16(), "places": random(9, 32), "norm": norm}
    fine = torch.tensor([0, 8])
    assert calls.embed(fine, fine, **tables).shape == (2, 32)
    with pytest.raises(ModelError, match="token ids reach"):
        calls.embed(torch.tensor([bad, 3]), fine, **tables)
    with pytest.raises(ModelError, match="position ids reach"):
        calls.embed(fine, torch.tensor([bad, 3]), **tables)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, weight = random(301, 64).bfloat16(), pack_weight(random(64, 64, seed=1).bfloat16())
    threads = torch.get_num_threads()
    wanted = calls.linear(x, weight)
    try:
        torch.set_num_threads(3)
        assert torch.equal(calls.linear(x, weight), wanted)
        left = x[:, :8]
        more = calls.outer(left, x)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(calls.outer(left, x), more, rtol=1e-4, atol=1e-3)
    assert math.isfinite(float(more.sum()))
