"""From counted scans to a bundle and its card, on a tiny store; and what is refused before anything is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from epvs_cohort.data.lock import exclusive
from epvs_cohort.errors import ConfigError, CountsError, ModelError, StoppedError, UsageError
from epvs_cohort.geometry import apply_affine
from epvs_cohort.model.bundle import Bundle, load_bundle
from epvs_cohort.model.network import GpUnet
from epvs_cohort.model.predict import Predictor
from epvs_cohort.records import Prediction
from epvs_cohort.train.checkpoint import CHECKPOINT_FILE, RECIPE_FILE
from epvs_cohort.train.counted import CountedOrder, check_order, train_counted
from epvs_cohort.train.loop import RunSettings
from epvs_cohort.train.points import read_points
from epvs_cohort.train.samples import Split
from tests.train.blobs import NATIVE, TINY, blobs, cohort, protocol, recipe, save

FINE = {"batch_norm": False, "architecture": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("counted")


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    return cohort(folder / "scans" / "store", 24, 10)


@pytest.fixture(scope="module")
def points(folder: Path, split: Split) -> Path:
    """Centres of all blobs, native RAS mm."""
    lines = ["scan,lesion,x_mm,y_mm,z_mm"]
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 10, 34)
    for k in range(34):
        drawn = blobs(f"sub-{k:03d}", int(numbers[k]), 100 + k)
        for n, (x, y, z) in enumerate(apply_affine(NATIVE, drawn.centers)):
            lines.append(f"sub-{k:03d},{n + 1},{x},{y},{z}")
    path = folder / "points.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def order(folder: Path, split: Split) -> CountedOrder:
    return CountedOrder(split, recipe(epochs=10), protocol(), RunSettings(folder / "model", seed=3))


@pytest.fixture(scope="module")
def bundle(order: CountedOrder, points: Path) -> Bundle:
    return train_counted(replace(order, points=points, notes=("Counted by two readers",)))


def test_a_bundle_counts_as_its_card_says(bundle: Bundle, order: CountedOrder) -> None:
    card = load_bundle(str(order.run.out)).card
    assert (card.name, card.count_target) == ("model", "roi")
    assert card.validation["volumes"] == 10.0
    assert card.validation["r"] > 0.95
    assert card.validation["mse"] >= card.validation["mae"] ** 2
    assert card.trained_on == "24 counted scans of 24 subjects; Counted by two readers"
    assert "10 counted scans of 10 subjects" in card.validated_on
    assert "no position" in card.supervision
    assert "simulated" not in (order.run.out / "README.md").read_text()
    volume = blobs("new", 6, 7).volume
    result = Predictor(bundle).predict([volume])[0]
    assert isinstance(result, Prediction)
    assert result.count == pytest.approx(6.0, abs=1.5)


def test_a_network_without_the_way_up_learns_the_same_counts(order: CountedOrder, tmp_path: Path) -> None:
    coarse = TINY.model_copy(update={"upsampling": "none"})
    run = replace(order.run, out=tmp_path / "coarse")
    bundle = train_counted(replace(order, recipe=recipe(epochs=10, architecture=coarse), run=run))
    assert bundle.card.architecture.cell == 2
    assert bundle.card.validation["r"] > 0.9
    assert "without its upsampling path" in (run.out / "README.md").read_text()
    drawn = blobs("new", 6, 7)
    result = Predictor(bundle).predict([drawn.volume])[0]
    assert isinstance(result, Prediction)
    heat = np.zeros(drawn.volume.labels.shape, dtype=np.float32)
    heat[drawn.volume.mask] = result.heat
    at_blobs = [heat[tuple(np.floor(center).astype(int))] for center in drawn.centers]
    # A class map has the width of its cells: what lies beside a blob is warm as well.
    beside = float(np.median(result.heat))
    assert min(at_blobs) > 1.5 * beside
    assert float(np.mean(at_blobs)) > 2 * beside


def test_points_tune_the_weight_alone(bundle: Bundle, order: CountedOrder, tmp_path: Path) -> None:
    card = bundle.card
    assert card.score_weight is not None
    assert card.heat_scale is not None
    assert card.validation["sensitivity_f"] > 0.8
    assert card.validation["sensitivity_f"] >= card.validation["sensitivity_e"]
    plain = train_counted(replace(order, run=replace(order.run, out=tmp_path / "plain")))
    assert plain.card.score_weight is None
    assert plain.card.weights_sha256 == card.weights_sha256
    assert "heatmap alone, (e)" in (tmp_path / "plain" / "README.md").read_text()


def test_what_a_run_was_made_of_is_beside_it(bundle: Bundle, order: CountedOrder) -> None:
    record = json.loads((order.run.out / RECIPE_FILE).read_text())
    assert record["recipe"]["name"] == "quick"
    assert record["scans"] == {"training": 24, "validation": 10}
    assert record["done"]["steps"] == 60
    assert record["recipe"]["augment"]["voxel_mm"] == [0.5, 0.5, 1.0]
    words = (order.run.out / "README.md").read_text()
    assert "60 steps, ended after 10 epochs" in words
    assert f"{bundle.card.validation['icc']:.3f}" in words


def test_a_finished_run_is_exported_again_and_not_written_over(bundle: Bundle, order: CountedOrder) -> None:
    with pytest.raises(UsageError, match="checkpoint is there already"):
        train_counted(order)
    again = train_counted(replace(order, run=replace(order.run, resume=True)))
    assert again.card.weights_sha256 == bundle.card.weights_sha256
    other = replace(order.split, training=order.split.training[1:])
    with pytest.raises(ConfigError, match="other label maps, scans or counts"):
        train_counted(replace(order, split=other, run=replace(order.run, resume=True)))


def test_a_rate_of_nothing_keeps_the_weights_it_started_from(
    bundle: Bundle, order: CountedOrder, tmp_path: Path
) -> None:
    still = recipe(**FINE, learning_rate=1e-12, final_learning_rate=1e-13, epochs=1)
    run = replace(order.run, out=tmp_path / "tuned")
    tuned = train_counted(replace(order, recipe=still, init=bundle, run=run))
    for name, tensor in bundle.network.state_dict().items():
        torch.testing.assert_close(tuned.network.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    assert tuned.card.score_weight == bundle.card.score_weight
    assert tuned.card.heat_scale == bundle.card.heat_scale
    assert "starting from the model model" in tuned.card.trained_on
    assert "is that of model: counts alone cannot tune it" in (tmp_path / "tuned/README.md").read_text()


def test_a_bundle_is_tuned_to_a_reader_who_counts_half(
    bundle: Bundle, order: CountedOrder, tmp_path: Path
) -> None:
    halves = [
        tuple(replace(sample, count=sample.count / 2) for sample in side)
        for side in (order.split.training, order.split.validation)
    ]
    fine = recipe(**FINE, learning_rate=2e-3, final_learning_rate=1e-5, epochs=8, last_layer_rate=1.0)
    run = replace(order.run, out=tmp_path / "tuned")
    tuned = train_counted(replace(order, split=Split(*halves), recipe=fine, init=bundle, run=run))
    assert tuned.card.validation["mae"] < 0.5
    assert tuned.card.validation["mean_count"] == pytest.approx(bundle.card.validation["mean_count"] / 2)


def test_the_slice_is_learned_from_its_own_counts(tmp_path: Path) -> None:
    """Blobs lie in rows 4 and 5 or in 8 and 9; the slice is row 8."""
    rng = np.random.default_rng(4)
    drawn = [blobs(f"s{k:02d}", int(n), 500 + k) for k, n in enumerate(rng.integers(0, 10, 34))]
    in_slice = [int((each.centers[:, 2] > 6).sum()) for each in drawn]
    samples = save(tmp_path / "store", drawn, in_slice)
    order = CountedOrder(
        Split(samples[:24], samples[24:]),
        recipe(epochs=12),
        protocol(count_target="ac_slice"),
        RunSettings(tmp_path / "model", seed=3),
    )
    card = train_counted(order).card
    assert card.architecture.pool_within == "ac_slice"
    assert card.validation["r"] > 0.9
    literal = replace(order, recipe=recipe(pool_in_slice=False, epochs=1))
    card = train_counted(replace(literal, run=RunSettings(tmp_path / "literal", seed=3))).card
    assert card.architecture.pool_within == "mask"


def test_a_model_of_the_region_begins_the_slice_with_counts_of_its_size(
    bundle: Bundle, order: CountedOrder, tmp_path: Path
) -> None:
    halves = [
        tuple(replace(sample, count=sample.count / 2) for sample in side)
        for side in (order.split.training, order.split.validation)
    ]
    still = recipe(**FINE, learning_rate=1e-12, final_learning_rate=1e-13, epochs=1)
    run = replace(order.run, out=tmp_path / "slice")
    sliced = protocol(count_target="ac_slice")
    tuned = train_counted(
        replace(order, split=Split(*halves), protocol=sliced, recipe=still, init=bundle, run=run)
    )
    assert abs(tuned.card.validation["bias"]) < 0.5 * tuned.card.validation["mean_count"]
    assert tuned.card.score_weight == bundle.card.score_weight
    assert bundle.card.heat_scale is not None
    assert tuned.card.heat_scale is not None
    unit = float((tuned.network.weights / bundle.network.weights).mean())
    assert tuned.card.heat_scale == pytest.approx(bundle.card.heat_scale * unit, rel=1e-3)


def test_simulated_scans_are_named_so(order: CountedOrder, folder: Path, tmp_path: Path) -> None:
    statement = folder / "scans" / "simulation.json"
    statement.write_text("{}")
    try:
        run = replace(order.run, out=tmp_path / "model", epochs=1)
        card = train_counted(replace(order, run=run)).card
    finally:
        statement.unlink()
    assert card.trained_on.startswith("simulated: 24 counted scans")
    assert "simulated" in card.validated_on
    assert "Trained on simulated scans only" in card.limits
    assert "no figure below is an accuracy on real scans" in (tmp_path / "model" / "README.md").read_text()
    before = load_bundle(str(tmp_path / "model"))
    run = replace(order.run, out=tmp_path / "next", epochs=1)
    card = train_counted(replace(order, recipe=recipe(**FINE), init=before, run=run)).card
    assert not card.trained_on.startswith("simulated")
    assert "trained on simulated: 24" in card.trained_on
    assert "began from a model that had learned from simulated scans" in card.limits
    assert "no figure below is an accuracy" not in (tmp_path / "next" / "README.md").read_text()


def refused(order: CountedOrder, folder: Path) -> CountedOrder:
    return replace(order, run=RunSettings(folder / "never"))


def test_too_few_scans_are_refused(order: CountedOrder, tmp_path: Path) -> None:
    few = replace(order, split=Split(order.split.training, order.split.validation[:1]))
    with pytest.raises(ConfigError, match="24 scans to train on and 1 to validate found"):
        train_counted(refused(few, tmp_path))
    assert not (tmp_path / "never").exists()


def test_a_bundle_that_does_not_fit_is_refused(bundle: Bundle, order: CountedOrder, tmp_path: Path) -> None:
    start = refused(replace(order, init=bundle, recipe=recipe(**FINE)), tmp_path)
    wide = TINY.model_copy(update={"widths": (6, 8)})
    with pytest.raises(ModelError, match="asks for"):
        train_counted(replace(start, recipe=recipe(architecture=wide, batch_norm=False)))
    with pytest.raises(ConfigError, match="folded into its convolutions"):
        train_counted(replace(start, recipe=recipe()))
    moved = protocol(roi=protocol().roi.model_copy(update={"dilate_mm": 3.0}))
    with pytest.raises(ModelError, match=r"roi\.dilate_mm is 3\.0"):
        train_counted(replace(start, protocol=moved))
    deep = TINY.model_copy(update={"widths": (2, 2, 2, 2, 2)})
    with pytest.raises(ConfigError, match="multiples of 16"):
        train_counted(replace(refused(order, tmp_path), recipe=recipe(architecture=deep)))


def test_folders_that_hold_something_else_are_refused(order: CountedOrder, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"found notes\.txt"):
        train_counted(replace(order, run=RunSettings(tmp_path)))
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        train_counted(replace(order, run=RunSettings(tmp_path / "new", resume=True)))


def test_a_network_whose_counts_may_be_negative_needs_the_squared_error(
    bundle: Bundle, order: CountedOrder, tmp_path: Path
) -> None:
    free = bundle.card.architecture.model_copy(update={"last_layer": "free"})
    start = Bundle(bundle.card.model_copy(update={"architecture": free}), GpUnet(free))
    chosen = recipe(**FINE, loss="poisson")
    with pytest.raises(ConfigError, match="last_layer is 'free'"):
        train_counted(refused(replace(order, init=start, recipe=chosen), tmp_path))


def test_a_model_of_the_slice_does_not_count_the_region(
    bundle: Bundle, order: CountedOrder, tmp_path: Path
) -> None:
    within = bundle.card.architecture.model_copy(update={"pool_within": "ac_slice"})
    start = Bundle(
        bundle.card.model_copy(update={"architecture": within, "count_target": "ac_slice"}), bundle.network
    )
    with pytest.raises(ConfigError, match="with that only 'ac_slice' is legal"):
        check_order(refused(replace(order, init=start, recipe=recipe(**FINE)), tmp_path))


def test_two_trainings_never_write_to_one_folder(order: CountedOrder, tmp_path: Path) -> None:
    run = replace(order.run, out=tmp_path / "model", epochs=1)
    with exclusive(run.out), pytest.raises(StoppedError, match=r"another run .* is writing this output"):
        train_counted(replace(order, run=run))
    # What the other left does not stand in the way.
    assert train_counted(replace(order, run=run)).card.validation["volumes"] == 10.0


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(
    order: CountedOrder, tmp_path: Path
) -> None:
    run = replace(order.run, out=tmp_path / "model", epochs=1)

    def stop(_state: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_counted(replace(order, run=run), stop)
    assert not (run.out / CHECKPOINT_FILE).exists()
    assert train_counted(replace(order, run=run)).card.validation["volumes"] == 10.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scan,x_mm,y_mm\na,1,2\n", "column z_mm is missing"),
        ("scan,x_mm,y_mm,z_mm\na,1,2,far\n", "line 2: 'far' is no coordinate"),
        ("scan,x_mm,y_mm,z_mm\na,1,2,inf\n", "line 2: 'inf' is no coordinate"),
        ("scan,x_mm,y_mm,z_mm\n,1,2,3\n", "line 2: the scan has no name"),
        (
            "scan,lesion,x_mm,y_mm,z_mm\na,1,1,2,3\na,1,4,5,6\n",
            "line 3: lesion 1 of scan 'a' stands on line 2",
        ),
        ("", "the table is empty"),
    ],
)
def test_illegal_points_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(CountsError, match=message):
        read_points(path, "roi")


def test_points_of_no_validation_scan_are_refused_before_training(
    order: CountedOrder, tmp_path: Path
) -> None:
    path = tmp_path / "points.csv"
    path.write_text("scan,lesion,x_mm,y_mm,z_mm\nsomebody,1,0,0,0\n")
    run = replace(order.run, out=tmp_path / "model")
    with pytest.raises(CountsError, match="names none of the 10 validation scans; they are sub-"):
        train_counted(replace(order, run=run, points=path))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("yes", ["1", "1.0", "True", "true"])
def test_a_lesion_in_the_slice_may_be_said_as_other_programs_write_it(tmp_path: Path, yes: str) -> None:
    path = tmp_path / "points.csv"
    header = "scan,lesion,x_mm,y_mm,z_mm,in_ac_slice,ac_x_mm,ac_y_mm,ac_z_mm"
    path.write_text(f"{header}\na,1,1,2,3,{yes},4,5,6\na,2,7,8,9,0,,,\n")
    assert read_points(path, "ac_slice")["a"].tolist() == [[4.0, 5.0, 6.0]]
    path.write_text(f"{header}\na,1,1,2,3,perhaps,4,5,6\n")
    with pytest.raises(CountsError, match="line 2: in_ac_slice is 'perhaps'; 1 or 0"):
        read_points(path, "ac_slice")


def test_points_of_the_slice_are_its_cross_sections(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(
        "scan,lesion,x_mm,y_mm,z_mm,in_ac_slice,ac_x_mm,ac_y_mm,ac_z_mm\n"
        "a,1,1,2,3,1,4,5,6\na,2,7,8,9,0,,,\nb,1,1,1,1,0,,,\n"
    )
    found = read_points(path, "ac_slice")
    assert found["a"].tolist() == [[4.0, 5.0, 6.0]]
    assert found["b"].shape == (0, 3)
    assert read_points(path, "roi")["a"].tolist() == [[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]
