"""What a network was trained with, and what is known of simulated scans: from how many people, how difficult."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from epvs_cohort.data.manifest import read_table
from epvs_cohort.data.store import PreparedStore
from epvs_cohort.errors import ConfigError, ManifestError
from epvs_cohort.model.bundle import Bundle
from epvs_cohort.protocol import Protocol
from epvs_cohort.records import PreparedVolume
from epvs_cohort.simulate.bids import SIMULATION_FILE, STATEMENT
from epvs_cohort.train.recipe import ScanRecipe
from epvs_cohort.train.samples import Sample, Split


@dataclass(frozen=True)
class Material:
    """What a network was trained with.

    Attributes
    ----------
    split : Split
    recipe : ScanRecipe
    protocol : Protocol
    init : Bundle or None
        That it started from.
    notes : tuple of str
        Sentences about the scans.
    """

    split: Split
    recipe: ScanRecipe
    protocol: Protocol
    init: Bundle | None
    notes: tuple[str, ...]

    @property
    def began_simulated(self) -> bool:
        """Whether the model that it started from had learned from simulated scans."""
        return self.init is not None and "simulated" in self.init.card.trained_on

    @cached_property
    def simulated(self) -> bool:
        """Whether the scans say so, in their notes or by the simulator's file beside them."""
        return any("simulated" in note.lower() for note in self.notes) or are_simulated(
            (*self.split.training, *self.split.validation)
        )

    @cached_property
    def difficulty(self) -> tuple[str, ...]:
        """Hashes of the simulator's settings that the scans were drawn with, where their data sets tell."""
        found = {str(description.get("images_id", "")) for description in self._descriptions}
        return tuple(sorted(found - {""}))

    def maps(self, samples: Sequence[Sample]) -> int | None:
        """How many people's label maps simulated scans were deformed from; None where no table tells it of all."""
        tables = {place: _anatomies(place) for place in _data_sets(samples)}
        found: set[str] = set()
        for sample in samples:
            known = [
                table[sample.subject]
                for place, table in tables.items()
                if sample.folder.is_relative_to(place) and sample.subject in table
            ]
            if not known:
                return None
            found.add(known[0])
        return len(found) or None

    @cached_property
    def _descriptions(self) -> tuple[Mapping[str, Any], ...]:
        """What the simulator wrote beside the stores of the scans, or one level up."""
        places = _data_sets((*self.split.training, *self.split.validation))
        return tuple(_description(place / SIMULATION_FILE) for place in places)


def are_simulated(samples: Sequence[Sample]) -> bool:
    """Whether scans say that they are: the first of them as it was prepared, or the simulator's file beside any.

    That lies beside a prepared cohort, or at the root of the data set that native scans were prepared from.
    """
    if _data_sets(samples) or STATEMENT in stored_volume(samples[0]).notes:
        return True
    roots = {root for sample in samples for root in _native_folders(sample)}
    return any((root / SIMULATION_FILE).is_file() for root in roots)


def _native_folders(sample: Sample) -> Sequence[Path]:
    """Folders that the data set of a native scan may begin at: its own, and those of visit and subject above it."""
    made = PreparedStore(sample.folder.parent).facts(sample.key).provenance
    return tuple(Path(made.input_path).parents)[:4] if made.input_path else ()


def stored_volume(sample: Sample) -> PreparedVolume:
    """Prepared volume of a sample, from its store."""
    return PreparedStore(sample.folder.parent).load(sample.key).volume


def _description(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON as the simulator writes it: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(
            f"{path}: an object as the simulator writes it is legal, found {type(found).__name__}"
        )
    return found


def _data_sets(samples: Sequence[Sample]) -> list[Path]:
    """Folders that the simulator wrote the scans to, where it did."""
    folders = {sample.folder.parent for sample in samples}
    places = sorted({place for folder in folders for place in (folder, folder.parent)})
    return [place for place in places if (place / SIMULATION_FILE).is_file()]


def _anatomies(place: Path) -> Mapping[str, str]:
    """Label map by subject, from the simulator's table of participants; empty where that cannot be read."""
    path = place / "participants.tsv"
    if not path.is_file():
        return {}
    try:
        table = read_table(path)
    except ManifestError:
        # Nothing but words hangs on it.
        return {}
    if not {"participant_id", "anatomy"} <= set(table.columns):
        return {}
    subjects = (name.removeprefix("sub-") for name in table.column("participant_id"))
    return dict(zip(subjects, table.column("anatomy"), strict=True))
