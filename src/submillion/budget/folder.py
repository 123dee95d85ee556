"""Plans of existing adapters: the trained parameters of a PEFT adapter folder, read from headers without weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from submillion.budget.adapter_settings import CONFIG_NAME, find_nested, is_saved_whole, read_adapter_config
from submillion.budget.count import Linear, list_linears, list_modules, read_hidden_size
from submillion.budget.families import read_family
from submillion.budget.head_counts import HeadKind, HeadModule, get_model_prefix, list_head_modules, uses_pooler
from submillion.budget.headers import read_tensor_shapes
from submillion.budget.plan import Plan, PlannedModule
from submillion.config.run import Variant
from submillion.errors import BudgetError, ModelError
from submillion.storage.json_shapes import JsonView

WEIGHTS_NAME = "adapter_model.safetensors"
HEAD_NAME = "head.safetensors"
_ROOT = "base_model.model."
# PEFT uses this rank and alpha if a file names none.
_DEFAULT = 8


def plan_adapter_folder(folder: Path, config: JsonView, *, budget: int, base: str | None = None) -> Plan:
    """Count the trained parameters of a PEFT adapter folder.

    Shapes in the weights' header give ranks, classes and counts. adapter_config.json gives scalings, and everything
    that it says about the weights must be true. A linear head may be in ``head.safetensors``, in the folder or beside
    it.

    Args:
        folder: Folder with adapter_config.json and adapter_model.safetensors.
        config: The base model's ``config.json``.
        budget: Limit that the adapter must stay strictly below.
        base: Name of the base model for the plan; by default, the one that the adapter names.

    Raises:
        ModelError: Files are missing, damaged or pickled, or weights contradict the configuration or the base.
        BudgetError: The adapter's trainable parameters reach the budget.
    """
    settings = read_adapter_config(folder)
    shapes = _read_weights(folder)
    tensors = _sort_tensors(shapes, config, folder)
    _check_targets(tensors, settings, config, folder)
    modules = _plan_modules(tensors, settings, config, folder)
    head, head_modules, num_labels = _read_head(tensors, settings, config, folder)
    bias: Literal["none", "lora_only", "all"] = settings.get("bias") or "none"
    _check_biases(tensors, bias, config, folder)

    adapter_params = sum(module.params for module in modules)
    head_params = sum(module.params for module in head_modules)
    bias_params = sum(math.prod(shape) for shape in tensors.biases.values())
    trainable = adapter_params + head_params + bias_params
    if trainable >= budget:
        raise BudgetError(
            f"{trainable:,} trainable parameters are not below the budget of {budget:,}: adapter "
            f"{adapter_params:,}, head {head_params:,}, biases {bias_params:,}",
            where=str(folder),
            hint=f"It fits a budget of at least {trainable + 1:,}.",
        )
    total = _count_model(tensors, head, head_modules, num_labels, config) + adapter_params
    return Plan(
        base=base or str(settings.get("base_model_name_or_path") or ""),
        family=read_family(config).name,
        num_labels=num_labels,
        head=head,
        head_modules=head_modules,
        variant=_read_variant(settings),
        bias=bias,
        trainable_params=trainable,
        adapter_params=adapter_params,
        head_params=head_params,
        bias_params=bias_params,
        total_params=total,
        peft_all_params=total + head_params,
        budget=budget,
        modules=modules,
    )


@dataclass(slots=True)
class _Tensors:
    """An adapter's tensors by role, with module names without PEFT's root."""

    prefix: str = ""
    a: dict[str, tuple[int, ...]] = field(default_factory=dict)
    b: dict[str, tuple[int, ...]] = field(default_factory=dict)
    magnitudes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    biases: dict[str, tuple[int, ...]] = field(default_factory=dict)
    saved: dict[str, tuple[int, ...]] = field(default_factory=dict)


def _fail(folder: Path, problem: str) -> ModelError:
    return ModelError(
        f"the weights do not fit the configuration: {problem}",
        where=str(folder),
        hint=f"{WEIGHTS_NAME} and {CONFIG_NAME} must come from one save, for the base model that was given.",
    )


def _read_weights(folder: Path) -> dict[str, tuple[int, ...]]:
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        if (folder / "adapter_model.bin").is_file():
            raise ModelError(
                "adapter_model.bin is a pickle, which can run any code, and is not opened",
                where=str(folder),
                hint=f"Save the adapter as {WEIGHTS_NAME}.",
            )
        raise ModelError(f"there is no {WEIGHTS_NAME}", where=str(folder), hint="Give a folder with a saved adapter.")
    return read_tensor_shapes(path)


def _sort_tensors(shapes: Mapping[str, tuple[int, ...]], config: JsonView, folder: Path) -> _Tensors:
    tensors = _Tensors()
    lora_parts = {".lora_A.weight": tensors.a, ".lora_B.weight": tensors.b}
    lora_parts |= dict.fromkeys((".lora_magnitude_vector", ".lora_magnitude_vector.weight"), tensors.magnitudes)
    others: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        if not key.startswith(_ROOT):
            raise _fail(folder, f"the tensor {key!r} does not begin with {_ROOT!r}")
        name = key.removeprefix(_ROOT)
        suffix = next((suffix for suffix in lora_parts if name.endswith(suffix)), None)
        if suffix:
            lora_parts[suffix][name.removesuffix(suffix)] = shape
        elif "lora_" in name:
            raise _fail(folder, f"the tensor {key!r} is not part of a LoRA on linear layers")
        elif not is_copy(name):
            others[name.replace(".base_layer.", ".")] = shape
    if not tensors.a:
        raise _fail(folder, "there is no LoRA matrix among them")
    prefix = f"{get_model_prefix(config)}."
    tensors.prefix = prefix if all(name.startswith(prefix) for name in tensors.a) else ""
    biases = _list_biases(config, tensors.prefix)
    for name, shape in others.items():
        # If a module's weight is saved as well, the whole module was trained, and its bias is part of it.
        whole = f"{name.rpartition('.')[0]}.weight" in others
        if name in biases and not whole and shape != (biases[name],):
            raise _fail(folder, f"{name} has the shape {list(shape)}, in the base model it has {[biases[name]]}")
        (tensors.biases if name in biases and not whole else tensors.saved)[name] = shape
    return tensors


def is_copy(name: str) -> bool:
    """Return whether a tensor of an adapter file is a copy of another one, or of a frozen tensor of the base."""
    # With bias="all", PEFT also writes other tensors, because its filter looks for the word "bias": biases of its
    # frozen copy of the head, biases of the trained head a second time, and MPNet's frozen table.
    return ".original_module." in name or ".modules_to_save." in name or name.endswith("relative_attention_bias.weight")


def _list_biases(config: JsonView, prefix: str) -> dict[str, int]:
    """Return the size of every bias that ``bias="all"`` may train, by parameter name."""
    sizes = {f"{prefix}{m.name}.bias": m.bias for m in list_modules(config, pooler=True) if m.bias}
    native = list_head_modules(config, head="native", num_labels=2)
    return sizes | {f"{m.name}.bias": m.num_biases for m in native if m.provided and m.num_biases}


def _list_targets(config: JsonView) -> list[Linear]:
    """List the linear layers that an adapter may target: first those in layers, then the pooler of a native head."""
    linears, family = list_linears(config), read_family(config)
    if family.pooler and family.head_reads_pooler:
        width = read_hidden_size(config)
        linears.append(Linear(family.pooler, "pooler", linears[-1].layer + 1, width, width, True))
    return linears


def _check_targets(tensors: _Tensors, settings: JsonView, config: JsonView, folder: Path) -> None:
    names = {tensors.prefix + linear.name for linear in _list_targets(config)}
    unknown = sorted(tensors.a.keys() - names)
    if unknown:
        raise _fail(folder, f"{unknown[0]!r} is not a linear layer of this {read_family(config).name} model")
    targets, excluded = settings.get("target_modules"), settings.get("exclude_modules")
    layers = settings.get("layers_to_transform")
    if layers is not None and layers != []:
        allowed = [layers] if isinstance(layers, int) else layers
        inside = {tensors.prefix + linear.name for linear in _list_targets(config) if linear.layer in allowed}
        if outside := sorted(tensors.a.keys() - inside):
            raise _fail(folder, f"{outside[0]!r} has an adapter but is not in layers_to_transform {layers!r:.200}")
    if excluded and (stray := sorted(name for name in tensors.a if _matches(excluded, name, folder))):
        raise _fail(folder, f"{stray[0]!r} has an adapter but is in exclude_modules {excluded!r:.200}")
    if targets is None or targets == "all-linear":
        return
    stray = sorted(name for name in tensors.a if not _matches(targets, name, folder))
    if stray:
        raise _fail(folder, f"{stray[0]!r} has an adapter but is not in target_modules {targets!r:.200}")
    if layers is None and not excluded:
        left = {name for name in names - tensors.a.keys() if not is_saved_whole(name, settings)}
        absent = sorted(name for name in left if _matches(targets, name, folder))
        if absent:
            raise _fail(folder, f"{absent[0]!r} is in target_modules but has no adapter")


def _matches(targets: Any, name: str, folder: Path) -> bool:
    # PEFT reads a string as a pattern for the whole name, and the entries of a list as ends of the name.
    if isinstance(targets, str):
        return _match_pattern(targets, name, folder)
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _match_pattern(pattern: str, name: str, folder: Path) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise _fail(folder, f"{pattern!r} is not a valid pattern: {error}") from None


def _find_by_pattern(settings: JsonView, key: str, default: Any, name: str, folder: Path) -> float:
    """Return a module's rank or alpha as PEFT does: by the first pattern that matches, otherwise the default."""
    value = default
    for pattern, candidate in (settings.get(key) or {}).items():
        if _match_pattern(rf"(.*\.)?({pattern})", name, folder):
            value = candidate
            break
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise _fail(folder, f"{value!r} is not a rank or alpha for {name!r}")
    return value


def _plan_modules(tensors: _Tensors, settings: JsonView, config: JsonView, folder: Path) -> tuple[PlannedModule, ...]:
    dora = bool(settings.get("use_dora"))
    if tensors.a.keys() != tensors.b.keys():
        raise _fail(folder, f"{sorted(tensors.a.keys() ^ tensors.b.keys())[0]!r} has only one of its two matrices")
    if tensors.magnitudes.keys() != (tensors.a.keys() if dora else set()):
        raise _fail(folder, f"use_dora is {dora}, but {len(tensors.magnitudes)} modules have magnitudes")
    targets = [linear for linear in _list_targets(config) if tensors.prefix + linear.name in tensors.a]
    return tuple(_plan_module(tensors, linear, settings, folder) for linear in targets)


def _plan_module(tensors: _Tensors, linear: Linear, settings: JsonView, folder: Path) -> PlannedModule:
    name = tensors.prefix + linear.name
    rank = int(_find_by_pattern(settings, "rank_pattern", settings.get("r", _DEFAULT), name, folder))
    alpha = _find_by_pattern(settings, "alpha_pattern", settings.get("lora_alpha", _DEFAULT), name, folder)
    expected = {
        "lora_A": (tensors.a[name], (rank, linear.in_features)),
        "lora_B": (tensors.b[name], (linear.out_features, rank)),
        "magnitude": (tensors.magnitudes.get(name, (linear.out_features,)), (linear.out_features,)),
    }
    for part, (found, wanted) in expected.items():
        if found != wanted:
            raise _fail(folder, f"{part} of {name} has the shape {list(found)}, expected {list(wanted)}")
    params = sum(math.prod(found) for part, (found, _) in expected.items() if part != "magnitude")
    return PlannedModule(
        name=name,
        kind=linear.kind,
        layer=linear.layer,
        in_features=linear.in_features,
        out_features=linear.out_features,
        rank=rank,
        alpha=float(alpha),
        scaling=alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank),
        params=params + math.prod(tensors.magnitudes.get(name, (0,))),
    )


def _read_variant(settings: JsonView) -> Variant:
    if settings.get("use_dora"):
        return "dora"
    # PiSSA changes the base's weights. rsLoRA changes only the scalings, which are in the plan's modules.
    if settings.get("init_lora_weights") == "pissa":
        return "pissa"
    return "rslora" if settings.get("use_rslora") else "lora"


def _read_head(
    tensors: _Tensors, settings: JsonView, config: JsonView, folder: Path
) -> tuple[HeadKind, tuple[HeadModule, ...], int]:
    modules = _group_modules(tensors.saved)
    wanted = settings.get("modules_to_save") or []
    for name in modules:
        if not is_saved_whole(name, settings):
            raise _fail(folder, f"{name!r} was saved whole but is not in modules_to_save {wanted!r}")
        # PEFT makes a copy of the copy, trains the inner one, and writes the outer one.
        if outer := find_nested(name, settings):
            raise _fail(folder, f"modules_to_save {wanted!r} has {name!r} twice, once inside of {outer!r}")
    last = list_head_modules(config, head="native", num_labels=2)[-1].name
    if last in modules:
        num_labels = dict(modules[last].tensors).get("weight", (0,))[0]
        native = list_head_modules(config, head="native", num_labels=num_labels)
        for module in native:
            covered = is_saved_whole(module.name, settings)
            if covered and modules.get(module.name, module) != HeadModule(module.name, module.tensors):
                found = dict(modules[module.name].tensors)
                raise _fail(folder, f"{module.name} holds {found}, expected {dict(module.tensors)}")
            if covered and module.name not in modules:
                raise _fail(folder, f"{module.name!r} is in modules_to_save but has no weights")
        order = {module.name: position for position, module in enumerate(native)}
        return "native", tuple(sorted(modules.values(), key=lambda m: order.get(m.name, -1))), num_labels
    path = next((path for path in (folder / HEAD_NAME, folder.parent / HEAD_NAME) if path.is_file()), None)
    if path is None:
        raise _fail(folder, f"there is no classification head among them ({last!r}), so the classes are unknown")
    shapes = read_tensor_shapes(path)
    num_labels = shapes.get("head.weight", (0,))[0]
    [linear] = list_head_modules(config, head="linear", num_labels=num_labels)
    if shapes != {f"head.{tensor}": shape for tensor, shape in linear.tensors}:
        raise _fail(folder, f"{path.name} holds {shapes}, expected a head.weight and head.bias of this base's width")
    return "linear", (*modules.values(), linear), num_labels


def _group_modules(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, HeadModule]:
    groups: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, shape in shapes.items():
        module, _, tensor = name.rpartition(".")
        groups.setdefault(module, []).append((tensor, shape))
    # "weight" comes before "bias", as in the table of heads.
    return {name: HeadModule(name, tuple(sorted(group, reverse=True))) for name, group in groups.items()}


def _check_biases(tensors: _Tensors, bias: str, config: JsonView, folder: Path) -> None:
    found = tensors.biases.keys()
    least: set[str] = set()
    most: set[str] = set()
    if bias == "all":
        # The bias of a module that was saved whole is part of that module.
        names = {f"{tensors.prefix}{module.name}" for module in list_modules(config) if module.bias}
        least = {f"{name}.bias" for name in names if f"{name}.weight" not in tensors.saved}
        most = set(_list_biases(config, tensors.prefix))
    elif bias == "lora_only":
        linears = {tensors.prefix + linear.name for linear in _list_targets(config) if linear.bias}
        least = most = {f"{name}.bias" for name in tensors.a if name in linears}
    elif bias != "none":
        raise _fail(folder, f"bias is {bias!r}, not none, lora_only or all")
    wrong = sorted((least - found) | (found - most))
    if wrong:
        state = "exists" if wrong[0] in found else "is missing"
        raise _fail(folder, f"bias is {bias!r}, but {wrong[0]} {state}")


def _count_model(
    tensors: _Tensors, head: HeadKind, saved: Sequence[HeadModule], num_labels: int, config: JsonView
) -> int:
    """Count encoder and head once, no matter which of their modules were trained."""
    native = list_head_modules(config, head=head, num_labels=num_labels)
    encoder = list_modules(config, pooler=uses_pooler(config, head))
    known = {tensors.prefix + module.name for module in encoder} | {module.name for module in native}
    total = sum(module.weight + module.bias for module in encoder) + sum(module.params for module in native)
    return total + sum(module.params for module in saved if module.name not in known)
