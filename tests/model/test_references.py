from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders import container_json, make_pod, moment
from vkubelet.errors import PodReferenceError
from vkubelet.model.references import (
    ConfigMapData,
    ReferenceNames,
    References,
    SecretData,
    ServiceAccountToken,
    TokenKey,
    Unavailable,
    required_references,
)

MISSING = Unavailable('configmap "app" not found', missing=True)
FORBIDDEN = Unavailable("forbidden", missing=False)


def test_a_pod_that_refers_to_nothing_needs_nothing() -> None:
    pod = make_pod(volumes=[{"name": "a", "emptyDir": {}}, {"name": "b", "downwardAPI": {"items": []}}])

    assert required_references(pod) == ReferenceNames()


def test_every_place_where_a_pod_refers_to_something_counts() -> None:
    pod = make_pod(
        imagePullSecrets=[{"name": "registry"}],
        initContainers=[
            container_json("init", envFrom=[{"prefix": "P_", "configMapRef": {"name": "cm-init"}}])
        ],
        containers=[
            container_json(
                envFrom=[{"secretRef": {"name": "s-from"}}],
                env=[
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm-key", "key": "k"}}},
                    {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s-key", "key": "k"}}},
                    {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
            )
        ],
        ephemeralContainers=[container_json("debug", envFrom=[{"configMapRef": {"name": "cm-debug"}}])],
        volumes=[
            {"name": "a", "configMap": {"name": "cm-volume"}},
            {"name": "b", "secret": {"secretName": "s-volume"}},
            {
                "name": "c",
                "projected": {
                    "sources": [
                        {"configMap": {"name": "cm-projected"}},
                        {"secret": {"name": "s-projected"}},
                        {"serviceAccountToken": {"path": "t", "audience": "vault", "expirationSeconds": 600}},
                        {"serviceAccountToken": {"path": "u"}},
                        {"downwardAPI": {"items": []}},
                    ]
                },
            },
        ],
    )

    assert required_references(pod) == ReferenceNames(
        config_maps=frozenset({"cm-init", "cm-key", "cm-debug", "cm-volume", "cm-projected"}),
        secrets=frozenset({"registry", "s-from", "s-key", "s-volume", "s-projected"}),
        tokens=frozenset({TokenKey("vault", 600), TokenKey("", 3600)}),
    )


def test_what_is_there_is_given() -> None:
    token = ServiceAccountToken("t", moment(3600))
    references = References(
        {"app": ConfigMapData({"a": "1"})}, {"keys": SecretData({"k": b"v"})}, {TokenKey("", 3600): token}
    )

    assert references.config_map("app") == ConfigMapData({"a": "1"})
    assert references.secret("keys") == SecretData({"k": b"v"})
    assert references.token(TokenKey("", 3600)) is token
    assert references.unavailable() == ()


def test_an_empty_config_map_is_there() -> None:
    assert References({"app": ConfigMapData({})}).config_map("app") == ConfigMapData({})


def test_only_what_is_optional_and_truly_missing_may_be_done_without() -> None:
    assert References({"app": MISSING}).config_map("app", optional=True) is None
    assert References(secrets={"keys": MISSING}).secret("keys", optional=True) is None


TOKEN = TokenKey("", 3600)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        pytest.param(
            lambda: References({"app": MISSING}).config_map("app"), MISSING.message, id="mandatory ConfigMap"
        ),
        pytest.param(
            lambda: References(secrets={"k": FORBIDDEN}).secret("k", optional=True),
            "forbidden",
            id="optional but unreadable Secret",
        ),
        pytest.param(
            lambda: References().config_map("app", optional=True),
            'configmap "app" was not fetched',
            id="ConfigMap not fetched",
        ),
        pytest.param(lambda: References().secret("k"), 'secret "k" was not fetched', id="Secret not fetched"),
        pytest.param(
            lambda: References(tokens={TOKEN: FORBIDDEN}).token(TOKEN), "forbidden", id="unreadable token"
        ),
        pytest.param(
            lambda: References().token(TOKEN),
            "the service account token was not fetched",
            id="token not fetched",
        ),
    ],
)
def test_what_cannot_be_had_is_an_error_with_its_reason(read: Callable[[], object], message: str) -> None:
    with pytest.raises(PodReferenceError) as raised:
        read()
    assert str(raised.value) == message


def test_everything_that_could_not_be_read_is_listed_for_another_try() -> None:
    references = References({"app": MISSING, "b": ConfigMapData({})}, {"k": FORBIDDEN}, {TOKEN: FORBIDDEN})

    assert references.unavailable() == (MISSING, FORBIDDEN, FORBIDDEN)


def test_secrets_and_tokens_do_not_show_in_logs() -> None:
    references = References(
        secrets={"k": SecretData({"password": b"hunter2"})},
        tokens={TOKEN: ServiceAccountToken("eyJ.secret", moment())},
    )

    assert "hunter2" not in repr(references)
    assert "eyJ" not in repr(references)
