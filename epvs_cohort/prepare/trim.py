"""Trimming of the highest intensities and rescaling to [0, 1] (paper, Sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epvs_cohort.errors import UnsuitableImageError
from epvs_cohort.prepare.mask import SoftMask
from epvs_cohort.protocol import TrimSettings
from epvs_cohort.records import Float32Array


@dataclass(frozen=True)
class Trimmed:
    """Prepared intensities and what the trim did.

    Attributes
    ----------
    intensities : ndarray, shape (I, J, K), float32
        In [0, 1], 0 where the weight of the mask is 0.
    clip_value : float
        Native intensity that became 1.
    saturated_share : float
        Share of the mask that was clipped.
    """

    intensities: Float32Array
    clip_value: float
    saturated_share: float


def trim(values: Float32Array, mask: SoftMask, settings: TrimSettings) -> Trimmed:
    """Multiply by the mask, clip the highest intensities, divide by the clip value.

    The paper trims the highest 1 % and does not say of what; ``settings.over`` says: the whole masked crop (the
    literal reading), the mask, or the undilated outline.

    Parameters
    ----------
    values : ndarray, shape (I, J, K), float32
        Resampled native intensities.
    mask : SoftMask
        Weight and region labels on the same grid.
    settings : TrimSettings
        Over what, which fraction, and how much headroom.

    Returns
    -------
    Trimmed

    Raises
    ------
    UnsuitableImageError
        There is no positive intensity to scale by.
    """
    # Overshoot of the spline and noise around zero may be negative; the network's range starts at 0.
    masked = np.maximum(values, 0.0) * mask.weight
    if settings.over == "crop":
        sample = masked.ravel()
    elif settings.over == "mask":
        sample = masked[mask.labels > 0]
    else:
        sample = masked[mask.region]
    clip_value = settings.headroom * _upper_quantile(sample, settings.fraction) if sample.size else 0.0
    if not clip_value > 0.0:
        raise UnsuitableImageError(
            f"the {1.0 - settings.fraction:.4g} quantile of the intensities over the {settings.over} is "
            f"{clip_value:.4g}; it must be above 0",
            hint="the scan may hold no signal in the basal ganglia, or be standardised to negative values",
        )
    in_mask = mask.labels > 0
    saturated = float(np.mean(masked[in_mask] >= clip_value)) if in_mask.any() else 0.0
    np.minimum(masked, np.float32(clip_value), out=masked)
    masked /= np.float32(clip_value)
    np.clip(masked, 0.0, 1.0, out=masked)
    return Trimmed(masked, clip_value, saturated)


def _upper_quantile(sample: Float32Array, fraction: float) -> float:
    # The order statistic itself: interpolation between two would promote 1.8 million values to float64.
    rank = min(int(np.ceil((1.0 - fraction) * sample.size)), sample.size) - 1
    return float(np.partition(sample, max(rank, 0))[max(rank, 0)])
