"""One study for all who work on it: it is opened or made here, and trials whose commands are gone are put back.

A command writes its name into each trial that it takes, and marks the trial now and then. docs/architecture.md says
why this is not Optuna's heartbeat.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from submillion.config.nested import list_changes
from submillion.config.run import RunConfig
from submillion.config.search import SearchConfig
from submillion.errors import ConfigError, RunError
from submillion.metrics.direction import LOWER_IS_BETTER
from submillion.search.storage import experimental_allowed

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

# What trials carry besides what Optuna keeps of them.
OWNER, SEEN, SETTINGS, RUNS, ERROR, RECIPE = "owner", "seen", "settings", "runs", "error", "recipe"
_AGREED = "search"
_AGREE_S = 60.0
# A trial is marked every so often, and given up after the longer time without a mark.
MARK_S = 30.0
_GONE_S = 600.0
# What may differ between the calls and the machines that work on one study.
_FREE = {"name", "about", "threads", "track", "watch"}
_FREE_SEARCH = {"trials", "seeds", "confirm_rows", "confirm_steps"}


def open_study(storage: BaseStorage, name: str, config: RunConfig, first: Mapping[str, object] | None) -> Study:
    """Make a study, or take part in it where it exists.

    Args:
        storage: Storage of the study.
        name: Name of the study there.
        config: The recipe with its complete search. All who work on the study must agree on it.
        first: Settings of the first trial, as they are drawn; none if None.

    Raises:
        ConfigError: A study of this name exists and searches something else.
        RunError: It was begun by another program.
    """
    import optuna

    assert config.search is not None
    direction: Literal["minimize", "maximize"] = "minimize" if config.search.metric in LOWER_IS_BETTER else "maximize"
    agreed = _list_agreed(config)
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name)
        _require_agreement(study, agreed)
        return study
    if first is not None:
        study.enqueue_trial(dict(first), user_attrs={RECIPE: True})
    study.set_user_attr(_AGREED, json.dumps(agreed, sort_keys=True))
    return study


def _list_agreed(config: RunConfig) -> dict[str, object]:
    values = config.model_dump(mode="json", exclude=_FREE)
    # The same files may lie elsewhere on another machine.
    del values["data"]["source"]
    values["search"] = {key: value for key, value in values["search"].items() if key not in _FREE_SEARCH}
    return values


def _require_agreement(study: Study, agreed: Mapping[str, object]) -> None:
    until = time.monotonic() + _AGREE_S
    # Whoever makes a study writes this last.
    while _AGREED not in study.user_attrs:
        if time.monotonic() > until:
            raise RunError(
                "was begun and never made ready, or by another program",
                where=f"study {study.study_name}",
                hint="Choose another name with --study.",
            )
        time.sleep(0.5)
    before = json.loads(study.user_attrs[_AGREED])
    changed = sorted(path for path, _, _ in list_changes(before, agreed))
    if changed:
        raise ConfigError(
            f"searches with other settings: {', '.join(changed[:8])} differ",
            where=f"study {study.study_name}",
            hint="Give the settings that it began with; or begin another with --study NAME (or another --out).",
        )


def make_pruner(search: SearchConfig) -> BasePruner:
    """Return the pruner. Its resource is the number of the report, or of the run for Wilcoxon."""
    import optuna

    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=search.reports, reduction_factor=3)
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
    if search.pruner == "wilcoxon":
        with experimental_allowed():
            return optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    return optuna.pruners.NopPruner()


def list_trials(study: Study, *states: str) -> list[FrozenTrial]:
    """Return the trials in these states (``complete``, ``pruned``, ``fail``, ``running``, ``waiting``), or all."""
    from optuna.trial import TrialState

    wanted = tuple(TrialState[state.upper()] for state in states) or None
    return study.get_trials(deepcopy=False, states=wanted)


def count_taken(study: Study, up_to: int | None = None) -> int:
    """Return how many trials count towards the number wanted: all that have not failed, up to a number if given."""
    trials = list_trials(study, "complete", "pruned", "running", "waiting")
    return sum(1 for trial in trials if up_to is None or trial.number <= up_to)


def put_back(study: Study, number: int) -> None:
    """Fail a running trial and put its settings back into the queue; nothing happens where it has ended already."""
    import optuna
    from optuna.trial import TrialState

    trial = study.trials[number]  # a copy, since the callback appends to a list in it
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return
    with experimental_allowed():
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback()
    retry(study, trial)


def put_back_own(study: Study, owner: str) -> None:
    """Put back the trials of an earlier command of this folder: it is gone, since the folder's lock is ours."""
    for trial in list_trials(study, "running"):
        if trial.user_attrs.get(OWNER) == owner:
            put_back(study, trial.number)


class StaleTrials:
    """Finds the trials that nobody marks any more, by the clock of this machine alone, since clocks differ."""

    def __init__(self) -> None:
        self._marks: dict[int, tuple[object, float]] = {}

    def put_back(self, study: Study) -> None:
        """Put them back into the queue."""
        for trial in list_trials(study, "running"):
            mark, now = trial.user_attrs.get(SEEN), time.monotonic()
            before, since = self._marks.setdefault(trial.number, (mark, now))
            if before != mark:
                self._marks[trial.number] = (mark, now)
            # Whoever takes a trial marks it at once, so one without a mark belongs to nobody.
            elif now - since > (2 * MARK_S if mark is None else _GONE_S):
                put_back(study, trial.number)
