#!/usr/bin/env bash
# Build the image and run the demo in it, without network, on a read-only root, as another user;
# then the same by Apptainer. Prints times, sizes and the fingerprint of each susceptibility map,
# which must be the same in all of them, and the same as outside where qsm-nipype is installed.
#
#   tests/containers/build_and_run.sh [FOLDER]        (root, Debian; about 10 minutes, 12 GB)
#
# Needs: apt-get install -y --no-install-recommends podman buildah runc uidmap mmdebstrap
# Apptainer: $APPTAINER, or one in PATH; without it that part is left out.
# Without Docker Hub (or OFFLINE=1), python:3.11-slim is made from Debian's own packages.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mkdir -p "${1:-/tmp/qsm-nipype-containers}" && cd "${1:-/tmp/qsm-nipype-containers}" && pwd)
image=localhost/qsm-nipype:test
base=docker.io/library/python:3.11-slim
apptainer=${APPTAINER:-$(command -v apptainer || true)}
voxel=${VOXEL_SIZE:-3}
runtime=$(command -v crun || command -v runc)
export CONTAINERS_CONF=$work/containers.conf
cat >"$CONTAINERS_CONF" <<EOF
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=8192:8192"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "$(basename "$runtime")"
EOF
say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }
timed() { local start=$SECONDS; "$@"; say "took $((SECONDS - start)) s: ${*:0:4}"; }

# ---- the base image -------------------------------------------------------------------------
if ! podman image exists "$base" && { [ -n "${OFFLINE:-}" ] || ! podman pull -q "$base"; }; then
  say "no Docker Hub: python:3.11-slim from Debian 12 (its Python is 3.11)"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 '/debian/*$')
  mmdebstrap -q --variant=minbase --include=ca-certificates,python3,python3-venv \
    bookworm "$work/base.tar" "$mirror"
  podman import -q --change 'CMD ["python3"]' "$work/base.tar" "$base"
  rm -f "$work/base.tar"
fi

# ---- build ----------------------------------------------------------------------------------
# the machine's certificates and pip configuration, where it has any, are not baked in
mounts=()
for file in /etc/ssl/certs/ca-certificates.crt /etc/pip.conf /etc/xdg/pip /opt/wheels /opt/pypi \
  /opt/pypi-more; do
  if [ -e "$file" ]; then mounts+=(-v "$file:$file:ro"); fi
done
if [ -d ~/.config/pip ]; then mounts+=(-v ~/.config/pip:/root/.config/pip:ro); fi
index=()
if [ -n "${TORCH_INDEX+given}" ]; then index=(--build-arg "TORCH_INDEX=$TORCH_INDEX"); fi
timed nice -n 10 buildah bud --layers --isolation chroot --pull-never "${mounts[@]}" "${index[@]}" \
  --build-arg "REVISION=$(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)" \
  -t "$image" "$here"
podman image inspect "$image" --format 'size {{.Size}} bytes, user {{.User}}, labels {{.Labels}}'

# ---- the same data for all: simulated in the container ---------------------------------------
rm -rf "$work"/{bids,out-*,work-*}
mkdir -p "$work"/{bids,out-podman,work-podman,out-apptainer,work-apptainer}
chmod 1777 "$work"/{bids,out-*,work-*}
closed=(--rm --network none --read-only --tmpfs /tmp:rw,size=2g -u 1000:1000)
options=(participant --skip-bids-validation --nprocs 2 --omp-nthreads 1 --mem 6)
timed podman run "${closed[@]}" -v "$work/bids:/data" "$image" \
  simulate /data/head --voxel-size "$voxel"
data=$work/bids/head
fingerprint() {
  python3 - "$1/sub-01/anat/sub-01_Chimap.nii.gz" <<'EOF'
import gzip, hashlib, sys
print(hashlib.sha256(gzip.open(sys.argv[1]).read()).hexdigest()[:16])
EOF
}

timed podman run "${closed[@]}" -v "$data:/data:ro" -v "$work/out-podman:/out" \
  -v "$work/work-podman:/work" "$image" /data /out -w /work "${options[@]}"
echo "chi under podman     $(fingerprint "$work/out-podman")"

# ---- refusals are sentences, not tracebacks -------------------------------------------------
say "without a writable output folder:"
podman run "${closed[@]}" -v "$data:/data:ro" "$image" /data /nowhere participant || true

# ---- Apptainer ------------------------------------------------------------------------------
if [ -n "$apptainer" ]; then
  rm -f "$work/image.tar" "$work/qsm-nipype.sif"
  timed buildah push -q "$image" "docker-archive:$work/image.tar:qsm-nipype:test"
  timed nice -n 10 "$apptainer" -q build "$work/qsm-nipype.sif" "docker-archive:$work/image.tar"
  rm -f "$work/image.tar"
  ls -l "$work/qsm-nipype.sif"
  drop=()
  if [ "$(id -u)" = 0 ]; then drop=(--drop-caps CAP_SYS_RESOURCE); fi
  timed "$apptainer" run "${drop[@]}" --containall --net --network none \
    --bind "$data:/data:ro,$work/out-apptainer:/out,$work/work-apptainer:/work" \
    "$work/qsm-nipype.sif" /data /out -w /work "${options[@]}"
  echo "chi under apptainer  $(fingerprint "$work/out-apptainer")"
fi

# ---- outside --------------------------------------------------------------------------------
if command -v qsm-nipype >/dev/null; then
  timed qsm-nipype "$data" "$work/out-outside" -w "$work/work-outside" "${options[@]}"
  echo "chi outside          $(fingerprint "$work/out-outside")"
fi
