"""`pamdp feedback`: what users said of a server's replies, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pamdp.cli.options import Json, show
from pamdp.errors import ConfigError

app = typer.Typer(name="feedback", no_args_is_help=True, help="What users said of a server's replies.")


@app.command()
def export(
    store: Annotated[str, typer.Argument(help="File or URL of the server's store.")],
    out: Annotated[Path, typer.Option(help="Folder to write, new or written by this before.")],
    layout: Annotated[
        Literal["pamdp", "trl"], typer.Option(help="Rated dialogues, or TRL's preference pairs.")
    ] = "pamdp",
    plain_ids: Annotated[bool, typer.Option(help="Name users as the store does, not by hashes.")] = False,
    key_file: Annotated[
        Path | None, typer.Option(help="Key of an encrypted store; else PAMDP_STORE_KEY has it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write what users said as data to learn from: `pamdp train offline data.path=FOLDER`.

    Example: `pamdp feedback export store.db --out feedback`
    """
    try:
        from pamdp.serve import export as writing
        from pamdp.serve.sealing import read_key
        from pamdp.serve.store import Store
    except ImportError as error:
        raise ConfigError(f"a store needs `pip install pamdp[serve]` ({error.name} is missing)") from error
    if "://" not in store and not Path(store).is_file():
        raise ConfigError(f"there is no store {store}; name the file that the server writes")
    lines = writing.export(Store(store, read_key(file=key_file)), out, layout, plain_ids)
    next_step = f"learn from them: pamdp train offline --run RUN --from CLONE data.path={out}"
    show(as_json, {"out": str(out), "lines": lines}, f"{lines} lines in {out}; {next_step}")
