"""What `transformers.Trainer` leaves behind (trainer_state.json), read into the structure of our own runs.

The file is JSON that somebody else wrote, so nothing in it is taken for granted: what is no number is left out of
curves, and text stays text. Pickles beside it (training_args.bin) are never opened.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from submillion.errors import RunError
from submillion.run.history import RunHistory, Validation, gather, is_number, read_history, to_float
from submillion.storage.json_shapes import JsonObject, JsonView

STATE_FILE = "trainer_state.json"
MAX_BYTES = 1 << 30
STEP_FIELDS = ("loss", "grad_norm", "learning_rate")
# Figures of the machine, which the Trainer logs with each evaluation beside those of the model.
_TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
_SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")
_STATE_FACTS = (
    *("global_step", "max_steps", "num_train_epochs", "train_batch_size", "logging_steps", "eval_steps", "save_steps"),
    *("best_metric", "best_global_step", "best_model_checkpoint", "num_input_tokens_seen", "total_flos", "trial_name"),
)
_HINT = "Give a trainer_state.json, a checkpoint folder that holds one, or the output folder of a Trainer."


def open_run(path: Path) -> RunHistory:
    """Read a run folder of ours, or a run of `transformers.Trainer`.

    Args:
        path: A run folder; a trainer_state.json; a checkpoint folder with one; or the output folder of a Trainer, of
            which the state that went furthest is read.

    Raises:
        RunError: It is none of these, or damaged.
    """
    if path.is_dir() and not os.path.lexists(path / "config.yaml"):
        states = [path / STATE_FILE, *path.glob(f"checkpoint-*/{STATE_FILE}")]
        states = [state for state in states if state.is_file()]
        if not states:
            raise RunError(
                "is not a run folder (no config.yaml) and not a Trainer's (no trainer_state.json)",
                where=str(path),
                hint=f"Give a folder under runs/. {_HINT}",
            )
        # The file of the folder itself is written last, and only by those who ask for it.
        return max((load_trainer_state(state) for state in states), key=lambda run: to_float(run.facts["global_step"]))
    return load_trainer_state(path) if path.is_file() else read_history(path)


def load_trainer_state(path: Path) -> RunHistory:
    """Read a trainer_state.json.

    Evaluations on one set count as ``validation``; those of a dictionary of sets keep their names. Values that are not
    finite (the file may hold NaN and Infinity) are left out and counted.

    Args:
        path: The file; another name than trainer_state.json is fine.

    Raises:
        RunError: It is not JSON, or not a Trainer's.
    """
    state = _read_state(path)
    history = state["log_history"]
    entries = sorted(
        (entry for entry in history if _is_finite(entry.get("step"))), key=lambda entry: float(entry["step"])
    )
    if history and not entries:
        raise RunError("no entry of its log_history has a step", where=str(path), hint=_HINT)
    steps = [_keep_numbers(entry, ("step", "epoch", *STEP_FIELDS)) for entry in entries if "loss" in entry]
    summary = {name: entry[name] for entry in entries for name in _SUMMARY if _is_finite(entry.get(name))}
    facts = {name: state[name] for name in _STATE_FACTS if state.get(name) is not None} | summary
    facts.setdefault("global_step", max((float(entry["step"]) for entry in entries), default=0.0))
    if not _is_finite(facts["global_step"]):
        raise RunError(f"global_step is {facts['global_step']!r}, not a number", where=str(path), hint=_HINT)
    skipped = sum(is_number(value) and not _is_finite(value) for entry in history for value in entry.values())
    return RunHistory(
        path=path.parent,
        title=_find_title(path),
        steps=gather(steps),
        evaluations=_read_evaluations(entries, _find_best_step(state)),
        facts=facts,
        num_skipped=skipped,
        set_sizes=_find_sizes(entries),
    )


def _read_state(path: Path) -> JsonObject:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"has more than {MAX_BYTES >> 30} GiB", where=str(path), hint=_HINT)
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot be read as JSON: {error}", where=str(path), hint=_HINT) from None
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise RunError("is not the state of a Trainer: it has no list log_history", where=str(path), hint=_HINT)
    if not all(isinstance(entry, dict) for entry in state["log_history"]):
        raise RunError("its log_history holds something else than objects", where=str(path), hint=_HINT)
    return state


def _is_finite(value: object) -> bool:
    # Whole numbers of JSON have no limit; those that no float can hold are as good as infinite.
    return math.isfinite(to_float(value))


def _keep_numbers(entry: JsonView, names: Iterable[str]) -> dict[str, float]:
    return {name: float(entry[name]) for name in names if _is_finite(entry.get(name))}


def _find_title(path: Path) -> str:
    folder = path.resolve().parent
    is_checkpoint = re.fullmatch(r"checkpoint-\d+", folder.name) is not None
    return folder.parent.name if is_checkpoint and folder.parent.name else folder.name or path.stem


def _find_best_step(state: JsonView) -> float | None:
    """Return the step of the best checkpoint: named from transformers 4.52 on, before that in the folder's name."""
    if _is_finite(state.get("best_global_step")):
        return float(state["best_global_step"])
    found = re.search(r"checkpoint-(\d{1,15})[/\\]*$", str(state.get("best_model_checkpoint") or ""))
    return float(found[1]) if found else None


def _find_sets(entries: Iterable[JsonView]) -> list[str]:
    """Return the names of the evaluated sets; a Trainer with a dictionary of sets puts them into the keys."""
    keys = {key for entry in entries for key in entry}
    named = {key[len("eval_") : -len("_runtime")] for key in keys if re.fullmatch(r"eval_.+_runtime", key, re.DOTALL)}
    # Where one name begins with another one, the longer one is tried first.
    return sorted((name for name in named if f"eval_{name}_loss" in keys), key=lambda name: (-len(name), name))


def _find_sizes(entries: Iterable[JsonView]) -> dict[str, int]:
    """Return how many rows each evaluation scored, where its seconds times its rows per second leave one whole number.

    The Trainer rounds the seconds to four digits after the point and the rate to three. The product must hold for every
    evaluation of a set, and the accuracy must be a share of that many rows.
    """
    listed = list(entries)
    sizes = {}
    for split in ("validation", *_find_sets(listed)):
        prefix = "eval_" if split == "validation" else f"eval_{split}_"
        low, high = 1.0, math.inf
        shares = []
        for entry in listed:
            speed = _keep_numbers(entry, (f"{prefix}runtime", f"{prefix}samples_per_second"))
            if len(speed) == 2:
                seconds, rate = speed.values()
                low = max(low, (seconds - 5.1e-5) * (rate - 5.1e-4))
                high = min(high, (seconds + 5.1e-5) * (rate + 5.1e-4))
            if _is_finite(entry.get(f"{prefix}accuracy")):
                shares.append(float(entry[f"{prefix}accuracy"]))
        number = math.floor(high) if math.isfinite(high) else 0
        is_one = number >= max(1.0, low) and number - 1 < low
        if is_one and all(abs(share * number - round(share * number)) < 1e-3 for share in shares):
            sizes[split] = number
    return sizes


def _read_evaluations(entries: Iterable[Mapping[str, object]], best: float | None) -> dict[str, list[Validation]]:
    listed = list(entries)
    sets = _find_sets(listed)
    found: dict[str, list[Validation]] = {}
    for entry in listed:
        rows: dict[str, dict[str, float]] = {}
        for key, value in entry.items():
            if not key.startswith("eval_") or not _is_finite(value):
                continue
            name = key.removeprefix("eval_")
            split = next((one for one in sets if name.startswith(f"{one}_")), None)
            figure = name if split is None else name.removeprefix(f"{split}_")
            # A metric that is called step moves no evaluation.
            if figure not in (*_TIMINGS, "step", "epoch") and not figure.startswith("mem_"):
                rows.setdefault("validation" if split is None else split, {})[figure] = to_float(value)
        place = _keep_numbers(entry, ("step", "epoch"))
        step, epoch = place["step"], place.get("epoch")
        for split, figures in rows.items():
            found.setdefault(split, []).append(Validation(step, figures, epoch, is_best=step == best))
    return dict(sorted(found.items(), key=lambda item: (item[0] != "validation", item[0])))
