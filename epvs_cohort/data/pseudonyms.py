"""Pseudonyms for scans: a keyed hash stands for each name, and the files are read by links that carry no other.

Every message, log, table, store and page of a run names a scan by its key or by the path that it is read from. With
both replaced, nothing that the run writes holds what the files were called. The table that leads back stays beside the
secret.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from epvs_cohort.data.detached import data_files_of
from epvs_cohort.data.dicom import DICOM_SUFFIXES
from epvs_cohort.data.files import sweep, temporary_beside, whole_file
from epvs_cohort.data.names import shown
from epvs_cohort.data.sniff import PROMISED, extension_of, opened, stem_of
from epvs_cohort.errors import UnreadableError, UsageError
from epvs_cohort.records import Scan

#: A secret that is shorter can be guessed, and with it every pseudonym.
LEAST_SECRET_BYTES = 16
_MOST_SECRET_BYTES = 4096
#: Hexadecimal digits kept of the keyed hash: 64 bits.
_DIGITS = 16
_SIDES = ("aseg", "aseg_to_scan", "mask")
#: Files of `aseg_to_scan` (`epvs_cohort.prepare.matrices`).
_MATRICES = (".lta", ".mat", ".txt", ".dat")
_COLUMNS = ("scan", "pseudonym", "subject", "subject_pseudonym", "session", "session_pseudonym", "path")
_MAKE_ONE = "make one: (umask 077; openssl rand -hex 32 > FILE)"


@dataclass(frozen=True)
class Secret:
    """What pseudonyms are keyed with, and where their links and the table that leads back lie: beside it."""

    path: Path
    value: bytes = field(repr=False)

    @property
    def links(self) -> Path:
        """Folder of the links that scans are read by; only the user may enter it."""
        return self.path.with_name(self.path.name + ".links")

    @property
    def table(self) -> Path:
        """Table of names and their pseudonyms; only the user may read it."""
        return self.path.with_name(self.path.name + ".names.csv")

    def pseudonym(self, kind: str, name: str) -> str:
        """HMAC-SHA256 of a name, shortened; names of different kinds have different ones.

        >>> Secret(Path("study.key"), b"0123456789abcdef").pseudonym("scan", "sub-0001_PDw")
        'scan-23e54ad163d77b55'
        """
        mac = hmac.new(self.value, f"{kind}\0{name}".encode(), hashlib.sha256)
        return f"{kind}-{mac.hexdigest()[:_DIGITS]}"


def read_secret(path: Path) -> Secret:
    """Read the secret that pseudonyms are keyed with.

    Raises
    ------
    UsageError
        Missing, too short, too long, or readable by others than the user.
    """
    try:
        with opened(path) as handle:
            value = handle.read(_MOST_SECRET_BYTES + 1).strip()
            mode = os.fstat(handle.fileno()).st_mode
    except UnreadableError as error:
        raise UsageError(f"--pseudonymise: {error.message}", hint=_MAKE_ONE) from error
    if mode & 0o077:
        raise UsageError(
            f"--pseudonymise {path}: others may read it (mode {mode & 0o777:o}); legal is 600 or 400",
            hint=f"chmod 600 {path}",
        )
    if not LEAST_SECRET_BYTES <= len(value) <= _MOST_SECRET_BYTES:
        raise UsageError(
            f"--pseudonymise {path}: a secret of {len(value)} bytes; legal are {LEAST_SECRET_BYTES} to "
            f"{_MOST_SECRET_BYTES}",
            hint=_MAKE_ONE,
        )
    return Secret(path.absolute(), value)


def check_place(secret: Secret, scans: Path) -> None:
    """Check that the secret, and with it the links beside it, lies where no scans are looked for.

    Raises
    ------
    UsageError
        It lies in the folder ``scans`` or below it: the links would be taken for scans.
    """
    if scans.is_dir() and secret.path.parent.resolve().is_relative_to(scans.resolve()):
        raise UsageError(
            f"--pseudonymise {secret.path}: in the folder of the scans, {shown(scans)}; legal is a place outside of it",
            hint="the links beside it would be taken for scans: move it, with what lies beside it under its name, "
            "to a folder of your own",
        )


def pseudonymised(scans: Sequence[Scan], secret: Secret) -> tuple[Scan, ...]:
    """The same scans under pseudonyms, sorted by them; the links they are read by and the table of names are written.

    Raises
    ------
    UsageError
        A header names data files in other files, two pseudonyms are equal, or a link cannot be made.
    """
    renamed = [_renamed(scan, secret) for scan in scans]
    if len({scan.key for scan in renamed}) < len(renamed):
        raise UsageError(
            f"--pseudonymise {secret.path}: two scans have one pseudonym", hint="take another secret"
        )
    try:
        _private(secret.links)
        for scan, under in zip(scans, renamed, strict=True):
            _link(scan, under)
        _write_table(secret, scans, renamed)
    except OSError as error:
        raise UsageError(
            f"--pseudonymise {secret.path}: {error.filename or secret.links}: {error.strerror}",
            hint="links and the table of names lie beside the secret: it needs a folder that you may write",
        ) from error
    return tuple(sorted(renamed, key=lambda scan: scan.key))


def _renamed(scan: Scan, secret: Secret) -> Scan:
    if _has_data_files(scan.path):
        raise UsageError(
            f"--pseudonymise: {scan.path}: a header whose voxels lie in other files, which it names",
            hint="convert it to NIfTI first, or leave it out",
        )
    key = secret.pseudonym("scan", scan.key)
    folder = secret.links / key
    name = key if os.path.isdir(scan.path) else f"{key}{_known_extension(scan.path)}"

    def beside(side: str, path: Path | None) -> Path | None:
        return None if path is None else folder / f"{side}{_known_extension(path)}"

    return replace(
        scan,
        key=key,
        path=folder / name,
        subject=secret.pseudonym("subject", scan.subject) if scan.subject else None,
        session=secret.pseudonym("session", scan.session) if scan.session else None,
        aseg=beside("aseg", scan.aseg),
        aseg_to_scan=beside("aseg_to_scan", scan.aseg_to_scan),
        mask=beside("mask", scan.mask),
    )


def _known_extension(path: Path) -> str:
    """Extension of a file, where it is one that says how it is read and cannot be a part of a name."""
    extension = extension_of(path)
    return extension if extension in (*PROMISED, *_MATRICES) else ""


def _has_data_files(path: Path) -> bool:
    try:
        return not os.path.isdir(path) and bool(data_files_of(path))
    except UnreadableError:
        # It fails by itself when it is read, as the one scan that it is.
        return False


def _link(scan: Scan, under: Scan) -> None:
    """Link what is read of a scan; files of a DICOM folder are numbered, for their names may tell who it is."""
    folder = under.path.parent
    _private(folder)
    sweep(folder)
    wanted = {under.path: scan.path}
    if os.path.isdir(scan.path):
        wanted = _slices(scan.path, under.path)
        _as_folder(under.path, wanted)
    elif (sidecar := scan.path.with_name(f"{stem_of(scan.path)}.json")).is_file():
        wanted[folder / f"{under.key}.json"] = sidecar
    wanted.update(
        {getattr(under, side): getattr(scan, side) for side in _SIDES if getattr(scan, side) is not None}
    )
    for link, target in wanted.items():
        _put(link, target)


def _slices(folder: Path, under: Path) -> dict[Path, Path]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    suffixes = (file.suffix.lower() for file in files)
    return {
        under / f"{number:06d}{suffix if suffix in DICOM_SUFFIXES else ''}": file
        for number, (file, suffix) in enumerate(zip(files, suffixes, strict=True))
    }


def _as_folder(folder: Path, wanted: Mapping[Path, Path]) -> None:
    """Make a folder that holds no links but those that are wanted; another run may be reading by these."""
    if folder.is_symlink():
        folder.unlink()
    _private(folder)
    sweep(folder)
    for link in folder.iterdir():
        if link not in wanted and not link.name.startswith("."):
            link.unlink(missing_ok=True)


def _put(link: Path, target: Path) -> None:
    """Make a link, in place of another by a rename; one that is right stays as it is."""
    if link.is_symlink() and os.readlink(link) == str(target):
        return
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    temporary = temporary_beside(link)
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write_table(secret: Secret, scans: Sequence[Scan], renamed: Sequence[Scan]) -> None:
    rows = {row[1::2]: row for row in (*_kept(secret.table), *_rows(scans, renamed))}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows(sorted(rows.values()))
    with whole_file(secret.table) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(text.getvalue().encode())


def _kept(table: Path) -> list[tuple[str, ...]]:
    """Rows of earlier starts: what they counted must be led back too."""
    try:
        with table.open(encoding="utf-8", newline="") as handle:
            rows = [tuple(row) for row in csv.reader(handle, strict=True)]
    except FileNotFoundError:
        return []
    except (ValueError, csv.Error) as error:
        raise _no_table(table, str(error)) from error
    if not rows or rows[0] != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        raise _no_table(table, f"legal are rows of {len(_COLUMNS)} columns under {','.join(_COLUMNS)}")
    return rows[1:]


def _no_table(table: Path, found: str) -> UsageError:
    return UsageError(
        f"{table}: the table of names of earlier runs cannot be read: {found}",
        hint="it is not overwritten: mend it, or move it to another place",
    )


def _rows(scans: Sequence[Scan], renamed: Sequence[Scan]) -> Iterator[tuple[str, ...]]:
    for scan, under in sorted(zip(scans, renamed, strict=True), key=lambda pair: pair[0].key):
        yield (
            scan.key,
            under.key,
            scan.subject or "",
            under.subject or "",
            scan.session or "",
            under.session or "",
            shown(scan.path),
        )
