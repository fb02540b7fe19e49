"""The files and DICOM folders below a folder, by their names: images, and what is none with the reason."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from epvs_cohort.data.dicom import DICOM_SUFFIXES, is_dicom, may_be_dicom
from epvs_cohort.data.names import is_utf8, not_utf8_words, shown
from epvs_cohort.data.sniff import PROMISED, extension_of

_DERIVED_FOLDERS = frozenset(
    {"derivatives", "sourcedata", "code", "stimuli", "fmriprep", "freesurfer", "__macosx"}
)
_SIDE_FILES = frozenset(
    {".json", ".tsv", ".csv", ".bval", ".bvec", ".raw", ".zraw", ".txt", ".md", ".mat", ".lta"}
)
_FREESURFER = frozenset({".mgz", ".mgh"})

#: What a preparation writes into each folder of its store, and what a run's folders beside the output end in.
_STORE_SIDECAR = "prepared.json"
_OUTPUT_ENDINGS = (".parts", ".store", ".maps", ".figures")

_LABEL_WORD = re.compile(
    r".*mask(s|\d+)?|.*(label|labels|labelmap)\d*|.*seg\d*|segment.*|aparc.*", re.IGNORECASE
)
_BIDS_LABEL_WORD = re.compile(r"mask|.*seg", re.IGNORECASE)
_BIDS_START = re.compile(r"sub-[A-Za-z0-9]+_")
_PROBED_PER_FOLDER = 3


#: Reason given for tables, JSON side-cars and the like: they describe scans and are no scans.
SIDE_FILE = "a side file"


@dataclass(frozen=True)
class Candidate:
    """A file or DICOM folder, and why it is no scan (empty where it may be one)."""

    path: Path
    refused: str = ""
    dicom: bool = False


def walk(root: Path) -> Iterator[Candidate]:
    """Walk through ``root`` and all folders below it, links to folders last and each folder once.

    Hidden files and folders are skipped without a word. Where a name is not UTF-8, the path is given with
    its bytes escaped, and nothing below it is looked at.
    """
    seen: set[tuple[int, int]] = set()
    links: list[Path] = []
    waiting = [root]
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in seen:
                yield Candidate(folder, "a link to a folder that is searched already")
                continue
            seen.add((state.st_dev, state.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Candidate(folder, f"a folder that cannot be searched ({error.strerror})")
            continue
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        if folder != root and any(entry.name == _STORE_SIDECAR for entry in entries):
            yield Candidate(folder, "a prepared volume of this program")
            continue
        for entry in entries:
            if not is_utf8(entry.name):
                yield Candidate(Path(shown(entry.path)), not_utf8_words(entry.name))
        entries = [entry for entry in entries if is_utf8(entry.name)]
        below = [entry for entry in entries if os.path.isdir(entry.path)]
        yield from _of_files(folder, [Path(entry.path) for entry in entries if not os.path.isdir(entry.path)])
        for entry in reversed(below):
            path = Path(entry.path)
            if entry.name.lower() in _DERIVED_FOLDERS:
                yield Candidate(path, "a folder of derivatives or code")
            elif entry.name.endswith(_OUTPUT_ENDINGS):
                yield Candidate(path, "an output folder of this program")
            elif entry.is_symlink():
                links.insert(0, path)
            else:
                waiting.append(path)


def is_label_name(stem: str) -> bool:
    """Whether a file is named as a mask, segmentation or label map.

    In a BIDS name only the suffix counts, since a subject may be called anything.

    >>> is_label_name("sub-1_label-GM_dseg"), is_label_name("lesion_mask"), is_label_name("sub-mask1_T2w")
    (True, True, False)
    """
    words = re.split(r"[\W_]+", stem)
    if _BIDS_START.match(stem):
        return _BIDS_LABEL_WORD.fullmatch(words[-1]) is not None
    return any(_LABEL_WORD.fullmatch(word) for word in words if word)


def _of_files(folder: Path, files: Sequence[Path]) -> Iterator[Candidate]:
    dicom = _holds_dicom(files)
    if dicom:
        yield Candidate(folder, dicom=True)
    for path in files:
        extension = extension_of(path)
        if extension in _FREESURFER:
            yield Candidate(path, "a FreeSurfer volume (a manifest can name it as aseg)")
        elif extension in PROMISED:
            yield Candidate(path)
        elif extension in _SIDE_FILES:
            yield Candidate(path, SIDE_FILE)
        elif not (dicom and may_be_dicom(path)):
            yield Candidate(path, "not an image")


def _holds_dicom(files: Sequence[Path]) -> bool:
    if any(path.suffix.lower() in DICOM_SUFFIXES for path in files):
        return True
    nameless = [path for path in files if may_be_dicom(path) and path.name.upper() != "DICOMDIR"]
    # README, LICENSE and the like stand at either end of a listing, so the middle is probed too.
    picked = {len(nameless) * part // _PROBED_PER_FOLDER for part in range(_PROBED_PER_FOLDER)}
    return any(is_dicom(nameless[at]) for at in sorted(picked) if at < len(nameless))
