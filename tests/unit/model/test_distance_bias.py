"""Biases by distance: T5's buckets, spread over pairs of tokens as MPNet's stock encoder spreads them."""

from __future__ import annotations

import pytest
import torch
from transformers import MPNetConfig
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from submillion.errors import ModelError
from submillion.model.distance_bias import read_distance_bias

HEADS, POSITIONS = 4, 514


def make_config(heads: int = HEADS) -> MPNetConfig:
    return MPNetConfig(hidden_size=32, num_attention_heads=heads, num_hidden_layers=1, intermediate_size=32)


def make_encoder() -> MPNetEncoder:
    encoder = MPNetEncoder(make_config())
    with torch.no_grad():
        encoder.relative_attention_bias.weight.normal_(generator=torch.Generator().manual_seed(0))
    return encoder


@pytest.mark.parametrize("length", [1, 2, 9, 130, 512])
def test_every_pair_gets_the_stock_models_bias(length: int) -> None:
    encoder = make_encoder()
    wanted = encoder.compute_position_bias(torch.zeros(1, length, 1))[0]
    bias = read_distance_bias(encoder.config, encoder.relative_attention_bias.weight, num_positions=POSITIONS)
    assert torch.equal(bias.spread(length), wanted)


def test_the_kernels_table_is_the_same_by_query_minus_key() -> None:
    encoder = make_encoder()
    bias = read_distance_bias(encoder.config, encoder.relative_attention_bias.weight, num_positions=POSITIONS)
    table, spread = bias.table, bias.spread(40)
    for query, key in ((0, 39), (39, 0), (7, 7), (12, 30)):
        entry = table.entries[:, table.centre + query - key]
        torch.testing.assert_close(entry, spread[:, query, key] * 1.4426950408889634)


def test_records_beyond_the_table_are_refused() -> None:
    encoder = make_encoder()
    bias = read_distance_bias(encoder.config, encoder.relative_attention_bias.weight, num_positions=34)
    assert bias.spread(32).shape == (HEADS, 32, 32)
    with pytest.raises(ModelError, match="33 tokens"):
        bias.spread(33)


@pytest.mark.parametrize("shape", [(16, HEADS), (32, 2)])
def test_a_table_of_another_size_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match="attention biases"):
        read_distance_bias(make_config(), torch.zeros(shape), num_positions=POSITIONS)
