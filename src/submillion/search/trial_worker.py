"""A worker takes trials of a study, one after the other, and makes each in a separate process."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from submillion.errors import DivergedError
from submillion.launch import LaunchedRun, launch_run
from submillion.metrics.direction import is_better
from submillion.run.folder import RunDir
from submillion.search.storage import taking_alone
from submillion.search.study import (
    ERROR,
    MARK_S,
    OWNER,
    RUNS,
    SEEN,
    SETTINGS,
    StaleTrials,
    count_taken,
    list_trials,
    put_back,
)
from submillion.search.task import SearchDir, Task
from submillion.search.trials import make_trial_config

if TYPE_CHECKING:
    from optuna import Study, Trial

_WAIT_S = 0.5


@dataclass(frozen=True)
class Crew:
    """What the workers of one command share.

    Attributes:
        task: The search.
        files: Folder of the search.
        url: Storage of the study.
        owner: Name that the command writes into the trials that it takes.
        stop: Event after which workers save and end.
        lock: Lock around taking a trial and putting one back.
        stale: Marks of the trials of all commands.
    """

    task: Task
    files: SearchDir
    url: str
    owner: str
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stale: StaleTrials = field(default_factory=StaleTrials)


def work(study: Study, crew: Crew) -> None:
    """Make trials until the study has the number wanted and none of them is under way any more.

    Args:
        study: The study as this worker alone sees it, since its sampler changes with each trial.
        crew: State that it shares with the others.

    Raises:
        SubmillionError: A trial cannot be made, and is back in the queue.
        KeyboardInterrupt: The worker was asked to stop; its trial is back in the queue.
    """
    while not crew.stop.is_set():
        with crew.lock, taking_alone(crew.url):
            trial = take_trial(study, crew)
        if trial is not None:
            _make_trial(study, trial, crew)
        elif list_trials(study, "running"):
            # Their commands may end before they do; then their trials are made here.
            crew.stop.wait(_WAIT_S)
        else:
            return


def take_trial(study: Study, crew: Crew) -> Trial | None:
    """Take the next trial, one that waits or a new one; None where there are enough."""
    from optuna.trial import TrialState

    from submillion.search.samplers import make_sampler

    crew.stale.put_back(study)
    wanted = crew.task.search.trials
    if not list_trials(study, "waiting") and count_taken(study) >= wanted:
        return None
    trial = study.ask()
    if count_taken(study, up_to=trial.number) > wanted:
        # Another command has asked for the last one at the same time. Outside of SQLite nothing keeps it from that.
        study.tell(trial, state=TrialState.FAIL)
        return None
    # Settings are drawn later, so each trial has the sampler of its number.
    study.sampler = make_sampler(crew.task.search, crew.task.config.seed, trial.number)
    trial.set_user_attr(OWNER, crew.owner)
    trial.set_user_attr(SEEN, time.time())
    return trial


def _make_trial(study: Study, trial: Trial, crew: Crew) -> None:
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    try:
        value = _carry_out(trial, crew)
    except UpdateFinishedTrialError:
        return  # It had no mark for too long, so another command has put it back.
    except DivergedError as error:
        # A learning rate was too large: a result, and no failure of the machine.
        trial.set_user_attr(ERROR, error.message)
        value = None
    except BaseException:
        with crew.lock:
            put_back(study, trial.number)
        raise
    study.tell(trial, value, TrialState.PRUNED if value is None else None, skip_if_finished=True)


def _carry_out(trial: Trial, crew: Crew) -> float | None:
    """Make the runs of a trial and return its value; None where it was pruned."""
    task, search = crew.task, crew.task.search
    settings = task.space.draw(trial)
    trial.set_user_attr(SETTINGS, settings)
    runs = _choose_runs(trial, crew)
    trial.set_user_attr(RUNS, {"folder": str(runs), "threads": task.threads})
    judge = _Judge(trial, crew)
    values: list[float] = []
    for repeat in range(search.repeats):
        config = make_trial_config(task.config, search, settings, repeat=repeat, threads=task.threads)
        out = runs if search.repeats == 1 else runs / f"seed-{config.seed}"
        out.parent.mkdir(parents=True, exist_ok=True)
        launched = launch_run(config, out, on_validation=judge.ask, on_poll=judge.look)
        _discard_weights(out)
        value = judge.find_value(launched)
        if launched.state == "pruned" or value is None:
            return None
        values.append(value)
        if judge.is_ended_by_run(repeat, value):
            break
    # Optuna's own advice for trials that Wilcoxon ends: their mean so far says more than that they were pruned.
    return sum(values) / len(values)


def _choose_runs(trial: Trial, crew: Crew) -> Path:
    """Return the folder of a trial's runs: the one that an earlier attempt has begun here, or a new one."""
    trials = crew.files.trials.resolve()
    before = trial.user_attrs.get(RUNS)
    if before is not None and before["threads"] == crew.task.threads and Path(before["folder"]).parent == trials:
        return Path(before["folder"])
    return trials / f"{trial.number:04d}"


def _discard_weights(out: Path) -> None:
    """Remove what only continuing or scoring would need: a search keeps settings, logs and figures of its trials."""
    run = RunDir(out)
    for path in (run.checkpoints, run.adapter, run.tokenizer):
        shutil.rmtree(path, ignore_errors=True)
    run.head.unlink(missing_ok=True)


class _Judge:
    """Reports the validations of a trial's run to the study, and asks whether they end it."""

    def __init__(self, trial: Trial, crew: Crew) -> None:
        self._trial = trial
        self._search = crew.task.search
        self._stop = crew.stop
        self._num_reports = 0
        self._marked_s = time.monotonic()

    def ask(self, validation: dict[str, float]) -> bool:
        """Report one validation; true ends the run."""
        if self._search.repeats > 1:
            return False
        self._num_reports += 1
        self._trial.report(validation[self._search.metric], self._num_reports)
        # Nothing is saved by ending a run after its last validation.
        return self._num_reports < self._search.reports and self._trial.should_prune()

    def look(self) -> None:
        """End the run where all shall end; say now and then that this command is still there."""
        if self._stop.is_set():
            raise KeyboardInterrupt
        if time.monotonic() - self._marked_s > MARK_S:
            self._marked_s = time.monotonic()
            self._trial.set_user_attr(SEEN, time.time())

    def find_value(self, launched: LaunchedRun) -> float | None:
        """Return what a run is judged by: the best of its validations."""
        best: float | None = None
        for validation in launched.validations:
            value = float(validation[self._search.metric])
            if is_better(self._search.metric, value, best):
                best = value
        if self._num_reports == 0:
            # The run was finished before, and the study does not know it.
            for validation in launched.validations:
                self.ask(validation)
        return best

    def is_ended_by_run(self, repeat: int, value: float) -> bool:
        """Report a whole run of a trial of several, paired by seed with those of the best trial."""
        if self._search.repeats == 1:
            return False
        self._trial.report(value, repeat)
        if repeat + 1 < self._search.repeats and self._trial.should_prune():
            self._trial.set_user_attr("ended by", "wilcoxon")
            return True
        return False
