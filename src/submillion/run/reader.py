"""The one reader of a run folder: its settings, plan, manifest and data, checked before anybody believes them."""

from __future__ import annotations

from dataclasses import replace

from submillion.budget.plan import Plan
from submillion.config.run import RunConfig, load_yaml, parse_config
from submillion.errors import RunError
from submillion.run.folder import RunDir, refuse_links
from submillion.run.manifest import Manifest
from submillion.storage.files import read_json, read_plain_text
from submillion.storage.json_shapes import COUNT, DAMAGED_HINT, JsonObject, Maybe, Shape, check_shape

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


def read_plan(run: RunDir) -> Plan:
    """Read the parameter plan of a run.

    Raises:
        RunError: It is missing or damaged.
    """
    return Plan.from_json(read_json(run.plan), where=str(run.plan))


def read_manifest(run: RunDir) -> Manifest:
    """Read the manifest of a run.

    Raises:
        RunError: It is missing, damaged or of another run format, or the folder holds links.
    """
    refuse_links(run)
    return Manifest.read(run.manifest)


def count_test_evaluation(run: RunDir) -> None:
    """Note, before the fact, that the test rows are about to be scored once more."""
    manifest = read_manifest(run)
    replace(manifest, num_test_evaluations=(manifest.num_test_evaluations or 0) + 1).write(run.manifest)


def read_data_report(run: RunDir) -> JsonObject:
    """Read data.json: classes, sizes and digests of the splits, and what the doctor found.

    Raises:
        RunError: Missing or damaged.
    """
    values = read_json(run.data)
    check_shape(values, _DATA, run.data)
    return values
