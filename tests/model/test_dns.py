from __future__ import annotations

from typing import Any

import pytest

from tests.builders import make_pod
from vkubelet.model import dns
from vkubelet.model.dns import DnsSettings, PodDns
from vkubelet.model.pod import Pod

HOST = DnsSettings(("192.168.0.1",), ("corp.example",), ("edns0", "ndots:2"))
CLUSTER_SEARCHES = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")


def of(pod: Pod, **overrides: Any) -> PodDns:
    arguments: dict[str, Any] = {
        "cluster_dns": ("10.0.0.10",),
        "cluster_domain": "cluster.local",
        "host": HOST,
    }
    return dns.pod_dns(pod, **{**arguments, **overrides})


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        pytest.param(
            {"dnsPolicy": "ClusterFirst"},
            DnsSettings(("10.0.0.10",), (*CLUSTER_SEARCHES, "corp.example"), ("ndots:5",)),
            id="ClusterFirst",
        ),
        pytest.param(
            {"dnsPolicy": "ClusterFirst", "hostNetwork": True}, None, id="ClusterFirst, host network"
        ),
        pytest.param(
            {"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True},
            DnsSettings(("10.0.0.10",), (*CLUSTER_SEARCHES, "corp.example"), ("ndots:5",)),
            id="ClusterFirstWithHostNet",
        ),
        pytest.param({"dnsPolicy": "Default"}, None, id="Default"),
        pytest.param(
            {
                "dnsPolicy": "Default",
                "dnsConfig": {
                    "nameservers": ["1.1.1.1", "192.168.0.1"],
                    "searches": ["example.com"],
                    "options": [{"name": "ndots", "value": "3"}, {"name": "debug"}],
                },
            },
            DnsSettings(
                ("192.168.0.1", "1.1.1.1"), ("corp.example", "example.com"), ("edns0", "ndots:3", "debug")
            ),
            id="Default with dnsConfig",
        ),
        pytest.param(
            {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}},
            DnsSettings(("1.1.1.1",)),
            id="None",
        ),
    ],
)
def test_the_policy_chooses_the_resolver(spec: dict[str, Any], settings: DnsSettings | None) -> None:
    assert of(make_pod(**spec)) == PodDns(settings)


def test_without_cluster_dns_the_pod_gets_the_platforms_resolver_and_a_warning() -> None:
    found = of(make_pod(), cluster_dns=())

    assert found.settings is None
    assert [w.reason for w in found.warnings] == ["MissingClusterDNS"]
    assert found.warnings[0].message == (
        'pod: "web_default(uid-web)". kubelet does not have ClusterDNS IP configured and cannot create Pod '
        'using "ClusterFirst" policy. Falling back to "Default" policy.'
    )


def test_without_a_cluster_domain_nothing_is_added_to_the_search() -> None:
    found = of(make_pod(), cluster_domain="")

    assert found.settings == DnsSettings(("10.0.0.10",), ("corp.example",), ("ndots:5",))


def test_what_resolvers_cannot_take_is_left_out_with_a_warning() -> None:
    many = [f"s{i}.example" for i in range(40)]
    found = of(
        make_pod(dnsConfig={"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3"], "searches": ["x" * 254, *many]})
    )

    assert found.settings is not None
    assert found.settings.servers == ("10.0.0.10", "1.1.1.1", "1.1.1.2")
    assert len(found.settings.searches) == 31
    assert [w.reason for w in found.warnings] == ["DNSConfigForming", "DNSConfigForming"]
    assert found.warnings[0].message.endswith("the applied nameserver line is: 10.0.0.10 1.1.1.1 1.1.1.2")


def test_the_search_line_has_at_most_2048_characters() -> None:
    found = of(make_pod(dnsPolicy="None", dnsConfig={"searches": [c * 250 for c in "abcdefghij"]}))

    assert found.settings is not None
    assert [s[0] for s in found.settings.searches] == list("abcdefgh")


def test_a_resolv_conf_is_read() -> None:
    text = """
    # comment
    nameserver 192.168.0.1
    nameserver fd00::1 # trailing
    nameserver
    search old.example
    search corp.example. . example.com
    options edns0 ndots:1
    options ndots:2
    sortlist 130.155.160.0
    """

    assert dns.parse_resolv_conf(text) == DnsSettings(
        ("192.168.0.1", "fd00::1"), ("corp.example", "example.com"), ("edns0", "ndots:2")
    )


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spec", "hostname", "domain"),
    [
        ("web-0", {}, "web-0", ""),
        ("web-0", {"hostname": "db", "subdomain": "dbs"}, "db", "dbs.default.svc.cluster.local"),
        ("web-0", {"hostnameOverride": "any.where"}, "any.where", ""),
        ("web-0", {"hostNetwork": True}, "", ""),
        ("a" * 62 + "-bc", {}, "a" * 62, ""),
        ("b" * 253, {}, "b" * 63, ""),
    ],
)
def test_host_names(name: str, spec: dict[str, Any], hostname: str, domain: str) -> None:
    pod = make_pod(name, **spec)

    assert dns.pod_hostname(pod) == hostname
    assert dns.pod_domain(pod, "cluster.local") == domain


def test_host_aliases() -> None:
    pod = make_pod(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a", "b"]}, {"ip": "10.0.0.2"}])

    assert dns.host_aliases(pod) == (("10.0.0.1", ("a", "b")), ("10.0.0.2", ()))
    assert dns.host_aliases(make_pod()) == ()
