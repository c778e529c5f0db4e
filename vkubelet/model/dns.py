"""
A pod's resolver and host names: `dnsPolicy`, `dnsConfig`, `hostname`, `subdomain` and `hostAliases`.

What cannot be had becomes a warning for the pod's Events and the next best setting, never a failure: a name
service that half works is what the kubelet gives too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from vkubelet.model.pod import Json, Pod

__all__ = [
    "DnsSettings",
    "DnsWarning",
    "PodDns",
    "host_aliases",
    "parse_resolv_conf",
    "pod_dns",
    "pod_domain",
    "pod_hostname",
]

_MAX_SERVERS = 3
_MAX_SEARCHES = 32
_MAX_SEARCH_CHARS = 2048
_MAX_DOMAIN_CHARS = 253
_MAX_HOSTNAME_CHARS = 63

_CLUSTER_OPTIONS = ("ndots:5",)


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """What goes into resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class DnsWarning(NamedTuple):
    """A Warning Event for the pod: reason and message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PodDns:
    """`settings` is None where the platform's own resolv.conf is to hold."""

    settings: DnsSettings | None
    warnings: tuple[DnsWarning, ...] = ()


def pod_dns(
    pod: Pod,
    *,
    cluster_dns: tuple[str, ...],
    cluster_domain: str,
    host: DnsSettings | None = None,
) -> PodDns:
    """
    The resolver settings of a pod (Kubernetes docs, "DNS for Services and Pods").

    Args:
        pod: the pod.
        cluster_dns: addresses of the cluster's name servers; () when they are not known, and ClusterFirst
            then falls back to Default with the warning MissingClusterDNS.
        cluster_domain: such as ``cluster.local``; "" for no search in it.
        host: the platform's own settings, to which ClusterFirst adds and on which Default builds; None
            where they are not known.
    """
    warnings: list[DnsWarning] = []
    policy: str = pod.spec.get("dnsPolicy", "ClusterFirst")
    if policy == "ClusterFirst" and pod.host_network:
        policy = "Default"
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and not cluster_dns:
        warnings.append(_missing_cluster_dns(pod))
        policy = "Default"
    own: Json | None = pod.spec.get("dnsConfig")
    if policy == "Default" and not own:
        return PodDns(None, tuple(warnings))
    base = _base(policy, pod, cluster_dns, cluster_domain, host or DnsSettings())
    settings = _within_limits(_merged(base, own or {}), warnings)
    return PodDns(settings, tuple(warnings))


def _base(
    policy: str, pod: Pod, cluster_dns: tuple[str, ...], cluster_domain: str, host: DnsSettings
) -> DnsSettings:
    match policy:
        case "None":
            return DnsSettings()
        case "Default":
            return host
        case _:
            searches = host.searches
            if cluster_domain:
                services = f"svc.{cluster_domain}"
                searches = (f"{pod.namespace}.{services}", services, cluster_domain, *searches)
            return DnsSettings(cluster_dns, _unique(searches), _CLUSTER_OPTIONS)


def _missing_cluster_dns(pod: Pod) -> DnsWarning:
    return DnsWarning(
        "MissingClusterDNS",
        f'pod: "{pod.name}_{pod.namespace}({pod.uid})". kubelet does not have ClusterDNS IP configured and '
        'cannot create Pod using "ClusterFirst" policy. Falling back to "Default" policy.',
    )


def _merged(base: DnsSettings, own: Json) -> DnsSettings:
    """`dnsConfig` over the base: servers and searches are added, options replaced by name."""
    options = {o.partition(":")[0]: o for o in base.options}
    for option in own.get("options") or ():
        name, value = option["name"], option.get("value")
        options[name] = f"{name}:{value}" if value else name
    return DnsSettings(
        _unique((*base.servers, *(own.get("nameservers") or ()))),
        _unique((*base.searches, *(own.get("searches") or ()))),
        tuple(options.values()),
    )


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _within_limits(settings: DnsSettings, warnings: list[DnsWarning]) -> DnsSettings:
    """What resolvers can take; the rest is left out, with the warning DNSConfigForming."""
    servers = settings.servers[:_MAX_SERVERS]
    if servers != settings.servers:
        warnings.append(
            DnsWarning(
                "DNSConfigForming",
                "Nameserver limits were exceeded, some nameservers have been omitted, "
                f"the applied nameserver line is: {' '.join(servers)}",
            )
        )
    searches = tuple(s for s in settings.searches[:_MAX_SEARCHES] if len(s) <= _MAX_DOMAIN_CHARS)
    while len(" ".join(searches)) > _MAX_SEARCH_CHARS:
        searches = searches[:-1]
    if searches != settings.searches:
        warnings.append(
            DnsWarning(
                "DNSConfigForming",
                "Search Line limits were exceeded, some search paths have been omitted, "
                f"the applied search line is: {' '.join(searches)}",
            )
        )
    return DnsSettings(servers, searches, settings.options)


def parse_resolv_conf(text: str) -> DnsSettings:
    """
    The settings in a resolv.conf (resolv.conf(5)).

    Name servers and options add up, the last ``search`` line holds; trailing dots are dropped, comments and
    what is not understood are skipped.
    """
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: dict[str, str] = {}
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                servers.append(address)
            case ["search", *domains]:
                searches = tuple(d.removesuffix(".") for d in domains if d != ".")
            case ["options", *given]:
                options.update({o.partition(":")[0]: o for o in given})
            case _:
                pass
    return DnsSettings(tuple(servers), searches, tuple(options.values()))


# --- names ------------------------------------------------------------------------------------------------


def pod_hostname(pod: Pod) -> str:
    """
    The host name inside the pod, "" on the host's network.

    `hostnameOverride`, else `hostname`, else the pod's name; cut to 63 characters, not ending in a dash or
    a dot.
    """
    if pod.host_network:
        return ""
    name: str = pod.spec.get("hostnameOverride") or pod.spec.get("hostname") or pod.name
    return name if len(name) <= _MAX_HOSTNAME_CHARS else name[:_MAX_HOSTNAME_CHARS].rstrip("-.")


def pod_domain(pod: Pod, cluster_domain: str) -> str:
    """The domain that `subdomain` gives it, ``sub.ns.svc.cluster.local``; "" where there is none."""
    subdomain = pod.spec.get("subdomain")
    if not subdomain or pod.spec.get("hostnameOverride"):
        return ""
    return f"{subdomain}.{pod.namespace}.svc.{cluster_domain}"


def host_aliases(pod: Pod) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """`hostAliases`: address and names of each line to add to /etc/hosts."""
    aliases = pod.spec.get("hostAliases") or ()
    return tuple((a["ip"], tuple(a.get("hostnames") or ())) for a in aliases)
