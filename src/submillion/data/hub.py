"""Fetch a data set from the Hugging Face hub: its rows as files, and the class names from its card.

Only files of rows and the card are downloaded, at one commit, and no code of the repository is ever run.
`HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_HOME` are honoured. Without a network an earlier download is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from submillion.config.yaml_text import parse_yaml
from submillion.errors import ConfigError, DataError, RunError
from submillion.storage.hub import download_files
from submillion.tables.formats import find_suffix

CARD = "README.md"
# If a data set comes in several formats, the first of these is taken.
_FORMATS = (".parquet", ".csv", ".tsv", ".jsonl", ".json", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".json.gz")


def fetch_dataset(name: str, revision: str | None) -> tuple[list[tuple[str, Path]], Mapping[str, tuple[str, ...]]]:
    """Fetch the data files of a hub data set.

    Args:
        name: ``owner/name``.
        revision: Commit, branch or tag; the newest commit if None.

    Returns:
        Local files, each with a name that begins with its split (``train-00000-of-00001.parquet``), and the card's
        class names in label order, by column.

    Raises:
        DataError: The hub does not give the files and there is no earlier download, or there are no files of rows.
        RunError: The disk is full.
    """
    where = f"hf:{name}" + (f" at {revision}" if revision else "")
    try:
        folder, names = _download(name, revision, where)
    except (DataError, RunError):
        raise
    except Exception as error:
        # Any error of the client means that the hub did not give the files. The errors have no common base class, and
        # those of the HTTP library have changed with the client's major versions.
        folder, names = _find_download(name, revision, where, error)
    card = _read_card(folder / CARD)
    chosen = _choose_files(names, card, where)
    return [(split_name, folder / path) for split_name, path in chosen], _find_class_names(card)


def _download(name: str, revision: str | None, where: str) -> tuple[Path, list[str]]:
    def choose(names: list[str], fetch: Callable[[str], Path]) -> list[str]:
        card = _read_card(fetch(CARD)) if CARD in names else {}
        return [path for _, path in _choose_files(names, card, where)]

    folder, names, _ = download_files(name, revision, kind="dataset", choose=choose)
    return folder, names


def _find_download(name: str, revision: str | None, where: str, error: Exception) -> tuple[Path, list[str]]:
    from huggingface_hub import constants, snapshot_download

    endpoint = "none, HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else constants.ENDPOINT
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    try:
        folder = Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if any(folder.parent.parent.glob("blobs/*.incomplete")):
            raise OSError("an earlier download broke off")
        for _, path in _choose_files(names, _read_card(folder / CARD), where):
            _check_parts(path, names)
    except (OSError, ValueError):
        raise DataError(
            f"the data set cannot be fetched: {reason[:300]} (hub asked: {endpoint}; no whole earlier download in "
            f"{constants.HF_HUB_CACHE})",
            where=where,
            hint="Check the name and the network, or download the files elsewhere and give their folder.",
        ) from error
    return folder, names


def _check_parts(path: str, names: Collection[str]) -> None:
    """Raise OSError if a file is one of several numbered parts and some are missing."""
    if part := re.fullmatch(r"(.*)-\d+-of-(\d+)(\..*)", path):
        pattern = re.compile(rf"{re.escape(part[1])}-\d+-of-{part[2]}{re.escape(part[3])}")
        if sum(pattern.fullmatch(name) is not None for name in names) != int(part[2]):
            raise OSError(f"parts of {path} are missing")


def _read_card(path: Path) -> dict[str, object]:
    """Return the YAML header of a card; empty if there is none."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return {}
    try:
        header = parse_yaml("\n".join(lines[1 : lines.index("---", 1)]), where=str(path))
    except ConfigError:
        return {}
    return header if isinstance(header, dict) else {}


def _choose_files(names: Collection[str], card: Mapping[str, object], where: str) -> list[tuple[str, str]]:
    """Return the files of rows, each with a name that begins with its split."""
    listed = _files_of_card(names, card, where)
    if listed:
        return listed
    for suffix in _FORMATS:
        found = sorted(path for path in names if find_suffix(Path(path)) == suffix)
        folders = sorted({PurePosixPath(path).parent.as_posix() for path in found})
        if len(folders) > 1:
            raise DataError(
                f"the data set has several configurations: {', '.join(folders)}",
                where=where,
                hint="Download the one you want and give its folder.",
            )
        if found:
            return [(PurePosixPath(path).name, path) for path in found]
    raise DataError(
        f"the data set has no files of rows among its {len(names)} files",
        where=where,
        hint=f"The formats are {', '.join(_FORMATS)}; scripts of a data set are never run.",
    )


def _files_of_card(names: Collection[str], card: Mapping[str, object], where: str) -> list[tuple[str, str]]:
    """Return the files by split of the default configuration in the card's `configs`, or nothing."""
    configs = [config for config in _as_list(card.get("configs")) if isinstance(config.get("data_files"), list)]
    if not configs:
        return []
    default = [c for c in configs if c.get("default") is True or c.get("config_name") == "default"]
    if len(configs) > 1 and not default:
        known = ", ".join(str(config.get("config_name")) for config in configs)
        raise DataError(
            f"the data set has several configurations: {known}",
            where=where,
            hint="Download the one you want and give its folder.",
        )
    chosen: list[tuple[str, str]] = []
    for entry in _as_list((default or configs)[0]["data_files"]):
        patterns = entry.get("path")
        wanted = [patterns] if isinstance(patterns, str) else patterns if isinstance(patterns, list) else []
        paths = sorted(n for n in names if any(fnmatch(n, str(p)) for p in wanted) and find_suffix(Path(n)) in _FORMATS)
        chosen += [
            (f"{entry.get('split')}-{i:05d}-of-{len(paths):05d}{find_suffix(Path(path))}", path)
            for i, path in enumerate(paths)
        ]
    return chosen


def _as_list(value: object) -> list[dict[str, object]]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def _find_class_names(card: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Return class names by column from the card's `dataset_info`; the first configuration that names them counts."""
    found: dict[str, tuple[str, ...]] = {}
    for info in _as_list(card.get("dataset_info")):
        for feature in _as_list(info.get("features")):
            name, kind = feature.get("name"), feature.get("dtype")
            label = kind.get("class_label") if isinstance(kind, dict) else None
            names = label.get("names") if isinstance(label, dict) else None
            if isinstance(names, dict):
                # The card writes {'0': World, '1': Sports} with quoted numbers in any order.
                names = [names[key] for key in sorted(names, key=lambda key: int(key) if str(key).isdigit() else -1)]
            if isinstance(names, list) and isinstance(name, str):
                found.setdefault(name, tuple(str(name) for name in names))
    return found
