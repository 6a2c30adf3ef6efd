"""Data sets of the Hugging Face hub, by name or as a folder: which files are a split, brought here where they are not.

Owns the form of a name and the words for what is not to be had. `datasets` (extra `hf`) knows configurations and splits
and downloads; the files are read like all others, with file and line, and no code of a data set runs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pamdp.errors import DataError

PREFIX = "hf:"
"""A data set is named hf:OWNER/NAME[@REVISION][:SPLIT[:CONFIGURATION]]; a folder may stand for owner and name."""
NEEDS = "pip install 'pamdp[hf]'"
_NAME = re.compile(r"([^:@]+)(?:@([^:@]+))?(?::([^:]*))?(?::([^:]+))?")


def split_files(name: str) -> list[Path]:
    """The files of one split, in order; a DataError where there is no such data set, or several splits to choose of."""
    if (parts := _NAME.fullmatch(name.removeprefix(PREFIX))) is None:
        raise DataError("this names no data set", name, fix=f"write {PREFIX}OWNER/NAME:SPLIT")
    source, revision, split, configuration = parts.groups()
    try:
        from datasets import DownloadManager, load_dataset_builder
    except ImportError:
        raise DataError("data sets of the hub need `datasets`", name, fix=NEEDS) from None
    try:
        builder = load_dataset_builder(source, configuration, revision=revision)
        splits = {str(key): [str(file) for file in files] for key, files in (builder.config.data_files or {}).items()}
        chosen = split or (next(iter(splits)) if len(splits) == 1 else "")
        if chosen not in splits:
            what = f"it has the splits {', '.join(splits)}" if splits else "it has no files of data"
            raise DataError(what, name, fix=f"name one, such as {PREFIX}{source}:{next(iter(splits), 'train')}")
        if astray := [file for file in splits[chosen] if not _belongs(file, source)]:
            raise DataError(f"it names the file {astray[0]}, which is not its own", name, fix="take another copy")
        return [Path(file) for file in DownloadManager().download(splits[chosen])]
    except DataError:
        raise
    except Exception as error:  # `datasets` and what it stands on raise of every kind
        said = " ".join(str(error).split())[:300] or type(error).__name__
        fix = "check name and network, or download the data set and name its folder"
        raise DataError(f"the data set is not to be had: {said}", name, fix=fix) from error


def _belongs(file: str, source: str) -> bool:
    """Whether a file is from the network, or in the folder that was named; a data set may not name others of here."""
    return "://" in file or (
        os.path.isdir(source) and Path(os.path.abspath(file)).is_relative_to(Path(source).absolute())
    )
