"""A finished run as the bytes of the files that scoring needs, which a fitted estimator keeps and pickles."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from submillion.errors import ConfigError, RunError
from submillion.run.folder import RunDir
from submillion.scoring.run_model import load_run
from submillion.storage.files import write_bytes
from submillion.storage.json_shapes import JsonObject

if TYPE_CHECKING:
    from submillion.scoring.run_model import RunModel


class StoredRun:
    """The files of a run by their paths in its folder, and the model once it has been loaded.

    A copy or pickle holds only the files. Checkpoints, plots, pages and scored rows are left out.

    Args:
        files: Contents by path with forward slashes.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self._model: RunModel | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run folder.

        Raises:
            RunError: It is not a run folder, or its training has not finished.
        """
        run = RunDir(folder)
        has_weights = run.has_weights()
        kept = [run.config, run.plan, run.data, run.manifest, run.log, run.head, run.evaluation("validation")]
        for inner in (run.adapter, run.tokenizer):
            kept += sorted(path for path in inner.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept if path.is_file()}
        if not has_weights or not {"config.yaml", "adapter/adapter_model.safetensors"} <= files.keys():
            raise RunError(
                "is not a finished run: its configuration, manifest or adapter is missing",
                where=str(folder),
                hint="Give the folder that `submillion train` printed last.",
            )
        return cls(files)

    def write(self, folder: Path) -> Path:
        """Write the files into a new or empty folder and return it.

        Raises:
            ConfigError: The folder is not empty.
            RunError: The disk is full.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError("exists and is not an empty folder", where=str(folder), hint="Choose another folder.")
        for name, content in self.files.items():
            write_bytes(folder / name, content)
        return folder

    def load(self, threads: int | None) -> RunModel:
        """Return the model, which the first call loads through a temporary folder.

        Args:
            threads: Number of CPU threads; None takes the process's allowance.

        Raises:
            ModelError: The base model cannot be found on this machine, or has changed.
        """
        if self._model is None:
            with tempfile.TemporaryDirectory(prefix="submillion-load-") as folder:
                self._model = load_run(self.write(Path(folder)), threads=threads)
        return self._model

    def __getstate__(self) -> JsonObject:
        return {"files": self.files}

    def __setstate__(self, state: JsonObject) -> None:
        self.files = state["files"]
        self._model = None
