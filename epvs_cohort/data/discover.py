"""Which scans are asked for: a folder, a BIDS data set, a manifest, one file or one DICOM folder.

Only names are looked at, no image is read, so thousands of files take seconds. Whatever is not taken
is passed over with a reason.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from epvs_cohort.data.manifest import check_clash, read_manifest
from epvs_cohort.data.names import is_utf8, not_utf8_words, shown
from epvs_cohort.data.participants import with_participants
from epvs_cohort.data.sniff import stem_of
from epvs_cohort.data.walk import is_label_name, walk
from epvs_cohort.errors import ManifestError, UsageError
from epvs_cohort.records import Scan

#: BIDS suffixes that are counted where none is asked for: the contrasts of the paper.
DEFAULT_SUFFIXES = ("PDw", "T2w")

_TABLES = (".csv", ".tsv")
_BIDS_STEM = re.compile(r"sub-[A-Za-z0-9]+(_[A-Za-z0-9]+-[A-Za-z0-9]+)*_[A-Za-z0-9]+")
_BIDS_PLACE = re.compile(r"sub-[^/]+/(ses-[^/]+/)?anat/[^/]+")
_NAMED_IN_ERROR = 5


@dataclass(frozen=True)
class DiscoverOptions:
    """What of SCANS is asked for.

    Attributes
    ----------
    suffixes : tuple of str
        BIDS suffixes such as ``PDw``; empty takes PDw and T2w of a BIDS data set, else every image.
    participant_labels : tuple of str
        With or without ``sub-``; empty takes all.
    include : str or None
        Shell pattern that the path relative to SCANS (of a manifest: the key) must match.
    limit : int or None
        At most so many scans, the first by key.
    reserved : frozenset of str
        Names that no covariate may have.
    """

    suffixes: tuple[str, ...] = ()
    participant_labels: tuple[str, ...] = ()
    include: str | None = None
    limit: int | None = None
    reserved: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Discovery:
    """The scans asked for, sorted by key, and what was passed over with the reason in words.

    Paths are absolute. A path passed over because it is not UTF-8 stands with its bytes escaped.
    """

    scans: tuple[Scan, ...]
    passed_over: tuple[tuple[Path, str], ...] = ()


def discover(scans: Path, options: DiscoverOptions | None = None) -> Discovery:
    """Find the scans that ``scans`` asks for.

    Parameters
    ----------
    scans : Path
        Folder, BIDS data set, CSV or TSV manifest, image file, or DICOM folder.
    options : DiscoverOptions, optional
        What of it is asked for.

    Raises
    ------
    UsageError
        Nothing there, no scan in it, an unknown participant, or an illegal limit.
    ManifestError
        A manifest or participant table that cannot be used, or two scans with one key.
    """
    chosen = options or DiscoverOptions()
    if chosen.limit is not None and chosen.limit < 1:
        raise UsageError(f"limit {chosen.limit}: legal is 1 or more")
    found = _found(scans, _absolute(scans), chosen)
    found = _only_participants(scans, found, chosen.participant_labels)
    _check_keys(scans, found.scans)
    if not found.scans:
        raise UsageError(
            f"{scans}: no scan found{_passed_over_words(found)}",
            hint="images are .nii, .nii.gz, .mha, .mhd, .nrrd, .nhdr or folders of DICOM files; "
            "--suffix and --include choose among them",
        )
    ordered = tuple(sorted(found.scans, key=lambda scan: scan.key))
    if chosen.limit is not None and len(ordered) > chosen.limit:
        beyond = tuple((scan.path, f"beyond the limit of {chosen.limit}") for scan in ordered[chosen.limit :])
        return Discovery(ordered[: chosen.limit], found.passed_over + beyond)
    return Discovery(ordered, found.passed_over)


def _absolute(scans: Path) -> Path:
    """Absolute path of SCANS, so that a worker in another folder finds the same; links stay as they are."""
    absolute = scans.absolute()
    if not os.path.lexists(absolute):
        raise UsageError(f"{shown(scans)}: no such file or folder")
    if not is_utf8(absolute):
        raise UsageError(
            f"{shown(absolute)}: a path that is not UTF-8 fits no table; UTF-8 is legal",
            hint="rename it, or name it by a link",
        )
    return absolute


def _found(given: Path, scans: Path, options: DiscoverOptions) -> Discovery:
    if not os.path.isdir(scans):
        if scans.suffix.lower() in _TABLES:
            return _from_manifest(given, options)
        return Discovery((_scan_of(scans, scans.parent, dicom=False),))
    return _from_folder(scans, options)


def _from_manifest(path: Path, options: DiscoverOptions) -> Discovery:
    scans = read_manifest(path)
    check_clash(path, scans[0].covariates, options.reserved)
    taken: list[Scan] = []
    passed: list[tuple[Path, str]] = []
    for scan in scans:
        if options.include is not None and not fnmatch.fnmatchcase(scan.key, options.include):
            passed.append((scan.path, f"its key {scan.key} does not match {options.include}"))
        elif options.suffixes and suffix_of(stem_of(scan.path)) not in options.suffixes:
            passed.append((scan.path, f"not of the sequences asked for ({', '.join(options.suffixes)})"))
        else:
            taken.append(scan)
    return Discovery(tuple(taken), tuple(passed))


def _from_folder(root: Path, options: DiscoverOptions) -> Discovery:
    bids = (root / "dataset_description.json").is_file()
    suffixes = options.suffixes or (DEFAULT_SUFFIXES if bids else ())
    taken: list[Scan] = []
    passed: list[tuple[Path, str]] = []
    for found in walk(root):
        reason = found.refused or _refused(found.path.relative_to(root), suffixes, options.include, bids=bids)
        if reason:
            passed.append((found.path, reason))
        else:
            taken.append(_scan_of(found.path, root, dicom=found.dicom))
    if bids:
        taken = list(with_participants(root, taken, options.reserved))
    return Discovery(tuple(taken), tuple(passed))


def _refused(relative: Path, suffixes: tuple[str, ...], include: str | None, *, bids: bool) -> str:
    """Why a path is not asked for; empty where it is."""
    name = relative.as_posix()
    if bids and not _BIDS_PLACE.fullmatch(name):
        return "outside sub-*/[ses-*/]anat of the BIDS data set"
    stem = stem_of(relative)
    if is_label_name(stem):
        return "named as a mask or label map"
    if _BIDS_STEM.fullmatch(stem) and _entity(stem, "part") not in (None, "mag"):
        return "named as a phase, real or imaginary part"
    if suffixes and suffix_of(stem) not in suffixes:
        return f"not of the sequences asked for ({', '.join(suffixes)})"
    if include is not None and not fnmatch.fnmatchcase(name, include):
        return f"its path does not match {include}"
    return ""


def _scan_of(path: Path, root: Path, *, dicom: bool) -> Scan:
    relative = path.relative_to(root)
    if dicom:
        key = relative.as_posix() if path != root else _name_of(root)
    else:
        stem = stem_of(path)
        key = stem if _BIDS_STEM.fullmatch(stem) else (relative.parent / stem).as_posix()
    subject, session = _who(relative, dicom=dicom)
    return Scan(key, path, subject, session)


def _name_of(folder: Path) -> str:
    name = folder.resolve().name
    if not is_utf8(name):
        raise UsageError(f"{folder}: leads to a folder that cannot name the scan: {not_utf8_words(name)}")
    return name


def _who(relative: Path, *, dicom: bool) -> tuple[str | None, str | None]:
    """Subject and session from the name of a file, else from the folders above it."""
    stem = relative.name if dicom else stem_of(relative)
    subject, session = _entity(stem, "sub"), _entity(stem, "ses")
    for part in relative.parts:
        subject = subject or _entity(part, "sub")
        session = session or _entity(part, "ses")
    return subject, session


def _entity(stem: str, name: str) -> str | None:
    match = re.search(rf"(?:^|_){name}-([A-Za-z0-9]+)(?=_|$)", stem)
    return match.group(1) if match else None


def suffix_of(stem: str) -> str:
    """Last part of a BIDS name.

    >>> suffix_of("sub-0001_ses-1_PDw")
    'PDw'
    """
    return stem.rsplit("_", 1)[-1]


def _only_participants(scans: Path, found: Discovery, labels: tuple[str, ...]) -> Discovery:
    if not labels:
        return found
    wanted = {label.removeprefix("sub-") for label in labels}
    known = {scan.subject.removeprefix("sub-") for scan in found.scans if scan.subject}
    unknown = sorted(wanted - known)
    if unknown:
        some = ", ".join(sorted(known)[:_NAMED_IN_ERROR]) or "none"
        raise UsageError(
            f"{scans}: participant {', '.join(unknown)} has no scan here; {len(known)} participants have one: "
            f"{some}{', ...' if len(known) > _NAMED_IN_ERROR else ''}"
        )
    asked: list[Scan] = []
    others: list[tuple[Path, str]] = []
    for scan in found.scans:
        if scan.subject and scan.subject.removeprefix("sub-") in wanted:
            asked.append(scan)
        else:
            others.append((scan.path, "not of the participants asked for"))
    return Discovery(tuple(asked), found.passed_over + tuple(others))


def _check_keys(scans: Path, found: Sequence[Scan]) -> None:
    first: dict[str, Path] = {}
    doubled: list[str] = []
    for scan in found:
        if scan.key in first:
            doubled.append(f"{scan.key}: {first[scan.key]} and {scan.path}")
        first.setdefault(scan.key, scan.path)
    if doubled:
        more = f"; and {len(doubled) - _NAMED_IN_ERROR} more" if len(doubled) > _NAMED_IN_ERROR else ""
        raise ManifestError(
            f"{scans}: two scans with one key, each key once is legal: {'; '.join(doubled[:_NAMED_IN_ERROR])}{more}",
            hint="rename one, choose with --include or --suffix, or name the scans in a manifest",
        )


def _passed_over_words(found: Discovery) -> str:
    if not found.passed_over:
        return "; there is no file in it"
    reasons = Counter(reason for _, reason in found.passed_over)
    listed = "; ".join(f"{times} x {reason}" for reason, times in reasons.most_common(_NAMED_IN_ERROR))
    return f"; passed over: {listed} (for example {found.passed_over[0][0]})"
