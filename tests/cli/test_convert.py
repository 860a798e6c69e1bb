"""`swapstats convert`: the guide's own configurations, and what people may write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner, Result

from swapstats_cli.commands.convert import convert
from swapstats_cli.converting.guide import KEYS, NO_PLACE
from swapstats_cli.converting.guide import convert as conversion
from swapstats_cli.converting.values import duration
from swapstats_core.fields import MINUTE_MS
from swapstats_core.spec import SwapStatsResource, SwapStatsSpec
from tests.kit.guide import config, merged, production_config

app = Typer()
app.command()(convert)


def run(folder: Path, content: object, *options: str) -> Result:
    file = folder / "config.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return CliRunner().invoke(app, [str(file), *options])


def resource(result: Result) -> SwapStatsSpec:
    assert result.exit_code == 0, result.stderr
    return SwapStatsResource.model_validate(yaml.safe_load(result.stdout)).spec


def lines(result: Result) -> dict[str, str]:
    """What was said, by key."""
    return dict(line.split(": ", 1) for line in result.stderr.splitlines())


def test_the_guides_config(tmp_path: Path) -> None:
    result = run(tmp_path, config(), "--name", "mainnet")
    spec = resource(result)
    assert yaml.safe_load(result.stdout)["metadata"] == {"name": "mainnet"}
    assert spec.source.brokers == ["localhost:9092"]
    assert (spec.source.topic.name, spec.source.topic.partitions) == ("raw-swaps", 12)
    assert (spec.source.topic.retention, spec.source.topic.segment) == (604_800_000, 3_600_000)
    assert (spec.source.group_id, spec.source.start, spec.source.max_bytes) == ("swap-stats", "latest", 1_048_576)
    assert (spec.grace, spec.snapshots.interval, spec.dedupe.ttl) == (120_000, 5_000, 86_400_000)
    assert (spec.stores.redis.url, spec.stores.redis.prefix) == ("redis://localhost:6379/2", "swapstats:")
    assert (spec.stores.clickhouse.url, spec.stores.clickhouse.database) == ("http://localhost:8123", "swaps")
    assert spec.stores.nats.url == "nats://localhost:4222"
    assert (spec.api.http.port, spec.api.ws.coalesce, spec.api.ws.max_connections) == (8080, 100, 5_000)
    assert "CHANGE_ME" not in result.output
    expected = {"ingest.broker_type", "security.jwt", "rate_limit", "metrics.prometheus", "metrics.pprof"}
    assert lines(result).keys() == expected | {"stores.clickhouse.dsn"}
    assert "everybody who reaches the API may read" in lines(result)["security.jwt"]


def test_the_guides_production_config(tmp_path: Path) -> None:
    result = run(tmp_path, production_config())
    spec = resource(result)
    assert spec.source.brokers == ["kafka-1:9092", "kafka-2:9092", "kafka-3:9092"]
    assert spec.source.tls.enabled
    assert spec.source.tls.key_ref is not None
    assert spec.source.tls.key_ref.key == "tls.key"
    assert spec.source.sasl is not None
    assert (spec.source.sasl.mechanism, spec.source.sasl.username) == ("SCRAM-SHA-256", "app")
    assert spec.source.rebalance_timeout == 120_000
    redis = spec.stores.redis
    assert (redis.url, redis.sentinel_master) == ("rediss://redis-sentinel:26379/2", "mymaster")
    assert redis.secret_ref is not None
    clickhouse = spec.stores.clickhouse
    assert (clickhouse.url, clickhouse.username) == ("https://ch-proxy:8443", "app")
    assert clickhouse.secret_ref is not None
    assert (spec.grace, spec.snapshots.interval) == (180_000, 15_000)
    assert "****" not in result.output
    assert "ingest.max_inflight" in lines(result)
    assert "create secret generic kafka-tls with --from-file=tls.key=/etc/ssl/app.key" in result.stderr


def test_every_key_of_the_guide_is_known() -> None:
    def keys(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
        for name, value in section.items():
            key = f"{prefix}{name}"
            known = key in KEYS or not isinstance(value, dict)
            yield from [key] if known else keys(value, f"{key}.")

    assert set(keys(merged(config(), production_config()))) <= KEYS
    assert set(NO_PLACE) <= KEYS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"ingest": {"topic": 5}}, "ingest.topic: must be a text"),
        ({"ingest": {"brokers": "kafka:9092"}}, "ingest.brokers: must be a list of texts"),
        ({"ingest": {"brokers": ["kafka"]}}, "ingest.brokers: must be host:port"),
        ({"ingest": 5}, "ingest: must be a mapping of keys"),
        ({"ingest": {"topic_cfg": {"partitions": "twelve"}}}, "ingest.topic_cfg.partitions: must be an integer"),
        ({"ingest": {"topic_cfg": {"partitions": True}}}, "ingest.topic_cfg.partitions: must be an integer"),
        ({"ingest": {"topic_cfg": {"cleanup_policy": "compact"}}}, "ingest.topic_cfg.cleanup_policy: Input should be"),
        ({"ingest": {"topic_cfg": {"retention_ms": "7d"}}}, "retention_ms: must be an integer of milliseconds"),
        ({"ingest": {"topic_cfg": {"retention_ms": 1000}}}, "source.topic.retention: must be at least the longest"),
        ({"ingest": {"tls": {"enabled": "yes please"}}}, "ingest.tls.enabled: must be true or false"),
        ({"ingest": {"tls": {"enabled": True, "cert_file": "x"}}}, "certRef and keyRef go together"),
        ({"ingest": {"sasl": {"enabled": True, "mechanism": "PLAIN"}}}, "ingest.sasl.username: is missing"),
        (
            {"ingest": {"sasl": {"enabled": True, "mechanism": "GSSAPI", "username": "u", "password": "p"}}},
            "ingest.sasl.mechanism: Input should be",
        ),
        ({"app": {"grace": 120}}, "app.grace: must be a duration, as in 120s or 1h30m"),
        ({"app": {"grace": "two minutes"}}, "app.grace: must be a duration"),
        ({"app": {"grace": "-5s"}}, "app.grace: must be a duration"),
        ({"app": {"snapshot_interval": "100us"}}, "app.snapshot_interval: must be a duration in whole milliseconds"),
        ({"app": {"snapshot_interval": "1ms"}}, "app.snapshot_interval: Input should be greater"),
        ({"app": {"dedupe_ttl": "1h"}}, "dedupe.ttl: must be at least the longest window"),
        ({"stores": {"redis": {"addr": "redis:6379", "db": "two"}}}, "stores.redis.db: must be an integer"),
        ({"stores": {"redis": {"db": 2}}}, "stores.redis.addr: is missing"),
        ({"stores": {"clickhouse": {"dsn": "clickhouse"}}}, "stores.clickhouse.dsn: must be an address"),
        ({"stores": {"clickhouse": {"dsn": "tcp://[x"}}}, "stores.clickhouse.dsn: must be an address"),
        ({"pubsub": {"nats": {"url": "nats://a:b@x,nats://y"}}}, "pubsub.nats.url: must name the same user"),
        ({"api": {"http": {"addr": 8080}}}, "api.http.addr: must be a text"),
        ({"api": {"http": {"addr": "8080"}}}, "api.http.addr: must be a port with a colon before it"),
        ({"api": {"http": {"addr": ":99999"}}}, "api.http.addr: Input should be less"),
        ({"api": {"ws": {"coalesce_ms": 1.5}}}, "api.ws.coalesce_ms: must be an integer of milliseconds"),
        ("ingest: {}\napp: {}\ningest: {}", "the key ingest comes twice"),
        ("ingest: [", "is no YAML"),
        ("- a", "must be a mapping"),
        ("", "must be a mapping"),
        ("? [a, b]\n: c", "is no YAML"),
        ("a: &a {b: *a}", "nested too deep"),
        ("[" * 5000, "nested too deep"),
        ("\x00", "is no YAML"),
    ],
)
def test_what_cannot_be_converted_is_said(tmp_path: Path, content: object, said: str) -> None:
    result = run(tmp_path, content)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    assert "can't be read: No such file or directory" in result.stderr


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    said = lines(run(tmp_path, {"ingest": {"topic": 5, "start": []}, "app": {"grace": "x"}, "more": 1}))
    assert said.keys() == {"ingest.topic", "ingest.start", "app.grace", "more"}


def test_unknown_keys_are_said_and_the_rest_is_converted(tmp_path: Path) -> None:
    result = run(tmp_path, {"app": {"grace": "1m", "graze": "2m"}, "cache": {"size": 1}, "metrics": None, 7: "x"})
    assert resource(result).grace == MINUTE_MS
    assert lines(result).keys() == {"app.graze", "cache.size", "7"}


def test_secrets_are_never_repeated(tmp_path: Path) -> None:
    config = {
        "ingest": {"sasl": {"enabled": True, "username": "u", "password": "hush-1"}},
        "stores": {
            "redis": {"addr": "redis:6379", "password": "hush-2"},
            "clickhouse": {"dsn": "clickhouse://me:hush-3@ch:9000/trades?dial_timeout=5s&password=hush-4"},
        },
        "pubsub": {"nats": {"url": "tls://you:hush-5@n1:4222, tls://you:hush-5@n2:4222"}},
        "security": {"jwt": {"secret": "hush-6"}},
    }
    result = run(tmp_path, config)
    stores = resource(result).stores
    assert (stores.clickhouse.url, stores.clickhouse.database, stores.clickhouse.username) == (
        "http://ch:8123",
        "trades",
        "me",
    )
    assert (stores.nats.url, stores.nats.username) == ("tls://n1:4222,tls://n2:4222", "you")
    assert stores.nats.tls.enabled
    broken = run(tmp_path, merged(config, {"stores": {"clickhouse": {"dsn": "//me:hush-7@ch"}}, "app": {"grace": 1}}))
    assert broken.exit_code == 1
    assert "hush" not in result.output + broken.output


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("120s", "2m"),
        ("1h30m", "90m"),
        ("1h0m0s", "1h"),
        ("1.5s", "1500ms"),
        ("0.25h", "15m"),
        ("24h", "24h"),
        ("0s", "0ms"),
    ],
)
def test_durations_are_read_as_go_writes_them(said: str, meant: str) -> None:
    assert duration(said) == meant


@pytest.mark.parametrize(
    ("content", "spec"),
    [
        ({"ingest": {"topic_cfg": {"partitions": 1}}}, {"shards": {"replicas": 1}}),
        ({"api": {"http": {"addr": "0.0.0.0:80"}}}, {"api": {"http": {"port": 80}}}),
        ({"ingest": {"tls": {"enabled": False, "ca_file": "x"}, "sasl": {"enabled": False, "username": "u"}}}, {}),
        (
            {"stores": {"clickhouse": {"dsn": "https://ch:9443/d"}}},
            {"stores": {"clickhouse": {"url": "https://ch:9443"}}},
        ),
    ],
)
def test_what_follows(tmp_path: Path, content: dict[str, Any], spec: dict[str, Any]) -> None:
    found = yaml.safe_load(run(tmp_path, content).stdout)["spec"]
    assert merged(found, spec) == found


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), ANYTHING, max_size=6))
def test_nothing_breaks_it(values: dict[str, Any]) -> None:
    config: dict[object, object] = {}
    for key, value in values.items():
        here: Any = config
        *sections, last = key.split(".")
        for section in sections:
            here = here.setdefault(section, {})
        here[last] = value
    done = conversion(config)
    assert all(": " in line and "\n" not in line for line in done.faults)
