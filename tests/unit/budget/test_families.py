"""The table of families is the one place that knows them, and its entries are those of the stock classes."""

from __future__ import annotations

import ast
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

import submillion
from submillion.budget.families import (
    FAMILIES,
    Family,
    FusedLayerNames,
    LayerNames,
    PositionBias,
    get_family,
    read_family,
)
from submillion.errors import ModelError
from submillion.model.heads import NATIVE_HEADS

PACKAGE = Path(submillion.__file__).parent
REPOSITORY = PACKAGE.parents[1]
TABLE = PACKAGE / "budget" / "families.py"
SOURCES = sorted(path for root in (PACKAGE, REPOSITORY / "benchmarks") for path in root.rglob("*.py") if path != TABLE)


def find_named_families(source: str) -> list[str]:
    """Return the strings of a program that are names of families, docstrings aside."""
    constants = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return [node.value for node in constants if isinstance(node.value, str) and node.value in {*FAMILIES, "deberta"}]


def test_no_other_module_names_a_family() -> None:
    named = {str(path): find_named_families(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: names for path, names in named.items() if names} == {}
    assert len(SOURCES) > 150


def test_a_named_family_would_be_found() -> None:
    assert find_named_families('if family in {"bert", "mpnet"}:\n    limit = "roberta-base"') == ["bert", "mpnet"]


def build(name: str, kind: Any) -> Any:
    config = AutoConfig.for_model(name, num_labels=3)
    with torch.device("meta"):
        return kind.from_config(config)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_an_entry_is_what_the_stock_classes_are(name: str) -> None:
    family = FAMILIES[name]
    assert family.name == name
    encoder = build(name, AutoModel)
    headed = build(name, AutoModelForSequenceClassification)
    assert headed.base_model_prefix == family.prefix
    headed_modules = dict(headed.named_modules())
    assert family.head_last in headed_modules
    assert family.head_dense is None or isinstance(headed_modules[family.head_dense], torch.nn.Linear)
    assert (f"{family.prefix}.{family.pooler}" in headed_modules) is family.head_reads_pooler
    assert (getattr(encoder, "pooler", None) is not None) is (family.pooler is not None)
    assert ("embeddings.position_embeddings" in dict(encoder.named_modules())) is (family.positions != "rotary")
    if family.kernels:
        layer = encoder.get_submodule(f"{family.layers.stack}.0")
        dropouts = (family.kernels.attention_output_dropout, family.kernels.ffn_output_dropout)
        for part in (f"{family.kernels.attention}.dropout", *(part for part in dropouts if part)):
            assert isinstance(layer.get_submodule(part), torch.nn.Dropout)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_defaults_are_those_of_the_stock_configuration(name: str) -> None:
    family = FAMILIES[name]
    stock = json.loads(AutoConfig.for_model(name).to_json_string(use_diff=False))
    for size, settings in ((f.name, getattr(family.sizes, f.name)) for f in fields(family.sizes)):
        assert stock[settings[0]] == getattr(family.defaults, size)
    assert stock["vocab_size"] == family.defaults.vocabulary
    if family.defaults.types is not None:
        assert stock["type_vocab_size"] == family.defaults.types
    if family.projection and family.projection.width:
        assert stock["embedding_size"] == family.projection.width


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.positions == "table"])
def test_position_ids_of_padding_families_begin_behind_it(name: str, tiny_base: Any) -> None:
    family = FAMILIES[name]
    model = AutoModel.from_pretrained(tiny_base(name), attn_implementation="eager").eval()
    ids = torch.tensor([[7, 8, 9, 10]])
    first = model.config.pad_token_id + 1 if family.counts_from_padding else 0
    table = model.embeddings.position_embeddings.weight
    with torch.no_grad():
        before = model(ids).last_hidden_state
        unused = torch.ones(len(table), dtype=torch.bool)
        unused[first : first + 4] = False
        table[unused] = 1e3
        assert torch.equal(model(ids).last_hidden_state, before)
        table[first] += 1.0
        assert not torch.equal(model(ids).last_hidden_state, before)


def test_every_form_of_head_is_some_familys_and_can_be_computed() -> None:
    assert {family.head for family in FAMILIES.values()} == set(NATIVE_HEADS)


def test_plain_families_are_the_ones_whose_operations_are_counted() -> None:
    plain = {name for name, family in FAMILIES.items() if family.is_plain}
    assert plain == {"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "mpnet"}


def test_families_with_kernels_have_plain_layers() -> None:
    """The kernels compute query, key and value apart, and nothing else in attention."""
    for family in FAMILIES.values():
        assert family.kernels is None or (family.is_plain and family.is_packed)
        assert isinstance(family.layers, (LayerNames, FusedLayerNames))


def test_an_unknown_family_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelError, match="'reformer' are not supported") as caught:
        get_family("reformer")
    assert all(name in caught.value.hint for name in FAMILIES)


def test_a_family_is_read_from_its_model_type() -> None:
    found: Family = read_family({"model_type": "mpnet"})
    assert found.position_bias == PositionBias("encoder.relative_attention_bias")
    with pytest.raises(ModelError, match="cross-attention"):
        read_family({"model_type": "bert", "add_cross_attention": True})
