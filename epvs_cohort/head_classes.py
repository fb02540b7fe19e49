"""The classes that a network tells the parts of a head apart by, and what FreeSurfer calls them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]


class HeadClass(IntEnum):
    """Part of a head. The numbers 1 to 8 are those of ``data.atlas.REGIONS``; odd ones of paired parts are left."""

    NOT_BRAIN = 0
    LEFT_CAUDATE = 1
    RIGHT_CAUDATE = 2
    LEFT_PUTAMEN = 3
    RIGHT_PUTAMEN = 4
    LEFT_PALLIDUM = 5
    RIGHT_PALLIDUM = 6
    LEFT_ACCUMBENS = 7
    RIGHT_ACCUMBENS = 8
    LEFT_THALAMUS = 9
    RIGHT_THALAMUS = 10
    LATERAL_VENTRICLES = 11
    THIRD_VENTRICLE = 12
    CSF = 13
    CORTEX = 14
    WHITE_MATTER = 15
    REST_OF_BRAIN = 16

    @property
    def label(self) -> str:
        """The name in words.

        >>> HeadClass.LEFT_CAUDATE.label
        'left caudate'
        """
        return "CSF" if self is HeadClass.CSF else self.name.lower().replace("_", " ")


#: Names in the order of the numbers: the channels of a network.
CLASS_NAMES: Final = tuple(each.label for each in HeadClass)

BASAL_GANGLIA: Final = tuple(HeadClass(number) for number in range(1, 9))

#: Parts that come in pairs; the odd number is left, the next one right.
PAIRED: Final = tuple(HeadClass(number) for number in range(1, 11))

#: FreeSurfer numbers of each class but ``NOT_BRAIN`` and ``REST_OF_BRAIN``. Cortex is that of the cerebrum; the
#: choroid plexus lies in the ventricles, and the numbers 24 and 15 (fourth ventricle) are other fluid.
_FREESURFER: Final[Mapping[HeadClass, tuple[int, ...]]] = {
    HeadClass.LEFT_CAUDATE: (11,),
    HeadClass.RIGHT_CAUDATE: (50,),
    HeadClass.LEFT_PUTAMEN: (12,),
    HeadClass.RIGHT_PUTAMEN: (51,),
    HeadClass.LEFT_PALLIDUM: (13,),
    HeadClass.RIGHT_PALLIDUM: (52,),
    HeadClass.LEFT_ACCUMBENS: (26,),
    HeadClass.RIGHT_ACCUMBENS: (58,),
    HeadClass.LEFT_THALAMUS: (9, 10),
    HeadClass.RIGHT_THALAMUS: (48, 49),
    HeadClass.LATERAL_VENTRICLES: (4, 43, 5, 44, 31, 63, 72),
    HeadClass.THIRD_VENTRICLE: (14,),
    HeadClass.CSF: (24, 15),
    HeadClass.CORTEX: (3, 42),
    HeadClass.WHITE_MATTER: (2, 41, 25, 57, 77, 78, 79),
}

#: Highest FreeSurfer number inside the skull; parcels of cortex and white matter are to be merged before.
INTRACRANIAL_MAX: Final = 99

#: Numbers above that which are inside all the same: choroid plexus, as in the label maps of SynthSeg.
_INSIDE_ABOVE: Final[Mapping[int, HeadClass]] = {
    136: HeadClass.LATERAL_VENTRICLES,
    137: HeadClass.LATERAL_VENTRICLES,
    163: HeadClass.LATERAL_VENTRICLES,
    164: HeadClass.LATERAL_VENTRICLES,
}


def class_table(highest: int) -> ByteArray:
    """Class of each FreeSurfer number from 0 to ``highest``, shape (highest + 1,).

    >>> class_table(600)[[0, 11, 50, 16, 507]].tolist()
    [0, 1, 2, 16, 0]
    """
    table = np.full(max(highest, INTRACRANIAL_MAX) + 1, HeadClass.NOT_BRAIN, dtype=np.uint8)
    table[1 : INTRACRANIAL_MAX + 1] = HeadClass.REST_OF_BRAIN
    for each, numbers in _FREESURFER.items():
        table[list(numbers)] = each
    for number, each in _INSIDE_ABOVE.items():
        if number < table.size:
            table[number] = each
    return table[: highest + 1]


def mirror_table() -> ByteArray:
    """Class of each class when left and right are exchanged, shape (17,).

    >>> mirror_table()[:4].tolist()
    [0, 2, 1, 4]
    """
    table = np.arange(len(HeadClass), dtype=np.uint8)
    for each in PAIRED:
        table[each] = each + 1 if each % 2 else each - 1
    return table
