"""What is in deploy/ is valid to those who read it, and agrees with the appliance it starts."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from outpost.app import http
from outpost.config.layers import AUTHENTIK_NAMES
from outpost.config.sections import ListenSettings, ProcessSettings
from tests.process.running import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = list(yaml.safe_load_all((DEPLOY / "kubernetes/outpost.yaml").read_text()))
COMPOSE = (DEPLOY / "docker/compose.yaml").read_text()
VERSIONS = ("1.25", "1.31", "1.37")
"""The oldest and the newest that the linter has schemas for, and one between."""
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def program(name: str) -> str:
    found = shutil.which(name, path=SBIN)
    if found is None:
        assert not os.environ.get("CI"), f"{name} is missing, though .ci/packages installs it"
        pytest.skip(f"{name} is not installed")
    return found


def kind(name: str) -> list[dict[str, Any]]:
    return [one for one in KUBERNETES if one["kind"] == name]


DEPLOYMENT = kind("Deployment")[0]["spec"]
POD = DEPLOYMENT["template"]["spec"]
CONTAINER = POD["containers"][0]
PORTS = {port["name"]: (port["containerPort"], port.get("protocol", "TCP")) for port in CONTAINER["ports"]}


# -- Kubernetes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", KUBERNETES, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_kubernetes_takes_it(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m["spec"].update(replica=3),
        lambda m: m["spec"].update(replicas="three"),
        lambda m: m["spec"]["template"]["spec"]["containers"][0].pop("name"),
        lambda m: m["spec"].pop("selector"),
    ],
    ids=["misspelt", "wrong type", "no name", "no selector"],
)
def test_the_linter_sees_mistakes(damage: Any) -> None:
    manifest = yaml.safe_load(yaml.safe_dump(kind("Deployment")[0]))
    damage(manifest)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_ports_are_the_appliance_s_own() -> None:
    listen = ListenSettings()
    assert {name: number for name, (number, _) in PORTS.items()} == {
        "ldap": listen.ldap[0].port,
        "ldaps": listen.ldaps[0].port,
        "radius": listen.radius[0].port,
        "http": listen.metrics[0].port,
    }
    for service in kind("Service"):
        for port in service["spec"]["ports"]:
            assert PORTS[port["targetPort"]][1] == port.get("protocol", "TCP")
    served = {port["targetPort"] for service in kind("Service") for port in service["spec"]["ports"]}
    assert served == set(PORTS)


def test_everything_selects_the_pods_of_the_deployment() -> None:
    labels = DEPLOYMENT["template"]["metadata"]["labels"]
    assert DEPLOYMENT["selector"]["matchLabels"].items() <= labels.items()
    assert all(one["spec"]["selector"].items() <= labels.items() for one in kind("Service"))
    for one in (
        *kind("PodDisruptionBudget"),
        *({"spec": {"selector": c["labelSelector"]}} for c in POD["topologySpreadConstraints"]),
    ):
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()
    # A budget that lets no pod go blocks every drain of a node.
    assert kind("PodDisruptionBudget")[0]["spec"]["maxUnavailable"] < DEPLOYMENT["replicas"]


def test_probes_ask_what_the_http_port_answers() -> None:
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == http.READY
    for probe in ("startupProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["path"] == http.PING
    assert {CONTAINER[f"{name}Probe"]["httpGet"]["port"] for name in ("startup", "liveness", "readiness")} == {"http"}


def test_a_stop_has_the_time_it_needs() -> None:
    pause = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] >= pause + ProcessSettings().drain_s + 2
    unit = (DEPLOY / "systemd/outpost.service").read_text()
    assert float(re.findall(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)[0]) >= ProcessSettings().drain_s + 2
    compose = yaml.safe_load(COMPOSE)["services"]["outpost"]["stop_grace_period"]
    assert float(compose.removesuffix("s")) >= ProcessSettings().drain_s + 2


def test_a_device_stays_with_one_replica_and_shows_its_own_address() -> None:
    (radius,) = (one["spec"] for one in kind("Service") if one["metadata"]["name"] == "outpost-radius")
    assert radius["sessionAffinity"] == "ClientIP" and radius["externalTrafficPolicy"] == "Local"


def test_the_pod_may_do_little() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True and POD["automountServiceAccountToken"] is False
    context = CONTAINER["securityContext"]
    assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]} and "limits" in CONTAINER["resources"]


# -- compose --------------------------------------------------------------------------------------


def test_compose_takes_it() -> None:
    PyCompose.from_yaml(COMPOSE).validate()
    for right, wrong in (("read_only: true", "readonly: true"), ('"389:3389/tcp"', '"389:ldap/tcp"')):
        assert right in COMPOSE
        with pytest.raises(ValueError, match="outpost"):
            PyCompose.from_yaml(COMPOSE.replace(right, wrong))


def test_compose_publishes_the_ports_that_are_served() -> None:
    published = yaml.safe_load(COMPOSE)["services"]["outpost"]["ports"]
    inside = {
        (int(port), name.upper()) for port, _, name in (one.rpartition(":")[2].partition("/") for one in published)
    }
    assert inside == set(PORTS.values())


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["kubernetes/outpost.yaml", "docker/compose.yaml", "systemd/outpost.service", "haproxy/haproxy.cfg"]
)
def test_variables_exist(name: str) -> None:
    """Those of authentik's in the list of names; ours as sections and keys of the page of settings."""
    text, page = (DEPLOY / name).read_text(), (ROOT / "docs/settings.md").read_text()
    variables = set(re.findall(r"\b(?:AUTHENTIK|OUTPOST)_[A-Z_]+[A-Z]\b", text))
    assert variables
    for variable in variables:
        assert variable in AUTHENTIK_NAMES or variable in page or known(variable), variable


def known(variable: str) -> bool:
    return variable in {"OUTPOST_CONFIG", "OUTPOST_DIRECTORY"}


# -- systemd --------------------------------------------------------------------------------------


def unit_with(tmp_path: Path, right: str = "", wrong: str = "") -> subprocess.CompletedProcess[str]:
    text = (DEPLOY / "systemd/outpost.service").read_text()
    assert right in text and "/opt/outpost/bin/outpost" in text
    path = tmp_path / "outpost.service"
    path.write_text(text.replace("/opt/outpost/bin/outpost", "/bin/true").replace(right, wrong or right))
    command = [program("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    done = unit_with(tmp_path)
    assert done.returncode == 0 and "outpost.service" not in done.stderr, done.stderr
    assert "outpost.service" in unit_with(tmp_path, "ProtectSystem=strict", "ProtectSystem=somewhat").stderr
    assert "outpost.service" in unit_with(tmp_path, "LockPersonality=yes", "LockPersonalty=yes").stderr


def test_the_unit_exposes_little() -> None:
    command = [program("systemd-analyze"), "security", "--offline=true", "--threshold=20"]
    done = subprocess.run(
        [*command, str(DEPLOY / "systemd/outpost.service")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


# -- HAProxy --------------------------------------------------------------------------------------


def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    haproxy, text = program("haproxy"), (DEPLOY / "haproxy/haproxy.cfg").read_text()
    for right, wrong, expected in (
        ("", "", 0),
        ("send-proxy-v2", "send-proxy-v3", 1),
        ("balance leastconn", "balance most", 1),
    ):
        path = tmp_path / "haproxy.cfg"
        path.write_text(text.replace(right, wrong) if right else text)
        done = subprocess.run([haproxy, "-c", "-f", str(path)], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode != 0) == bool(expected), done.stderr
        assert expected or "[WARNING]" not in done.stderr, done.stderr
