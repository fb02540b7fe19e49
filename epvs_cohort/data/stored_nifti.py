"""Plain uncompressed NIfTI-1 files of the prepared store: written whole, read without a copy."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from epvs_cohort.geometry import FloatArray

#: Start of the voxels in a single-file NIfTI-1 without extensions.
_OFFSET = 352


def encode(data: npt.NDArray[np.generic], affine: FloatArray, *, slope: float = 1.0) -> bytes:
    """Bytes of a NIfTI-1 file.

    Parameters
    ----------
    data : ndarray, shape (I, J, K)
        Stored as it is, in its own type.
    affine : ndarray, shape (4, 4)
        Voxel to native RAS mm, written as sform and qform (scanner anatomical).
    slope : float
        A reader multiplies stored values by it.
    """
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = slope, 0.0
    header["vox_offset"], header["magic"] = _OFFSET, b"n+1"
    little = data.astype(data.dtype.newbyteorder("<"), copy=False)
    return bytes(header.binaryblock).ljust(_OFFSET, b"\0") + little.tobytes(order="F")


def decode(blob: bytes, shape: tuple[int, int, int], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """Stored values of a file that :func:`encode` made, shape (I, J, K), without the slope.

    Raises
    ------
    ValueError
        The file is shorter or longer than shape and type need.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    needed = _OFFSET + int(np.prod(shape)) * kind.itemsize
    if len(blob) != needed:
        raise ValueError(f"{len(blob)} bytes, {needed} expected")
    flat = np.frombuffer(blob, dtype=kind, offset=_OFFSET)
    return flat.reshape(shape, order="F")


def mapped(path: Path, shape: tuple[int, int, int], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """Stored values of a file that :func:`encode` made, as a memory map: only what is looked at is read.

    Parameters
    ----------
    path : Path
    shape : tuple of int
        (I, J, K).
    dtype : dtype
        Type on disk.

    Returns
    -------
    ndarray, shape (I, J, K), read-only
        In Fortran order, without the slope.

    Raises
    ------
    OSError
        The file is missing or may not be read.
    ValueError
        It is shorter or longer than shape and type need.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    needed = _OFFSET + int(np.prod(shape)) * kind.itemsize
    size = path.stat().st_size
    if size != needed:
        raise ValueError(f"{path}: {size} bytes, {needed} expected")
    return np.memmap(path, dtype=kind, mode="r", offset=_OFFSET, shape=shape, order="F")
