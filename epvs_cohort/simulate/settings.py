"""Every named setting that simulated images depend on, for the record beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from epvs_cohort.errors import ConfigError
from epvs_cohort.protocol import digest
from epvs_cohort.simulate import anatomy, heads, lesions, mimics, prepared, render, scanner, tissue, warp
from epvs_cohort.simulate.placement import placement_settings


def image_settings() -> dict[str, object]:
    """Distributions and constants of heads, lesions, mimics and scanners, voxel size and people apart."""
    return {
        "count": asdict(lesions.DEFAULT_COUNT),
        "lesion_shape": asdict(lesions.LesionShape()),
        "lesion_sub_mm": lesions.SUB_MM,
        "placement": placement_settings(),
        "placing_grid": [list(heads.PLACING_SHAPE), list(heads.PLACING_MM)],
        "contrast": {**tissue.contrast_settings(), "bias_mm": scanner.BIAS_MM},
        "scanner": asdict(scanner.ScannerRanges()),
        "mimics": {
            "rates": asdict(mimics.MimicRates()),
            "shapes": asdict(mimics.SHAPES),
            "deep_specks": mimics.DEEP_SPECKS,
            "soft_mm": mimics.SOFT_MM,
        },
        "head_shape": asdict(warp.ShapeVariation()),
        "ventricle_growth": {"mm": list(warp.VENTRICLES_MM), "reach_mm": warp.VENTRICLE_REACH_MM},
        "warp_node_mm": warp.NODE_MM,
        "labels": _label_settings(),
        "rendering": _rendering(),
        "outline_error": asdict(prepared.ROI_ERROR),
        "residual": [prepared.RESIDUAL_DEG, prepared.RESIDUAL_MM],
        "ventricle_growth_of_training": list(prepared.GROWTH),
    }


def images_id() -> str:
    """Hash of `image_settings`: quoted with every figure, so that none is of an easier cohort than it says."""
    return digest(image_settings())


def file_hashes(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file by its name.

    Raises
    ------
    ConfigError
        One cannot be read.
    """
    hashes = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(f"{path}: not a readable label map: {error.strerror or error}") from error
    return hashes


def _label_settings() -> dict[str, object]:
    return {
        "detail_mm": anatomy.DETAIL_MM,
        "detail_smooth_mm": anatomy.DETAIL_SMOOTH_MM,
        "detail_margin_mm": anatomy.DETAIL_MARGIN_MM,
        "capsule_reach_mm": anatomy.CAPSULE_REACH_MM,
        "capsule_share": anatomy.CAPSULE_SHARE,
        "parcels": [list(row) for row in anatomy.PARCELS],
    }


def _rendering() -> dict[str, object]:
    return {
        "head_blur_voxels": render.HEAD_BLUR,
        "detail_blur_voxels": prepared.DETAIL_BLUR,
        "shading_blur_voxels": prepared.SHADING_BLUR,
        "lattice_mm": render.LATTICE_MM,
        "sub_mm": render.SUB_MM,
        "fine_sub_mm": render.FINE_SUB_MM,
        "box_half_mm": list(render.BOX_HALF_MM),
        "fade_mm": render.FADE_MM,
        "view_center_mm": list(heads.VIEW_CENTER_MM),
        "view_shift_mm": heads.VIEW_SHIFT_MM,
    }
