"""Counts and heatmaps of prepared volumes: Eq. 2 and Eq. 3 from the same features, in one pass."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from epvs_cohort.data.ac_slab import BoolArray, ac_slab
from epvs_cohort.errors import ModelError, PredictionError
from epvs_cohort.model.bundle import Bundle
from epvs_cohort.model.network import Architecture, cells_of, pool_rows, raised_heat
from epvs_cohort.records import Float32Array, LabelArray, Prediction, PreparedVolume

_log = logging.getLogger(__name__)

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]
Box = tuple[slice, slice, slice]
Network = TypeVar("Network", bound=nn.Module)

#: Volumes of the paper's grid per GPU batch; halved as often as memory demands.
GPU_BATCH = 8


class Predictor:
    """A network on a device, ready for volumes.

    Parameters
    ----------
    bundle : Bundle
        The model.
    device : {"cpu", "cuda"}
        Where it runs.
    precision : {"float32", "bfloat16"}
        Of the convolutions; sums and heatmaps are float32 or better in each case. See `bfloat16_is_fast` for where a
        run takes bfloat16, and ``docs/speed.md`` for how far that moves counts.
    threads : int or None
        Threads of one operation, for the whole process; None leaves torch's setting.

    Raises
    ------
    ModelError
        The device is not there.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device = "cpu",
        *,
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> None:
        require_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        self._bundle = bundle
        self._model_id = bundle.model_id
        self._device = torch.device(device)
        self._half = precision == "bfloat16"
        self._network = placed_copy(bundle.network, self._device)
        self._batch = GPU_BATCH if device == "cuda" else 1

    def predict(self, volumes: Sequence[PreparedVolume]) -> list[Prediction | PredictionError]:
        """Count each volume.

        On the CPU volume by volume, so that a batch gives the bits that each volume alone gives; on a GPU in
        batches that halve where memory runs out.

        Returns
        -------
        list
            In the order of ``volumes``; a volume that cannot be counted is a `PredictionError` in its place.
        """
        results: list[Prediction | PredictionError | None] = [self._unusable(volume) for volume in volumes]
        usable = [n for n, problem in enumerate(results) if problem is None]
        while usable:
            batch, usable = usable[: self._batch], usable[self._batch :]
            for n, result in zip(batch, self._predict_batch([volumes[n] for n in batch]), strict=True):
                results[n] = result
        return [result for result in results if result is not None]

    def _unusable(self, volume: PreparedVolume) -> PredictionError | None:
        required = self._bundle.card.requires.grid.shape
        shape = volume.intensities.shape
        if shape != required or volume.labels.shape != required:
            return PredictionError(
                f"{volume.key}: prepared volume has shape {shape}, labels {volume.labels.shape}; "
                f"the model requires {required}"
            )
        if not volume.mask.any():
            return PredictionError(f"{volume.key}: the mask is empty, so there is nothing to count in")
        if self._bundle.card.architecture.pool_within == "ac_slice" and not _in_slice(volume).any():
            return PredictionError(
                f"{volume.key}: no voxel of the mask lies in a slice of the anterior commissure, "
                "and the model counts in that slice"
            )
        return None

    def _predict_batch(self, volumes: Sequence[PreparedVolume]) -> list[Prediction | PredictionError]:
        if not volumes:
            return []
        try:
            return self._run(volumes)
        except torch.OutOfMemoryError as error:
            if len(volumes) == 1:
                return [PredictionError(f"{volumes[0].key}: out of GPU memory for one volume: {error}")]
            torch.cuda.empty_cache()
            half = (len(volumes) + 1) // 2
            self._batch = half
            _log.warning("out of GPU memory with %d volumes, going on with %d", len(volumes), half)
            return self._predict_batch(volumes[:half]) + self._predict_batch(volumes[half:])

    @torch.inference_mode()
    def _run(self, volumes: Sequence[PreparedVolume]) -> list[Prediction | PredictionError]:
        boxes = [self._box(volume.labels) for volume in volumes]
        stacked = np.stack([v.intensities[box] for v, box in zip(volumes, boxes, strict=True)])[:, None]
        batch = torch.from_numpy(np.ascontiguousarray(stacked, dtype=np.float32)).to(self._device)
        batch = batch.contiguous(memory_format=torch.channels_last_3d)
        with self._autocast():
            features = self._network.features(batch)
        return [
            self._finish(volume, features[n], volume.labels[boxes[n]]) for n, volume in enumerate(volumes)
        ]

    def _box(self, labels: LabelArray) -> Box:
        if self._device.type == "cuda":
            return (slice(None), slice(None), slice(None))
        return needed_box(labels, self._bundle.card.architecture)

    def _autocast(self) -> AbstractContextManager[None]:
        if not self._half:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    def _finish(
        self, volume: PreparedVolume, features: Tensor, labels: LabelArray
    ) -> Prediction | PredictionError:
        architecture = self._bundle.card.architecture
        inside = torch.from_numpy(labels > 0).to(self._device)
        if architecture.cell > 1:
            count, found = self._of_cells(volume, features, inside)
        else:
            rows = features.permute(1, 2, 3, 0)
            in_mask = rows[inside].float()
            pooled_rows = in_mask
            if architecture.pool_within == "crop":
                pooled_rows = rows.reshape(-1, rows.shape[-1])
            elif architecture.pool_within == "ac_slice":
                pooled_rows = in_mask[torch.from_numpy(_in_slice(volume)).to(self._device)]
            count, found = self._count(pooled_rows), in_mask @ self._network.weights
        heat = found.cpu().numpy()
        if not math.isfinite(count) or not bool(np.isfinite(heat).all()):
            return PredictionError(
                f"{volume.key}: the network gave no finite count or heatmap (count {count}); "
                "the prepared volume may hold values that are not finite"
            )
        return Prediction(volume.key, count, heat.astype(np.float32, copy=False), self._model_id)

    def saliency(self, volume: PreparedVolume) -> Float32Array:
        """Size of the gradient of the count with respect to each voxel (Simonyan et al. 2014, Sec. 3).

        The count is Eq. 2 as `predict` gives it, before any rounding. In float32 whatever the precision of counting,
        for bfloat16 gives many voxels the same gradient.

        Parameters
        ----------
        volume : PreparedVolume

        Returns
        -------
        ndarray, shape (N,), float32
            |dŷ / dS| at the N voxels of the mask in C order.

        Raises
        ------
        PredictionError
            The volume cannot be counted, or memory of the GPU is too short.
        """
        if problem := self._unusable(volume):
            raise problem
        box = self._box(volume.labels)
        inside = torch.from_numpy(volume.labels[box] > 0).to(self._device)
        given = torch.from_numpy(np.ascontiguousarray(volume.intensities[box], dtype=np.float32))[None, None]
        given = given.to(self._device).contiguous(memory_format=torch.channels_last_3d).requires_grad_(True)
        try:
            with torch.enable_grad():
                count = self._network(given, self._pooled(volume, inside)[None, None]).sum()
                (gradient,) = torch.autograd.grad(count, given)
        except torch.OutOfMemoryError as error:
            raise PredictionError(f"{volume.key}: out of GPU memory for a gradient: {error}") from error
        found: Float32Array = gradient.abs()[0, 0][inside].cpu().numpy()
        return found

    def _pooled(self, volume: PreparedVolume, inside: Tensor) -> Tensor:
        """Of a box that holds the mask, the voxels that features are pooled over, as `GpUnet.forward` takes them."""
        if self._bundle.card.architecture.pool_within != "ac_slice":
            return inside
        pooled = torch.zeros_like(inside)
        pooled[inside] = torch.from_numpy(_in_slice(volume)).to(self._device)
        return pooled

    def _of_cells(self, volume: PreparedVolume, features: Tensor, inside: Tensor) -> tuple[float, Tensor]:
        """Count, and heat at the voxels of the mask, of a network whose features lie on cells."""
        network, architecture = self._network, self._bundle.card.architecture
        pooled = self._pooled(volume, inside)
        rows = features.permute(1, 2, 3, 0)[network.pooled(pooled[None, None])[0, 0]]
        cells = cells_of(inside[None, None], architecture.cell)[0, 0]
        heat = raised_heat(network.heatmap(features[None])[0], cells, architecture.cell)
        return self._count(rows.float()), heat[inside]

    def _count(self, rows: Tensor) -> float:
        pooled = pool_rows(rows, self._bundle.card.architecture.pooling)
        return float(self._network.count(pooled[None])[0])


def _in_slice(volume: PreparedVolume) -> BoolArray:
    """Of the voxels of the mask in C order, which lie in the slice of the anterior commissure."""
    slab = ac_slab(volume)
    return np.zeros(int(volume.mask.sum()), dtype=np.bool_) if slab is None else slab[volume.mask]


def needed_box(labels: LabelArray, architecture: Architecture) -> Box:
    """Smallest box of a volume that gives the features inside the mask that the whole volume gives.

    It is the mask's bounding box, grown by the receptive radius, so that its cut sides act on no feature in
    the mask, with corners at multiples of the stride, so that the 2x2x2 cells fall where they fell. Where the
    box reaches the volume's border the zero padding is the same one.

    Parameters
    ----------
    labels : ndarray, shape (I, J, K), uint8
        Each side a multiple of the stride; some voxel above zero.
    architecture : Architecture
        With ``pool_within`` ``crop`` each voxel matters, and the box is the whole volume.
    """
    if architecture.pool_within == "crop":
        return (slice(0, labels.shape[0]), slice(0, labels.shape[1]), slice(0, labels.shape[2]))
    stride, radius = architecture.stride, architecture.receptive_radius
    sides: list[slice] = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        at = np.flatnonzero((labels > 0).any(axis=others))
        low = max(0, int(at[0]) - radius) // stride * stride
        high = -(-min(labels.shape[axis], int(at[-1]) + 1 + radius) // stride) * stride
        sides.append(slice(low, high))
    return (sides[0], sides[1], sides[2])


def require_device(device: Device) -> None:
    """Check that a device is there.

    Raises
    ------
    ModelError
        It is not.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "device 'cuda': torch finds no usable GPU; legal here is 'cpu'", hint="use --device cpu"
        )


def placed_copy(network: Network, device: torch.device) -> Network:
    """A copy of a network on a device, for prediction alone; a bundle's own may serve several predictors."""
    # Module.to works in place.
    copied = copy.deepcopy(network).eval().requires_grad_(False).to(device)
    placed: Network = copied.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return placed


def best_device() -> Device:
    """``cuda`` where torch finds a usable GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def bfloat16_is_fast(device: Device) -> bool:
    """Whether convolutions in bfloat16 surely beat float32 on this device: where it has matrix units for them.

    On CPUs with AVX-512 BF16 and no AMX tiles two comparisons disagreed (slower by a fifth; twice as quick), so AMX is
    asked for.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())
