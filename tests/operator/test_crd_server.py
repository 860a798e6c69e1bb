"""What a real API server makes of the definition: wrong resources are refused, with a sentence that helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
import yaml
from pydantic import ValidationError

from e2e.site import page
from swapstats_core.spec import RESERVED_NAMES, SwapStatsResource
from swapstats_operator.crd import GROUP, VERSION, custom_resource_definition
from tests.cli.supervised import REPOSITORY
from tests.kit.api_server import ApiServer, serving
from tests.kit.figures import Figure

pytestmark = pytest.mark.timeout(180)
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_RESOURCES = f"/apis/{GROUP}/{VERSION}/namespaces/default/swapstats"
_STRICT = {"fieldValidation": "Strict"}
"""As kubectl asks: a field that nobody knows is an error."""
CA = {"name": "authority", "key": "ca.crt"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"windows": []}, "spec.windows in body should have at least 1 items"),
    ({"windows": ["5x"]}, "spec.windows[0] in body should match"),
    ({"windows": ["1.5h"]}, "spec.windows[0] in body should match"),
    ({"windows": ["90s"]}, "windows: every window is a whole number of minutes, from 1m to 7d"),
    ({"windows": ["0m"]}, "windows: every window is a whole number of minutes, from 1m to 7d"),
    ({"windows": ["8d"], "dedupe": {"ttl": "8d"}}, "windows: every window is a whole number of minutes, from 1m to 7d"),
    ({"windows": ["1h", "5m"]}, "windows: list them in ascending order, each once"),
    ({"windows": ["60m", "1h"]}, "windows: list them in ascending order, each once"),
    ({"windows": [f"{n}m" for n in range(1, 10)]}, "spec.windows: Too many: 9: must have at most 8 items"),
    ({"dedupe": {"ttl": "1h"}}, "dedupe.ttl must be at least the longest window"),
    ({"source": {"reorgHorizon": "25h"}}, "source.reorgHorizon must not exceed dedupe.ttl"),
    ({"grace": "25h"}, "grace must not exceed the longest window"),
    ({"source": {"topic": {"retention": "24h"}}}, "source.topic.retention must be at least the longest window plus"),
    (
        {"source": {"topic": {"partitions": 0}}},
        "spec.source.topic.partitions in body should be greater than or equal to",
    ),
    (
        {"source": {"topic": {"partitions": 1025}}},
        "spec.source.topic.partitions in body should be less than or equal to",
    ),
    (
        {"source": {"topic": {"replication": 0}}},
        "spec.source.topic.replication in body should be greater than or equal",
    ),
    (
        {"source": {"topic": {"cleanupPolicy": "compact"}}},
        'spec.source.topic.cleanupPolicy: Unsupported value: "compact"',
    ),
    (
        {"stores": {"clickhouse": {"storagePolicy": "tiered", "deleteAfter": "7d"}}},
        "stores.clickhouse.coldAfter must not exceed deleteAfter",
    ),
    ({"source": {"brokers": []}}, "spec.source.brokers in body should have at least 1 items"),
    ({"source": {"brokers": ["kafka"]}}, 'spec.source.brokers[0]: Invalid value: "string": must be host:port'),
    ({"source": {"start": "middle"}}, 'spec.source.start: Unsupported value: "middle"'),
    ({"source": {"maxBytes": 1}}, "spec.source.maxBytes in body should be greater than or equal to 1024"),
    ({"source": {"sasl": {"mechanism": "PLAIN"}}}, "spec.source.sasl.username: Required value"),
    (
        {"source": {"sasl": {"mechanism": "GSSAPI", "username": "u", "secretRef": {"name": "s", "key": "k"}}}},
        'spec.source.sasl.mechanism: Unsupported value: "GSSAPI"',
    ),
    (
        {"source": {"sasl": {"username": "u", "secretRef": {"name": "s", "key": "../k"}}}},
        "spec.source.sasl.secretRef.key in body should match",
    ),
    ({"source": {"tls": {"caRef": CA}}}, "source.tls: caRef, certRef and keyRef have a meaning only with TLS"),
    ({"source": {"tls": {"enabled": True, "certRef": CA}}}, "source.tls: certRef and keyRef go together"),
    ({"snapshots": {"interval": "10ms"}}, 'spec.snapshots.interval: Invalid value: "string": must be at least 100ms'),
    ({"snapshots": {"keep": 1}}, "spec.snapshots.keep in body should be greater than or equal to 2"),
    ({"shards": {"replicas": 13}}, "shards.replicas must not exceed source.topic.partitions"),
    ({"shards": {"replicas": -1}}, "spec.shards.replicas in body should be greater than or equal to 0"),
    ({"api": {"http": {"port": 70_000}}}, "spec.api.http.port in body should be less than or equal to 65535"),
    ({"api": {"ws": {"coalesce": "1ms"}}}, 'spec.api.ws.coalesce: Invalid value: "string": must be at least 10ms'),
    ({"api": {"auth": {"jwt": {"enabled": True}}}}, 'unknown field "spec.api.auth"'),
    ({"api": {"rateLimit": {"enabled": True}}}, 'unknown field "spec.api.rateLimit"'),
    ({"api": {"grpc": {"enabled": True}}}, 'unknown field "spec.api.grpc"'),
    ({"environment": "prod"}, 'unknown field "spec.environment"'),
    ({"stores": {"redis": {"url": "localhost:6379"}}}, "must be as in redis://redis:6379/0"),
    ({"stores": {"redis": {"url": "redis://:password@redis:6379/0"}}}, "without a name or a password"),
    ({"stores": {"redis": {"password": "x"}}}, 'unknown field "spec.stores.redis.password"'),
    ({"stores": {"redis": {"secretRef": {"name": "redis"}}}}, "spec.stores.redis.secretRef.key: Required value"),
    (
        {"stores": {"nats": {"url": "http://nats"}}},
        'spec.stores.nats.url: Invalid value: "string": must be as in nats://nats:4222',
    ),
    (
        {"stores": {"nats": {"secretRef": {"name": "No_Name", "key": "k"}}}},
        "spec.stores.nats.secretRef.name in body should match",
    ),
    ({"stores": {"redis": {"tls": {"enabled": True}}}}, "needs a url that begins with rediss://"),
    ({"stores": {"redis": {"url": "rediss://redis", "tls": {"caRef": CA}}}}, "stores.redis.tls: caRef, certRef and"),
    ({"stores": {"clickhouse": {"tls": {"enabled": True}}}}, "needs a url that begins with https://"),
    (
        {"stores": {"clickhouse": {"url": "https://c", "tls": {"enabled": True, "keyRef": CA}}}},
        "stores.clickhouse.tls: certRef and keyRef go together",
    ),
    ({"stores": {"nats": {"tls": {"enabled": True}}}}, "needs a url that begins with tls://"),
    ({"stores": {"nats": {"url": "tls://a,nats://b"}}}, "several separated by commas, all alike"),
    ({"stores": {"nats": {"url": "tls://nats", "tls": {"caRef": CA}}}}, "stores.nats.tls: caRef, certRef and"),
    ({"stores": {"clickhouse": {"batchRows": 0}}}, "spec.stores.clickhouse.batchRows in body should be greater than"),
    (
        {"stores": {"clickhouse": {"batchInterval": "1ms"}}},
        'batchInterval: Invalid value: "string": must be',
    ),
    ({"stores": {"clickhouse": {"url": "clickhouse:8123"}}}, "must be as in http://clickhouse:8123"),
    ({"rollout": {"maxMoving": 0}}, "spec.rollout.maxMoving in body should be greater than or equal to 1"),
    ({"api": {"autoscaling": {"minReplicas": 11}}}, "api.autoscaling.minReplicas must not exceed maxReplicas"),
    ({"images": {"pullPolicy": "Sometimes"}}, 'spec.images.pullPolicy: Unsupported value: "Sometimes"'),
    ({"deletionPolicy": "Maybe"}, 'spec.deletionPolicy: Unsupported value: "Maybe"'),
    ({"telemetry": {"logLevel": "trace"}}, 'spec.telemetry.logLevel: Unsupported value: "trace"'),
    ({"shard": {"replicas": 3}}, 'unknown field "spec.shard"'),
]
"""What is wrong, and what the API server says of it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server that knows the definition."""
    with serving(tmp_path_factory.mktemp("api-server")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Iterator[httpx.Client]:
    """One who may do everything, once the definition is established."""
    with server.client() as client:
        created = client.post(_DEFINITIONS, json=custom_resource_definition(), params=_STRICT)
        assert created.status_code == httpx.codes.CREATED, created.text
        watch = {"watch": "true", "fieldSelector": f"metadata.name=swapstats.{GROUP}", "timeoutSeconds": "30"}
        with client.stream("GET", _DEFINITIONS, params=watch) as events:
            assert any(map(_is_established, events.iter_lines()))
        yield client


def _is_established(event: str) -> bool:
    conditions = json.loads(event)["object"].get("status", {}).get("conditions") or []
    return any((each["type"], each["status"]) == ("Established", "True") for each in conditions)


def _resource(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "SwapStats", "metadata": {"name": name}, "spec": spec}


def _is_valid(resource: dict[str, Any]) -> bool:
    try:
        SwapStatsResource.model_validate(resource)
    except ValidationError:
        return False
    return True


def test_every_wrong_spec_is_refused(client: httpx.Client, figure: Figure) -> None:
    for number, (spec, said) in enumerate(WRONG):
        resource = _resource(f"wrong-{number}", spec)
        refused = client.post(_RESOURCES, json=resource, params=_STRICT)
        assert refused.is_client_error, (spec, refused.text)
        assert said in refused.json()["message"], (spec, refused.json()["message"])
        assert not _is_valid(resource), f"a process takes it: {spec}"
    figure(f"API server: {len(WRONG)} wrong specs refused, each with its sentence")


@pytest.mark.parametrize("name", ["dotted.name", "x" * 41])
def test_a_name_that_is_no_beginning_of_others_is_refused(client: httpx.Client, name: str) -> None:
    refused = client.post(_RESOURCES, json=_resource(name, {}))
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "metadata.name must be lower-case letters, digits and '-', at most 40 of them" in refused.json()["message"]
    assert not _is_valid(_resource(name, {}))


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_a_name_of_somebody_elses_service_account_is_refused(client: httpx.Client, name: str) -> None:
    refused = client.post(_RESOURCES, json=_resource(name, {}))
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "metadata.name must not be default or swapstats-operator" in refused.json()["message"]
    assert not _is_valid(_resource(name, {}))


@pytest.mark.parametrize("example", ["demo.yaml"])
def test_the_examples_are_taken(client: httpx.Client, example: str) -> None:
    resource = yaml.safe_load((REPOSITORY / "examples" / example).read_text())
    taken = client.post(_RESOURCES, json=resource, params=_STRICT | {"dryRun": "All"})
    assert taken.status_code == httpx.codes.CREATED, taken.text


def test_the_runbooks_stores_with_tls_are_taken(client: httpx.Client) -> None:
    *_, encrypted = page("runbook/install.md")
    resource = _resource("encrypted", yaml.safe_load(encrypted)["spec"])
    taken = client.post(_RESOURCES, json=resource, params=_STRICT | {"dryRun": "All"})
    assert taken.status_code == httpx.codes.CREATED, taken.text
    assert _is_valid(resource)


def test_absent_fields_get_the_models_defaults(client: httpx.Client) -> None:
    taken = client.post(_RESOURCES, json=_resource("empty", {}))
    assert taken.status_code == httpx.codes.CREATED, taken.text
    resource = SwapStatsResource.model_validate({"metadata": {"name": "empty"}})
    assert taken.json()["spec"] == resource.spec.model_dump(by_alias=True, mode="json", exclude_none=True)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("source.topic.name", "others", "source.topic.name can't change: offsets and state belong to the topic"),
        ("source.topic.partitions", 24, "source.topic.partitions can't change: a token's partition follows from it"),
        ("stores.redis.prefix", "other:", "stores.redis.prefix can't change: the stored state is under the old one"),
    ],
)
def test_what_the_state_depends_on_can_not_change(client: httpx.Client, path: str, value: object, said: str) -> None:
    client.post(_RESOURCES, json=_resource("lasting", {}))
    changed = deepcopy(client.get(f"{_RESOURCES}/lasting").json())
    *sections, key = path.split(".")
    holder = changed["spec"]
    for section in sections:
        holder = holder[section]
    holder[key] = value
    refused = client.put(f"{_RESOURCES}/lasting", json=changed)
    assert refused.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert said in refused.json()["message"]


def test_it_scales(client: httpx.Client) -> None:
    client.post(_RESOURCES, json=_resource("scaled", {}))
    scale = client.get(f"{_RESOURCES}/scaled/scale").json()
    assert scale["spec"]["replicas"] == 2
    scale["spec"]["replicas"] = 5
    assert client.put(f"{_RESOURCES}/scaled/scale", json=scale).status_code == httpx.codes.OK
    assert client.get(f"{_RESOURCES}/scaled").json()["spec"]["shards"]["replicas"] == 5
    scale = client.get(f"{_RESOURCES}/scaled/scale").json()
    scale["spec"]["replicas"] = 13
    refused = client.put(f"{_RESOURCES}/scaled/scale", json=scale)
    assert "shards.replicas must not exceed source.topic.partitions" in refused.json()["message"]
