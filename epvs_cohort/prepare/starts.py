"""Where the rigid registration starts: many poses are tried cheaply by mutual information, the best are refined.

Centre of gravity alone put one real scan 2 cm off and lost one simulated head, so the start is searched:
rotations about all axes and shifts around the head's centre, first blurred on points 12 mm apart, then at 8 mm, with
the template's size as a free scale.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.atlas import Atlas
from epvs_cohort.data.shrunk import shrunk_atlas, shrunk_image
from epvs_cohort.geometry import FloatArray, apply_affine, rigid_about, spacing_of
from epvs_cohort.records import Float32Array, Image

#: Middle of the brain in MNI RAS mm: poses turn about it, so that turns and shifts are nearly independent.
PIVOT_MM = np.array([0.0, -18.0, 8.0])
#: MNI brains are larger than people's: (1.45 L / 1.89 L) ** (1 / 3).
TYPICAL_SCALE = 0.92
#: The search keeps the scale within this range; above it the template's brain grows into the skull and stays there
#: (elastix then goes on from the scale found, without bounds).
SCALE_RANGE = (0.8, 0.98)
#: Turns tried, in degrees: about x (nodding, the widest), y and z, together below ``LARGEST_TURN``.
TURNS_X = (-60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0)
TURNS_YZ = (-40.0, -20.0, 0.0, 20.0, 40.0)
LARGEST_TURN = 62.0
#: Shifts tried, in mm along x, y and z of the scan, around the centre of the head.
SHIFTS_X = (-16.0, 0.0, 16.0)
SHIFTS_Y = (-24.0, -8.0, 8.0, 24.0)
SHIFTS_Z = (-30.0, -10.0, 10.0, 30.0, 50.0)
#: Poses refined after the first look, and after that.
KEPT_FIRST, KEPT_SECOND = 120, 8
#: Poses nearer to one another than this are one pose.
ALIKE_MM, ALIKE_DEG = 22.0, 25.0
#: Skull and scalp: this far outside the brain in mm, above this z. They tell a brain from a neck.
SHELL_MM = (6.0, 20.0)
SHELL_Z_MM = -20.0

#: Points of all poses looked at in one go, so that what is made of them stays in the processor's cache.
_POINTS_AT_ONCE = 60_000

IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Start:
    """One of the best poses found.

    Attributes
    ----------
    native_from_mni : ndarray, shape (4, 4)
        Rigid map of MNI RAS mm to native RAS mm.
    native_from_sized : ndarray, shape (4, 4)
        The same with the scale.
    scale : float
        Size of this brain relative to the template's.
    """

    native_from_mni: FloatArray
    native_from_sized: FloatArray
    scale: float


@dataclass(frozen=True)
class _Look:
    """How closely scan and template are looked at."""

    spacing_mm: float
    blur_mm: float
    template_bins: int
    scan_bins: int
    shell: bool
    most_points: int


#: Blurred and with the shell around the brain, so that a pose 15 mm and 15 degrees off still feels the pull.
_FAR = _Look(spacing_mm=12.0, blur_mm=6.0, template_bins=4, scan_bins=6, shell=True, most_points=900)
#: As the later stages see it: within the brain only.
_NEAR = _Look(spacing_mm=8.0, blur_mm=3.0, template_bins=8, scan_bins=12, shell=False, most_points=4000)


@dataclass(frozen=True)
class _Problem:
    """Template points about the pivot with their bins, and the scan's bins on its coarse grid.

    The grid has a border of one voxel, whose bin is one more than the scan's last.
    """

    points: FloatArray
    bins: IntArray
    n_bins: tuple[int, int]
    scan: npt.NDArray[np.uint8]
    voxel_from_native: FloatArray


def find_starts(image: Image, atlas: Atlas) -> tuple[Start, ...]:
    """Search the pose of a scan; the best first.

    Where tissues differ little, several poses look alike from here: the next stage must be able to try them all.

    Parameters
    ----------
    image : Image
        Whole head, stripped, defaced or cropped; any orientation within 60 degrees of its header's.
    atlas : Atlas
        Template and brain mask.

    Returns
    -------
    tuple of Start
        At least one, at most ``KEPT_SECOND``.
    """
    far, center = _problem(image, atlas, _FAR)
    poses = _first_poses(center)
    scores = _scores(far, poses)
    poses, scores = _best(poses, scores, KEPT_FIRST)
    poses, scores = _climbed(far, poses, np.array([10.0] * 6 + [0.03]), rounds=9)
    near, _ = _problem(image, atlas, _NEAR)
    # The shell guides from afar but has false maxima, half out of the head: the brain alone chooses among survivors.
    poses, scores = _best(poses, _scores(near, poses), KEPT_SECOND)
    poses, scores = _climbed(near, poses, np.array([5.0] * 3 + [4.0] * 3 + [0.02]), rounds=16)
    poses, _ = _best(poses, scores, KEPT_SECOND)
    return tuple(_start(pose) for pose in poses)


def start_of(native_from_sized: FloatArray) -> Start:
    """A start from a known similarity map of MNI RAS mm to native RAS mm, (4, 4)."""
    scale = float(np.cbrt(np.linalg.det(native_from_sized[:3, :3])))
    rigid = native_from_sized.copy()
    rigid[:3, :3] /= scale
    rigid[:3, 3] = apply_affine(native_from_sized, PIVOT_MM) - rigid[:3, :3] @ PIVOT_MM
    return Start(rigid, native_from_sized, scale)


def _start(pose: FloatArray) -> Start:
    rigid = _rigid(pose)
    sized = rigid.copy()
    sized[:3, :3] *= pose[6]
    sized[:3, 3] += rigid[:3, :3] @ PIVOT_MM - sized[:3, :3] @ PIVOT_MM
    return Start(rigid, sized, float(pose[6]))


def _best(poses: FloatArray, scores: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Best poses that differ from one another: a wide false maximum must not crowd out the true one."""
    left = scores.copy()
    kept: list[int] = []
    while len(kept) < count and np.isfinite(left).any():
        kept.append(int(np.argmax(left)))
        apart = (poses - poses[kept[-1]])[:, :6] / np.repeat((ALIKE_MM, ALIKE_DEG), 3)
        left[np.linalg.norm(apart, axis=1) < 1.0] = -np.inf
    return poses[kept], scores[kept]


def _problem(image: Image, atlas: Atlas, look: _Look) -> tuple[_Problem, FloatArray]:
    points, bins = _template_points(atlas, look)
    scan, affine = shrunk_image(image, look.spacing_mm)
    scan = ndimage.gaussian_filter(scan, look.blur_mm / np.array(spacing_of(affine)))
    problem = _Problem(
        points - PIVOT_MM,
        bins,
        (look.template_bins + look.shell, look.scan_bins),
        np.pad(_binned(scan, look.scan_bins), 1, constant_values=look.scan_bins).astype(np.uint8),
        np.asarray(np.linalg.inv(affine), dtype=np.float64),
    )
    return problem, _head_center(scan, affine)


def _template_points(atlas: Atlas, look: _Look) -> tuple[FloatArray, IntArray]:
    """MNI mm and bins of the template's points; the shell around the brain has the last bin."""
    template, inside, affine = shrunk_atlas(atlas, look.spacing_mm)
    spacing = float(spacing_of(affine)[0])
    pad = int(np.ceil(SHELL_MM[1] / spacing)) + 1
    brain = np.asarray(np.pad(inside, pad) > 0.5, dtype=np.bool_)
    template = ndimage.gaussian_filter(np.pad(template, pad), look.blur_mm / spacing)
    voxels = np.argwhere(brain)
    values = template[brain]
    edges = np.quantile(values, np.linspace(0, 1, look.template_bins + 1)[1:-1])
    bins = np.searchsorted(edges, values)
    if look.shell:
        outside = ndimage.distance_transform_edt(~brain, sampling=spacing)
        shell = np.argwhere((outside > SHELL_MM[0]) & (outside < SHELL_MM[1]))
        voxels = np.concatenate([voxels, shell])
        bins = np.concatenate([bins, np.full(len(shell), look.template_bins)])
    points = apply_affine(affine, voxels - pad)
    kept = (bins < look.template_bins) | (points[:, 2] > SHELL_Z_MM)
    points, bins = points[kept], bins[kept]
    order = np.random.default_rng(0).permutation(len(points))[: look.most_points]
    return points[order], bins[order].astype(np.intp)


def _binned(scan: Float32Array, bins: int) -> IntArray:
    """Bin 0 for air, the others hold equally many voxels of the head: outliers do not matter."""
    head = _head(scan)
    edges = np.quantile(scan[head], np.linspace(0, 1, bins)[1:-1])
    return np.where(head, 1 + np.searchsorted(edges, scan), 0).astype(np.intp)


def _head(scan: Float32Array) -> npt.NDArray[np.bool_]:
    """Voxels above 0.15 of the bright end of the positive intensities; all that differ where there are none."""
    positive = scan[scan > 0]
    if positive.size == 0:
        return np.asarray(scan >= np.median(scan))
    return np.asarray(scan > 0.15 * np.percentile(positive, 98))


def _head_center(scan: Float32Array, affine: FloatArray) -> FloatArray:
    center = np.array(ndimage.center_of_mass(_head(scan).astype(np.float32)), dtype=np.float64)
    return apply_affine(affine, center)


def _first_poses(center: FloatArray) -> FloatArray:
    turns = np.array(
        [t for t in itertools.product(TURNS_X, TURNS_YZ, TURNS_YZ) if np.linalg.norm(t) < LARGEST_TURN]
    )
    shifts = np.array(list(itertools.product(SHIFTS_X, SHIFTS_Y, SHIFTS_Z))) + center
    poses = np.empty((len(shifts) * len(turns), 7))
    poses[:, :3] = np.repeat(shifts, len(turns), axis=0)
    poses[:, 3:6] = np.tile(turns, (len(shifts), 1))
    poses[:, 6] = TYPICAL_SCALE
    return poses


def _matrices(poses: FloatArray) -> FloatArray:
    """Rotation times scale, shape (n, 3, 3), of poses (shift mm, turns in degrees, scale)."""
    a, b, c = np.radians(poses[:, 3:6]).T
    zero, one = np.zeros_like(a), np.ones_like(a)
    rx = np.array([[one, zero, zero], [zero, np.cos(a), -np.sin(a)], [zero, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), zero, np.sin(b)], [zero, one, zero], [-np.sin(b), zero, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), zero], [np.sin(c), np.cos(c), zero], [zero, zero, one]])
    turned = np.moveaxis(rz, -1, 0) @ np.moveaxis(ry, -1, 0) @ np.moveaxis(rx, -1, 0)
    return np.asarray(turned * poses[:, 6, None, None], dtype=np.float64)


def _scores(problem: _Problem, poses: FloatArray) -> FloatArray:
    """Mutual information in nats of each pose, times the share of the template that lies within the scan."""
    parts = np.array_split(poses, max(1, len(poses) * len(problem.points) // _POINTS_AT_ONCE))
    counts = np.concatenate([_counts(problem, part) for part in parts])
    total = np.maximum(counts.sum((1, 2)), 1)
    joint = counts / total[:, None, None]
    independent = joint.sum(2, keepdims=True) * joint.sum(1, keepdims=True)
    ratio = np.where(joint > 0, joint / np.where(independent > 0, independent, 1.0), 1.0)
    return np.asarray((joint * np.log(ratio)).sum((1, 2)) * total / len(problem.points), dtype=np.float64)


def _counts(problem: _Problem, poses: FloatArray) -> IntArray:
    """Joint histograms of template and scan, shape (n, template bins, scan bins), of points within the scan.

    Indices are reckoned in float32: exact to 2 ** 24, and a coarse scan has far fewer voxels. Points outside fall on
    the border that `_Problem.scan` has, whose bin comes last and is not counted.
    """
    matrix = problem.voxel_from_native[:3, :3] @ _matrices(poses)
    offset = apply_affine(problem.voxel_from_native, poses[:, :3])
    flat = np.zeros((len(poses), len(problem.points)), dtype=np.float32)
    for axis, size in enumerate(problem.scan.shape):
        at = (matrix[:, axis] @ problem.points.T).astype(np.float32)
        at += offset[:, axis, None].astype(np.float32) + np.float32(1.0)
        np.rint(at, out=at)
        np.clip(at, 0, size - 1, out=at)
        flat *= np.float32(size)
        flat += at
    rows, columns = problem.n_bins
    codes = problem.scan.ravel()[flat.astype(np.int32)].astype(np.intp)
    codes += problem.bins * (columns + 1)
    codes += (np.arange(len(poses)) * (rows * (columns + 1)))[:, None]
    counts = np.bincount(codes.ravel(), minlength=len(poses) * rows * (columns + 1))
    return counts.reshape(len(poses), rows, columns + 1)[..., :columns]


def _climbed(
    problem: _Problem, poses: FloatArray, step: FloatArray, rounds: int
) -> tuple[FloatArray, FloatArray]:
    """Pattern search of all poses side by side: try both ways along each parameter, halve the steps when stuck."""
    poses = poses.copy()
    scores = _scores(problem, poses)
    steps = np.tile(step, (len(poses), 1))
    moves = np.concatenate([np.eye(7), -np.eye(7)])
    for _ in range(rounds):
        tried = poses[:, None, :] + moves * steps[:, None, :]
        tried[..., 6] = np.clip(tried[..., 6], *SCALE_RANGE)
        found = _scores(problem, tried.reshape(-1, 7)).reshape(len(poses), -1)
        best = np.argmax(found, axis=1)
        rows = np.arange(len(poses))
        better = found[rows, best] > scores
        poses[better] = tried[rows, best][better]
        scores[better] = found[rows, best][better]
        steps[~better] /= 2
    return poses, scores


def _rigid(pose: FloatArray) -> FloatArray:
    """Rigid part, shape (4, 4): the scale is left out about the pivot."""
    return rigid_about(PIVOT_MM, np.radians(pose[3:6]), pose[:3] - PIVOT_MM)
