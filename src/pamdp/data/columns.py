"""Rows of Parquet and Arrow files as the values that JSON would hold.

Owns what marks such a file, and reading it batch by batch. Knows nothing of layouts. `pyarrow` reads (extra `hf`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pamdp.data.files import opened
from pamdp.data.hub import NEEDS
from pamdp.errors import DataError

PARQUET = b"PAR1"
_FILE = b"ARROW1"
MARKS = (PARQUET, _FILE, b"\xff\xff\xff\xff")
"""First bytes of a Parquet file, an Arrow file and an Arrow stream, which is what `datasets` writes."""
_AT_ONCE = 64
"""Rows that are held at a time."""
_BUFFER = 2**20


def rows(path: Path, mark: bytes) -> Iterator[dict[str, object]]:
    """Every row of a file that begins with MARK; an absent value is an absent key.

    Raises:
      DataError: the file cannot be read, or pyarrow is missing.
      ValueError: the file is no whole one of its kind.
    """
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError:
        raise DataError("Parquet and Arrow files need pyarrow", path, fix=NEEDS) from None
    with opened(path) as stream:
        try:
            if mark.startswith(PARQUET):
                batches = parquet.ParquetFile(stream, buffer_size=_BUFFER).iter_batches(_AT_ONCE)
            elif mark.startswith(_FILE):
                reader = ipc.open_file(stream)
                batches = map(reader.get_batch, range(reader.num_record_batches))
            else:
                batches = ipc.open_stream(stream)
            for batch in batches:
                batch.validate(full=True)  # unchecked, a damaged file could end the process
                for start in range(0, len(batch), _AT_ONCE):
                    yield from map(_present, batch.slice(start, _AT_ONCE).to_pylist())
        except (pyarrow.ArrowException, OverflowError, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # the disk's, not one of what is in the file
                raise
            raise ValueError(str(error)) from error


def _present(value: object) -> object:
    """VALUE without what a column holds only because other rows have it."""
    if isinstance(value, dict):
        return {name: _present(item) for name, item in value.items() if item is not None}
    return [_present(item) for item in value] if isinstance(value, list) else value
