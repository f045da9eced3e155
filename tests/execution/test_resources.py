"""Limits come from whoever set one; plugin files are understood or refused in one sentence."""

import os
import sys
import textwrap
from pathlib import Path

import pytest

from qsm_nipype.errors import UsageError
from qsm_nipype.execution import plugin, resources
from qsm_nipype.execution.plugin import plugin_settings


@pytest.fixture
def free_machine(monkeypatch):
    """A machine of 16 processors and 64 GB on which nothing else is limited."""
    monkeypatch.setattr(resources, "_affinity", lambda: 16)
    monkeypatch.setattr(resources, "_cgroup_folders", lambda controller: [])
    memory = type("Memory", (), {"total": 64 * resources.GIB})
    monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: memory)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 16),
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "8"}, 4),
        ({"SLURM_CPUS_ON_NODE": "8"}, 8),
        ({"SLURM_CPUS_ON_NODE": "64"}, 16),
        ({"SLURM_CPUS_PER_TASK": "many"}, 16),
    ],
)
def test_processors_follow_slurm(free_machine, environment, expected):
    assert resources.available_cpus(environment) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 57.6),
        ({"SLURM_MEM_PER_NODE": "8192"}, 8.0),
        ({"SLURM_MEM_PER_NODE": "0"}, 57.6),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_PER_TASK": "4"}, 8.0),
        ({"SLURM_MEM_PER_CPU": "2048"}, 2.0),
        ({"SLURM_MEM_PER_NODE": "999999"}, 57.6),
    ],
)
def test_memory_follows_slurm(free_machine, environment, expected):
    assert resources.available_memory_gb(environment) == expected


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({"cpu.max": "250000 100000", "memory.max": str(8 * 2**30)}, 2, 7.2),
        ({"cpu.max": "max 100000", "memory.max": "max"}, 16, 57.6),
        ({"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, 3, 57.6),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 16, 57.6),
        ({"memory.limit_in_bytes": "9223372036854771712"}, 16, 57.6),
        ({"memory.limit_in_bytes": str(4 * 2**30)}, 16, 3.6),
        ({"cpu.max": "50000 100000"}, 1, 57.6),
    ],
)
def test_control_groups_limit(free_machine, monkeypatch, tmp_path, files, cpus, memory):
    (tmp_path / "job").mkdir()
    for name, text in files.items():
        (tmp_path / "job" / name).write_text(text + "\n")
    monkeypatch.setattr(
        resources, "_cgroup_folders", lambda controller: [tmp_path / "job", tmp_path]
    )
    assert resources.available_cpus({}) == cpus
    assert resources.available_memory_gb({}) == memory


@pytest.mark.parametrize(
    ("lines", "controller", "expected"),
    [
        ("0::/a/b", "memory", ["a/b", "a", ""]),
        ("4:memory:/job\n0::/", "memory", ["memory/job", "memory", ""]),
        ("3:cpu,cpuacct:/job", "cpu", ["cpu,cpuacct/job", "cpu,cpuacct"]),
        ("3:cpuset:/job", "cpu", []),
    ],
)
def test_groups_of_both_versions_are_found(monkeypatch, tmp_path, lines, controller, expected):
    (tmp_path / "cpu,cpuacct").mkdir()
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(Path, "read_text", lambda self: lines)
    folders = resources._cgroup_folders(controller, tmp_path)
    assert folders == [tmp_path / name for name in expected]


def test_the_limits_of_this_machine_are_sane():
    assert resources.available_cpus() >= 1
    assert resources.available_memory_gb() >= 0.5


# ---- GPUs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "wanted", "expected"),
    [
        ("0,1", None, ["0", "1"]),
        ("2, GPU-8f", 2, ["2", "GPU-8f"]),
        ("0,1", 1, ["0"]),
        ("", None, []),
        ("0", 0, []),
    ],
)
def test_only_visible_gpus_are_handed_out(visible, wanted, expected):
    assert resources.gpu_ids(wanted, {"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_more_gpus_than_there_are_is_refused():
    with pytest.raises(UsageError, match="--n-gpus 3: only 1 GPUs are visible"):
        resources.gpu_ids(3, {"CUDA_VISIBLE_DEVICES": "0"})


def test_gpus_are_counted_by_the_driver(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert resources.gpu_ids(None, {}) == ["0", "1"]
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert resources.gpu_ids(None, {}) == []


# ---- plugins ---------------------------------------------------------------------------------


def plugin_file(tmp_path, text):
    file = tmp_path / "plugin.yml"
    file.write_text(textwrap.dedent(text))
    return file


def test_multiproc_gets_the_limits(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    made, args = plugin_settings("MultiProc", 3, 2.5, 1)
    assert (made.processors, made.gpu_ids) == (3, ["5"])
    assert made.memory_gb == pytest.approx(2.5 - plugin.OWN_GB)
    assert made.plugin_args == args


def test_more_threads_per_node_than_processors_is_refused():
    with pytest.raises(UsageError, match="--omp-nthreads 4: .*raise --nprocs"):
        plugin_settings("MultiProc", 2, 1.0, 0, omp_nthreads=4)


@pytest.mark.parametrize("name", ["SLURM", "SLURMGraph"])
def test_slurm_takes_its_options_from_the_file(tmp_path, name):
    file = plugin_file(tmp_path, f"plugin: {name}\nplugin_args: {{partition: long, qos: low}}\n")
    made, args = plugin_settings("MultiProc", 2, 1.0, 0, 4, user_file=file)
    assert type(made).__name__ == f"{name}Plugin"
    assert made.plugin_args == args == {"partition": "long", "qos": "low"}


def test_other_plugins_of_nipype_go_by_name():
    assert plugin_settings("SGE") == ("SGE", {})
    assert type(plugin_settings("Linear")[0]).__module__ == "qsm_nipype.execution.linear"


def test_a_plugin_file_wins_over_options(tmp_path):
    file = plugin_file(tmp_path, "plugin: MultiProc\nplugin_args: {n_procs: 7}\n")
    made, args = plugin_settings("Linear", 3, 2.5, 0, user_file=file)
    assert (made.processors, args["n_procs"]) == (7, 7)
    file = plugin_file(tmp_path, "plugin: SGE\nplugin_args: {qsub_args: -q all.q}\n")
    assert plugin_settings(user_file=file) == ("SGE", {"qsub_args": "-q all.q"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plugin: [", "cannot be read"),
        ("- MultiProc", "has the keys plugin"),
        ("plugin_args: 3", "has the keys plugin"),
        ("plugin: 3", "must be a name"),
        ("plugins: MultiProc", "unknown key 'plugins'"),
    ],
)
def test_a_plugin_file_of_another_form_is_refused(tmp_path, text, message):
    with pytest.raises(UsageError, match=f"plugin.yml: .*{message}"):
        plugin_settings(user_file=plugin_file(tmp_path, text))
    with pytest.raises(UsageError, match="absent.yml: .*cannot be read"):
        plugin_settings(user_file=tmp_path / "absent.yml")


# ---- numba's cache ---------------------------------------------------------------------------


def test_numba_keeps_its_own_cache_where_it_can_write(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    assert resources.numba_cache_dir(tmp_path) is None


def test_numba_caches_in_the_work_folder_of_a_read_only_container(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    really = resources._writable

    def read_only_root(folder):
        return tmp_path in folder.parents and really(folder)

    monkeypatch.setattr(resources, "_writable", read_only_root)
    assert resources.numba_cache_dir(tmp_path) == tmp_path / "numba"
    assert (tmp_path / "numba").is_dir()


def test_what_the_image_compiled_is_copied_from_its_read_only_cache(monkeypatch, tmp_path):
    image, work = tmp_path / "image", tmp_path / "work"
    (image / "core_ab12").mkdir(parents=True)
    for name in ("romeo.f-1.py311.nbi", "romeo.f-1.py311.1.nbc"):
        (image / "core_ab12" / name).write_text("from the image")
    (work / "numba" / "core_ab12").mkdir(parents=True)
    (work / "numba" / "core_ab12" / "romeo.f-1.py311.nbi").write_text("newer")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(image))
    really = resources._writable
    monkeypatch.setattr(resources, "_writable", lambda f: work in f.parents and really(f))
    resources.use_numba_cache(work)
    assert os.environ["NUMBA_CACHE_DIR"] == str(work / "numba")
    copies = {p.name: p.read_text() for p in (work / "numba" / "core_ab12").iterdir()}
    assert copies == {
        "romeo.f-1.py311.nbi": "newer",
        "romeo.f-1.py311.1.nbc": "from the image",
    }


def test_nowhere_to_cache_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "_writable", lambda folder: False)
    with pytest.raises(UsageError, match="set NUMBA_CACHE_DIR"):
        resources.numba_cache_dir(tmp_path)


def test_reading_the_limits_needs_no_torch():
    import subprocess

    code = "import sys, qsm_nipype.execution.resources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
