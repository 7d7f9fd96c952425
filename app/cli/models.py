"""tollgate models: list, pull, verify here; load and unload on a running server."""

import json
import sys
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from app.cli.context import AsJson, or_exit, say
from app.cli.tables import print_table, table_of
from app.errors import TollgateError
from app.registry.catalogue import SHIPPED, Catalogue, load_catalogue, schema_text
from app.registry.locate import locate
from app.registry.model import FolderSource, HubSource, Model
from app.registry.sources.hub import commit_of
from app.registry.verify import verify as verify_folder
from app.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, help="Models: what the catalogue names, on this machine and in memory.")
ModelId = Annotated[str, typer.Argument(help="The model's id in the catalogue.")]
Url = Annotated[str, typer.Option(envvar="TOLLGATE_URL", help="Where the server listens.")]
Key = Annotated[str, typer.Option(envvar="TOLLGATE_API_KEY", help="An admin key.")]
LOAD_TIMEOUT_S = 600.0


def opened(*, needs_pins: bool = True) -> tuple[Settings, Catalogue]:
    """The settings and the catalogue they name."""
    settings = load_settings()
    chosen = settings.registry
    catalogue = load_catalogue(
        chosen.catalogue or SHIPPED, enable=chosen.enable, disable=chosen.disable, needs_pins=needs_pins
    )
    return settings, catalogue


def chosen_model(catalogue: Catalogue, model_id: str) -> Model:
    """By id, also a disabled one: pulling it comes before enabling it."""
    for model in catalogue:
        if model.id == model_id:
            return model
    known = ", ".join(model.id for model in catalogue)
    typer.echo(f"tollgate: the catalogue has no model {model_id!r}; it has {known}", err=True)
    raise typer.Exit(1)


def source_of(model: Model) -> str:
    """A source in a few words."""
    match model.source:
        case HubSource():
            return f"hub:{model.source.repo}@{model.source.revision[:12]}"
        case FolderSource():
            return f"folder:{model.source.path}"
        case _:
            return f"package:{model.source.distribution}"


def located(model: Model, settings: Settings, catalogue: Catalogue) -> Any:
    """Fetch or assemble with a progress bar, then verify."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=Console(file=sys.stderr),
        disable=not sys.stderr.isatty() or isinstance(model.source, HubSource),
    )  # fmt: skip
    with bar:
        task = bar.add_task(model.id, total=None)
        folder = locate(
            model, catalogue_folder=catalogue.folder, home=settings.home, settings=settings.registry,
            progress=lambda done, size: bar.update(task, completed=done, total=size),
        )  # fmt: skip
    verify_folder(model, folder)
    return folder


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Show the catalogue."""
    _, catalogue = or_exit(opened)
    rows: list[dict[str, Any]] = [
        {
            "id": model.id, "task": model.tasks[0].value, "family": model.family, "source": source_of(model),
            "enabled": model.is_enabled, "load": model.load.value, "licence": model.licence,
        }
        for model in catalogue
    ]  # fmt: skip
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = table_of("id", "task", "source", "enabled", "load", "licence")
    for row in rows:
        table.add_row(
            row["id"], row["task"], row["source"], "yes" if row["enabled"] else "", row["load"], row["licence"]
        )
    print_table(table)


@app.command()
def schema() -> None:
    """Print the catalogue's JSON schema (models/catalog.schema.json is this)."""
    typer.echo(schema_text(), nl=False)


@app.command()
def pull(model_id: ModelId, as_json: AsJson = False) -> None:
    """Fetch or assemble a model's files, and check them. An unpinned hub model's commit is printed, to be pinned."""
    settings, catalogue = or_exit(lambda: opened(needs_pins=False))
    model = chosen_model(catalogue, model_id)
    folder = or_exit(lambda: located(model, settings, catalogue))
    is_unpinned = isinstance(model.source, HubSource) and commit_of(folder) != model.source.revision
    shown = {"id": model.id, "folder": str(folder), "revision_to_pin": commit_of(folder) if is_unpinned else None}
    say(shown, str(folder), as_json)
    if is_unpinned:
        typer.echo(f"pin it in the catalogue with  revision: {commit_of(folder)}", err=True)


@app.command()
def verify(
    model_id: Annotated[str | None, typer.Argument(help="Default: every enabled model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check files, sizes and hashes against the catalogue."""
    settings, catalogue = or_exit(opened)
    models = [model for model in catalogue if model.is_enabled] if model_id is None else [
        chosen_model(catalogue, model_id)
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for model in models:
        fault = None
        try:
            located(model, settings, catalogue)
        except TollgateError as error:
            fault = error.message
        rows.append({"id": model.id, "sound": fault is None, "fault": fault})
        if not as_json:
            typer.echo(f"{model.id}: {fault or 'sound'}", err=fault is not None)
    if as_json:
        typer.echo(json.dumps(rows))
    raise typer.Exit(0 if all(row["sound"] for row in rows) else 1)


@app.command()
def load(model_id: ModelId, key: Key, url: Url = "http://127.0.0.1:8000", as_json: AsJson = False) -> None:
    """Bring a model into a running server's memory."""
    found = asked(url, key, f"/admin/models/{model_id}/load")
    say(found, f"{model_id}: {found['state']}, {found['memory_bytes']:,} bytes, {found['precision']}", as_json)


@app.command()
def unload(model_id: ModelId, key: Key, url: Url = "http://127.0.0.1:8000", as_json: AsJson = False) -> None:
    """Let a running server's model go when its requests are done."""
    found = asked(url, key, f"/admin/models/{model_id}/unload")
    say(found, f"{model_id}: {found['state']}", as_json)


def asked(url: str, key: str, path: str) -> dict[str, Any]:
    """The server's answer, or one line and exit code 1."""
    try:
        answer = httpx.post(url.rstrip("/") + path, headers={"authorization": f"Bearer {key}"}, timeout=LOAD_TIMEOUT_S)
        body = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as cause:
        typer.echo(f"tollgate: no Tollgate server answers at {url}: {cause}", err=True)
        raise typer.Exit(1) from cause
    if not answer.is_success:
        typer.echo(f"tollgate: {body['error']['message']}", err=True)
        raise typer.Exit(1)
    return body
