"""The command ``epvs-cohort``."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

import epvs_cohort
from epvs_cohort.cli.prepare import prepare
from epvs_cohort.cli.run import run
from epvs_cohort.cli.show import model_app, protocol_app
from epvs_cohort.cli.simulate import simulate
from epvs_cohort.cli.status import status
from epvs_cohort.cli.train import train
from epvs_cohort.errors import EpvsError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Count enlarged perivascular spaces on thousands of MRI scans.",
    epilog="Exit codes: 0 all done, 2 usage, 3 protocol, manifest or model unusable, "
    "4 finished but some scans failed, 5 stopped early, 1 a bug.",
)
app.command()(run)
app.command()(prepare)
app.command()(status)
app.command()(simulate)
app.command()(train)
app.add_typer(protocol_app, name="protocol")
app.add_typer(model_app, name="model")


def _version(*, value: bool) -> None:
    if value:
        Console().print(f"epvs-cohort {epvs_cohort.__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what each stage does.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=lambda value: _version(value=value), is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("epvs_cohort").setLevel(level)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command and leave with its exit code; an error of ours is two lines, never a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except EpvsError as error:
        console = Console(stderr=True, soft_wrap=True)
        console.print(Text(f"error: {error.message}", style="bold red"))
        if error.hint:
            console.print(Text(f"hint: {error.hint}"))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
