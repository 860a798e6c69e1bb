"""The resource: defaults, spelling, validation with remedies, and the way through YAML and back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from swapstats_core.fields import DAY_MS, HOUR_MS, MINUTE_MS, format_duration, parse_duration_ms
from swapstats_core.spec import SwapStatsResource, SwapStatsSpec

DEFAULTS = """
instance: null
source:
  brokers: ['localhost:9092']
  topic:
    {name: raw-swaps, partitions: 12, replication: 1, retention: 7d, segment: 1h, cleanupPolicy: delete,
     manage: true}
  groupId: null
  start: latest
  reorgHorizon: 30m
  maxBytes: 1048576
  sessionTimeout: 30s
  rebalanceTimeout: 1m
  tls: {enabled: false, caRef: null, certRef: null, keyRef: null}
  sasl: null
  deadLetterTopic: null
  skip: []
  amounts: round
windows: [5m, 1h, 24h]
grace: 2m
dedupe: {ttl: 24h}
limits: {maxTradeUsd: null}
snapshots: {interval: 5s, keep: 3}
images: {aggregator: null, api: null, pullPolicy: IfNotPresent, pullSecrets: []}
shards: {replicas: 2, failoverAfter: 10s, resources: {}}
recorder: {replicas: 1, resources: {}}
api:
  replicas: 2
  autoscaling: {enabled: false, minReplicas: 2, maxReplicas: 10, cpuPercent: 70}
  resources: {}
  http: {port: 8080, corsOrigins: []}
  ws: {coalesce: 100ms, maxConnections: 5000, maxSubscriptions: 100}
stores:
  redis:
    url: redis://localhost:6379/0
    prefix: 'swapstats:'
    username: null
    secretRef: null
    tls: {enabled: false, caRef: null, certRef: null, keyRef: null}
    sentinelMaster: null
  clickhouse:
    url: http://localhost:8123
    database: null
    username: default
    secretRef: null
    tls: {enabled: false, caRef: null, certRef: null, keyRef: null}
    storagePolicy: null
    coldAfter: 90d
    deleteAfter: 365d
    batchRows: 1000
    batchInterval: 200ms
  nats:
    url: nats://localhost:4222
    username: null
    secretRef: null
    tls: {enabled: false, caRef: null, certRef: null, keyRef: null}
rollout: {maxMoving: 2, warmLag: 1s, timeout: 5m, verifyState: true}
network: {egress: stores, egressPorts: []}
deletionPolicy: Retain
telemetry: {logLevel: info, logFormat: json, monitors: true}
"""


def spec(text: str) -> SwapStatsSpec:
    return SwapStatsSpec.model_validate(yaml.safe_load(text) or {})


def as_yaml(value: SwapStatsSpec | SwapStatsResource) -> str:
    return yaml.safe_dump(value.model_dump(mode="json", by_alias=True))


def test_every_default_and_its_spelling() -> None:
    assert yaml.safe_load(as_yaml(SwapStatsSpec())) == yaml.safe_load(DEFAULTS)
    assert spec(DEFAULTS) == SwapStatsSpec()


def test_a_resource_in_full_survives_yaml() -> None:
    resource = SwapStatsResource.model_validate(
        yaml.safe_load("""
apiVersion: swapstats.io/v1alpha1
kind: SwapStats
metadata: {name: mainnet, namespace: trading, labels: {team: markets}}
spec:
  windows: [1m, 15m, 90m, 24h, 7d]
  grace: 90s
  dedupe: {ttl: 200h}
  source:
    brokers: ['a:1', 'b:2']
    topic: {name: swaps, partitions: 3, retention: 170h}
    sasl: {username: me, secretRef: {name: kafka, key: password}}
  shards: {replicas: 3, resources: {limits: {cpu: '2'}}}
""")
    )
    assert SwapStatsResource.model_validate(yaml.safe_load(as_yaml(resource))) == resource
    assert resource.metadata.name == "mainnet"
    assert resource.spec.window_names == ("1m", "15m", "90m", "24h", "7d")
    assert resource.spec.window_minutes == (1, 15, 90, 1440, 10_080)
    assert resource.spec.dedupe.ttl == 200 * HOUR_MS
    assert resource.spec.source.sasl is not None
    assert resource.spec.source.sasl.secret_ref.key == "password"


def test_the_default_windows() -> None:
    assert SwapStatsSpec().window_names == ("5m", "1h", "24h")
    assert SwapStatsSpec().window_minutes == (5, 60, 1440)


def test_the_dead_letter_topic() -> None:
    assert SwapStatsSpec().source.dead_letters == "raw-swaps.dead-letters"
    assert spec("source: {deadLetterTopic: bad}").source.dead_letters == "bad"


def test_snake_case_is_python_only_but_understood() -> None:
    assert spec("source: {group_id: mine}").source.group_id == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("windows: []", "at least 1 item"),
        ("windows: [1m, 2m, 3m, 4m, 5m, 6m, 7m, 8m, 9m]", "at most 8 items"),
        ("windows: [90s]", "windows: every window is a whole number of minutes, from 1m to 7d"),
        ("windows: [0m]", "windows: every window is a whole number of minutes, from 1m to 7d"),
        ("windows: [8d]", "windows: every window is a whole number of minutes, from 1m to 7d"),
        ("windows: [1h, 5m]", "windows: list them in ascending order, each once"),
        ("windows: [60m, 1h]", "windows: list them in ascending order, each once"),
        (
            "windows: [5 minutes]",
            "'5 minutes' is not a duration: write a whole number (at most 11 digits) and ms, s, m, h or d, as in 5m",
        ),
        ("windows: [1.5h]", "'1.5h' is not a duration"),
        ("grace: -1s", "'-1s' is not a duration"),
        ("grace: -1", "greater than or equal to 0"),
        ("grace: 25h", "grace: must not exceed the longest window"),
        ("dedupe: {ttl: 23h}", "dedupe.ttl: must be at least the longest window"),
        ("{source: {reorgHorizon: 25h}}", "source.reorgHorizon: must not exceed dedupe.ttl"),
        ("source: {topic: {retention: 24h}}", "source.topic.retention: must be at least the longest window plus grace"),
        ("source: {topic: {partitions: 0}}", "greater than or equal to 1"),
        ("source: {topic: {partitions: 1025}}", "less than or equal to 1024"),
        ("source: {topic: {replication: 0}}", "greater than or equal to 1"),
        ("source: {topic: {cleanupPolicy: compact}}", "Input should be 'delete'"),
        ("stores: {clickhouse: {storagePolicy: tiered, deleteAfter: 7d}}", "coldAfter: must not exceed deleteAfter"),
        ("source: {brokers: []}", "at least 1 item"),
        ("source: {start: middle}", "'latest' or 'earliest'"),
        ("source: {maxBytes: 1}", "greater than or equal to 1024"),
        ("source: {sasl: {username: me, password: secret}}", "secretRef"),
        ("source: {sasl: {username: me, secretRef: {name: 'No Name', key: k}}}", "should match pattern"),
        ("source: {sasl: {username: me, secretRef: {name: s, key: '../k'}}}", "should match pattern"),
        ("source: {tls: {caRef: {name: ca, key: ca.crt}}}", "set enabled: true, or remove them"),
        (
            "source: {tls: {enabled: true, certRef: {name: me, key: tls.crt}}}",
            "certRef and keyRef go together: name both, or neither",
        ),
        ("stores: {nats: {tls: {enabled: true, keyRef: {name: me, key: tls.key}}}}", "certRef and keyRef go together"),
        ("stores: {redis: {tls: {enabled: true}}}", "tls.enabled needs a url that begins with rediss://"),
        ("stores: {nats: {tls: {enabled: true}}}", "tls.enabled needs a url that begins with tls://"),
        ("stores: {clickhouse: {tls: {enabled: true}}}", "tls.enabled needs a url that begins with https://"),
        ("stores: {nats: {url: 'tls://a:4222,nats://b:4222'}}", "several separated by commas, all alike"),
        ("shards: {replicas: 13}", "shards.replicas: must not exceed source.topic.partitions"),
        ("shards: {replicas: -1}", "greater than or equal to 0"),
        ("snapshots: {keep: 1}", "greater than or equal to 2"),
        ("snapshots: {interval: 99ms}", "greater than or equal to 100"),
        ("api: {http: {port: 65536}}", "less than or equal to 65535"),
        ("api: {ws: {coalesce: 9ms}}", "greater than or equal to 10"),
        ("stores: {clickhouse: {batchRows: 0}}", "greater than or equal to 1"),
        ("rollout: {maxMoving: 0}", "greater than or equal to 1"),
        ("deletionPolicy: Maybe", "'Retain' or 'Delete'"),
        ("telemetry: {logLevel: loud}", "'debug', 'info', 'warning' or 'error'"),
        ("api: {auth: {jwt: {enabled: true}}}", "auth: not built yet; until it is, everybody who reaches the API may"),
        ("api: {rateLimit: {enabled: true}}", "rateLimit: not built yet; remove it"),
        ("api: {grpc: {enabled: true}}", "grpc: not built yet; remove it"),
        ("api: {http: {trustedProxies: ['10.0.0.0/8']}}", "trustedProxies: not built yet; remove it"),
        ("environment: prod", "environment: nothing depends on it yet; remove it"),
        ("source: {flavor: kafka}", "flavor: every broker is treated alike; remove it"),
        ("source: {maxInflight: 64}", "maxInflight: a shard applies one batch after the other"),
        ("window: [5m]", "Extra inputs are not permitted"),
        ("source: {topic: {name: a, colour: red}}", "Extra inputs are not permitted"),
    ],
)
def test_what_is_refused_and_what_it_says(text: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{windows: [1m], grace: 1m, dedupe: {ttl: 1m}, source: {topic: {retention: 2m}}}",
        "{windows: [7d], dedupe: {ttl: 7d}, source: {topic: {retention: 170h}}}",
        "{grace: 24h, source: {topic: {retention: 48h}}}",
        "source: {reorgHorizon: 24h}",
        "shards: {replicas: 0}",
        "shards: {replicas: 12}",
        "stores: {clickhouse: {deleteAfter: 7d}}",
        "stores: {redis: {url: 'rediss://a'}, clickhouse: {url: 'https://b'}, nats: {url: 'tls://c,tls://d'}}",
        "source: {tls: {enabled: true, caRef: {name: ca, key: ca.crt}}}",
        "source: {tls: {enabled: true, certRef: {name: me, key: tls.crt}, keyRef: {name: me, key: tls.key}}}",
    ],
)
def test_what_is_just_allowed(text: str) -> None:
    assert SwapStatsSpec.model_validate(yaml.safe_load(as_yaml(spec(text)))) == spec(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"apiVersion": "swapstats.io/v1"}, "swapstats.io/v1alpha1"),
        ({"kind": "SwapStat"}, "SwapStats"),
        ({"metadata": {"name": "Main"}}, "should match pattern"),
        ({"metadata": {"name": "a" * 64}}, "at most 40"),
        ({"metadata": {}}, "name"),
        ({"state": {}}, "Extra inputs are not permitted"),
    ],
)
def test_resources_that_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SwapStatsResource.model_validate({"metadata": {"name": "main"}} | changes)
    assert words in str(caught.value)


@given(st.integers(0, 400 * DAY_MS) | st.integers(0, 10**5).map(lambda n: n * MINUTE_MS))
def test_durations_survive_their_spelling(duration_ms: int) -> None:
    assert parse_duration_ms(format_duration(duration_ms)) == duration_ms


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (1_500, "1500ms"),
        (60_000, "1m"),
        (90_000, "90s"),
        (HOUR_MS, "1h"),
        (DAY_MS, "24h"),
        (2 * DAY_MS, "2d"),
        (36 * HOUR_MS, "36h"),
    ],
)
def test_the_usual_spelling(duration_ms: int, text: str) -> None:
    assert format_duration(duration_ms) == text


def test_a_frozen_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SwapStatsSpec().windows = [MINUTE_MS]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("written", "micros"), [("'50000000'", 50_000_000_000_000), ("2500.5", 2_500_500_000), ("0", 0), ("1e6", 10**12)]
)
def test_an_amount_of_usd_is_exact(written: str, micros: int) -> None:
    limits = spec(f"limits: {{maxTradeUsd: {written}}}").limits
    assert limits.max_trade_usd == micros
    assert type(limits).model_validate(limits.model_dump(mode="json", by_alias=True)) == limits


@pytest.mark.parametrize("written", ["-1", "a lot", "0.0000001", "'1e20'", "true", "[]", ".nan", ".inf"])
def test_what_is_no_amount_of_usd_is_refused_with_the_remedy(written: str) -> None:
    with pytest.raises(ValueError, match="write a decimal number"):
        spec(f"limits: {{maxTradeUsd: {written}}}")
