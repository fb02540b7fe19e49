"""Commands load only what they need, and the list of commands says of each what it says of itself."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from epvs_cohort.cli.app import COMMANDS, load_command, main

HEAVY = {"torch", "itk", "SimpleITK", "dask", "distributed", "pandas", "scipy", "numpy"}

CALL = """
import json, sys
sys.argv = ["epvs-cohort", *json.loads(sys.argv[1])]
from epvs_cohort.cli.app import main
try:
    main()
finally:
    print("\\n" + json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def _loaded(*arguments: str) -> tuple[str, set[str]]:
    """Standard output of a command, and the packages it loaded."""
    command = [sys.executable, "-c", CALL, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    *text, modules = done.stdout.rstrip("\n").split("\n")
    return "\n".join(text), set(json.loads(modules))


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(option: str) -> None:
    text, modules = _loaded(option)
    assert "epvs-cohort" in text
    assert {"typer", "epvs_cohort"} <= modules
    assert not modules & HEAVY


@pytest.mark.parametrize(
    ("arguments", "not_needed"),
    [
        (("protocol", "show"), {"torch", "itk", "SimpleITK", "dask", "distributed"}),
        (("model", "show"), {"itk", "SimpleITK", "dask", "distributed"}),
        (("report", "--help"), {"torch", "itk", "SimpleITK", "dask", "distributed", "pandas", "scipy"}),
        (("status", "--help"), {"torch", "itk", "SimpleITK", "dask", "distributed"}),
        (("simulate", "--help"), {"torch", "itk", "dask", "distributed"}),
        (("train", "--help"), {"torch", "itk", "SimpleITK", "dask", "distributed"}),
        (("compare", "--help"), {"torch", "itk", "SimpleITK", "dask", "distributed"}),
        (("evaluate", "--help"), {"torch", "itk", "SimpleITK", "dask", "distributed", "pandas", "scipy"}),
        (("train-roi", "--help"), {"torch", "itk", "SimpleITK", "dask", "distributed"}),
    ],
)
def test_commands_load_only_what_they_need(arguments: tuple[str, ...], not_needed: set[str]) -> None:
    _, modules = _loaded(*arguments)
    assert not modules & not_needed


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_it_says_of_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = load_command(name).help
    assert " ".join(own.split("\n\n")[0].split()) == COMMANDS[name][1]
    monkeypatch.setattr("sys.argv", ["epvs-cohort", name, "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    text = capsys.readouterr().out
    assert COMMANDS[name][1] in text
    assert f"epvs-cohort {name}" in text


def test_every_listed_command_is_shown_with_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["epvs-cohort", "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().out.splitlines()
    for name, (_, words) in COMMANDS.items():
        assert any(line.split()[1:2] == [name] and words in line for line in lines), name


def test_help_of_a_command_is_one_line() -> None:
    assert all("\n" not in words and words == inspect.cleandoc(words) for _, words in COMMANDS.values())


def test_a_misspelt_command_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["epvs-cohort", "statsu"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "status" in capsys.readouterr().err
