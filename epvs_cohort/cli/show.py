"""``epvs-cohort protocol show`` and ``epvs-cohort model show``."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from epvs_cohort.cli.options import DEFAULT_PROTOCOL
from epvs_cohort.protocol import load_protocol

protocol_app = typer.Typer(no_args_is_help=True, help="Look at study protocols.")
model_app = typer.Typer(no_args_is_help=True, help="Look at model bundles.")


@protocol_app.command("show")
def show_protocol(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="Bundled name or TOML file.")
    ] = DEFAULT_PROTOCOL,
) -> None:
    """Print every setting of a protocol, with its hash."""
    protocol = load_protocol(name)
    console = Console(soft_wrap=True)
    console.print_json(json.dumps({"protocol_id": protocol.protocol_id, **protocol.model_dump(mode="json")}))


@model_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="Bundled name or folder.")] = "gp-unet-sim",
) -> None:
    """Print a model's card: what it was trained on, what it requires, how it did in validation."""
    # Here, for a protocol is shown without torch.
    from epvs_cohort.model.bundle import load_bundle

    bundle = load_bundle(name)
    console = Console(soft_wrap=True)
    console.print_json(json.dumps({"model_id": bundle.model_id, **bundle.card.model_dump(mode="json")}))


@protocol_app.callback()
@model_app.callback()
def _group() -> None:
    """Keep ``show`` a subcommand although it is the only one."""
