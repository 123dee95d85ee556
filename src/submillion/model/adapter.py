"""Adapters: the only importer of peft.

Injects a plan's low-rank updates into a model, replaces PEFT's forward pass by the fused one, proves that what was
realised is what was planned, and reads and writes adapters in PEFT's format.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import peft
import torch
from peft.tuners.lora import Linear as PeftLoraLinear
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from submillion.budget.families import get_family
from submillion.budget.plan import Plan
from submillion.errors import BudgetError, ModelError
from submillion.model.copies import drop_copies
from submillion.model.dropout import KeyedDropout, mix_64
from submillion.model.lora import lora_linear
from submillion.rundir import write_bytes

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
ADAPTER = "default"


class FusedLoraLinear(PeftLoraLinear):
    """PEFT's LoRA layer with the fused forward pass: same parameters, same files."""

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Apply the frozen layer and its update to (..., in)."""
        dropout = self.lora_dropout[ADAPTER]
        mask, probability = None, 0.0
        if isinstance(dropout, KeyedDropout):
            mask, probability = dropout.mask(x), dropout.p
        frozen: Any = self.base_layer
        return lora_linear(
            x,
            frozen.weight,
            frozen.bias,
            cast(torch.Tensor, self.lora_A[ADAPTER].weight),
            cast(torch.Tensor, self.lora_B[ADAPTER].weight),
            scaling=self.scaling[ADAPTER],
            mask=mask,
            dropout=probability,
        )


def build_lora_config(plan: Plan, *, dropout: float) -> peft.LoraConfig:
    """Return PEFT's description of a plan.

    Every module is named in full, and ranks and alphas are anchored patterns: PEFT reads bare names as suffixes
    and keys of its patterns as regular expressions tried in order.
    """
    ranks = Counter(module.rank for module in plan.modules)
    rank = ranks.most_common(1)[0][0]
    alphas = Counter(module.alpha for module in plan.modules)
    alpha = alphas.most_common(1)[0][0]
    native = plan.head == "native"
    return peft.LoraConfig(
        task_type="SEQ_CLS" if native else "FEATURE_EXTRACTION",
        base_model_name_or_path=plan.base,
        target_modules=sorted(module.name for module in plan.modules),
        r=rank,
        lora_alpha=_plain(alpha),
        rank_pattern={f"^{re.escape(m.name)}": m.rank for m in plan.modules if m.rank != rank},
        alpha_pattern={f"^{re.escape(m.name)}": _plain(m.alpha) for m in plan.modules if m.alpha != alpha},
        lora_dropout=dropout,
        bias=plan.bias,
        # By the scalings: an adapter of DoRA or PiSSA may have those of rsLoRA too.
        use_rslora=any(not math.isclose(m.scaling, m.alpha / m.rank) for m in plan.modules),
        use_dora=plan.variant == "dora",
        init_lora_weights="pissa" if plan.variant == "pissa" else True,
        modules_to_save=find_head_roots(plan) if native else None,
    )


def _plain(alpha: float) -> Any:
    # PEFT declares whole alphas and computes with any; whole ones are written without a point.
    return int(alpha) if float(alpha).is_integer() else alpha


def find_head_roots(plan: Plan) -> list[str]:
    """Return the names of the modules that are saved whole: the native head's, and those of the encoder one by one."""
    encoder = f"{get_family(plan.family).prefix}."
    names = {module.name for module in plan.head_modules}
    return sorted({name if name.startswith(encoder) else name.split(".", 1)[0] for name in names})


def inject_adapter(model: nn.Module, plan: Plan, *, dropout: float, seed: int) -> peft.PeftModel:
    """Inject a plan's adapter into a stock model, initialise it, and mark what trains.

    Args:
        model: The stock model in float32, on the CPU.
        plan: What to inject.
        dropout: Probability on the adapters' input.
        seed: Seed of the adapter's and the native head's initial values.

    Raises:
        BudgetError: The realised parameters differ from the plan.
    """
    with _quiet_wrapping():
        wrapped = peft.PeftModel(model, build_lora_config(plan, dropout=dropout), adapter_name=ADAPTER)
    fuse_adapters(wrapped)
    if plan.variant != "pissa":
        initialise_adapter(wrapped, seed)
    return wrapped


@contextmanager
def _quiet_wrapping() -> Iterator[None]:
    # PEFT asks transformers 5.23 by a name that it deprecates; nobody who trains can do anything about it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def fuse_adapters(model: nn.Module) -> None:
    """Give every plain LoRA layer the fused forward pass; DoRA layers keep PEFT's own."""
    for module in model.modules():
        if type(module) is PeftLoraLinear and not module.lora_variant:
            module.__class__ = FusedLoraLinear


def inject_language_adapter(model: Any, *, rank: int, alpha: float, dropout: float, seed: int) -> peft.PeftModel:
    """Inject LoRA into every linear layer of a causal language model but its output layer; only LoRA trains then.

    The model is changed in place, so it can be called itself; `merge_language_adapter` takes the updates in.

    Args:
        model: Of transformers, in float32.
        rank: Of every layer.
        alpha: Numerator of the scaling.
        dropout: Probability on the adapters' input.
        seed: Seed of the initial values.
    """
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not output
    }
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=sorted(layers),
        r=rank,
        lora_alpha=_plain(alpha),
        lora_dropout=dropout,
        # GPT-2's layers hold their matrices transposed.
        fan_in_fan_out=all(isinstance(module, Conv1D) for module in layers.values()),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        wrapped = peft.PeftModel(model, config, adapter_name=ADAPTER)
    initialise_adapter(wrapped, seed)
    return wrapped


def merge_language_adapter(wrapped: peft.PeftModel) -> Any:
    """Return the language model with its updates added to the weights, and no trace of the adapter."""
    merge: Any = wrapped.merge_and_unload
    return merge()


def initialise_adapter(model: nn.Module, seed: int) -> None:
    """Draw every A from its own generator, keyed by the seed and the module's name; B is zero.

    The distribution is that of PEFT and of the LoRA paper's code, Kaiming uniform with a = sqrt(5), but a module's
    values do not depend on which other modules are adapted.
    """
    for name, module in model.named_modules():
        if isinstance(module, PeftLoraLinear):
            generator = torch.Generator().manual_seed(_name_seed(seed, name))
            matrix = cast(torch.Tensor, module.lora_A[ADAPTER].weight)
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5), generator=generator)


def initialise_head(module: nn.Module, std: float, seed: int, *, prefix: str = "") -> None:
    """Draw a head's matrices from N(0, std^2), each keyed by the seed and its name; other parameters stay.

    Args:
        module: The head, or one module of it.
        std: Standard deviation.
        seed: Of all initial values.
        prefix: The module's own name, where the head has others: names tell their values apart.
    """
    for name, parameter in module.named_parameters(prefix):
        if parameter.dim() == 2:
            generator = torch.Generator().manual_seed(_name_seed(seed, name))
            nn.init.normal_(parameter, std=std, generator=generator)


def _name_seed(seed: int, name: str) -> int:
    value = mix_64(seed)
    for byte in name.encode():
        value = mix_64(value ^ byte)
    return value >> 1


def mark_trainable(model: nn.Module, plan: Plan) -> None:
    """Freeze everything but the planned parameters: adapter, native head and biases.

    Args:
        model: A model that `inject_adapter` returned.
        plan: The same plan.
    """
    targeted = {module.name for module in plan.modules}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_trainable(name, plan, targeted))


def _is_trainable(name: str, plan: Plan, targeted: set[str]) -> bool:
    if ".original_module." in name:
        return False
    if ".modules_to_save." in name:
        return True
    if ".lora_" in name:
        return True
    if not name.endswith("bias"):
        return False
    owner = strip_wrappers(name).rpartition(".")[0]
    return plan.bias == "all" or (plan.bias == "lora_only" and owner in targeted)


def strip_wrappers(name: str) -> str:
    """Return a parameter's name in the stock model, without PEFT's wrappers."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(f".modules_to_save.{ADAPTER}.", ".")


def check_realised(model: nn.Module, plan: Plan) -> None:
    """Compare every planned module's realised rank, scaling and size, and the total, with the plan.

    Raises:
        BudgetError: Anything differs; training must not start.
    """
    realised = {
        strip_wrappers(name): module for name, module in model.named_modules() if isinstance(module, PeftLoraLinear)
    }
    problems = []
    planned = {module.name: module for module in plan.modules}
    if realised.keys() != planned.keys():
        missing, extra = sorted(planned.keys() - realised.keys()), sorted(realised.keys() - planned.keys())
        problems.append(f"modules without adapter: {missing}; unplanned: {extra}")
    for name in realised.keys() & planned.keys():
        module, want = realised[name], planned[name]
        if module.r[ADAPTER] != want.rank or not math.isclose(module.scaling[ADAPTER], want.scaling):
            problems.append(
                f"{name}: rank {module.r[ADAPTER]}, scaling {module.scaling[ADAPTER]};"
                f" planned {want.rank}, {want.scaling}"
            )
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    expected = plan.trainable_params - (plan.head_params if plan.head == "linear" else 0)
    if total != expected:
        problems.append(f"{total:,} trainable parameters; planned {expected:,}")
    if problems:
        raise BudgetError("the adapter is not what was planned: " + "; ".join(problems), where=plan.base)


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the trained tensors under PEFT's file names, float32, on the CPU."""
    state = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = name.replace(f".modules_to_save.{ADAPTER}.", ".")
            key = re.sub(rf"\.(lora_[AB])\.{ADAPTER}\.", r".\1.", key)
            key = key.replace(f".lora_magnitude_vector.{ADAPTER}.weight", ".lora_magnitude_vector")
            state[key] = parameter.detach().to("cpu", torch.float32).contiguous()
    return state


def save_adapter(model: peft.PeftModel, folder: Path) -> None:
    """Write an adapter folder in PEFT's format, each file atomically."""
    payload = save(adapter_state(model), metadata={"format": "pt"})
    write_bytes(folder / WEIGHTS_NAME, payload)
    config = model.peft_config[ADAPTER].to_dict()
    config["inference_mode"] = True
    write_bytes(folder / CONFIG_NAME, _dump_config(config))


def _dump_config(config: Mapping[str, Any]) -> bytes:
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    return (json.dumps(values, indent=2, sort_keys=True, default=str) + "\n").encode()


def load_adapter_weights(model: nn.Module, folder: Path) -> None:
    """Load an adapter folder's tensors into a model with the same adapter injected.

    Raises:
        ModelError: The file is missing, damaged, or holds other tensors than the model.
    """
    path = folder / WEIGHTS_NAME
    state = drop_copies(read_safetensors(path), where=str(path))
    # PEFT reads both spellings of magnitudes, and has written both.
    state = {key.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector"): state[key] for key in state}
    wanted = {key: name for name, key in _file_names(model).items()}
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        raise ModelError(
            f"does not fit the plan: missing {missing[:3]}, not expected {extra[:3]}"
            f" ({len(missing)} and {len(extra)} in all)",
            where=str(path),
        )
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for key, name in wanted.items():
            if state[key].shape != parameters[name].shape:
                raise ModelError(
                    f"{key} has shape {tuple(state[key].shape)}, the model needs {tuple(parameters[name].shape)}",
                    where=str(path),
                )
            parameters[name].copy_(state[key])


def _file_names(model: nn.Module) -> dict[str, str]:
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return dict(zip(names, adapter_state(model), strict=True))


def merge_adapter(model: peft.PeftModel) -> Any:
    """Return the stock model with the adapter added to its weights in their dtype, and PEFT's layers gone."""
    merging: Any = model
    return merging.merge_and_unload(safe_merge=True)


def wrap_saved_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """Put an adapter folder on a stock model by PEFT's own loading, as its users do."""
    with _quiet_wrapping():
        wrapped: nn.Module = peft.PeftModel.from_pretrained(cast(Any, model), folder)
    return wrapped


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        ModelError: Missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ModelError("is missing", where=str(path), hint="Is this a complete folder?") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"is damaged: {error}", where=str(path), hint="Copy or train it again.") from None
