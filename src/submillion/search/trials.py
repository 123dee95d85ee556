"""From a trial's settings to runs: what a trial trains on and for how long, and what the confirming runs do."""

from __future__ import annotations

from collections.abc import Mapping

from submillion.config.run import RunConfig, parse_config
from submillion.config.search import SearchConfig
from submillion.search.space import apply_settings


def make_trial_config(
    config: RunConfig, search: SearchConfig, settings: Mapping[str, object], *, repeat: int, threads: int | None
) -> RunConfig:
    """Return the configuration of one run of a trial.

    It sees the validation rows of every other trial and never scores the test rows; it has no baseline, watched sets,
    trackers, proof and report. Its validations come after equal shares of its records, whatever the batch size.

    Args:
        config: The recipe.
        search: Search with the length of its trials.
        settings: Settings as they were drawn, by dotted path.
        repeat: Number of the run in its trial from 0, added to the seed.
        threads: CPU threads; as the recipe says if None.
    """
    values = _cut(config, search.rows, search.steps).model_dump(mode="json")
    data, train = values["data"], values["train"]
    if search.validation_rows is not None:
        data["validation_size"] = data["max_validation_records"] = search.validation_rows
    values |= {
        "name": f"{config.name}-trial",
        "about": "",
        "seed": config.seed + repeat,
        "watch": [],
        "baseline": False,
        "track": [],
        "export": [],
        "search": None,
        "final": {"test": False, "proof": False, "report": False},
        "threads": threads if config.threads is None else config.threads,
    }
    train |= {"metric": search.metric, "patience": None, "keep_checkpoints": 1, "save_every": None}
    cut = apply_settings(parse_config(values, where="trial"), settings)
    steps = cut.train.max_steps
    every = cut.train.epochs / search.reports if steps is None else max(1.0, steps / search.reports)
    unit = "epochs" if steps is None else "steps"
    changed = cut.train.model_copy(update={"evaluate_every": every, "interval_unit": unit})
    return cut.model_copy(update={"train": changed})


def _cut(config: RunConfig, rows: int | None, steps: int | None) -> RunConfig:
    """Return the configuration with fewer rows and steps, where they are given."""
    values = config.model_dump(mode="json")
    if rows is not None:
        values["data"]["max_records"] = rows
    if steps is not None:
        values["train"]["max_steps"] = steps
    return parse_config(values, where="search")


def make_tuned_recipe(config: RunConfig, settings: Mapping[str, object], about: str) -> RunConfig:
    """Return the recipe with a trial's settings, at the recipe's own length: what `train` takes.

    Args:
        config: The recipe that was tuned.
        settings: Settings of the best trial, by dotted path.
        about: Sentence about their origin, which follows the recipe's own description.
    """
    tuned = apply_settings(config, settings)
    text = f"{config.about.strip()}\n{about}".strip()
    return tuned.model_copy(update={"name": f"{config.name}-tuned", "about": text, "search": None})


def make_confirming_config(
    config: RunConfig, search: SearchConfig, settings: Mapping[str, object], *, seed: int
) -> RunConfig:
    """Return the configuration of one run of the comparison: cut as asked for, with test rows, without a baseline.

    Args:
        config: The recipe.
        search: Search with the length of these runs.
        settings: Settings of the best trial, or none for the recipe as it is.
        seed: Number that is added to the recipe's seed.
    """
    cut = apply_settings(_cut(config, search.confirm_rows, search.confirm_steps), settings)
    return cut.model_copy(
        update={"seed": config.seed + seed, "baseline": False, "search": None, "track": (), "export": ()}
    )
