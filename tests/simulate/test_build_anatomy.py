"""The script that builds the bundled head: shells around a brain, deterministic bytes of what is shipped."""

from __future__ import annotations

import numpy as np

from epvs_cohort.data.build_anatomy import BONE, MARROW, SKIN, SOFT, head_labels, without_specks
from epvs_cohort.simulate.anatomy import BUNDLED_ANATOMY
from epvs_cohort.simulate.tissue import Tissue, tissue_of


def test_shells_follow_one_another_from_the_brain_outwards() -> None:
    brain = np.zeros((90, 90, 90), dtype=np.uint8)
    index = np.moveaxis(np.indices(brain.shape), 0, -1)
    brain[np.linalg.norm(index - 45, axis=-1) <= 22] = 2
    affine = np.eye(4)
    affine[:3, 3] = (-45.0, -45.0, 100.0)
    labels = head_labels(brain, affine)
    ray = labels[45, 45, 45:].tolist()
    order = [label for n, label in enumerate(ray) if n == 0 or label != ray[n - 1]]
    assert order == [2, 24, BONE, MARROW, BONE, SOFT, SKIN, 0]
    np.testing.assert_array_equal(labels[brain > 0], 2)


def test_shell_numbers_are_known_tissues() -> None:
    numbers = np.array([BONE, MARROW, SOFT, SKIN], dtype=np.int16)
    assert tissue_of(numbers).tolist() == [Tissue.BONE, Tissue.MARROW, Tissue.SOFT, Tissue.SKIN]


def test_lone_pieces_of_grey_matter_go() -> None:
    grey = np.zeros((40, 40, 40), dtype=bool)
    grey[2:18, 2:18, 2:18] = True
    grey[30:33, 30:33, 30:33] = True
    kept = without_specks(grey)
    assert kept[5:15, 5:15, 5:15].all()
    assert not kept[30:33, 30:33, 30:33].any()


def test_shipped_head_is_small_and_carries_no_time_stamp() -> None:
    head = BUNDLED_ANATOMY.read_bytes()
    assert len(head) < 1_000_000
    assert head[4:8] == b"\0\0\0\0"
