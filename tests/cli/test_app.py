"""The command as a person meets it: words, exit codes, nothing done that was not asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import epvs_cohort
from epvs_cohort.cli.app import main
from epvs_cohort.protocol import Protocol


def call(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    monkeypatch.setattr("sys.argv", ["epvs-cohort", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as left:
        main()
    text = capsys.readouterr()
    return int(left.value.code or 0), text.out, text.err


@pytest.fixture
def one_scan(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "scans"
    (folder / "derivatives").mkdir(parents=True)
    image = nib.Nifti1Image(rng.integers(0, 900, (20, 20, 20), dtype=np.int16), np.eye(4))
    nib.save(image, folder / "p1.nii.gz")
    nib.save(image, folder / "p1_mask.nii.gz")
    return folder


def test_help_names_every_command_and_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(["--help"], monkeypatch, capsys)
    assert code == 0
    for command in ("run", "prepare", "status", "simulate", "train", "evaluate", "protocol", "model"):
        assert re.search(rf"\b{command}\b", out)
    code, out, _ = call(["run", "--help"], monkeypatch, capsys)
    assert code == 0
    options = """out protocol model method store n-procs device participant-label include suffix dry-run limit
        overwrite save-maps figures report decisions verify scheduler cluster"""
    for option in options.split():
        assert f"--{option}" in out


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"], monkeypatch, capsys)[:2] == (0, f"epvs-cohort {epvs_cohort.__version__}\n")


def test_shown_protocol_is_the_built_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(["protocol", "show"], monkeypatch, capsys)
    shown = json.loads(out)
    assert code == 0
    assert shown.pop("protocol_id") == Protocol().protocol_id
    assert Protocol.model_validate(shown) == Protocol()


def test_shown_model_says_what_it_was_trained_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(["model", "show", "gp-unet-sim"], monkeypatch, capsys)
    assert code == 0
    assert "simulated" in json.loads(out)["trained_on"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    one_scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out_path = one_scan.parent / "out" / "counts.parquet"
    code, out, err = call(["run", str(one_scan), "--out", str(out_path), "--dry-run"], monkeypatch, capsys)
    assert code == 0
    assert "1 scans asked for" in out
    assert "1 to do" in out
    assert "p1.nii.gz" in out
    assert re.search(r"needs about [\d.]+ GB, [\d.]+ GB are free", out)
    assert "p1_mask.nii.gz" in err
    assert not out_path.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "{missing}", "--out", "{out}"], 2, "missing"),
        (["run", "{scans}", "--out", "{scans}"], 2, "is a folder"),
        (["run", "{scans}", "--out", "counts.csv"], 2, "ending in .parquet"),
        (["run", "{scans}", "--out", "{other}"], 2, "not a table of epvs-cohort"),
        (["run", "{scans}", "--out", "{out}", "--participant-label", "77"], 2, "77"),
        (["run", "{scans}", "--out", "{out}", "--protocol", "nope"], 3, "neither a bundled name nor a file"),
        (["run", "{scans}", "--out", "{out}", "--protocol", "{bad_protocol}"], 3, "trim.fraction"),
        (["run", "{scans}", "--out", "{out}", "--protocol", "{other_grid}"], 3, "grid.shape"),
        (["run", "{scans}", "--out", "{out}", "--model", "nope"], 3, "nope"),
        (["run", "{scans}", "--out", "{out}", "--cluster", "nope"], 3, "nope"),
        (
            ["run", "{scans}", "--out", "{out}", "--scheduler", "tcp://127.0.0.1:9", "--n-procs", "2"],
            2,
            "--n-procs",
        ),
        (["run", "{manifest}", "--out", "{out}"], 3, "doubled"),
        (["status", "{out}"], 2, "no run was begun"),
    ],
)
def test_what_cannot_be_used_is_said_before_any_work(
    arguments: list[str],
    code: int,
    words: str,
    one_scan: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = one_scan.parent
    pd.DataFrame({"a": [1]}).to_parquet(folder / "other.parquet")
    (folder / "bad.toml").write_text("[trim]\nfraction = 2\n")
    (folder / "grid.toml").write_text("[grid]\nshape = [64, 64, 64]\n")
    (folder / "manifest.csv").write_text("scan,path\ndoubled,scans/p1.nii.gz\ndoubled,scans/p1_mask.nii.gz\n")
    names = {
        "{missing}": folder / "missing",
        "{scans}": one_scan,
        "{out}": folder / "counts.parquet",
        "{other}": folder / "other.parquet",
        "{bad_protocol}": folder / "bad.toml",
        "{other_grid}": folder / "grid.toml",
        "{manifest}": folder / "manifest.csv",
    }
    found, _, err = call([str(names.get(a, a)) for a in arguments], monkeypatch, capsys)
    assert (found, words in err) == (code, True), err
    assert "Traceback" not in err
    assert not (folder / "counts.parquet").exists()
