from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import Linear as PeftLoraLinear
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from submillion.budget.families import FAMILIES
from submillion.budget.folder import plan_adapter_folder
from submillion.encoding.batches import pack
from submillion.errors import BudgetError, ModelError
from submillion.model.adapter import check_realised, strip_wrappers
from submillion.model.sources import load_base_config
from submillion.pipeline.proof import sum_saved_params
from submillion.run.folder import RunDir
from submillion.scoring.score import score
from tests.tiny_classifiers import (
    NUM_LABELS,
    Tiny,
    build_tiny_classifier,
    load_stock,
    make_features,
    save_run_files,
    score_stock,
)
from tests.trained_biases import list_trained_biases

# PEFT still asks transformers by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

VARIANTS = ("lora", "rslora", "dora", "pissa")
BIASES = ("none", "lora_only", "all")
FEATURES = make_features((5, 30, 9))

Base = Callable[[str], Path]


def score_tiny(tiny: Tiny) -> torch.Tensor:
    return torch.from_numpy(score(tiny.classifier, FEATURES, max_tokens=500))


# --------------------------------------------------------------------------------------------------- what is realised


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize(("variant", "head"), [*((v, "native") for v in VARIANTS), ("lora", "linear")])
def test_realised_is_planned(family: str, variant: str, bias: str, head: str, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(
        tiny_base(family), head=head, variant=variant, bias=bias, ranks={"ffn_out": 6}, alpha=8
    )
    layers = {
        strip_wrappers(name.removeprefix("wrapped.")): module
        for name, module in tiny.classifier.named_modules()
        if isinstance(module, PeftLoraLinear)
    }
    planned = {m.name: (m.rank, m.scaling) for m in tiny.plan.modules}
    assert {name: (m.r["default"], m.scaling["default"]) for name, m in layers.items()} == planned
    assert {rank for rank, _ in planned.values()} == {4, 6}

    parameters = tiny.classifier.trainable_parameters()
    assert sum(p.numel() for p in parameters.values()) == tiny.plan.trainable_params
    biases = {strip_wrappers(name.removeprefix("wrapped.")) for name in parameters if name.endswith("bias")}
    heads = tuple(f"{module.name}." for module in tiny.plan.head_modules)
    config = load_base_config(str(tiny.base))
    assert {name for name in biases if not name.startswith(heads)} == set(list_trained_biases(config, tiny.plan))


@pytest.mark.parametrize("change", ["rank", "scaling", "name", "total"])
def test_an_adapter_that_is_not_the_planned_one_is_refused(change: str, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base("bert"))
    check_realised(tiny.classifier.wrapped, tiny.plan)
    first, *rest = tiny.plan.modules
    changes: dict[str, Any] = {"rank": {"rank": 5}, "scaling": {"scaling": 9.0}, "name": {"name": "other"}, "total": {}}
    modules = (dataclasses.replace(first, **changes[change]), *rest)
    total = tiny.plan.trainable_params + (change == "total")
    wrong = dataclasses.replace(tiny.plan, modules=modules, trainable_params=total)
    with pytest.raises(BudgetError, match="not what was planned"):
        check_realised(tiny.classifier.wrapped, wrong)


# ----------------------------------------------------------------------------------------------------- files and PEFT

STOCK_CASES: tuple[dict[str, Any], ...] = (
    {},
    {"bias": "all"},
    {"bias": "lora_only"},
    {"variant": "rslora"},
    {"variant": "dora"},
    {"variant": "dora", "bias": "all"},
    {"variant": "pissa"},
    {"ranks": {"ffn_in": 7, "ffn_out": 2}},
    {"targets": ("ffn_in",), "layers": (1,), "alpha": 3},
)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("adapter", STOCK_CASES, ids=str)
def test_peft_loads_what_was_saved(family: str, adapter: dict[str, Any], tiny_base: Base, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(tiny_base(family), **adapter)
    run = save_run_files(tiny, tmp_path)
    ours = score_tiny(tiny)
    torch.testing.assert_close(score_stock(load_stock(tiny, run.adapter), tiny, FEATURES), ours, atol=1e-4, rtol=1e-4)
    # The saved values matter: without them the logits are others.
    bare = score_stock(load_stock(tiny, None), tiny, FEATURES)
    assert (bare - ours).abs().max() > 1e-2

    assert sum_saved_params(run) == tiny.plan.trainable_params
    assert not run.head.exists()
    counted = plan_adapter_folder(run.adapter, load_base_config(str(tiny.base)), budget=1_000_000)
    assert counted.trainable_params == tiny.plan.trainable_params
    assert counted.modules == tiny.plan.modules


@pytest.mark.parametrize("adapter", STOCK_CASES[:7], ids=str)
@pytest.mark.parametrize("head", ["native", "linear"])
def test_a_fresh_classifier_loads_what_was_saved(
    adapter: dict[str, Any], head: str, tiny_base: Base, tmp_path: Path
) -> None:
    tiny = build_tiny_classifier(tiny_base("roberta"), head=head, **adapter)
    run = save_run_files(tiny, tmp_path)
    fresh = build_tiny_classifier(tiny_base("roberta"), head=head, seed=8, moved=False, **adapter)
    assert (score_tiny(fresh) - score_tiny(tiny)).abs().max() > 1e-2
    fresh.classifier.load(run.adapter, run.head if run.head.exists() else None)
    torch.testing.assert_close(score_tiny(fresh), score_tiny(tiny), atol=1e-6, rtol=1e-6)
    assert sum_saved_params(run) == tiny.plan.trainable_params
    assert run.head.exists() == (head == "linear")


def test_debertas_pooler_is_trained_and_saved(tiny_base: Base, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(tiny_base("deberta-v2"))
    saved = load_file(save_run_files(tiny, tmp_path).adapter / "adapter_model.safetensors")
    pooler = {name for name in saved if ".pooler." in name}
    assert pooler == {f"base_model.model.pooler.dense.{part}" for part in ("weight", "bias")}
    logits = tiny.classifier(pack(FEATURES))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    gradients = [p.grad for name, p in tiny.classifier.trainable_parameters().items() if ".pooler." in name]
    assert len(gradients) == 2
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_saving_is_reproducible_and_names_the_base(tiny_base: Base, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(tiny_base("roberta"), targets=("value", "query"))
    first, second = (save_run_files(tiny, tmp_path / name).adapter for name in ("first", "second"))
    assert sorted(path.name for path in first.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    settings = json.loads((first / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tiny.base)
    assert settings["inference_mode"] is True


@pytest.mark.parametrize("damage", ["truncated", "missing", "shape", "foreign", "lacking", "surplus", "text"])
@pytest.mark.parametrize("file", ["adapter", "head"])
def test_a_damaged_file_is_a_model_error(damage: str, file: str, tiny_base: Base, tmp_path: Path) -> None:
    tiny = build_tiny_classifier(tiny_base("bert"), head="linear", targets=("query",))
    run = save_run_files(tiny, tmp_path)
    path = run.head if file == "head" else run.adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "missing":
        path.unlink()
    elif damage == "shape":
        save_file({**tensors, name: tensors[name][..., :-1].contiguous()}, path)
    elif damage == "foreign":
        other = save_run_files(build_tiny_classifier(tiny_base("distilbert"), targets=("ffn_in",)), tmp_path / "other")
        shutil.copyfile(other.adapter / "adapter_model.safetensors", path)
    elif damage == "lacking":
        save_file({key: value for key, value in tensors.items() if key != name}, path)
    elif damage == "surplus":
        save_file({**tensors, "stray": torch.zeros(2)}, path)
    else:
        path.write_text("not safetensors")
    with pytest.raises(ModelError) as caught:
        tiny.classifier.load(RunDir(tmp_path).adapter, RunDir(tmp_path).head)
    assert caught.value.where == str(path)


# ----------------------------------------------------------------------------------------------- precision and seeds


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("adapter", [{"bias": "all"}, {"variant": "dora", "bias": "lora_only"}], ids=str)
def test_trained_values_and_heads_stay_float32_on_a_bf16_base(
    family: str, adapter: dict[str, Any], tiny_base: Base
) -> None:
    tiny = build_tiny_classifier(tiny_base(family), dtype=torch.bfloat16, dropout=0.1, adapter_dropout=0.1, **adapter)
    model = tiny.classifier
    assert {p.dtype for p in model.trainable_parameters().values()} == {torch.float32}
    stock = model.stock_model
    heads = [child for name, child in stock.named_children() if name != stock.base_model_prefix]
    assert {p.dtype for child in heads for p in child.parameters()} <= {torch.float32}
    frozen = [p for p in model.encoder.parameters() if not p.requires_grad and p.dim() == 2]
    assert sum(p.dtype == torch.bfloat16 for p in frozen) > 0.9 * len(frozen)

    batch = pack(FEATURES)
    model.train().dropout_state.set_step(batch, seed=0, step=0)
    logits = model(batch)
    assert logits.dtype == torch.float32
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    gradients = {name: p.grad for name, p in model.trainable_parameters().items()}
    dead = [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]
    assert not dead
    full = build_tiny_classifier(tiny_base(family), **adapter)
    torch.testing.assert_close(score_tiny(tiny), score_tiny(full), atol=0.25, rtol=0.1)


def test_initial_values_follow_from_the_seed_and_the_modules_name(tiny_base: Base) -> None:
    base = tiny_base("distilbert")
    first, same, other = (build_tiny_classifier(base, seed=seed, moved=False) for seed in (1, 1, 2))
    alone = build_tiny_classifier(base, seed=1, moved=False, targets=("ffn_in",))

    def read(tiny: Tiny, part: str) -> dict[str, torch.Tensor]:
        return {n: p.detach() for n, p in tiny.classifier.trainable_parameters().items() if part in n and p.dim() == 2}

    for part in (".lora_A.", ".modules_to_save."):
        values = read(first, part)
        assert all(torch.equal(read(same, part)[name], value) for name, value in values.items())
        assert not any(torch.equal(read(other, part)[name], value) for name, value in values.items())
        assert all(torch.equal(values[name], value) for name, value in read(alone, part).items())
    assert not any(value.any() for value in read(first, ".lora_B.").values())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_no_two_fresh_matrices_share_their_values(family: str, tiny_base: Base) -> None:
    tiny = build_tiny_classifier(tiny_base(family), moved=False)
    starts = [
        tuple(p.detach().flatten()[:4].tolist())
        for name, p in tiny.classifier.trainable_parameters().items()
        if p.dim() == 2 and ".lora_B." not in name
    ]
    assert len(starts) >= len(tiny.plan.modules) + 1
    for row, start in enumerate(starts):
        for other in starts[:row]:
            assert start != pytest.approx(other, abs=1e-3)


# ------------------------------------------------------------------------------------------- the published format


def test_an_adapter_that_stock_peft_wrote_is_counted_right(tiny_base: Base, tmp_path: Path) -> None:
    base = tiny_base("roberta")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=NUM_LABELS)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=32, target_modules=["query", "key", "value"])
    wrapped: Any = peft.get_peft_model(model, config)
    wrapped.save_pretrained(tmp_path)
    plan = plan_adapter_folder(tmp_path, load_base_config(str(base)), budget=1_000_000)
    trainable, everything = wrapped.get_nb_trainable_parameters()
    assert (plan.trainable_params, plan.peft_all_params) == (trainable, everything)
    # Two layers, three matrices of 32 x 32 at rank 4; a dense layer 32 x 32 and one of 4 x 32, with biases.
    assert (plan.adapter_params, plan.head_params, plan.bias_params) == (2 * 3 * 4 * 64, 32 * 33 + 4 * 33, 0)
    assert {(module.rank, module.scaling) for module in plan.modules} == {(4, 8.0)}
