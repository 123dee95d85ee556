"""Recipes on other bases: layers are mapped to the new depth, and module names to the new family."""

from __future__ import annotations

from collections.abc import Mapping

from submillion.budget.count import Linear, list_linears, read_num_layers
from submillion.budget.families import read_family
from submillion.budget.targets import check_layers, find_linears, is_full_name
from submillion.config.run import AdapterConfig


def map_layer(layer: int, num_layers: int, new_num_layers: int) -> int:
    """Map a layer number proportionally to another depth: first to first, last to last, with halves rounded up.

    Args:
        layer: Layer number in ``0..num_layers-1``.
        num_layers: Depth that the number refers to.
        new_num_layers: Depth that it is mapped to.
    """
    if num_layers == 1:
        return 0
    span, new_span = num_layers - 1, new_num_layers - 1
    return (2 * layer * new_span + span) // (2 * span)


def adapt_to_base(
    adapter: AdapterConfig, *, recipe_config: Mapping[str, object], config: Mapping[str, object]
) -> tuple[AdapterConfig, list[str]]:
    """Rewrite an adapter's layers and names from one base model to another.

    Kinds are unchanged, `map_layer` maps layer numbers, and a full module name becomes the module of the same kind in
    the mapped layer. Entries that become equal are merged: duplicate targets are dropped, and the largest rank is kept.

    Args:
        adapter: Adapter settings of the recipe.
        recipe_config: ``config.json`` of the base that the recipe was written for.
        config: ``config.json`` of the base to use.

    Returns:
        The rewritten configuration, and one readable line for every change.

    Raises:
        ConfigError: One of the two bases lacks a kind or module, or has it only inside a fused matrix, or the recipe's
            base lacks a layer.
    """
    depth, new_depth = read_num_layers(recipe_config), read_num_layers(config)
    lines: list[str] = []
    updates: dict[str, object] = {}
    if adapter.layers is not None and depth != new_depth:
        check_layers(recipe_config, adapter)
        mapped = {layer: map_layer(layer, depth, new_depth) for layer in sorted(set(adapter.layers))}
        layers = tuple(sorted(set(mapped.values())))
        updates["layers"] = layers
        lines.append(f"layers of {depth} to {new_depth}: {', '.join(f'{old} -> {new}' for old, new in mapped.items())}")
        if len(layers) < len(mapped):
            lines.append(f"layers that became equal were merged: {len(mapped)} -> {len(layers)}")

    targets: dict[str, str] = {}
    for target in adapter.targets:
        name = _map_name(target, recipe_config, config, where="adapter.targets")
        if name in targets:
            lines.append(f"{target} -> {name}, merged with {targets[name]}")
        elif name != target:
            lines.append(f"{target} -> {name}")
        targets.setdefault(name, target)
    updates["targets"] = tuple(targets)

    ranks: dict[str, int] = {}
    for key, rank in adapter.ranks.items():
        name = _map_name(key, recipe_config, config, where="adapter.ranks")
        kept = max(rank, ranks.get(name, 0))
        if name in ranks and ranks[name] != rank:
            lines.append(f"rank {rank} of {key} -> {name}, merged: rank {kept}")
        elif name != key:
            lines.append(f"rank {rank} of {key} -> {name}")
        ranks[name] = kept
    updates["ranks"] = ranks
    return adapter.model_copy(update=updates), lines


def _map_name(name: str, recipe_config: Mapping[str, object], config: Mapping[str, object], *, where: str) -> str:
    linears = list_linears(config)
    source = _find_named(name, recipe_config)
    if source is None:
        # This is a kind or a module of the new base, so it must exist there and is unchanged.
        find_linears(config, name, linears, where=where)
        return name
    same = read_family(recipe_config) == read_family(config)
    if same and read_num_layers(recipe_config) == read_num_layers(config):
        return name
    layer = map_layer(source.layer, read_num_layers(recipe_config), read_num_layers(config))
    candidates = find_linears(config, source.kind, linears, where=where)
    return next(linear.name for linear in candidates if linear.layer == layer)


def _find_named(name: str, config: Mapping[str, object]) -> Linear | None:
    return next((linear for linear in list_linears(config) if is_full_name(config, name, linear)), None)
