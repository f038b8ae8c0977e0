"""Secrets planted in the environment, in proxies, in a URI and in what a rank dies of: none is in any file, log or line printed."""

import os
from pathlib import Path

import pytest

from tests.conftest import SMALL, run_bench
from tests.faults.conftest import QUICK

# each has `planted` in it, so that one search finds them all; the shape of each is another
SECRETS = {
    "HF_TOKEN": "hf_planted0123456789abcdefghij",
    "AWS_SECRET_ACCESS_KEY": "wJalr/planted+Xutn==",
    "AWS_SESSION_TOKEN": "planted.Session.123",
    "NCCL_SITE_PASSWORD": "planted-Nccl-1",
    "SLURM_JWT": "eyJhbGciOi.planted1.eyJzdWI",
    "MY_SERVICE_API_KEY": "Planted-planted-9",
    "https_proxy": "http://user:planted-proxy-7@proxy.invalid:3128",
    "NCCL_NET_URL": "tcp://planted-user-3@10.0.0.1:1",
}
# what a rank of the test dies of, and what a library in C++ would print around Python's streams
DYING = """
import os, sys
if "worker" in sys.orig_argv:
    import bench.config.compose as compose
    def die(plain):
        told = " ".join(os.environ[name] for name in {names!r})
        os.write(2, ("C++: " + told + "\\n").encode())
        print("printed:", told, flush=True)
        raise RuntimeError("cannot reach https://user:" + os.environ["HF_TOKEN"] + "@host/?token=planted99 with " + told)
    compose.load = die
"""


def assert_no_secret(folder: Path, *texts: str) -> None:
    """Nothing; fails with the name of the file that has one."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [path for path in files if b"lanted" in path.read_bytes()] == []
    assert not [text for text in texts if "lanted" in text]


def test_a_run_tells_no_secret(tmp_path: Path) -> None:
    done = run_bench("run", *QUICK, "measure.steps=4", "device.n_devices=1", "out=kept", cwd=tmp_path, env=SECRETS)
    assert done.returncode == 0, done.stderr
    assert_no_secret(tmp_path, done.stdout, done.stderr)
    kept = (tmp_path / "kept" / "result.json").read_text()
    assert '"NCCL_SITE_PASSWORD": "***"' in kept
    assert '"NCCL_NET_URL": "tcp://***@10.0.0.1:1"' in kept


@pytest.mark.slow
def test_a_rank_that_dies_tells_no_secret(tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(DYING.format(names=sorted(SECRETS)))
    path = os.pathsep.join([str(tmp_path / "hook"), os.environ.get("PYTHONPATH", "")])
    done = run_bench("run", *QUICK, "device.n_devices=1", "out=kept", cwd=tmp_path, env=SECRETS | {"PYTHONPATH": path})
    (tmp_path / "hook" / "sitecustomize.py").unlink()
    for cached in (tmp_path / "hook").rglob("*.pyc"):
        cached.unlink()
    assert done.returncode == 1
    assert "rank 0: RuntimeError: cannot reach https://***@host/?token=***" in done.stderr
    log = (tmp_path / "kept" / "log" / "rank0.log").read_text()
    assert "C++: ***" in log
    assert "printed: ***" in log
    assert "Traceback" in log
    assert_no_secret(tmp_path, done.stdout, done.stderr)


@pytest.mark.parametrize("verb", ["run", "sweep", "predict"])
def test_a_uri_with_credentials_is_refused_without_repeating_them(verb: str, tmp_path: Path) -> None:
    done = run_bench(verb, *SMALL, "results_uri='s3://AKIAIOSFODNN7EXAMPLE:planted@bucket/x'", "out=kept", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == ("bench: results_uri: s3://***@... carries credentials; leave them out and set the store's own variables\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"lanted" in path.read_bytes()] == []
