# syntax=docker/dockerfile:1
# docker build --target cpu  -t seqrec .
# docker build --target cuda -t seqrec:cuda .        (run it with --gpus all)
#
# The CUDA libraries come with the packages of torch and faiss-gpu; the host brings the driver and the NVIDIA container
# toolkit. PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS can be given with --build-arg; with the index of torch's
# CPU builds the CPU image is several gigabytes smaller. BASE: any Debian or Ubuntu with Python 3.11 or newer and its
# module venv; `make image` makes one of Debian packages where no registry of images can be reached.

ARG BASE=python:3.12-slim-bookworm
FROM ${BASE} AS source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
WORKDIR /app
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
# Before the source, so that a change of code does not reinstall packages.
COPY constraints.txt ./
RUN pip install "$(grep '^torch==' constraints.txt)" -c constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY seqrec seqrec
COPY training training
COPY index index
COPY service service
COPY retraining retraining
COPY benchmarks benchmarks
COPY deploy/trim-venv.sh deploy/

# Serving needs no training libraries, and no pyarrow. To import a shop's files and train in the image as well:
# --build-arg EXTRAS=shop,train
FROM source AS build-cpu
ARG EXTRAS=
RUN pip install -c constraints.txt -e ".[cpu${EXTRAS:+,$EXTRAS}]" && ./deploy/trim-venv.sh /venv

FROM source AS build-cuda
ARG EXTRAS=
RUN pip install -c constraints.txt -e ".[gpu${EXTRAS:+,$EXTRAS}]"

FROM ${BASE} AS base
# OpenMP's run-time library, which FAISS and torch compute with.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --home-dir /var/lib/seqrec --create-home seqrec
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SEQREC_HOME=/var/lib/seqrec SEQREC_HOST=0.0.0.0 SEQREC_PORT=8000
WORKDIR /app
COPY data data
USER seqrec
VOLUME /var/lib/seqrec
EXPOSE 8000
STOPSIGNAL SIGTERM
# Liveness, not readiness (/readyz): a service that is still loading its snapshot must not be restarted.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-c", \
 "import os, ssl, urllib.request as r; tls = bool(os.environ.get('SEQREC_TLS_CERT')); \
r.urlopen(f\"http{'s' * tls}://127.0.0.1:{os.environ['SEQREC_PORT']}/healthz\", timeout=2, \
context=ssl._create_unverified_context() if tls else None)"]
ENTRYPOINT ["seqrec"]
CMD ["serve"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /venv /venv
COPY --from=build-cuda /app /app

# The last one is what a plain `docker build .` makes.
FROM base AS cpu
COPY --from=build-cpu /venv /venv
COPY --from=build-cpu /app /app
