"""Affine maps between a FreeSurfer volume and a scan, from the files that registration tools write."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from epvs_cohort.errors import RoiError
from epvs_cohort.geometry import LPS_FROM_RAS, FloatArray

_HINT = (
    "legal are a text file of 4 x 4 numbers (RAS mm of the aseg to RAS mm of the scan), an LTA, an ITK .txt"
)
#: FreeSurfer's transform types: voxel to voxel, and scanner RAS to scanner RAS.
_LTA_VOXEL, _LTA_RAS = 0, 1


def read_scan_from_aseg(path: Path) -> FloatArray:
    """Read the map of the aseg's RAS mm to the scan's RAS mm.

    Parameters
    ----------
    path : Path
        A text file of 4 x 4 numbers (RAS mm to RAS mm), a FreeSurfer LTA of type 0 or 1 whose source is the aseg's
        volume, or an ITK text transform that maps points of the scan to points of the aseg (as resampling tools
        write it for moving the aseg onto the scan).

    Returns
    -------
    ndarray, shape (4, 4)

    Raises
    ------
    RoiError
        Unreadable, of another format, or not invertible.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RoiError(f"{path}: cannot be read as a transform: {error}", hint=_HINT) from error
    try:
        if text.lstrip().startswith("#Insight Transform File"):
            matrix = _from_itk(text)
        elif "n_xforms" in text or "nxforms" in text:
            matrix = _from_lta(text)
        else:
            matrix = _square([float(v) for line in text.splitlines() for v in _uncommented(line).split()])
    except ValueError as error:
        raise RoiError(f"{path}: not a transform that is read here: {error}", hint=_HINT) from error
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-6:
        raise RoiError(f"{path}: its matrix cannot be inverted: {matrix.tolist()}", hint=_HINT)
    return matrix


def _uncommented(line: str) -> str:
    return line.split("#", 1)[0].replace(",", " ")


def _square(values: list[float]) -> FloatArray:
    if len(values) != 16:
        raise ValueError(f"found {len(values)} numbers, expected 16")
    matrix = np.array(values, dtype=np.float64).reshape(4, 4)
    if not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6):
        raise ValueError(f"its last row is {matrix[3].tolist()}, expected 0 0 0 1")
    return matrix


def _from_itk(text: str) -> FloatArray:
    parts = sum(line.startswith("Transform:") for line in text.splitlines())
    if parts > 1:
        raise ValueError(f"it is a chain of {parts} transforms, one is legal")
    fields: dict[str, list[float]] = {}
    for line in text.splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("Parameters", "FixedParameters") and name.strip() not in fields:
            fields[name.strip()] = [float(v) for v in values.split()]
    parameters = fields.get("Parameters", [])
    if len(parameters) != 12:
        raise ValueError(f"its first transform has {len(parameters)} parameters, an affine one has 12")
    center = np.array(fields.get("FixedParameters", [0.0, 0.0, 0.0])[:3])
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(parameters[:9]).reshape(3, 3)
    matrix[:3, 3] = np.array(parameters[9:]) + center - matrix[:3, :3] @ center
    return np.asarray(np.linalg.inv(LPS_FROM_RAS @ matrix @ LPS_FROM_RAS), dtype=np.float64)


def _from_lta(text: str) -> FloatArray:
    lines = [_uncommented(line).strip() for line in text.splitlines()]
    kind = next((int(line.partition("=")[2]) for line in lines if line.startswith("type")), None)
    if kind not in (_LTA_VOXEL, _LTA_RAS):
        raise ValueError(f"its type is {kind}, legal are 0 (voxel to voxel) and 1 (RAS to RAS)")
    several = next((line for line in lines if line.startswith(("nxforms", "n_xforms"))), "nxforms = 1")
    if int(several.partition("=")[2]) != 1:
        raise ValueError(f"it holds several transforms ({several}), one is legal")
    at = next((k for k, line in enumerate(lines) if line.split() == ["1", "4", "4"]), None)
    if at is None:
        raise ValueError("it holds no single 4 x 4 matrix")
    matrix = _square([float(v) for line in lines[at + 1 : at + 5] for v in line.split()])
    if kind == _LTA_RAS:
        return matrix
    source, target = _ras_from_voxel(lines, "src"), _ras_from_voxel(lines, "dst")
    placed: FloatArray = np.asarray(target @ matrix @ np.linalg.inv(source), dtype=np.float64)
    return placed


def _ras_from_voxel(lines: list[str], which: str) -> FloatArray:
    """Voxel to RAS of a volume info block: centre, direction cosines and voxel size, as FreeSurfer defines them."""
    start = next((k for k, line in enumerate(lines) if line.startswith(f"{which} volume info")), None)
    if start is None:
        raise ValueError(f"it has no {which} volume info")
    fields: dict[str, list[float]] = {}
    for line in lines[start + 1 : start + 9]:
        name, _, values = line.partition("=")
        if name.strip() in ("volume", "voxelsize", "xras", "yras", "zras", "cras"):
            fields[name.strip()] = [float(v) for v in values.split()]
    missing = {"volume", "voxelsize", "xras", "yras", "zras", "cras"} - fields.keys()
    if missing:
        raise ValueError(f"its {which} volume info lacks {', '.join(sorted(missing))}")
    affine = np.eye(4)
    directions = np.array([fields["xras"], fields["yras"], fields["zras"]]).T
    affine[:3, :3] = directions * np.array(fields["voxelsize"])
    affine[:3, 3] = np.array(fields["cras"]) - affine[:3, :3] @ (np.array(fields["volume"]) / 2)
    return affine
