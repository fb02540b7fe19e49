"""Quality measures in words: what a person reads in place of a column name."""

from __future__ import annotations

from typing import Final

from epvs_cohort.data.tables import counts_columns

#: Measure to its name and what it says.
_WORDS: Final[dict[str, tuple[str, str]]] = {
    "slice_thickness_mm": ("Longest voxel edge", "Small lesions are lost in thick slices."),
    "anisotropy": ("Longest over shortest voxel edge", "1 is a cube."),
    "orientation_known": ("Orientation known", "1 where the file says which side is left, else 0."),
    "sform_qform_distance": ("Two placements apart", "How far sform and qform of the header disagree."),
    "similarity_start": ("Similarity before registration", "Mutual information with the template."),
    "similarity_rigid": ("Similarity, rigid", "Mutual information with the template; low is misplaced."),
    "similarity_affine": ("Similarity, affine", "Mutual information with the template; low is misplaced."),
    "similarity_spline": ("Similarity, B-spline", "Mutual information with the template; low is misplaced."),
    "affine_scale": ("Length against the template", "Of the brain; 1 is as long as the template's."),
    "spline_used": ("B-spline used", "1 where the B-spline improved on the affine map, else 0."),
    "rigid_rotation_deg": ("Rotation to the template", "A large one may be a wrong orientation."),
    "rigid_translation_mm": ("Shift to the template", "Depends on where the scanner sets its origin."),
    "roi_atlas_dice": ("Overlap of outline and atlas", "Dice; low where the side file is of another scan."),
    "roi_atlas_distance_mm": ("Outline to atlas", "Distance between the two centres."),
    "pose_labels_distance_mm": ("Two poses apart", "Labels against elastix, where both were tried."),
    "pose_labels_turn_deg": ("Two poses, turn", "Labels against elastix, where both were tried."),
    "roi_entropy_inside": ("Unsureness inside the outline", "Mean entropy of the network that outlines."),
    "roi_entropy_border": ("Unsureness at the border", "Mean entropy of the network that outlines."),
    "roi_volume_left_mm3": ("Volume of the region, left", "Caudate, putamen, pallidum and accumbens."),
    "roi_volume_right_mm3": ("Volume of the region, right", "Caudate, putamen, pallidum and accumbens."),
    "roi_asymmetry": ("Asymmetry of the region", "Difference of the sides over their mean."),
    "mask_ventricle_share": ("Ventricle in the mask", "By the template's tissue classes."),
    "mask_csf_share": ("Other fluid in the mask", "By the template's tissue classes."),
    "mask_cortex_share": ("Cortex in the mask", "By the template's tissue classes."),
    "mask_bright_share": ("Bright as fluid in the mask", "A misplaced mask or severe disease."),
    "mask_negative_share": ("Below zero in the mask", "Intensities of a magnitude scan are not negative."),
    "csf_wm_ratio": ("Fluid over white matter", "Contrast; below 1 in a T1-weighted scan."),
    "roi_wm_ratio": ("Region over white matter", "Contrast."),
    "roi_snr": ("Signal to noise", "In the region; reads too high where the scanner interpolated."),
    "roi_cnr": ("Contrast to noise", "Fluid against the region."),
    "sharpness": ("Sharpness", "Steepness of edges in the region; low with motion."),
    "clip_wm_ratio": ("Clip value over white matter", "Intensities above it are trimmed."),
    "saturated_share": ("Saturated after the trim", "Share of voxels cut off at the clip value."),
    "foreground_background_ratio": ("Head over background", "Low with ghosts or wrap-around."),
    "signal_around_brain_share": ("Signal around the brain", "Low where the skull was removed."),
    "skull_stripped": ("Skull removed", "1 where it was removed before, else 0."),
    "count_minus_components": ("Count against located lesions", "How far the two numbers are apart."),
}
#: Units that a sentence does without.
_SILENT: Final = frozenset({"", "ratio", "share", "0 or 1"})
_CUT: Final = {
    "fov": ("Region cut by the scan, {}", "Share of the region that the scan does not show."),
    "box": ("Region cut by the box, {}", "Share of the region outside what the network sees."),
}


def measure_words(measure: str) -> tuple[str, str]:
    """Name and meaning of a quality measure; an unknown one is named as it is.

    >>> measure_words("roi_cut_by_fov_left")[0]
    'Region cut by the scan, left'
    >>> measure_words("of_tomorrow")
    ('of_tomorrow', '')
    """
    for where, (name, meaning) in _CUT.items():
        start = f"roi_cut_by_{where}_"
        if measure.startswith(start):
            return name.format(measure.removeprefix(start)), meaning
    return _WORDS.get(measure, (measure, ""))


def number(value: float) -> str:
    """Number as a person reads it, four digits at most.

    >>> number(5.5), number(12345.6), number(-0.00012)
    ('5.5', '12350', '−0.00012')
    """
    text = f"{value:.4g}"
    if "e" in text:
        rounded = float(text)
        text = f"{rounded:.0f}" if abs(rounded) >= 1.0 else f"{rounded:.12f}".rstrip("0")
    return text.replace("-", "−")


def unit_words(unit: str) -> str:
    """Unit as it stands behind a number; ratios and shares do without.

    >>> unit_words("mm3"), unit_words("share")
    (' mm³', '')
    """
    return "" if unit in _SILENT else f" {unit.replace('mm3', 'mm³')}"


def flag_words(measure: str, value: float, unit: str, bounds: tuple[float | None, float | None]) -> str:
    """Sentence for a measure out of bounds, with value and bound.

    >>> flag_words("slice_thickness_mm", 5.5, "mm", (None, 2.0))
    'Longest voxel edge is 5.5 mm; at most 2 mm passes'
    """
    low, high = bounds
    after = unit_words(unit)
    below = low is not None and value < low
    side, bound = ("at least", low) if below else ("at most", high)
    name = measure_words(measure)[0]
    if bound is None:
        return f"{name} is {number(value)}{after}"
    return f"{name} is {number(value)}{after}; {side} {number(bound)}{after} passes"


def column_words(regions: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Column of the table of counts to its unit and description."""
    return {column.name: (column.unit, column.description) for column in counts_columns(regions)}
