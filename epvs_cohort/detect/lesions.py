"""From heatmap to lesions: components at the settled threshold, where they lie and how large they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from epvs_cohort.data.ac_slab import ac_slab, native_voxel_from_grid
from epvs_cohort.detect.forest import BoolArray, Connectivity
from epvs_cohort.detect.score import ScoreSettings, checked_heat, score_of
from epvs_cohort.detect.threshold import rounded_count, settle_threshold
from epvs_cohort.errors import PredictionError, ProtocolError, RoiError
from epvs_cohort.geometry import FloatArray, apply_affine
from epvs_cohort.protocol import CountTarget, DetectionSettings
from epvs_cohort.records import (
    LABEL_NO_REGION,
    Detection,
    Float32Array,
    Lesion,
    Prediction,
    PreparedVolume,
)

log = logging.getLogger(__name__)

#: Region of a lesion that lies in none of the mask's regions.
OTHER_REGION = "other"

_HEMISPHERES = ("left", "right")
_MOST_COMPONENTS = int(np.iinfo(np.uint16).max)


@dataclass(frozen=True)
class _Maps:
    """What lesions are measured on, all of shape (I, J, K)."""

    heat: Float32Array
    score: Float32Array
    slab: BoolArray | None


@dataclass(frozen=True)
class Component:
    """One connected component.

    Attributes
    ----------
    voxels : ndarray, shape (V, 3)
        Its voxels of the prepared grid in C order.
    peak_score : float
        Its highest score.
    """

    voxels: npt.NDArray[np.intp]
    peak_score: float


def heat_volume(volume: PreparedVolume, prediction: Prediction) -> Float32Array:
    """Heatmap M on the prepared grid, shape (I, J, K), float32; 0 outside the mask.

    Raises
    ------
    RoiError
        The mask is empty.
    PredictionError
        The heatmap is not finite or does not fit the mask.
    """
    return _placed(volume, checked_heat(volume, prediction))


def detect(
    volume: PreparedVolume,
    prediction: Prediction,
    settings: DetectionSettings,
    target: CountTarget,
    score: ScoreSettings,
) -> Detection:
    """Find the lesions of one scan.

    The components of {score >= t} are its lesions, where t is the highest threshold at which as many of them
    as the network counted are there: in the whole mask, or, for the target ``ac_slice``, touching that slice.
    They are numbered from the highest score down.

    Parameters
    ----------
    volume : PreparedVolume
    prediction : Prediction
    settings : DetectionSettings
    target : {"roi", "ac_slice"}
        What the network counts.
    score : ScoreSettings
        From `resolve_score`.

    Raises
    ------
    RoiError
        The mask is empty, or the target is ``ac_slice`` and the mask does not meet that slice.
    PredictionError
        Count or heatmap are not finite, or there are more than 65535 components.
    ProtocolError
        The settings ask for another method than ``score`` has.
    """
    if settings.method not in ("auto", score.method):
        raise ProtocolError(f"detection.method: {settings.method!r} asked for, score is {score.method!r}")
    return detect_scores(volume, prediction, score_of(volume, prediction, score), settings, target)


def detect_scores(
    volume: PreparedVolume,
    prediction: Prediction,
    scores: Float32Array,
    settings: DetectionSettings,
    target: CountTarget,
) -> Detection:
    """Find the lesions of one scan on scores of any method, as `detect` does on those of (e) and (f).

    Parameters
    ----------
    volume : PreparedVolume
    prediction : Prediction
        Its count is what is looked for; its heat is what lesions are described by.
    scores : ndarray, shape (N,), float32
        At the N voxels of the mask in C order.
    settings : DetectionSettings
        Of these the connectivity; the method is that of the scores.
    target : {"roi", "ac_slice"}

    Raises
    ------
    RoiError
        The target is ``ac_slice`` and the mask does not meet that slice.
    PredictionError
        Count, heatmap or scores are not finite or do not fit the mask, or there are more than 65535 components.
    """
    mask, slab = volume.mask, ac_slab(volume)
    touching = _needed(volume, slab) if target == "ac_slice" else None
    settled = settle_threshold(
        scores, mask, rounded_count(prediction.count), settings.connectivity, touching=touching
    )
    labels = np.zeros(mask.shape, dtype=np.uint16)
    if settled.threshold is None:
        return Detection(None, settled.how, 0, (), labels)
    maps = _Maps(heat_volume(volume, prediction), _placed(volume, scores), slab)
    above = mask & (maps.score >= np.float32(settled.threshold))
    components = connected_components(above, maps.score, settings.connectivity)
    for number, component in enumerate(components, start=1):
        labels[tuple(component.voxels.T)] = number
    lesions = _lesions(volume, components, maps)
    log.debug("%s: %d lesions at %g (%s)", volume.key, len(lesions), settled.threshold, settled.how)
    return Detection(settled.threshold, settled.how, settled.n_components, lesions, labels)


def _placed(volume: PreparedVolume, values: Float32Array) -> Float32Array:
    out = np.zeros(volume.labels.shape, dtype=np.float32)
    out[volume.mask] = values
    return out


def _needed(volume: PreparedVolume, slab: BoolArray | None) -> BoolArray:
    hint = "count_target ac_slice needs a scan that shows this slice, or ac_slice in the manifest"
    if slab is None or volume.ac is None:
        raise RoiError(f"{volume.key}: the scan has no slice through the anterior commissure", hint=hint)
    if not (slab & volume.mask).any():
        raise RoiError(f"{volume.key}: slice {volume.ac.index} does not meet the mask", hint=hint)
    return slab


def connected_components(
    above: BoolArray, score: Float32Array, connectivity: Connectivity = 26
) -> list[Component]:
    """Components by descending peak score, equal peaks by position of the first voxel.

    Parameters
    ----------
    above : ndarray, shape (I, J, K), bool
        Voxels at or above the threshold.
    score : ndarray, shape (I, J, K), float32
    connectivity : {6, 18, 26}

    Raises
    ------
    PredictionError
        There are more than 65535 components.
    """
    boxes = ndimage.find_objects(above.astype(np.uint8))
    if not boxes:
        return []
    box = boxes[0]
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    found, n_found = ndimage.label(above[box], structure)
    if n_found > _MOST_COMPONENTS:
        raise PredictionError(f"heatmap: {n_found} components found, at most {_MOST_COMPONENTS} are legal")
    voxels = np.argwhere(found)
    component_of = found[tuple(voxels.T)]
    order = np.argsort(component_of, kind="stable")
    starts = np.flatnonzero(np.diff(component_of[order])) + 1
    corner = np.array([part.start for part in box])
    parts = [part + corner for part in np.split(voxels[order], starts)]
    components = [Component(part, float(score[tuple(part.T)].max())) for part in parts]
    return sorted(components, key=lambda component: (-component.peak_score, *component.voxels[0].tolist()))


def _lesions(volume: PreparedVolume, components: list[Component], maps: _Maps) -> tuple[Lesion, ...]:
    centers = np.array([component.voxels.mean(axis=0) for component in components])
    native_mm = apply_affine(volume.native_from_grid, centers)
    native_voxels = apply_affine(native_voxel_from_grid(volume), centers)
    mni_mm = volume.mni(centers)
    voxel_mm3 = abs(float(np.linalg.det(volume.native_from_grid[:3, :3])))
    lesions = []
    for index, component in enumerate(components):
        heat = maps.heat[tuple(component.voxels.T)]
        region, hemisphere = _place(volume, component, centers[index], float(mni_mm[index, 0]))
        in_slice, ac_mm = _cross_section(volume, component, maps.slab)
        lesions.append(
            Lesion(
                number=index + 1,
                grid_voxel=_triple(centers[index]),
                native_voxel=_triple(native_voxels[index]),
                native_mm=_triple(native_mm[index]),
                mni_mm=_triple(mni_mm[index]),
                region=region,
                hemisphere=hemisphere,
                component_mm3=voxel_mm3 * len(component.voxels),
                peak_heat=float(heat.max()),
                mean_heat=float(heat.mean(dtype=np.float64)),
                in_ac_slice=in_slice,
                ac_mm=ac_mm,
            )
        )
    return tuple(lesions)


def _place(
    volume: PreparedVolume, component: Component, center: FloatArray, mni_x_mm: float
) -> tuple[str, str]:
    """Structure and hemisphere of the label at the centre, else of most voxels, else other and by MNI x."""
    label = int(volume.labels[tuple(np.floor(center + 0.5).astype(np.intp))])
    if label in (0, LABEL_NO_REGION):
        within = volume.labels[tuple(component.voxels.T)]
        within = within[(within != 0) & (within != LABEL_NO_REGION)]
        label = int(np.bincount(within).argmax()) if within.size else LABEL_NO_REGION
    side, _, structure = volume.regions.get(label, OTHER_REGION).partition(" ")
    if side in _HEMISPHERES and structure:
        return structure, side
    return volume.regions.get(label, OTHER_REGION), _HEMISPHERES[0] if mni_x_mm < 0 else _HEMISPHERES[1]


def _cross_section(
    volume: PreparedVolume, component: Component, slab: BoolArray | None
) -> tuple[bool | None, tuple[float, float, float] | None]:
    """Whether the component touches the AC slice, and the native mm centre of what lies in it."""
    if slab is None:
        return None, None
    inside = component.voxels[slab[tuple(component.voxels.T)]]
    if len(inside) == 0:
        return False, None
    return True, _triple(apply_affine(volume.native_from_grid, inside.mean(axis=0)))


def _triple(values: FloatArray) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))
