"""Headers of NIfTI-1, NIfTI-2 and MGH files: what the voxels are, where they lie, and what is wrong.

Nothing here allocates more than a header. The order of the fields is that of nifti1.h, nifti2.h and
FreeSurfer's mghFileFormat, as nibabel reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.freesurfer.mghformat import MGHError, MGHHeader
from nibabel.spatialimages import HeaderDataError

from epvs_cohort.errors import UnreadableError, UnsuitableImageError
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.records import QcValue

#: Bytes that hold any of the headers read here (NIfTI-2 has 540).
HEADER_BYTES = 544

#: sform and qform further apart than this at a corner of the image are worth a note.
FORMS_AGREE_MM = 0.1

#: An extension block larger than this is taken for a damaged offset.
_MAX_OFFSET = 1 << 28

_NIFTI_TYPES: dict[int, str] = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_REFUSED_TYPES: dict[int, str] = {
    1: "1-bit",
    32: "complex64",
    128: "RGB colour",
    1536: "float128",
    1792: "complex128",
    2048: "complex256",
    2304: "RGBA colour",
}
_MGH_TYPES: dict[int, str] = {0: "u1", 4: "i2", 1: "i4", 3: "f4"}
_MGH_DATA_OFFSET = 284
_MGH_RAS_FLAG = 28


@dataclass(frozen=True)
class Layout:
    """How the voxels of a file are stored.

    Attributes
    ----------
    shape : tuple of int
        As stored, axes of length 1 at the end dropped beyond the third.
    dtype : dtype
        As stored, with its byte order.
    offset : int
        Byte of the first voxel in the uncompressed file; voxels follow in Fortran order.
    slope, inter : float
        Intensity = slope * stored + inter.
    affine : ndarray, shape (4, 4)
        0-based voxel to RAS mm.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int
    slope: float
    inter: float
    affine: FloatArray
    notes: tuple[str, ...] = ()
    quality: tuple[QcValue, ...] = ()

    @property
    def scaled(self) -> bool:
        """Whether slope and intercept change anything."""
        return self.slope != 1.0 or self.inter != 0.0


@dataclass(frozen=True)
class _Placement:
    affine: FloatArray
    notes: tuple[str, ...]
    quality: tuple[QcValue, ...]


def parse_header(head: bytes, path: Path, *, mgh: bool) -> Layout:
    """Read the header of a NIfTI or MGH file.

    Parameters
    ----------
    head : bytes
        First bytes of the uncompressed file, at least as many as the header has.
    path : Path
        Named in errors.
    mgh : bool
        MGH rather than NIfTI.

    Raises
    ------
    UnreadableError
        The header is cut off or contradicts itself.
    UnsuitableImageError
        The voxels are of a type that holds no plain intensities (colour, complex).
    """
    try:
        with np.errstate(all="ignore"):
            return _parse_mgh(head, path) if mgh else _parse_nifti(head, path)
    except (HeaderDataError, MGHError, ValueError, OverflowError, KeyError, TypeError) as error:
        raise UnreadableError(f"{path}: damaged header: {error}") from error


def _parse_nifti(head: bytes, path: Path) -> Layout:
    second = head[4:8] == b"n+2\0"
    size = 540 if second else 348
    if len(head) < size:
        raise UnreadableError(f"{path}: the header is cut off: {len(head)} bytes, a NIfTI header has {size}")
    kind: type[nib.Nifti1Header] = nib.Nifti2Header if second else nib.Nifti1Header
    header = kind(head[:size], check=False)
    dims = [int(value) for value in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise UnreadableError(f"{path}: damaged header: {dims[0]} dimensions, legal are 1 to 7")
    shape = _squeezed(dims[1 : dims[0] + 1])
    slope, inter = _scaling(float(header["scl_slope"]), float(header["scl_inter"]), path)
    placed = _placement(header, shape, path)
    return Layout(
        shape=shape,
        dtype=_nifti_dtype(int(header["datatype"]), header.endianness, path),
        offset=_offset(float(header["vox_offset"]), size, path),
        slope=slope,
        inter=inter,
        affine=placed.affine,
        notes=placed.notes,
        quality=placed.quality,
    )


def _parse_mgh(head: bytes, path: Path) -> Layout:
    if len(head) < _MGH_DATA_OFFSET:
        raise UnreadableError(
            f"{path}: the header is cut off: {len(head)} bytes, an MGH header has {_MGH_DATA_OFFSET}"
        )
    header = MGHHeader(head[:_MGH_DATA_OFFSET], check=False)
    code = int(header["type"])
    if code not in _MGH_TYPES:
        raise UnsuitableImageError(f"{path}: MGH voxel type {code}, legal are {sorted(_MGH_TYPES)}")
    # nibabel sets the flag itself while it fills in a default, so the byte on disk is asked.
    placed = head[_MGH_RAS_FLAG : _MGH_RAS_FLAG + 2] != b"\0\0"
    return Layout(
        shape=_squeezed([int(value) for value in header["dims"]]),
        dtype=np.dtype(f">{_MGH_TYPES[code]}"),
        offset=_MGH_DATA_OFFSET,
        slope=1.0,
        inter=0.0,
        affine=np.asarray(header.get_affine(), dtype=np.float64),
        notes=() if placed else ("the MGH header has no orientation; coronal slices are assumed",),
        quality=(orientation_quality(known=placed),),
    )


def _squeezed(dims: list[int]) -> tuple[int, ...]:
    while len(dims) > 3 and dims[-1] == 1:
        dims = dims[:-1]
    return tuple(dims)


def _nifti_dtype(code: int, endianness: str, path: Path) -> np.dtype[np.generic]:
    if code in _NIFTI_TYPES:
        return np.dtype(endianness + _NIFTI_TYPES[code])
    legal = "integers of 8 to 64 bits, float32 and float64"
    if code in _REFUSED_TYPES:
        raise UnsuitableImageError(f"{path}: the voxels are {_REFUSED_TYPES[code]}; legal are {legal}")
    raise UnreadableError(f"{path}: damaged header: voxel type code {code}; legal are {legal}")


def _offset(value: float, header_size: int, path: Path) -> int:
    # Some writers leave 0 in single files and mean the least legal offset.
    least = header_size + 4
    if value == 0.0:
        return least
    if not math.isfinite(value) or not least <= value <= _MAX_OFFSET:
        raise UnreadableError(
            f"{path}: damaged header: voxels start at byte {value:g}, legal is {least} to {_MAX_OFFSET}"
        )
    return int(value)


def _scaling(slope: float, inter: float, path: Path) -> tuple[float, float]:
    # nifti1.h: a slope of 0 means no scaling; NaN is what nibabel writes for the same.
    if slope == 0.0 or math.isnan(slope):
        return 1.0, 0.0
    inter = 0.0 if math.isnan(inter) else inter
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise UnreadableError(f"{path}: damaged header: intensity slope {slope:g}, intercept {inter:g}")
    return slope, inter


def _placement(header: nib.Nifti1Header, shape: tuple[int, ...], path: Path) -> _Placement:
    """Sform where its code is set, else qform, else voxel sizes alone (nifti1.h, methods 3, 2 and 1)."""
    sform = np.asarray(header.get_sform(), dtype=np.float64) if int(header["sform_code"]) > 0 else None
    qform = None
    notes: list[str] = []
    quality: list[QcValue] = []
    if int(header["qform_code"]) > 0:
        try:
            qform = _qform(header)
        except (HeaderDataError, ValueError) as error:
            if sform is None:
                raise UnreadableError(f"{path}: damaged header: qform: {error}") from error
            notes.append(f"the qform is unusable ({error}); the sform is used")
    if sform is not None and qform is not None:
        distance = _corner_distance_mm(sform, qform, shape)
        if math.isfinite(distance):
            quality.append(QcValue("sform_qform_distance", distance, "mm"))
        if not distance <= FORMS_AGREE_MM:
            notes.append(f"sform and qform disagree by up to {distance:.3g} mm; the sform is used")
    affine = sform if sform is not None else qform
    if affine is None:
        header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
        affine = np.asarray(header.get_base_affine(), dtype=np.float64)
        notes.append("neither sform nor qform is set: orientation unknown, voxel axes taken as L, A, S")
    known = sform is not None or qform is not None
    return _Placement(affine, tuple(notes), (orientation_quality(known=known), *quality))


def _qform(header: nib.Nifti1Header) -> FloatArray:
    # nifti1.h reads a qfac that is not -1 as 1; nibabel refuses it.
    if float(header["pixdim"][0]) not in (-1.0, 1.0):
        header["pixdim"][0] = 1.0
    return np.asarray(header.get_qform(), dtype=np.float64)


def _corner_distance_mm(first: FloatArray, second: FloatArray, shape: tuple[int, ...]) -> float:
    last = np.array([*shape[:3], 1, 1, 1][:3], dtype=np.float64) - 1.0
    corners: npt.NDArray[np.float64] = np.array(list(np.ndindex(2, 2, 2)), dtype=np.float64) * last
    gap = apply_affine(first, corners) - apply_affine(second, corners)
    return float(np.max(np.linalg.norm(gap, axis=1)))


def orientation_quality(*, known: bool) -> QcValue:
    """Quality measure ``orientation_known``: 1 where the header tells how the voxels lie in space."""
    return QcValue("orientation_known", float(known), "0 or 1")
