from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib import resources
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from submillion.budget.count import count_biases, count_encoder, list_linears, list_modules
from submillion.budget.families import FAMILIES
from submillion.budget.head_counts import get_model_prefix, list_head_modules, uses_pooler
from submillion.errors import ModelError

DEBERTA_V3 = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
DEBERTA_OTHER = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "conv_kernel_size": 3,
    "type_vocab_size": 2,
    "embedding_size": 64,
}
MODERNBERT_BIASES = {"norm_bias": True, "mlp_bias": True, "attention_bias": True, "classifier_bias": True}
VARIATIONS: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    ("deberta-v2", DEBERTA_V3),
    ("deberta-v2", DEBERTA_OTHER),
    ("modernbert", MODERNBERT_BIASES),
    ("electra", {"embedding_size": 256}),
    ("albert", {"num_hidden_groups": 2, "inner_group_num": 2}),
    ("distilbert", {"dim": 96, "n_layers": 3, "n_heads": 4, "hidden_dim": 200}),
    ("roberta", {"hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": 1, "type_vocab_size": 1}),
]


def build_stock(family: str, settings: dict[str, Any], *, native: bool) -> Any:
    config = AutoConfig.for_model(family, num_labels=4, **settings)
    with torch.device("meta"):
        if native:
            return AutoModelForSequenceClassification.from_config(config)
        model = AutoModel.from_config(config)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


@pytest.mark.parametrize("full", [False, True], ids=["defaults", "written"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "bare"])
@pytest.mark.parametrize(("family", "settings"), VARIATIONS)
def test_names_and_sizes_are_those_of_the_real_model(
    family: str, settings: dict[str, Any], native: bool, full: bool
) -> None:
    model = build_stock(family, settings, native=native)
    config = json.loads(model.config.to_json_string(use_diff=False)) if full else {"model_type": family, **settings}
    prefix = f"{get_model_prefix(config)}." if native else ""
    listed: dict[str, int] = {}
    for module in list_modules(config, pooler=uses_pooler(config, "native" if native else "linear")):
        listed[f"{prefix}{module.name}.weight"] = module.weight
        if module.bias:
            listed[f"{prefix}{module.name}.bias"] = module.bias
    if native:
        for head in list_head_modules(config, head="native", num_labels=4):
            listed |= {f"{head.name}.{tensor}": math.prod(shape) for tensor, shape in head.tensors}
    assert listed == {name: parameter.numel() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("family", "settings"), VARIATIONS)
def test_linears_have_the_shapes_of_the_real_model(family: str, settings: dict[str, Any]) -> None:
    modules = dict(build_stock(family, settings, native=False).named_modules())
    linears = list_linears({"model_type": family, **settings})
    for linear in linears:
        real = modules[linear.name]
        assert type(real) is torch.nn.Linear
        assert (real.in_features, real.out_features) == (linear.in_features, linear.out_features)
        assert (real.bias is not None) is linear.bias
    inside = {name for name, module in modules.items() if type(module) is torch.nn.Linear and name.count(".") >= 3}
    assert {linear.name for linear in linears} == inside


def load_facts(name: str) -> dict[str, Any]:
    text = (resources.files("submillion.budget") / "configs" / f"{name}.json").read_text()
    facts: dict[str, Any] = json.loads(text)
    return facts


# Parameters of the published checkpoints' encoders, with the pooler where the checkpoint has one.
PUBLISHED = {
    "roberta-base": 124_645_632,
    "roberta-large": 355_359_744,
    "distilroberta-base": 82_118_400,
    "bert-base-uncased": 109_482_240,
    "minilm-l6": 22_713_216,
    "all-mpnet-base-v2": 109_486_464,
    "electra-base-discriminator": 108_891_648,
    "distilbert-base-uncased": 66_362_880,
    "deberta-v3-base": 183_831_552,
    "modernbert-base": 149_014_272,
}


@pytest.mark.parametrize(("name", "total"), PUBLISHED.items())
def test_shipped_facts_give_the_published_totals(name: str, total: int) -> None:
    assert count_encoder(load_facts(name), pooler=True) == total


def test_every_shipped_fact_sheet_is_covered() -> None:
    shipped = {path.name for path in (resources.files("submillion.budget") / "configs").iterdir()}
    assert shipped == {f"{name}.json" for name in (*PUBLISHED, "gpt2")}


def test_roberta_base_by_part() -> None:
    facts = load_facts("roberta-base")
    assert count_encoder(facts) == 124_055_040
    assert count_biases(facts) == 102_144


def test_biases_are_the_parameters_named_bias() -> None:
    for family, settings in VARIATIONS:
        model = build_stock(family, settings, native=False)
        real = sum(p.numel() for name, p in model.named_parameters() if name.endswith(".bias"))
        assert count_biases({"model_type": family, **settings}) == real


def test_mpnets_table_of_relative_biases_is_no_bias() -> None:
    [table] = [m for m in list_modules({"model_type": "mpnet"}) if m.name.endswith("relative_attention_bias")]
    assert (table.weight, table.bias) == (32 * 12, 0)


@pytest.mark.parametrize("model_type", ["gpt2", "t5", None])
def test_an_unknown_family_names_the_supported_ones(model_type: str | None) -> None:
    with pytest.raises(ModelError, match=str(model_type)) as caught:
        count_encoder({"model_type": model_type})
    assert "roberta" in caught.value.hint
    assert "modernbert" in caught.value.hint


@pytest.mark.parametrize(
    "damage",
    [
        {"hidden_size": "768"},
        {"hidden_size": 0},
        {"hidden_size": True},
        {"num_hidden_layers": None},
        {"num_attention_heads": 7},
        {"vocab_size": -1},
        {"intermediate_size": 2.5},
        {"add_cross_attention": True},
    ],
)
def test_a_damaged_configuration_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        count_encoder({"model_type": "bert", **damage})


def test_flags_must_be_flags() -> None:
    with pytest.raises(ModelError, match="norm_bias"):
        count_encoder({"model_type": "modernbert", "norm_bias": "yes"})


def test_planning_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, submillion.budget.plan, submillion.budget.folder, submillion.budget.transfer; "
        "print([m for m in ('torch', 'transformers', 'peft', 'numpy', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
