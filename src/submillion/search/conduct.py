"""A search from a recipe to a better one, in straight lines: space, trials, the best, its comparison, its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from submillion.config.run import RunConfig, dump_config
from submillion.config.search import SearchConfig
from submillion.errors import ConfigError
from submillion.model.sources import load_base_config
from submillion.progress import Progress, Silent
from submillion.run.folder import refuse_overwriting
from submillion.search.confirm import confirm_settings
from submillion.search.report import describe_confirmation, write_search_report
from submillion.search.space import make_default_space
from submillion.search.storage import mask_url, open_storage, require_optuna, resolve_url, storage_errors
from submillion.search.study import open_study, put_back_own
from submillion.search.task import SearchDir, Task
from submillion.search.trial_results import (
    TrialRow,
    count_states,
    describe_rows,
    find_best,
    list_rows,
    list_scales,
    measure_importances,
    tabulate_csv,
)
from submillion.search.trial_worker import Crew
from submillion.search.trials import make_tuned_recipe
from submillion.search.worker_pool import run_workers
from submillion.storage.files import hold_folder, write_json, write_text

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        folder: Folder of the search.
        study: Name of the study.
        storage: URL of its storage, without a password.
        metric: Figure that trials are judged by.
        best_trial: Number of the best one.
        best_value: Value of the best one, on validation rows.
        best_settings: Settings of the best one, by dotted path.
        trials: Number of trials by state.
        importances: Share of each parameter; empty where too few trials were completed.
        confirmation: The comparison with the recipe; None where it was not asked for, or the recipe itself is best.
        verdict: Result of the comparison in words.
        recipe: The file with the best settings, which `submillion train` takes.
        report: The HTML report.
        results: All of this and every trial as JSON.
        table: The trials as CSV.
    """

    folder: Path
    study: str
    storage: str
    metric: str
    best_trial: int
    best_value: float
    best_settings: dict[str, object]
    trials: dict[str, int]
    importances: dict[str, float]
    confirmation: dict[str, object] | None
    verdict: str
    recipe: Path
    report: Path
    results: Path
    table: Path

    def to_json(self) -> dict[str, object]:
        """Return plain values under the names of the attributes."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in vars(self).items()}


def run_search(
    config: RunConfig,
    folder: Path,
    *,
    num_labels: int,
    storage: str | None = None,
    study: str | None = None,
    num_workers: int = 1,
    progress: Progress | None = None,
) -> SearchResult:
    """Search for better settings of a recipe; what is there already is taken up.

    Args:
        config: The recipe; its `search` says how, with the defaults where it has none.
        folder: Folder of the search.
        num_labels: Number of classes C.
        storage: URL of the study's storage; a SQLite file in the folder if None.
        study: Name of the study there; the recipe's name if None.
        num_workers: Number of trials that are made at the same time on this machine.
        progress: Receiver of trials and confirming runs.

    Raises:
        ConfigError: A space or storage that cannot be used, or a study of that name that searches something else.
        BudgetError: A combination in the space that cannot stay below the budget.
        SubmillionError: A trial cannot be made; the same call continues after what was wrong is put right.
        KeyboardInterrupt: Asked to stop; the same call continues.
    """
    require_optuna()
    progress = progress or Silent()
    task = _prepare(config, num_labels, study, num_workers)
    first = task.space.locate_recipe()
    if first is None:
        progress.note("the recipe's own settings lie outside of the space, so no trial begins with them")
    files = SearchDir(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.refuse_links()
    hint = "Wait for it, or stop it. To work on one study together, give each a folder: --out DIR"
    with hold_folder(files.lock, doing="searching", hint=hint):
        url = resolve_url(storage or f"sqlite:///{files.database.resolve()}")
        with storage_errors(url):
            opened = open_storage(url)
            shared = open_study(opened, task.study, task.config, first)
            crew = Crew(task, files, url, files.name_owner())
            put_back_own(shared, crew.owner)
            watch = _Watch(shared, task.search, progress)
            run_workers(opened, crew, num_workers, on_poll=watch.look)
            progress.finish()
            rows = list_rows(shared)
            best = find_best(rows, task.search.metric)
            importances = measure_importances(shared)
        return _conclude(
            task, files, rows=rows, best=best, importances=importances, storage=mask_url(url), progress=progress
        )


def _prepare(config: RunConfig, num_labels: int, study: str | None, num_workers: int) -> Task:
    from submillion.training.device import count_cpus

    search = config.search or SearchConfig()
    base_config = load_base_config(config.model.base, config.model.revision)
    if not search.space:
        space = make_default_space(config, base_config, num_labels)
        search = search.model_copy(update={"space": space})
    complete = config.model_copy(update={"search": search})
    threads = config.threads or max(1, count_cpus() // num_workers)
    task = Task(complete, base_config, num_labels, study or config.name, threads)
    task.space.check()
    return task


class _Watch:
    """Reports trials as they end, whoever makes them."""

    def __init__(self, study: Study, search: SearchConfig, progress: Progress) -> None:
        self._study = study
        self._search = search
        self._progress = progress
        ended = self._list_ended()
        self._reported = {row.number for row in ended}
        progress.start("trials", search.trials, min(len(self._reported), search.trials))

    def _list_ended(self) -> list[TrialRow]:
        return [row for row in list_rows(self._study) if row.state in {"complete", "pruned"}]

    def look(self) -> None:
        """Report the trials that have ended since the last look."""
        ended = self._list_ended()
        for row in ended:
            if row.number in self._reported:
                continue
            self._reported.add(row.number)
            value = "no value" if row.value is None else f"{self._search.metric} {row.value:.4f}"
            how = "pruned at " if row.state == "pruned" and row.value is not None else ""
            self._progress.note(f"trial {row.number}: {how}{row.error or value}")
        done = [row for row in ended if row.state == "complete"]
        if done:
            best = find_best(done, self._search.metric)
            assert best.value is not None
            self._progress.advance(min(len(ended), self._search.trials), **{f"best_{self._search.metric}": best.value})


def _conclude(
    task: Task,
    files: SearchDir,
    *,
    rows: list[TrialRow],
    best: TrialRow,
    importances: Mapping[str, float],
    storage: str,
    progress: Progress,
) -> SearchResult:
    about = _describe_origin(task, best, rows)
    confirmation = None
    # Written before the comparison, which takes long: what has been found is there whatever comes then.
    write_text(files.winner, dump_config(make_tuned_recipe(task.config, best.settings, about)))
    if task.search.seeds and not best.is_recipe:
        confirmation = confirm_settings(task.config, task.search, best.settings, files.confirming, progress)
        about = f"{about} {describe_confirmation(confirmation, best)}"
        write_text(files.winner, dump_config(make_tuned_recipe(task.config, best.settings, about)))
    assert best.value is not None
    result = SearchResult(
        folder=files.path,
        study=task.study,
        storage=storage,
        metric=task.search.metric,
        best_trial=best.number,
        best_value=best.value,
        best_settings=best.settings,
        trials=count_states(rows),
        importances=dict(importances),
        confirmation=confirmation,
        verdict=describe_confirmation(confirmation, best),
        recipe=files.winner,
        report=files.report,
        results=files.results,
        table=files.table,
    )
    write_text(files.table, tabulate_csv(rows, list(list_scales(task))))
    everything = {**result.to_json(), "config": task.config.model_dump(mode="json"), "all_trials": describe_rows(rows)}
    write_json(files.results, everything)
    write_search_report(files, task, rows=rows, best=best, importances=importances, confirmation=confirmation)
    return result


def _describe_origin(task: Task, best: TrialRow, rows: list[TrialRow]) -> str:
    states = count_states(rows)
    search = task.search
    limits = [
        f"{search.rows:,} training rows" if search.rows else "",
        f"{search.validation_rows:,} validation rows" if search.validation_rows else "",
        f"{search.steps:,} steps" if search.steps else "",
    ]
    cut = ", ".join(limit for limit in limits if limit)
    return (
        f"Settings of trial {best.number} of a search over {states['complete'] + states['pruned']} trials "
        f"({search.sampler}, pruner {search.pruner}{f'; each of {cut}' if cut else ''})."
    )


def choose_search_folder(config: RunConfig, out: Path | None) -> Path:
    """Return the folder of a search: the same for the same recipe, so that the same command continues it.

    Raises:
        ConfigError: It is a file, or a folder with something else in it.
    """
    folder = out if out is not None else Path("runs") / f"{config.name}-search"
    refuse_overwriting(folder, where=str(folder))
    if not folder.exists():
        return folder
    if not folder.is_dir() or (any(folder.iterdir()) and not SearchDir(folder).lock.exists()):
        raise ConfigError(
            "is no folder of a search, and not empty", where=str(folder), hint="Choose another one: --out DIR"
        )
    return folder
