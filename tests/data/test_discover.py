from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from epvs_cohort.data.discover import DiscoverOptions, Discovery, discover
from epvs_cohort.data.tables import reserved_names
from epvs_cohort.errors import ManifestError, UsageError
from tests.data.bad_input import Slice, write_series


def tree(root: Path, names: Iterable[str]) -> Path:
    """Files that are no images at all: discovery must not look into them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"-")
    return root


def keys(found: Discovery) -> list[str]:
    return [scan.key for scan in found.scans]


def reasons(found: Discovery, root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): reason for path, reason in found.passed_over}


BIDS = (
    "dataset_description.json",
    "participants.tsv",
    "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_T2w.json",
    "sub-01/anat/sub-01_PDw.nii.gz",
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_part-phase_T2w.nii.gz",
    "sub-01/func/sub-01_task-rest_bold.nii.gz",
    "sub-01/dwi/sub-01_T2w.nii.gz",
    "derivatives/seg/sub-01/anat/sub-01_T2w.nii.gz",
    ".git/annex/sub-01_T2w.nii.gz",
)


def bids(root: Path, participants: str = "participant_id\tage\nsub-01\t70\nsub-02\t65\n") -> Path:
    tree(root, BIDS)
    (root / "participants.tsv").write_text(participants)
    return root


def test_bids_data_set(tmp_path: Path) -> None:
    found = discover(bids(tmp_path))
    assert keys(found) == ["sub-01_PDw", "sub-02_ses-1_T2w"]
    first, second = found.scans
    assert (first.subject, first.session, dict(first.covariates)) == ("01", None, {"age": 70})
    assert (second.subject, second.session, dict(second.covariates)) == ("02", "1", {"age": 65})
    assert second.path == tmp_path / "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz"
    why = reasons(found, tmp_path)
    assert "not of the sequences asked for (PDw, T2w)" in why["sub-01/anat/sub-01_T1w.nii.gz"]
    assert "phase" in why["sub-01/anat/sub-01_part-phase_T2w.nii.gz"]
    assert "outside sub-*/[ses-*/]anat" in why["sub-01/func/sub-01_task-rest_bold.nii.gz"]
    assert "outside" in why["sub-01/dwi/sub-01_T2w.nii.gz"]
    assert "derivatives" in why["derivatives"]
    assert why["sub-02/ses-1/anat/sub-02_ses-1_T2w.json"] == "a side file"
    assert not any(name.startswith(".git") for name in why)


def test_another_suffix_may_be_asked_for(tmp_path: Path) -> None:
    found = discover(bids(tmp_path), DiscoverOptions(suffixes=("T1w",)))
    assert keys(found) == ["sub-01_T1w"]


@pytest.mark.parametrize("label", ["02", "sub-02"])
def test_participants_may_be_chosen(label: str, tmp_path: Path) -> None:
    found = discover(bids(tmp_path), DiscoverOptions(participant_labels=(label,)))
    assert keys(found) == ["sub-02_ses-1_T2w"]
    assert "participants" in reasons(found, tmp_path)["sub-01/anat/sub-01_PDw.nii.gz"]


def test_unknown_participants_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"77, 88 has no scan here; 2 participants have one: 01, 02"):
        discover(bids(tmp_path), DiscoverOptions(participant_labels=("88", "01", "77")))


def test_sessions_table_stands_before_participants(tmp_path: Path) -> None:
    bids(tmp_path, "participant_id\tage\tsex\nsub-01\t70\tF\nsub-02\t65\tM\n")
    tree(tmp_path, ["sub-02/ses-2/anat/sub-02_ses-2_T2w.nii.gz"])
    (tmp_path / "sub-02/sub-02_sessions.tsv").write_text(
        "session_id\tage\tscore\nses-2\t66.5\t3\nses-1\tn/a\t4\n"
    )
    by_key = {scan.key: dict(scan.covariates) for scan in discover(tmp_path).scans}
    assert by_key == {
        "sub-01_PDw": {"age": 70.0, "sex": "F", "score": None},
        "sub-02_ses-1_T2w": {"age": 65.0, "sex": "M", "score": 4},
        "sub-02_ses-2_T2w": {"age": 66.5, "sex": "M", "score": 3},
    }


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("participant_id\tcount\nsub-01\t5\n", "count would clash"),
        ("id\tage\nsub-01\t5\n", "no column participant_id"),
        ("participant_id\tage\nsub-01\t5\n01\t6\n", "line 3: participant_id 01 stands twice"),
        ("participant_id\tage\nsub-01\n", "line 2: 1 cells"),
    ],
)
def test_bad_participants_table(table: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=says) as caught:
        discover(bids(tmp_path, table), DiscoverOptions(reserved=frozenset({"count"})))
    assert "participants.tsv" in caught.value.message


def test_plain_folder(tmp_path: Path) -> None:
    names = ["b/one.nii.gz", "b/two.nii", "a.MHA", "c d/é.nrrd", "deep/er/est/x.nhdr", "deep/er/est/x.raw"]
    others = {
        "b/brain_mask.nii.gz": "mask",
        "b/one_seg.nii.gz": "mask or label",
        "lesions-labels.nii": "mask or label",
        "aparc+aseg.nii.gz": "mask or label",
        "fs/aseg.mgz": "FreeSurfer",
        "notes.docx": "not an image",
        "b/one.json": "side file",
    }
    found = discover(tree(tmp_path, [*names, *others, ".hidden.nii", ".cache/x.nii"]))
    assert keys(found) == ["a", "b/one", "b/two", "c d/é", "deep/er/est/x"]
    why = reasons(found, tmp_path)
    assert set(why) == {*others, "deep/er/est/x.raw"}
    for name, words in others.items():
        assert words in why[name]


@pytest.mark.parametrize(
    "name", ["T2_masked.nii", "msegel.nii", "sub-mask1_T2w.nii.gz", "sub-01_label-x_T2w.nii.gz"]
)
def test_names_that_only_resemble_masks_are_scans(name: str, tmp_path: Path) -> None:
    assert len(discover(tree(tmp_path, [name])).scans) == 1


def test_suffix_include_and_limit_in_a_plain_folder(tmp_path: Path) -> None:
    tree(tmp_path, ["x/1_T2w.nii", "x/2_T2w.nii", "y/3_T2w.nii", "y/3_T1w.nii"])
    assert keys(discover(tmp_path)) == ["x/1_T2w", "x/2_T2w", "y/3_T1w", "y/3_T2w"]
    assert keys(discover(tmp_path, DiscoverOptions(suffixes=("T2w",), include="x/*"))) == [
        "x/1_T2w",
        "x/2_T2w",
    ]
    found = discover(tmp_path, DiscoverOptions(limit=2))
    assert keys(found) == ["x/1_T2w", "x/2_T2w"]
    assert "beyond the limit of 2" in reasons(found, tmp_path)["y/3_T2w.nii"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="limit"):
        discover(tree(tmp_path, ["a.nii"]), DiscoverOptions(limit=limit))


def test_subject_and_session_from_folders(tmp_path: Path) -> None:
    found = discover(tree(tmp_path, ["sub-7/ses-b/scan.nii.gz"]))
    assert (found.scans[0].key, found.scans[0].subject, found.scans[0].session) == (
        "sub-7/ses-b/scan",
        "7",
        "b",
    )


def test_two_scans_with_one_key_name_both_paths(tmp_path: Path) -> None:
    tree(tmp_path, ["a/one.nii", "a/one.nii.gz"])
    with pytest.raises(ManifestError) as caught:
        discover(tmp_path)
    assert str(tmp_path / "a/one.nii") in caught.value.message
    assert str(tmp_path / "a/one.nii.gz") in caught.value.message
    assert caught.value.exit_code == 3


def test_one_bids_name_in_two_folders_is_one_key(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="sub-1_T2w"):
        discover(tree(tmp_path, ["x/sub-1_T2w.nii", "y/sub-1_T2w.nii"]))
    assert len(discover(tmp_path, DiscoverOptions(include="x/*")).scans) == 1


def test_nothing_found_tells_what_was_passed_over(tmp_path: Path) -> None:
    tree(tmp_path, ["a.txt", "b.txt", "brain_mask.nii"])
    with pytest.raises(UsageError) as caught:
        discover(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "2 x a side file" in caught.value.message
    assert "1 x named as a mask or label map" in caught.value.message
    assert caught.value.exit_code == 2


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file in it"):
        discover(tmp_path)
    with pytest.raises(UsageError, match="no such file or folder"):
        discover(tmp_path / "gone")


def test_dicom_folders(tmp_path: Path) -> None:
    write_series(tmp_path / "p1" / "s1")
    nameless = write_series(tmp_path / "p1" / "s2")
    for file in nameless.iterdir():
        file.rename(nameless / file.stem)
    tree(tmp_path, ["p1/s2/README", "p1/s2/VERSION", "p1/notes", "p2/scan.nii"])
    found = discover(tmp_path)
    assert keys(found) == ["p1/s1", "p1/s2", "p2/scan"]
    assert found.scans[0].path == tmp_path / "p1" / "s1"
    assert reasons(found, tmp_path) == {"p1/notes": "not an image"}


def test_a_dicom_folder_itself_is_named_after_itself(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series7", Slice(1, 0.0), Slice(2, 3.0))
    assert keys(discover(folder)) == ["series7"]


def test_dicomdir_makes_no_series(tmp_path: Path) -> None:
    write_series(tmp_path / "d" / "s")
    (tmp_path / "d" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert keys(discover(tmp_path)) == ["d/s"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    tree(tmp_path, ["real/a.nii"])
    outside = tree(tmp_path.parent / f"{tmp_path.name}_outside", ["b.nii"])
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "elsewhere").symlink_to(outside)
    found = discover(tmp_path)
    assert keys(found) == ["elsewhere/b", "real/a"]
    why = reasons(found, tmp_path)
    assert "searched already" in why["again"]
    assert "searched already" in why["real/loop"]
    assert "not an image" in why["self"]


def test_own_output_is_not_taken_for_scans(tmp_path: Path) -> None:
    tree(
        tmp_path,
        ["a.nii", "counts.store/a-1/volume.nii", "counts.maps/a_heatmap.nii.gz", "mine/a-1/volume.nii"],
    )
    (tmp_path / "mine/a-1/prepared.json").write_text("{}")
    found = discover(tmp_path)
    assert keys(found) == ["a"]
    assert set(reasons(found, tmp_path)) == {"counts.store", "counts.maps", "mine/a-1"}


BAD_NAMES = (
    b"bad\xff.nii.gz",
    b"deep/\xe9t\xe9/a.nii",
    b"deep/b\xfe.txt",
    b"linked\xff",
)


def test_names_that_are_not_utf8_are_passed_over_and_shown(tmp_path: Path) -> None:
    tree(tmp_path, ["good.nii", "deep/c.nii", *(os.fsdecode(name) for name in BAD_NAMES[:3])])
    (tmp_path / os.fsdecode(BAD_NAMES[3])).symlink_to(tmp_path / "deep")
    found = discover(tmp_path)
    assert keys(found) == ["deep/c", "good"]
    assert reasons(found, tmp_path) == {
        r"bad\xff.nii.gz": r"its name is not UTF-8: b'bad\xff.nii.gz'",
        r"deep/\xe9t\xe9": r"its name is not UTF-8: b'\xe9t\xe9'",
        r"deep/b\xfe.txt": r"its name is not UTF-8: b'b\xfe.txt'",
        r"linked\xff": r"its name is not UTF-8: b'linked\xff'",
    }
    for path, reason in found.passed_over:
        f"{path}: {reason}".encode()


@pytest.mark.parametrize(
    "name", [b"bad\xff.nii.gz", b"bad\xff.csv", b"bad\xff", b"bad\xff/a.nii", b"gone\xff"]
)
def test_scans_that_is_not_utf8_is_refused_in_words(name: bytes, tmp_path: Path) -> None:
    if not name.startswith(b"gone"):
        tree(tmp_path, [os.fsdecode(name if b"." in name else name + b"/a.nii")])
    with pytest.raises(UsageError, match=r"\\xff") as caught:
        discover(tmp_path / os.fsdecode(name))
    caught.value.message.encode()


def test_only_names_that_are_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1 x its name is not UTF-8: b'bad\\xff.nii'") as caught:
        discover(tree(tmp_path, [os.fsdecode(b"bad\xff.nii")]))
    caught.value.message.encode()


def test_a_dicom_folder_behind_a_link_may_lack_a_name(tmp_path: Path) -> None:
    folder = write_series(tmp_path / os.fsdecode(b"bad\xff"))
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UsageError, match=r"link: .* b'bad\\xff'"):
        discover(tmp_path / "link")


def test_relative_scans_become_absolute_and_links_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bids(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_series(tmp_path / "real/dicom")
    plain = tree(tmp_path / "plain", ["x/a.nii", "b.txt"])
    manifest(plain)
    monkeypatch.chdir(tmp_path)
    one = Path("plain/x/a.nii")
    for scans in ("link", "plain", "plain/x/a.nii", "real/dicom", "plain/scans.csv"):
        relative, absolute = discover(Path(scans)), discover(tmp_path / scans)
        assert relative == absolute
        assert all(scan.path.is_absolute() for scan in relative.scans)
        assert all(path.is_absolute() for path, _ in relative.passed_over)
    assert discover(Path("link")).scans[0].path == tmp_path / "link/sub-01/anat/sub-01_PDw.nii.gz"
    assert (discover(one).scans[0].key, discover(one).scans[0].path) == ("a", tmp_path / one)
    monkeypatch.chdir(plain)
    assert keys(discover(Path())) == ["x/a"]
    assert discover(Path("../real/dicom")).scans[0].key == "dicom"


def test_single_file(tmp_path: Path) -> None:
    path = tree(tmp_path, ["sub-1_ses-2_T2w.nii.gz"]) / "sub-1_ses-2_T2w.nii.gz"
    (scan,) = discover(path).scans
    assert (scan.key, scan.path, scan.subject, scan.session) == ("sub-1_ses-2_T2w", path, "1", "2")
    mask = tree(tmp_path, ["x/my_mask.mgz"]) / "x/my_mask.mgz"
    assert keys(discover(mask)) == ["my_mask"]


def manifest(folder: Path) -> Path:
    path = folder / "scans.csv"
    path.write_text("scan,path,subject,age\nb,x/1_T2w.nii,sub-2,70\na,x/2_PDw.nii,1,71\nc,gone.nii,,72\n")
    return path


def test_manifest(tmp_path: Path) -> None:
    found = discover(manifest(tmp_path))
    assert keys(found) == ["a", "b", "c"]
    assert found.scans[1].path == tmp_path / "x/1_T2w.nii"
    assert dict(found.scans[1].covariates) == {"age": 70}


def test_manifest_with_options(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    assert keys(discover(path, DiscoverOptions(suffixes=("T2w",)))) == ["b"]
    assert keys(discover(path, DiscoverOptions(include="[ac]"))) == ["a", "c"]
    assert keys(discover(path, DiscoverOptions(participant_labels=("2", "sub-1")))) == ["a", "b"]
    with pytest.raises(ManifestError, match=r"scans\.csv: column age would clash"):
        discover(path, DiscoverOptions(reserved=frozenset({"age"})))


@pytest.mark.parametrize("name", ["count", "scan", "n_left caudate", "error_kind"])
def test_columns_of_the_counts_are_no_covariates(name: str, tmp_path: Path) -> None:
    reserved = reserved_names(("left caudate",))
    assert name in reserved
    path = tmp_path / "m.csv"
    path.write_text(f"scan,path,subject,{name}\na,gone.nii,1,2\n")
    with pytest.raises(
        ManifestError, match="stands 2 times" if name == "scan" else f"column {name} would clash"
    ):
        discover(path, DiscoverOptions(reserved=reserved))


def test_thousands_of_files_take_seconds_because_none_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(3000):
        os.mkfifo(folder / f"{number:04d}_T2w.nii.gz")
    # Opening a pipe that nobody writes to would wait for ever.
    assert len(discover(tmp_path).scans) == 3000


def test_real_folder(shared_data: Path) -> None:
    assert keys(discover(shared_data / "real")) == [
        "brain_only_t2_1mm",
        "dicom_pd",
        "head_t2_1mm",
        "head_t2_thick_5.5mm",
        "pair_visit1_t2",
        "pair_visit2_t2",
    ]
