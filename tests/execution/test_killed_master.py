"""A master that is killed: its workers end with it, and a rerun takes what was finished."""

import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

MASTER = """
    import sys
    from nipype import config
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine
    from qsm_nipype.execution.multiproc import MultiProcPlugin

    def step(number, folder, seconds, previous=""):
        import hashlib, os, time
        time.sleep(seconds)
        with open(f"{folder}/runs", "a") as stream:
            stream.write(f"{number}\\n")
        text = hashlib.sha256(f"{number}{previous}".encode()).hexdigest()
        file = os.path.abspath("result.txt")
        with open(file, "w") as stream:
            stream.write(text)
            stream.flush()
            time.sleep(seconds)
        return text

    def linger(folder):
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "120"])
        with open(f"{folder}/pids", "w") as stream:
            stream.write(f"{os.getpid()} {child.pid} .")
        time.sleep(120)

    def node(function, name, **inputs):
        names = [*inputs, "previous"] if function is step else [*inputs]
        made = engine.Node(Function(function=function, input_names=names,
                                    output_names=["out"]), name=name)
        made.inputs.trait_set(**inputs)
        return made

    if __name__ == "__main__":
        folder, kind, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
        config.update_config({"execution": {
            "poll_sleep_duration": "0.05", "hash_method": "content", "check_version": "false",
            "crashdump_dir": folder, "remove_unnecessary_outputs": "false"}})
        wf = engine.Workflow("wf", base_dir=folder)
        if kind == "linger":
            wf.add_nodes([node(linger, "long", folder=folder)])
        else:
            made = [node(step, f"n{i}", number=i, folder=folder, seconds=seconds)
                    for i in range(6)]
            for before, after in zip(made, made[2:]):
                wf.connect(before, "out", after, "previous")
        wf.run(plugin=MultiProcPlugin({"n_procs": 2, "memory_gb": 2,
                                       "preload": ["nipype.pipeline.engine"]}))
        print("complete")
"""


@pytest.fixture
def master(tmp_path):
    """Start a program that runs a workflow in `tmp_path/run`; killed at the end of the test."""
    script = tmp_path / "master.py"
    script.write_text(textwrap.dedent(MASTER))
    (tmp_path / "run").mkdir()
    started = []

    def start(kind, seconds=0.1):
        command = [
            sys.executable,
            str(script),
            str(tmp_path / "run"),
            kind,
            str(seconds),
        ]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            # a program in the background of a script inherits that Ctrl-C is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_and_their_children_end_with_the_master(master, tmp_path, number, wait_for, gone):
    process = master("linger")
    file = tmp_path / "run" / "pids"
    assert wait_for(lambda: file.exists() and file.read_text().endswith("."))
    pids = file.read_text().split()[:2]
    assert not any(map(gone, pids))
    process.send_signal(number)
    assert wait_for(lambda: all(map(gone, pids)), seconds=10)
    process.wait(20)


def outputs(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.glob("wf/n*/result.txt")}


def test_a_rerun_after_a_killed_master_takes_what_is_finished(master, tmp_path, wait_for):
    process = master("steps", 0.4)
    runs = tmp_path / "run" / "runs"
    assert wait_for(lambda: runs.exists() and len(runs.read_text().split()) >= 3)
    process.kill()
    process.wait()
    finished = [f.parent.name for f in (tmp_path / "run").glob("wf/n*/result_*.pklz")]
    assert finished
    runs.unlink()
    again = master("steps", 0.4)
    assert "complete" in again.communicate(timeout=60)[0]
    assert not {f"n{number}" for number in runs.read_text().split()} & set(finished)
    assert len(outputs(tmp_path / "run")) == 6


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_output(master, tmp_path):
    run = tmp_path / "run"
    whole = master("steps", 0.05)
    assert "complete" in whole.communicate(timeout=60)[0]
    expected = outputs(run)
    assert len(expected) == 6
    moments = random.Random(8)
    for _ in range(20):
        for file in run.glob("wf/n*/_0x*.json"):
            if moments.random() < 0.5:  # forget some, so that there is always work to kill
                file.unlink()
        process = master("steps", 0.05)
        time.sleep(moments.uniform(0.5, 2.5))
        process.kill()
        process.wait()
    assert "complete" in master("steps", 0.05).communicate(timeout=60)[0]
    assert outputs(run) == expected
