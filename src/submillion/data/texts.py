"""Texts and tables that Python callers pass instead of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from submillion.config.run import RunConfig
from submillion.errors import ConfigError, DataError, SubmillionError
from submillion.storage.files import write_bytes

_ROWS = "rows.parquet"
_WANTED = "Give a list, array or Series of texts, or a single text."


def list_texts(texts: object) -> list[str]:
    """Return texts as a list; a single text becomes a list of one.

    Args:
        texts: Text, or anything that yields texts: a list, tuple, array, Series or generator.

    Raises:
        DataError: The argument is something else, or an element is not text; the error has its position.
    """
    if isinstance(texts, str):
        texts = [texts]
    if isinstance(texts, (bytes, bytearray, Mapping)) or is_table(texts):
        hint = "Decode the bytes first." if isinstance(texts, (bytes, bytearray)) else "Give one of its columns."
        raise DataError(f"is a {type(texts).__name__}, not a list of texts", where="texts", hint=f"{_WANTED} {hint}")
    try:
        given = list(texts) if isinstance(texts, Iterable) else None
    except TypeError:  # an array without dimensions
        given = None
    if given is None:
        raise DataError(f"{texts!r:.60} ({type(texts).__name__}) is not a list of texts", where="texts", hint=_WANTED)
    return [check_text(text, f"texts[{position}]") for position, text in enumerate(given)]


def check_text(text: object, where: str) -> str:
    """Return a text that can be encoded.

    Raises:
        DataError: The value is not text, or holds half a character.
    """
    if not isinstance(text, str):
        raise DataError(
            f"{text!r:.60} ({type(text).__name__}) is not text",
            where=where,
            hint="Leave missing values out, or replace them by an empty text.",
        )
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(
            "the text holds half a character (a surrogate)",
            where=where,
            hint="It was made from bytes that are not UTF-8; decode them with their own encoding.",
        )
    return str(text)


def is_table(data: object) -> bool:
    """Return whether a value is a table of columns, such as a DataFrame of pandas or polars, or one of pyarrow."""
    is_frame = hasattr(data, "columns") and (hasattr(data, "__arrow_c_stream__") or hasattr(data, "to_parquet"))
    return is_frame or (hasattr(data, "column_names") and hasattr(data, "__arrow_c_stream__"))


def name_source(data: object) -> str | None:
    """Return a data source as settings hold it; for a table, `place_table` writes the file.

    Raises:
        ConfigError: The value is neither a path, nor the name of a data set, nor a table.
    """
    if data is None or isinstance(data, str):
        return data
    if is_table(data):
        return _ROWS
    path = fspath(data) if isinstance(data, PathLike) else None
    if isinstance(path, str):
        return path
    raise ConfigError(
        f"{data!r:.60} ({type(data).__name__}) is not a data source",
        where="data",
        hint="Give a path, hf:owner/name, or a DataFrame.",
    )


@contextmanager
def open_source(data: object) -> Iterator[str]:
    """Yield a data source as the name of a file or data set; a table gets a temporary file.

    Raises:
        ConfigError: The value is neither a path, nor the name of a data set, nor a table.
        DataError: The table cannot be written.
    """
    name = name_source(data)
    if name is None:
        raise ConfigError("there is no data", where="data", hint="Give a path, hf:owner/name, or a DataFrame.")
    if not is_table(data):
        yield name
        return
    with TemporaryDirectory(prefix="submillion-rows-") as folder:
        path = Path(folder) / name
        write_bytes(path, encode_table(data))
        yield str(path)


def place_table(config: RunConfig, data: object, out: Path) -> RunConfig:
    """Return a configuration whose source is a file with the rows of a table; unchanged if `data` is not a table.

    The file is written beside the new folder, as ``<out>.rows.parquet``, and stays there, so that a resumed or repeated
    run reads the same bytes again.

    Args:
        config: Configuration of a run, a search or a curve.
        data: Data source that `name_source` accepted.
        out: Folder of that run, search or curve.

    Raises:
        ConfigError: The file exists with other rows.
        DataError: The table cannot be written.
        RunError: The disk is full.
    """
    if not is_table(data):
        return config
    path = _name_rows(out)
    content = encode_table(data)
    if path.exists() and path.read_bytes() != content:
        raise ConfigError(
            "holds other rows than the table", where=str(path), hint="Choose another out folder, or delete the file."
        )
    write_bytes(path, content)
    return config.model_copy(update={"data": config.data.model_copy(update={"source": str(path)})})


@contextmanager
def placing_table(config: RunConfig, data: object, out: Path | None, *, is_ours: bool) -> Iterator[RunConfig]:
    """Place a table for the block; if the block fails before it writes anything, the file is removed.

    Args:
        config: Configuration of a run.
        data: Data source that `name_source` accepted.
        out: Folder of the run; None if there is no table.
        is_ours: Whether the folder was made for this run, and is removed with the file.

    Raises:
        SubmillionError: `place_table` or the block fails.
    """
    if out is None:
        yield config
        return
    path = _name_rows(out)
    was_there = path.exists()
    try:
        yield place_table(config, data, out)
    except SubmillionError:
        if not out.is_dir() or not any(out.iterdir()):
            if not was_there:
                path.unlink(missing_ok=True)
            if is_ours and out.is_dir():
                out.rmdir()
        raise


def _name_rows(out: Path) -> Path:
    return out.parent / f"{out.name}.{_ROWS}"


def encode_table(table: Any) -> bytes:
    """Return a table as the bytes of a parquet file, the same for the same rows; its index is left out.

    Raises:
        DataError: A column has mixed or unknown types.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # The common interface carries less about the columns than pandas knows.
        is_pandas = type(table).__module__.partition(".")[0] == "pandas"
        rows = pa.Table.from_pandas(table, preserve_index=False) if is_pandas else pa.table(table)
        kept = {key: value for key, value in (rows.schema.metadata or {}).items() if key != b"pandas"}
        sink = pa.BufferOutputStream()
        pq.write_table(rows.replace_schema_metadata(kept or None), sink)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"the table cannot be read: {error}", where="data", hint="Give every column values of one type."
        ) from None
    return bytes(sink.getvalue())
