"""Adapters that PEFT's users save: they load, count by PEFT's rules, and give PEFT's probabilities."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from submillion import api
from submillion.budget.adapter_settings import read_adapter_config
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
    "rslora with dora": ("bert", {"target_modules": QV, "use_rslora": True, "use_dora": True}),
    "rslora with pissa": ("bert", {"target_modules": QV, "use_rslora": True, "init_lora_weights": "pissa"}),
    "pissa": ("bert", {"target_modules": QV, "init_lora_weights": "pissa"}),
    "gaussian": ("roberta", {"target_modules": QV, "init_lora_weights": "gaussian"}),
    "norms saved, all biases": ("bert", {"target_modules": QV, "modules_to_save": ["LayerNorm"], "bias": "all"}),
    "matrices of the encoder saved": ("bert", {"target_modules": ["value"], "modules_to_save": ["query"]}),
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
    model, wanted = save_adapter(tiny_base(family), tmp_path, settings)
    loaded = run_model.load_run(tmp_path / "adapter", threads=1)
    found = [prediction.probabilities for prediction in loaded.classify(TEXTS)]
    np.testing.assert_allclose(np.array(found), wanted, atol=1e-6)
    # PEFT counts biases of the frozen copy of the head, which bias="all" marks and nothing reads.
    used = [p.numel() for n, p in model.named_parameters() if p.requires_grad and ".original_module." not in n]
    assert loaded.plan.trainable_params == sum(used)


def save_adapter(tiny: Path, tmp_path: Path, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Save an adapter with random values; returns PEFT's model and its probabilities of `TEXTS`."""
    base = tmp_path / "base"
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=3).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.save_pretrained(base)
    stock = AutoModelForSequenceClassification.from_pretrained(base)
    with warnings.catch_warnings():
        # PEFT asks transformers by a name that it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        config: Any = peft.LoraConfig(**{"task_type": "SEQ_CLS", "r": 4, **settings})
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
    return model, np.array(wanted)


def load_probabilities(folder: Path) -> Any:
    return np.array([prediction.probabilities for prediction in run_model.load_run(folder, threads=1).classify(TEXTS)])


@pytest.mark.parametrize("saved", ["LayerNorm", "word_embeddings", "layer.1.output.dense"])
def test_modules_of_the_encoder_that_were_saved_are_computed_in_bf16_too(
    saved: str, tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_model, "ModelConfig", lambda **values: ModelConfig(**values, precision="bf16"))
    settings = {"target_modules": QV, "modules_to_save": [saved]}
    _, wanted = save_adapter(tiny_base("bert"), tmp_path, settings)
    np.testing.assert_allclose(load_probabilities(tmp_path / "adapter"), wanted, atol=0.02)


def rewrite(folder: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))


OLD = (
    "base_model_name_or_path",
    "bias",
    "fan_in_fan_out",
    "lora_alpha",
    "peft_type",
    "r",
    "target_modules",
    "task_type",
)
OLDER = ("base_model_name_or_path", "peft_type", "target_modules", "task_type")


@pytest.mark.parametrize(("kept", "rank"), [(OLD, 4), (OLDER, 8)])
def test_a_file_of_an_older_version_has_fewer_settings(
    kept: tuple[str, ...],
    rank: int,
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_model, "ModelConfig", lambda **values: ModelConfig(**values, precision="fp32"))
    _, wanted = save_adapter(tiny_base("bert"), tmp_path, {"target_modules": QV, "r": rank})
    # The head was added to modules_to_save by the task alone, which the file did not repeat.
    rewrite(tmp_path / "adapter", lambda values: {key: values[key] for key in kept} | {"modules_to_save": None})
    np.testing.assert_allclose(load_probabilities(tmp_path / "adapter"), wanted, atol=1e-6)


def test_settings_of_a_newer_version_are_named(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    save_adapter(tiny_base("bert"), tmp_path, {"target_modules": QV})
    rewrite(tmp_path / "adapter", lambda values: values | {"brand_new": 3, "also_new": None})
    notes = run_model.load_run(tmp_path / "adapter", threads=1).notes
    assert [note for note in notes if "brand_new" in note and "also_new" not in note]
    rewrite(tmp_path / "adapter", lambda values: {k: v for k, v in values.items() if k != "brand_new"})
    assert not [note for note in run_model.load_run(tmp_path / "adapter", threads=1).notes if "not known" in note]


def test_magnitudes_are_read_in_both_spellings(
    tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_model, "ModelConfig", lambda **values: ModelConfig(**values, precision="fp32"))
    _, wanted = save_adapter(tiny_base("bert"), tmp_path, {"target_modules": QV, "use_dora": True})
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({key + ".weight" * key.endswith("magnitude_vector"): tensors[key] for key in tensors}, path)
    np.testing.assert_allclose(load_probabilities(tmp_path / "adapter"), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_a_base_whose_head_tells_no_single_class_is_refused(
    kind: str, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    save_adapter(tiny_base("bert"), tmp_path, {"target_modules": QV})
    path = tmp_path / "base" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"problem_type": kind}))
    with pytest.raises(ModelError, match=f"problem_type of the base is '{kind}'"):
        run_model.load_run(tmp_path / "adapter")


@pytest.mark.parametrize(("module", "use"), [(run_model, run_model.load_run), (api, api.plan)], ids=["load", "plan"])
def test_the_revision_of_the_base_is_heeded(
    module: ModuleType, use: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"peft_type": "LORA", "base_model_name_or_path": "some/base", "revision": "f" * 40}
    (tmp_path / "adapter_config.json").write_text(json.dumps(values))
    asked = []

    def note(name: str, revision: str | None = None) -> None:
        asked.append((name, revision))
        raise ModelError("enough")

    monkeypatch.setattr(module, "load_base_config", note)
    with pytest.raises(ModelError, match="enough"):
        use(tmp_path)
    assert asked == [("some/base", "f" * 40)]


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*)*x", "(a|aa)*b", "a?" * 40, "(", ".*.*.*.*.*.*x", "(" * 5000])
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern", "target_modules"])
def test_a_pattern_that_never_ends_is_refused(tmp_path: Path, key: str, pattern: str) -> None:
    values = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, key: pattern if key == "target_modules" else {pattern: 2}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(values))
    started = time.monotonic()
    with pytest.raises(ModelError, match="pattern"):
        read_adapter_config(tmp_path)
    assert time.monotonic() - started < 5
