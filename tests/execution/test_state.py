"""A participant's state is always whole, and says what became of a run however it ended."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from qsm_nipype.execution import state


def test_what_is_written_is_read_back(tmp_path):
    fault = state.failure("tkd", "Traceback\n  somewhere\nValueError: no\n", "crash.txt")
    written = state.write(
        tmp_path, "sub-01", "failed", nodes_total=9, nodes_done=4, failures=[fault], settings="ab"
    )
    read = state.read(tmp_path, "sub-01")
    assert read.failures == (
        {"node": "tkd", "reason": "ValueError: no", "crash_file": "crash.txt", "acquisition": ""},
    )
    assert (read.nodes_done, read.nodes_total, read.settings) == (4, 9, "ab")
    assert read.owner["pid"] == os.getpid() == written.owner["pid"]
    assert read.alive() is True


def test_a_later_write_keeps_what_it_does_not_name(tmp_path):
    first = state.write(tmp_path, "sub-01", "running", nodes_total=9, settings="ab")
    done = state.write(tmp_path, "sub-01", "done", nodes_done=9)
    assert (done.nodes_total, done.settings, done.started) == (9, "ab", first.started)


def test_a_new_run_forgets_the_failures_of_the_last(tmp_path):
    state.write(tmp_path, "sub-01", "failed", failures=[state.failure("tkd", "no")])
    assert state.write(tmp_path, "sub-01", "running").failures == ()


def test_an_unknown_status_is_an_error_of_the_program(tmp_path):
    with pytest.raises(ValueError, match="halfway"):
        state.write(tmp_path, "sub-01", "halfway")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": 99}', '{"schema": 1, "x": 2}'])
def test_a_file_of_another_kind_is_no_state(tmp_path, text):
    state.write(tmp_path, "sub-02", "done")
    (tmp_path / "logs" / "state" / "sub-01.json").write_text(text)
    assert state.read(tmp_path, "sub-01") is None
    found = {s.label: s.status for s in state.read_all(tmp_path)}
    assert found == {"sub-01": "failed", "sub-02": "done"}


def test_a_reader_never_sees_a_half_written_state(tmp_path):
    stop = threading.Event()
    state.write(tmp_path, "sub-01", "running")
    file = tmp_path / "logs" / "state" / "sub-01.json"

    def rewrite():
        while not stop.is_set():
            state.write(tmp_path, "sub-01", "running", log="x" * 20000)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(200):
            assert json.loads(file.read_text())["label"] == "sub-01"
    finally:
        stop.set()
        writer.join()
    assert [f.name for f in file.parent.iterdir()] == ["sub-01.json"]


def test_a_run_left_by_an_error_has_failed_with_its_reason(tmp_path):
    with (
        pytest.raises(OSError, match="disk full"),
        state.running(tmp_path, {"sub-01": "ab", "sub-02": "ab"}),
    ):
        state.write(tmp_path, "sub-01", "done")
        raise OSError("disk full")
    assert state.read(tmp_path, "sub-01").status == "done"
    second = state.read(tmp_path, "sub-02")
    assert (second.status, second.settings) == ("failed", "ab")
    assert second.failures[0]["reason"] == "OSError: disk full"


def test_a_run_that_does_not_say_how_it_ended_is_not_done(tmp_path):
    with state.running(tmp_path, {"sub-01": "ab"}):
        pass
    assert state.read(tmp_path, "sub-01").status == "failed"


def run_and_signal(tmp_path, number):
    code = (
        "import sys, time\nfrom qsm_nipype.execution import state\n"
        "with state.running(sys.argv[1], {'sub-01': 'ab'}):\n"
        "    print('ready', flush=True)\n    time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    code = process.wait(20)
    process.stdout.close()
    return code, state.read(tmp_path, "sub-01")


def test_sigterm_is_reported(tmp_path):
    code, read = run_and_signal(tmp_path, signal.SIGTERM)
    assert code == 143
    assert read.status == "failed"
    assert "SIGTERM (time limit, scancel, or kill)" in read.failures[0]["reason"]


def test_after_sigkill_the_writer_is_seen_to_be_dead(tmp_path):
    _, read = run_and_signal(tmp_path, signal.SIGKILL)
    assert read.status == "running"
    assert read.alive() is False


def test_the_handler_of_sigterm_is_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with state.running(tmp_path, {"sub-01": "ab"}):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_digest_follows_values_not_order():
    assert state.digest({"a": 1, "b": 2}) == state.digest({"b": 2, "a": 1})
    assert state.digest({"a": 1}) != state.digest({"a": 2})
