"""The model card of a run: what it is, how good it is known to be, and how to load it."""

from __future__ import annotations

from pathlib import Path

from submillion.data.legibility import explain_unread
from submillion.data.synthetic import describe_file
from submillion.errors import RunError
from submillion.model.known_bases import find_known_base
from submillion.report.learning import judge_run
from submillion.report.templates import render_markdown
from submillion.run.folder import RunDir
from submillion.run.history import RunHistory, read_history
from submillion.run.shapes import damage_is_run_error
from submillion.storage.files import write_text


def write_card(run: Path) -> Path:
    """Write the model card of a run as ``README.md`` in its folder.

    Args:
        run: The run folder.

    Returns:
        The file.

    Raises:
        RunError: No run folder, or a damaged file in it.
    """
    history = read_history(run)
    with damage_is_run_error(run):
        text = _describe_run(history)
    file = RunDir(run).card
    write_text(file, text)
    return file


def _describe_run(run: RunHistory) -> str:
    if run.config is None:
        raise RunError("has no configuration to write a card of", where=str(run.path))
    model, manifest = run.config.model, run.manifest
    known = find_known_base(model.base)
    revision = None if manifest is None else manifest.base.revision
    return render_markdown(
        "card.md",
        run=run,
        model=model,
        data=run.data,
        is_native=model.head == "native",
        repo=known.repo if known else model.base,
        revision=revision or (known.revision if known else None),
        verdict=judge_run(run).get("sentences", ()),
        reason=explain_unread(run.data),
        num_left_out=run.data.get("num_dropped_short", 0) + run.data.get("num_dropped_long", 0),
        synthetic=[describe_file(entry) for entry in run.data.get("extra") or []],
        digests=run.digests,
        chosen_length=None if manifest is None else manifest.max_length,
    )
