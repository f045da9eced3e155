"""Every workflow keeps its docstring's promise: its ports are the ones written there."""

import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import networkx as nx
import pytest
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.engine.utils import generate_expanded_graph

from qsm_nipype import methods
from qsm_nipype.dataset.acquisitions import Acquisition
from qsm_nipype.dataset.derivatives import table
from qsm_nipype.dataset.lesion_files import LesionFiles
from qsm_nipype.dataset.own_files import OwnFiles
from qsm_nipype.interfaces.base import code_version
from qsm_nipype.settings import Settings
from qsm_nipype.workflows import (
    background,
    base,
    fieldmap,
    given,
    inversion,
    lesions,
    masking,
    outputs,
    phase,
    relaxometry,
    report,
    segmentation,
    separation,
    swi,
    two_stage,
    vessels,
)
from qsm_nipype.workflows.nodes import INTERPRETER_GB, Resources

SIZE = Resources(1_000_000, 3)
TE = (0.004, 0.012, 0.02)
STATIC = {"entities": {"sub": "01"}, "datatype": "anat"}
KINDS = [kind for kind, row in table().items() if "from" in row]

FACTORIES = {
    phase.init_phase_wf: (({"phase": [], "magnitude": []}, [], TE, SIZE), {"offset": "mcpc3ds"}),
    fieldmap.init_fieldmap_wf: ((TE, 3.0, SIZE), {"unwrapping": "romeo", "fit": "linear"}),
    masking.init_masking_wf: ((SIZE,), {"mask": "quality", "trim": "reliable"}),
    given.init_given_wf: (("chi", __file__, SIZE), {}),
    background.init_background_wf: ((SIZE,), {"background": "lbv"}),
    inversion.init_inversion_wf: (
        (3.0, 0.012, SIZE),
        {"inversions": ("tv", "tkd"), "reference": "brain"},
    ),
    relaxometry.init_relaxometry_wf: ((TE, SIZE), {"relaxometry": "arlo"}),
    outputs.init_outputs_wf: ((STATIC, [], Path("out"), SIZE), {"kinds": KINDS}),
    lesions.init_lesions_wf: (
        (__file__, __file__, SIZE),
        {"method": "split", "min_volume": 10.0},
    ),
    report.init_report_wf: ((Path("out"), "sub-01", SIZE), {}),
    segmentation.init_segmentation_wf: (({"sub": "01"}, SIZE), {"inversions": ("tv",)}),
    separation.init_separation_wf: ((3.0, None, SIZE), {"separation": "joint"}),
    vessels.init_vessels_wf: ((SIZE,), {"vessels": ("veins", "bleeds")}),
    swi.init_swi_wf: ((TE, SIZE), {"methods": ("homodyne", "smwi-diamagnetic")}),
    two_stage.init_second_stage_wf: (("tv", {}, SIZE), {"background": "lbv", "threshold": 0.3}),
}


def promised(docstring: str, title: str) -> set[str]:
    """Port names of the section `title`."""
    section = re.search(rf"{title}\n\s+-+\n(.*?)(\n\s*\n|\Z)", docstring, re.S)
    assert section, f"no section {title}"
    lines = section[1].split("\n")
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    names = [line.strip() for line in lines if line.strip() and not line[indent:].startswith(" ")]
    found = {name for line in names if ":" not in line for name in line.split(", ")}
    return found


def ports(workflow, name: str) -> set[str]:
    """Fields of an identity node; none where there is no such node."""
    node = workflow.get_node(name)
    return set(node.inputs.copyable_trait_names()) if node else set()


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__)
def test_ports_are_those_of_the_docstring(factory):
    positional, named = FACTORIES[factory]
    workflow = factory(*positional, **named)
    expected = promised(factory.__doc__, "Inputs")
    if factory is outputs.init_outputs_wf:  # whose ports follow from two tables
        families = {"KIND", "KIND_table", "KIND_columns", "record_STEP"}
        assert families < expected
        expected -= families
        expected |= {*outputs.written_fields(KINDS), *(f"record_{step}" for step in methods.STEPS)}
    assert ports(workflow, "inputnode") == expected
    assert ports(workflow, "outputnode") == promised(factory.__doc__, "Outputs")


def acquisition(echoes: int = 3) -> Acquisition:
    """An acquisition that needs no files to be built into a graph."""
    files = tuple(__file__ for _ in range(echoes))
    return Acquisition(
        entities=MappingProxyType({"sub": "01", "run": "2"}),
        suffix="MEGRE",
        datatype="anat",
        echo_times=TE[:echoes],
        b0=3.0,
        shape=(64, 64, 48),
        voxel_size=(1.0, 1.0, 1.0),
        phase=files,
        magnitude=files,
        metadata=tuple(MappingProxyType({}) for _ in range(echoes)),
    )


def graph(tmp_path: Path, echoes: int = 3, own: OwnFiles | None = None, **changes):
    """The flattened graph of one acquisition under changed settings."""
    settings = Settings(Path("/"), tmp_path / "out", work_dir=tmp_path)
    member = replace(acquisition(echoes), own=own or OwnFiles())
    workflow = base.init_qsm_nipype_wf(replace(settings, **changes), [member])
    workflow._generate_flatgraph()
    return workflow


def test_the_sign_that_the_user_names_reaches_the_reader(tmp_path):
    for chosen in ("auto", "negative"):
        nodes = graph(tmp_path, phase_sign=chosen)._get_all_nodes()
        (read,) = (node for node in nodes if node.name == "read")
        assert read.inputs.sign == chosen


def test_the_unit_that_the_user_names_reaches_the_reader(tmp_path):
    for chosen in ("", "-4096..4095"):
        nodes = graph(tmp_path, phase_units=chosen)._get_all_nodes()
        (read,) = (node for node in nodes if node.name == "read")
        assert read.inputs.units == chosen


VARIANTS = [{}, {"inversion": ("tv", "tkd")}, {"save_unwrapped": True}, {"reference": "none"}]
VARIANTS += [
    {m.step: (m.name,) if m.step in ("inversion", "segmentation", "swi", "vessels") else m.name}
    for m in methods.METHODS
    if m.step in methods.CHOSEN
]
VARIANTS += [{"two_stage": 0.3, "inversion": ("tv", "tgv")}]  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_choice_builds_and_no_identity_port_is_left_unconnected(tmp_path, changes):
    workflow = graph(tmp_path, **changes)
    assert nx.is_directed_acyclic_graph(workflow._graph)
    for node in workflow._get_all_nodes():
        assert not isinstance(node.interface, IdentityInterface) or node.name in (
            "inputnode",
            "outputnode",
        )


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_mandatory_inputs_are_connected_or_set(tmp_path, changes):
    workflow = graph(tmp_path, **changes)
    for node in workflow._get_all_nodes():
        arriving = {
            port
            for _, _, data in workflow._graph.in_edges(node, data=True)
            for _, port in data["connect"]
        }
        for name in node.inputs.traits(mandatory=True):
            value = getattr(node.inputs, name)
            assert name in arriving or str(value) != "<undefined>", f"{node.fullname}.{name}"


def test_every_node_declares_code_version_memory_and_threads(tmp_path):
    for node in graph(tmp_path)._get_all_nodes():
        if hasattr(node.inputs, "num_threads"):
            assert node.inputs.code_version == code_version()
            assert node.n_procs == node.inputs.num_threads
            assert node.mem_gb > 0.3


def test_memory_follows_the_size_of_the_volume():
    small, large = Resources(1_000_000, 4), Resources(8_000_000, 4)
    assert large.memory(100) > small.memory(100)
    assert large.memory(100, per_echo=True) == pytest.approx(INTERPRETER_GB + 3.2)


def test_single_echo_has_no_relaxometry(tmp_path):
    names = [node.fullname for node in graph(tmp_path, echoes=1)._get_all_nodes()]
    assert not any("relaxometry" in name for name in names)


def test_the_same_settings_make_the_same_graph(tmp_path):
    first, second = (sorted(n.fullname for n in graph(tmp_path)._get_all_nodes()) for _ in "ab")
    assert first == second


def test_the_users_masks_reach_their_nodes(tmp_path):
    file = tmp_path / "masks" / "sub-01_run-2_mask.nii.gz"
    file.parent.mkdir()
    file.touch()
    own = OwnFiles(mask=file, mask_uri="bids:masks:sub-01_run-2_mask.nii.gz", region=file)
    workflow = graph(tmp_path, own=own, derivatives={"masks": "masks", "reference": "masks"})
    nodes = {node.name: node for node in workflow._get_all_nodes()}
    wanted = str(file)
    assert nodes["user"].inputs.in_file == wanted
    arriving = workflow._graph.in_edges(nodes["user"], data=True)
    ports = {port for _, _, data in arriving for _, port in data["connect"]}
    assert ports == {"in_reference"}  # nothing replaces the user's file
    assert nodes["reference_whtv"].inputs.in_region == wanted
    assert "quality" not in nodes
    (step,) = [s for s in nodes["record"].inputs.steps if s["step"] == "mask"]
    assert step["parameters"] == {"file": "sub-01_run-2_mask.nii.gz"}
    own = nodes["record"].inputs.acquisition["own_mask"]
    assert own["uri"] == "bids:masks:sub-01_run-2_mask.nii.gz"


def arriving(workflow, name: str) -> tuple[object, set[str]]:
    """The one node `name`, and its ports that another node's output reaches."""
    flat = generate_expanded_graph(workflow._create_flat_graph())  # without identity nodes
    (node,) = (node for node in flat.nodes() if node.name == name)
    edges = flat.in_edges(node, data=True)
    return node, {port for _, _, data in edges for _, port in data["connect"]}


def unflattened(tmp_path: Path, own: OwnFiles | None = None, **changes):
    settings = Settings(Path("/"), tmp_path / "out", work_dir=tmp_path)
    member = replace(acquisition(), own=own or OwnFiles())
    return base.init_qsm_nipype_wf(replace(settings, **changes), [member])


def test_lesions_join_the_graph_and_everything_that_is_written_has_its_source(tmp_path):
    flair, mask = tmp_path / "flair.nii", tmp_path / "lesions.nii"
    for file in (flair, mask):
        file.touch()
    own = OwnFiles(lesions=LesionFiles(mask=mask, flair=flair))
    workflow = unflattened(
        tmp_path, own, save_unwrapped=True, inversion=("tv", "tkd"), swi=("clear",)
    )
    sink, ports = arriving(workflow, "ds_maps")
    wanted = set(outputs.written_fields(sink.interface.kinds))
    assert ports == wanted | {"in_record"}
    assert {
        "lesions",
        "lesions_table",
        "flair",
        "agreement",
        "unwrapped",
        "swi",
        "minip",
    } <= wanted


def test_every_step_reports_to_the_record(tmp_path):
    _, ports = arriving(
        unflattened(
            tmp_path, two_stage=0.3, swi=("tswi",), separation="joint", vessels=("veins", "bleeds")
        ),
        "record",
    )
    reported = {p.removeprefix("from_") for p in ports if p.startswith("from_")}
    assert reported == set(methods.STEPS) - {"lesions", "given"}
