"""The command ``epvs-cohort``."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from importlib import import_module
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup
from typer.main import get_group

import epvs_cohort
from epvs_cohort.errors import EpvsError, StoppedError

#: Command to the module and name it is loaded from, and its help in one line: torch, ITK and Dask take seconds to
#: load, so a command is loaded when it is called.
COMMANDS: Final = {
    "run": (
        "run:run",
        "Count enlarged perivascular spaces on every scan of SCANS and write three Parquet tables.",
    ),
    "prepare": (
        "prepare:prepare",
        "Register, outline, crop and trim every scan of SCANS into STORE, for counting or training later.",
    ),
    "report": (
        "report:report",
        "Make the page of a run: what failed, what to look at first, every scan with its pictures.",
    ),
    "status": ("status:status", "Say how a finished or unfinished run stands."),
    "simulate": (
        "simulate:simulate",
        "Simulate scans with known counts and places of perivascular spaces into OUT.",
    ),
    "train": (
        "train:train",
        "Train a model bundle from counts alone: of your counted SCANS, or, without SCANS, of simulated windows.",
    ),
    "train-roi": (
        "train_roi:train_roi",
        "Train a network that outlines the basal ganglia in any contrast, from label maps of heads alone.",
    ),
    "compare": (
        "compare:compare",
        "Compare the paper's methods on counted SCANS with marked lesions: train, tune, and measure on test scans.",
    ),
    "evaluate": (
        "evaluate:evaluate",
        "Compare a table of counts with readers' counts and marked lesions, and with a second visit.",
    ),
    "protocol": ("show:protocol_app", "Look at study protocols."),
    "model": ("show:model_app", "Look at model bundles."),
}


class OnDemand(TyperGroup):
    """Commands that are listed by their help alone, and loaded when one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Name, command and remaining arguments; the command is the loaded one."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load_command(name), rest


def load_command(name: str) -> Any:
    """Load the module of a command, and make the command that Typer runs."""
    module, attribute = COMMANDS[name][0].split(":")
    found = getattr(import_module(f"epvs_cohort.cli.{module}"), attribute)
    holder = typer.Typer()
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name)
    else:
        holder.command(name)(found)
    return get_group(holder).commands[name]


app = typer.Typer(
    cls=OnDemand,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Count enlarged perivascular spaces on thousands of MRI scans.",
    epilog="Exit codes: 0 all done, 2 usage, 3 protocol, manifest or model unusable, "
    "4 finished but some scans failed, 5 stopped early, 1 a bug.",
)


def _listed() -> None:
    """Stand for a command in the list of commands; never called."""


for _name, (_, _help) in COMMANDS.items():
    app.command(_name, help=_help)(_listed)


def _version(*, value: bool) -> None:
    if value:
        Console().print(f"epvs-cohort {epvs_cohort.__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what each stage does.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda value: _version(value=value),
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Options before the command."""
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("epvs_cohort").setLevel(level)


#: Exit code that Typer gives a command that was interrupted.
_INTERRUPTED = 130


#: Signals that stop a command as an interrupt from the keyboard does.
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class _Ended(KeyboardInterrupt):
    """An interrupt by a signal.

    Where one of the class itself passes through code that Python compiles, as when modules are loaded for the first
    time, Python notes it as unhandled and ends by SIGINT whatever is made of it later (CPython 3.11, ``pythonrun.c``).
    """


def _interrupt(_number: int, _frame: object) -> NoReturn:
    # A terminal that is lost sends two: the second must not break the commit of what is finished.
    for number in _ENDING:
        signal.signal(number, _stay)
    raise _Ended


def _stay(_number: int, _frame: object) -> None:
    """Take a signal without effect; unlike an ignored one, it ends processes that are started from here."""


def main() -> None:
    """Run the command and leave with its exit code; an error of ours is two lines, never a traceback."""
    for number in _ENDING:
        # Under nohup the end of the terminal stays without effect.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        app()
    except EpvsError as error:
        _leave(error)
    except (KeyboardInterrupt, SystemExit) as ended:
        # An interrupt that no command took, as while one loads; Typer makes this code of it.
        if isinstance(ended, SystemExit) and ended.code != _INTERRUPTED:
            raise
        _leave(StoppedError("interrupted", hint="what was finished before is kept"))


def _leave(error: EpvsError) -> NoReturn:
    console = Console(stderr=True, soft_wrap=True)
    # The terminal may be what was lost.
    with contextlib.suppress(OSError):
        console.print(Text(f"error: {error.message}", style="bold red"))
        if error.hint:
            console.print(Text(f"hint: {error.hint}"))
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
