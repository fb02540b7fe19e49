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
    # Placement. Without orientation left and right may be exchanged; two placements more than 1 mm apart are two scans.
    "orientation_known": (1.0, None),
    "sform_qform_distance": (None, 1.0),
    # Registration, mutual information with the template in nats, times the share of the brain in view: real scans
    # that registered well had 0.10 to 0.16 after the rigid and 0.11 to 0.33 after the affine stage; poses that were
    # 20 to 60 degrees off had 0.03 to 0.07, and one that was 25 mm off 0.089. Brains are 0.8 to 1.2 times as long as
    # the template's.
    "similarity_rigid": (0.095, None),
    "similarity_affine": (0.085, None),
    "similarity_spline": (0.11, None),
    "affine_scale": (0.75, 1.25),
    "rigid_rotation_deg": (None, 45.0),
    # Side files: an aseg or mask of another scan, or in another space, lies elsewhere than the atlas.
    "roi_atlas_dice": (0.5, None),
    "roi_atlas_distance_mm": (None, 8.0),
    # Networks that outline: in six real scans and 12 simulated heads they were unsure by at most 0.30 nats inside and
    # 0.55 at the border, and by 0.69 and 0.84 in a head whose axes were exchanged. Their labels' pose and that of the
    # registration lay at most 7 mm and 11 degrees apart, but for a scan of 7 mm slices that registered badly (12 mm).
    "roi_entropy_inside": (None, 0.45),
    "roi_entropy_border": (None, 0.65),
    "pose_labels_distance_mm": (None, 10.0),
    "pose_labels_turn_deg": (None, 15.0),
    # Outline. Caudate, putamen, pallidum and accumbens of one side measure 9 to 15 mL in 14 segmented people.
    "roi_volume_left_mm3": (6000.0, 18000.0),
    "roi_volume_right_mm3": (6000.0, 18000.0),
    # Left and right differ by at most 10 % in the same people; twice that and more is a registration that slipped,
    # or a stroke.
    "roi_asymmetry": (None, 0.25),
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
    # Trim. With headroom the clip value lies between bright grey matter and somewhat above fluid: 1.7 to 2.3 in
    # simulated scans with true outlines, 2.6 to 3.7 in real scans outlined by the atlas.
    "clip_wm_ratio": (1.0, 4.5),
    "saturated_share": (None, 0.02),
    # Surroundings. Background far below the head, or set to zero (then the measure is unknown and passes).
    "foreground_background_ratio": (5.0, None),
    # Detection: threshold by count finds as many components as were counted, but for rounding.
    "count_minus_components": (None, 1.0),
}
