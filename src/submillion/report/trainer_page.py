"""The report on a run of `transformers.Trainer`: its curves and what its state file says."""

from __future__ import annotations

from submillion.report.curves import list_curves
from submillion.report.formatting import number, setting, shorten
from submillion.report.templates import render_page
from submillion.report.theme import Plot
from submillion.report.validations import measure_share, tabulate_validations
from submillion.run.history import RunHistory, is_number, to_float

TEXT_LENGTH = 200


def build_trainer_page(run: RunHistory) -> tuple[str, list[Plot]]:
    """Return the page, and its plots."""
    curves = list_curves(run)
    kept = measure_share(run.best.figures.get("accuracy"), run.count_evaluated("validation")) if run.best else None
    page = render_page(
        "trainer.html",
        run=run,
        kept=kept if kept and kept.is_share else None,
        best_metric=_find_number(run, "best_metric"),
        planned=_find_number(run, "max_steps"),
        runtime=_find_number(run, "train_runtime"),
        curves=curves,
        validations=tabulate_validations(run),
        facts=[(name, _show(value)) for name, value in run.facts.items()],
    )
    return page, curves


def _find_number(run: RunHistory, name: str) -> float | None:
    value = run.facts.get(name)
    return to_float(value) if is_number(value) else None


def _show(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return shorten(setting(value), TEXT_LENGTH)
