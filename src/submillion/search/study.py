"""One study for all who work on it: opened or made, its samplers and pruners, who holds which trial.

A trial belongs to the process that asked for it and that marks it now and then. Where that process is gone, anybody
fails the trial and puts its settings back into the queue.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from submillion.config.nested import list_changes
from submillion.config.run import LOWER_IS_BETTER
from submillion.config.search import SearchConfig
from submillion.errors import ConfigError, RunError
from submillion.search.storage import experimental_allowed

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

# What trials carry besides what Optuna keeps of them.
HOLDER, SEEN, SETTINGS, RUNS = "holder", "seen", "settings", "runs"
ERROR, SURPLUS, RETRY, RECIPE = "error", "surplus", "retry of", "recipe"
_AGREED = "search"
# A holder marks its trial every so often; another machine's trial without a mark for the longer time is given up.
MARK_S = 30.0
_GONE_S = 600.0
_AGREE_S = 60.0
# What may differ between the calls and the machines that work on one study.
_FREE_SEARCH = ("trials", "seeds", "confirm_rows", "confirm_steps")


@dataclass(frozen=True)
class Holder:
    """The process that works on a trial.

    Attributes:
        host: Its machine.
        pid: Its process id there.
        started: When it started, in clock ticks since the machine's start: a process id comes again, both do not.
    """

    host: str
    pid: int
    started: int

    @classmethod
    def here(cls) -> Holder:
        """Return this process."""
        return cls(_name_host(), os.getpid(), _find_start(os.getpid()))

    def is_gone(self) -> bool | None:
        """Return whether the process has ended; None where it is one of another machine."""
        if self.host != _name_host():
            return None
        return _find_start(self.pid) != self.started


def _name_host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.exists() else ''}".strip()


def _find_start(pid: int) -> int:
    """Return when a process started, in clock ticks; 0 where it has ended, 1 where the system does not say."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return 0
        except PermissionError:
            return 1
        return 1
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def describe_search(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all who work on a study must agree on: all settings but those that do not change a trial."""
    values = {key: value for key, value in config.items() if key not in {"name", "about", "threads", "track", "watch"}}
    # The same files may lie elsewhere on another machine.
    values["data"] = {key: value for key, value in config["data"].items() if key != "source"}
    values["search"] = {key: value for key, value in config["search"].items() if key not in _FREE_SEARCH}
    return values


def open_study(
    storage: BaseStorage, name: str, search: SearchConfig, agreed: Mapping[str, Any], first: Mapping[str, Any] | None
) -> Study:
    """Make a study, or take part in it where it is there.

    Args:
        storage: Where it is kept.
        name: Its name there.
        search: Gives the direction.
        agreed: What all who work on it must agree on.
        first: Settings of the first trial, as they are drawn; none if None.

    Raises:
        ConfigError: A study of this name is there, and searches something else.
    """
    import optuna

    direction: Literal["minimize", "maximize"] = "minimize" if search.metric in LOWER_IS_BETTER else "maximize"
    shared = json.dumps(agreed, sort_keys=True)
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name)
        _require_agreement(study, agreed)
        return study
    if first is not None:
        study.enqueue_trial(dict(first), user_attrs={RECIPE: True})
    study.set_user_attr(_AGREED, shared)
    return study


def _require_agreement(study: Study, agreed: Mapping[str, Any]) -> None:
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
    now = json.loads(json.dumps(agreed))
    changed = sorted(path for path, _, _ in list_changes(before, now))
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


def give_back(study: Study, trial: Trial | FrozenTrial, reason: str) -> None:
    """Fail a running trial and put its settings back into the queue, with the runs it had begun."""
    import optuna
    from optuna.trial import TrialState

    frozen = study.get_trials(deepcopy=False)[trial.number]
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except ValueError:
        return  # Somebody else has done so.
    except optuna.exceptions.UpdateFinishedTrialError:
        return
    kept = {name: frozen.user_attrs[name] for name in (RUNS, RECIPE) if name in frozen.user_attrs}
    attributes = {RETRY: trial.number, "reason": reason, **kept}
    # A trial that was put back before may end again before it has drawn anything.
    params = {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}
    study.enqueue_trial(params, user_attrs=attributes)


class StaleTrials:
    """Finds the trials whose holders are gone, and puts them back into the queue."""

    def __init__(self) -> None:
        self._marks: dict[int, tuple[Any, float]] = {}

    def give_back(self, study: Study) -> list[int]:
        """Return the numbers of the trials that were put back."""
        found = []
        for trial in list_trials(study, "running"):
            if self._is_stale(trial):
                give_back(study, trial, "its process has ended")
                found.append(trial.number)
        return found

    def _is_stale(self, trial: FrozenTrial) -> bool:
        told = trial.user_attrs.get(HOLDER)
        if told is not None:
            gone = Holder(**told).is_gone()
            if gone is not None:
                return gone
        # Of another machine, or not marked yet. Clocks of machines differ, so it is our own that counts.
        mark = trial.user_attrs.get(SEEN)
        before, since = self._marks.get(trial.number, (None, 0.0))
        if before != mark or trial.number not in self._marks:
            self._marks[trial.number] = (mark, time.monotonic())
            return False
        limit = _GONE_S if told is not None else 2 * MARK_S
        return time.monotonic() - since > limit
