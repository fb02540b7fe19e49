"""Parts of the head in a native scan: of all of it before any registration, or of a part around a point."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epvs_cohort.data.head_grid import ROI_FROM_CENTER_MM, HeadGrid, head_center, normalised, on_grid
from epvs_cohort.errors import PredictionError
from epvs_cohort.geometry import FloatArray, Grid, apply_affine
from epvs_cohort.head_classes import BASAL_GANGLIA, CLASS_NAMES, HeadClass, mirror_table
from epvs_cohort.model.predict import Device, Precision, placed_copy, require_device
from epvs_cohort.model.roi_bundle import RoiBundle
from epvs_cohort.records import Float32Array, HeadSegmentation, Image, LabelArray

_log = logging.getLogger(__name__)

BoolArray = npt.NDArray[np.bool_]

#: Basal ganglia farther than this from where they mostly lie, on any axis, are near the edge of what was trained on:
#: the grid is laid anew.
FARTHEST_MM: Final = np.array([14.0, 24.0, 26.0])
#: Less of the basal ganglia, or else of the brain, in mL, says nothing of where it is.
LEAST_ROI_ML, LEAST_BRAIN_ML = 2.0, 40.0


class Segmenter:
    """A network on a device, ready for scans.

    On a CPU without AMX tiles bfloat16 is slower than float32.

    Parameters
    ----------
    bundle : RoiBundle
        The model.
    device : {"cpu", "cuda"}
        Where it runs.
    precision : {"float32", "bfloat16"}
        Of the convolutions.
    threads : int or None
        Threads of one operation, for the whole process; None leaves torch's setting.

    Raises
    ------
    ModelError
        The device is not there.
    """

    def __init__(
        self,
        bundle: RoiBundle,
        device: Device = "cpu",
        *,
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> None:
        require_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        self._head_grid: HeadGrid = bundle.card.grid
        self._model_id = bundle.model_id
        self._device = torch.device(device)
        self._half = precision == "bfloat16"
        self._network = placed_copy(bundle.network, self._device)

    def segment(self, image: Image) -> HeadSegmentation:
        """Find the parts of a head.

        The grid is centred on what looks like a head; where the brain is then found far from where it was in training,
        the grid is centred on the brain and the scan is looked at once more.

        Parameters
        ----------
        image : Image
            A native scan in the storage order of `data.orient.closest_canonical`; any contrast, whole, stripped,
            defaced or cropped.

        Raises
        ------
        PredictionError
            The network gave values that are not finite.
        """
        grid = self._head_grid.at(head_center(image))
        probabilities, labels = self._look(image, grid)
        better = _better_center(labels, grid)
        if better is not None:
            _log.debug("grid laid anew at %s", np.round(better, 1))
            grid = self._head_grid.at(better)
            probabilities, labels = self._look(image, grid)
        return _described(probabilities, labels, grid, self._model_id)

    def segment_around(
        self, image: Image, native_from_frame: FloatArray, center_mm: npt.ArrayLike
    ) -> HeadSegmentation:
        """Find the parts of a head around a point.

        The answer is the mean of two: of the head, and of its mirror image with left and right exchanged back.

        Parameters
        ----------
        image : Image
            As for `segment`.
        native_from_frame : ndarray, shape (4, 4)
            Turn and shift from the frame that the grid lies along, as the frame of the rigid registration, to native
            RAS mm.
        center_mm : array_like, shape (3,)
            Middle of the grid, mm of that frame.

        Raises
        ------
        PredictionError
            The network gave values that are not finite.
        """
        own = self._head_grid.at(center_mm)
        grid = Grid(own.shape, native_from_frame @ own.affine)
        probabilities, labels = self._look(image, grid, mirrored_too=True)
        return _described(probabilities, labels, grid, self._model_id)

    def _look(
        self, image: Image, grid: Grid, *, mirrored_too: bool = False
    ) -> tuple[Float32Array, LabelArray]:
        """Probabilities and labels; with ``mirrored_too`` the mean of those of the head and of its mirror image."""
        values, seen = on_grid(image, grid)
        intensities = normalised(values, seen)
        probabilities = self._probabilities(intensities)
        if mirrored_too:
            # Left to right is the first axis of the frame, and of the grid.
            other = self._probabilities(np.ascontiguousarray(intensities[::-1])).flip(1)
            mirror = torch.from_numpy(mirror_table().astype(np.int64)).to(other.device)
            probabilities = (probabilities + other[mirror]) / 2.0
        labels = _most_probable(probabilities)
        return probabilities.cpu().numpy(), labels.cpu().numpy()

    def _probabilities(self, intensities: Float32Array) -> Tensor:
        # Classes apart in memory: the CPU then takes the softmax of many voxels at a time.
        scores = self._scores(intensities).float().contiguous()
        if not bool(torch.isfinite(scores).all()):
            raise PredictionError("the network that outlines heads gave values that are not finite")
        return torch.softmax(scores, dim=0)

    @torch.inference_mode()
    def _scores(self, intensities: Float32Array) -> Tensor:
        batch = torch.from_numpy(intensities)[None, None].to(self._device)
        with self._autocast():
            scores: Tensor = self._network(batch.contiguous(memory_format=torch.channels_last_3d))
        return scores[0]

    def _autocast(self) -> AbstractContextManager[None]:
        if not self._half:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


def _most_probable(scores: Tensor) -> Tensor:
    """First class of the highest score: (C, I, J, K) to (I, J, K), uint8.

    The same as ``argmax(dim=0)``, which takes 0.15 s of a CPU core for a head.
    """
    best, labels = scores[0].clone(), torch.zeros_like(scores[0], dtype=torch.uint8)
    for number in range(1, scores.shape[0]):
        labels.masked_fill_(scores[number] > best, number)
        torch.maximum(best, scores[number], out=best)
    return labels


def _better_center(labels: LabelArray, grid: Grid) -> FloatArray | None:
    """Where the grid should rather lie, native RAS mm; None where it lies well or nothing tells."""
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000.0
    voxels, offset = np.argwhere(np.isin(labels, BASAL_GANGLIA)), np.asarray(ROI_FROM_CENTER_MM)
    if len(voxels) * voxel_ml < LEAST_ROI_ML:
        voxels, offset = np.argwhere(labels != HeadClass.NOT_BRAIN), np.zeros(3)
        if len(voxels) * voxel_ml < LEAST_BRAIN_ML:
            return None
    wanted = apply_affine(grid.affine, voxels.mean(axis=0)) - offset
    return wanted if bool((np.abs(wanted - grid.center_mm) > FARTHEST_MM).any()) else None


def _described(
    probabilities: Float32Array, labels: LabelArray, grid: Grid, model_id: str
) -> HeadSegmentation:
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000.0
    sums = probabilities.reshape(len(CLASS_NAMES), -1).sum(axis=1, dtype=np.float64)
    inside = np.isin(labels, BASAL_GANGLIA)
    return HeadSegmentation(
        labels=labels,
        probabilities=probabilities,
        grid=grid,
        volumes_ml={name: float(sums[n]) * voxel_ml for n, name in enumerate(CLASS_NAMES) if n},
        entropy_inside=_mean_entropy(probabilities, inside),
        entropy_border=_mean_entropy(probabilities, border_of(inside)),
        model_id=model_id,
    )


def border_of(region: BoolArray) -> BoolArray:
    """Voxels that share a face with a voxel on the other side of a region's border, on both sides of it.

    >>> border_of(np.array([0, 0, 1, 1, 1, 0], bool).reshape(6, 1, 1)).ravel().astype(int).tolist()
    [0, 1, 1, 0, 1, 1]
    """
    border = np.zeros_like(region)
    for axis in range(region.ndim):
        along, out = np.moveaxis(region, axis, 0), np.moveaxis(border, axis, 0)
        change = along[1:] != along[:-1]
        out[1:] |= change
        out[:-1] |= change
    return border


def _mean_entropy(probabilities: Float32Array, where: BoolArray) -> float | None:
    """Mean of -sum(p ln p) over some voxels; None where there is none."""
    if not where.any():
        return None
    p = np.maximum(probabilities[:, where], 1e-12)
    return float(-(p * np.log(p)).sum(axis=0).mean())
