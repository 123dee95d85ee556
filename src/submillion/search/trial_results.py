"""What a study has found, as plain values: its trials, the best one, importances, and how each setting is scaled."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from submillion.config.search import FloatRange, IntRange, RankRange
from submillion.errors import RunError
from submillion.metrics.direction import is_better
from submillion.search.space import ALPHA_FACTOR, RANK_SHARE
from submillion.search.study import ERROR, RECIPE, RUNS, SETTINGS, list_trials
from submillion.search.task import Task

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

State = Literal["complete", "pruned", "failed", "running", "waiting"]
_STATES: Mapping[str, State] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
_MIN_IMPORTANCE_TRIALS = 4


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        number: In the study, from 0.
        state: complete, pruned, failed, running or waiting.
        value: Best validation by the search's metric, or the last one before it was pruned; None before any.
        params: Values as they were drawn, by the study's names.
        settings: Values as the run has them, by dotted path.
        reports: Values by number of the report.
        duration_s: Seconds, waiting for the process included; None while it is not over.
        is_recipe: True for the recipe's own settings.
        retry_of: Number of the trial whose settings these are, where its process had ended.
        error: Reason why it has no value, if it diverged.
        runs: Folder of its runs.
    """

    number: int
    state: State
    value: float | None
    params: dict[str, object]
    settings: dict[str, object]
    reports: dict[int, float]
    duration_s: float | None
    is_recipe: bool
    retry_of: int | None
    error: str
    runs: str


def list_rows(study: Study) -> list[TrialRow]:
    """Return all trials but those that failed before their settings were drawn."""
    trials = list_trials(study)
    return [_describe(trial) for trial in trials if trial.state.name != "FAIL" or SETTINGS in trial.user_attrs]


def _describe(trial: FrozenTrial) -> TrialRow:
    known = trial.user_attrs
    # Optuna's list of the attempts so far; the attribute is of studies that version 1 began.
    attempts = trial.system_attrs.get("retry_history") or [known.get("retry of")]
    return TrialRow(
        number=trial.number,
        state=_STATES[trial.state.name],
        value=trial.value,
        params=dict(trial.params),
        settings=known.get(SETTINGS, {}),
        reports=dict(trial.intermediate_values),
        duration_s=None if trial.duration is None else trial.duration.total_seconds(),
        is_recipe=RECIPE in known,
        retry_of=attempts[-1],
        error=known.get(ERROR, ""),
        runs=known.get(RUNS, {}).get("folder", ""),
    )


def count_states(rows: Sequence[TrialRow]) -> dict[str, int]:
    """Return the number of trials by state; all states are there."""
    return {state: sum(row.state == state for row in rows) for state in _STATES.values()}


def find_best(rows: Sequence[TrialRow], metric: str) -> TrialRow:
    """Return the best completed trial; the earlier of equal ones.

    Raises:
        RunError: None was completed.
    """
    best: TrialRow | None = None
    for row in rows:
        value = row.value if row.state == "complete" else None
        if value is not None and is_better(metric, value, None if best is None else best.value):
            best = row
    if best is None:
        raise RunError(
            "no trial was completed",
            where="tune",
            hint="All were pruned or diverged: raise --trials, lower the learning rates, or use --pruner none.",
        )
    return best


def measure_importances(study: Study) -> dict[str, float]:
    """Return how much each setting mattered for being among the better trials, most first; they sum to 1.

    PED-ANOVA (arXiv:2304.10255) over the completed trials; empty where they are too few to tell.
    """
    import optuna

    if len(list_trials(study, "complete")) < _MIN_IMPORTANCE_TRIALS:
        return {}
    found = optuna.importance.get_param_importances(study)
    return {name: float(value) for name, value in found.items()}


def list_scales(task: Task) -> dict[str, str]:
    """Return ``log``, ``linear`` or ``categorical`` by the study's name of each parameter, in the space's order."""
    scales = {}
    for name, parameter in task.search.space.items():
        if isinstance(parameter, RankRange):
            scales[RANK_SHARE] = "linear"
        elif isinstance(parameter, FloatRange | IntRange):
            shown = ALPHA_FACTOR if isinstance(parameter, FloatRange) and parameter.times_rank else name
            scales[shown] = "log" if parameter.log else "linear"
        else:
            scales[name] = "categorical"
    return scales


def tabulate_csv(rows: Sequence[TrialRow], scales: Sequence[str]) -> str:
    """Return all trials as CSV, one a row: number, state, value, seconds, drawn parameters, runs."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["number", "state", "value", "duration_s", *scales, "runs"])
    for row in rows:
        values = [row.params.get(name, "") for name in scales]
        writer.writerow([row.number, row.state, row.value, row.duration_s, *values, row.runs])
    return buffer.getvalue()


def describe_rows(rows: Sequence[TrialRow]) -> list[dict[str, object]]:
    """Return the trials as JSON types."""
    return [{**asdict(row), "reports": {str(step): value for step, value in row.reports.items()}} for row in rows]
