"""Where a segmented head lies: maps of MNI152 to a scan that bring the atlas's labels onto those found in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.data.kept import kept
from epvs_cohort.errors import RoiError
from epvs_cohort.geometry import FloatArray, apply_affine, spacing_of
from epvs_cohort.head_classes import BASAL_GANGLIA
from epvs_cohort.records import Float32Array, HeadSegmentation

#: A structure of less than this, in mL, is not a place to hold on to; an accumbens measures 0.4 to 0.9 mL.
LEAST_STRUCTURE_ML: Final = 0.15
#: Structures that must be found, and on both sides: fewer do not settle a pose.
LEAST_STRUCTURES: Final = 4
#: Points of the atlas around each structure that are compared lie within this of it, in mm.
_MARGIN_MM: Final = 5
#: Blur of the structures in mm, as standard deviation, and how far apart points are: wide first, so that the pull is
#: felt from afar.
_ROUNDS_MM: Final = ((3.0, 4), (1.0, 3))
#: A blur of less than this part of a voxel shows nothing new.
_FINEST_BLUR: Final = 0.4
#: A voxel of the segmentation blurs as a box of its width does.
_BOX_SIGMA: Final = 12.0**-0.5
_MOST_STEPS: Final = 15
#: The fit ends where a step lessens the squared error, or changes the parameters, by less than this part.
_ENOUGH: Final = 1e-5
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
    for blur_mm, step_mm in _ROUNDS_MM:
        if blur_mm < _FINEST_BLUR * min(head.grid.spacing_mm):
            break
        affine = _fitted(affine, _problem(atlas, near, tuple(found), (blur_mm, step_mm)))
    return LabelFit(similarity, affine, _dice(affine, near, atlas))


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
    return kept(atlas, "regions", lambda: _made_regions(atlas))


def _made_regions(atlas: Atlas) -> dict[int, _Region]:
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
class _Problem:
    """Regions of the atlas at points, and the same regions in the scan.

    Attributes
    ----------
    points : ndarray, shape (N, 3)
        MNI RAS mm.
    wanted : ndarray, shape (N,)
        The share that the point's region has there in the atlas.
    place : ndarray, shape (N,)
        Which of ``maps`` is the point's.
    maps : ndarray, shape (L, I, J, K), float32
        Probability of each region in the scan.
    native_from_voxel : ndarray, shape (4, 4)
        Voxel of the maps to native RAS mm.
    """

    points: FloatArray
    wanted: FloatArray
    place: npt.NDArray[np.intp]
    maps: Float32Array
    native_from_voxel: FloatArray


def _problem(atlas: Atlas, near: _Near, labels: tuple[int, ...], look_mm: tuple[float, int]) -> _Problem:
    """What is fitted at a blur and a distance of the points, ``look_mm``."""
    blur_mm, step_mm = look_mm
    edges = np.array(spacing_of(near.affine))
    # Voxels of the scan are larger than the atlas's, which blurs too.
    sigma_mm = round(float(np.hypot(blur_mm, _BOX_SIGMA * edges.mean())), 6)

    def looked(label: int) -> tuple[FloatArray, FloatArray]:
        return _blurred_points(_regions(atlas)[label], sigma_mm, step_mm)

    points, wanted = zip(
        *(kept(atlas, (label, sigma_mm, step_mm), partial(looked, label)) for label in labels), strict=True
    )
    maps = [ndimage.gaussian_filter(near.probabilities[label], blur_mm / edges) for label in labels]
    # Nothing lies beyond the segmentation: two voxels of nothing around it have neither value nor slope.
    framed = np.pad(np.stack(maps), ((0, 0), (2, 2), (2, 2), (2, 2)))
    affine = near.affine.copy()
    affine[:3, 3] = apply_affine(affine, [-2.0, -2.0, -2.0])
    return _Problem(
        points=np.concatenate(points),
        wanted=np.concatenate(wanted),
        place=np.repeat(np.arange(len(labels)), [len(each) for each in wanted]),
        maps=framed,
        native_from_voxel=affine,
    )


def _blurred_points(region: _Region, sigma_mm: float, step_mm: int) -> tuple[FloatArray, FloatArray]:
    """Points on and around a region, MNI RAS mm, shape (N, 3), and its blurred share there, shape (N,)."""
    edges = np.array(spacing_of(region.affine))
    soft = ndimage.gaussian_filter(region.indicator, sigma_mm / edges)
    step = max(1, round(step_mm / float(edges.min())))
    voxels = np.stack(np.meshgrid(*(np.arange(0, n, step) for n in soft.shape), indexing="ij"), -1)
    voxels = voxels.reshape(-1, 3)
    return apply_affine(region.affine, voxels), soft[tuple(voxels.T)].astype(np.float64)


def _fitted(start: FloatArray, problem: _Problem) -> FloatArray:
    """Affine that fits best, from a start near it."""
    # About the middle of the points, turns and shifts are nearly independent.
    middle = problem.points.mean(axis=0)
    arms = problem.points - middle
    voxel_from_native = np.linalg.inv(problem.native_from_voxel)
    last: dict[bytes, tuple[FloatArray, FloatArray]] = {}

    def affine_of(parameters: FloatArray) -> FloatArray:
        out = np.eye(4)
        out[:3, :3] = parameters[:9].reshape(3, 3)
        out[:3, 3] = parameters[9:] - out[:3, :3] @ middle
        return out

    def looked(parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
        # Slopes are asked for where the residuals were.
        if parameters.tobytes() not in last:
            last.clear()
            last[parameters.tobytes()] = _at(problem, voxel_from_native @ affine_of(parameters))
        return last[parameters.tobytes()]

    def residuals(parameters: FloatArray) -> FloatArray:
        return looked(parameters)[0] - problem.wanted

    def slopes(parameters: FloatArray) -> FloatArray:
        along = looked(parameters)[1] @ voxel_from_native[:3, :3]
        turned = along[:, :, None] * arms[:, None, :]
        return np.concatenate([turned.reshape(-1, 9), along], axis=1)

    first = np.concatenate([start[:3, :3].reshape(-1), apply_affine(start, middle)])
    solved = optimize.least_squares(
        residuals,
        first,
        jac=slopes,
        method="lm",
        x_scale="jac",
        ftol=_ENOUGH,
        xtol=_ENOUGH,
        max_nfev=_MOST_STEPS,
    )
    return affine_of(solved.x)


def _at(problem: _Problem, voxel_from_mni: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Probability of each point's region in the scan, shape (N,), and its slope along i, j and k, shape (N, 3).

    Linear between voxels, so that both come from the same eight of them.
    """
    shape = np.array(problem.maps.shape[1:])
    index = np.clip(apply_affine(voxel_from_mni, problem.points), 0.0, shape - 1.0)
    low = np.minimum(index.astype(np.intp), shape - 2)
    part = index - low
    steps = np.array([shape[1] * shape[2], shape[2], 1])
    corners = np.sum(np.indices((2, 2, 2)) * steps[:, None, None, None], axis=0)
    flat = problem.place * int(shape.prod()) + low @ steps
    values = problem.maps.ravel()[flat[:, None, None, None] + corners].astype(np.float64)
    along_i, along_j, along_k = (np.stack([1.0 - each, each], axis=-1) for each in part.T)
    lines = values[..., 1] - values[..., 0]
    plane = np.einsum("nijk,nk->nij", values, along_k)
    found = np.einsum("nij,ni,nj->n", plane, along_i, along_j)
    slopes = (
        np.einsum("nj,nj->n", plane[:, 1] - plane[:, 0], along_j),
        np.einsum("ni,ni->n", plane[:, :, 1] - plane[:, :, 0], along_i),
        np.einsum("nij,ni,nj->n", lines, along_i, along_j),
    )
    return found, np.stack(slopes, axis=-1)


def _dice(native_from_mni: FloatArray, near: _Near, atlas: Atlas) -> float:
    """Dice of the basal ganglia of the atlas and of the scan, on the scan's voxels."""
    region = kept(atlas, "region", lambda: np.isin(atlas.labels, list(atlas.regions)).astype(np.float32))
    voxel_from_near = np.linalg.inv(native_from_mni @ atlas.grid.affine) @ near.affine
    theirs = ndimage.affine_transform(
        region, voxel_from_near[:3, :3], voxel_from_near[:3, 3], output_shape=near.inside.shape, order=1
    )
    other = theirs > 0.5
    total = int(near.inside.sum()) + int(other.sum())
    return 2.0 * int((near.inside & other).sum()) / total if total else 0.0
