"""The one download from the Hugging Face hub: some files of a repository, all from one commit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal

from submillion.storage.files import full_disk_is_run_error, write_text

COMMIT = re.compile(r"[0-9a-f]{40}")


def download_files(
    repo: str,
    revision: str | None,
    *,
    kind: Literal["model", "dataset"],
    choose: Callable[[list[str], Callable[[str], Path]], list[str]],
) -> tuple[Path, list[str], str | None]:
    """Download some files of one commit, chosen from its listing.

    Args:
        repo: Name of the repository, ``owner/name``.
        revision: Commit, branch or tag; the default branch if None.
        kind: Kind of the repository.
        choose: Function that takes the names of all files, and a function that fetches one of them, and returns the
            names to download.

    Returns:
        The folder of the commit, the names of all files in it, and the commit.

    Raises:
        RunError: The disk is full.
        Exception: The hub does not give the files. Errors of the client have no common base class, and those of the
            HTTP library have changed with the client's major versions.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download

    with full_disk_is_run_error(Path(constants.HF_HUB_CACHE)):
        # The listing is fetched first, so that an unreachable hub fails after one timeout; a download would retry.
        ask = HfApi().model_info if kind == "model" else HfApi().dataset_info
        info = ask(repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        names = [sibling.rfilename for sibling in info.siblings or ()]

        def fetch(name: str) -> Path:
            return Path(hf_hub_download(repo, name, repo_type=kind, revision=info.sha))

        wanted = choose(names, fetch)
        places = [fetch(name) for name in wanted]
        folder = places[0].parents[len(PurePosixPath(wanted[0]).parts) - 1]
        name = revision or constants.DEFAULT_REVISION
        if info.sha is not None and not COMMIT.fullmatch(name):
            # This comes last, so that after a broken download the name still means a commit whose files are complete.
            write_text(folder.parent.parent / "refs" / name, info.sha)
    return folder, names, info.sha
