#!/usr/bin/env bash
# Install qsm-nipype from /src into /opt/venv, as Dockerfile and apptainer.def need it.
# TORCH_INDEX: where torch comes from; empty: PyPI, whose Linux wheels bring CUDA.
# EXTRAS: optional parts, as in setup.cfg.
set -euo pipefail
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
cd /src
if [ ! -x /opt/venv/bin/python ]; then python3 -m venv /opt/venv; fi
pip() { /opt/venv/bin/python -m pip "$@" -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"}; }
if [ "${1:-all}" = torch ]; then
  pip install torch torchvision
else
  pip install ".${EXTRAS:+[$EXTRAS]}"
  /opt/venv/bin/python -m pip check
  # numba keys its cache by a source's time in nanoseconds, images keep seconds: give whole ones
  package=$(/opt/venv/bin/python -c 'import importlib.util as u; print(u.find_spec("qsm_nipype").submodule_search_locations[0])')
  find "$package" -name '*.py' -exec touch -d @1700000000 {} +
  /opt/venv/bin/python -m compileall -q "$package"
fi
