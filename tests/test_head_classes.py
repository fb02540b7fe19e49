"""Classes of a head: their numbers fit the atlas, FreeSurfer's numbers fall into them, sides exchange."""

from __future__ import annotations

import numpy as np

from epvs_cohort.data.atlas import REGIONS
from epvs_cohort.head_classes import BASAL_GANGLIA, CLASS_NAMES, HeadClass, class_table, mirror_table
from epvs_cohort.simulate.anatomy import REGION_OF_LABEL


def test_basal_ganglia_have_the_numbers_and_names_of_the_atlas() -> None:
    assert {int(each): each.label for each in BASAL_GANGLIA} == REGIONS
    table = class_table(60)
    assert {label: int(table[label]) for label in REGION_OF_LABEL} == REGION_OF_LABEL


def test_names_are_in_the_order_of_the_numbers() -> None:
    assert [CLASS_NAMES[each] for each in HeadClass] == [each.label for each in HeadClass]
    assert len(set(CLASS_NAMES)) == len(HeadClass)


def test_freesurfer_numbers_fall_into_the_parts_they_name() -> None:
    table = class_table(600)
    wanted = {
        0: HeadClass.NOT_BRAIN, 2: HeadClass.WHITE_MATTER, 42: HeadClass.CORTEX, 43: HeadClass.LATERAL_VENTRICLES,
        14: HeadClass.THIRD_VENTRICLE, 24: HeadClass.CSF, 10: HeadClass.LEFT_THALAMUS, 49: HeadClass.RIGHT_THALAMUS,
        17: HeadClass.REST_OF_BRAIN, 8: HeadClass.REST_OF_BRAIN, 163: HeadClass.LATERAL_VENTRICLES,
        507: HeadClass.NOT_BRAIN, 530: HeadClass.NOT_BRAIN,
    }  # fmt: skip
    assert {number: HeadClass(int(table[number])) for number in wanted} == wanted


def test_a_short_table_is_the_beginning_of_a_long_one() -> None:
    np.testing.assert_array_equal(class_table(40), class_table(600)[:41])


def test_mirroring_twice_changes_nothing_and_once_only_the_side() -> None:
    table = mirror_table()
    np.testing.assert_array_equal(table[table], np.arange(len(HeadClass)))
    for each in HeadClass:
        other = HeadClass(int(table[each])).label
        assert other == each.label.replace("left", "#").replace("right", "left").replace("#", "right")
