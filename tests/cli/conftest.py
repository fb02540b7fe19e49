"""What commands are tested with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epvs_cohort.cli.app import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Exit code, standard output and standard error of a command and its arguments."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["epvs-cohort", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as left:
            main()
        text = capsys.readouterr()
        return int(left.value.code or 0), text.out, text.err

    return called
