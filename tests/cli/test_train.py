"""The command train: both its ways, what it says of the data, and what it refuses."""

from __future__ import annotations

import functools
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from epvs_cohort.api import run_cohort
from epvs_cohort.cohort.cluster import ClusterChoice
from epvs_cohort.cohort.run import RunRequest, make_ready
from epvs_cohort.data.store import LABELS, VOLUME
from epvs_cohort.model.bundle import load_bundle
from epvs_cohort.model.network import Architecture
from epvs_cohort.protocol import load_protocol
from epvs_cohort.simulate.cohort import SimulateOptions, simulate_cohort
from epvs_cohort.train.augment import AugmentSettings
from epvs_cohort.train.recipe import ScanRecipe, load_recipe
from tests.cli.conftest import Call
from tests.train.stored import SHAPE, save, volume

PROTOCOL = f"""
name = "small"
[grid]
shape = {list(SHAPE)}
"""
RECIPE = """
supervision = "scans"
name = "tiny"
epochs = 1
validate_every = 2
batch = 2
optimizer = "adamw"
learning_rate = 1e-3
final_learning_rate = 1e-3
[architecture]
widths = [2]
convs_per_level = 1
"""


@pytest.fixture
def call(command: Call) -> Call:
    """Exit code, standard output and standard error of ``train``."""
    return functools.partial(command, "train")


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Seven counted scans of six people and one without a count, prepared; with counts, protocol and recipe."""
    keys = ["sub-1_ses-1_PDw", "sub-1_ses-2_PDw", *(f"sub-{n}_PDw" for n in range(2, 6)), "sub-6_PDw"]
    save(tmp_path / "cohort" / "prepared", *(volume(key, seed=n) for n, key in enumerate(keys)), volume("x"))
    rows = "".join(f"{key},{n}\n" for n, key in enumerate(keys))
    (tmp_path / "cohort" / "counts.csv").write_text(f"scan,count\n{rows}")
    (tmp_path / "small.toml").write_text(PROTOCOL)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return tmp_path / "cohort"


def of(cohort: Path, *more: object, out: str = "model") -> list[object]:
    folder = cohort.parent
    return [
        cohort, "--counts", cohort / "counts.csv", "--out", folder / out, "--protocol", folder / "small.toml",
        "--recipe", folder / "tiny.toml", "--device", "cpu", "--threads", 1, *more,
    ]  # fmt: skip


def test_a_prepared_cohort_gives_a_bundle_and_its_data_are_told(cohort: Path, call: Call) -> None:
    with (cohort / "counts.csv").open("a") as table:
        table.write("sub-9_PDw,4\n")
    code, out, err = call(*of(cohort, "--validation", "0.4"))
    assert code == 0, err
    bundle = load_bundle(str(cohort.parent / "model"))
    assert bundle.model_id in out
    assert bundle.card.count_target == "roi"
    assert "counts of 8 scans" in err
    assert "1 scans have a count and no scan, and are left out: sub-9_PDw" in err
    assert "1 scans have no count, and are left out: x" in err
    assert "scans of 4 subjects train" in err
    assert "of 2 other subjects validate" in err
    assert "left out: 1 counts without a scan, 1 scans without a count, 0 counted" in err
    assert "epoch 1/1" in err
    assert (cohort.parent / "model" / "training.html").is_file()
    words = (cohort.parent / "model" / "README.md").read_text()
    assert "counts of 8 scans" in words
    assert "of 2 other subjects validate" in words


def test_scans_that_cannot_be_used_are_named_and_the_rest_goes_on(cohort: Path, call: Call) -> None:
    folders = sorted((cohort / "prepared").glob("sub-*"))
    path = folders[-1] / LABELS
    path.write_bytes(path.read_bytes()[:-1])
    split = cohort / "split.csv"
    split.write_text("sub-4_PDw\nsub-5_PDw\nsub-6_PDw\n")
    code, _, err = call(*of(cohort, "--validation", split))
    assert code == 4, err
    assert "1 scans cannot be used, and are left out: sub-6_PDw (" in err
    assert "4 scans of 3 subjects train, 2 scans of 2 other subjects validate" in err
    assert "1 counted scans that cannot be used" in err


def test_the_slice_may_be_what_was_counted(cohort: Path, call: Call) -> None:
    code, _, err = call(*of(cohort, "--count-target", "ac_slice", "--validation", "0.4"))
    assert code == 0, err
    assert load_bundle(str(cohort.parent / "model")).card.count_target == "ac_slice"


def test_a_bundle_is_where_training_goes_on(cohort: Path, call: Call) -> None:
    assert call(*of(cohort, "--validation", "0.4"))[0] == 0
    first = cohort.parent / "model"
    tuned = (cohort.parent / "tiny.toml").read_text().split("[architecture]")[0] + "batch_norm = false\n"
    (cohort.parent / "tiny.toml").write_text(tuned)
    more = ("--init", first, "--validation", "0.4", "--count-target", "ac_slice")
    code, _, err = call(*of(cohort, *more, out="tuned"))
    assert code == 0, err
    assert load_bundle(str(cohort.parent / "tuned")).card.count_target == "ac_slice"
    code, _, err = call(
        cohort, "--counts", cohort / "counts.csv", "--out", cohort.parent / "other", "--init", first
    )
    assert (code, "grid.shape" in err) == (3, True), err


def test_a_finished_training_is_not_overwritten_and_may_be_resumed(cohort: Path, call: Call) -> None:
    assert call(*of(cohort, "--validation", "0.4"))[0] == 0
    first = load_bundle(str(cohort.parent / "model")).model_id
    code, _, err = call(*of(cohort, "--validation", "0.4"))
    assert (code, "--resume" in err) == (2, True), err
    code, _, err = call(*of(cohort, "--validation", "0.4", "--resume"))
    assert code == 0, err
    assert load_bundle(str(cohort.parent / "model")).model_id == first
    code, _, err = call(*of(cohort, "--validation", "0.2", "--resume"))
    assert code == 3, err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{cohort}", "--out", "{out}"], 2, "--counts is needed with SCANS"),
        (
            ["--counts", "{counts}", "--epochs", "3", "--out", "{out}"],
            2,
            "--counts, --epochs: of training on",
        ),
        (["--validation", "0.3", "--out", "{out}"], 2, "needs SCANS"),
        (["{cohort}", "--counts", "{counts}", "--anatomies", "{cohort}", "--out", "{out}"], 2, "--anatomies"),
        (
            ["{cohort}", "--counts", "{counts}", "--recipe", "gp-unet-sim", "--out", "{out}"],
            2,
            "simulated windows",
        ),
        (["--recipe", "paper", "--out", "{out}"], 2, "trains on counted scans"),
        (["{cohort}", "--counts", "{counts}", "--store", "{out}", "--out", "{out}"], 2, "used as it is"),
        (["{cohort}", "--counts", "{counts}", "--include", "sub*", "--out", "{out}"], 2, "used as it is"),
        (["{cohort}", "--counts", "{bad}", "--out", "{out}"], 3, "line 3: scan 'b': count -2 is negative"),
        (["{cohort}", "--counts", "{other}", "--out", "{out}"], 3, "none of its 1 counts"),
        (
            ["{cohort}", "--counts", "{counts}", "--validation", "1.5", "--out", "{out}"],
            2,
            "above 0 and below",
        ),
        (["{cohort}", "--counts", "{counts}", "--validation", "no.csv", "--out", "{out}"], 3, "no.csv"),
        (
            ["{cohort}", "--counts", "{counts}", "--validation", "0.4", "--out", "{out}"],
            3,
            "prepared on (24, 16, 20) voxels",
        ),
        (
            ["{cohort}", "--counts", "{counts}", "--protocol", "nope", "--out", "{out}"],
            3,
            "neither a bundled",
        ),
        (["{cohort}", "--counts", "{counts}", "--init", "nope", "--out", "{out}"], 3, "nope"),
        (["{cohort}", "--counts", "{counts}", "--recipe", "nope", "--out", "{out}"], 3, "nope"),
        (["{missing}", "--counts", "{counts}", "--out", "{out}"], 2, "no such file"),
    ],
)
def test_what_cannot_be_used_is_said_before_any_work(
    cohort: Path, call: Call, arguments: list[str], code: int, words: str
) -> None:
    (cohort / "bad.csv").write_text("scan,count\na,1\nb,-2\n")
    (cohort / "other.csv").write_text("scan,count\nz,1\n")
    names = {
        "{cohort}": cohort,
        "{counts}": cohort / "counts.csv",
        "{bad}": cohort / "bad.csv",
        "{other}": cohort / "other.csv",
        "{missing}": cohort / "missing",
        "{out}": cohort.parent / "model",
    }
    found, _, err = call(*(names.get(argument, argument) for argument in arguments))
    assert (found, words in err) == (code, True), err
    assert "Traceback" not in err
    assert not (cohort.parent / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--validation", "{one}"], "6 scans to train on and 1 to validate found"),
        (["--validation-points", "{one}"], "column x_mm is missing"),
        (["--init", "{model}"], "folded into its convolutions"),
        (["--resume"], "no checkpoint to resume from"),
    ],
)
def test_what_needs_no_volume_is_refused_before_any_is_read(
    cohort: Path, call: Call, arguments: list[str], words: str
) -> None:
    names = {"{one}": cohort / "one.csv", "{model}": cohort.parent / "first"}
    (cohort / "one.csv").write_text("scan\nsub-6_PDw\n")
    if "--init" in arguments:
        assert call(*of(cohort, "--validation", "0.4", out="first"))[0] == 0
    for labels in (cohort / "prepared").glob(f"*/{LABELS}"):
        labels.write_bytes(b"damaged")
    code, _, err = call(*of(cohort, *(names.get(argument, argument) for argument in arguments)))
    assert (code, words in err) == (3, True), err
    assert "cannot be used" not in err
    assert not (cohort.parent / "model").exists()


def test_a_seed_that_torch_cannot_take_is_refused(cohort: Path, call: Call) -> None:
    code, _, err = call(*of(cohort, "--seed", 10**30))
    assert (code, "--seed" in err) == (2, True), err


def test_a_disk_that_takes_no_more_stops_the_training(cohort: Path, call: Call) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        code, _, err = call(*of(cohort, "--validation", "0.4"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, "cannot be read or written: File too large" in err) == (5, True), err
    assert call(*of(cohort, "--validation", "0.4"))[0] == 0


def test_names_cannot_act_on_the_terminal(cohort: Path, call: Call) -> None:
    with (cohort / "counts.csv").open("a") as table:
        table.write('"\x1b[31mred\nline",4\n')
    code, _, err = call(*of(cohort, "--validation", "0.4"))
    assert code == 0, err
    assert r"are left out: \x1b[31mred\nline" in err


DOCS = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_documentation_names_every_option_and_setting(call: Call) -> None:
    words = DOCS.read_text(encoding="utf-8")
    _, out, _ = call("--help")
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", out)) - {"--help"}
    assert "--validation-points" in options
    assert [option for option in sorted(options) if f"`{option}" not in words] == []
    settings = {*ScanRecipe.model_fields, *Architecture.model_fields, *AugmentSettings.model_fields}
    settings -= {"augment", "architecture"}
    assert [name for name in sorted(settings) if f"`{name}`" not in words] == []


def test_recipes_in_the_documentation_load(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        (tmp_path / "recipe.toml").write_text(example, encoding="utf-8")
        assert isinstance(load_recipe(str(tmp_path / "recipe.toml")), ScanRecipe)


def test_help_says_which_options_go_together(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    for words in ("Counted scans (with SCANS)", "Simulated windows (without SCANS)", "--count-target"):
        assert words in out


WITHOUT = """
import json, sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"itk", "SimpleITK", "dask", "distributed"}:
            raise ImportError("forbidden here: " + name)

sys.meta_path.insert(0, Forbidden())
sys.argv = ["epvs-cohort", "train", *json.loads(sys.argv[1])]
from epvs_cohort.cli.app import main
main()
"""


def test_a_prepared_cohort_needs_neither_itk_nor_dask(cohort: Path) -> None:
    arguments = json.dumps([str(each) for each in of(cohort, "--validation", "0.4")])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (cohort.parent / "model" / "model.json").is_file()


WINDOWS = """
name = "windows"
protocol = "{protocol}"
canvases = 1
calibration_volumes = 1
validation_volumes = 2
training_anatomies = 1
validation_anatomies = 1
[architecture]
widths = [2, 3]
convs_per_level = 1
[[stages]]
window = [20, 16, 12]
batch = 2
steps = 2
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("scans", [(), ("scans", "--counts", "counts.csv")])
def test_a_gpu_that_is_not_there_is_refused_before_work(
    tmp_path: Path, call: Call, scans: tuple[str, ...]
) -> None:
    code, _, err = call(*scans, "--out", tmp_path / "model", "--device", "cuda")
    assert code == 2
    assert "--device cuda: no usable GPU was found" in err
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_without_scans_windows_are_trained_on(tmp_path: Path, call: Call) -> None:
    (tmp_path / "p.toml").write_text(
        "name = 'p'\n[grid]\nshape = [84, 64, 40]\nspacing_mm = [0.98, 0.98, 1.6]\n"
    )
    (tmp_path / "w.toml").write_text(WINDOWS.format(protocol=tmp_path / "p.toml"))
    code, out, err = call("--recipe", tmp_path / "w.toml", "--out", tmp_path / "model", "--device", "cpu")
    assert code == 0, err
    assert "simulated validation" in out
    assert load_bundle(str(tmp_path / "model")).card.count_target == "roi"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_scan_is_prepared_once_for_run_and_train(tmp_path: Path, call: Call) -> None:
    scans = tmp_path / "scans"
    simulate_cohort(scans, SimulateOptions(scans=3, seed=11, voxel_mm=(1.5, 1.5, 2.0), n_procs=2))
    bad = scans / "sub-0004" / "anat" / "sub-0004_PDw.nii.gz"
    bad.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), bad)
    uncounted = scans / "sub-0005" / "anat" / "sub-0005_PDw.nii.gz"
    uncounted.parent.mkdir(parents=True)
    uncounted.write_bytes(b"never read")
    with (scans / "counts.csv").open("a") as table:
        table.write("sub-0004_PDw,3\n")
    (tmp_path / "split.csv").write_text("sub-0002_PDw\nsub-0003_PDw\n")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    coarse = tmp_path / "coarse.toml"
    coarse.write_text("name = 'coarse'\n[grid]\nshape = [56, 44, 36]\nspacing_mm = [1.47, 1.47, 1.96]\n")
    model = tmp_path / "model"
    same = [
        scans, "--counts", scans / "counts.csv", "--validation", tmp_path / "split.csv", "--recipe",
        tmp_path / "tiny.toml", "--protocol", coarse, "--device", "cpu", "--n-procs", 2, "--threads", 1,
    ]  # fmt: skip
    code, _, err = call(*same, "--out", model)
    assert code == 4, err
    assert "3 prepared, 0 were there already, 1 failed" in err
    assert "1 scans have no count, and are left out: sub-0005_PDw" in err
    assert "1 scans cannot be used, and are left out: sub-0004_PDw (" in err
    assert load_bundle(str(model)).card.count_target == "roi"

    store = tmp_path / "model.store"
    before = {path: path.stat().st_mtime_ns for path in store.glob(f"*/{VOLUME}")}
    assert len(before) == 3
    processes = ClusterChoice(n_procs=2, device="cpu")
    protocol = load_protocol(str(coarse)).model_copy(update={"model": str(model)})
    asked = RunRequest(scans, tmp_path / "counts.parquet", protocol, store, cluster=processes)
    assert make_ready(asked).plan.prepared == 3
    run_cohort(asked)  # With the model that was trained just now.
    code, _, err = call(*same, "--out", tmp_path / "second", "--store", store)
    assert "0 prepared, 3 were there already, 1 failed" in err, err
    assert {path: path.stat().st_mtime_ns for path in store.glob(f"*/{VOLUME}")} == before
    assert not (tmp_path / "second.store").exists()
