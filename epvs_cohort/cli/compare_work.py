"""What ``epvs-cohort compare`` does, in order: split, train what lacks, tune, try, write; with words on a console."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from epvs_cohort.cli.live import LiveLine, ScanLine
from epvs_cohort.cli.train import SCAN_RECIPE, TUNE_RECIPE
from epvs_cohort.cli.train_data import DataRequest, per_process, usable_data
from epvs_cohort.errors import UsageError
from epvs_cohort.protocol import Method, Protocol

# Loaded when the command is called: torch takes seconds, and its help needs none of it.
if TYPE_CHECKING:
    from epvs_cohort.cli.train_data import UsableData
    from epvs_cohort.cohort.comparison import ComparisonOrder, Points
    from epvs_cohort.cohort.comparison_models import Model
    from epvs_cohort.compare.methods.method import Network
    from epvs_cohort.train.counted import CountedOrder
    from epvs_cohort.train.loop import RunSettings
    from epvs_cohort.train.samples import Matched, Sample
    from epvs_cohort.train.test_split import ThreeParts


@dataclass(frozen=True)
class TrainingWishes:
    """How networks are trained that are not there.

    Attributes
    ----------
    recipe : str or None
        Of both; None is that of counted scans, or of going on from a bundle.
    init : tuple of str
        Bundles to start from, each for the network that it is itself.
    """

    folder: Path
    recipe: str | None
    init: tuple[str, ...]
    run: RunSettings


@dataclass(frozen=True)
class Comparing:
    """All that one comparison is asked to do."""

    request: DataRequest
    protocol: Protocol
    methods: tuple[Method, ...]
    points: Path
    split: Path | None
    models: tuple[str, ...]
    wishes: TrainingWishes

    def do(self, console: Console) -> int:
        """Do it; how many test scans could not be used."""
        from epvs_cohort.cohort.comparison import ComparisonOrder, check_weight
        from epvs_cohort.cohort.comparison_models import networks_of, ready_models, with_history, write_split
        from epvs_cohort.train.points import read_points

        folder = self.wishes.folder
        needed = networks_of(self.methods)
        ready = ready_models(folder, self.models, self.protocol)
        lacking = [network for network in needed if network not in ready]
        marked = read_points(self.points, self.protocol.count_target)
        # What cannot be trained is said now, not after hours of preparation.
        trainings = {network: self._training(network) for network in lacking}

        weighted = ready["fcn"].bundle if "fcn" in ready else None
        if "fcn" in trainings:
            weighted = trainings["fcn"].init

        def split(samples: Sequence[Sample], matched: Matched) -> ThreeParts:
            parts = self._parts(samples, matched, marked)
            _check_parts(parts, training=bool(lacking))
            check_weight(self.methods, weighted, parts.validation, marked)
            with_history(folder, ready, parts, training=bool(lacking))
            return parts

        def possible(matched: Matched) -> None:
            split(matched.samples, matched)

        usable = usable_data(self.request, self.wishes.run.out, self.protocol, console, possible)
        parts = split(usable.samples, usable.matched)
        notes = self._notes(parts, usable)
        for note in notes:
            console.print(Text(note))
        models = dict(with_history(folder, ready, parts, training=bool(lacking)))
        for network, training in trainings.items():
            write_split(folder, network, parts)
            # On a card sentences are joined by semicolons.
            said = (usable.words, *(note.removesuffix(".") for note in notes))
            models[network] = self._train(training, parts, said, console)
        order = ComparisonOrder(
            self.methods,
            {network: models[network] for network in needed},
            parts,
            marked,
            self.protocol,
            self.request.n_procs or per_process(),
            self.wishes.run.device,
        )
        return self._measure(order, notes, console) + len(usable.unusable)

    def _training(self, network: Network) -> CountedOrder:
        from epvs_cohort.cohort.comparison_models import recipe_for, run_in
        from epvs_cohort.compare.methods.method import network_of
        from epvs_cohort.model.bundle import load_bundle
        from epvs_cohort.train.counted import CountedOrder, check_order
        from epvs_cohort.train.recipe import ScanRecipe, load_recipe
        from epvs_cohort.train.samples import Split

        starts = [
            bundle for bundle in map(load_bundle, self.wishes.init) if network_of(bundle.card) == network
        ]
        if len(starts) > 1:
            raise UsageError("--init: two bundles of the same network; one of each is legal")
        init = starts[0] if starts else None
        name = self.wishes.recipe or (SCAN_RECIPE if init is None else TUNE_RECIPE)
        recipe = load_recipe(name)
        if not isinstance(recipe, ScanRecipe):
            raise UsageError(
                f"--recipe {name}: does not train on counted scans",
                hint="train by it with epvs-cohort train, and name the bundle by --model",
            )
        run = run_in(self.wishes.folder, network, self.wishes.run)
        points = self.points if network == "fcn" else None
        order = CountedOrder(
            Split((), ()), recipe_for(network, recipe, init), self.protocol, run, init, points
        )
        check_order(order)
        return order

    def _parts(self, samples: Sequence[Sample], matched: Matched, marked: Points) -> ThreeParts:
        """Split, without the test scans whose lesions are not marked."""
        from epvs_cohort.cohort.comparison import lesions_of
        from epvs_cohort.train.test_split import three_by_subject, three_from_file

        known = {each.key for each in samples if lesions_of(each, marked) is not None}
        if self.split is None:
            parts = three_by_subject(samples, known, self.wishes.run.seed)
        else:
            parts = three_from_file(samples, self.split, matched.known)
        return replace(parts, test=tuple(sample for sample in parts.test if sample.key in known))

    def _notes(self, parts: ThreeParts, usable: UsableData) -> tuple[str, ...]:
        """How the scans are split and what is left out, in sentences."""
        from epvs_cohort.train.samples import named

        how = (
            f"by subject (seed {self.wishes.run.seed})"
            if self.split is None
            else f"as {self.split.name} says"
        )
        sides = ", ".join(
            f"{len(samples)} scans of {len({each.subject for each in samples})} subjects {what}"
            for what, samples in (
                ("to train", parts.training), ("to tune", parts.validation), ("to test", parts.test),
            )
        )  # fmt: skip
        notes = [f"Split {how}: {sides}."]
        unmarked = [each.key for each in usable.samples if each.key not in parts.by_key]
        if unmarked:
            notes.append(
                f"{len(unmarked)} test scans have a count and no marked lesion, and are left out: {named(unmarked)}."
            )
        unknown = sum(not sample.known for sample in usable.samples)
        if unknown:
            notes.append(
                f"The person of {unknown} scans is not known, and each is taken for a person of its own: where one "
                "person has several, the parts may share people."
            )
        return tuple(notes)

    def _train(self, order: CountedOrder, parts: ThreeParts, notes: Sequence[str], console: Console) -> Model:
        from epvs_cohort.cohort.comparison_models import Model
        from epvs_cohort.report.training import training_page
        from epvs_cohort.train.counted import train_counted
        from epvs_cohort.train.points import read_points
        from epvs_cohort.train.samples import Split

        out, points = order.run.out, order.points
        if points is not None:
            marked = read_points(points, self.protocol.count_target)
            points = points if any(each.key in marked for each in parts.validation) else None
        goes_on = ", going on from its checkpoint" if order.run.resume else ""
        console.print(Text(f"training {out} by recipe {order.recipe.name}{goes_on}"))
        split = Split(parts.training, parts.validation)
        with LiveLine(console) as line:
            bundle = train_counted(replace(order, split=split, points=points, notes=tuple(notes)), line.show)
        console.print(Text(f"page of the training: {training_page(out)}"))
        return Model(str(out), bundle, own=True)

    def _measure(self, order: ComparisonOrder, notes: tuple[str, ...], console: Console) -> int:
        from epvs_cohort.cohort.comparison import settle_weight, try_methods
        from epvs_cohort.compare.method_table import method_table
        from epvs_cohort.report.comparison import write_comparison
        from epvs_cohort.report.comparison_tables import Comparison, markdown
        from epvs_cohort.train.material import are_simulated

        if "f" in order.methods and not order.models["fcn"].own and order.parts.validation:
            console.print(Text("tuning the weight of method f on the validation scans"))
        weight = settle_weight(order)
        with ScanLine(console, "tried by every method") as line:
            scans, trial = try_methods(order, weight, line.show)
        table = method_table(scans, trial, seed=self.wishes.run.seed)
        done = Comparison(order, weight, trial, scans, table, are_simulated(order.parts.test), notes)
        page = write_comparison(self.wishes.run.out, done)
        print_to = Console(soft_wrap=True)
        print_to.print(Text(markdown(done)))
        print_to.print(Text(f"page of the comparison: {page}"))
        return sum(bool(scan.fault) for scan in scans)


def _check_parts(parts: ThreeParts, *, training: bool) -> None:
    from epvs_cohort.errors import CountsError
    from epvs_cohort.train.samples import Split, check_sides

    if not parts.test:
        raise CountsError(
            "no test scan with marked lesions is left; at least one is needed",
            hint="the column scan of the points holds the key, as in the table of counts",
        )
    if training:
        check_sides(Split(parts.training, parts.validation))
