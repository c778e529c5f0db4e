"""Which credentials of which secret are tried for an image."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.kuberuntime import image_names
from vkubelet.kuberuntime.image_credentials import credentials_for
from vkubelet.model.references import SecretData


def config_json(**auths: dict[str, str]) -> SecretData:
    return SecretData(
        {".dockerconfigjson": json.dumps({"auths": auths}).encode()}, "kubernetes.io/dockerconfigjson"
    )


def login(user: str, password: str = "secret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("place", "image", "fits"),
    [
        ("registry.example", "registry.example/app:1", True),
        ("https://registry.example", "registry.example/app:1", True),
        ("https://registry.example/v2/", "registry.example/app:1", True),
        ("registry.example/team", "registry.example/team/app", True),
        ("registry.example/team", "registry.example/other/app", False),
        ("registry.example:5000", "registry.example:5000/app", True),
        ("registry.example", "registry.example:5000/app", False),
        ("*.example", "registry.example/app", True),
        ("*.example", "a.b.example/app", False),
        ("registry.example", "other.example/app", False),
        ("https://index.docker.io/v1/", "busybox", True),
        ("https://index.docker.io/v1/", "library/busybox:1.37", True),
        ("https://index.docker.io/v1/", "registry.example/busybox", False),
        ("registry.example", "registry.example/app@sha256:" + "0" * 64, True),
    ],
)
def test_an_entry_fits_by_host_port_and_path(place: str, image: str, fits: bool) -> None:
    found = credentials_for(image, [config_json(**{place: login("ann")})])

    assert [c.username for c in found] == (["ann"] if fits else [])


def test_the_most_specific_entry_is_tried_first() -> None:
    secret = config_json(**{"registry.example": login("all"), "registry.example/team": login("team")})

    found = credentials_for("registry.example/team/app", [secret])

    assert [c.username for c in found] == ["team", "all"]


def test_all_secrets_count_and_equal_credentials_are_tried_once() -> None:
    one, two = config_json(**{"r.example": login("a")}), config_json(**{"r.example": login("b")})

    assert [c.username for c in credentials_for("r.example/app", [one, two, one])] == ["a", "b"]


def test_a_password_may_contain_colons() -> None:
    (found,) = credentials_for("r.example/app", [config_json(**{"r.example": login("a", "x:y")})])

    assert (found.username, found.password) == ("a", "x:y")


def test_the_old_format_and_plain_fields_are_read() -> None:
    content = json.dumps({"r.example": {"username": "a", "password": "p"}}).encode()

    (found,) = credentials_for("r.example/app", [SecretData({".dockercfg": content})])

    assert (found.username, found.password) == ("a", "p")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"auths": []}', b'{"auths": {"r.example": 1}}', b"\xff"]
)
def test_what_cannot_be_read_is_skipped(content: bytes) -> None:
    good = config_json(**{"r.example": login("a")})

    found = credentials_for("r.example/app", [SecretData({".dockerconfigjson": content}), good])

    assert [c.username for c in found] == ["a"]


@given(st.text(max_size=80))
def test_any_text_is_a_valid_name_or_not(text: str) -> None:
    if not image_names.is_valid(text):
        assert image_names.why_invalid(text).startswith("invalid re")


@pytest.mark.parametrize(
    "image",
    [
        "busybox",
        "busybox:1.37",
        "library/busybox",
        "registry.k8s.io/pause:3.10.2",
        "localhost:5000/a/b_c/d.e:x",
        "a__b/c--d",
        "r.example/app@sha256:" + "0" * 64,
        "r.example/app:1@sha256:" + "0" * 64,
        "[2001:db8::1]:5000/app",
    ],
)
def test_valid_names(image: str) -> None:
    assert image_names.is_valid(image)


@pytest.mark.parametrize(
    "image", ["", "UPPER", "a b", "-a", "a//b", "a:", "a@sha256:0", "https://a/b", "a:b:c"]
)
def test_invalid_names(image: str) -> None:
    assert not image_names.is_valid(image)
