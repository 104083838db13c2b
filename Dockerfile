# syntax=docker/dockerfile:1
# One Dockerfile for the four services: docker build --build-arg SERVICE=checkpoint -t flux/checkpoint .
# Pin the base by digest for production: docker buildx imagetools inspect python:3.11.14-slim-trixie
ARG PYTHON_IMAGE=python:3.11.14-slim-trixie
ARG SERVICE

# --- Build: everything that is needed to make .venv, and nothing of it is kept. ---------------------------------------
FROM ${PYTHON_IMAGE} AS build
ARG SERVICE
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
RUN test -n "${SERVICE}" || { echo "name the service: --build-arg SERVICE=ingest|checkpoint|transform|audit" >&2; exit 1; }

# uv itself, by hash.
COPY requirements/bootstrap.lock requirements/bootstrap.lock
RUN python -m pip install --require-hashes -r requirements/bootstrap.lock && python -m venv --without-pip /app/.venv

# The dependencies, by hash: a layer of their own, which a change of the source leaves alone.
COPY requirements/${SERVICE}.lock requirements/service.lock
RUN uv pip sync --python /app/.venv/bin/python --require-hashes requirements/service.lock

# The source, as wheels; what builds them is pinned by hash too.
COPY requirements/dev.lock requirements/dev.lock
COPY libs/flux_common libs/flux_common
COPY services/${SERVICE} services/${SERVICE}
RUN for source in libs/flux_common "services/${SERVICE}"; do \
        uv build --quiet --wheel --require-hashes --build-constraints requirements/dev.lock --out-dir wheels "${source}" || exit 1; \
    done \
    && uv pip install --python /app/.venv/bin/python --no-deps --no-index wheels/*.whl

# --- The image: a Python, and .venv. ----------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS runtime
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 FLUX_OPS_HOST=0.0.0.0
WORKDIR /app
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# No HEALTHCHECK: an orchestrator asks /startupz, /readyz and /livez on port 8080 itself (compose.yaml shows how).

# An exec-form entry point cannot hold a build argument; a stage's name can. A misspelt SERVICE finds no stage.
FROM runtime AS run-ingest
ENTRYPOINT ["python", "-m", "flux_ingest"]

FROM runtime AS run-checkpoint
ENTRYPOINT ["python", "-m", "flux_checkpoint"]

FROM runtime AS run-transform
ENTRYPOINT ["python", "-m", "flux_transform"]

FROM runtime AS run-audit
ENTRYPOINT ["python", "-m", "flux_audit"]

# hadolint ignore=DL3006  # a stage of this file, not an image
FROM run-${SERVICE} AS service
ARG SERVICE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="flux/${SERVICE}" \
      org.opencontainers.image.description="Flux ${SERVICE}: archives become datasets, for many agencies at once, with proof" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
CMD ["serve"]
