from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import container_json, make_pod, moment
from vkubelet.errors import PodReferenceError
from vkubelet.model.environment import EnvironmentContext
from vkubelet.model.pod import Json
from vkubelet.model.references import (
    ConfigMapData,
    References,
    SecretData,
    ServiceAccountToken,
    TokenKey,
    Unavailable,
)
from vkubelet.model.volumes import VolumeFile, VolumeFiles, token_refresh_at, volume_files

GIVEN = References(
    config_maps={"app": ConfigMapData({"a": "1", "b": "2"}, {"raw": b"\xff"})},
    secrets={"keys": SecretData({"password": b"hunter2"})},
    tokens={
        TokenKey("", 3607): ServiceAccountToken("api-token", moment(3607)),
        TokenKey("vault", 3600): ServiceAccountToken("vault-token", moment(3600)),
    },
)
MISSING = References(
    config_maps={"app": Unavailable('configmap "app" not found', missing=True)},
    secrets={"keys": Unavailable('secret "keys" not found', missing=True)},
)


def files(references: References = GIVEN, **source: Any) -> VolumeFiles:
    pod = make_pod(
        metadata={"labels": {"app": "web"}},
        containers=[container_json(resources={"limits": {"cpu": "250m"}})],
        volumes=[{"name": "v", **source}],
    )
    context = EnvironmentContext(node_allocatable={"memory": "8Gi"})
    return volume_files(pod, pod.volumes[0], references, context)


def contents(found: VolumeFiles) -> dict[str, tuple[bytes, int]]:
    return {path: (file.content, file.mode) for path, file in found.items()}


def test_a_config_map_gives_a_file_for_every_key() -> None:
    found = files(configMap={"name": "app", "defaultMode": 420})

    assert contents(found) == {"a": (b"1", 0o644), "b": (b"2", 0o644), "raw": (b"\xff", 0o644)}
    assert not any(file.secret for file in found.values())


def test_items_choose_keys_paths_and_modes() -> None:
    items = [{"key": "a", "path": "etc/app/one"}, {"key": "raw", "path": "two", "mode": 0o400}]

    found = files(configMap={"name": "app", "defaultMode": 0o640, "items": items})

    assert contents(found) == {"etc/app/one": (b"1", 0o640), "two": (b"\xff", 0o400)}


def test_files_of_a_secret_are_marked_and_hidden() -> None:
    found = files(secret={"secretName": "keys", "defaultMode": 0o600})

    assert contents(found) == {"password": (b"hunter2", 0o600)}
    assert found["password"].secret
    assert "hunter2" not in repr(found)


def test_a_downward_api_volume() -> None:
    items: list[Json] = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {
            "path": "cpu",
            "mode": 0o400,
            "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"},
        },
        {"path": "memory", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory"}},
    ]

    assert contents(files(downwardAPI={"items": items})) == {
        "labels": (b'app="web"', 0o644),
        "cpu": (b"250", 0o400),
        "memory": (b"8589934592", 0o644),
    }


def test_a_projected_volume_joins_its_sources_and_a_later_one_wins() -> None:
    found = files(
        projected={
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"serviceAccountToken": {"path": "vault", "audience": "vault"}},
                {"configMap": {"name": "app", "items": [{"key": "a", "path": "x"}]}},
                {"secret": {"name": "keys", "items": [{"key": "password", "path": "x", "mode": 0o400}]}},
                {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ],
        }
    )

    assert contents(found) == {
        "token": (b"api-token", 0o644),
        "vault": (b"vault-token", 0o644),
        "x": (b"hunter2", 0o400),
        "ns": (b"default", 0o644),
    }
    assert {path for path, file in found.items() if file.secret} == {"token", "vault", "x"}


NO_KEY = [{"key": "z", "path": "z"}]


@pytest.mark.parametrize(
    ("source", "references", "message"),
    [
        pytest.param({"configMap": {"name": "app"}}, MISSING, 'configmap "app" not found', id="no ConfigMap"),
        pytest.param({"secret": {"secretName": "keys"}}, MISSING, 'secret "keys" not found', id="no Secret"),
        pytest.param(
            {"configMap": {"name": "app", "items": NO_KEY}},
            GIVEN,
            "configmap references non-existent config key: z",
            id="no key in ConfigMap",
        ),
        pytest.param(
            {"secret": {"secretName": "keys", "items": NO_KEY}},
            GIVEN,
            "references non-existent secret key: z",
            id="no key in Secret",
        ),
        pytest.param(
            {"projected": {"sources": [{"configMap": {"name": "app"}}, {"secret": {"name": "keys"}}]}},
            MISSING,
            '[configmap "app" not found, secret "keys" not found]',
            id="every error of a projected volume",
        ),
        pytest.param(
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            MISSING,
            "the service account token was not fetched",
            id="no token",
        ),
        pytest.param(
            {"projected": {"sources": [{"clusterTrustBundle": {"path": "t"}}]}},
            GIVEN,
            "a projected volume with clusterTrustBundle is not supported",
            id="unknown projection",
        ),
        pytest.param(
            {"downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}}]}},
            GIVEN,
            "container  not found",
            id="resource of no container",
        ),
    ],
)
def test_what_is_missing_is_told_in_the_kubelets_words(
    source: Json, references: References, message: str
) -> None:
    with pytest.raises(PodReferenceError) as raised:
        files(references, **source)
    assert str(raised.value) == message


def test_what_is_optional_may_be_missing() -> None:
    assert files(MISSING, configMap={"name": "app", "optional": True}) == {}
    assert files(MISSING, secret={"secretName": "keys", "optional": True, "items": NO_KEY}) == {}
    assert files(configMap={"name": "app", "optional": True, "items": NO_KEY}) == {}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", 'must not be empty: ""'),
        ("/etc/passwd", "must be relative path: /etc/passwd"),
        ("a/../../b", "must not contain '..': a/../../b"),
        ("..", "must not contain '..': .."),
        ("..data", "must not start with '..': ..data"),
        ("./..data", "must not start with '..': ./..data"),
        ("./", "must name a file: ./"),
        ("a" * 256, "filenames must be less than or equal to 255 characters"),
        ("a/" * 2049, "must be less than or equal to 4096 characters"),
    ],
)
def test_a_path_that_leads_out_of_the_volume_is_refused(path: str, message: str) -> None:
    with pytest.raises(PodReferenceError) as raised:
        files(configMap={"name": "app", "items": [{"key": "a", "path": path}]})
    assert str(raised.value) == f"invalid path: {message}"


@given(st.text(alphabet="a./", min_size=1, max_size=12))
def test_no_path_leaves_the_volume(path: str) -> None:
    try:
        found = files(configMap={"name": "app", "items": [{"key": "a", "path": path}]})
    except PodReferenceError:
        return
    (normal,) = found
    assert not normal.startswith(("/", ".."))
    assert not {"", ".", ".."} & set(normal.split("/"))


def test_a_volume_without_files_of_its_own_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="emptyDir"):
        files(emptyDir={})


# --- tokens -----------------------------------------------------------------------------------------------


def jwt(claims: Json) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


HOUR = 3600.0


@pytest.mark.parametrize(
    ("token", "lifetime_s", "refresh_s"),
    [
        pytest.param(jwt({"iat": moment().timestamp()}), HOUR, 0.8 * HOUR, id="an hour"),
        pytest.param(jwt({"iat": moment().timestamp()}), 10 * HOUR, 8 * HOUR, id="ten hours"),
        pytest.param(jwt({"iat": moment().timestamp()}), 24 * 365 * HOUR, 24 * HOUR, id="a year"),
        pytest.param("opaque", HOUR, 0.8 * HOUR, id="not a JWT"),
        pytest.param("a.!!!.b", HOUR, 0.8 * HOUR, id="not base64"),
        pytest.param(jwt({}), HOUR, 0.8 * HOUR, id="no iat"),
        pytest.param(jwt({"iat": "soon"}), HOUR, 0.8 * HOUR, id="no time"),
        pytest.param(jwt({"iat": 1e300}), HOUR, 0.8 * HOUR, id="no such year"),
    ],
)
def test_a_token_is_renewed_after_four_fifths_of_its_life_or_a_day(
    token: str, lifetime_s: float, refresh_s: float
) -> None:
    refresh_at = token_refresh_at(ServiceAccountToken(token, moment(lifetime_s)))

    assert refresh_at - moment() == datetime.timedelta(seconds=refresh_s)


def test_a_volume_file_is_a_value() -> None:
    assert VolumeFile(b"x", 0o644) == VolumeFile(b"x", 0o644)
