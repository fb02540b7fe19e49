# CPU:  docker build -t epvs-cohort .
# CUDA: docker build -t epvs-cohort:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
#       (the Linux wheels there bring the CUDA libraries: the host needs only the driver and its container toolkit)
# Run:  docker run --rm --gpus all -v /data:/data epvs-cohort run /data/scans --out /data/counts.parquet
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/epvs-cohort

# torch first: it is by far the largest layer and changes least.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt ./
RUN pip install --extra-index-url "${TORCH_INDEX}" --constraint constraints.txt torch

COPY pyproject.toml README.md LICENSE NOTICE ./
COPY pipelines ./pipelines
COPY epvs_cohort ./epvs_cohort
RUN pip install --constraint constraints.txt . \
    && useradd --create-home --uid 1000 epvs

USER 1000:1000
WORKDIR /home/epvs
ENTRYPOINT ["epvs-cohort"]
CMD ["--help"]
