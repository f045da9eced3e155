#!/usr/bin/env bash
# consumes localfield, mask and params of the QSM-CI contract, produces chimap.nii.gz
set -euo pipefail
exec qsm-nipype stage dipole "${1:-/input}" "${2:-/output}"
