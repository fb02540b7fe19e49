"""Default bounds of the quality measures: (lowest, highest) that passes, None where a side is open.

A scan outside a bound is flagged with the measure's name and still counted. Where a bound comes from is said beside
it. None of them was settled on ratings of image quality by people: for a cohort, set them in the protocol.
"""

from __future__ import annotations

from typing import Final

Limits = tuple[float | None, float | None]

#: Share of the outlined region that may lie beyond one face of the scan: nothing of it was seen.
_CUT_BY_FOV: Final[Limits] = (None, 0.02)
#: Share beyond one face of the box. Basal ganglia reach 64 mm front to back where the paper's box has 62.7 mm.
_CUT_BY_BOX: Final[Limits] = (None, 0.03)

DEFAULT_LIMITS: Final[dict[str, Limits]] = {
    # Acquisition. The paper's voxel is 0.8 mm thick; a perivascular space of 1 to 3 mm is lost in a thicker slice
    # than 2 mm, and what looks like one may be a vessel cut across.
    "slice_thickness_mm": (None, 2.0),
    "anisotropy": (None, 4.0),
    # Outline. Caudate, putamen, pallidum and accumbens of one side measure 9 to 15 mL in 14 segmented people.
    "roi_volume_left_mm3": (6000.0, 18000.0),
    "roi_volume_right_mm3": (6000.0, 18000.0),
    **{f"roi_cut_by_fov_{side}": _CUT_BY_FOV for side in ("left", "right", "anterior", "posterior")},
    **{f"roi_cut_by_fov_{side}": _CUT_BY_FOV for side in ("inferior", "superior")},
    **{f"roi_cut_by_box_{side}": _CUT_BY_BOX for side in ("left", "right", "anterior", "posterior")},
    **{f"roi_cut_by_box_{side}": _CUT_BY_BOX for side in ("inferior", "superior")},
    # What else the mask holds. A mask dilated by 2 mm takes in some ventricle and insula even when it is right.
    "mask_ventricle_share": (None, 0.20),
    "mask_csf_share": (None, 0.12),
    "mask_cortex_share": (None, 0.20),
    "mask_bright_share": (None, 0.25),
    "mask_negative_share": (None, 0.01),
    # Contrast. Fluid over white matter: 1.5 (PD) to 2.7 (T2) in real scans, below 1 in a T1-weighted one.
    "csf_wm_ratio": (1.2, 5.0),
    "roi_wm_ratio": (0.5, 1.8),
    "roi_snr": (5.0, None),
    "roi_cnr": (2.0, None),
    # Trim. With headroom the clip value lies between bright grey matter and fluid.
    "clip_wm_ratio": (1.0, 3.5),
    "saturated_share": (None, 0.02),
    # Surroundings. Background far below the head, or set to zero (then the measure is unknown and passes).
    "foreground_background_ratio": (5.0, None),
    # Detection: threshold by count finds as many components as were counted, but for rounding.
    "count_minus_components": (None, 1.0),
}
