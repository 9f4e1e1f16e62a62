# fediwarden's images: --target cpu (the default), --target gpu. docs/compose.md says how they are built and used.
#
# Nothing is installed that a committed lock does not name by its hash, and no file's content bears a time: the same commit gives
# the same files. The times of the files themselves are the builder's to flatten (docs/compose.md). The base is a tag; to pin it
# to the byte, give a digest: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# What is left out unless it is asked for, because it is fetched to a volume at the first start or comes from elsewhere:
#   MODELS          weights inside the image, such as --build-arg MODELS="safety-s open-nsfw"
#   EMBEDDED_KAFKA  "true" puts Apache Kafka and a Java runtime inside: `fediwarden up` in one container

FROM ${PYTHON_IMAGE} AS python
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONHASHSEED=0 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

FROM python AS packages
RUN python -m venv /opt/fediwarden
COPY requirements.lock /tmp/
RUN /opt/fediwarden/bin/pip install --no-compile --require-hashes --requirement /tmp/requirements.lock
COPY compose/compile.sh /tmp/
RUN sh /tmp/compile.sh /opt/fediwarden/lib

FROM packages AS packages-gpu
COPY requirements-gpu.lock /tmp/
RUN /opt/fediwarden/bin/pip install --no-compile --require-hashes --requirement /tmp/requirements-gpu.lock
RUN sh /tmp/compile.sh /opt/fediwarden/lib

FROM packages AS wheel
COPY pyproject.toml README.md LICENSE /source/
COPY schemas /source/schemas
COPY gateway /source/gateway
COPY scanner /source/scanner
COPY federation_audit /source/federation_audit
COPY fediwarden /source/fediwarden
RUN /opt/fediwarden/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel /source

FROM python AS cyclonedx
COPY compose/sbom.lock /tmp/
RUN python -m venv /opt/cyclonedx && /opt/cyclonedx/bin/pip install --require-hashes --requirement /tmp/sbom.lock

# The same steps for both: our own wheel, without the Java runtime that only an embedded Kafka needs, and the list of it all.
FROM packages AS program-cpu
ARG EMBEDDED_KAFKA=false
COPY --from=wheel /wheel /wheel
COPY --from=cyclonedx /opt/cyclonedx /opt/cyclonedx
COPY compose/assemble.sh /tmp/
RUN sh /tmp/assemble.sh "${EMBEDDED_KAFKA}"

FROM packages-gpu AS program-gpu
ARG EMBEDDED_KAFKA=false
COPY --from=wheel /wheel /wheel
COPY --from=cyclonedx /opt/cyclonedx /opt/cyclonedx
COPY compose/assemble.sh /tmp/
RUN sh /tmp/assemble.sh "${EMBEDDED_KAFKA}"

FROM python AS base
COPY compose/compile.sh compose/account.sh /tmp/
# The official image has its standard library uncompiled, and nobody can write there later.
RUN sh /tmp/account.sh && sh /tmp/compile.sh "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" && rm /tmp/*.sh
ENV PATH=/opt/fediwarden/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    FEDIWARDEN_DATA_DIR=/data \
    FEDIWARDEN_CACHE_DIR=/cache
# fediwarden.toml and policies are looked for here.
WORKDIR /etc/fediwarden
ENTRYPOINT ["fediwarden"]
CMD ["--help"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fediwarden" \
      org.opencontainers.image.description="Judges every image before a fediverse server keeps it" \
      org.opencontainers.image.licenses="AGPL-3.0-or-later" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.documentation="docs/compose.md"

FROM base AS gpu
COPY --from=program-gpu /opt/fediwarden /opt/fediwarden
LABEL org.opencontainers.image.variant="gpu"
# What the NVIDIA container toolkit is asked to bring in.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute
ARG MODELS=""
USER 10001:10001
RUN python -c "import pyseccomp" && if [ -n "${MODELS}" ]; then fediwarden models fetch ${MODELS}; fi

# The last one is what is built without --target.
FROM base AS cpu
COPY --from=program-cpu /opt/fediwarden /opt/fediwarden
LABEL org.opencontainers.image.variant="cpu"
ARG EMBEDDED_KAFKA=false
ARG MODELS=""
USER 10001:10001
# pyseccomp is imported for libseccomp: without it the sandbox of the frame workers would lack a part, and say so too late.
RUN python -c "import pyseccomp" \
 && if [ -n "${MODELS}" ]; then fediwarden models fetch ${MODELS}; fi \
 && if [ "${EMBEDDED_KAFKA}" = true ]; then python -c \
      "from pathlib import Path; from fediwarden.kafka.jars import prepare_jars; prepare_jars(Path('/cache'))"; fi
