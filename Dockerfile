# Used by docker-compose.yml and deploy/kubernetes. Assumes: a volume at /data, a tmpfs or volume at /cache and at /tmp.
# To change first: DEBIAN, pinned by digest for a build that must be the same tomorrow.
#
#   docker build --target cpu -t tollgate:cpu .
#   docker build --target cuda -t tollgate:cuda .
#
# What each stage is for: `base` is the system that runs; `packages-*` install the locked packages into one folder;
# `tree` adds the code and the starter models, and compiles the kernels; `cpu` and `cuda` copy the result, and nothing
# of what made it.
ARG DEBIAN=docker.io/library/debian:bookworm-slim

FROM ${DEBIAN} AS base
# Debian's point releases replace versions: a pinned one could not be installed next month. Pin the base's digest instead.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 python3 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/*

FROM base AS builder
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/tollgate/venv
ENV PATH=/opt/tollgate/venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY pyproject.toml constraints.txt deploy/image/requirements.py ./
RUN python requirements.py pyproject.toml > requirements.txt \
    && python requirements.py pyproject.toml starter > starter.txt

# PyTorch's own index has builds without CUDA (about 200 MB instead of 3 GB). `--build-arg TORCH_INDEX=` takes pip's.
FROM builder AS packages-cpu
ARG TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"
# hadolint ignore=DL3013,SC2086
RUN version="$(grep '^torch==' constraints.txt)" \
    && pip install --no-deps ${TORCH_INDEX} "$version" \
    && pip install -c constraints.txt -r requirements.txt \
    && pip install --no-deps -r starter.txt

# PyTorch's wheel names the NVIDIA libraries that it needs, most to the exact version; the host brings the driver only.
FROM builder AS packages-cuda
RUN pip install -c constraints.txt -r requirements.txt \
    && pip install --no-deps -r starter.txt

FROM packages-cpu AS tree-cpu
COPY app /opt/tollgate/app
COPY models/catalog.yaml models/catalog.schema.json /opt/tollgate/models/
COPY models/starter /opt/tollgate/models/starter
COPY deploy/image/finish.sh deploy/image/entrypoint.sh /opt/tollgate/
WORKDIR /opt/tollgate
RUN ./finish.sh && rm finish.sh

FROM packages-cuda AS tree-cuda
COPY app /opt/tollgate/app
COPY models/catalog.yaml models/catalog.schema.json /opt/tollgate/models/
COPY models/starter /opt/tollgate/models/starter
COPY deploy/image/finish.sh deploy/image/entrypoint.sh /opt/tollgate/
WORKDIR /opt/tollgate
RUN ./finish.sh && rm finish.sh

FROM base AS runtime
RUN groupadd --gid 10001 tollgate \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin tollgate \
    && install -d -o tollgate -g tollgate -m 0700 /data /cache
ENV PATH=/opt/tollgate/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TOLLGATE_HOME=/data XDG_CACHE_HOME=/cache \
    TOLLGATE_API__HOST=0.0.0.0 TOLLGATE_API__PORT=8000 TOLLGATE_LOG_FORMAT=json
WORKDIR /opt/tollgate
USER 10001:10001
VOLUME ["/data", "/cache"]
EXPOSE 8000
STOPSIGNAL SIGTERM
# Alive, not ready: an engine that starts again must not get the whole replica killed. The balancer asks /readyz.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['TOLLGATE_API__PORT'] + '/livez', timeout=4)"]
ENTRYPOINT ["/opt/tollgate/entrypoint.sh"]
CMD ["serve"]

FROM runtime AS cuda
# Triton builds what launches its kernels with a C compiler, at the first start, into /cache.
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/*
USER 10001:10001
ENV TOLLGATE_ENGINE__DEVICE=cuda TRITON_CACHE_DIR=/cache/triton NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=tree-cuda /opt/tollgate /opt/tollgate

FROM runtime AS cpu
COPY --from=tree-cpu /opt/tollgate /opt/tollgate
