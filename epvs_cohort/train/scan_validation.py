"""Counted scans that are not learned from: their counts as `model.predict` makes them, and pictures of some."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from epvs_cohort.model.network import GpUnet, pool_rows, raised_heat
from epvs_cohort.records import Float32Array
from epvs_cohort.train.figures import CountFigures, count_figures
from epvs_cohort.train.near import NearFeatures, features_near
from epvs_cohort.train.scan_steps import Shown, shown
from epvs_cohort.train.volumes import CountedVolume

#: Scans that a validation shows pictures of.
PICTURES = 4


@dataclass(frozen=True)
class HeatPicture:
    """An axial slice of a scan.

    Attributes
    ----------
    intensities, heat : ndarray, shape (I, J), float32
        Of the slice that has most of the pooled voxels; for the count of one slice that is the slice.
    """

    key: str
    intensities: Float32Array
    heat: Float32Array


@dataclass(frozen=True)
class Judged:
    """Counts of validation scans.

    Attributes
    ----------
    keys : tuple of str
    truth, estimate : tuple of float
        In the order of ``keys``.
    pictures : tuple of HeatPicture
        Of the first scans.
    """

    keys: tuple[str, ...]
    truth: tuple[float, ...]
    estimate: tuple[float, ...]
    pictures: tuple[HeatPicture, ...]

    @property
    def figures(self) -> CountFigures:
        """Agreement of estimate and truth."""
        return count_figures(self.truth, self.estimate)


@torch.inference_mode()
def judge(network: GpUnet, unit: float, volumes: Iterable[CountedVolume], *, half: bool) -> Judged:
    """Count volumes one by one with a network in training, whose counts are to be multiplied by ``unit``."""
    device = next(network.parameters()).device
    network.eval()
    keys, truth, estimate = [], [], []
    pictures: list[HeatPicture] = []
    for volume in volumes:
        given = shown(volume, device)
        intensities = given.intensities.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            near = features_near(network, intensities, network.pooled(given.mask))
        keys.append(volume.key)
        truth.append(volume.count)
        estimate.append(unit * count_of(network, near, given))
        if len(pictures) < PICTURES:
            pictures.append(_picture(network, unit, near, volume))
    return Judged(tuple(keys), tuple(truth), tuple(estimate), tuple(pictures))


def count_of(network: GpUnet, near: NearFeatures, given: Shown) -> float:
    """Eq. 2 of one volume, summed in float64."""
    rows = near.features[0].permute(1, 2, 3, 0)
    within = near.cut(network.pooled(given.mask))[0, 0]
    pooled = pool_rows(rows[within].float(), network.architecture.pooling)
    return float(network.count(pooled[None])[0])


def _picture(network: GpUnet, unit: float, near: NearFeatures, volume: CountedVolume) -> HeatPicture:
    k = int(np.argmax(volume.mask.sum(axis=(0, 1))))
    heat = np.where(volume.mask[:, :, k], _raised(network, near, volume)[:, :, k], np.float32(0.0))
    return HeatPicture(volume.key, volume.intensities[:, :, k], (heat * unit).astype(np.float32))


def _raised(network: GpUnet, near: NearFeatures, volume: CountedVolume) -> Float32Array:
    """Heat in the box of features, zero elsewhere, on the voxels of the volume, shape (I, J, K)."""
    cell = network.architecture.cell
    mask = torch.from_numpy(volume.mask)[None, None].to(near.features.device)
    cells = network.pooled(mask)[0, 0]
    heat = torch.zeros(cells.shape, device=mask.device)
    (a, b), (c, d), (e, f) = near.region
    heat[a:b, c:d, e:f] = network.heatmap(near.features)[0]
    raised: Float32Array = raised_heat(heat, cells, cell).cpu().numpy()
    return raised
