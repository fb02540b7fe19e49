"""What ``epvs-cohort compare`` does, in order: split, train what lacks, tune, try, write; with words on a console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    from epvs_cohort.cohort.comparison import ComparisonOrder
    from epvs_cohort.cohort.comparison_models import Model
    from epvs_cohort.compare.methods.method import Network
    from epvs_cohort.model.bundle import Bundle
    from epvs_cohort.model.network import Architecture
    from epvs_cohort.train.counted import CountedOrder
    from epvs_cohort.train.loop import RunSettings
    from epvs_cohort.train.points import Points
    from epvs_cohort.train.samples import Matched
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
        from epvs_cohort.cohort.comparison import ComparisonOrder
        from epvs_cohort.cohort.comparison_models import networks_of, ready_models, with_past
        from epvs_cohort.cohort.comparison_parts import Marks, Splitting, check_marks, notes_of, split_scans
        from epvs_cohort.train.points import read_points

        needed = networks_of(self.methods)
        ready = ready_models(self.wishes.folder, self.models, needed, self.protocol)
        marks = Marks(self.points, read_points(self.points, self.protocol.count_target))
        how = Splitting(self.split, self.wishes.run.seed)
        # What cannot be trained is said now, not after hours of preparation.
        trainings = self._trainings([network for network in needed if network not in ready], ready)
        plan = _Plan(self.methods, ready, trainings)

        def possible(matched: Matched) -> None:
            for note in check_marks(marks, matched):
                console.print(Text(note))
            whole = split_scans(matched, marks.points, how)
            plan.check(whole, marks.points)
            with_past(self.wishes.folder, ready, whole, training=bool(trainings))
            for training in trainings.values():
                training.check_people(whole)

        usable = usable_data(self.request, self.wishes.run.out, self.protocol, console, possible)
        whole = split_scans(usable.matched, marks.points, how)
        parts = whole.only({sample.key for sample in usable.samples})
        plan.check(parts, marks.points)
        notes = notes_of(whole, parts, usable.samples, how)
        for note in (*notes, *plan.words):
            console.print(Text(note))
        models = dict(with_past(self.wishes.folder, ready, whole, training=bool(trainings)))
        # On a card sentences are joined by semicolons.
        said = (usable.words, *(note.removesuffix(".") for note in notes))
        for network, training in trainings.items():
            models[network] = training.train(_Scans(whole, parts, marks.points, said), console)
        chosen = {network: models[network] for network in needed}
        n_procs, device = self.request.n_procs or per_process(), self.wishes.run.device
        order = ComparisonOrder(self.methods, chosen, parts, marks.points, self.protocol, n_procs, device)
        faults = self._measure(order, (*notes, *check_marks(marks, usable.matched)), console)
        return faults + len(usable.unusable)

    def _trainings(
        self, lacking: Sequence[Network], ready: Mapping[Network, Model]
    ) -> dict[Network, _Training]:
        from epvs_cohort.compare.methods.method import NETWORK_WORDS, network_of
        from epvs_cohort.model.bundle import load_bundle

        starts: dict[Network, tuple[str, Bundle]] = {}
        for name in self.wishes.init:
            bundle = load_bundle(name)
            network = network_of(bundle.card)
            if network in starts:
                raise UsageError(
                    f"--init: {starts[network][0]} and {name}: each is {NETWORK_WORDS[network]}; one of each is legal"
                )
            starts[network] = (name, bundle)
        bundles = [model.bundle for model in ready.values()] + [bundle for _, bundle in starts.values()]
        other = bundles[0].card.architecture if bundles else None
        return {network: self._training(network, starts.get(network), other) for network in lacking}

    def _training(
        self, network: Network, start: tuple[str, Bundle] | None, other: Architecture | None
    ) -> _Training:
        from epvs_cohort.cohort.comparison_models import recipe_for, run_in
        from epvs_cohort.train.counted import CountedOrder, check_order
        from epvs_cohort.train.recipe import ScanRecipe, load_recipe
        from epvs_cohort.train.samples import Split

        name, init = start or (None, None)
        chosen = self.wishes.recipe or (SCAN_RECIPE if init is None else TUNE_RECIPE)
        recipe = load_recipe(chosen)
        if not isinstance(recipe, ScanRecipe):
            raise UsageError(
                f"--recipe {chosen}: does not train on counted scans",
                hint="train by it with epvs-cohort train, and name the bundle by --model",
            )
        like = other if init is None else init.card.architecture
        if self.wishes.recipe is not None and recipe.architecture is not None:
            # A recipe that was named rules, and a bundle to start from must be of its architecture.
            like = None
        run = run_in(self.wishes.folder, network, self.wishes.run)
        points = self.points if network == "fcn" else None
        recipe = recipe_for(network, recipe, like)
        order = CountedOrder(Split((), ()), recipe, self.protocol, run, init, points)
        check_order(order)
        return _Training(order, name)

    def _measure(self, order: ComparisonOrder, notes: tuple[str, ...], console: Console) -> int:
        from epvs_cohort.cohort.comparison import try_methods
        from epvs_cohort.cohort.comparison_weight import settle_weight
        from epvs_cohort.compare.method_table import method_table
        from epvs_cohort.report.comparison import write_comparison
        from epvs_cohort.report.comparison_tables import Comparison, markdown
        from epvs_cohort.train.material import are_simulated

        with ScanLine(console) as line:
            weight = settle_weight(order, line.show)
            scans, trial = try_methods(order, weight.score, line.show)
        table = method_table(scans, trial, seed=self.wishes.run.seed)
        done = Comparison(order, weight, trial, scans, table, are_simulated(order.parts.test), notes)
        page = write_comparison(self.wishes.run.out, done)
        print_to = Console(soft_wrap=True)
        print_to.print(Text(markdown(done)))
        print_to.print(Text(f"page of the comparison: {page}"))
        return sum(bool(scan.fault) for scan in scans)


@dataclass(frozen=True)
class _Plan:
    """What is compared by which networks."""

    methods: tuple[Method, ...]
    ready: Mapping[Network, Model]
    trainings: Mapping[Network, _Training]

    @property
    def words(self) -> tuple[str, ...]:
        """What is to be known before hours of training, in sentences."""
        if len({training.start is None for training in self.trainings.values()}) < 2:
            return ()
        return (
            "One network starts from a bundle (--init), the other from random weights: differences between their "
            "methods will be those of the start too.",
        )

    def check(self, parts: ThreeParts, points: Points) -> None:
        """Check that the parts are enough for it."""
        from epvs_cohort.cohort.comparison_parts import check_parts
        from epvs_cohort.cohort.comparison_weight import check_weight

        check_parts(parts, points, training=bool(self.trainings))
        weighted = self.ready["fcn"].bundle if "fcn" in self.ready else None
        if "fcn" in self.trainings:
            weighted = self.trainings["fcn"].order.init
        check_weight(self.methods, weighted, parts.validation, points)


@dataclass(frozen=True)
class _Scans:
    """Scans of a comparison, all that were counted and those that can be used, their marks, and words for the card."""

    whole: ThreeParts
    usable: ThreeParts
    points: Points
    said: tuple[str, ...]


@dataclass(frozen=True)
class _Training:
    """A network that is to be trained: the order without its scans, and the name of the bundle that it starts from."""

    order: CountedOrder
    start: str | None

    def check_people(self, parts: ThreeParts) -> None:
        """Check that the bundle to start from learned from nobody who is tested on."""
        from epvs_cohort.cohort.model_past import check_people, past_of

        past = None if self.start is None else past_of(self.start)
        if self.start is not None and past is not None:
            check_people(self.start, past, parts.test)

    def train(self, scans: _Scans, console: Console) -> Model:
        """Train it."""
        from epvs_cohort.cohort.comparison_models import Model
        from epvs_cohort.cohort.model_past import Start, past_of, write_past
        from epvs_cohort.report.training import training_page
        from epvs_cohort.train.counted import train_counted
        from epvs_cohort.train.samples import Split

        out, parts, points = self.order.run.out, scans.usable, self.order.points
        init = self.order.init
        start: Start | None = None
        if self.start is not None and init is not None:
            said = f"model {init.card.name} ({init.model_id}), trained on {init.card.trained_on}"
            start = Start(self.start, said)
        write_past(out, scans.whole, start)
        if points is not None and not any(each.key in scans.points for each in parts.validation):
            points = None
        goes_on = ", going on from its checkpoint" if self.order.run.resume else ""
        begins = "" if self.start is None else f" from {self.start}"
        console.print(Text(f"training {out} by recipe {self.order.recipe.name}{begins}{goes_on}"))
        split = Split(parts.training, parts.validation)
        with LiveLine(console) as line:
            bundle = train_counted(
                replace(self.order, split=split, points=points, notes=scans.said), line.show
            )
        console.print(Text(f"page of the training: {training_page(out)}"))
        past = past_of(str(out))
        checked, before = (False, "") if past is None else (past.complete, past.start)
        return Model(str(out), bundle, own=True, checked=checked, start=before)
