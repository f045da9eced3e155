"""Small workflows whose nodes say when they ran, and Nipype set as `qsm-nipype` sets it."""

import pytest


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
