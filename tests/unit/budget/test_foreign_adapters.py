"""Adapters that PEFT's users save: they load, count by PEFT's rules, and give PEFT's probabilities."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from submillion.budget.folder import read_adapter_config
from submillion.config.run import ModelConfig
from submillion.errors import ModelError
from submillion.metrics.stats import softmax
from submillion.scoring import run_model

TEXTS = ["the bank raised its rate", "a striker of nineteen scored twice"]
QV = ["query", "value"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "distilbert by default": ("distilbert", {"target_modules": ["q_lin", "v_lin"]}),
    "roberta by default": ("roberta", {"target_modules": QV}),
    "roberta, all biases": ("roberta", {"target_modules": QV, "bias": "all"}),
    "bert, all biases": ("bert", {"target_modules": QV, "bias": "all"}),
    "bert, biases of LoRA": ("bert", {"target_modules": QV, "bias": "lora_only"}),
    "bert, all linear": ("bert", {"target_modules": "all-linear"}),
    "bert, pooler saved": ("bert", {"target_modules": QV, "modules_to_save": ["classifier", "pooler"]}),
    "roberta, all linear": ("roberta", {"target_modules": "all-linear"}),
    "ranks by pattern": ("bert", {"target_modules": QV, "rank_pattern": {"layer.0.*value": 2}}),
    "alphas by pattern": ("bert", {"target_modules": QV, "alpha_pattern": {"query": 3}}),
    "rslora": ("bert", {"target_modules": QV, "use_rslora": True}),
    "dora": ("bert", {"target_modules": QV, "use_dora": True}),
    "one layer": ("bert", {"target_modules": QV, "layers_to_transform": [1]}),
    "excluded": ("bert", {"target_modules": QV, "exclude_modules": ["encoder.layer.0.attention.self.value"]}),
    "a pattern": ("bert", {"target_modules": r".*\.(query|value)"}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_gives_what_peft_gives(
    name: str, tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, settings = CASES[name]
    monkeypatch.setattr(run_model, "ModelConfig", lambda **values: ModelConfig(**values, precision="fp32"))
    base = tmp_path / "base"
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_pretrained(tiny_base(family), num_labels=3).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base(family))
    tokenizer.save_pretrained(base)
    stock = AutoModelForSequenceClassification.from_pretrained(base)
    with warnings.catch_warnings():
        # PEFT asks transformers by a name that it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        config: Any = peft.LoraConfig(task_type="SEQ_CLS", r=4, **settings)
        model: Any = peft.get_peft_model(stock, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path / "adapter")
    wanted = []
    for text in TEXTS:
        batch = tokenizer(text, return_tensors="pt")
        batch.pop("token_type_ids", None)
        with torch.no_grad():
            wanted.append(softmax(model.eval()(**batch).logits.numpy())[0])
    loaded = run_model.load_run(tmp_path / "adapter", threads=1)
    found = [prediction.probabilities for prediction in loaded.classify(TEXTS)]
    np.testing.assert_allclose(np.array(found), np.array(wanted), atol=1e-4)
    # PEFT counts biases of the frozen copy of the head, which bias="all" marks and nothing reads.
    used = [p.numel() for n, p in model.named_parameters() if p.requires_grad and ".original_module." not in n]
    assert loaded.plan.trainable_params == sum(used)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*)*x", "(a|aa)*b", "a?" * 40, "(", ".*.*.*.*.*.*x", "(" * 5000])
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern", "target_modules"])
def test_a_pattern_that_never_ends_is_refused(tmp_path: Path, key: str, pattern: str) -> None:
    values = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, key: pattern if key == "target_modules" else {pattern: 2}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(values))
    started = time.monotonic()
    with pytest.raises(ModelError, match="pattern"):
        read_adapter_config(tmp_path)
    assert time.monotonic() - started < 5
