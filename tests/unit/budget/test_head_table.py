from __future__ import annotations

from typing import Any

import pytest

from submillion.budget.families import FAMILIES
from submillion.budget.head_counts import get_model_prefix, list_head_modules, uses_pooler
from submillion.errors import ModelError

# Trained parameters of the stock head at hidden size 768 and four classes, computed by hand.
DENSE, OUT = 768 * 768 + 768, 768 * 4 + 4
TRAINED = {
    "roberta": DENSE + OUT,
    "electra": DENSE + OUT,
    "mpnet": DENSE + OUT,
    "distilbert": DENSE + OUT,
    "deberta-v2": DENSE + OUT,
    "bert": OUT,
    "albert": OUT,
    "modernbert": OUT,
}


@pytest.mark.parametrize(("family", "params"), TRAINED.items())
def test_native_heads_train_what_no_checkpoint_provides(family: str, params: int) -> None:
    width = "dim" if family == "distilbert" else "hidden_size"
    modules = list_head_modules({"model_type": family, width: 768}, head="native", num_labels=4)
    assert sum(module.params for module in modules if not module.provided) == params


def test_only_bert_and_albert_read_the_encoders_pooler() -> None:
    native = {family for family in FAMILIES if uses_pooler({"model_type": family}, "native")}
    assert native == {"bert", "albert"}
    assert not any(uses_pooler({"model_type": family}, "linear") for family in FAMILIES)


def test_modernberts_provided_modules_stay_frozen() -> None:
    config = {"model_type": "modernbert", "norm_bias": True}
    dense, norm, classifier = list_head_modules(config, head="native", num_labels=3)
    assert (dense.name, dense.provided, dense.params) == ("head.dense", True, 768 * 768)
    assert (norm.name, norm.provided, norm.params, norm.num_biases) == ("head.norm", True, 2 * 768, 768)
    assert (classifier.name, classifier.provided) == ("classifier", False)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_linear_head_is_one_layer(family: str) -> None:
    width = "dim" if family == "distilbert" else "hidden_size"
    [head] = list_head_modules({"model_type": family, width: 384}, head="linear", num_labels=4)
    assert head.name == "head"
    assert dict(head.tensors) == {"weight": (4, 384), "bias": (4,)}
    assert not head.provided


def test_another_pooler_width_than_the_encoders_is_refused() -> None:
    config: dict[str, Any] = {"model_type": "deberta-v2", "pooler_hidden_size": 100}
    with pytest.raises(ModelError, match="pooler_hidden_size"):
        list_head_modules(config, head="native", num_labels=2)


def test_prefixes_of_stock_models() -> None:
    assert get_model_prefix({"model_type": "xlm-roberta"}) == "roberta"
    assert get_model_prefix({"model_type": "modernbert"}) == "model"
