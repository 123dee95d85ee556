"""Plans: every trainable parameter of a run, chosen and counted before any weight is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from submillion.budget.count import Linear, count_biases, count_encoder
from submillion.budget.families import read_family
from submillion.budget.head_counts import HeadKind, HeadModule, get_model_prefix, list_head_modules, uses_pooler
from submillion.budget.targets import list_fixed_ranks, list_targets
from submillion.config.run import AdapterConfig, ModelConfig, Variant
from submillion.errors import BudgetError, ConfigError, RunError


@dataclass(frozen=True, slots=True)
class PlannedModule:
    """One linear layer that gets a low-rank update.

    Attributes:
        name: Module name in the saved model, which has the stock model's prefix for native heads only.
        kind: Role of the layer (query, ffn_in, ...).
        layer: Layer number from 0.
        in_features: Width of the input.
        out_features: Width of the output.
        rank: Rank R of the update.
        alpha: Numerator of the scaling.
        scaling: Factor on the update: alpha/R, or alpha/sqrt(R) for rsLoRA.
        params: Number of trained parameters: R*(in + out), plus the magnitudes (out) for DoRA.
    """

    name: str
    kind: str
    layer: int
    in_features: int
    out_features: int
    rank: int
    alpha: float
    scaling: float
    params: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The list of every trainable parameter of a run.

    Attributes:
        base: The base model's name.
        family: ``model_type`` of the base model.
        num_labels: Number of classes C.
        head: ``native`` or ``linear``.
        head_modules: Head modules that train, in the order of computation; the last gives the logits.
        variant: Kind of low-rank update.
        bias: Setting that says which encoder biases train.
        trainable_params: adapter_params + head_params + bias_params, strictly below the budget.
        adapter_params: Number of parameters of the low-rank updates.
        head_params: Number of parameters of the trained head modules, including biases.
        bias_params: Number of trained biases outside the trained head.
        total_params: Number of parameters of the whole model, with the head counted once.
        peft_all_params: Count of all parameters by PEFT's `get_nb_trainable_parameters`, which includes the trained
            head twice, since PEFT keeps a frozen copy.
        budget: Limit for the trainable parameters.
        modules: The adapted linear layers, in model order.
    """

    base: str
    family: str
    num_labels: int
    head: HeadKind
    head_modules: tuple[HeadModule, ...]
    variant: Variant
    bias: Literal["none", "lora_only", "all"]
    trainable_params: int
    adapter_params: int
    head_params: int
    bias_params: int
    total_params: int
    peft_all_params: int
    budget: int
    modules: tuple[PlannedModule, ...]

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """The trainable parameters by part, for display: the adapter by kind, the head by module, and biases."""
        kinds: dict[str, int] = {}
        for module in self.modules:
            kinds[f"adapter {module.kind}"] = kinds.get(f"adapter {module.kind}", 0) + module.params
        rows = [*kinds.items(), *((_label_head(head), head.params) for head in self.head_modules)]
        if self.bias_params:
            rows.append((f"biases ({self.bias})", self.bias_params))
        return tuple(rows)

    def to_json(self) -> dict[str, object]:
        """Return the plan as JSON types; `from_json` reads it back."""
        values: dict[str, object] = _PLAN_TYPE.dump_python(self, mode="json")
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, object], *, where: str = "plan.json") -> Plan:
        """Rebuild a plan and check that its sums hold.

        Raises:
            RunError: Entries are missing or wrong, or counts contradict each other.
        """
        hint = "The file is damaged; plan.json is written once and not meant to be edited."
        try:
            plan = _PLAN_TYPE.validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(str(part) for part in first["loc"])
            raise RunError(f"{path}: {first['msg']}", where=where, hint=hint) from None
        sums = {
            "adapter_params": sum(module.params for module in plan.modules),
            "head_params": sum(module.params for module in plan.head_modules),
            "trainable_params": plan.adapter_params + plan.head_params + plan.bias_params,
        }
        for module in plan.modules:
            if min(module.in_features, module.out_features, module.rank) < 1:
                raise RunError(f"{module.name}: sizes and rank are positive", where=where, hint=hint)
        for name, total in sums.items():
            if getattr(plan, name) != total:
                raise RunError(f"{name} is {getattr(plan, name)}, but its parts sum to {total}", where=where, hint=hint)
        return plan


_PLAN_TYPE = TypeAdapter(Plan)


def _label_head(module: HeadModule) -> str:
    return module.name if module.name.startswith("head") else f"head {module.name}"


def make_plan(
    config: Mapping[str, object], *, base: str, num_labels: int, model: ModelConfig, adapter: AdapterConfig, budget: int
) -> Plan:
    """Choose and count every trainable parameter.

    ``rank: auto`` is the largest uniform rank that every matrix allows and that keeps the sum strictly below the
    budget. Modules with an entry in ``ranks`` keep that rank. The part of the budget that a uniform rank does not fill
    is unused. If ``alpha`` is given, it applies to every module whatever its rank; otherwise alpha is twice the
    module's rank.

    Args:
        config: The base model's ``config.json``.
        base: Name of the base model for the plan.
        num_labels: Number of classes C.
        model: Settings of the head.
        adapter: Settings of targets, ranks, variant and biases.
        budget: Limit that trainable parameters stay strictly below.

    Raises:
        ConfigError: The model does not have the targets or layers, or cannot take the ranks.
        BudgetError: The parts reach the budget. The message says what would fit.
        ModelError: The family is not supported, or the configuration is damaged.
    """
    sizes = _measure(config, num_labels, model.head, adapter)
    rank = sizes.find_rank(budget) if adapter.rank == "auto" else adapter.rank
    ranks = {linear.name: sizes.fixed_ranks.get(linear.name, rank) for linear in sizes.targets}
    _check_ranks(sizes.targets, ranks)
    trainable = sizes.count(rank)
    if trainable >= budget or (rank < 1 and sizes.free):
        raise _explain_excess(
            sizes, max(rank, 1), config=config, num_labels=num_labels, model=model, adapter=adapter, budget=budget
        )

    prefix = f"{get_model_prefix(config)}." if model.head == "native" else ""
    modules = tuple(_plan_module(linear, ranks[linear.name], adapter, prefix) for linear in sizes.targets)
    adapter_params = sum(module.params for module in modules)
    encoder = count_encoder(config, pooler=uses_pooler(config, model.head))
    head = list_head_modules(config, head=model.head, num_labels=num_labels)
    total = encoder + sum(module.params for module in head) + adapter_params
    return Plan(
        base=base,
        family=read_family(config).name,
        num_labels=num_labels,
        head=model.head,
        head_modules=tuple(module for module in head if not module.provided),
        variant=adapter.variant,
        bias=adapter.bias,
        trainable_params=trainable,
        adapter_params=adapter_params,
        head_params=sizes.head,
        bias_params=sizes.bias,
        total_params=total,
        peft_all_params=total + sizes.head,
        budget=budget,
        modules=modules,
    )


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The size of a configuration as a function of the uniform rank."""

    targets: list[Linear]
    fixed_ranks: dict[str, int]
    head: int
    bias: int
    magnitudes: int

    @property
    def free(self) -> list[Linear]:
        """Targets that take the uniform rank."""
        return [linear for linear in self.targets if linear.name not in self.fixed_ranks]

    @property
    def per_rank(self) -> int:
        return sum(linear.in_features + linear.out_features for linear in self.free)

    def count_adapter(self, rank: int) -> int:
        fixed = sum(
            self.fixed_ranks.get(linear.name, 0) * (linear.in_features + linear.out_features) for linear in self.targets
        )
        return fixed + self.magnitudes + rank * self.per_rank

    def count(self, rank: int) -> int:
        return self.count_adapter(rank) + self.head + self.bias

    def find_rank(self, budget: int) -> int:
        """Return the largest uniform rank whose sum is below the budget, or 0 or less if there is none."""
        if not self.free:
            return 0
        cap = min(min(linear.in_features, linear.out_features) for linear in self.free)
        return min(cap, (budget - 1 - self.count(0)) // self.per_rank)


def _measure(config: Mapping[str, object], num_labels: int, head: HeadKind, adapter: AdapterConfig) -> _Sizes:
    targets = list_targets(config, adapter)
    head_modules = list_head_modules(config, head=head, num_labels=num_labels)
    bias = 0
    if adapter.bias == "all":
        bias = count_biases(config, pooler=uses_pooler(config, head))
        bias += sum(module.num_biases for module in head_modules if module.provided)
    elif adapter.bias == "lora_only":
        bias = sum(linear.out_features for linear in targets if linear.bias)
    return _Sizes(
        targets=targets,
        fixed_ranks=list_fixed_ranks(config, adapter, targets),
        head=sum(module.params for module in head_modules if not module.provided),
        bias=bias,
        magnitudes=sum(linear.out_features for linear in targets) if adapter.variant == "dora" else 0,
    )


def _check_ranks(targets: list[Linear], ranks: Mapping[str, int]) -> None:
    for linear in targets:
        limit = min(linear.in_features, linear.out_features)
        if ranks[linear.name] > limit:
            raise ConfigError(
                f"rank {ranks[linear.name]} of {linear.name} is above {limit}, the full rank of "
                f"its {linear.out_features}x{linear.in_features} matrix",
                where="adapter.rank",
                hint=f"Use a rank of at most {limit}; a low-rank update is worthwhile only far below that.",
            )


def _plan_module(linear: Linear, rank: int, adapter: AdapterConfig, prefix: str) -> PlannedModule:
    alpha = float(2 * rank if adapter.alpha is None else adapter.alpha)
    # This is rank-stabilised scaling (arXiv:2312.03732, section 3.2).
    scaling = alpha / math.sqrt(rank) if adapter.variant == "rslora" else alpha / rank
    params = rank * (linear.in_features + linear.out_features)
    if adapter.variant == "dora":
        # There is one magnitude per output (arXiv:2402.09353, equation 5).
        params += linear.out_features
    return PlannedModule(
        name=prefix + linear.name,
        kind=linear.kind,
        layer=linear.layer,
        in_features=linear.in_features,
        out_features=linear.out_features,
        rank=rank,
        alpha=alpha,
        scaling=scaling,
        params=params,
    )


def _explain_excess(
    sizes: _Sizes,
    rank: int,
    *,
    config: Mapping[str, object],
    num_labels: int,
    model: ModelConfig,
    adapter: AdapterConfig,
    budget: int,
) -> BudgetError:
    shown = f" at rank {rank}" if sizes.free else ""
    parts = [f"adapter {sizes.count_adapter(rank):,}{shown}", f"{model.head} head {sizes.head:,}"]
    if sizes.bias:
        parts.append(f"biases ({adapter.bias}) {sizes.bias:,}")

    changes: list[tuple[list[str], HeadKind, AdapterConfig]] = [([], model.head, adapter)]
    if model.head == "native":
        changes.append((["model.head=linear"], "linear", adapter))
    if adapter.bias != "none":
        changes.append((["adapter.bias=none"], model.head, adapter.model_copy(update={"bias": "none"})))
    options = []
    for settings, head, changed in changes:
        measured = _measure(config, num_labels, head, changed)
        best = measured.find_rank(budget)
        if measured.free and adapter.rank != "auto":
            best = min(best, rank)
            settings.append(f"adapter.rank={best}")
        if measured.count(best) < budget and (best >= 1 or not measured.free):
            options.append(f"{' '.join(settings)} ({measured.count(best):,})")
    options.append(f"a budget of at least {sizes.count(rank) + 1:,}")
    return BudgetError(
        f"{sizes.count(rank):,} trainable parameters are not below the budget of {budget:,}: {', '.join(parts)}",
        where="budget",
        hint=f"What fits: {'; '.join(options)}.",
    )
