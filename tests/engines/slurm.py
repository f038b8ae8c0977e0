"""A throw-away Slurm on loopback: munged, slurmctld and several slurmd of one machine, all below one folder."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")


class Slurm:
    """Up between `start` and `stop`; `variables` make sbatch, srun and scontrol talk to it."""

    def __init__(self, folder: Path, n_nodes: int = 2) -> None:
        self.folder = folder
        self.n_nodes = n_nodes
        self.conf = folder / "slurm.conf"
        self.pid_files = [folder / "socket" / "munged.pid", folder / "slurmctld.pid", *(folder / f"node{i}.pid" for i in self.nodes)]

    @property
    def nodes(self) -> range:
        return range(1, self.n_nodes + 1)

    @property
    def variables(self) -> dict[str, str]:
        # the nodes are names of this machine that nothing resolves
        return {"SLURM_CONF": str(self.conf), "BENCH_MASTER_ADDR": "127.0.0.1"}

    def start(self) -> None:
        """Nothing; all nodes are idle."""
        self._write()
        munge = self.folder / "munge"
        self._run(
            "munged", f"--key-file={munge}/key", f"--socket={self.folder}/socket/munge", f"--pid-file={self.pid_files[0]}",
            f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--num-threads=2", "--force",
        )  # fmt: skip
        self._run("slurmctld", "-c", "-f", str(self.conf))
        for i in self.nodes:
            self._run("slurmd", "-c", "-N", f"node{i}", "-f", str(self.conf))
        self.wait(lambda: self._run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == str(self.n_nodes), 30)

    def stop(self) -> None:
        """Nothing; every daemon is gone, by its own pid file."""
        with suppress(subprocess.SubprocessError, AssertionError):
            self._run("scancel", "--state=RUNNING", "--state=PENDING", f"--user={os.getuid()}")
            self.wait(lambda: not self._run("squeue", "-h", "-t", "RUNNING,COMPLETING").strip(), 60)
        for file in reversed(self.pid_files):
            with suppress(OSError, ValueError):
                pid = int(file.read_text())
                os.kill(pid, signal.SIGTERM)
                self.wait(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 15)  # type: ignore[misc]

    def job(self, job: str) -> dict[str, str]:
        """What Slurm says of a job."""
        told = self._run("scontrol", "--oneliner", "show", "job", job)
        return dict(word.split("=", 1) for word in told.split() if "=" in word)

    def control(self, *arguments: str) -> str:
        """What scontrol has printed."""
        return self._run("scontrol", *arguments)

    def cancel(self, job: str) -> None:
        """Nothing; the job was told to end, as its user would."""
        self._run("scancel", job)

    def wait(self, holds: object, timeout_s: float) -> None:
        """Nothing, as soon as it holds."""
        until = time.monotonic() + timeout_s
        while not holds():  # type: ignore[operator]
            assert time.monotonic() < until, "Slurm: " + "".join(f.read_text()[-1500:] for f in self.folder.glob("*.log"))
            time.sleep(0.2)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, env=os.environ | self.variables, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise subprocess.SubprocessError(f"{command}: {done.stderr}")
        return done.stdout

    def _write(self) -> None:
        for name, mode in (("munge", 0o700), ("socket", 0o755), ("state", 0o755)):
            (self.folder / name).mkdir(mode=mode)
        (self.folder / "munge" / "key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge" / "key").chmod(0o400)
        host, ports = socket.gethostname().split(".")[0], _free_ports(self.n_nodes + 1)
        nodes = [
            f"NodeName=node{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i]} CPUs=2 RealMemory=1000 State=UNKNOWN"
            for i in self.nodes
        ]
        settings = {
            "ClusterName": "throwaway", "SlurmctldHost": f"{host}(127.0.0.1)", "SlurmctldPort": ports[0], "SlurmUser": "root",
            "SlurmdUser": "root", "AuthType": "auth/munge", "CredType": "cred/munge",
            "AuthInfo": f"socket={self.folder}/socket/munge,cred_expire=5",  # cred_expire is the delay of a requeue, too
            "StateSaveLocation": f"{self.folder}/state", "SlurmdSpoolDir": f"{self.folder}/spool-%n",
            "SlurmctldPidFile": f"{self.folder}/slurmctld.pid", "SlurmdPidFile": f"{self.folder}/%n.pid",
            "SlurmctldLogFile": f"{self.folder}/slurmctld.log", "SlurmdLogFile": f"{self.folder}/%n.log",
            "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none", "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none", "MpiDefault": "none", "SwitchType": "switch/none",
            "SchedulerType": "sched/backfill", "SchedulerParameters": "sched_interval=1,batch_sched_delay=0,bf_interval=1,requeue_delay=1",
            "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core", "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE", "JobRequeue": 1, "KillWait": 15, "ReturnToService": 2, "SlurmdTimeout": 30,
            "SlurmdParameters": "config_overrides", "SlurmctldParameters": "enable_configless",
        }  # fmt: skip
        partitions = [
            "PartitionName=spot Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20",
            "PartitionName=prio Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF",
        ]
        lines = [*(f"{name}={value}" for name, value in settings.items()), *nodes, *partitions]
        self.conf.write_text("\n".join(lines) + "\n")


def missing() -> str:
    """Why no Slurm can be started here; empty where it can. Debian's packages are installed where that is possible."""
    if os.geteuid() != 0:
        return "Slurm on loopback wants root: slurmd starts jobs as their users"
    if not all(map(shutil.which, PROGRAMS)) and shutil.which("apt-get"):
        with suppress(subprocess.SubprocessError):
            subprocess.run(
                ["apt-get", "install", "-y", "-qq", "slurm-wlm", "munge"],
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, timeout=240, check=False, capture_output=True,
            )  # fmt: skip
    lacking = [name for name in PROGRAMS if not shutil.which(name)]
    return f"not installed, and apt-get could not: {', '.join(lacking)} (packages slurm-wlm, munge)" if lacking else ""


def _free_ports(n: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
