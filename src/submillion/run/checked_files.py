"""The JSON and YAML files of a run folder, read whole and checked before anybody believes what they say."""

from __future__ import annotations

from typing import Any

from submillion.config.run import RunConfig, load_yaml, parse_config
from submillion.errors import RunError
from submillion.run.folder import RUN_FORMAT, RunDir, refuse_links
from submillion.storage.files import read_json, read_plain_text
from submillion.storage.json_shapes import ANY_NUMBER, COUNT, DAMAGED_HINT, Maybe, Number, Shape, check_shape

TEMPERATURE = Number(1e-6, 1e6)
"""What logits are divided by: 0 divides by nothing, and absurd ones make all classes equal or one of them certain."""

_MANIFEST: Shape = {
    "run_format": COUNT,
    "state?": str,
    "recipe?": str,
    "created?": str,
    "seed?": COUNT,
    "base": {"name": str, "origin?": str, "revision?": Maybe(str), "weights_sha256": str},
    "precision?": str,
    "device?": str,
    "threads?": COUNT,
    "num_processes?": Number(1, is_whole=True),
    "notes?": [str],
    "versions?": {"*": str},
    "machine?": dict,
    "num_test_evaluations?": COUNT,
    "temperature?": TEMPERATURE,
    "best_step?": COUNT,
    "num_steps?": COUNT,
    "modules?": str,
    "started_from?": dict,
    "max_length?": {"rule": str, "max_length": COUNT, "num_cut": COUNT, "num_records": Number(1, is_whole=True)},
    "proof?": dict,
    "train_s?": Maybe(ANY_NUMBER),
    "rows_per_s?": Maybe(ANY_NUMBER),
    "wall_s?": Maybe(ANY_NUMBER),
}
# Every run has written these, in this order.
_SECTIONS = ("data", "model", "adapter", "train", "baseline")
_EXTRA = {"data": str, "sha256": str}
_DATA: Shape = {
    "source?": str,
    "files": {"*": str},
    "labels": [str],
    "num_train": COUNT,
    "num_validation?": COUNT,
    "num_test?": COUNT,
    "train_sha256": str,
    "test_sha256": Maybe(str),
    "extra?": [_EXTRA],
}


def read_config(run: RunDir) -> RunConfig:
    """Read the resolved configuration of a run folder.

    Raises:
        RunError: It is missing, is no text, or is a link.
        ConfigError: It has been edited into something that does not fit.
    """
    values = load_yaml(read_config_text(run), where=str(run.config))
    missing = [name for name in _SECTIONS if name not in values]
    if missing:
        # A file that was cut is often whole YAML, and the defaults would take the place of what is lost.
        raise RunError(f"is damaged: {missing[0]} is missing", where=str(run.config), hint=DAMAGED_HINT)
    return parse_config(values, where=str(run.config))


def read_config_text(run: RunDir) -> str:
    """Return the text of config.yaml.

    Raises:
        RunError: It is missing, is no text, or is a link.
    """
    refuse_links(run)
    try:
        return read_plain_text(run.config)
    except FileNotFoundError:
        raise RunError(
            "is no run folder: config.yaml is missing",
            where=str(run.path),
            hint="Give the folder of a run that was started before.",
        ) from None


def read_manifest(run: RunDir) -> dict[str, Any]:
    """Read a manifest of this run format.

    Raises:
        RunError: Missing, damaged or of another format.
    """
    refuse_links(run)
    values = read_json(run.manifest)
    if values.get("run_format") != RUN_FORMAT:
        raise RunError(
            f"has run format {values.get('run_format')!r:.40}, this version reads {RUN_FORMAT}",
            where=str(run.manifest),
            hint="Use the version of submillion that made the run.",
        )
    check_shape(values, _MANIFEST, run.manifest)
    return values


def read_data_report(run: RunDir) -> dict[str, Any]:
    """Read data.json: classes, sizes and digests of the splits, and what the doctor found.

    Raises:
        RunError: Missing or damaged.
    """
    values = read_json(run.data)
    check_shape(values, _DATA, run.data)
    return values
