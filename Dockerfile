# docker build -t qsm-nipype .
# docker build -t qsm-nipype:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# a compiler for packages without a wheel; it stays in this stage
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && if ! python3 -c 'import os, sysconfig as s; assert os.path.exists(s.get_path("include") + "/Python.h")' 2>/dev/null; \
    then apt-get install -y --no-install-recommends python3-dev; fi \
 && rm -rf /var/lib/apt/lists/*
ARG EXTRAS=rim
COPY containers/install.sh constraints.txt setup.cfg /src/
RUN bash /src/install.sh dependencies
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
COPY workflows /src/workflows
COPY interfaces /src/interfaces
COPY models /src/models
RUN bash /src/install.sh package

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="qsm-nipype" \
      org.opencontainers.image.description="Quantitative susceptibility mapping from gradient-echo MRI: a BIDS App" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/venv /opt/venv
# USER and LOGNAME: any user id must have a name; HOME: what libraries write goes to /tmp
ENV PATH=/opt/venv/bin:$PATH \
    USER=qsm LOGNAME=qsm HOME=/tmp \
    XDG_CACHE_HOME=/tmp/.cache MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 \
    NIPYPE_NO_ET=1
COPY containers/compile.sh /opt/compile.sh
RUN bash /opt/compile.sh && rm /opt/compile.sh && mkdir -p /out /work && chmod 1777 /out /work
# read-only at run time: copied from there into the work folder, where numba may add to it
ENV NUMBA_CACHE_DIR=/opt/numba
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["qsm-nipype"]
