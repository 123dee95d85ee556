"""PEFT realises the plan after injection, family by family."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib import resources
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from submillion.budget.head_counts import HeadKind
from submillion.budget.plan import Plan, make_plan
from submillion.config.run import AdapterConfig, ModelConfig
from tests.trained_biases import list_trained_biases

# PEFT still asks transformers by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 60}
DEBERTA = {"relative_attention": True, "position_buckets": 8, "share_att_key": True, "pos_att_type": ["p2c", "c2p"]}
TINY: dict[str, dict[str, Any]] = {
    "roberta": SIZES,
    "bert": SIZES,
    "distilbert": {"dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 40, "vocab_size": 60},
    "deberta-v2": {**SIZES, **DEBERTA, "norm_rel_ebd": "layer_norm", "position_biased_input": False},
    "modernbert": {**SIZES, "attention_bias": True, "norm_bias": True, "pad_token_id": 0},
    "electra": {**SIZES, "embedding_size": 24},
    "mpnet": SIZES,
    "albert": {**SIZES, "embedding_size": 16},
    "xlm-roberta": SIZES,
}
FULL = (
    "roberta-base",
    "bert-base-uncased",
    "distilbert-base-uncased",
    "deberta-v3-base",
    "modernbert-base",
    "electra-base-discriminator",
)


class LinearHeaded(nn.Module):
    """An encoder under bare names with a head beside it."""

    def __init__(self, encoder: nn.Module, num_labels: int, hidden_size: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(hidden_size, num_labels)

    def count(self, *, trainable: bool) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)


def realise(config: dict[str, Any], plan: Plan, *, device: str) -> tuple[int, int, peft.PeftModel]:
    """Inject a plan with PEFT alone; return trainable and all parameters, as PEFT counts them."""
    settings = {key: value for key, value in config.items() if key != "model_type"}
    stock = AutoConfig.for_model(config["model_type"], num_labels=plan.num_labels, **settings)
    [(rank, _)] = Counter(module.rank for module in plan.modules).most_common(1)
    lora = peft.LoraConfig(
        r=rank,
        target_modules=[module.name for module in plan.modules],
        rank_pattern={f"^{re.escape(m.name)}": m.rank for m in plan.modules if m.rank != rank},
        bias=plan.bias,
        use_dora=plan.variant == "dora",
        use_rslora=plan.variant == "rslora",
        init_lora_weights="pissa" if plan.variant == "pissa" else True,
        modules_to_save=[module.name for module in plan.head_modules] if plan.head == "native" else None,
    )
    with torch.device(device):
        if plan.head == "native":
            model = peft.get_peft_model(AutoModelForSequenceClassification.from_config(stock), lora)
            return *model.get_nb_trainable_parameters(), model
        encoder = AutoModel.from_config(stock)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        model = peft.get_peft_model(encoder, lora)
        whole = LinearHeaded(model, plan.num_labels, stock.hidden_size)
    copies = plan.head_params  # PEFT would keep a second, frozen head.
    return whole.count(trainable=True), whole.count(trainable=False) + copies, model


def make(config: dict[str, Any], head: HeadKind, budget: int, **settings: Any) -> Plan:
    return make_plan(
        config,
        base="tiny",
        num_labels=3,
        model=ModelConfig(head=head),
        adapter=AdapterConfig(**settings),
        budget=budget,
    )


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("head", ["native", "linear"])
@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_planned_is_realised(family: str, head: HeadKind, bias: str, variant: str) -> None:
    config = {"model_type": family, **TINY[family]}
    layers = None if family == "albert" else (1,)
    ranks = {"ffn_out": 5}
    plan = make(config, head, 100_000, rank=3, layers=layers, ranks=ranks, bias=bias, variant=variant)
    trainable, everything, model = realise(config, plan, device="meta")
    assert (plan.trainable_params, plan.peft_all_params) == (trainable, everything)

    root = "base_model.model."
    trained = {n.removeprefix(root).replace(".base_layer", "") for n, p in model.named_parameters() if p.requires_grad}
    heads = tuple(f"{module.name}." for module in plan.head_modules)
    biases = {name for name in trained if ".lora_" not in name and not name.startswith(heads)}
    assert biases == set(list_trained_biases(config, plan))


@pytest.mark.parametrize("family", TINY)
def test_planned_is_realised_for_pissa(family: str) -> None:
    config = {"model_type": family, **TINY[family]}
    plan = make(config, "native", 100_000, rank=2, targets=("ffn_in",), variant="pissa")
    assert realise(config, plan, device="cpu")[:2] == (plan.trainable_params, plan.peft_all_params)


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("head", ["native", "linear"])
def test_planned_is_realised_at_full_size(name: str, head: HeadKind) -> None:
    config = json.loads((resources.files("submillion.budget") / "configs" / f"{name}.json").read_text())
    plan = make(config, head, 1_000_000, bias="all" if head == "linear" else "none")
    assert realise(config, plan, device="meta")[:2] == (plan.trainable_params, plan.peft_all_params)
    assert 700_000 < plan.trainable_params < 1_000_000
