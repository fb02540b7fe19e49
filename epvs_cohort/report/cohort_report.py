"""The report of a cohort: one page, and beside it a folder with data and pictures in files of bounded size."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from epvs_cohort.data.cohort_tables import Cohort
from epvs_cohort.data.decisions import Decision
from epvs_cohort.data.files import sweep, temporary_beside, write_whole
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.errors import OutputError, UsageError
from epvs_cohort.report.cohort_content import page_content
from epvs_cohort.report.cohort_packs import Packer
from epvs_cohort.report.cohort_payload import Reviewed, payload, review, script_json, study_id
from epvs_cohort.report.page import render, source

#: Scans that one file with everything in it may hold.
MOST_SINGLE: Final = 100
#: File in the folder beside the page by which it is known as one of ours.
DATA: Final = "data.js"
_SCRIPTS: Final = (
    "base", "charts", "decisions", "columns", "filters", "table", "overview", "mosaic", "cohort", "layers", "scan",
    "start",
)  # fmt: skip
#: Libraries that the page carries, unchanged, in the order in which they must run: Plot needs D3.
CARRIED_SCRIPTS: Final = (
    "vendor/tabulator-6.5.3/tabulator.min.js",
    "vendor/d3-7.9.2/d3.min.js",
    "vendor/plot-0.6.17/plot.umd.min.js",
)
CARRIED_STYLE: Final = "vendor/tabulator-6.5.3/tabulator_simple.min.css"
#: What Plot writes into a style element of each chart of the class ``plot``.
_STYLE_OF_CHARTS: Final = """:where(.plot) {
  --plot-background: white;
  display: block;
  height: auto;
  height: intrinsic;
  max-width: 100%;
}
:where(.plot text),
:where(.plot tspan) {
  white-space: pre;
}"""


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


def write_report(cohort: Cohort, request: ReportRequest) -> Path:
    """Write the page, and the folder beside it unless everything goes into the page.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        The output has another ending or no folder, or one file would hold too many scans.
    OutputError
        The disk refuses.
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
    try:
        sweep(out.parent)
        blocks = _single_blocks(reviewed, request) if request.single_file else ()
        if not request.single_file:
            _write_folder(reviewed, request)
        write_whole(out, _page(reviewed, request, blocks).encode())
    except OSError as error:
        raise OutputError(
            f"{error.filename or out}: cannot be written: {error.strerror or error}",
            hint="mend that and try again",
        ) from error
    return out


def files_folder(out: Path) -> Path:
    """Folder of data and pictures that belongs to a page."""
    return out.with_name(out.name.removesuffix(".html") + "_files")


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
        packer = Packer(reviewed, PreparedStore(request.store))
        for name, content in packer.packs():
            text = f'EPVS.receivePack("{name}",{script_json(content)});\n'
            (new / f"{name}.js").write_text(text, encoding="ascii")
        data = payload(reviewed, study=study_id(request.counts), packs=packer.pack_of, placed=packer.placed)
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
    packer = Packer(reviewed, PreparedStore(request.store))
    blocks = [(name, Markup(script_json(content))) for name, content in packer.packs()]
    data = payload(reviewed, study=study_id(request.counts), packs=packer.pack_of, placed=packer.placed)
    return [("data", Markup(script_json(data))), *blocks]


def _page(reviewed: Reviewed, request: ReportRequest, blocks: Sequence[tuple[str, Markup]]) -> str:
    scripts = [source(name) for name in CARRIED_SCRIPTS]
    scripts.append("\n".join(source(f"cohort/{name}.js") for name in _SCRIPTS))
    style = source(CARRIED_STYLE) + source("page.css") + source("cohort/cohort.css")
    content = {
        **page_content(reviewed),
        "name": request.counts.name,
        "scripts": [Markup(script) for script in scripts],
        "style": Markup(style),
        "policy": _policy(scripts, style, single=request.single_file),
        "folder": None if request.single_file else quote(files_folder(request.out).name),
        "blocks": blocks,
    }
    return render("cohort/page.html", content)


def _policy(scripts: Sequence[str], style: str, *, single: bool) -> str:
    """Content security policy: the page's own scripts and styles, files beside it, and nothing from anywhere else."""
    beside = "" if single else " 'self' file:"
    allowed = " ".join(f"'{_hash(script)}'" for script in scripts)
    styles = f"'{_hash(style)}' '{_hash(_STYLE_OF_CHARTS)}'"
    return (
        f"default-src 'none'; script-src {allowed}{beside}; style-src {styles}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
