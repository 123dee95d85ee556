"""What a PEFT adapter folder says of itself: its settings, read whole, and those that are not supported refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from submillion.budget.patterns import explain_slow
from submillion.errors import ModelError

CONFIG_NAME = "adapter_config.json"
# Characters of the longest module name, and ways of all patterns together: a module's name takes a second at most.
_MAX_NAME, _MAX_WAYS = 100, 1e6
_PATTERN_HINT = "Name the modules in full, or by patterns without repeats inside repeats."
_TYPES: dict[str, tuple[type, ...]] = {
    "target_modules": (list, str),
    "exclude_modules": (list, str),
    "layers_to_transform": (list, int),
    "modules_to_save": (list,),
    "rank_pattern": (dict,),
    "alpha_pattern": (dict,),
    "bias": (str,),
    "task_type": (str,),
    "revision": (str,),
    "init_lora_weights": (bool, str),
    "use_rslora": (bool,),
    "use_dora": (bool,),
}
_WHOLE_PATTERNS = ("target_modules", "exclude_modules")
# Each computes something else than one low-rank update of a linear layer, or reads another base.
_UNSUPPORTED = {
    "lora_bias": "adds biases to matrices B",
    "trainable_token_indices": "trains rows of the embeddings",
    "target_parameters": "adapts parameters that are no linear layers",
    "layer_replication": "uses layers of the base more than once",
    "alora_invocation_tokens": "adapts only the tokens after an invocation",
    "use_qalora": "pools what the adapters read",
    "use_bdlora": "divides matrices into blocks",
    "arrow_config": "chooses among several adapters",
    "kasa_config": "adds singular values to the update",
    "monteclora_config": "draws weights at random",
    "megatron_config": "divides layers among processes",
}
# Settings that are supported, or that say nothing of what a loaded adapter computes.
_KNOWN = frozenset(
    {
        *_TYPES,
        *_UNSUPPORTED,
        *("peft_type", "peft_version", "base_model_name_or_path", "auto_mapping", "inference_mode", "r", "lora_alpha"),
        *("lora_dropout", "fan_in_fan_out", "layers_pattern", "loftq_config"),
        *("eva_config", "corda_config", "lora_ga_config", "velora_config", "qalora_group_size", "megatron_core"),
        *("runtime_config", "ensure_weight_tying", "layers_per_block", "enable_lora", "merge_weights"),
    }
)
# Initial values that leave the base as it is; the others take from the base what they put into the adapter.
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
_TASKS = (None, "SEQ_CLS", "FEATURE_EXTRACTION")
_HEADS = ("classifier", "score")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read a PEFT adapter's configuration and check that it is one that can be counted and computed.

    What PEFT adds to ``modules_to_save`` by itself is added: the head of a model that classifies texts.

    Raises:
        ModelError: No such file, damaged, an adapter of another type than LoRA, or one that computes something else.
    """
    path = folder / CONFIG_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"there is no {CONFIG_NAME}", where=str(folder), hint="Give the folder of a saved PEFT adapter."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot be read: {error}", where=str(path), hint="Fetch or save the adapter again.") from None
    if not isinstance(values, dict):
        raise ModelError(f"expected settings, found {type(values).__name__}", where=str(path))
    kind = values.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"an adapter of type {kind!r} cannot be counted", where=str(path), hint="Only LORA can.")
    for key, kinds in _TYPES.items():
        if not isinstance(values.get(key), (*kinds, type(None))):
            raise ModelError(f"{key} is {values[key]!r:.120}", where=str(path), hint="Fetch or save the adapter again.")
    roots = values.get("modules_to_save") or []
    if any(not isinstance(root, str) or not root for root in roots):
        raise ModelError(f"modules_to_save is {roots!r:.120}", where=str(path), hint="Fetch or save the adapter again.")
    _check_patterns(values, path)
    _check_supported(values, path)
    if values.get("task_type") == "SEQ_CLS":
        values["modules_to_save"] = [*roots, *(name for name in _HEADS if name not in roots)]
    return values


def _check_patterns(values: Mapping[str, Any], path: Path) -> None:
    """Refuse patterns that would be matched for ever, before one is matched with anything."""
    keys = [*(values.get("rank_pattern") or ()), *(values.get("alpha_pattern") or ())]
    # PEFT matches these keys at the end of a name, and these settings with the whole of it.
    patterns = {key: rf"(.*\.)?({key})" for key in keys}
    patterns |= {values[key]: values[key] for key in _WHOLE_PATTERNS if isinstance(values.get(key), str)}
    reason = explain_slow(patterns, _MAX_NAME, _MAX_WAYS)
    if reason:
        raise ModelError(reason, where=str(path), hint=_PATTERN_HINT)


def _check_supported(values: Mapping[str, Any], path: Path) -> None:
    """Refuse what would be loaded as if it were a plain update, and give other probabilities than PEFT does."""
    for key, effect in _UNSUPPORTED.items():
        if values.get(key):
            raise ModelError(f"{key} {effect}, which is not supported", where=str(path))
    task, mapping = values.get("task_type"), values.get("auto_mapping")
    kind = str(mapping.get("base_model_class")) if isinstance(mapping, dict) else ""
    if task not in _TASKS or ("For" in kind and not kind.endswith("ForSequenceClassification")):
        raise ModelError(
            f"the adapter was trained for {kind if task in _TASKS else task}, which does not classify whole texts",
            where=str(path),
            hint="Give an adapter of the task SEQ_CLS.",
        )
    start = values.get("init_lora_weights")
    if start not in _PLAIN_INITS and (start != "pissa" or values.get("use_dora")):
        raise ModelError(
            f"init_lora_weights is {start!r:.60}: it took parts of the base into the adapter, and the rest is not here",
            where=str(path),
            hint="Give one that began with true, gaussian or pissa: PEFT's conversion to LoRA leaves out the head.",
        )


def check_head_kind(config: Mapping[str, Any]) -> None:
    """Refuse a base whose head gives no probabilities of classes of which one is right.

    Raises:
        ModelError: Its configuration names another kind of problem.
    """
    kind = config.get("problem_type")
    if kind not in (None, "single_label_classification"):
        raise ModelError(
            f"problem_type of the base is {kind!r:.60}, and only one class of each text is told here",
            where="config.json",
            hint="Give an adapter whose base says single_label_classification, or nothing.",
        )


def describe_unknown(folder: Path) -> tuple[str, ...]:
    """Return a sentence about the settings that no version known here has, and that are set; none, none."""
    values = read_adapter_config(folder)
    unknown = sorted(key for key, value in values.items() if key not in _KNOWN and value)
    if not unknown:
        return ()
    version = values.get("peft_version")
    return (
        f"{CONFIG_NAME} has settings that are not known here and were not used: {', '.join(unknown):.200}"
        f"{f' (PEFT {version})' if version else ''}; compare some predictions with PEFT's own",
    )


def read_adapter_base(folder: Path) -> str:
    """Return the name of the base model that an adapter was trained on.

    Raises:
        ModelError: The configuration is missing, damaged, or names none.
    """
    base = read_adapter_config(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"base_model_name_or_path is {base!r}", where=str(folder / CONFIG_NAME), hint="Name the base by --base."
        )
    return base


def choose_base(folder: Path, base: str | None) -> tuple[str, str | None]:
    """Return the base model of an adapter folder and its revision: the one asked for, else the one it names.

    Raises:
        ModelError: As `read_adapter_base`.
    """
    if base is not None:
        return base, None
    name = read_adapter_base(folder)
    # A folder has no revisions, and PEFT does not look for one in it.
    return name, None if Path(name).is_dir() else read_adapter_config(folder).get("revision") or None


def is_saved_whole(name: str, settings: Mapping[str, Any]) -> bool:
    """Return whether modules_to_save covers a module."""
    return bool(_list_saved_owners(name, settings))


def find_nested(name: str, settings: Mapping[str, Any]) -> str | None:
    """Return the saved module inside of which a module is saved once more, or None."""
    owners = _list_saved_owners(name, settings)
    return owners[0] if len(owners) > 1 else None


def _list_saved_owners(name: str, settings: Mapping[str, Any]) -> list[str]:
    # PEFT compares the entries with the endings of names.
    parts = name.split(".")
    owners = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    roots = settings.get("modules_to_save") or ()
    return [owner for owner in owners if any(owner.endswith(root) for root in roots)]
