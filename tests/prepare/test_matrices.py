"""Chains of transforms are refused rather than read as their first."""

from __future__ import annotations

from pathlib import Path

import pytest

from epvs_cohort.errors import RoiError
from epvs_cohort.prepare.matrices import read_scan_from_aseg

_ITK = """#Insight Transform File V1.0
#Transform 0
Transform: AffineTransform_double_3_3
Parameters: 1 0 0 0 1 0 0 0 1 5 0 0
FixedParameters: 0 0 0
"""
_SECOND = _ITK.split("V1.0\n")[1].replace("#Transform 0", "#Transform 1")


def test_one_itk_transform_is_read_and_a_chain_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(_ITK)
    assert abs(read_scan_from_aseg(path)[0, 3]) == 5.0
    path.write_text(_ITK + _SECOND)
    with pytest.raises(RoiError, match=r"a\.txt.*chain of 2 transforms"):
        read_scan_from_aseg(path)


def test_an_lta_of_several_transforms_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.lta"
    path.write_text(
        "type = 1\nnxforms = 2\nmean = 0 0 0\nsigma = 1\n1 4 4\n" + "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    )
    with pytest.raises(RoiError, match=r"a\.lta.*several transforms \(nxforms = 2\)"):
        read_scan_from_aseg(path)
