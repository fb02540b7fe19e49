"""Count a cohort the way a good laboratory would program the paper: one scan after another, with the usual libraries.

Run as ``python benchmarks/lab_script.py scans.csv OUT``; the table has the columns scan, path and, where somebody
drew one, mask. It is what `against_lab.py` measures the program against, so it is written to be right and reasonably
quick, and nothing is made slow on purpose: both cores where a library uses them (elastix, torch), the atlas carried at
the template's resolution, one network kept in memory. Of this project it takes the template, the atlas and the trained
network, and otherwise only what the paper says: elastix rigid with its default parameters at full resolution; the
atlas carried by elastix's default affine and B-spline; the whole head resampled to MNI; the mask dilated and smoothed;
float32; the threshold found by bisection over ``scipy.ndimage.label``. It has no quality control, cannot be stopped
and gone on with, and one bad scan ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from epvs_cohort.data.atlas import load_atlas
from epvs_cohort.model.bundle import load_bundle

CORES = int(os.environ.get("LAB_CORES", "2"))
MODEL = "gp-unet-sim"
SPACING, CROP = np.array([0.49, 0.49, 0.8]), (168, 128, 84)
DILATE_MM, SIGMA, TRIM, HEADROOM = 2.0, 2.0, 0.005, 1.25
#: elastix 5 crashes where its default bending energy is reckoned by two threads; with one it takes four times as long
#: as without the penalty, so the laboratory goes without.
NO_PENALTY = {"Metric": ["AdvancedMattesMutualInformation"], "Registration": ["MultiResolutionRegistration"]}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_itk(data: np.ndarray, affine: np.ndarray) -> Any:
    """ITK image of an (I, J, K) array whose affine is in RAS mm."""
    image = itk.image_from_array(np.ascontiguousarray(data.T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(o) for o in lps[:3, 3]])
    image.SetDirection(np.ascontiguousarray(lps[:3, :3] / spacing))
    return image


def register(fixed: Any, moving: Any, mask: Any, maps: list[dict[str, list[str]]]) -> Any:
    """One elastix run with the given parameter maps; returns its transform parameters."""
    parameters = itk.ParameterObject.New()
    for each in maps:
        parameters.AddParameterMap(each | {"WriteResultImage": ["false"]})
    run = itk.ElastixRegistrationMethod.New(fixed, moving)
    run.SetFixedMask(mask)
    run.SetParameterObject(parameters)
    run.SetLogToConsole(False)
    run.SetNumberOfThreads(CORES)
    run.UpdateLargestPossibleRegion()
    return run.GetTransformParameterObject()


def plain(parameters: Any) -> dict[str, list[str]]:
    """A parameter map that does not depend on the elastix object it came from."""
    return {str(name): [str(value) for value in parameters[name]] for name in parameters}


def default_map(kind: str) -> dict[str, list[str]]:
    """elastix's default parameter map of a kind of transform, with a fixed seed so that a run can be repeated."""
    holder = itk.ParameterObject.New()
    return plain(holder.GetDefaultParameterMap(kind)) | {"RandomSeed": ["1"]}


def transformed(
    moving: Any, transform: Any, grid: tuple[tuple[int, ...], np.ndarray], order: int
) -> np.ndarray:
    """Moving image resampled on a grid (shape, affine in RAS mm) by transformix."""
    shape, affine = grid
    like = to_itk(np.zeros((1, 1, 1), dtype=np.float32), affine)
    placed = itk.ParameterObject.New()
    for number in range(transform.GetNumberOfParameterMaps()):
        each = plain(transform.GetParameterMap(number))
        each["Size"] = [str(n) for n in shape]
        each["Index"] = ["0", "0", "0"]
        each["Spacing"] = [f"{value:.17g}" for value in like.GetSpacing()]
        each["Origin"] = [f"{value:.17g}" for value in like.GetOrigin()]
        direction = np.asarray(like.GetDirection()).T.ravel()
        each["Direction"] = [f"{value:.17g}" for value in direction]
        each["FinalBSplineInterpolationOrder"] = [str(order)]
        each["ResultImagePixelType"] = ["float"]
        placed.AddParameterMap(each)
    run = itk.TransformixFilter.New(Input=moving, TransformParameterObject=placed)
    run.SetLogToConsole(False)
    run.UpdateLargestPossibleRegion()
    return itk.array_from_image(run.GetOutput()).T


def rigid_matrix(transform: Any) -> np.ndarray:
    """Map of MNI RAS mm to native RAS mm of elastix's Euler transform (turns about z last, x before, y first)."""
    values = [float(v) for v in transform.GetParameterMap(0)["TransformParameters"]]
    center = np.array([float(v) for v in transform.GetParameterMap(0)["CenterOfRotationPoint"]])
    (a, b, c), shift = values[:3], np.array(values[3:])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = rz @ rx @ ry
    matrix[:3, 3] = center + shift - matrix[:3, :3] @ center
    return LPS @ matrix @ LPS


def atlas_on(
    grid: tuple[tuple[int, ...], np.ndarray], head: np.ndarray, head_affine: np.ndarray
) -> np.ndarray:
    """Outline of the basal ganglia on a grid in MNI space, carried by affine and B-spline from the atlas."""
    atlas = load_atlas()
    # At the template's 1 mm: finer voxels hold nothing that it knows of.
    back = np.linalg.inv(head_affine) @ atlas.grid.affine
    smooth = ndimage.gaussian_filter(head, 0.4 / SPACING)
    fixed = ndimage.affine_transform(
        smooth, back[:3, :3], back[:3, 3], output_shape=atlas.grid.shape, order=1, output=np.float32
    )
    around = ndimage.binary_dilation(atlas.brain_mask, iterations=5)
    transform = register(
        to_itk(fixed, atlas.grid.affine),
        to_itk(np.asarray(atlas.template), atlas.grid.affine),
        to_itk(around.astype(np.uint8), atlas.grid.affine),
        [default_map("affine"), default_map("bspline") | NO_PENALTY],
    )
    labels = to_itk((atlas.labels > 0).astype(np.float32), atlas.grid.affine)
    return transformed(labels, transform, grid, 1) > 0.5


def head_grid() -> tuple[tuple[int, ...], np.ndarray]:
    """The whole head in MNI space at the paper's voxel size."""
    atlas = load_atlas()
    low = atlas.grid.affine[:3, 3]
    shape = np.ceil(np.array(atlas.grid.shape) * np.linalg.norm(atlas.grid.affine[:3, :3], axis=0) / SPACING)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = low
    return tuple(int(n) for n in shape), affine


def prepared(intensities: np.ndarray, roi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crop around the region, masked, trimmed and scaled, and where the mask is above one half."""
    near = ndimage.distance_transform_edt(~roi, sampling=SPACING) <= DILATE_MM
    weight = ndimage.gaussian_filter(near.astype(np.float32), SIGMA)
    masked = np.maximum(intensities, 0.0) * weight
    clip = HEADROOM * np.quantile(masked[roi & (weight > 0.5)], 1.0 - TRIM)
    return np.clip(masked / clip, 0.0, 1.0).astype(np.float32), weight > 0.5


def predicted(bundle: Any, crop: np.ndarray, mask: np.ndarray) -> tuple[float, np.ndarray]:
    """Count and heatmap in float32."""
    with torch.inference_mode():
        features = bundle.network.features(torch.from_numpy(np.ascontiguousarray(crop))[None, None])
        inside = torch.from_numpy(mask)[None, None]
        count = float(bundle.network.count((features * inside).sum(dim=(2, 3, 4)))[0])
        heat = bundle.network.heatmap(features)[0].numpy()
    return count, heat


def threshold_of(score: np.ndarray, mask: np.ndarray, wanted: int) -> float:
    """Threshold with as many components as were counted: bracketed from above, then bisected."""
    values = np.sort(score[mask])[::-1]
    inside = np.where(mask, score, -np.inf)

    def components(threshold: float) -> int:
        return int(ndimage.label(inside >= threshold, np.ones((3, 3, 3)))[1])

    high, taken = float(values[0]), 32
    while taken < len(values) and components(float(values[taken])) < wanted:
        high, taken = float(values[taken]), 2 * taken
    low = float(values[min(taken, len(values) - 1)])
    for _ in range(25):
        middle = 0.5 * (low + high)
        if components(middle) < wanted:
            high = middle
        else:
            low = middle
    return low


def lesions_of(score: np.ndarray, mask: np.ndarray, wanted: int) -> np.ndarray:
    """Centres of the lesions in voxels of the crop."""
    if wanted == 0:
        return np.zeros((0, 3))
    above = mask & (score >= threshold_of(score, mask, wanted))
    found, number = ndimage.label(above, np.ones((3, 3, 3)))
    return np.array(ndimage.center_of_mass(above, found, range(1, number + 1)))


def count_scan(path: Path, mask_path: Path | None, bundle: Any) -> tuple[float, np.ndarray, np.ndarray]:
    """Count of one scan, its lesions' centres in native RAS mm, and its pose: MNI RAS mm to native RAS mm."""
    stored, atlas = nib.load(path), load_atlas()
    scan = to_itk(np.asarray(stored.dataobj, dtype=np.float32), stored.affine)
    rigid_map = default_map("rigid")
    rigid_map["AutomaticTransformInitialization"] = ["true"]
    rigid_map["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
    transform = register(
        to_itk(np.asarray(atlas.template), atlas.grid.affine),
        scan,
        to_itk(atlas.brain_mask.astype(np.uint8), atlas.grid.affine),
        [rigid_map],
    )
    shape, affine = head_grid()
    head = transformed(scan, transform, (shape, affine), 3)
    if mask_path is None:
        roi = atlas_on((shape, affine), head, affine)
    else:
        mask = nib.load(mask_path)
        drawn = to_itk((np.asarray(mask.dataobj) > 0).astype(np.float32), mask.affine)
        roi = transformed(drawn, transform, (shape, affine), 1) > 0.5
    box = np.array([[s.start, s.stop] for s in ndimage.find_objects(roi.astype(np.uint8))[0]])
    start = np.clip(np.rint(box.mean(axis=1) - np.array(CROP) / 2).astype(int), 0, np.array(shape) - CROP)
    inner = tuple(slice(a, a + n) for a, n in zip(start, CROP, strict=True))
    crop, mask = prepared(head[inner], roi[inner])
    count, heat = predicted(bundle, crop, mask)
    score = heat / bundle.card.heat_scale + bundle.card.score_weight * crop
    centers = lesions_of(score, mask, max(0, int(np.floor(count + 0.5))))
    mni_mm = (centers + start) @ affine[:3, :3].T + affine[:3, 3]
    native = rigid_matrix(transform)
    return count, mni_mm @ native[:3, :3].T + native[:3, 3], native


def main(arguments: list[str]) -> int:
    """Count the table's scans one by one."""
    table, out = pd.read_csv(arguments[0]), Path(arguments[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(CORES)
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(CORES)
    bundle = load_bundle(MODEL)
    counts, lesions, poses = [], [], {}
    for row in table.itertuples():
        began = time.perf_counter()
        mask = getattr(row, "mask", None)
        count, centers, pose = count_scan(
            Path(row.path), Path(mask) if isinstance(mask, str) else None, bundle
        )
        poses[str(row.scan)] = pose.tolist()
        counts.append({"scan": row.scan, "count": count, "seconds": time.perf_counter() - began})
        lesions += [dict(zip(("scan", "x_mm", "y_mm", "z_mm"), (row.scan, *c), strict=True)) for c in centers]
        print(f"{row.scan}: {count:.2f} in {counts[-1]['seconds']:.0f} s", flush=True)
    pd.DataFrame(counts).to_csv(out / "counts.csv", index=False)
    pd.DataFrame(lesions, columns=["scan", "x_mm", "y_mm", "z_mm"]).to_csv(out / "lesions.csv", index=False)
    (out / "poses.json").write_text(json.dumps(poses))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
