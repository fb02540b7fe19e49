"""``epvs-cohort evaluate``: a table of counts against people's counts, marks and a second visit."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from epvs_cohort.errors import UsageError

if TYPE_CHECKING:
    from epvs_cohort.compare.evaluate import Evaluation

#: Names of one note that are printed; the page and the record hold all.
MOST_NAMED = 5
#: Rows of the summary on the terminal: kind, figures.
TOLD = {
    "machine": ("icc_a1", "bias", "mae"),
    "inter-reader": ("icc_a1",),
    "intra-reader": ("icc_a1",),
    "difference": ("icc_a1",),
    "lesions": ("sensitivity", "false_discovery_rate", "false_positives_per_scan", "f1", "froc_area"),
    "rescan": ("icc_a1", "bias", "mae"),
    "rescan lesions": ("lesion_agreement",),
}


def evaluate(
    table: Annotated[Path, typer.Argument(metavar="COUNTS.PARQUET", help="Table of counts that run wrote.")],
    counts: Annotated[
        Path, typer.Option("--counts", help="Readers' counts: a table scan,count[,reader[,reading]].")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of tables, figures and page.")],
    count_target: Annotated[
        Literal["roi", "ac_slice"] | None,
        typer.Option("--count-target", help="What the readers counted (default: what the table counts)."),
    ] = None,
    points: Annotated[
        list[str] | None,
        typer.Option(
            "--points",
            metavar="FILE|PATTERN",
            help="Marked lesions: a table scan,x_mm,y_mm,z_mm, or 3D Slicer's '{scan}.mrk.json'; quote it; repeatable.",
        ),
    ] = None,
    all_marked: Annotated[
        bool,
        typer.Option("--all-marked", help="A counted scan without points has no lesion, whatever its count."),
    ] = False,
    radius: Annotated[
        float | None,
        typer.Option("--radius", min=0.0, help="Voxels of the prepared grid in which lesions match (3)."),
    ] = None,
    radius_mm: Annotated[
        float | None, typer.Option("--radius-mm", min=0.0, help="The same in mm, in place of --radius.")
    ] = None,
    score: Annotated[
        Literal["peak_heat", "mean_heat"],
        typer.Option("--score", help="What orders lesions on the free-response curve."),
    ] = "peak_heat",
    froc_limit: Annotated[
        float, typer.Option("--froc-limit", min=0.01, help="False marks a scan that its area reaches to.")
    ] = 2.0,
    same_reader: Annotated[
        list[str] | None,
        typer.Option(
            "--same-reader", metavar="NAME=READER", help="NAME is a later reading by READER; repeatable."
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="COLUMN[=EDGES]", help="Also by this covariate, such as age=60,70; repeatable."
        ),
    ] = None,
    participants: Annotated[
        Path | None, typer.Option("--participants", help="Covariates: a table with participant_id.")
    ] = None,
    rescan: Annotated[
        Path | None, typer.Option("--rescan", help="Table of counts of a second visit of the same people.")
    ] = None,
    rescan_pairs: Annotated[
        Path | None, typer.Option("--rescan-pairs", help="Which scans are pairs: a table scan,rescan.")
    ] = None,
    rescan_radius_mm: Annotated[
        float | None,
        typer.Option(
            "--rescan-radius-mm", min=0.0, help="MNI mm in which lesions of two visits match (as --radius)."
        ),
    ] = None,
    decisions: Annotated[
        Path | None,
        typer.Option(
            "--decisions",
            help="Table scan,decision: rejected scans are left out (default: what the run was given).",
        ),
    ] = None,
    without_flagged: Annotated[
        bool, typer.Option("--without-flagged", help="Leave flagged scans out; else they are counted in.")
    ] = False,
    resamples: Annotated[
        int, typer.Option("--resamples", min=100, help="Of the bootstrap intervals.")
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="One seed, one set of intervals.")] = 1,
) -> None:
    """Compare a table of counts with readers' counts and marked lesions, and with a second visit."""
    from epvs_cohort.cli.evaluate_data import EvaluateFiles, reach_of, read_inputs
    from epvs_cohort.compare.evaluate import EvaluateSettings
    from epvs_cohort.compare.evaluate import evaluate as compared
    from epvs_cohort.compare.evaluation_files import check_folder, write_evaluation
    from epvs_cohort.compare.groups import Grouping
    from epvs_cohort.compare.marked import Reach
    from epvs_cohort.compare.resamples import Drawing
    from epvs_cohort.report.evaluation import write_evaluation_page

    if not points:
        _need_points(all_marked, radius is not None or radius_mm is not None, rescan is not None)
    if rescan_radius_mm is not None and rescan is None:
        raise UsageError("--rescan-radius-mm is of two visits: legal with --rescan only")
    files = EvaluateFiles(
        table=table,
        counts=counts,
        points=tuple(points or ()),
        same_reader=tuple(same_reader or ()),
        rescan=rescan,
        rescan_pairs=rescan_pairs,
        decisions=decisions,
        participants=participants,
    )
    settings = EvaluateSettings(
        count_target=count_target,
        reach=reach_of(radius, radius_mm),
        visit_reach=reach_of(radius, radius_mm)
        if rescan_radius_mm is None
        else Reach(rescan_radius_mm, "mm"),
        score=score,
        froc_limit=froc_limit,
        groupings=tuple(Grouping.of(text) for text in by or ()),
        without_flagged=without_flagged,
        all_marked=all_marked,
        drawing=Drawing(seed, resamples),
    )
    check_folder(out)
    errors = Console(stderr=True)
    with errors.status("comparing") if errors.is_terminal else nullcontext():
        evaluation = compared(read_inputs(files), settings)
        write_evaluation(out, evaluation, files.words)
        page = write_evaluation_page(out, evaluation, files.words)
    _tell(evaluation, Console(soft_wrap=True))
    Console(soft_wrap=True).print(
        Text(f"page: {page}\ntables: {out / 'figures.csv'} and the others beside it")
    )


def _need_points(all_marked: bool, radius: bool, rescan: bool) -> None:
    """Refuse options that would do nothing without marked lesions."""
    if all_marked:
        raise UsageError("--all-marked is of marked lesions: legal with --points only")
    if radius and not rescan:
        raise UsageError("--radius and --radius-mm are of lesions: legal with --points or --rescan only")


def _tell(evaluation: Evaluation, console: Console) -> None:
    """Print what is to be said by name, and the foremost figures."""
    for note in evaluation.notes:
        more = len(note.names) - MOST_NAMED
        names = [*note.names[:MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]
        console.print(Text(note.text + (": " + "; ".join(names) if names else "")))
    table = Table(title=f"figures with 95 % bootstrap intervals (reference: {evaluation.reference})")
    for name in ("of", "figure", "value", "scans"):
        table.add_column(name, justify="right" if name == "scans" else "left", no_wrap=name != "of")
    figures = evaluation.figures
    for row in figures[figures["by"] == ""].to_dict("records"):
        if row["figure"] in TOLD.get(row["kind"], ()):
            sign = "minus" if row["kind"] == "difference" else "–"
            what = f"{row['first']} {sign} {row['second']}"
            table.add_row(Text(what), row["figure"], _interval(row), str(row["scans"]))
    console.print(table)


def _interval(row: Mapping[Hashable, float]) -> str:
    if math.isnan(row["value"]):
        return "not defined"
    if math.isnan(row["low"]):
        return f"{row['value']:z.3f}"
    return f"{row['value']:z.3f} ({row['low']:z.3f} to {row['high']:z.3f})"
