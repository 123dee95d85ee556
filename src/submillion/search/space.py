"""The space of a search: which settings vary, drawn so that no trial can reach the budget.

The rank is drawn last, between its lower end and the largest that fits beside what was drawn before it, so the budget
holds by construction. Combinations in which not even the smallest rank fits are errors before the first trial.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from submillion.budget.count import list_linears, read_num_layers
from submillion.budget.plan import Plan, make_plan
from submillion.budget.targets import list_fixed_ranks, list_targets
from submillion.config.nested import apply_overrides, flatten
from submillion.config.run import RunConfig, parse_config
from submillion.config.search import AnyParameter, Choice, FloatRange, IntRange, RankRange
from submillion.errors import BudgetError, ConfigError

if TYPE_CHECKING:
    from optuna import Trial

RANK_SHARE = "adapter.rank (share)"
ALPHA_FACTOR = "adapter.alpha / rank"
# What decides how many parameters train; in all combinations of these some rank must fit.
_COUNTED = ("model.head", "adapter.targets", "adapter.layers", "adapter.variant", "adapter.bias", "adapter.ranks")
_MAX_COMBINATIONS = 2000


@dataclass(frozen=True)
class Space:
    """A space around one configuration.

    Attributes:
        config: The recipe, whose settings hold where none is drawn.
        parameters: Settings that vary, by dotted path; conditions refer to earlier ones.
        base_config: The base model's ``config.json``.
        num_labels: Number of classes C.
    """

    config: RunConfig
    parameters: Mapping[str, AnyParameter]
    base_config: Mapping[str, object]
    num_labels: int

    def draw(self, trial: Trial) -> dict[str, object]:
        """Draw a trial's settings, by dotted path; they stay below the budget."""
        settings: dict[str, object] = {}
        factor: float | None = None
        for name, parameter in self._list_active(settings):
            if isinstance(parameter, Choice):
                labels = [label_choice(value) for value in parameter.choices]
                settings[name] = parameter.choices[labels.index(trial.suggest_categorical(name, labels))]
            elif isinstance(parameter, IntRange):
                step = parameter.step or 1
                settings[name] = trial.suggest_int(name, parameter.low, parameter.high, step=step, log=parameter.log)
            elif isinstance(parameter, FloatRange):
                shown = ALPHA_FACTOR if parameter.times_rank else name
                value = trial.suggest_float(
                    shown, parameter.low, parameter.high, step=parameter.step, log=parameter.log
                )
                if parameter.times_rank:
                    factor = value
                else:
                    settings[name] = value
            else:
                share = trial.suggest_float(RANK_SHARE, 0.0, 1.0)
                settings[name] = take_share(parameter.low, self.find_largest_rank(settings), share)
        if factor is not None:
            settings["adapter.alpha"] = factor * self._find_rank(settings)
        return settings

    def _list_active(self, settings: Mapping[str, object]) -> Iterator[tuple[str, AnyParameter]]:
        """Yield the parameters whose conditions hold so far; the rank comes last, since it depends on the others."""
        last = [name for name, parameter in self.parameters.items() if isinstance(parameter, RankRange)]
        for name in [*(name for name in self.parameters if name not in last), *last]:
            parameter = self.parameters[name]
            if all(
                other in settings and _is_among(settings[other], wanted) for other, wanted in parameter.when.items()
            ):
                yield name, parameter

    def find_largest_rank(self, settings: Mapping[str, object]) -> int:
        """Return the largest uniform rank that fits with these settings; 0 where none does."""
        chosen = apply_settings(self.config, {**settings, "adapter.rank": "auto", "adapter.alpha": None})
        try:
            plan = self._plan(chosen)
        except BudgetError:
            return 0
        targets = list_targets(self.base_config, chosen.adapter)
        fixed = list_fixed_ranks(self.base_config, chosen.adapter, targets)
        # Plans list the targets in the same order.
        modules = zip(plan.modules, targets, strict=True)
        return max((module.rank for module, linear in modules if linear.name not in fixed), default=0)

    def _find_rank(self, settings: Mapping[str, object]) -> int:
        rank = apply_settings(self.config, settings).adapter.rank
        return self.find_largest_rank(settings) if rank == "auto" else rank

    def _plan(self, config: RunConfig) -> Plan:
        return make_plan(
            self.base_config,
            base=config.model.base,
            num_labels=self.num_labels,
            model=config.model,
            adapter=config.adapter,
            budget=config.budget,
        )

    def check(self) -> None:
        """Refuse a space in which a trial could fail: by its budget, or by settings that contradict each other.

        Raises:
            ConfigError: A setting that the base model cannot take, or that has no effect beside the recipe's own.
            BudgetError: A combination of head, targets and the like in which no rank fits.
        """
        self._check_values()
        if "train.warmup_ratio" in self.parameters and self.config.train.warmup_steps is not None:
            raise ConfigError(
                f"has no effect beside train.warmup_steps={self.config.train.warmup_steps}",
                where="search.space.train.warmup_ratio",
                hint="Remove one of the two.",
            )
        counted = [name for name in _COUNTED if name in self.parameters]
        choices = [self._list_values(name) for name in counted]
        size = math.prod(len(values) for values in choices)
        if size > _MAX_COMBINATIONS:
            raise ConfigError(
                f"{', '.join(counted)} have {size:,} combinations, more than {_MAX_COMBINATIONS:,} that are planned",
                where="search.space",
                hint="Give some of them fewer choices.",
            )
        for values in itertools.product(*choices):
            self._check_combination(
                {name: value for name, value in zip(counted, values, strict=True) if value is not _OFF}
            )

    def _check_values(self) -> None:
        known = _flatten_config(self.config)
        for name, parameter in self.parameters.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                raise ConfigError(
                    "unknown setting",
                    where=f"search.space.{name}",
                    hint=f"Did you mean {close[0]!r}?" if close else "docs/recipes.md lists them.",
                )
            if isinstance(parameter, Choice):
                ends: tuple[object, ...] = parameter.choices
            elif isinstance(parameter, RankRange):
                ends = (parameter.low,)
            else:
                ends = (parameter.low, parameter.high)
            for value in ends:
                apply_settings(self.config, {name: value})

    def _list_values(self, name: str) -> list[object]:
        parameter = self.parameters[name]
        if not isinstance(parameter, Choice):
            raise ConfigError("is no number", where=f"search.space.{name}", hint="Its type is categorical.")
        return [*parameter.choices, *([_OFF] if parameter.when else [])]

    def _check_combination(self, settings: Mapping[str, object]) -> None:
        rank = self.parameters.get("adapter.rank")
        ranks: list[object] = [self.config.adapter.rank]
        if isinstance(rank, Choice):
            ranks = list(rank.choices)
        elif isinstance(rank, IntRange):
            ranks = [rank.low, rank.high]
        elif isinstance(rank, RankRange):
            ranks = [rank.low]
        if rank is not None and rank.when:
            ranks.append(self.config.adapter.rank)
        for value in ranks:
            chosen = apply_settings(self.config, {**settings, "adapter.rank": value})
            try:
                self._plan(chosen)
            except BudgetError as error:
                shown = ", ".join(f"{name}={label_choice(item)}" for name, item in settings.items()) or "the recipe"
                raise BudgetError(
                    f"with {shown} and rank {value}, {error.message}",
                    where="search.space",
                    hint="Take the choice out of the space, or let adapter.rank have the type rank.",
                ) from None

    def locate_recipe(self) -> dict[str, object] | None:
        """Return the recipe's own settings as a trial would draw them, or None where they lie outside of the space."""
        found: dict[str, object] = {}
        settings: dict[str, object] = {}
        values = _flatten_config(self.config)
        for name, parameter in self._list_active(settings):
            value = values[name]
            if isinstance(parameter, RankRange):
                largest = self.find_largest_rank(settings)
                own = self.config.adapter.rank
                rank = largest if own == "auto" else own
                if not parameter.low <= rank <= largest:
                    return None
                found[RANK_SHARE], settings[name] = find_share(parameter.low, largest, rank), rank
            elif isinstance(parameter, Choice):
                if value not in parameter.choices and _as_json(value) not in [
                    _as_json(item) for item in parameter.choices
                ]:
                    return None
                found[name], settings[name] = label_choice(value), value
            elif isinstance(parameter, FloatRange) and parameter.times_rank:
                # The plan's own rule where the recipe has no alpha.
                alpha = self.config.adapter.alpha
                found[ALPHA_FACTOR] = 2.0 if alpha is None else alpha / self._find_rank(settings)
            else:
                found[name] = settings[name] = _resolve_absent(self.config, name, value)
            key = ALPHA_FACTOR if isinstance(parameter, FloatRange) and parameter.times_rank else name
            if isinstance(parameter, FloatRange | IntRange) and not _is_inside(parameter, found[key]):
                return None
        return found


_OFF = object()


def _is_among(value: object, wanted: object) -> bool:
    return _as_json(value) == _as_json(wanted) or (isinstance(wanted, list | tuple) and value in wanted)


def _as_json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def label_choice(value: object) -> str | int | float | bool | None:
    """Return a choice as a study keeps it: lists and mappings as JSON text, everything else as it is."""
    return value if isinstance(value, str | int | float | bool) or value is None else _as_json(value)


def take_share(low: int, high: int, share: float) -> int:
    """Return the whole number at a share (0..1) of the way from `low` to `high` on a log scale, ends included."""
    if high <= low:
        return max(low, high)
    # Half a step wider at both ends, so that the ends are as likely as what lies between.
    value = float((low - 0.5) * ((high + 0.5) / (low - 0.5)) ** share)
    return min(max(round(value), low), high)


def find_share(low: int, high: int, value: int) -> float:
    """Return a share from which `take_share` makes this value, the middle of those; exact for the ends."""
    if high <= low:
        return 0.5
    if value == high:
        return 1.0
    share = math.log(value / (low - 0.5)) / math.log((high + 0.5) / (low - 0.5))
    return min(max(share, 0.0), 1.0)


def _is_inside(parameter: FloatRange | IntRange, value: object) -> bool:
    if not isinstance(value, int | float) or not parameter.low <= value <= parameter.high:
        return False
    if parameter.step is None:
        return True
    steps = (value - parameter.low) / parameter.step
    return bool(abs(steps - round(steps)) < 1e-9)


def _resolve_absent(config: RunConfig, name: str, value: object) -> object:
    """Return the value of an absent setting that follows another one."""
    if value is None and name in {"train.head_learning_rate", "train.learning_rate_b", "train.bias_learning_rate"}:
        return config.train.learning_rate
    return value


def _flatten_config(config: RunConfig) -> dict[str, object]:
    return flatten(config.model_dump(mode="json", include={"adapter", "model", "train"}), depth=1)


def apply_settings(config: RunConfig, settings: Mapping[str, object]) -> RunConfig:
    """Return a configuration with settings by dotted path.

    Where the batch size changes, steps that are counted change with it, so that the run sees as many records.

    Raises:
        ConfigError: Values that the settings do not take.
    """
    values = apply_overrides(config.model_dump(mode="json"), settings)
    train = values["train"]
    ratio = config.train.batch_size / float(train["batch_size"])
    if ratio != 1.0:
        counted = ["max_steps", "warmup_steps"]
        if config.train.interval_unit == "steps":
            counted += ["evaluate_every", "save_every"]
        for key in counted:
            if train[key] is not None:
                train[key] = max(1, round(train[key] * ratio))
    return parse_config(values, where="search.space")


def make_default_space(
    config: RunConfig, base_config: Mapping[str, object], num_labels: int
) -> dict[str, AnyParameter]:
    """Return a space for a base model: what usually matters for a small adapter, around the recipe's own choices.

    Learning rates of adapter and head, rank, targets and layers below the budget, alpha, dropout, weight decay, batch
    size, warmup and label smoothing. The learning rates span the published values that under-train (1e-5) and those
    at which low-rank updates begin to diverge.

    Raises:
        BudgetError: The recipe's own targets fit at no rank.
    """
    own = config.adapter.model_copy(update={"rank": "auto"})
    limits = {"num_labels": num_labels, "budget": config.budget}
    make_plan(base_config, base=config.model.base, model=config.model, adapter=own, **limits)

    def number(low: float, high: float, *, log: bool = False, times_rank: bool = False) -> FloatRange:
        return FloatRange(type="float", low=low, high=high, log=log, times_rank=times_rank)

    space: dict[str, AnyParameter] = {
        "train.learning_rate": number(1e-5, 5e-3, log=True),
        "train.head_learning_rate": number(1e-5, 2e-2, log=True),
    }
    around = Space(config, {}, base_config, num_labels)

    def fits(settings: Mapping[str, object]) -> bool:
        return around.find_largest_rank(settings) >= 1

    if not any("." in target for target in config.adapter.targets):
        layers = [choice for choice in _list_layers(base_config) if fits({"adapter.layers": choice})]
        own_layers = None if config.adapter.layers is None else list(config.adapter.layers)
        if own_layers not in layers:
            layers.append(own_layers)
        targets = _list_targets(base_config)
        own_targets = list(config.adapter.targets)
        if own_targets not in targets:
            targets.append(own_targets)
        if not config.adapter.ranks:
            # Each goes with each.
            chosen = [
                one
                for one in targets
                if all(fits({"adapter.targets": one, "adapter.layers": other}) for other in layers)
            ]
            space["adapter.targets"] = Choice(type="categorical", choices=tuple(chosen))
        space["adapter.layers"] = Choice(type="categorical", choices=tuple(layers))
    space["adapter.rank"] = RankRange(type="rank")
    space["adapter.alpha"] = number(0.25, 16.0, log=True, times_rank=True)
    space["adapter.dropout"] = number(0.0, 0.3)
    sizes = sorted({16, 32, 64, 128, config.train.batch_size})
    space["train.batch_size"] = Choice(type="categorical", choices=tuple(sizes))
    space["train.weight_decay"] = number(0.0, 0.2)
    if config.train.warmup_steps is None:
        space["train.warmup_ratio"] = number(0.0, 0.3)
    space["train.label_smoothing"] = number(0.0, 0.2)
    return space


def _list_targets(base_config: Mapping[str, object]) -> list[list[str]]:
    """List sets of kinds that a family has: all, attention, query and value, feed-forward."""
    kinds = {linear.kind for linear in list_linears(base_config)}
    attention: list[str] = [kind for kind in ("query", "key", "value", "qkv") if kind in kinds]
    wanted: list[list[str]] = [["all"], attention, ["query", "value"], ["ffn_in", "ffn_out"]]
    return [choice for choice in wanted if choice and (choice == ["all"] or set(choice) <= kinds)]


def _list_layers(base_config: Mapping[str, object]) -> list[list[int] | None]:
    """List sets of layers: all, the upper half, the upper quarter."""
    num_layers = read_num_layers(base_config)
    half, quarter = num_layers // 2, num_layers - max(1, num_layers // 4)
    wanted = [None, list(range(half, num_layers)), list(range(quarter, num_layers))]
    distinct: list[list[int] | None] = []
    for choice in wanted:
        if choice not in distinct and choice != list(range(num_layers)):
            distinct.append(choice)
    return distinct
