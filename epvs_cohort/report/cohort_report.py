"""The report of a cohort: one page, and beside it a folder with data and pictures in files of bounded size."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.decisions import Decision
from epvs_cohort.data.files import temporary_beside, write_whole
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.errors import UsageError
from epvs_cohort.report.cohort_methods import cited, facts, methods_text, model_words
from epvs_cohort.report.cohort_payload import (
    Reviewed,
    lesion_rows,
    payload,
    review,
    script_json,
    study_id,
)
from epvs_cohort.report.page import render, source

#: Scans that one file with everything in it may hold.
MOST_SINGLE: Final = 100
#: A pack is closed when it holds so many characters or scans.
PACK_CHARACTERS: Final = 4_000_000
PACK_SCANS: Final = 64
#: Failed scans that the page names; the table holds all.
MOST_FAILED: Final = 40
#: File in the folder beside the page by which it is known as one of ours.
DATA: Final = "data.js"
_SCRIPTS: Final = ("base", "charts", "decisions", "table", "overview", "scan", "start")


@dataclass(frozen=True)
class ReportRequest:
    """What ``epvs-cohort report`` can be told.

    Attributes
    ----------
    counts : Path
        The table of counts.
    out : Path
        The page.
    store : Path
        Prepared volumes with their pictures; need not exist.
    decisions : mapping of str to Decision
    single_file : bool
        Data and pictures within the page.
    """

    counts: Path
    out: Path
    store: Path
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    single_file: bool = False


@dataclass(frozen=True)
class _Pack:
    number: int
    content: dict[str, Any]


def write_report(cohort: Cohort, request: ReportRequest) -> Path:
    """Write the page, and the folder beside it unless everything goes into the page.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        The output cannot be written, or one file would hold too many scans.
    """
    out = request.out
    if out.suffix != ".html" or out.is_dir():
        raise UsageError(f"{out}: the report must be a file ending in .html")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: {out.absolute().parent} is no folder")
    n = len(cohort.scans)
    if request.single_file and n > MOST_SINGLE:
        raise UsageError(
            f"--single-file: {n} scans; at most {MOST_SINGLE} are legal",
            hint="without it, data and pictures lie in a folder beside the page",
        )
    reviewed = review(cohort, request.decisions)
    if request.single_file:
        blocks = _single_blocks(reviewed, request)
        write_whole(out, _page(reviewed, request, blocks).encode())
    else:
        _write_folder(reviewed, request)
        write_whole(out, _page(reviewed, request, ()).encode())
    return out


def files_folder(out: Path) -> Path:
    """Folder of data and pictures that belongs to a page."""
    return out.with_name(out.name.removesuffix(".html") + "_files")


def _packs(reviewed: Reviewed, store: PreparedStore) -> Iterator[_Pack]:
    """Pictures and lesions of the scans, some scans together; one pack is held in memory at a time."""
    lesions = lesion_rows(reviewed.cohort.lesions)
    number, size, content = 0, 0, dict[str, Any]()
    for row, key in enumerate(reviewed.cohort.scans["scan"].tolist()):
        pictures = {
            name: base64.b64encode(blob).decode("ascii") for name, blob in sorted(store.pictures(key).items())
        }
        content[str(row)] = {"pictures": pictures, "lesions": lesions.get(key, [])}
        size += sum(map(len, pictures.values()))
        if size >= PACK_CHARACTERS or len(content) >= PACK_SCANS:
            yield _Pack(number, content)
            number, size, content = number + 1, 0, {}
    if content:
        yield _Pack(number, content)


def _write_folder(reviewed: Reviewed, request: ReportRequest) -> None:
    """Write the folder whole under another name, then put it in the place of the old one."""
    folder = files_folder(request.out)
    if folder.exists() and not (folder / DATA).is_file():
        raise UsageError(
            f"{folder}: is in the way of the report's data and was not made by a report",
            hint="choose another --out",
        )
    new = temporary_beside(folder)
    new.mkdir()
    try:
        of = [0] * len(reviewed.cohort.scans)
        for pack in _packs(reviewed, PreparedStore(request.store)):
            for row in pack.content:
                of[int(row)] = pack.number
            text = f"EPVS.receivePack({pack.number},{script_json(pack.content)});\n"
            (new / f"pack-{pack.number:04d}.js").write_text(text, encoding="ascii")
        data = payload(reviewed, study=study_id(request.counts), packs=of)
        (new / DATA).write_text(f"EPVS.receive({script_json(data)});\n", encoding="ascii")
        _replace_folder(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _replace_folder(new: Path, folder: Path) -> None:
    old = temporary_beside(folder)
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def _single_blocks(reviewed: Reviewed, request: ReportRequest) -> list[tuple[str, Markup]]:
    """Data blocks of the page by id; they are no scripts, so no browser runs them."""
    blocks, of = [], [0] * len(reviewed.cohort.scans)
    for pack in _packs(reviewed, PreparedStore(request.store)):
        for row in pack.content:
            of[int(row)] = pack.number
        blocks.append((f"pack-{pack.number:04d}", Markup(script_json(pack.content))))
    data = payload(reviewed, study=study_id(request.counts), packs=of)
    return [("data", Markup(script_json(data))), *blocks]


def _page(reviewed: Reviewed, request: ReportRequest, blocks: list[tuple[str, Markup]] | tuple[()]) -> str:
    cohort = reviewed.cohort
    script = "\n".join(source(f"cohort/{name}.js") for name in _SCRIPTS)
    style = source("page.css") + source("cohort/cohort.css")
    trained_on, limits = model_words(cohort.about)
    methods = methods_text(cohort)
    keys = cohort.scans["scan"].tolist()
    content = {
        "name": request.counts.name,
        "script": Markup(script),
        "style": Markup(style),
        "policy": _policy(script, style, single=request.single_file),
        "folder": None if request.single_file else quote(files_folder(request.out).name),
        "blocks": blocks,
        "tiles": _tiles(reviewed),
        "finished": cohort.finished,
        "trained_on": trained_on,
        "limits": limits,
        "facts": facts(cohort),
        "failures": _failures(cohort),
        "n_failed": int((cohort.scans["status"] == "failed").sum()),
        "most_failed": MOST_FAILED,
        "looks": [(keys[look.row], look.reasons) for look in reviewed.looks],
        "methods": methods,
        "references": cited(methods),
        "n": len(keys),
    }
    return render("cohort/page.html", content)


def _policy(script: str, style: str, *, single: bool) -> str:
    """Content security policy: the page's own script and style, files beside it, and nothing from anywhere else."""
    beside = "" if single else " 'self' file:"
    return (
        f"default-src 'none'; script-src '{_hash(script)}'{beside}; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _tiles(reviewed: Reviewed) -> list[tuple[str, str, str]]:
    cohort = reviewed.cohort
    numbers = cohort.scans["status"].value_counts()
    counts = cohort.scans["count"].dropna()
    keys = set(cohort.scans["scan"])
    verdicts = [decision.verdict for key, decision in reviewed.decisions.items() if key in keys]
    tiles = [
        (
            "Scans asked for",
            f"{cohort.n_asked}",
            "" if cohort.finished else f"{len(cohort.scans)} done so far",
        ),
        ("Counted, ok", f"{int(numbers.get('ok', 0))}", "every quality measure within bounds"),
        ("Counted, flagged", f"{int(numbers.get('flagged', 0))}", "a quality measure is out of bounds"),
        ("Failed", f"{int(numbers.get('failed', 0))}", "no count; the reason is below"),
    ]
    if len(counts):
        low, high = counts.quantile([0.25, 0.75])
        tiles.append(
            ("Median count", f"{counts.median():.1f}", f"lesions; middle half {low:.1f} to {high:.1f}")
        )
    if verdicts:
        said = ", ".join(f"{verdicts.count(name)} {name}" for name in ("accept", "doubt", "reject"))
        tiles.append(("Decided by people", f"{len(verdicts)}", said))
    return tiles


def _failures(cohort: Cohort) -> list[dict[str, Any]]:
    """Failed scans by kind, the commonest kind first."""
    failed = cohort.scans[cohort.scans["status"] == "failed"]
    kinds = []
    for (stage, kind), rows in failed.groupby(["stage", "error_kind"], dropna=False):
        hints = [hint for hint in rows["hint"].unique() if isinstance(hint, str)]
        kinds.append(
            {
                "kind": str(kind).replace("_", " "),
                "stage": str(stage),
                "n": len(rows),
                "hints": hints[:3],
                "scans": list(zip(rows["scan"].tolist(), rows["error_message"].tolist(), strict=True)),
            }
        )
    return sorted(kinds, key=lambda kind: -int(kind["n"]))
