"""Names of the biases that a plan trains, for comparison with those that train in a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from submillion.budget.count import list_modules
from submillion.budget.head_counts import get_model_prefix, list_head_modules, uses_pooler
from submillion.budget.plan import Plan


def list_trained_biases(config: Mapping[str, Any], plan: Plan) -> list[str]:
    """List the encoder biases that a plan trains, by parameter name in the saved model.

    Biases of trained head modules are not among them; they belong to the head.
    """
    prefix = f"{get_model_prefix(config)}." if plan.head == "native" else ""
    if plan.bias == "none":
        return []
    modules = list_modules(config, pooler=uses_pooler(config, plan.head))
    if plan.bias == "lora_only":
        names = {module.name for module in plan.modules}
        return [f"{prefix}{module.name}.bias" for module in modules if module.bias and prefix + module.name in names]
    frozen = [m for m in list_head_modules(config, head=plan.head, num_labels=plan.num_labels) if m.provided]
    return [f"{prefix}{module.name}.bias" for module in modules if module.bias] + [
        f"{module.name}.bias" for module in frozen if module.num_biases
    ]
