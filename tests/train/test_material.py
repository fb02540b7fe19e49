"""What is known of the scans that a network was trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from epvs_cohort.data.store import PreparedStore
from epvs_cohort.train.material import Material, are_simulated
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.samples import Sample, Split
from tests.train.stored import PROVENANCE, protocol, save, volume

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


def test_scans_prepared_from_a_simulated_data_set_are_simulated(tmp_path: Path) -> None:
    path = tmp_path / "heads" / "sub-a" / "anat" / "sub-a_PDw.nii.gz"
    path.parent.mkdir(parents=True)
    made = replace(PROVENANCE, input_path=str(path))
    store = PreparedStore(tmp_path / "elsewhere")
    samples = (Sample("sub-a_PDw", "a", store.save(volume("sub-a_PDw"), made), 1.0, 1),)
    assert not are_simulated(samples)
    (tmp_path / "heads" / "simulation.json").write_text("{}")
    assert are_simulated(samples)
    beside = save(tmp_path / "data" / "prepared", volume("b"))
    assert not are_simulated(beside)
    (tmp_path / "data" / "simulation.json").write_text("{}")
    assert are_simulated(beside)
