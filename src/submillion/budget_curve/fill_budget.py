"""How a recipe fills a budget, large or small: by rank first, then on fewer layers, then on fewer matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from submillion.budget.count import Linear
from submillion.budget.plan import Plan, make_plan
from submillion.budget.targets import list_targets
from submillion.config.run import RunConfig
from submillion.errors import BudgetError, ConfigError

_BUDGET = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[kKmM]?)")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
# What LoRA was first applied to: E. J. Hu et al., arXiv:2106.09685, section 4.2. `qkv` is their fused matrix.
_FIRST_KINDS = ("query", "value", "qkv")


@dataclass(frozen=True)
class Filled:
    """A recipe in one budget.

    Attributes:
        config: The recipe with this budget and what fills it.
        plan: Plan of the parameters, strictly below the budget.
        how: One clause about the parts that carry the update, and the parts of the recipe that did not fit.
    """

    config: RunConfig
    plan: Plan
    how: str


def parse_budgets(given: str | Sequence[int | str]) -> tuple[int, ...]:
    """Return budgets in ascending order, from ``10k,30k,1M`` or a sequence of numbers and such words.

    Raises:
        ConfigError: None, one that is no whole number above zero, or one that is given twice.
    """
    words = given.split(",") if isinstance(given, str) else list(given)
    budgets = [_parse_budget(word) for word in words]
    if not budgets:
        raise ConfigError("no budget is given", where="budgets", hint="For example 10k,30k,100k,300k,1M.")
    repeated = sorted({budget for budget in budgets if budgets.count(budget) > 1})
    if repeated:
        raise ConfigError(f"{repeated[0]:,} is given twice", where="budgets", hint="Give each budget once.")
    return tuple(sorted(budgets))


def _parse_budget(given: int | str) -> int:
    if isinstance(given, bool) or not isinstance(given, (int, str)):
        value = 0.0
    elif isinstance(given, int):
        value = float(given)
    else:
        found = _BUDGET.fullmatch(given.strip())
        value = round(float(found["number"]) * _UNITS[found["unit"].lower()], 6) if found else 0.0
    if value < 1 or not value.is_integer():
        raise ConfigError(
            f"{given!r} is no number of parameters",
            where="budgets",
            hint="Whole numbers above zero, with k for thousands and M for millions: 10k,30k,1M.",
        )
    return int(value)


def fill_budget(config: RunConfig, base_config: Mapping[str, object], *, num_labels: int, budget: int) -> Filled:
    """Choose what trains below a budget.

    It is the first of these that fits, at the largest rank that fits:

    1. the recipe's own targets;
    2. these targets in the top k layers only, for the largest k: adapters near the output matter most (N. Houlsby et
       al., "Parameter-efficient transfer learning for NLP", ICML 2019, section 3.6);
    3. of these the query and value matrices only, in the top k layers;
    4. one of them, in the top layer.

    Where not even the last one fits, the same again without trained biases, then with a linear head. Ranks that the
    recipe gives, one for all or single ones, make room for the largest uniform rank.

    Args:
        config: The recipe; its own budget has no effect.
        base_config: The base model's ``config.json``.
        num_labels: Number of classes C.
        budget: Limit that trainable parameters stay strictly below.

    Raises:
        ConfigError: Targets that the base model has not.
        BudgetError: Nothing fits; says what the smallest choice costs.
    """
    smallest = math.inf
    for model, bias, left_out in _list_frames(config):
        for targets, how in _list_choices(config, base_config):
            adapter = config.adapter.model_copy(update={"rank": "auto", "ranks": {}, "bias": bias, **targets})
            frame = {"base": config.model.base, "num_labels": num_labels, "model": model, "adapter": adapter}
            try:
                plan = make_plan(base_config, **frame, budget=budget)
            except BudgetError:
                least = make_plan(
                    base_config, **{**frame, "adapter": adapter.model_copy(update={"rank": 1})}, budget=2**62
                )
                smallest = min(smallest, least.trainable_params)
                continue
            changed = config.model_copy(update={"budget": budget, "adapter": adapter, "model": model})
            return Filled(changed, plan, ", ".join((f"rank {plan.modules[0].rank} on {how}", *left_out)))
    raise BudgetError(
        f"nothing of {config.name} fits below {budget:,} trainable parameters",
        where="budgets",
        hint=f"The smallest adapter with its head has {smallest:,.0f}; give a budget of at least {smallest + 1:,.0f}.",
    )


def _list_frames(config: RunConfig) -> Iterator[tuple[Any, str, tuple[str, ...]]]:
    """Yield heads and biases to try: the recipe's, without biases, with a linear head."""
    yield config.model, config.adapter.bias, ()
    if config.adapter.bias != "none":
        yield config.model, "none", ("no biases",)
    if config.model.head != "linear":
        yield config.model.model_copy(update={"head": "linear"}), "none", ("a linear head",)


def _list_choices(config: RunConfig, base_config: Mapping[str, object]) -> Iterator[tuple[dict[str, object], str]]:
    """Yield what to target, from the recipe's own targets down to one matrix."""
    linears = list_targets(base_config, config.adapter)
    yield {}, f"all {len(linears)} matrices of the recipe"
    for chosen, kinds in ((linears, "all kinds"), ([x for x in linears if x.kind in _FIRST_KINDS], "query and value")):
        layers = sorted({linear.layer for linear in chosen})
        start = 1 if chosen == linears else 0
        for number in range(start, len(layers)):
            kept = [linear for linear in chosen if linear.layer >= layers[number]]
            top = "top layer" if number == len(layers) - 1 else f"top {len(layers) - number} layers"
            yield _name(kept), f"{kinds} of the {top} ({len(kept)} matrices)"
    last = next((x for x in reversed(linears) if x.kind in _FIRST_KINDS), linears[-1])
    yield _name([last]), f"the {last.kind} matrix of layer {last.layer}"


def _name(linears: Sequence[Linear]) -> dict[str, object]:
    return {"targets": tuple(linear.name for linear in linears), "layers": None}
