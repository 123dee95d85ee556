"""A worker: takes trials of a study, one after the other, and makes each in a process of its own."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submillion.config.run import is_better
from submillion.errors import DivergedError, RunError, SubmillionError
from submillion.launch import LaunchedRun, launch_run
from submillion.run.folder import RunDir
from submillion.search.storage import open_storage, require_optuna, storage_errors, taking_alone
from submillion.search.study import (
    ERROR,
    HOLDER,
    MARK_S,
    RUNS,
    SEEN,
    SETTINGS,
    SURPLUS,
    Holder,
    StaleTrials,
    count_taken,
    give_back,
    list_trials,
    make_pruner,
)
from submillion.search.task import STORAGE_VARIABLE, SearchDir, Task
from submillion.search.trials import make_trial_config

if TYPE_CHECKING:
    from optuna import Study, Trial

_WAIT_S = 1.0


def work(folder: Path) -> None:
    """Make trials until the study has the number wanted and none of them is under way any more.

    Args:
        folder: Of the search; the storage stands in the environment.

    Raises:
        SubmillionError: A trial cannot be made; those of the study stay as they are.
        KeyboardInterrupt: Asked to stop; the trial under way is back in the queue.
    """
    import optuna

    from submillion.search.samplers import NumberedSampler

    url = os.environ.pop(STORAGE_VARIABLE)
    task = Task.read(SearchDir(folder).task)
    with storage_errors(url):
        study = optuna.load_study(
            storage=open_storage(url),
            study_name=task.study,
            sampler=NumberedSampler(task.search, task.config.seed),
            pruner=make_pruner(task.search),
        )
        stale = StaleTrials()
        while True:
            with taking_alone(url):
                stale.give_back(study)
                trial = take_trial(study, task.search.trials)
            if trial is not None:
                _make_one(study, trial, task, folder)
            elif list_trials(study, "running"):
                # Their processes may end before they do; then their trials are made here.
                time.sleep(_WAIT_S)
            else:
                return


def take_trial(study: Study, wanted: int) -> Trial | None:
    """Take the next trial, one that waits or a new one, and say whose it is; None where there are enough."""
    if not list_trials(study, "waiting") and count_taken(study) >= wanted:
        return None
    trial = study.ask()
    try:
        trial.set_user_attr(HOLDER, asdict(Holder.here()))
    except BaseException:
        give_back(study, trial, "interrupted")
        raise
    return trial


def _make_one(study: Study, trial: Trial, task: Task, folder: Path) -> None:
    try:
        if count_taken(study, up_to=trial.number) > task.search.trials:
            # Another worker has asked for the last one at the same time.
            _drop(study, trial)
            return
        _carry_out(study, trial, task, folder)
    except KeyboardInterrupt:
        give_back(study, trial, "interrupted")
        raise
    except DivergedError as error:
        # A learning rate was too large: a result, and no failure of the machine.
        from optuna.trial import TrialState

        trial.set_user_attr(ERROR, error.message)
        study.tell(trial, state=TrialState.PRUNED)
    except RunError as error:
        give_back(study, trial, error.message)
        raise
    except Exception as error:
        give_back(study, trial, str(error))
        raise


def _drop(study: Study, trial: Trial) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr(SURPLUS, True)
    study.tell(trial, state=TrialState.FAIL)


def _carry_out(study: Study, trial: Trial, task: Task, folder: Path) -> None:
    from optuna.trial import TrialState

    settings = task.space.draw(trial)
    trial.set_user_attr(SETTINGS, settings)
    runs = _choose_runs(trial, task, folder)
    trial.set_user_attr(RUNS, {"host": Holder.here().host, "threads": task.threads, "folder": str(runs)})
    judge = _Judge(trial, task)
    values = []
    for repeat in range(task.search.repeats):
        config = make_trial_config(task.config, task.search, settings, repeat=repeat, threads=task.threads)
        out = runs if task.search.repeats == 1 else runs / f"seed-{config.seed}"
        out.parent.mkdir(parents=True, exist_ok=True)
        launched = launch_run(config, out, on_validation=judge.ask, on_poll=judge.mark)
        _discard_weights(out)
        value = judge.find_value(launched)
        if launched.state == "pruned" or value is None:
            study.tell(trial, state=TrialState.PRUNED)
            return
        values.append(value)
        if judge.is_ended_by_run(repeat, value):
            break
    # Optuna's own advice for trials that Wilcoxon ends: their mean so far says more than that they were pruned.
    study.tell(trial, sum(values) / len(values))


def _choose_runs(trial: Trial, task: Task, folder: Path) -> Path:
    """Return the folder of a trial's runs: the one that an earlier attempt has begun here, or a new one."""
    before = trial.user_attrs.get(RUNS)
    if before is not None and before["host"] == Holder.here().host and before["threads"] == task.threads:
        return Path(before["folder"])
    return SearchDir(folder).trials.resolve() / f"{trial.number:04d}"


def _discard_weights(out: Path) -> None:
    """Remove what only continuing or scoring would need: a search keeps settings, logs and figures of its trials."""
    run = RunDir(out)
    for path in (run.checkpoints, run.adapter, run.tokenizer):
        shutil.rmtree(path, ignore_errors=True)
    run.head.unlink(missing_ok=True)


class _Judge:
    """Reports the validations of a trial's run to the study, and asks whether they end it."""

    def __init__(self, trial: Trial, task: Task) -> None:
        self._trial = trial
        self._search = task.search
        self._num_reports = 0
        self._marked_s = 0.0

    def ask(self, validation: dict[str, Any]) -> bool:
        """Report one validation; true ends the run."""
        if self._search.repeats > 1:
            return False
        self._num_reports += 1
        self._trial.report(validation[self._search.metric], self._num_reports)
        # Nothing is saved by ending a run after its last validation.
        return self._num_reports < self._search.reports and self._trial.should_prune()

    def mark(self) -> None:
        """Say now and then that this process is still there."""
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
        if self._search.repeats == 1 and self._num_reports == 0:
            # A run that was finished before, and its trial was not told.
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


def find_log(folder: Path, worker: int) -> Path:
    """Return the file for what a worker says; `find_error_file` gives the one for its error."""
    return folder / "workers" / f"{worker}.log"


def main() -> int:
    """Run a worker as a process of its own: folder, number and the parent's process id are its arguments."""
    from submillion.launch import find_error_file, follow_parent, sigterm_interrupts, write_error

    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    follow_parent(int(sys.argv[3]))
    require_optuna()
    try:
        with sigterm_interrupts():
            work(folder)
    except KeyboardInterrupt:
        return 130
    except SubmillionError as error:
        write_error(find_error_file(find_log(folder, number)), error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
