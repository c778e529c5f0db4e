from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import container_json, make_pod
from vkubelet.errors import PodReferenceError
from vkubelet.model.environment import (
    EnvironmentContext,
    EnvVar,
    container_environment,
    expand_command,
    service_environment,
)
from vkubelet.model.pod import Json, Pod
from vkubelet.model.references import (
    ConfigMapData,
    References,
    SecretData,
    ServiceData,
    ServicePort,
    Unavailable,
)

CONTEXT = EnvironmentContext(
    pod_ips=("10.1.0.5", "fd00::5"),
    host_ips=("192.168.0.10", "fd00::1"),
    node_allocatable={"cpu": "4", "memory": "8Gi"},
)
KUBERNETES = ServiceData("default", "kubernetes", "10.0.0.1", (ServicePort("https", 443, "TCP"),))


def make(references: References | None = None, **container: Any) -> dict[str, str]:
    pod = make_pod(containers=[container_json(**container)])
    return values(pod, references)


def values(pod: Pod, references: References | None = None) -> dict[str, str]:
    env = container_environment(pod, pod.containers[0], references or References(), CONTEXT)
    assert len({v.name for v in env}) == len(env)
    return {v.name: v.value for v in env}


def value_from(kind: str, **reference: Any) -> Json:
    return {"name": "X", "valueFrom": {kind: reference}}


# --- values and their expansion ---------------------------------------------------------------------------


def test_variables_are_expanded_from_those_before_them() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(LATER)-$$(A)"},
        {"name": "LATER", "value": "2"},
        {"name": "EMPTY"},
        {"name": "A", "value": "$(A)$(A)"},
    ]

    assert make(env=env) == {"A": "11", "B": "1-$(LATER)-$(A)", "LATER": "2", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(VAR)", "value"),
        ("a$(VAR)b$(VAR)c", "avaluebvaluec"),
        ("$$(VAR)", "$(VAR)"),
        ("$$$(VAR)", "$value"),
        ("$$$$(VAR)", "$$(VAR)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$()", "$()"),
        ("$(VAR", "$(VAR"),
        ("$($(VAR)", "$($(VAR)"),
        ("$VAR ${VAR} $", "$VAR ${VAR} $"),
        ("$(VAR)$", "value$"),
        ("$(EMPTY)", ""),
        ("", ""),
    ],
)
def test_commands_are_expanded_by_kubernetes_rules(text: str, expanded: str) -> None:
    env = (EnvVar("VAR", "value"), EnvVar("EMPTY", ""))

    assert expand_command([text, "x"], env) == (expanded, "x")


def reference_expansion(text: str, variables: dict[str, str]) -> str:
    """The rule once more, character by character."""
    out, at = "", 0
    while at < len(text):
        if text.startswith("$$", at):
            out, at = out + "$", at + 2
        elif text.startswith("$(", at) and (end := text.find(")", at)) > 0:
            name = text[at + 2 : end]
            out, at = out + variables.get(name, f"$({name})"), end + 1
        else:
            out, at = out + text[at], at + 1
    return out


@given(st.text(alphabet="$()AB x", max_size=30))
def test_expansion_never_fails_and_follows_the_rule(text: str) -> None:
    env = (EnvVar("A", "1"), EnvVar("B", "$(A)"))

    assert expand_command([text], env) == (reference_expansion(text, {"A": "1", "B": "$(A)"}),)


# --- ConfigMaps and Secrets -------------------------------------------------------------------------------

GIVEN = References(
    config_maps={"app": ConfigMapData({"b": "2", "a": "1", "odd.name-x": "3"})},
    secrets={"keys": SecretData({"password": b"hunter2", "binary": b"\xff"})},
)
MISSING = References(
    config_maps={"app": Unavailable('configmap "app" not found', missing=True)},
    secrets={"keys": Unavailable('secret "keys" not found', missing=True)},
)


def test_env_from_takes_every_key_with_the_prefix_and_env_overrides_it() -> None:
    env_from = [{"configMapRef": {"name": "app"}}, {"prefix": "P_", "configMapRef": {"name": "app"}}]

    assert make(GIVEN, envFrom=env_from, env=[{"name": "a", "value": "mine $(P_b)"}]) == {
        "a": "mine 2",
        "b": "2",
        "odd.name-x": "3",
        "P_a": "1",
        "P_b": "2",
        "P_odd.name-x": "3",
    }


def test_values_from_secrets_stay_marked_also_when_expanded_and_are_hidden() -> None:
    pod = make_pod(
        containers=[
            container_json(
                env=[
                    value_from("secretKeyRef", name="keys", key="password"),
                    {"name": "URL", "value": "db://u:$(X)@host"},
                    {"name": "ESCAPED", "value": "$$(X)"},
                    value_from("configMapKeyRef", name="app", key="a") | {"name": "PLAIN"},
                ]
            )
        ]
    )

    env = {v.name: v for v in container_environment(pod, pod.containers[0], GIVEN, CONTEXT)}

    assert env["URL"].value == "db://u:hunter2@host"
    assert {name: v.secret for name, v in env.items()} == {
        "X": True,
        "URL": True,
        "ESCAPED": False,
        "PLAIN": False,
    }
    assert "hunter2" not in repr(env)


@pytest.mark.parametrize(
    ("container", "references", "message"),
    [
        pytest.param(
            {"env": [value_from("configMapKeyRef", name="app", key="z")]},
            GIVEN,
            "couldn't find key z in ConfigMap default/app",
            id="no key in ConfigMap",
        ),
        pytest.param(
            {"env": [value_from("secretKeyRef", name="keys", key="z")]},
            GIVEN,
            "couldn't find key z in Secret default/keys",
            id="no key in Secret",
        ),
        pytest.param(
            {"env": [value_from("configMapKeyRef", name="app", key="a")]},
            MISSING,
            'configmap "app" not found',
            id="no ConfigMap",
        ),
        pytest.param(
            {"envFrom": [{"secretRef": {"name": "keys"}}]}, MISSING, 'secret "keys" not found', id="no Secret"
        ),
        pytest.param(
            {"envFrom": [{"configMapRef": {"name": "app", "optional": True}}]},
            References(config_maps={"app": Unavailable("forbidden", missing=False)}),
            "forbidden",
            id="optional but unreadable",
        ),
        pytest.param(
            {"env": [value_from("secretKeyRef", name="keys", key="binary")]},
            GIVEN,
            "key binary in Secret default/keys is not UTF-8 text and cannot be an environment variable: "
            "mount it as a volume",
            id="bytes",
        ),
        pytest.param(
            {"env": [value_from("fieldRef", fieldPath="spec.nothing")]},
            GIVEN,
            "unsupported fieldPath: spec.nothing",
            id="no such field",
        ),
        pytest.param(
            {"env": [value_from("fieldRef", fieldPath="spec.nodeName['x']")]},
            GIVEN,
            "fieldPath \"spec.nodeName['x']\" does not support subscript",
            id="no subscript",
        ),
        pytest.param(
            {"env": [value_from("resourceFieldRef", resource="limits.gpu")]},
            GIVEN,
            "unsupported container resource : limits.gpu",
            id="no such resource",
        ),
        pytest.param(
            {"env": [value_from("resourceFieldRef", resource="limits.cpu", containerName="other")]},
            GIVEN,
            "container other not found",
            id="no such container",
        ),
        pytest.param(
            {"env": [value_from("fileKeyRef", path="a")]},
            GIVEN,
            "environment variable X has an unknown source: fileKeyRef",
            id="unknown source",
        ),
    ],
)
def test_what_is_missing_is_told_in_the_kubelets_words(
    container: Json, references: References, message: str
) -> None:
    with pytest.raises(PodReferenceError) as raised:
        make(references, **container)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "references", [MISSING, References({"app": ConfigMapData({})}, {"keys": SecretData({})})]
)
def test_what_is_optional_and_missing_is_left_out(references: References) -> None:
    env = [
        value_from("configMapKeyRef", name="app", key="z", optional=True),
        value_from("secretKeyRef", name="keys", key="z", optional=True),
    ]
    env_from = [
        {"configMapRef": {"name": "app", "optional": True}},
        {"secretRef": {"name": "keys", "optional": True}},
    ]

    assert make(references, env=env, envFrom=env_from) == {}


# --- the downward API -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "uid-web"),
        ("metadata.labels", 'app="web"\nb="it\'s \\"x\\"\\n"'),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['missing']", ""),
        ("metadata.annotations['example.com/a[b]']", "yes"),
        ("metadata.annotations", 'bell="\\x1b\\u200bü"\nexample.com/a[b]="yes"'),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "192.168.0.10"),
        ("status.hostIPs", "192.168.0.10,fd00::1"),
        ("status.podIP", "10.1.0.5"),
        ("status.podIPs", "10.1.0.5,fd00::5"),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    pod = make_pod(
        metadata={
            "labels": {"b": 'it\'s "x"\n', "app": "web"},
            "annotations": {"example.com/a[b]": "yes", "bell": "\x1b\u200bü"},
        },
        containers=[container_json(env=[value_from("fieldRef", fieldPath=path)])],
    )

    assert values(pod) == {"X": value}


def test_a_pod_on_the_hosts_network_has_the_hosts_address() -> None:
    pod = make_pod(
        hostNetwork=True, containers=[container_json(env=[value_from("fieldRef", fieldPath="status.podIPs")])]
    )
    context = EnvironmentContext(host_ips=("192.168.0.10", "fd00::1"))

    env = container_environment(pod, pod.containers[0], References(), context)

    assert env[0].value == "192.168.0.10,fd00::1"


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("requests.cpu", None, "1"),
        ("requests.cpu", "1m", "250"),
        ("requests.memory", "1Mi", "64"),
        ("requests.memory", "0", "67108864"),
        ("limits.cpu", "1m", "4000"),
        ("limits.memory", "1Gi", "8"),
        ("limits.ephemeral-storage", None, "0"),
        ("requests.hugepages-2Mi", "1Mi", "0"),
    ],
)
def test_resources_of_the_container_default_to_the_nodes(
    resource: str, divisor: str | None, value: str
) -> None:
    reference = {"resource": resource} | ({"divisor": divisor} if divisor else {})

    assert make(
        resources={"requests": {"cpu": "250m", "memory": "64Mi"}},
        env=[value_from("resourceFieldRef", **reference)],
    ) == {"X": value}


# --- Services ---------------------------------------------------------------------------------------------


def test_a_service_gives_the_variables_that_docker_links_had() -> None:
    service = ServiceData(
        "default",
        "my-db",
        "10.0.0.7",
        (ServicePort("client", 5432, "TCP"), ServicePort("admin-ui", 53, "UDP")),
    )

    env = service_environment(make_pod(), [service])

    assert {v.name: v.value for v in env.values()} == {
        "MY_DB_SERVICE_HOST": "10.0.0.7",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_CLIENT": "5432",
        "MY_DB_SERVICE_PORT_ADMIN_UI": "53",
        "MY_DB_PORT": "tcp://10.0.0.7:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.0.0.7:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.0.0.7",
        "MY_DB_PORT_53_UDP": "udp://10.0.0.7:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.0.0.7",
    }


def hosts(pod: Pod, *services: ServiceData) -> dict[str, str]:
    env = service_environment(pod, services)
    return {n: v.value for n, v in env.items() if n.endswith("_SERVICE_HOST")}


def service(name: str, namespace: str = "shop", cluster_ip: str = "10.0.0.7") -> ServiceData:
    return ServiceData(namespace, name, cluster_ip, (ServicePort("", 80, "TCP"),))


def test_services_of_the_namespace_and_the_api_servers_are_told() -> None:
    pod = make_pod(namespace="shop")
    others = [
        service("other", "elsewhere"),
        service("headless", cluster_ip="None"),
        service("bare", cluster_ip=""),
    ]

    assert hosts(pod, KUBERNETES, service("cart"), *others) == {
        "CART_SERVICE_HOST": "10.0.0.7",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    }


def test_without_service_links_only_the_api_server_is_told() -> None:
    pod = make_pod(namespace="shop", enableServiceLinks=False)

    assert hosts(pod, KUBERNETES, service("cart"), service("kubernetes")) == {
        "KUBERNETES_SERVICE_HOST": "10.0.0.1"
    }


def test_a_service_named_kubernetes_in_the_pods_namespace_goes_first() -> None:
    pod = make_pod(namespace="shop")

    assert hosts(pod, service("kubernetes"), KUBERNETES) == {"KUBERNETES_SERVICE_HOST": "10.0.0.7"}


def test_an_ipv6_service_is_in_brackets_where_a_port_follows() -> None:
    env = service_environment(make_pod(namespace="shop"), [service("six", cluster_ip="fd00::7")])

    assert env["SIX_PORT"].value == "tcp://[fd00::7]:80"
    assert env["SIX_PORT_80_TCP_ADDR"].value == "fd00::7"


def test_service_variables_come_first_can_be_expanded_and_are_overridden() -> None:
    pod = make_pod(
        containers=[
            container_json(
                env=[
                    {"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST)"},
                    {"name": "KUBERNETES_PORT", "value": "mine"},
                ]
            )
        ]
    )

    env = container_environment(pod, pod.containers[0], References(services=(KUBERNETES,)), CONTEXT)

    assert [v.name for v in env][-2:] == ["URL", "KUBERNETES_PORT"]
    assert {v.name: v.value for v in env}["URL"] == "https://10.0.0.1"
    assert {v.name: v.value for v in env}["KUBERNETES_PORT"] == "mine"
