"""The workers of a search on this machine: threads that wait for the processes of their trials."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from threading import Thread
from typing import TYPE_CHECKING

from submillion.search.study import make_pruner
from submillion.search.trial_worker import Crew, work

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

_POLL_S = 0.5


def run_workers(storage: BaseStorage, crew: Crew, num_workers: int, *, on_poll: Callable[[], None]) -> None:
    """Let workers make the trials of a search until none is left to make.

    Args:
        storage: Storage of the study.
        crew: State that the workers share.
        num_workers: Number of threads, each with one trial at a time.
        on_poll: Called now and then; what it raises ends them.

    Raises:
        SubmillionError: A worker ended with it; the others have been ended.
        KeyboardInterrupt: The command was asked to stop; the trials under way are back in the queue. Asked twice, it
            does not wait for them to save.
    """
    import optuna

    name, search = crew.task.study, crew.task.search
    studies = [
        optuna.load_study(storage=storage, study_name=name, pruner=make_pruner(search)) for _ in range(num_workers)
    ]
    ends: list[Future[None]] = []
    try:
        for study in studies:
            end: Future[None] = Future()
            # Python waits for the threads of a pool even where Ctrl-C was pressed twice, but not for these.
            Thread(target=_fill, args=(end, study, crew), daemon=True).start()
            ends.append(end)
        while True:
            done, under_way = wait(ends, timeout=_POLL_S, return_when=FIRST_EXCEPTION)
            on_poll()
            if not under_way or any(end.exception() for end in done):
                break
    finally:
        crew.stop.set()
        failed = [end for end in ends if end.done() and end.exception()]
        wait(ends)
    on_poll()
    # The one that failed first has stopped the others.
    for end in (*failed, *ends):
        end.result()


def _fill(end: Future[None], study: Study, crew: Crew) -> None:
    try:
        work(study, crew)
    except BaseException as error:
        end.set_exception(error)
    else:
        end.set_result(None)
