"""Crash files and the serial plugin: the reason is there, names of people and machines are not."""

import getpass
import os
import socket

import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from qsm_nipype.execution.crash import write_crash
from qsm_nipype.execution.linear import LinearPlugin
from qsm_nipype.run.failures import reason_of

PRIVATE = {"DeviceSerialNumber": "45123", "StationName": "MRC35", "PatientName": "Doe"}


def fail(sidecar, text, times):
    raise ValueError(text)


def passed(value):
    return value


def node(tmp_path, name="fails", function=fail, **inputs):
    made = pe.Node(Function(list(inputs), ["out"], function), name, base_dir=str(tmp_path))
    made.inputs.trait_set(**inputs)
    made.config = {"execution": {"crashdump_dir": str(tmp_path / "100%% crashes")}}
    return made


def test_a_crash_file_has_reason_and_inputs_and_names_nobody(tmp_path):
    bad = node(tmp_path, sidecar=[PRIVATE, {"a": PRIVATE}], text="too short", times=[0.004] * 30)
    file = write_crash(bad, ["Traceback\n", "ValueError: too short\n"])
    assert os.path.dirname(file) == str(tmp_path / "100% crashes")
    with open(file) as stream:
        said = stream.read()
    assert reason_of(said) == "ValueError: too short" and "text = too short" in said
    for word in (*PRIVATE.values(), *PRIVATE, socket.gethostname()):
        assert word not in said
    name = os.path.basename(file)
    assert getpass.getuser() not in name and socket.gethostname() not in name


def test_a_full_disk_does_not_hide_the_failure(tmp_path, monkeypatch):
    bad = node(tmp_path, text="x")
    (tmp_path / "100% crashes").write_text("no folder")
    assert write_crash(bad, "why").endswith(".txt")


def test_one_failure_ends_what_depends_on_it_and_the_rest_completes(tmp_path):
    graph = pe.Workflow("g", base_dir=str(tmp_path))
    bad = node(tmp_path, "a_bad", text="no echo", sidecar={}, times=[])
    after, good = (node(tmp_path, name, passed, value=1) for name in ("b_after", "c_good"))
    graph.connect([(bad, after, [("out", "value")])])
    graph.add_nodes([good])
    seen = []
    plugin = LinearPlugin()
    plugin._status_callback = lambda one, status: seen.append((one.name, status))
    with pytest.raises(RuntimeError, match="1 nodes failed.*no echo"):
        graph.run(plugin=plugin)
    assert seen == [
        ("a_bad", "start"),
        ("a_bad", "exception"),
        ("c_good", "start"),
        ("c_good", "end"),
    ]
    (crash,) = (tmp_path / "100% crashes").iterdir()
    assert reason_of(crash.read_text()) == "ValueError: no echo"
