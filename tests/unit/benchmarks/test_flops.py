"""The count of operations: against a hand's, and against what torch counts while a stock model runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from benchmarks.flops import EncoderFlops, Lengths, open_flops
from submillion.budget.count import Linear, list_linears
from submillion.errors import ModelError
from submillion.model.sources import load_base_config

# Two layers of width 32 with 64 inside, as the tiny base models have.
PER_LAYER = 4 * 32 * 32 + 2 * 32 * 64
LENGTHS = Lengths.of([3, 5])
# Of peft's own making, inside transformers.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
QKV = ("query", "key", "value")


def make_linears() -> list[Linear]:
    sizes = {"query": (32, 32), "key": (32, 32), "value": (32, 32), "attention_output": (32, 32)}
    sizes |= {"ffn_in": (32, 64), "ffn_out": (64, 32)}
    return [
        Linear(f"{layer}.{kind}", kind, layer, *shape, bias=True) for layer in range(2) for kind, shape in sizes.items()
    ]


def open_counter(*adapted: tuple[int, str]) -> EncoderFlops:
    return open_flops("bert", make_linears(), dict.fromkeys(adapted, 4))


def test_lengths_are_summed_with_their_squares() -> None:
    assert Lengths(8, 34) == LENGTHS
    assert LENGTHS + Lengths.of([2]) == Lengths(10, 38)


def test_forward_is_as_counted_by_hand() -> None:
    assert open_counter().count_forward(LENGTHS) == 2 * (2 * 8 * PER_LAYER + 4 * 34 * 32)


def test_training_from_the_first_layer_is_as_counted_by_hand() -> None:
    forward = 2 * (2 * 8 * PER_LAYER + 4 * 34 * 32)
    # No gradient of the first layer's input: nothing below its query, key and value.
    backward = 2 * 8 * (2 * PER_LAYER - 3 * 32 * 32) + 2 * 8 * 34 * 32
    low_rank = 2 * 6 * 8 * 4 * (32 + 32)
    counter = open_counter((0, "query"), (1, "value"))
    assert counter.count_training(LENGTHS) == forward + backward + low_rank


def test_nothing_below_the_first_trainable_layer_goes_backward() -> None:
    counter = open_counter((1, "ffn_in"))
    # Only ffn_out comes after it; neither attention has a gradient.
    backward = 2 * 8 * 64 * 32
    assert counter.count_training(LENGTHS) - counter.count_forward(LENGTHS) == backward + 6 * 8 * 4 * (32 + 64)


def test_attention_goes_backward_where_it_stands_behind() -> None:
    squares = Lengths(0, 1)  # leaves attention alone to be counted
    assert open_counter((0, "attention_output")).count_training(squares) == 2 * 4 * 32 + 8 * 32
    assert open_counter((0, "query")).count_training(squares) == 2 * 4 * 32 + 2 * 8 * 32


def test_what_is_not_counted_is_refused() -> None:
    with pytest.raises(ModelError, match="'modernbert' encoders are not counted"):
        open_flops("modernbert", make_linears(), {})
    with pytest.raises(ModelError, match="no backward pass"):
        open_counter().count_training(LENGTHS)


@pytest.fixture
def count_by_torch(tiny_base: Callable[[str], Path]) -> Callable[..., tuple[EncoderFlops, int, int]]:
    """Return `count(family, kinds) -> (our counter, torch's count forward, torch's count of a training pass)`."""

    def count(family: str, targets: Sequence[str]) -> tuple[EncoderFlops, int, int]:
        config = load_base_config(str(tiny_base(family)))
        linears = list_linears(config)
        names = [linear.name for linear in linears if linear.kind in targets]
        encoder: Any = AutoModel.from_pretrained(
            tiny_base(family), attn_implementation="eager", add_pooling_layer=False
        ).train(False)
        adapted: Any = peft.get_peft_model(encoder, peft.LoraConfig(r=4, target_modules=names))
        ids = torch.randint(5, 90, (3, 17))
        with torch.no_grad(), adapted.disable_adapter(), FlopCounterMode(display=False) as forward:
            adapted(input_ids=ids, attention_mask=torch.ones_like(ids))
        with FlopCounterMode(display=False) as training:
            adapted(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.sum().backward()
        ranks = {(linear.layer, linear.kind): 4 for linear in linears if linear.kind in targets}
        return open_flops(family, linears, ranks), forward.get_total_flops(), training.get_total_flops()

    return count


EQUAL = Lengths.of([17, 17, 17])


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_forward_is_what_torch_counts_on_the_stock_model(
    family: str, count_by_torch: Callable[..., tuple[EncoderFlops, int, int]]
) -> None:
    counter, forward, _ = count_by_torch(family, QKV)
    assert counter.count_forward(EQUAL) == forward


def test_training_is_what_torch_counts_but_for_the_first_input(
    count_by_torch: Callable[..., tuple[EncoderFlops, int, int]],
) -> None:
    counter, _, training = count_by_torch("bert", QKV)
    # 6 N R (in + out) includes the gradient of each adapter's input, which the first layer's three do not need.
    spared = 3 * 2 * EQUAL.num_tokens * 4 * 32
    assert counter.count_training(EQUAL) - training == spared


def test_a_frozen_key_spares_the_first_layer_one_product_more(
    count_by_torch: Callable[..., tuple[EncoderFlops, int, int]],
) -> None:
    counter, _, training = count_by_torch("bert", ("query", "value"))
    spared = 2 * 2 * EQUAL.num_tokens * 4 * 32 + 2 * EQUAL.num_squares * 32
    assert counter.count_training(EQUAL) - training == spared
