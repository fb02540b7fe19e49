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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from epvs_cohort.data.detached import data_files_of
from epvs_cohort.data.dicom import DICOM_SUFFIXES
from epvs_cohort.data.files import whole_file
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
    wanted = {under.path: scan.path}
    if os.path.isdir(scan.path):
        del wanted[under.path]
        shutil.rmtree(under.path, ignore_errors=True)
        _private(under.path)
        files = sorted(
            file for file in scan.path.iterdir() if file.is_file() and not file.name.startswith(".")
        )
        for number, file in enumerate(files):
            suffix = file.suffix.lower() if file.suffix.lower() in DICOM_SUFFIXES else ""
            wanted[under.path / f"{number:06d}{suffix}"] = file
    elif (sidecar := scan.path.with_name(f"{stem_of(scan.path)}.json")).is_file():
        wanted[folder / f"{under.key}.json"] = sidecar
    wanted.update(
        {getattr(under, side): getattr(scan, side) for side in _SIDES if getattr(scan, side) is not None}
    )
    for link, target in wanted.items():
        if link.is_symlink() and os.readlink(link) == str(target):
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write_table(secret: Secret, scans: Sequence[Scan], renamed: Sequence[Scan]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ("scan", "pseudonym", "subject", "subject_pseudonym", "session", "session_pseudonym", "path")
    )
    table.writerows(_rows(scans, renamed))
    with whole_file(secret.table) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(text.getvalue().encode())


def _rows(scans: Sequence[Scan], renamed: Sequence[Scan]) -> Iterator[tuple[str | None, ...]]:
    for scan, under in sorted(zip(scans, renamed, strict=True), key=lambda pair: pair[0].key):
        yield (
            scan.key,
            under.key,
            scan.subject,
            under.subject,
            scan.session,
            under.session,
            shown(scan.path),
        )
