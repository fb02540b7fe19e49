"""TLS by one setting: a local cluster, a scheduler and workers on two hosts, and strangers who are turned away."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client
from distributed.comm.core import CommClosedError

from epvs_cohort.cluster_settings import load_cluster
from epvs_cohort.cohort.cluster import ClusterChoice, connect
from epvs_cohort.cohort.security import security_of
from epvs_cohort.errors import UsageError
from tests.data.bad_input import write_nifti

_SECONDS = 240.0
_DOCS = Path(__file__).parents[2] / "docs" / "clusters.md"


def make_authority(folder: Path) -> Path:
    """An authority and one certificate for the cluster, as ``docs/clusters.md`` tells."""
    folder.mkdir()
    for line in (
        'req -x509 -newkey rsa:2048 -nodes -days 365 -keyout ca.key -out ca.pem -subj "/CN=epvs-cohort authority"',
        'req -newkey rsa:2048 -nodes -keyout key.pem -out cert.csr -subj "/CN=epvs-cohort"',
        "x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -out cert.pem",
    ):
        assert f"openssl {line}\n" in _DOCS.read_text(encoding="utf-8")
        subprocess.run(["openssl", *shlex.split(line)], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return make_authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def strangers(certificates: Path) -> Path:
    return make_authority(certificates.with_name("theirs"))


def test_a_local_cluster_talks_tls_to_its_own_alone(
    certificates: Path, strangers: Path, tmp_path: Path
) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(f'name = "lab"\nn_procs = 1\ngpus = 0\ntls = "{certificates}"\n')
    with connect(ClusterChoice(device="cpu", settings=load_cluster(str(file)))) as crew:
        crew.client.wait_for_workers(1, timeout=60)
        assert crew.client.submit(sum, [1, 2]).result(timeout=60) == 3
        scheduler = str(crew.client.scheduler_info(n_workers=0)["address"])
        workers = list(crew.client.scheduler_info(n_workers=-1)["workers"])
        assert [address.partition("://")[0] for address in (scheduler, *workers)] == ["tls", "tls"]
        for address, security in (
            (scheduler, security_of(strangers)),
            (scheduler.replace("tls://", "tcp://"), None),
        ):
            with pytest.raises((OSError, CommClosedError)):
                Client(address, security=security, timeout=3, set_as_default=False).close()


@pytest.mark.parametrize("missing", ["ca.pem", "cert.pem", "key.pem"])
def test_a_missing_file_is_named(certificates: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(certificates, tmp_path / "part")
    (tmp_path / "part" / missing).unlink()
    with pytest.raises(UsageError, match=f"no file {missing}"):
        security_of(tmp_path / "part")


def test_a_key_of_another_certificate_is_refused(certificates: Path, strangers: Path, tmp_path: Path) -> None:
    shutil.copytree(certificates, tmp_path / "mixed")
    shutil.copy(strangers / "key.pem", tmp_path / "mixed" / "key.pem")
    with pytest.raises(UsageError, match="cannot be used"):
        security_of(tmp_path / "mixed")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Two network hosts with a wire between them: name of each name space, and its address."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two network name spaces need root and iproute2")
    names = {f"epvs-{os.getpid()}-{side}": f"10.77.0.{at}" for at, side in enumerate("ab", start=1)}
    wires = [f"epvs{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", wires[0], "type", "veth", "peer", "name", wires[1])
        for (name, address), wire in zip(names.items(), wires, strict=True):
            _ip("link", "set", wire, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", wire)
            _ip("-n", name, "link", "set", wire, "up")
            _ip("-n", name, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network name spaces here: {error.stderr.decode().strip()}")
    try:
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextmanager
def _started(host: str, *command: str, log: Path) -> Iterator[None]:
    with log.open("w") as said:
        process = subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, "-m", *command],
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=_SECONDS)


def _wait_for(log: Path, words: str) -> None:
    until = time.monotonic() + _SECONDS
    while words not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.5)


def _tls(folder: Path) -> list[str]:
    return [
        "--tls-ca-file",
        f"{folder}/ca.pem",
        "--tls-cert",
        f"{folder}/cert.pem",
        "--tls-key",
        f"{folder}/key.pem",
    ]


def _knock(host: str, where: str, security: str) -> str:
    """What a client on a host gets from a scheduler."""
    program = (
        "from pathlib import Path\nfrom distributed import Client\n"
        "from epvs_cohort.cohort.security import security_of\n"
        f"try:\n    Client({where!r}, security={security}, timeout=10)\n    print('let in')\n"
        "except (OSError, TypeError, ValueError, RuntimeError):\n    print('turned away')\n"
    )
    command = ["ip", "netns", "exec", host, sys.executable, "-c", program]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, start_new_session=True
    ).stdout.strip()


def _run(host: str, scan: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "epvs_cohort", "run", str(scan), "--out", str(out), *options]
    return subprocess.run(
        ["ip", "netns", "exec", host, *command],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_hosts_work_over_tls_and_turn_strangers_away(
    certificates: Path, strangers: Path, hosts: dict[str, str], tmp_path: Path
) -> None:
    """A run whose scan is cut off needs no count: that the worker on the other host said so is what is asked."""
    (first, address), (second, own) = hosts.items()
    scan = write_nifti(tmp_path / "scan.nii")
    scan.write_bytes(scan.read_bytes()[:-500])
    where = f"tls://{address}:8786"
    serve = ["distributed.cli.dask_scheduler", "--host", where, "--no-dashboard", *_tls(certificates)]
    work = ["distributed.cli.dask_worker", where, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    work += ["--host", own, "--resources", "prepare=1,infer=1"]
    logs = [tmp_path / f"{name}.log" for name in ("scheduler", "stranger", "worker")]
    with _started(first, *serve, log=logs[0]):
        _wait_for(logs[0], "Scheduler at")
        with _started(second, *work, *_tls(strangers), log=logs[1]):
            for security in (f"security_of(Path({str(strangers)!r}))", "None"):
                assert _knock(second, where, security) == "turned away"
        assert "Registered to" not in logs[1].read_text()
        with _started(second, *work, *_tls(certificates), log=logs[2]):
            _wait_for(logs[2], "Registered to")
            out = tmp_path / "counts.parquet"
            told = _run(first, scan, out, "--scheduler", where, "--tls", str(certificates))
    assert told.returncode == 4, told.stderr
    row = pd.read_parquet(out).iloc[0]
    assert (row["status"], row["stage"], row["error_kind"]) == ("failed", "prepare", "unreadable")
