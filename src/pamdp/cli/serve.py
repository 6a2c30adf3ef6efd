"""A trained assistant behind OpenAI's protocol, keys for its clients, and whether another policy may take its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pamdp.cli.options import Json, Overrides, Plugins, Sources, show
from pamdp.errors import ConfigError
from pamdp.settings import load

app = typer.Typer()


@app.command()
@app.command("ui")
def serve(
    context: typer.Context,
    *,
    run: Annotated[str, typer.Argument(help="Run directory, policy's folder, or `shipped`.")] = "shipped",
    host: Annotated[str, typer.Option(help="Address to listen on; another than this machine's own needs --keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any that is free.", min=0, max=65535)] = 8300,
    keys: Annotated[Path | None, typer.Option(help="TOML file of keys; see `pamdp serve-key`.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Key of an encrypted store; else PAMDP_STORE_KEY has it.")
    ] = None,
    ui: Annotated[bool, typer.Option("--ui", help="With a web page; `pamdp ui` is the same.")] = False,
    config: Sources,
    plugin: Plugins,
    overrides: Overrides,
) -> None:
    """Serve a trained assistant over OpenAI's chat completions, with the models `pamdp`, `clone` and `vanilla`.

    Needs the extra `serve`. Settings are limits (`places`, `queue`, `context`, `max_tokens`, `n`, `timeout`, `body_kb`,
    `cache_mb`, `grace`), `explore`, and what is kept (`store`, `retention`, `profile_every`, `profiler.model`).

    Example: `pamdp serve shipped --port 8300 places=16`

    Example: `pamdp ui shipped`
    """
    from pamdp.serve.config import ServeConfig
    from pamdp.serve.keys import Keys, read_keys

    if "=" in run:
        overrides, run = [run, *overrides], "shipped"
    settings = load(ServeConfig, config, overrides)
    known = Keys() if keys is None else read_keys(keys)
    try:
        from pamdp.serve.sealing import read_key
        from pamdp.serve.server import serve as start
    except ModuleNotFoundError as error:
        raise ConfigError(f"serving needs {error.name}, which is missing: pip install 'pamdp[serve]'") from error
    start(run, settings, known, host, port, store_key=read_key(file=key_file), ui=ui or context.info_name == "ui")


@app.command("serve-key")
def serve_key(
    *, name: Annotated[str, typer.Argument(help="Whose key it is.")], plugin: Plugins, as_json: Json = False
) -> None:
    """Make a key for a client: printed once, with the lines that make it known to a server.

    Example: `pamdp serve-key alice`
    """
    from pamdp.serve.keys import new_key

    secret, lines = new_key(name)
    show(as_json, {"name": name, "key": secret, "lines": lines})
    if not as_json:  # plain lines: a console would break a long one
        print(
            f"the key, for {name}; it is shown this once:\n{secret}\n\nfor the server's --keys file:\n{lines}", end=""
        )


@app.command("serve-check")
def serve_check(
    *,
    old: Annotated[str, typer.Argument(help="Run or policy's folder that is served, or `shipped`.")],
    new: Annotated[str, typer.Argument(help="Run or policy's folder that is to take its place.")],
    plugin: Plugins,
    as_json: Json = False,
) -> None:
    """Compare the replies of two policies to fixed states, as a server does before it loads another one.

    Exits with 1 where the new one is plainly worse.

    Example: `pamdp serve-check runs/rl runs/next`
    """
    from pamdp.models.embedded import load_backbone
    from pamdp.serve.check import check
    from pamdp.serve.models import TRAINED, load_models, reusing

    models = load_models(old, load_backbone)
    other = load_models(new, reusing(models, load_backbone))
    report = check(models[TRAINED].policy, other[TRAINED].policy)
    show(as_json, report.document, str(report))
    report.require()
