#!/usr/bin/env bash
# Fill the image's numba cache (and see that it works) by a small demo: the first run starts warm.
set -euo pipefail
export NUMBA_CACHE_DIR=/opt/numba HOME=/tmp
mkdir -p "$NUMBA_CACHE_DIR"
cd /tmp
qsm-nipype demo /tmp/demo --voxel-size 4
cd / && rm -rf /tmp/* /tmp/.[!.]*
chmod -R a+rX "$NUMBA_CACHE_DIR"
