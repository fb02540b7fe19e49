"""Hostile names, links, special files, side-cars and manifests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.data.bad_input import nifti_bytes, volume, write_nifti
from tests.hostile.cases import Case, file_case

#: File names without their extension; each is legal on a file system, and none may be taken for more than a name.
NAMES = {
    "newline": "line\nbreak",
    "carriage": "a\rb\tc",
    "quotes": 'it\'s "quoted" `name`',
    "html": "<script>alert(1)<_script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "shell": "$(touch executed); touch executed #",
    "template": "{{ 7 * 7 }}{% raw %}%s%n",
    "formula": "=HYPERLINK(1)",
    "option": "--overwrite",
    "unicode": "été_日本語_😀",
    "right-to-left": "abc\u202egnp.exe",
    "zero-width": "a\u200bb\u2028c",
    "combining": "e\u0301" * 40,
    "escape": "\x1b[31mred\x1b[0m\x07",
    "dots": "...",
    "blank": " ",
    "backslash": "..\\..\\etc",
    "glob": "*?[a-z]",
    "percent": "%2e%2e%2f",
    "long": "n" * 248,
    "wide-long": "é" * 120,
}


def names() -> Iterator[Case]:
    """A legal image under each hostile name: it must be read, and found under its key."""
    for at, (name, stem) in enumerate(NAMES.items()):
        yield Case(f"name-{name}", partial(_named, stem), kept=at % 4 == 0)
        yield Case(f"found-{name}", partial(_within, stem), "scans", kept=at % 4 == 1)


def _named(stem: str, folder: Path) -> Path:
    return write_nifti(folder / f"{stem}.nii")


def _within(stem: str, folder: Path) -> Path:
    return _named(stem, folder).parent


def _not_utf8(folder: Path) -> Path:
    write_nifti(folder / "good.nii")
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff\xfe.nii")).write_bytes(bytes(nifti_bytes()))
    return folder


def _loop(folder: Path) -> Path:
    write_nifti(folder / "good.nii")
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    (below / "up").symlink_to(folder)
    (below / "self").symlink_to(below / "self")
    (folder / "one").symlink_to(folder / "other")
    (folder / "other").symlink_to(folder / "one")
    return folder


def _deep(folder: Path) -> Path:
    """As deep as a path may be."""
    at = folder
    while len(os.fsencode(at)) < 3800:
        at = at / ("d" * 200)
        at.mkdir()
    write_nifti(at / "good.nii")
    return folder


def _wide(folder: Path) -> Path:
    """Links that together lead to 2 ** 40 places."""
    at = folder
    for _ in range(20):
        (at / "next").mkdir()
        for name in ("left", "right"):
            (at / name).symlink_to(at / "next")
        at = at / "next"
    write_nifti(at / "good.nii")
    return folder


def _linked(target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "a.nii.gz").symlink_to(target)
        return folder / "a.nii.gz"

    return make


def _pipe(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / file)
        return folder / file

    return make


def _pipe_among(folder: Path) -> Path:
    os.mkfifo(folder / "001")
    os.mkfifo(folder / "002.dcm")
    os.mkfifo(folder / "dataset_description.json")
    write_nifti(folder / "good.nii")
    return folder


def _pipe_in_bids(folder: Path) -> Path:
    (folder / "dataset_description.json").write_text("{}")
    os.mkfifo(folder / "participants.tsv")
    (folder / "sub-1" / "anat").mkdir(parents=True)
    write_nifti(folder / "sub-1" / "anat" / "sub-1_PDw.nii")
    return folder


def places() -> Iterator[Case]:
    """Links in circles, depths, devices, pipes, folders named as files, names that are no UTF-8."""
    yield Case("link-loops", _loop, "scans", kept=True)
    yield Case("link-tree", _wide, "scans", kept=True)
    yield Case("folder-deep", _deep, "scans", kept=True)
    yield Case("not-utf8", _not_utf8, "scans", kept=True)
    yield Case("link-to-itself", _linked("a.nii.gz"), kept=True)
    for device in ("zero", "null", "random", "stdin", "full"):
        yield Case(f"link-to-{device}", _linked(f"/dev/{device}"), kept=device == "zero")
    yield Case("link-to-folder", _linked("."))
    for file in ("a.nii", "a.nii.gz", "a.mha", "a.nrrd", "a.mgz"):
        yield Case(f"pipe-{file}", _pipe(file), kept=file == "a.nii.gz")
    yield Case("pipe-mask", _pipe("a.nii"), "labels")
    yield Case("pipe-manifest", _pipe("a.csv"), "scans", kept=True)
    yield Case("pipes-in-a-folder", _pipe_among, "scans", kept=True)
    yield Case("pipe-participants", _pipe_in_bids, "scans", kept=True)
    yield Case("device-manifest", _device_manifest, "scans", kept=True)
    yield Case("long-path", lambda folder: folder / ("x" * 4000 + ".nii"), kept=True)
    yield Case("folder-as-image", _folder_as_image)


def _device_manifest(folder: Path) -> Path:
    (folder / "a.csv").symlink_to("/dev/zero")
    return folder / "a.csv"


def _folder_as_image(folder: Path) -> Path:
    (folder / "a.nii.gz").mkdir()
    return folder / "a.nii.gz"


def _beside(content: bytes | None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        if content is None:
            os.mkfifo(folder / "a.json")
        else:
            (folder / "a.json").write_bytes(content)
        return write_nifti(folder / "a.nii")

    return make


def sidecars() -> Iterator[Case]:
    """Side-cars in JSON: the image does not depend on them."""
    contents = {
        "pipe": None,
        "deep": b"[" * 200_000,
        "deep-object": b'{"a":' * 100_000,
        "huge-number": b'{"MagneticFieldStrength": 1' + b"0" * 100_000 + b"}",
        "infinite": b'{"MagneticFieldStrength": 1e999, "AcquisitionDate": NaN}',
        "long-name": b'{"Manufacturer": "' + b"A" * 1_000_000 + b'"}',
        "types": b'{"Manufacturer": {"a": [1]}, "ManufacturersModelName": [], "AcquisitionDate": {}}',
        "not-utf8": b'{"Manufacturer": "\xff"}',
        "surrogate": b'{"Manufacturer": "\\ud800"}',
        "list": b"[]",
        "empty": b"",
    }
    for name, content in contents.items():
        yield Case(f"sidecar-{name}", _beside(content), kept=name in ("pipe", "surrogate", "huge-number"))


_GOOD = b"scan,path\na,a.nii\n"


def manifests() -> Iterator[Case]:
    """Tables of scans: separators, encodings, columns, rows, keys and sizes."""
    rows = b"".join(b"s%d,p%d.nii\n" % (n, n) for n in range(20))
    contents = {
        "bom": b"\xef\xbb\xbf" + _GOOD,
        "utf16": _GOOD.decode().encode("utf-16"),
        "utf32": _GOOD.decode().encode("utf-32"),
        "latin1": "scan,path\né,a.nii\n".encode("latin-1"),
        "pipe-separated": _GOOD.replace(b",", b"|"),
        "tabs": _GOOD.replace(b",", b"\t"),
        "semicolons": _GOOD.replace(b",", b";"),
        "blanks": _GOOD.replace(b",", b" "),
        "mixed": b"scan,path\na;a.nii\n",
        "carriage": _GOOD.replace(b"\n", b"\r"),
        "dos": _GOOD.replace(b"\n", b"\r\n"),
        "form-feed": b"scan,path\x0cage\na,a.nii\x0c3\n",
        "no-header": rows,
        "wrong-columns": b"subject,image\n" + rows,
        "doubled-column": b"scan,path,scan\na,a.nii,b\n",
        "reserved-column": b"scan,path,count,status\na,a.nii,1,ok\n",
        "empty-column": b"scan,path,\na,a.nii,\n",
        "short-rows": b"scan,path,age\n" + rows,
        "long-rows": b"scan\n" + rows,
        "doubled-keys": b"scan,path\n" + b"a,a.nii\n" * 5000,
        "empty-keys": b"scan,path\n" + b",a.nii\n" * 5000,
        "empty": b"",
        "newlines": b"\n" * 100_000,
        "nul": b"scan,path\na\0b,a.nii\n",
        "open-quote": b'scan,path\n"a,a.nii\n' + rows,
        "quoted-newline": b'scan,path\n"a\nb",a.nii\n',
        "quotes-within": b'scan,path\na"b"c,a.nii\n',
        "long-cell": b"scan,path\na," + b"x" * 500_000 + b"\n",
        "many-columns": b"scan,path,"
        + b",".join(b"c%d" % n for n in range(20000))
        + b"\n"
        + b"a"
        + b",1" * 20001,
        "long-line": b"scan,path\n" + b"," * 5_000_000,
        "huge-integer": b"scan,path,age\na,a.nii," + b"9" * 5000 + b"\n",
        "huge-exponent": b"scan,path,age\na,a.nii,1e999999999\n",
        "ac-slice": "scan,path,ac_slice\na,a.nii,-1\nb,b.nii,٣\nc,c.nii,1e3\nd,d.nii,99999999\n".encode(),
        "climbing": b"scan,path,mask\n../../x,../../../../etc/passwd,/dev/zero\n",
        "control-key": "scan,path\n\x1b[2Ja,a.nii\n\u202eb,b.nii\n".encode(),
        "long-key": b"scan,path\n" + b"k" * 100_000 + b",a.nii\n",
        "formula": b"scan,path,age\n=1+1,a.nii,@SUM(A1)\n",
        "pickle": b"\x80\x04\x95cos\nsystem\n(S'touch executed'\ntR.",
        "gzip": b"\x1f\x8b\x08" + bytes(100),
        "garbage": (bytes(volume((60,)).astype("u1") | 32).replace(b",", b" ") + b"\n") * 10_000,
        "garbage-commas": b"scan,path\n" + b"x,y,z,\xc3\xa9\n" * 10_000,
        "ten-thousand": b"scan,path\n" + b"".join(b"s%d,p%d.nii\n" % (n, n) for n in range(10_000)),
    }
    for at, (name, content) in enumerate(contents.items()):
        yield file_case(f"manifest-{name}", "a.csv", content, way="scans", kept=at % 2 == 0)
        if name not in ("garbage", "ten-thousand", "long-line"):
            yield file_case(f"manifest-tsv-{name}", "a.tsv", content, way="scans")


def folder_cases() -> list[Case]:
    """All of this module."""
    return [*names(), *places(), *sidecars(), *manifests()]
