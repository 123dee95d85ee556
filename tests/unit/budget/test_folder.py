from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from submillion.budget.adapter_settings import read_adapter_base
from submillion.budget.folder import plan_adapter_folder
from submillion.budget.plan import Plan, make_plan
from submillion.config.run import AdapterConfig, ModelConfig
from submillion.errors import BudgetError, ModelError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CONFIG: dict[str, Any] = {
    "model_type": "roberta",
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "vocab_size": 60,
}
QUERY = "roberta.encoder.layer.0.attention.self.query"
ROOT = "base_model.model."


def build_stock(num_labels: int, config: dict[str, Any] = CONFIG) -> Any:
    settings = {key: value for key, value in config.items() if key != "model_type"}
    return AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(config["model_type"], num_labels=num_labels, **settings)
    )


def save(folder: Path, num_labels: int = 3, **settings: Any) -> Path:
    """Write an adapter with PEFT itself, as its users do."""
    lora = peft.LoraConfig(
        **{"task_type": "SEQ_CLS", "r": 2, "lora_alpha": 6, "target_modules": ["query", "value"], **settings}
    )
    model = peft.get_peft_model(build_stock(num_labels), lora)
    model.save_pretrained(str(folder))
    # Set here because PEFT would look for it while saving.
    edit_config(folder, base_model_name_or_path="some/base")
    return folder


def plan(folder: Path, budget: int = 100_000) -> Plan:
    return plan_adapter_folder(folder, CONFIG, budget=budget)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "adapter_model.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "adapter")


@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
@pytest.mark.parametrize("dora", [False, True])
def test_a_saved_adapter_gives_the_plan_that_would_make_it(tmp_path: Path, bias: str, dora: bool) -> None:
    folder = save(tmp_path / "a", num_labels=5, bias=bias, use_dora=dora)
    planned = make_plan(
        CONFIG,
        base="some/base",
        num_labels=5,
        model=ModelConfig(head="native"),
        adapter=AdapterConfig(
            rank=2, alpha=6, targets=("query", "value"), variant="dora" if dora else "lora", bias=bias
        ),
        budget=100_000,
    )
    assert plan(folder) == planned


def test_the_base_is_named_in_the_folder(folder: Path) -> None:
    assert read_adapter_base(folder) == "some/base"
    edit_config(folder, base_model_name_or_path=None)
    with pytest.raises(ModelError, match="base_model_name_or_path"):
        read_adapter_base(folder)


def test_ranks_and_alphas_by_pattern(tmp_path: Path) -> None:
    folder = save(
        tmp_path / "a",
        rank_pattern={r"layer\.1\.attention\.self\.query": 4, "^roberta.*value": 3},
        alpha_pattern={"self.value": 9, "value": 1},  # PEFT writes them sorted; the first match counts
        use_rslora=True,
    )
    found = {
        (module.layer, module.kind): (module.rank, module.alpha, module.scaling) for module in plan(folder).modules
    }
    assert found == {
        (0, "query"): (2, 6.0, 6 / 2**0.5),
        (1, "query"): (4, 6.0, 3.0),
        (0, "value"): (3, 9.0, 9 / 3**0.5),
        (1, "value"): (3, 9.0, 9 / 3**0.5),
    }
    assert plan(folder).variant == "rslora"


def test_targets_as_a_pattern_and_narrowed_to_layers(tmp_path: Path) -> None:
    pattern = save(tmp_path / "a", target_modules=r".*layer\.1.*\.(query|key)")
    assert [module.kind for module in plan(pattern).modules] == ["query", "key"]
    layers = save(tmp_path / "b", target_modules=["query"], layers_to_transform=[1])
    assert [module.layer for module in plan(layers).modules] == [1]


def test_a_linear_head_beside_the_adapter(tmp_path: Path) -> None:
    settings = {key: value for key, value in CONFIG.items() if key != "model_type"}
    encoder = AutoModel.from_config(AutoConfig.for_model("roberta", **settings))
    model = peft.get_peft_model(encoder, peft.LoraConfig(r=2, target_modules=["intermediate.dense"]))
    folder = tmp_path / "run" / "adapter"
    model.save_pretrained(str(folder))
    with pytest.raises(ModelError, match="no classification head"):
        plan(folder)
    head = {"head.weight": np.zeros((7, 24), dtype=np.float32), "head.bias": np.zeros((7,), dtype=np.float32)}
    save_file(head, tmp_path / "run" / "head.safetensors")
    found = plan(folder)
    assert (found.head, found.num_labels, found.head_params) == ("linear", 7, 7 * 25)
    assert found.modules[0].name == "encoder.layer.0.intermediate.dense"
    save_file({"head.weight": head["head.weight"][:, :9]}, tmp_path / "run" / "head.safetensors")
    with pytest.raises(ModelError, match=r"head\.safetensors holds"):
        plan(folder)


def test_a_head_that_peft_lost_in_part_is_counted_as_it_is(tmp_path: Path) -> None:
    config = {**CONFIG, "model_type": "deberta-v2"}
    model = peft.get_peft_model(
        build_stock(3, config), peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query_proj"])
    )
    model.save_pretrained(str(tmp_path))
    found = plan_adapter_folder(tmp_path, config, budget=10_000)
    assert [module.name for module in found.head_modules] == ["classifier"]
    assert (found.trainable_params, found.peft_all_params) == model.get_nb_trainable_parameters()


def test_an_encoder_module_that_was_saved_whole_counts_once_in_the_model(tmp_path: Path) -> None:
    config = {**CONFIG, "model_type": "bert"}
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], modules_to_save=["pooler"], bias="all")
    stock = build_stock(3, config)
    size = sum(parameter.numel() for parameter in stock.parameters())
    model = peft.get_peft_model(stock, lora)
    model.save_pretrained(str(tmp_path))
    found = plan_adapter_folder(tmp_path, config, budget=10_000)
    assert (found.trainable_params, found.peft_all_params) == model.get_nb_trainable_parameters()
    assert found.total_params == size + found.adapter_params


def test_over_budget(folder: Path) -> None:
    total = plan(folder).trainable_params
    assert plan(folder, budget=total + 1).trainable_params == total
    with pytest.raises(BudgetError, match="head 675") as caught:
        plan(folder, budget=total)
    assert f"{total + 1:,}" in caught.value.hint


def test_a_truncated_file_is_refused(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is damaged"):
        plan(folder)


def test_a_pickle_is_not_opened(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        plan(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        plan(folder)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\ud800"])
def test_a_damaged_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        plan(folder)


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no adapter_config\.json"):
        plan(tmp_path)


@pytest.mark.parametrize("kind", ["IA3", "PREFIX_TUNING", None])
def test_other_adapter_types_are_named(folder: Path, kind: str | None) -> None:
    edit_config(folder, peft_type=kind)
    with pytest.raises(ModelError, match=f"of type {kind!r}"):
        plan(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 3}, "expected \\[3, 24\\]"),
        ({"r": "2"}, "not a rank or alpha"),
        ({"lora_alpha": None}, "not a rank or alpha"),
        ({"rank_pattern": {"query": 5}}, "expected \\[5, 24\\]"),
        ({"rank_pattern": {"(": 5}}, "the pattern '\\(' is not used: it is not valid"),
        ({"rank_pattern": [1]}, "rank_pattern is"),
        ({"r": float("nan")}, "nan is not a rank or alpha"),
        ({"lora_alpha": float("inf")}, "inf is not a rank or alpha"),
        ({"target_modules": ["query"]}, "not in target_modules"),
        ({"target_modules": ["query", "value", "key"]}, "has no adapter"),
        ({"target_modules": 3}, "target_modules is 3"),
        ({"modules_to_save": None, "task_type": None}, "'classifier.dense' was saved whole"),
        ({"modules_to_save": ["classifier.dense"], "task_type": None}, "'classifier.out_proj' was saved whole"),
        ({"modules_to_save": ["classifier.dense"]}, "'classifier.dense' twice, once inside of 'classifier'"),
        ({"modules_to_save": [3]}, "modules_to_save is"),
        ({"layers_to_transform": 1}, "is not in layers_to_transform 1"),
        ({"layers_to_transform": [[1]]}, "is not in layers_to_transform"),
        ({"exclude_modules": ["value"]}, "is in exclude_modules"),
        ({"exclude_modules": ".*value"}, "is in exclude_modules"),
        ({"exclude_modules": "(a+)+$"}, "pattern"),
        ({"bias": "all"}, "is missing"),
        ({"bias": "lora_only"}, "query.bias is missing"),
        ({"bias": "some"}, "not none, lora_only or all"),
        ({"use_dora": True}, "0 modules have magnitudes"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
        ({"lora_bias": True}, "lora_bias adds biases"),
        ({"trainable_token_indices": [1]}, "trains rows of the embeddings"),
        ({"target_parameters": ["x"]}, "not linear layers"),
        ({"layer_replication": [[0, 1]]}, "more than once"),
        ({"alora_invocation_tokens": [1]}, "only the tokens after an invocation"),
        ({"use_qalora": True}, "use_qalora"),
        ({"use_bdlora": {"a": 1}}, "use_bdlora"),
        ({"arrow_config": {"a": 1}}, "arrow_config"),
        ({"kasa_config": {"a": 1}}, "kasa_config"),
        ({"monteclora_config": {"a": 1}}, "monteclora_config"),
        ({"init_lora_weights": "olora"}, "moved parts of the base"),
        ({"init_lora_weights": "pissa_niter_4"}, "moved parts of the base"),
        ({"init_lora_weights": "corda"}, "moved parts of the base"),
        ({"init_lora_weights": "loftq"}, "moved parts of the base"),
        ({"init_lora_weights": "pissa", "use_dora": True}, "moved parts of the base"),
        ({"task_type": "TOKEN_CLS"}, "trained for TOKEN_CLS"),
        (
            {"task_type": None, "auto_mapping": {"base_model_class": "BertForTokenClassification"}},
            "trained for BertFor",
        ),
    ],
)
def test_a_configuration_that_the_weights_contradict(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(ModelError, match=message):
        plan(folder)


def zeros(*shape: int) -> Any:
    return np.zeros(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(f"{ROOT}{QUERY}.lora_B.weight"), "only one of its two"),
        (lambda w: w.update({f"{ROOT}{QUERY}.lora_A.weight": zeros(2, 23)}), "expected \\[2, 24\\]"),
        (lambda w: w.update({f"{ROOT}{QUERY}.lora_B.weight": zeros(24, 9)}), "expected \\[24, 2\\]"),
        (lambda w: w.update({f"{ROOT}{QUERY}.lora_magnitude_vector": zeros(24)}), "magnitudes"),
        (lambda w: w.update({f"{ROOT}{QUERY}.lora_embedding_A": zeros(24)}), "not part of a LoRA"),
        (lambda w: w.update({"query.lora_A.weight": zeros(24)}), "does not begin with"),
        (lambda w: w.update({f"{ROOT}{QUERY}.base_layer.bias": zeros(24)}), "query.bias exists"),
        (lambda w: w.update({f"{ROOT}{QUERY}.base_layer.bias": zeros(4)}), "has the shape \\[4\\]"),
        (lambda w: w.pop(f"{ROOT}classifier.dense.bias"), "classifier.dense holds"),
        (lambda w: w.update({f"{ROOT}classifier.out_proj.weight": zeros(3, 9)}), "classifier.out_proj holds"),
        (lambda w: [w.pop(name) for name in list(w) if "lora_" in name], "no LoRA matrix"),
        (lambda w: [w.pop(name) for name in list(w) if "dense" in name], "has no weights"),
    ],
)
def test_weights_that_contradict_the_configuration(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_weights(folder, change)
    with pytest.raises(ModelError, match=message):
        plan(folder)


def test_an_adapter_for_another_base_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"encoder\.layer\.1"):
        plan_adapter_folder(folder, {**CONFIG, "num_hidden_layers": 1}, budget=10**6)
    with pytest.raises(ModelError, match="not a linear layer of this distilbert"):
        plan_adapter_folder(folder, {"model_type": "distilbert"}, budget=10**6)


def test_no_tensor_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr("safetensors.torch.load_file", None)
    assert plan(folder).num_labels == 3
