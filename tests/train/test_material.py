"""What is known of the scans that a network was trained with."""

from __future__ import annotations

from pathlib import Path

import pytest

from epvs_cohort.train.material import Material
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.samples import Sample, Split
from tests.train.stored import protocol, save, volume

PEOPLE = "participant_id\tage\tanatomy\nsub-a\t60\tone\nsub-b\t61\ttwo\nsub-c\t62\tone\n"


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Sample, ...]:
    return save(tmp_path / "data" / "prepared", *(volume(key) for key in "abc"))


def material(samples: tuple[Sample, ...]) -> Material:
    return Material(
        Split(samples[:2], samples[2:]), ScanRecipe(supervision="scans", name="plain"), protocol(), None, ()
    )


def test_label_maps_are_counted_from_the_table_of_participants(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    assert material(samples).maps(samples) is None
    (tmp_path / "data" / "simulation.json").write_text('{"images_id": "abc"}')
    (tmp_path / "data" / "participants.tsv").write_text(PEOPLE)
    known = material(samples)
    assert known.maps(samples) == 2
    assert known.maps((samples[0], samples[2])) == 1
    assert known.difficulty == ("abc",)


@pytest.mark.parametrize(
    "table", [None, "", "participant_id\tage\nsub-a\t60\n", PEOPLE.replace("sub-b", "sub-x"), "a\tb\nonly\n"]
)
def test_a_table_that_does_not_tell_of_all_tells_nothing(
    table: str | None, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    (tmp_path / "data" / "simulation.json").write_text("{}")
    if table is not None:
        (tmp_path / "data" / "participants.tsv").write_text(table)
    assert material(samples).maps(samples) is None
