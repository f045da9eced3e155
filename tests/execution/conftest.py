"""Small workflows whose nodes say when they ran, and Nipype set as `qsm-nipype` sets it."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

SLURM_UP = Path(__file__).parents[1] / "slurm_up.sh"
DAEMONS = ("/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd")


def _wait(condition, seconds=30.0):
    """Wait until `condition()` is true; its value, false after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return value


@pytest.fixture
def wait_for():
    return _wait


@pytest.fixture
def gone():
    """Whether a process is dead, or a zombie that nobody has waited for yet."""

    def asked(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
        except OSError:
            return True

    return asked


@pytest.fixture
def nipype_settings(tmp_path):
    """Execution settings of a test's workflow; crash files land in `tmp_path/crashes`."""
    return {
        "execution": {
            "poll_sleep_duration": "0.05",
            "hash_method": "content",
            "crashdump_dir": str(tmp_path / "crashes"),
            "crashfile_format": "txt",
            "check_version": "false",
            "local_hash_check": "true",
            "stop_on_first_crash": "false",
            "remove_unnecessary_outputs": "false",
            "job_finished_timeout": "5",
        }
    }


@pytest.fixture
def workflow(tmp_path, nipype_settings):
    """Make an empty workflow, and nodes from functions (`node(label, function, inputs)`)."""
    from nipype import config
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine

    config.update_config(nipype_settings)

    class Build:
        def __init__(self):
            self.graph = engine.Workflow("wf", base_dir=str(tmp_path / "work"))
            self.graph.config = nipype_settings
            self.crashes = tmp_path / "crashes"

        def node(self, label, function, after=None, mem_gb=0.1, n_procs=1, **inputs):
            names = [*inputs, "previous"] if after is not None else [*inputs]
            interface = Function(function=function, input_names=names, output_names=["out"])
            node = engine.Node(interface, name=label, mem_gb=mem_gb, n_procs=n_procs)
            node.inputs.trait_set(**inputs)
            if after is None:
                self.graph.add_nodes([node])
            else:
                self.graph.connect(after, "out", node, "previous")
            return node

        def crash_text(self):
            return "\n".join(f.read_text() for f in sorted(self.crashes.glob("crash*.txt")))

    return Build()


# ---- a private SLURM -------------------------------------------------------------------------


def free_ports(count):
    """First of `count` ports in a row that nobody listens on."""
    while True:
        first = random.SystemRandom().randrange(20000, 32000)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Folder of a running private SLURM; its SLURM_CONF is in the environment of the tests."""
    if not all(map(shutil.which, DAEMONS)):
        pytest.skip("slurm-wlm and munge are not installed")
    if os.getuid() != 0:
        pytest.skip("the private SLURM must be started by root")
    folder = tmp_path_factory.mktemp("slurm")
    ports = {**os.environ, "SLURM_CTLPORT": str(free_ports(4))}
    subprocess.run([SLURM_UP, folder], check=True, timeout=60, env=ports)
    yield folder
    subprocess.run([SLURM_UP, "--stop", folder], check=True, timeout=60)


class Cluster:
    """A running SLURM and how a test talks to it."""

    def __init__(self, folder):
        self.folder = folder

    @staticmethod
    def tell(*command):
        """Output of a command of SLURM."""
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return answer.stdout.strip()

    def jobs(self, states):
        """Numbers of the jobs in these states."""
        return self.tell("squeue", "-h", "-t", states, "-o", "%A").split()

    wait_for = staticmethod(_wait)

    def stop_controller(self):
        pid = int((self.folder / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        assert self.wait_for(lambda: not Path(f"/proc/{pid}").exists())

    def start_controller(self):
        subprocess.run(["/usr/sbin/slurmctld", "-i"], check=True, timeout=30, cwd=self.folder)
        assert self.wait_for(lambda: "idle" in self.tell("sinfo", "-h", "-o", "%T"))

    def fail_machine(self):
        """Take machine cpu1 down, with what runs on it, and bring it back."""
        self.tell("scontrol", "update", "NodeName=cpu1", "State=DOWN", "Reason=test")
        time.sleep(1.5)
        self.tell("scontrol", "update", "NodeName=cpu1", "State=RESUME")


@pytest.fixture
def slurm(cluster, monkeypatch):
    """The cluster; its queue is emptied after the test."""
    monkeypatch.setenv("SLURM_CONF", str(cluster / "slurm.conf"))
    made = Cluster(cluster)
    yield made
    made.tell("scancel", "--user=root")
    made.wait_for(lambda: not made.jobs("PD,R,S,CG"))
