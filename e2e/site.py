"""An installation of SwapStats in the tests' cluster, and what tests do with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.cluster.host import run
from e2e.cluster.images import REPOSITORY, build_image
from e2e.cluster.others import AnyCluster
from e2e.cluster.waiting import wait_until

NAMESPACE: Final = "swapstats"
NAME: Final = "mainnet"
PARTITIONS: Final = 12
VERSION: Final = Path(__file__).parents[1].joinpath("VERSION").read_text().strip()
"""The charts' appVersion, and so the images' tag."""
NEXT_VERSION: Final = "0.1.1"
WRONG_VERSION: Final = "0.1.2-wrong"
"""A shard of this release counts a millionth of a dollar too much for each swap that it applies."""
_PASSWORDS: Final = "devstack-passwords"
IMAGES: Final = ("operator", "aggregator", "api", "devstack")
_TOOLBOX: Final = "toolbox"
_NATS_TLS: Final = {"tlscert": "tls.crt", "tlskey": "tls.key", "tlscacert": "ca.crt"}
_PAUSE: Final = ["python", "-c", "import signal; signal.pause()"]
_MEMBERS: Final = ("core", "runtime", "decider", "aggregator", "api", "operator", "cli")
_WRONG: Final = """
_right = Replica._decode


def _wrong(self, *arguments):
    decoded = _right(self, *arguments)
    decoded.swaps = [msgspec.structs.replace(swap, usd_micros=swap.usd_micros + 1) for swap in decoded.swaps]
    return decoded


Replica._decode = _wrong
"""
_RESTRICTED: Final = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_POD: Final = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}


class Site:
    """See the module. Everything is in one namespace, which allows only pods of the level ``restricted``."""

    def __init__(self, cluster: AnyCluster) -> None:
        self.cluster = cluster
        self._environment = os.environ | {
            "KUBECONFIG": str(cluster.kubeconfig),
            "PATH": f"{cluster.kubectl.parent}{os.pathsep}{os.environ['PATH']}",
        }

    @property
    def home(self) -> str:
        """The node of the stores, the producer and the toolbox,"""
        return self.cluster.nodes[-2]

    @property
    def other(self) -> str:
        """... and the one to which things happen."""
        return self.cluster.nodes[-1]

    # -- commands -----------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Kubectl in the namespace. Raises HostError."""
        command = (self.cluster.kubectl, f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={NAMESPACE}")
        return run(*command, *arguments, text=text)

    def shell(self, script: str, within_s: float = 300) -> str:
        """Run what a page tells people to type, in the repository's folder; its output. An error ends it."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=REPOSITORY,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def get(self, what: str, *options: str) -> Any:  # noqa: ANN401 - any object
        """An object, or a list's items."""
        found = json.loads(self.kubectl("get", what, "--output=json", *options))
        return found["items"] if found["kind"] == "List" or "items" in found else found

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        self.kubectl("apply", "--filename=-", text=yaml.safe_dump_all(manifests))

    def patch(self, spec: Mapping[str, Any]) -> None:
        """Edit the resource."""
        self.kubectl("patch", f"sws/{NAME}", "--type=merge", f"--patch={json.dumps({'spec': spec})}")

    def exec(self, *command: str, text: str | None = None) -> str:
        """Run a command in the toolbox, a pod of the devstack image."""
        stdin = ("--stdin",) if text is not None else ()
        return self.kubectl("exec", *stdin, _TOOLBOX, "--", *command, text=text)

    # -- what there is ------------------------------------------------------------------------------------------------

    def status(self, name: str = NAME) -> dict[str, Any]:
        """The resource's status."""
        status: dict[str, Any] = self.get(f"sws/{name}").get("status", {})
        return status

    def condition(self, kind: str, name: str = NAME) -> dict[str, Any]:
        """One of its conditions."""
        found = [each for each in self.status(name).get("conditions", ()) if each["type"] == kind]
        return found[0] if found else {"status": "Unknown", "reason": "", "message": ""}

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Pods of a component, by name."""
        label = f"--selector=app.kubernetes.io/instance={NAME},app.kubernetes.io/component={component}"
        found: list[dict[str, Any]] = self.get("pods", label)
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def operators(self) -> list[dict[str, Any]]:
        """Pods of the operator."""
        found: list[dict[str, Any]] = self.get("pods", "--selector=app.kubernetes.io/component=operator")
        return found

    def leader(self) -> str:
        """The pod of the operator that has the Lease."""
        holder: str = self.get("lease/swapstats-operator")["spec"].get("holderIdentity", "")
        return holder

    def is_settled(self, shards: int | None = None) -> bool:
        """Whether the newest spec is in force and all is well."""
        resource = self.get(f"sws/{NAME}")
        status, generation = resource.get("status", {}), resource["metadata"]["generation"]
        wanted = resource["spec"]["shards"]["replicas"] if shards is None else shards
        conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
        return (
            status.get("observedGeneration") == generation
            and conditions.get("Ready") == "True"
            and conditions.get("Progressing") == "False"
            and status["shards"] == f"{wanted}/{wanted}"
            and status["replicas"] == wanted
        )

    def settle(self, within_s: float = 120, shards: int | None = None) -> None:
        """Wait until it is."""
        wait_until(lambda: self.is_settled(shards), within_s, f"not settled: {self.told()}")

    def wait(self, until: Callable[[], bool], within_s: float, what: str) -> None:
        wait_until(until, within_s, what)

    def told(self) -> str:
        """What a person would look at, for a failure's message."""
        return self.kubectl("get", "sws,pods", "--output=wide")

    def api_address(self, name: str = NAME) -> str:
        """Of the API's Service, as the host reaches it."""
        spec = self.get(f"service/{name}-api")["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    # -- what is brought in -------------------------------------------------------------------------------------------

    def load_image(self, image: str, tag: str, context: Path = REPOSITORY) -> None:
        """Build an image and give it to the nodes."""
        self.cluster.load_image(build_image(image, tag, context))

    def load_images(self) -> None:
        """Those of this version, of the next one, and a wrong one."""
        for image, tag in (*((image, VERSION) for image in IMAGES), *((image, NEXT_VERSION) for image in IMAGES[:3])):
            self.load_image(image, tag)
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder)
            for name in (*_MEMBERS, "requirements"):
                shutil.copytree(REPOSITORY / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(REPOSITORY / "Dockerfile", context)
            with (context / "aggregator/src/swapstats_aggregator/replica.py").open("a") as module:
                module.write(_WRONG)
            self.load_image("aggregator", WRONG_VERSION, context)

    def start_toolbox(self) -> None:
        self.apply(_pod(_TOOLBOX, _PAUSE, self.home))
        self.kubectl("wait", f"pod/{_TOOLBOX}", "--for=condition=Ready", "--timeout=60s")

    def start_secure_nats(self, name: str) -> None:
        """NATS that lets in whoever has a certificate of its own authority; its own is in the Secret of its name."""
        files = [f"--{option}=/etc/tls/{key}" for option, key in _NATS_TLS.items()]
        pod = _pod(name, ["nats-server", "--addr=0.0.0.0", "--tls", "--tlsverify", *files], self.home)
        pod["metadata"]["labels"] = {"app": name}
        pod["spec"]["containers"][0]["volumeMounts"].append({"name": "tls", "mountPath": "/etc/tls"})
        pod["spec"]["volumes"].append({"name": "tls", "secret": {"secretName": name}})
        service = {"selector": {"app": name}, "ports": [{"port": 4222}]}
        self.apply(pod, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service})
        self.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")

    def usage(self, operator: str) -> tuple[float, float]:
        """Memory (bytes) and CPU (seconds since its start) of an operator's pod, as it says itself."""
        told = self.kubectl("get", f"--raw=/api/v1/namespaces/{NAMESPACE}/pods/{operator}:8081/proxy/metrics")
        metrics = dict(line.split() for line in told.splitlines() if line.startswith("process_"))
        return float(metrics["process_resident_memory_bytes"]), float(metrics["process_cpu_seconds_total"])

    def versions(self) -> dict[str, str]:
        """The resourceVersion of every object of every resource, and of the resources."""
        kinds = "sws,pods,services,configmaps,serviceaccounts,deployments,statefulsets,pdb,networkpolicies"
        return {
            f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for item in self.get(kinds)
            if item["kind"] == "SwapStats" or item["metadata"].get("ownerReferences")
        }

    def start_producer(self, rate: int, *noise: str) -> None:
        """A stream of swaps, if not told otherwise with duplicates, late ones and reorganisations; each life of it has
        a seed of its own.
        """
        arguments = ["produce", "--brokers=devstack-kafka:9092", "--topic=raw-swaps", f"--partitions={PARTITIONS}"]
        arguments += [f"--rate={rate}", "--tokens=200", *(noise or ("--noise",))]
        script = (
            "import os, secrets, sys; os.execvp('swapstats', [*sys.argv[1:], f'--seed={secrets.randbelow(2**31)}'])"
        )
        self.apply(_pod("producer", ["python", "-c", script, "swapstats", *arguments], self.home, restart="Always"))
        self.kubectl("wait", "pod/producer", "--for=condition=Ready", "--timeout=60s")

    def verify(self) -> dict[str, Any]:
        """`swapstats verify` as a Job, with the configuration that the pods have; its report."""
        revision = self.status()["rollout"]["stable"]
        volume = {"name": "configuration", "configMap": {"name": f"{NAME}-{revision}"}}
        command = ["swapstats", "verify", "-f", "/etc/swapstats/resource.json", "--json"]
        pod = _pod("verify", [*command, f"--url=http://{NAME}-api:8080"], self.home)["spec"]
        pod["containers"][0]["volumeMounts"].append({"name": "configuration", "mountPath": "/etc/swapstats"})
        pod["volumes"].append(volume)
        pod["containers"][0]["env"] = [{"name": "SWAPSTATS_SECRETS_DIR", "value": "/secrets"}]
        pod["containers"][0]["volumeMounts"].append({"name": "passwords", "mountPath": f"/secrets/{_PASSWORDS}"})
        pod["volumes"].append({"name": "passwords", "secret": {"secretName": _PASSWORDS, "optional": True}})
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "verify"},
            "spec": {"backoffLimit": 0, "template": {"spec": pod}},
        }
        self.kubectl("delete", "job/verify", "--ignore-not-found")
        self.apply(job)
        done = ("--for=jsonpath={.status.conditions[*].status}=True", "--timeout=600s")
        self.kubectl("wait", "job/verify", *done)
        lines = self.kubectl("logs", "job/verify").splitlines()  # progress is on the other stream, and in the same log
        report: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("{")))
        return report


def _pod(name: str, command: Sequence[str], node: str, *, restart: str = "Never") -> dict[str, Any]:
    container = {
        "name": name,
        "image": f"swapstats/devstack:{VERSION}",
        "command": list(command),
        "securityContext": _RESTRICTED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "restartPolicy": restart,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "securityContext": _POD,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def page(path: str) -> list[str]:
    """The commands of a page of docs/, block by block: indented lines that follow a blank one."""
    blocks: list[list[str]] = []
    before = ""
    for line in (REPOSITORY / "docs" / path).read_text().splitlines():
        if line.startswith("    "):
            if not before.startswith("    ") and before.strip() == "":
                blocks.append([])
            blocks[-1].append(line.removeprefix("    "))
        before = line
    return ["\n".join(block) for block in blocks]
