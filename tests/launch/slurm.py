"""A real SLURM of one node, for tests: three daemons in a temporary folder, on loopback, ended when the tests are done.

Tests take the fixture `slurm` (tests/launch/conftest.py) and the mark `slurm`; sbatch and its sisters then talk to this
cluster, in the test's process and in those that it starts:

    @pytest.mark.slurm
    def test_something(slurm):
        job = slurm.sbatch("--array=0-2", "--gpus-per-node=0", "slurm/array.sbatch", "--config", "configs/demo.yaml")
        slurm.scancel("--signal=USR1", f"{job}_1")
        slurm.wait(job, "COMPLETED")  # all tasks; a requeued one starts within seconds, not after two minutes
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
N_GPUS = 8
_POLL_SECONDS = 0.2
# The node refuses what is started in the second in which it ended the job's first run: "credential revoked".
_SECONDS_AFTER_END = 2.0

# `config_overrides` and null devices as GPUs: the node has what this says, whatever the machine has.
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=3600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=32 RealMemory=1000000 Gres=gpu:{n_gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None where one can."""
    if os.geteuid() != 0:
        return "a SLURM for tests needs root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"SLURM is not installed: no {', '.join(absent)} (apt-get install slurm-wlm munge)" if absent else None


class Slurm:
    """One node with 32 CPUs and 8 GPUs, none of which need be there.

    Args:
        folder: Where its configuration, state and logs go.

    Attributes:
        environment: Variables that make SLURM's commands talk to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._ended: dict[str, float] = {}  # when requeued jobs were first seen without processes

    def start(self, timeout: float = 60) -> None:
        """Start the daemons, and wait until the node takes jobs."""
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool", "gpus"):
            (self.folder / name).mkdir(parents=True)
        for number in range(N_GPUS):
            os.mknod(self.folder / "gpus" / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        text = _CONFIGURATION.format(host=host, folder=self.folder, ports=_free_ports(2), n_gpus=N_GPUS)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(
            f"NodeName={host} Name=gpu File={self.folder}/gpus/gpu[0-{N_GPUS - 1}]\n"
        )
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self.call("munged", "--force", f"--socket={self.folder}/munge.socket", *munge)
        self.call("slurmctld")
        self.call("slurmd", "-N", host)
        deadline = time.monotonic() + timeout
        while (state := self.call("sinfo", "--noheader", "--format=%T", check=False).strip()) != "idle":
            if time.monotonic() > deadline:
                logs = [f"{path}:\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log")]
                raise TimeoutError(f"the node is {state!r} after {timeout} s\n" + "\n".join(logs))
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End the daemons, and wait until they are gone."""
        for name in ("slurmd", "slurmctld", "munge"):
            try:
                process = int((self.folder / f"{name}.pid").read_text())
                os.kill(process, signal.SIGTERM)
            except (OSError, ValueError):
                continue
            deadline = time.monotonic() + 10
            while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)

    def call(self, *command: object, check: bool = True) -> str:
        """Run a command that talks to this cluster; its standard output."""
        words = [str(word) for word in command]
        done = subprocess.run(words, env={**os.environ, **self.environment}, capture_output=True, text=True)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout

    def sbatch(self, *arguments: object) -> str:
        """Submit; the job's id."""
        return self.call("sbatch", "--parsable", *arguments).strip()

    def scancel(self, *arguments: object) -> None:
        """Cancel or signal."""
        self.call("scancel", *arguments)

    def hold(self, is_held: bool) -> None:
        """Let no job start, or let them start again."""
        self.call("scontrol", "update", "PartitionName=main", f"State={'DOWN' if is_held else 'UP'}")

    def states(self, job: str) -> dict[str, str]:
        """State of a job, or of each task of an array, by id such as 7 or 7_0."""
        lines = self.call("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i %A %T %r")
        found = {}
        for identifier, job_id, state, reason in (line.split(maxsplit=3) for line in lines.splitlines()):
            found[identifier] = state
            # Requeued. Its first run must have ended, else that run's exit code would be taken for the second's.
            if reason != "BeginTime" or self._has_processes(job_id):
                self._ended.pop(identifier, None)
            elif time.monotonic() - self._ended.setdefault(identifier, time.monotonic()) > _SECONDS_AFTER_END:
                self.call("scontrol", "update", f"JobId={identifier}", "StartTime=now", check=False)
        return found

    def _has_processes(self, job_id: str) -> bool:
        lines = self.call("scontrol", "listpids", check=False).splitlines()[1:]
        return any(line.split()[1] == job_id for line in lines)

    def wait(self, job: str, *wanted: str, timeout: float = 60) -> dict[str, str]:
        """Wait until a job, or all tasks of an array, are in one of some states; see `states`."""
        deadline = time.monotonic() + timeout
        while not (states := self.states(job)) or not set(states.values()) <= set(wanted):
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} is {states} after {timeout} s, expected {wanted}")
            time.sleep(_POLL_SECONDS)
        return states


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
