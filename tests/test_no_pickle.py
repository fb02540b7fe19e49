"""Nothing that a user may receive from others is ever unpickled or executed: models, stores, tables, checkpoints."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from epvs_cohort.data.cohort_tables import read_cohort
from epvs_cohort.data.decisions import read_decisions
from epvs_cohort.data.pictures import decode
from epvs_cohort.data.store import HEAT, PICTURES, PreparedStore
from epvs_cohort.data.store_checksums import SIDECAR
from epvs_cohort.errors import ConfigError, EpvsError, ModelError, StoreError
from epvs_cohort.model.bundle import CARD_FILE, WEIGHTS_FILE, load_bundle
from epvs_cohort.model.roi_bundle import NEAR_MODEL, load_roi_bundle, save_roi_bundle
from epvs_cohort.train.checkpoint import CHECKPOINT_FILE, read_checkpoint
from tests.report.made_up import MadeUp, write_made_up

PACKAGE = Path(__file__).parents[1] / "epvs_cohort"

#: Calls that turn bytes into code or objects of any kind.
_FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "joblib.load",
    "dill.load", "dill.loads", "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "eval", "exec",
    "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle",
}  # fmt: skip


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    return Bomb(tmp_path / "exploded")


def test_the_bomb_is_live(bomb: Bomb) -> None:
    pickle.loads(pickle.dumps(bomb))
    assert bomb.mark.is_dir()


def _calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _keyword(call: ast.Call, name: str) -> str:
    return next((ast.unparse(each.value) for each in call.keywords if each.arg == name), "")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_module_unpickles_or_executes(path: Path) -> None:
    for name, call in _calls(ast.parse(path.read_text(encoding="utf-8"))):
        assert name not in _FORBIDDEN, f"{path.name}:{call.lineno}: {name}"
        assert _keyword(call, "allow_pickle") in ("", "False"), f"{path.name}:{call.lineno}"
        assert not name.startswith("subprocess.") or _keyword(call, "shell") in ("", "False"), (
            f"{path.name}:{call.lineno}"
        )
        if name == "torch.load":
            assert _keyword(call, "weights_only") == "True", f"{path.name}:{call.lineno}"


def test_a_checkpoint_with_an_object_in_it_is_refused(tmp_path: Path, bomb: Bomb) -> None:
    torch.save({"identity": "run", "optimizer": bomb}, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(ConfigError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path, "run", torch.device("cpu"))
    (tmp_path / CHECKPOINT_FILE).write_bytes(pickle.dumps({"identity": "run", "optimizer": bomb}))
    with pytest.raises(ConfigError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path, "run", torch.device("cpu"))
    assert not bomb.mark.exists()


@pytest.fixture
def roi_bundle(tmp_path: Path) -> Path:
    shipped = load_roi_bundle(NEAR_MODEL)
    save_roi_bundle(tmp_path / "bundle", shipped.card, shipped.network, "A copy.\n")
    return tmp_path / "bundle"


def test_bundles_of_networks_that_outline_are_checked_alike(roi_bundle: Path, bomb: Bomb) -> None:
    weights = roi_bundle / WEIGHTS_FILE
    good = weights.read_bytes()
    weights.write_bytes(good[:-4] + b"\0\0\0\1")
    with pytest.raises(ModelError, match="SHA-256"):
        load_roi_bundle(str(roi_bundle))
    weights.write_bytes(pickle.dumps(bomb))
    with pytest.raises(ModelError, match="SHA-256"):
        load_roi_bundle(str(roi_bundle))
    with weights.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="at most"):
        load_roi_bundle(str(roi_bundle))
    assert not bomb.mark.exists()


def test_a_bundle_whose_files_are_pipes_or_lead_elsewhere_is_refused(
    roi_bundle: Path, tmp_path: Path
) -> None:
    for name in (WEIGHTS_FILE, CARD_FILE):
        broken = tmp_path / f"broken-{name}"
        shutil.copytree(roi_bundle, broken)
        for target in ("/dev/zero", "/proc/self/mem", "../../../../../../etc/passwd", ".", name):
            (broken / name).unlink()
            (broken / name).symlink_to(target)
            with pytest.raises(ModelError):
                load_roi_bundle(str(broken))
        (broken / name).unlink()
        os.mkfifo(broken / name)
        with pytest.raises(ModelError, match="no regular file"):
            load_roi_bundle(str(broken))


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "gp-unet-sim/../../..", "a\nb", "", "x" * 5000])
def test_a_name_that_climbs_out_is_no_model(name: str) -> None:
    with pytest.raises(EpvsError):
        load_bundle(name)


def _hostile_tables(tmp_path: Path, bomb: Bomb) -> Path:
    """A made-up run whose tables carry pickles where older readers unpickled: extension types and pandas' metadata."""
    out = tmp_path / "counts.parquet"
    write_made_up(out, MadeUp(scans=6))
    for path in tmp_path.glob("*.parquet"):
        table = pq.read_table(path)
        pickled = pickle.dumps(bomb)
        field = pa.field(
            "planted",
            pa.binary(),
            metadata={
                b"ARROW:extension:name": b"arrow.py_extension_type",
                b"ARROW:extension:metadata": pickled,
            },
        )
        table = table.append_column(field, pa.array([pickled] * table.num_rows, pa.binary()))
        told = {
            **(table.schema.metadata or {}),
            b"pandas": b'{"index_columns": [], "columns": [], "column_indexes": [], "creator": {"library": "pickle"}}',
            b"pickle": pickled,
        }
        pq.write_table(table.replace_schema_metadata(told), path)
    return out


def test_tables_with_pickles_in_them_are_read_as_data(tmp_path: Path, bomb: Bomb) -> None:
    out = _hostile_tables(tmp_path, bomb)
    cohort = read_cohort(out)
    assert len(cohort.scans) == 6
    assert {type(value) for value in cohort.scans["planted"]} == {bytes}
    assert not bomb.mark.exists()


def test_a_pickle_named_as_a_table_is_refused(tmp_path: Path, bomb: Bomb) -> None:
    for name in ("counts.parquet", "decisions.csv"):
        (tmp_path / name).write_bytes(pickle.dumps(bomb))
    with pytest.raises(EpvsError):
        read_cohort(tmp_path / "counts.parquet")
    with pytest.raises(EpvsError):
        read_decisions(tmp_path / "decisions.csv")
    assert not bomb.mark.exists()


def test_a_store_with_pickles_and_bombs_in_it_gives_nothing(tmp_path: Path, bomb: Bomb) -> None:
    store = PreparedStore(tmp_path / "store")
    folder = store.folder("a")
    folder.mkdir(parents=True)
    for name in (SIDECAR, HEAT, "volume.nii", "labels.nii"):
        (folder / name).write_bytes(pickle.dumps(bomb))
    objects = np.array([bomb], dtype=object)
    np.save(folder / "planted.npy", objects, allow_pickle=True)
    with zipfile.ZipFile(folder / PICTURES, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../climbed.webp", b"x")
        archive.writestr("brain_mask.webp", bytes(1 << 28))
    with pytest.raises(EpvsError):
        store.load("a")
    assert store.provenance("a") is None
    assert store.load_heat("a", "m", "c") is None
    # Pictures of ours are stored as they are; what is compressed could be of any size.
    assert store.pictures("a") == {}
    assert not bomb.mark.exists()
    assert not (tmp_path / "climbed.webp").exists()


def test_a_picture_that_claims_billions_of_pixels_is_refused() -> None:
    claims = (
        b"RIFF"
        + (64).to_bytes(4, "little")
        + b"WEBPVP8L"
        + (40).to_bytes(4, "little")
        + b"\x2f\xff\xff\xff\xff"
    )
    with pytest.raises(StoreError, match="picture of the store"):
        decode(claims + bytes(40))


def test_weights_that_claim_more_than_they_hold_are_refused(roi_bundle: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    blob = len(header).to_bytes(8, "little") + header + bytes(64)
    (roi_bundle / WEIGHTS_FILE).write_bytes(blob)
    card = json.loads((roi_bundle / CARD_FILE).read_text())
    card["weights_sha256"] = hashlib.sha256(blob).hexdigest()
    (roi_bundle / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_roi_bundle(str(roi_bundle))
