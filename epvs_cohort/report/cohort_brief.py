"""The three questions that a report is opened with, each answered in a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from epvs_cohort.report.cohort_drift import drifts
from epvs_cohort.report.cohort_groups import FEWEST_SCANS, contrast, group_labels
from epvs_cohort.report.cohort_payload import Reviewed

#: Scans and kinds of failure that a line names.
_MOST_NAMED: Final = 3
_SCANNER: Final = "scanner"


@dataclass(frozen=True)
class Answer:
    """One question and its answer.

    Attributes
    ----------
    question, words : str
    scans : tuple of str
        Named after the words, as links.
    part, link : str
        Part of the page that says more, and what the link to it says.
    """

    question: str
    words: str
    scans: tuple[str, ...] = ()
    part: str = ""
    link: str = ""


def answers(reviewed: Reviewed) -> list[Answer]:
    """Which scans failed and why, which to look at first, and whether one scanner counts more than another."""
    return [_failed(reviewed), _first(reviewed), _scanners(reviewed)]


def _failed(reviewed: Reviewed) -> Answer:
    question = "Which scans failed, and why?"
    scans = reviewed.cohort.scans
    kinds = scans.loc[scans["status"] == "failed", "error_kind"].fillna("unknown").value_counts()
    if kinds.empty:
        return Answer(question, "None.")
    named = [f"{number} × {str(kind).replace('_', ' ')}" for kind, number in kinds.items()]
    more = len(named) - _MOST_NAMED
    tail = f" and {more} other reasons" if more > 0 else ""
    words = f"{int(kinds.sum())} of {len(scans)}: {', '.join(named[:_MOST_NAMED])}{tail}."
    return Answer(question, words, (), "failed-title", "the reasons, scan by scan")


def _first(reviewed: Reviewed) -> Answer:
    question = "Which to look at first?"
    if not reviewed.looks:
        return Answer(question, "None stands out.", (), "looks-title", "what was looked for")
    keys = reviewed.cohort.scans["scan"].tolist()
    first = tuple(str(keys[look.row]) for look in reviewed.looks[:_MOST_NAMED])
    flagged = int((reviewed.cohort.scans["status"] == "flagged").sum())
    noun = "scan is" if flagged == 1 else "scans are"
    words = f"{flagged} counted {noun} flagged. Begin with"
    return Answer(question, words, first, "looks-title", "these and more, with the reasons")


def _scanners(reviewed: Reviewed) -> Answer:
    question = "Does one scanner count more than another?"
    scans = reviewed.cohort.scans
    kept = scans.assign(count=scans["count"].where(~scans["scan"].isin(reviewed.rejected)))
    known = scans[_SCANNER].nunique()
    if known < 2:
        words = "No scanner is known." if not known else "All scans whose scanner is known come from one."
        return Answer(question, words)
    found = contrast(kept, group_labels(kept[_SCANNER]))
    if found is None:
        return Answer(
            question, f"Fewer than two scanners have {FEWEST_SCANS} counted scans: that is too few to say."
        )
    if found.beyond_chance:
        words = f"Yes: {found.most} counts {found.gap:.1f} more a scan than {found.least} ({found.interval})."
    else:
        words = (
            f"Not that these scans can tell: {found.most} counts {found.gap:.1f} more a scan than {found.least}, "
            f"which chance may give ({found.interval})."
        )
    others = sum(each.measure != "count" for each in drifts(scans, reviewed.measures))
    if others:
        words += f" {others} quality measures differ between scanners or drift with the date."
    return Answer(question, words, (), "counts-title", "age and sex held equal, and other groups")
