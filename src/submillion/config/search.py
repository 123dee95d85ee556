"""The settings of a search: the space, the length of a trial, and the comparison of the best with the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from submillion.config.section import Name, PositiveInt, Section

# Below, the one-sided signed-rank test cannot reach the pruner's p < 0.1: four runs give 1/16 at best, three 1/8.
MIN_REPEATS = 5

# These judge a trial or set its length, so a search cannot vary them.
_FIXED_TRAIN = frozenset(
    {"evaluate_every", "save_every", "interval_unit", "keep_checkpoints", "metric", "patience", "max_steps", "epochs"}
)
_FREE_MODEL = frozenset({"head", "pooling", "dropout", "attention_dropout", "head_dropout"})


class Parameter(Section):
    """One setting that varies."""

    when: Mapping[Name, Any] = Field(
        {}, description="Vary it only where these other settings of the space have this value, or one of these."
    )


class FloatRange(Parameter):
    """Any number within a range."""

    type: Literal["float"]
    low: float = Field(allow_inf_nan=False, description="Smallest value.")
    high: float = Field(allow_inf_nan=False, description="Largest value.")
    log: bool = Field(False, description="Whether draws are even on a log scale.")
    step: float | None = Field(None, gt=0, description="Step between values: low, low + step, ...")
    times_rank: bool = Field(False, description="Whether the number is multiplied by the rank of the trial.")

    @model_validator(mode="after")
    def _check(self) -> FloatRange:
        _check_range(self.low, self.high, self.log, self.step)
        return self


class IntRange(Parameter):
    """Any whole number within a range."""

    type: Literal["int"]
    low: int = Field(description="Smallest value.")
    high: int = Field(description="Largest value.")
    log: bool = Field(False, description="Whether draws are even on a log scale.")
    step: PositiveInt | None = Field(None, description="Step between values: low, low + step, ...")

    @model_validator(mode="after")
    def _check(self) -> IntRange:
        _check_range(self.low, self.high, self.log, self.step)
        return self


class Choice(Parameter):
    """One of several values without an order."""

    type: Literal["categorical"]
    choices: tuple[Any, ...] = Field(min_length=1, description="The values, each as the setting takes it.")


class RankRange(Parameter):
    """A rank from `low` to the largest that keeps the trial below the budget, drawn evenly on a log scale."""

    type: Literal["rank"]
    low: PositiveInt = Field(1, description="Smallest rank.")


AnyParameter = Annotated[FloatRange | IntRange | Choice | RankRange, Field(discriminator="type")]
PARAMETERS: Mapping[str, type[Parameter]] = {
    "float": FloatRange,
    "int": IntRange,
    "categorical": Choice,
    "rank": RankRange,
}


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"low {low} is above high {high}")
    if log and low <= 0:
        raise ValueError(f"low {low} has no place on a log scale")
    if log and step is not None:
        raise ValueError("log and step exclude each other")


class SearchConfig(Section):
    """A search for better settings by `submillion tune`."""

    trials: PositiveInt = Field(20, description="Trials of the study, including those of earlier calls.")
    space: Mapping[Name, AnyParameter] = Field(
        {}, description="Settings that vary, by dotted path; a space made for the base model if empty."
    )
    sampler: Literal["tpe", "random"] = Field("tpe", description="Multivariate TPE, or random search.")
    startup: PositiveInt | None = Field(
        None, description="Random trials before TPE begins; if absent, a third of the trials, but 10 at most."
    )
    pruner: Literal["hyperband", "median", "wilcoxon", "none"] = Field(
        "median", description="Rule that ends poor trials early."
    )
    metric: Literal["accuracy", "macro_f1", "loss"] = Field(
        "accuracy", description="Validation figure that judges a trial, by its best report."
    )
    reports: PositiveInt = Field(4, description="Validations of a trial, after equal shares of its records.")
    repeats: PositiveInt = Field(
        1, description=f"Runs of a trial, one for each seed; at least {MIN_REPEATS} for the Wilcoxon pruner."
    )
    rows: PositiveInt | None = Field(None, description="Training rows of a trial; as the recipe if absent.")
    validation_rows: PositiveInt | None = Field(
        None, description="Validation rows of a trial, the same for all; as the recipe if absent."
    )
    steps: PositiveInt | None = Field(
        None,
        description="Steps of a trial at the recipe's batch size; with another one, as many as the same records need. "
        "As the recipe if absent.",
    )
    seeds: int = Field(
        3, ge=0, description="Seeds over which the best is compared with the recipe; 0 for no comparison."
    )
    confirm_rows: PositiveInt | None = Field(
        None, description="Training rows of the comparison; as the recipe if absent."
    )
    confirm_steps: PositiveInt | None = Field(
        None, description="Steps of the comparison, counted as `steps` are; as the recipe if absent."
    )

    @model_validator(mode="after")
    def _check_repeats(self) -> SearchConfig:
        if self.pruner == "wilcoxon" and self.repeats < MIN_REPEATS:
            raise ValueError(
                f"the wilcoxon pruner compares runs of equal seeds and needs repeats of at least {MIN_REPEATS}, "
                f"got {self.repeats}"
            )
        if self.pruner != "wilcoxon" and self.repeats > 1:
            raise ValueError(f"repeats {self.repeats} are for the wilcoxon pruner only, pruner is {self.pruner}")
        return self

    @model_validator(mode="after")
    def _check_space(self) -> SearchConfig:
        for position, (name, parameter) in enumerate(self.space.items()):
            _check_setting(name, parameter)
            earlier = list(self.space)[:position]
            for other in parameter.when:
                if other not in earlier or not isinstance(self.space[other], Choice):
                    raise ValueError(f"{name}.when: {other!r} is not a categorical setting listed before it")
        return self


def _check_setting(name: str, parameter: Parameter) -> None:
    section, _, key = name.partition(".")
    if section not in {"adapter", "train", "model"} or not key or "." in key:
        raise ValueError(f"{name!r} cannot vary: settings of adapter, train and model can, such as train.learning_rate")
    if (section == "train" and key in _FIXED_TRAIN) or (section == "model" and key not in _FREE_MODEL):
        raise ValueError(f"{name!r} cannot vary: all trials share their data, their length and their metric")
    if isinstance(parameter, RankRange) and name != "adapter.rank":
        raise ValueError(f"{name}: the type rank is for adapter.rank")
    if isinstance(parameter, FloatRange) and parameter.times_rank and name != "adapter.alpha":
        raise ValueError(f"{name}: times_rank is for adapter.alpha")
