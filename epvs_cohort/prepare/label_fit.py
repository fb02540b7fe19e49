"""Where a segmented head lies: maps of MNI152 to a scan that bring the atlas's labels onto those found in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.errors import RoiError
from epvs_cohort.geometry import FloatArray, apply_affine, spacing_of
from epvs_cohort.head_classes import BASAL_GANGLIA
from epvs_cohort.records import Float32Array, HeadSegmentation

#: A structure of less than this, in mL, is not a place to hold on to; an accumbens measures 0.4 to 0.9 mL.
LEAST_STRUCTURE_ML: Final = 0.15
#: Structures that must be found, and on both sides: fewer do not settle a pose.
LEAST_STRUCTURES: Final = 4
#: Points of the atlas that are compared: so far around each structure, and so far apart, in mm.
_MARGIN_MM: Final = 5
_STEP_MM: Final = 3
#: Blur of the structures in mm, as standard deviation: wide first, so that the pull is felt from afar.
_BLURS_MM: Final = (3.0, 1.0)
#: A voxel of the segmentation blurs as a box of its width does.
_BOX_SIGMA: Final = 12.0**-0.5
_MOST_STEPS: Final = 15
#: Voxels of the scan so far around its basal ganglia are looked at.
_NEAR_MM: Final = 16.0


@dataclass(frozen=True)
class LabelFit:
    """Maps of MNI RAS mm to native RAS mm, (4, 4), and how well the labels agree under them.

    Attributes
    ----------
    similarity : ndarray, shape (4, 4)
        Turn, shift and one scale.
    affine : ndarray, shape (4, 4)
    dice : float
        Of the atlas's and the found basal ganglia, as one region, under the affine.
    """

    similarity: FloatArray
    affine: FloatArray
    dice: float


def fit_labels(head: HeadSegmentation, atlas: Atlas) -> LabelFit:
    """Fit the atlas's regions to a segmentation: a similarity of their centres, then an affine of their shapes.

    The affine A is the least-squares fit of soft labels, the sum over regions l and points x near them of
    (p_l(A x) - a_l(x))^2, by Levenberg's and Marquardt's steps, from blurred to fine.

    Parameters
    ----------
    head : HeadSegmentation
        Classes 1 to 8 are the atlas's regions.
    atlas : Atlas

    Returns
    -------
    LabelFit

    Raises
    ------
    RoiError
        Too few of the regions were found to tell how the head lies.
    """
    found = _centers(head, atlas)
    regions = _regions(atlas)
    similarity = similarity_of(
        np.array([regions[label].center_mm for label in found]), np.array(list(found.values()))
    )
    affine, near = similarity, _near(head)
    for blur_mm in _BLURS_MM:
        pairs = [_pair(regions[label], near, label, blur_mm) for label in found]
        affine = _fitted(affine, pairs, near.affine)
    return LabelFit(similarity, affine, _dice(affine, near, regions))


def _centers(head: HeadSegmentation, atlas: Atlas) -> dict[int, FloatArray]:
    """Centres of the regions that were found, native RAS mm."""
    voxel_ml = float(np.prod(head.grid.spacing_mm)) / 1000.0
    found: dict[int, FloatArray] = {}
    for label in atlas.regions:
        voxels = np.argwhere(head.labels == label)
        if len(voxels) * voxel_ml >= LEAST_STRUCTURE_ML:
            weights = head.probabilities[label][tuple(voxels.T)].astype(np.float64)
            found[label] = apply_affine(head.grid.affine, np.average(voxels, axis=0, weights=weights))
    sides = {atlas.regions[label].split(" ", 1)[0] for label in found}
    if len(found) < LEAST_STRUCTURES or len(sides) < 2:
        names = ", ".join(atlas.regions[label] for label in found) or "none"
        raise RoiError(
            f"of the {len(atlas.regions)} structures of the basal ganglia the network found {len(found)} ({names}); "
            f"legal are at least {LEAST_STRUCTURES}, on both sides",
            hint="the image may show no head, or not this part of it; look at it",
        )
    return found


def similarity_of(source: FloatArray, target: FloatArray) -> FloatArray:
    """Turn, shift and scale that bring points onto others with the least squared error (Umeyama 1991, Eq. 40 to 42).

    Parameters
    ----------
    source, target : ndarray, shape (N, 3)
        Pairs of points, not all on one line.

    Returns
    -------
    ndarray, shape (4, 4)

    >>> points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> similarity_of(points, 2.0 * points + [1, 2, 3]).round(6).tolist()[0]
    [2.0, 0.0, 0.0, 1.0]
    """
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    left, values, right = np.linalg.svd(b.T @ a)
    signs = np.ones(3)
    # A reflection fits flat sets of points as well, and is no pose.
    signs[2] = np.sign(np.linalg.det(left @ right))
    out = np.eye(4)
    out[:3, :3] = (left * signs) @ right * float((values * signs).sum() / (a**2).sum())
    out[:3, 3] = target.mean(axis=0) - out[:3, :3] @ source.mean(axis=0)
    return out


@dataclass(frozen=True)
class _Region:
    """A region of the atlas, on the voxels around it.

    Attributes
    ----------
    indicator : ndarray, shape (I, J, K), float32
    affine : ndarray, shape (4, 4)
        Voxel of the indicator to MNI RAS mm.
    center_mm : ndarray, shape (3,)
        MNI RAS mm.
    """

    indicator: Float32Array
    affine: FloatArray
    center_mm: FloatArray


def _regions(atlas: Atlas) -> dict[int, _Region]:
    pad = int(np.ceil(_MARGIN_MM / min(atlas.grid.spacing_mm)))
    regions: dict[int, _Region] = {}
    for label, box in enumerate(ndimage.find_objects(atlas.labels), start=1):
        if label not in atlas.regions or box is None:
            continue
        indicator = np.pad((atlas.labels[box] == label).astype(np.float32), pad)
        affine = atlas.grid.affine.copy()
        affine[:3, 3] = apply_affine(affine, [part.start - pad for part in box])
        regions[label] = _Region(
            indicator, affine, apply_affine(affine, np.argwhere(indicator > 0).mean(axis=0))
        )
    return regions


@dataclass(frozen=True)
class _Near:
    """What lies around the basal ganglia of the scan.

    Attributes
    ----------
    probabilities : ndarray, shape (17, I, J, K), float32
    inside : ndarray, shape (I, J, K), bool
        Basal ganglia.
    affine : ndarray, shape (4, 4)
        Voxel to native RAS mm.
    """

    probabilities: Float32Array
    inside: npt.NDArray[np.bool_]
    affine: FloatArray


def _near(head: HeadSegmentation) -> _Near:
    inside = np.isin(head.labels, BASAL_GANGLIA)
    box = tuple(
        slice(max(part.start - margin, 0), part.stop + margin)
        for part, margin in zip(
            ndimage.find_objects(inside.astype(np.uint8))[0],
            np.ceil(_NEAR_MM / np.array(head.grid.spacing_mm)).astype(int),
            strict=True,
        )
    )
    affine = head.grid.affine.copy()
    affine[:3, 3] = apply_affine(affine, [part.start for part in box])
    return _Near(head.probabilities[:, *box], inside[box], affine)


@dataclass(frozen=True)
class _Pair:
    """A region of the atlas at points, and the same region in the scan with its slopes.

    Attributes
    ----------
    points : ndarray, shape (N, 3)
        MNI RAS mm.
    wanted : ndarray, shape (N,)
        The atlas's share of the region there.
    maps : ndarray, shape (4, I, J, K), float32
        Probability in the scan, and its slopes along i, j and k.
    """

    points: FloatArray
    wanted: FloatArray
    maps: Float32Array


def _pair(region: _Region, near: _Near, label: int, blur_mm: float) -> _Pair:
    own, theirs = np.array(spacing_of(region.affine)), np.array(spacing_of(near.affine))
    # Voxels of the scan are larger, which blurs too.
    sigma = np.sqrt(blur_mm**2 + (_BOX_SIGMA * theirs) ** 2)
    soft = ndimage.gaussian_filter(region.indicator, sigma / own)
    step = max(1, round(_STEP_MM / float(own.min())))
    voxels = np.stack(np.meshgrid(*(np.arange(0, n, step) for n in soft.shape), indexing="ij"), -1)
    voxels = voxels.reshape(-1, 3)
    probability = ndimage.gaussian_filter(near.probabilities[label], blur_mm / theirs)
    return _Pair(
        points=apply_affine(region.affine, voxels),
        wanted=soft[tuple(voxels.T)].astype(np.float64),
        maps=np.stack([probability, *np.gradient(probability)]).astype(np.float32),
    )


def _fitted(start: FloatArray, pairs: list[_Pair], native_from_voxel: FloatArray) -> FloatArray:
    """Affine that fits best, from a start near it."""
    # About the middle of the points, turns and shifts are nearly independent.
    middle = np.concatenate([pair.points for pair in pairs]).mean(axis=0)
    voxel_from_native = np.linalg.inv(native_from_voxel)

    def affine_of(parameters: FloatArray) -> FloatArray:
        out = np.eye(4)
        out[:3, :3] = parameters[:9].reshape(3, 3)
        out[:3, 3] = parameters[9:] - out[:3, :3] @ middle
        return out

    def looked(parameters: FloatArray) -> list[FloatArray]:
        voxel_from_mni = voxel_from_native @ affine_of(parameters)
        return [_at(pair, voxel_from_mni) for pair in pairs]

    def residuals(parameters: FloatArray) -> FloatArray:
        found = looked(parameters)
        return np.concatenate([values[0] - pair.wanted for values, pair in zip(found, pairs, strict=True)])

    def slopes(parameters: FloatArray) -> FloatArray:
        rows = []
        for values, pair in zip(looked(parameters), pairs, strict=True):
            along = values[1:].T @ voxel_from_native[:3, :3]
            turned = along[:, :, None] * (pair.points - middle)[:, None, :]
            rows.append(np.concatenate([turned.reshape(-1, 9), along], axis=1))
        return np.concatenate(rows)

    first = np.concatenate([start[:3, :3].reshape(-1), apply_affine(start, middle)])
    solved = optimize.least_squares(
        residuals, first, jac=slopes, method="lm", x_scale="jac", max_nfev=_MOST_STEPS
    )
    return affine_of(solved.x)


def _at(pair: _Pair, voxel_from_mni: FloatArray) -> FloatArray:
    """Probability and slopes at the points, shape (4, N); 0 beyond the grid."""
    index = apply_affine(voxel_from_mni, pair.points).T
    return np.stack([ndimage.map_coordinates(each, index, order=1, output=np.float64) for each in pair.maps])


def _dice(native_from_mni: FloatArray, near: _Near, regions: dict[int, _Region]) -> float:
    """Dice of the basal ganglia of the atlas and of the scan, on the scan's voxels."""
    theirs = np.zeros(near.inside.shape, dtype=np.float32)
    for region in regions.values():
        region_from_voxel = np.linalg.inv(native_from_mni @ region.affine) @ near.affine
        theirs += ndimage.affine_transform(
            region.indicator,
            region_from_voxel[:3, :3],
            region_from_voxel[:3, 3],
            output_shape=near.inside.shape,
            order=1,
        )
    other = theirs > 0.5
    total = int(near.inside.sum()) + int(other.sum())
    return 2.0 * int((near.inside & other).sum()) / total if total else 0.0
