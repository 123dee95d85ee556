"""Stock models of transformers, built from a configuration and safetensors that were read here.

No library opens a file of the folder. Entries of config.json that name code, other files, repositories, kernels or
quantisers never reach a library, and weights come only from the safetensors files.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from submillion.errors import ModelError
from submillion.model.base_files import list_weights, read_config, read_safetensors
from submillion.model.untyped import Stock

# Configuration classes accept these names besides their declared fields: settings that models read without declaring
# them, older spellings, and the mark of a language model that was trained on a few rows only.
JUNK_KEY = "trained_from_scratch"
_OLDER_NAMES = frozenset(
    {
        "attention_head_size",
        "cls_dropout",
        "conv_act",
        "conv_groups",
        "conv_kernel_size",
        "embedding_size",
        "global_attn_every_n_layers",
        "global_rope_theta",
        "local_rope_theta",
        "norm_rel_ebd",
        "partial_rotary_factor",
        "pooler_hidden_size",
        "position_buckets",
        "rope_local_base_freq",
        "rope_scaling",
        "rope_theta",
        "share_att_key",
        "sliding_window_pattern",
        JUNK_KEY,
    }
)
_ROPE_NAMES = frozenset({"rope_parameters", "rope_scaling"})
Task = Literal["encoder", "classifier", "language model"]


@dataclass(frozen=True)
class StockModel:
    """A stock model with weights.

    Attributes:
        model: Model of transformers, in float32, on the CPU.
        missing: Names of the parameters that the files do not hold.
    """

    model: Stock
    missing: tuple[str, ...]


def build_stock_config(values: Mapping[str, object], *, where: str) -> Stock:
    """Return the transformers configuration that a config.json describes.

    Only fields of the family's own class with plain values are used. Fields that all families share are left out: they
    name code, kernels, quantisers and files, or the caller sets them.

    Args:
        values: Contents of the file.
        where: The file or folder, for messages.

    Raises:
        ModelError: transformers has no such family, or a value does not fit.
    """
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family = values.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        raise ModelError(
            f"models of type {family!r:.80} are not part of transformers",
            where=where,
            hint="Code of a repository is never run; give a model of an architecture that transformers has itself.",
        )
    kind: Stock = CONFIG_MAPPING[family]
    names = set(_OLDER_NAMES) | set(kind.attribute_map)
    for owner in kind.__mro__[: kind.__mro__.index(PreTrainedConfig)]:
        names |= inspect.get_annotations(owner).keys()
    taken = {name: value for name, value in values.items() if name in names and _is_plain(name, value)}
    try:
        return kind(**taken)
    except Exception as error:  # the classes check their fields with errors of several libraries
        raise ModelError(f"is not the configuration of a {family}: {_first_line(error)}", where=where) from None


def _is_plain(name: str, value: object) -> bool:
    if name in _ROPE_NAMES and isinstance(value, dict):
        inner = [entry for part in value.values() for entry in (part.values() if isinstance(part, dict) else [part])]
        return all(_is_plain("", entry) for entry in inner)
    if isinstance(value, list):
        return all(isinstance(entry, str | int | float) for entry in value)
    return value is None or isinstance(value, str | int | float)


def load_stock_model(folder: Path, task: Task, *, config: Stock, attention: str, **options: object) -> StockModel:
    """Build a stock model in float32 with the weights of a folder.

    Args:
        folder: Folder with the safetensors files.
        task: Task that selects one of the family's classes.
        config: Configuration from `build_stock_config`.
        attention: Name of the attention implementation.
        **options: Options for the model class.

    Raises:
        ModelError: The family has no such class, or a file is missing, damaged or does not fit.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    autos: dict[str, Stock] = {"encoder": AutoModel, "classifier": AutoModelForSequenceClassification}
    mapping: Stock = autos.get(task, AutoModelForCausalLM)._model_mapping
    if type(config) not in mapping:
        raise ModelError(f"transformers has no {task} of type {config.model_type!r}", where=str(folder))
    kind = mapping[type(config)]
    weights: dict[str, torch.Tensor] = {}
    for name in list_weights([path.name for path in folder.iterdir()]):
        weights |= read_safetensors(folder / name)
    with quiet_loading():
        try:
            model, info = kind.from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=torch.float32,
                attn_implementation=attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that the error below can name them
                **options,
            )
        except Exception as error:  # several libraries raise errors for contradictory sizes
            raise ModelError(f"cannot be loaded: {_first_line(error)}", where=str(folder)) from None
    strange = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    if strange:
        raise ModelError(
            f"cannot be loaded: {len(strange)} tensors have other sizes than config.json says, such as {strange[0]}",
            where=str(folder),
            hint="config.json and the weights must come from one save.",
        )
    return StockModel(model, tuple(sorted(info["missing_keys"])))


def read_stock_config(folder: Path) -> Stock:
    """Return the transformers configuration that a folder's config.json describes.

    Raises:
        ModelError: The file is missing or damaged, or `build_stock_config` refuses it.
    """
    return build_stock_config(read_config(folder), where=str(folder))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers from showing progress bars and reports while it loads or saves."""
    # The load report lists new head tensors, which may alarm users; the caller checks which ones may be new.
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.enable_progress_bar()
