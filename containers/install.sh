#!/usr/bin/env bash
# Install qsm-nipype from /src into /opt/venv, as Dockerfile and apptainer.def need it:
# first `dependencies` (a layer that lasts while setup.cfg does), then `package`.
# TORCH_INDEX: where torch comes from; empty: PyPI, whose Linux wheels bring CUDA.
# EXTRAS: optional parts, as in setup.cfg.
set -euo pipefail
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
cd /src
if [ ! -x /opt/venv/bin/python ]; then python3 -m venv /opt/venv; fi
python=/opt/venv/bin/python

if [ "$1" = dependencies ]; then
  $python - ${EXTRAS:-} >/tmp/requirements.txt <<'EOF'
import configparser, sys
setup = configparser.ConfigParser()
setup.read("setup.cfg")
print(setup["options"]["install_requires"])
for extra in sys.argv[1:]:
    print(setup["options.extras_require"][extra])
EOF
  $python -m pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    -r /tmp/requirements.txt
  rm /tmp/requirements.txt
else
  $python -m pip install --no-deps .
  $python -m pip check
  # numba keys its cache by a source's time in nanoseconds, images keep seconds: give whole ones
  package=$($python -c 'import importlib.util as u; print(u.find_spec("qsm_nipype").submodule_search_locations[0])')
  find "$package" -name '*.py' -exec touch -d @1700000000 {} +
  $python -m compileall -q "$package"
fi
