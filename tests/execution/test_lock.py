"""One run at a time per participant; a dead run's lock is no obstacle."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from qsm_nipype.errors import UsageError
from qsm_nipype.execution import lock
from qsm_nipype.execution.lock import output_lock
from qsm_nipype.execution.process import Owner


def lock_file(out, label="sub-01"):
    return out / "logs" / "locks" / f"{label}.lock"


def forge(out, **changes):
    """A lock as another process would have left it."""
    file = lock_file(out)
    file.parent.mkdir(parents=True)
    content = {**Owner.current().record(), "token": "other", "since": 0.0, **changes}
    file.write_text(json.dumps(content))
    return file


def test_the_second_run_is_refused_with_the_owner_and_the_cure(tmp_path):
    with output_lock(tmp_path, ["sub-01", "sub-02"]):
        with (
            pytest.raises(UsageError, match=rf"sub-02 is being .* process {os.getpid()} on "),
            output_lock(tmp_path, ["sub-00", "sub-02"]),
        ):
            pass
        assert not lock_file(tmp_path, "sub-00").exists()  # a refused run holds nothing
        assert lock_file(tmp_path, "sub-02").exists()
    assert list((tmp_path / "logs" / "locks").iterdir()) == []


def test_different_participants_run_side_by_side(tmp_path):
    with output_lock(tmp_path, ["sub-01"]), output_lock(tmp_path, ["sub-02"]):
        assert lock_file(tmp_path, "sub-01").exists()
        assert lock_file(tmp_path, "sub-02").exists()


def test_another_process_is_refused(tmp_path):
    code = (
        "import sys\nfrom qsm_nipype.execution.lock import output_lock\n"
        "with output_lock(sys.argv[1], ['sub-01']): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with output_lock(tmp_path, ["sub-01"]):
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "UsageError" in refused.stderr
    assert f"process {os.getpid()}" in refused.stderr
    assert subprocess.run(command, check=False).returncode == 0


def test_the_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), output_lock(tmp_path, ["sub-01"]):
        raise RuntimeError
    assert not lock_file(tmp_path).exists()


def test_a_killed_runs_lock_is_taken_over(tmp_path):
    code = (
        "import os, signal, sys\nfrom qsm_nipype.execution.lock import output_lock\n"
        "with output_lock(sys.argv[1], ['sub-01']): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert lock_file(tmp_path).exists()
    with output_lock(tmp_path, ["sub-01"]):
        pass


def test_a_reused_process_number_is_not_taken_for_the_owner(tmp_path):
    forge(tmp_path, started="1")  # this process's number, another start
    with output_lock(tmp_path, ["sub-01"]):
        pass


def test_an_owner_elsewhere_counts_as_alive_while_it_touches_its_lock(tmp_path):
    file = forge(tmp_path, kernel="another boot")
    with (
        pytest.raises(UsageError, match=f"on another machine.*remove {file}"),
        output_lock(tmp_path, ["sub-01"]),
    ):
        pass
    old = time.time() - lock.STALE_AFTER - 5
    os.utime(file, (old, old))
    with output_lock(tmp_path, ["sub-01"]):
        pass


def test_a_held_lock_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "TOUCH_EVERY", 0.05)
    with output_lock(tmp_path, ["sub-01"]):
        os.utime(lock_file(tmp_path), (0, 0))
        end = time.monotonic() + 10
        while lock_file(tmp_path).stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert lock_file(tmp_path).stat().st_mtime > 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "[" * 10**5])
def test_an_unreadable_lock_counts_by_its_age(tmp_path, content):
    file = forge(tmp_path)
    file.write_text(content)
    with (
        pytest.raises(UsageError, match="another run"),
        output_lock(tmp_path, ["sub-01"]),
    ):
        pass
    os.utime(file, (0, 0))
    with output_lock(tmp_path, ["sub-01"]):
        pass


def test_a_lock_taken_away_is_not_removed_at_the_end(tmp_path):
    with output_lock(tmp_path, ["sub-01"]):
        lock_file(tmp_path).unlink()
        lock_file(tmp_path).write_text(json.dumps({"token": "someone else"}))
    assert lock_file(tmp_path).exists()


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path):
    for round_number in range(5):
        out = tmp_path / str(round_number)
        forge(out, started="1")
        inside, most, refused = [0], [0], []
        start = threading.Barrier(8)

        def run(out=out, inside=inside, most=most, refused=refused, start=start):
            start.wait()
            try:
                with output_lock(out, ["sub-01"]):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.3)
                    inside[0] -= 1
            except UsageError:
                refused.append(1)

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most[0] == 1
        assert refused
