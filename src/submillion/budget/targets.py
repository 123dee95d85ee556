"""The linear layers that an adapter targets and their fixed ranks, by kind or by full module name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from submillion.budget.count import ENCODER_KINDS, Linear, list_linears, read_num_layers
from submillion.budget.families import read_family
from submillion.budget.head_counts import get_model_prefix
from submillion.config.run import AdapterConfig
from submillion.errors import ConfigError

_FUSED = ("query", "key", "value")


def list_targets(config: Mapping[str, object], adapter: AdapterConfig) -> list[Linear]:
    """List the linear layers that an adapter configuration targets, in model order.

    Kinds are narrowed by ``adapter.layers``; a full name (with or without the stock model's prefix, such as
    ``roberta.``) counts whatever the layers say.

    Raises:
        ConfigError: The model has no such name, a layer number is out of range, or the layers have no effect.
    """
    linears = list_linears(config)
    layers = check_layers(config, adapter)
    chosen: set[str] = set()
    for target in adapter.targets:
        found = find_linears(config, target, linears, where="adapter.targets")
        by_name = len(found) == 1 and is_full_name(config, target, found[0])
        chosen.update(linear.name for linear in found if by_name or linear.layer in layers)
    return [linear for linear in linears if linear.name in chosen]


def list_fixed_ranks(config: Mapping[str, object], adapter: AdapterConfig, targets: Sequence[Linear]) -> dict[str, int]:
    """Resolve ``adapter.ranks`` to one rank per module name; a full name wins over a kind.

    Raises:
        ConfigError: An entry matches none of the targets.
    """
    by_kind: dict[str, int] = {}
    by_name: dict[str, int] = {}
    for key, rank in adapter.ranks.items():
        found = find_linears(config, key, list_linears(config), where="adapter.ranks")
        matched = [linear for linear in targets if linear in found]
        if not matched:
            raise ConfigError(
                f"{key!r} is not a target of the adapter",
                where="adapter.ranks",
                hint=_suggest(key, [linear.name for linear in targets] + sorted({linear.kind for linear in targets})),
            )
        named = len(found) == 1 and is_full_name(config, key, found[0])
        (by_name if named else by_kind).update({linear.name: rank for linear in matched})
    return by_kind | by_name


def check_layers(config: Mapping[str, object], adapter: AdapterConfig) -> frozenset[int]:
    """Return the layer numbers that an adapter configuration allows.

    Raises:
        ConfigError: There is no layer, a number is out of range, or all targets are full names, which layers do not
            affect.
    """
    num_layers = read_num_layers(config)
    if adapter.layers is None:
        return frozenset(range(num_layers))
    if not adapter.layers:
        raise ConfigError("no layer is left to adapt: []", where="adapter.layers", hint="Leave it out for all layers.")
    outside = sorted(layer for layer in set(adapter.layers) if layer >= num_layers)
    if outside:
        raise ConfigError(
            f"layers {outside} do not exist: the model has {num_layers}, numbered 0 to {num_layers - 1}",
            where="adapter.layers",
            hint="Remove them, or pick numbers within the model.",
        )
    if all("." in target for target in adapter.targets):
        raise ConfigError(
            f"layers {list(adapter.layers)} have no effect: every target is a full module name",
            where="adapter.layers",
            hint="Leave layers out, or target kinds.",
        )
    return frozenset(adapter.layers)


def is_full_name(config: Mapping[str, object], target: str, linear: Linear) -> bool:
    """Return whether a target is this linear layer's module name, with or without the stock model's prefix."""
    return target in (linear.name, f"{get_model_prefix(config)}.{linear.name}")


def find_linears(config: Mapping[str, object], target: str, linears: Sequence[Linear], *, where: str) -> list[Linear]:
    """Find the linear layers in all layers that a kind, ``all`` or a full module name means.

    Raises:
        ConfigError: The model has none. The message says what it has instead.
    """
    kinds = sorted({linear.kind for linear in linears})
    if target == "all":
        return [linear for linear in linears if linear.kind in ENCODER_KINDS]
    if target in kinds:
        return [linear for linear in linears if linear.kind == target]
    named = [linear for linear in linears if is_full_name(config, target, linear)]
    if named:
        return named
    family = read_family(config).name
    if target in _FUSED and "qkv" in kinds:
        fused = next(linear for linear in linears if linear.kind == "qkv")
        raise ConfigError(
            f"{target!r} is not a separate matrix in {family}: it is part of the fused {fused.name.rsplit('.', 1)[-1]}",
            where=where,
            hint=f"Target 'qkv' for the whole fused matrix; {family} has the kinds {', '.join(kinds)}.",
        )
    if target in (*ENCODER_KINDS, "pos_key", "pos_query"):
        raise ConfigError(
            f"{family} has no linear layers of the kind {target!r}",
            where=where,
            hint=f"It has the kinds {', '.join(kinds)}; `all` stands for {', '.join(_list_kinds(kinds))}.",
        )
    prefix = f"{get_model_prefix(config)}."
    candidates = [*kinds, "all", *(name for linear in linears for name in (linear.name, prefix + linear.name))]
    raise ConfigError(
        f"{target!r} is neither a kind nor a linear layer of this {family} model",
        where=where,
        hint=_suggest(target, candidates, shown=[*_list_kinds(kinds), "all", linears[0].name]),
    )


def _list_kinds(kinds: Sequence[str]) -> list[str]:
    return [kind for kind in ENCODER_KINDS if kind in kinds]


def _suggest(name: str, candidates: Sequence[str], shown: Sequence[str] = ()) -> str:
    close = difflib.get_close_matches(name, candidates, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"For example: {', '.join(shown or sorted(set(candidates))[:8])}."
