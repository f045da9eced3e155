"""Nodes with a network take the GPU when there is one, and on a cluster ask for it."""

import pytest

from qsm_nipype.execution import scheduler
from qsm_nipype.workflows.lesions import init_lesions_wf
from qsm_nipype.workflows.nodes import Resources, make_method
from qsm_nipype.workflows.segmentation import init_segmentation_wf


@pytest.mark.parametrize("gpu", [True, False])
def test_the_dentate_node_asks_for_a_gpu_where_there_is_one(gpu):
    resources = Resources(7_000_000, echoes=4, threads=2, gpu=gpu)
    chosen = {"segmentations": ["dentate"], "inversions": ["tv"]}
    workflow = init_segmentation_wf({"sub": "01"}, resources, **chosen)
    node = workflow.get_node("dentate")
    options = scheduler.resource_arguments(node, {"gpu_partition": "a100", "partition": "cpu"})
    assert node.is_gpu_node() is gpu
    assert node.interface.device == ("cuda" if gpu else "cpu")
    assert ("--gres=gpu:1" in options) is gpu
    assert f"--partition={'a100' if gpu else 'cpu'}" in options
    assert f"--cpus-per-task={1 if gpu else 2}" in options
    others = [n for n in workflow._get_all_nodes() if n is not node]
    assert others and not any(n.is_gpu_node() for n in others)


@pytest.mark.parametrize(
    ("step", "name", "gpu"),
    [
        ("mask", "net", True),
        ("inversion", "qsmgan", True),
        ("inversion", "whtv", True),
        ("segmentation", "dentate", True),
        ("mask", "quality", False),
        ("background", "lbv_tfi", False),
        ("unwrapping", "romeo", False),
    ],
)
def test_networks_and_inversions_compute_on_the_gpu(step, name, gpu):
    node = make_method(step, name, Resources(1000, gpu=True))
    assert node.is_gpu_node() is gpu
    assert ("--gres=gpu:1" in scheduler.resource_arguments(node, {})) is gpu
    assert not make_method(step, name, Resources(1000)).is_gpu_node()


def test_the_rims_network_computes_on_the_gpu(tmp_path):
    files = [tmp_path / "flair.nii", tmp_path / "lesions.nii"]
    for file in files:
        file.touch()
    workflow = init_lesions_wf(
        *map(str, files), Resources(1000, gpu=True), method="split", min_volume=10.0
    )
    marked = {node.name for node in workflow._get_all_nodes() if node.is_gpu_node()}
    assert marked == {"rimnet"}
