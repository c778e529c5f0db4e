"""
Certificates that the cluster signs: asked for, approved with kubectl, used, renewed.

The API servers here verify kubelets (``--kubelet-certificate-authority``), so `kubectl logs` and
`kubectl exec` show that they take the certificate.
"""

from __future__ import annotations

import datetime
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from e2e.harness import manifests, network, pods, processes
from e2e.harness.audit import AuditLog
from e2e.harness.cluster import Cluster
from e2e.harness.controlplane import ControlPlane
from e2e.harness.kubectl import Kubectl
from e2e.harness.namespaces import own_namespace
from e2e.harness.vkubelet import Credentials, Identity, Vkubelet, grant_vkubelet_user, node_condition
from e2e.harness.waiting import wait_until

MakeVkubelet = Callable[..., Vkubelet]

SHORT_LIFE_S = 40
"""What the signer of the cluster with short-lived certificates grants; renewed after 28 to 36 s."""


def requests_in_log(vkubelet: Vkubelet) -> list[str]:
    """The names of the requests that it said to wait for, without repetitions."""
    found = re.findall(r"kubectl certificate approve (csr-[0-9a-f]{32})", vkubelet.log_file.read_text())
    return list(dict.fromkeys(found))


def pending_request(vkubelet: Vkubelet, other_than: str = "") -> str:
    return wait_until(
        lambda: next((name for name in reversed(requests_in_log(vkubelet)) if name != other_than), ""),
        timeout_s=30,
        describe="vkubelet to say which request waits",
        seen=lambda: processes.tail(vkubelet.log_file),
    )


def certificate_of(vkubelet: Vkubelet) -> x509.Certificate:
    """What its port shows."""
    pem = ssl.get_server_certificate((vkubelet.node_ip, vkubelet.port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode())


def wait_until_served(vkubelet: Vkubelet) -> None:
    wait_until(
        lambda: network.is_open(vkubelet.node_ip, vkubelet.port),
        timeout_s=30,
        describe="the port to open",
        seen=lambda: processes.tail(vkubelet.log_file),
    )


def event_message(kubectl: Kubectl, node: str) -> str:
    found = kubectl.within("default").items("events", f"--field-selector=involvedObject.name={node}")
    messages = [each["message"] for each in found if each["reason"] == "ServingCertificatePending"]
    return messages[-1] if messages else ""


def run_pod(kubectl: Kubectl, name: str, node: str, command: list[str]) -> None:
    kubectl.apply(manifests.pod(name, node, command))
    pods.wait_ready(kubectl, name)


# --- the serving certificate ------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", ["node", "vkubelet"])
def test_a_node_runs_pods_and_is_served_once_it_was_approved(
    identity: Identity, make_vkubelet: MakeVkubelet, kubectl: Kubectl
) -> None:
    vkubelet = make_vkubelet("memory", f"unsigned-{identity}", identity=identity, serving_files=False)
    vkubelet.start()
    vkubelet.wait_ready(serving=False)
    name = pending_request(vkubelet)
    run_pod(kubectl, "early", vkubelet.node_name, ["sh", "-c", "echo here; sleep 3600"])
    assert not network.is_open(vkubelet.node_ip, vkubelet.port)
    assert kubectl.try_run("logs", "early").returncode != 0
    message = wait_until(
        lambda: event_message(kubectl, vkubelet.node_name), timeout_s=20, describe="the node's Event"
    )
    command = f"kubectl certificate approve {name}"
    assert message.endswith(command)
    assert command in kubectl.run("describe", "node", vkubelet.node_name)

    pid = vkubelet.process.pid
    kubectl.run("certificate", "approve", name)
    wait_until_served(vkubelet)
    assert vkubelet.process.pid == pid
    assert kubectl.run("logs", "early") == "here\n"
    assert kubectl.run("exec", "early", "--", "echo", "inside") == "inside\n"

    certificate = certificate_of(vkubelet)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {(each["type"], each["address"]) for each in vkubelet.node()["status"]["addresses"]}
    assert addresses == {
        *(("Hostname", each) for each in names.get_values_for_type(x509.DNSName)),
        *(("InternalIP", str(each)) for each in names.get_values_for_type(x509.IPAddress)),
    }
    [subject] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert subject.value == f"system:node:{vkubelet.node_name}"


def test_a_restart_waits_for_the_same_request_and_serves_with_what_was_signed(
    make_vkubelet: MakeVkubelet, kubectl: Kubectl
) -> None:
    vkubelet = make_vkubelet("memory", serving_files=False)
    vkubelet.start()
    name = pending_request(vkubelet)
    vkubelet.kill()
    kubectl.run("certificate", "approve", name)
    vkubelet.start()
    vkubelet.wait_ready()
    assert requests_in_log(vkubelet) == [name]
    before = certificate_of(vkubelet)

    vkubelet.kill()
    vkubelet.start()
    vkubelet.wait_ready()
    assert certificate_of(vkubelet) == before
    assert requests_in_log(vkubelet) == [name]


def test_a_denied_request_is_followed_by_another(make_vkubelet: MakeVkubelet, kubectl: Kubectl) -> None:
    vkubelet = make_vkubelet("memory", serving_files=False)
    vkubelet.start()
    denied = pending_request(vkubelet)
    kubectl.run("certificate", "deny", denied)
    name = pending_request(vkubelet, denied)
    kubectl.run("certificate", "approve", name)
    wait_until_served(vkubelet)
    assert "KubectlDeny" in vkubelet.log_file.read_text()


def test_self_signed_is_for_those_who_ask_for_it(make_vkubelet: MakeVkubelet, kubectl: Kubectl) -> None:
    arguments = ["--tls-self-signed"]
    with make_vkubelet("memory", serving_files=False, arguments=arguments) as vkubelet:
        certificate = certificate_of(vkubelet)
        assert certificate.issuer == certificate.subject
        assert requests_in_log(vkubelet) == []
        run_pod(kubectl, "unseen", vkubelet.node_name, ["sleep", "3600"])
        refused = kubectl.try_run("logs", "unseen")
    assert refused.returncode != 0
    assert "certificate" in refused.stderr


# --- certificates of forty seconds ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short_lived(run_directory: Path, cluster_ids: list[str]) -> Iterator[Cluster]:
    """A cluster whose signer gives certificates of forty seconds, and where nodes may bootstrap."""
    audit = AuditLog((run_directory / "short-lived").resolve())
    control_plane = ControlPlane(
        run_directory / "short-lived",
        one_process=True,
        flags={
            "kube-apiserver": audit.flags(),
            "kube-controller-manager": [f"--cluster-signing-duration={SHORT_LIFE_S}s"],
        },
    )
    kubectl = Kubectl(control_plane.programs.kubectl(), control_plane.admin_kubeconfig)
    with control_plane:
        grant_vkubelet_user(kubectl)
        for name, role, group in (
            ("bootstrap", "system:node-bootstrapper", "system:bootstrappers"),
            (
                "approve-new",
                "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
                "system:bootstrappers",
            ),
            (
                "approve-renewed",
                "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
                "system:nodes",
            ),
        ):
            kubectl.run("create", "clusterrolebinding", name, f"--clusterrole={role}", f"--group={group}")
        uid = kubectl.get("namespace", "kube-system")["metadata"]["uid"]
        cluster_ids.append(uid)
        cluster = Cluster(control_plane, kubectl, uid, [], audit)
        yield cluster
        for vkubelet in cluster.vkubelets:
            vkubelet.stop()


@pytest.fixture(scope="module")
def bootstrapped(short_lived: Cluster) -> Vkubelet:
    """A node that began with a bootstrap kubeconfig alone, and is served."""
    control_plane, admin = short_lived.control_plane, short_lived.kubectl
    directory = control_plane.directory / "renewed"
    bootstrap = control_plane.issue_kubeconfig("bootstrap", "newcomer", ["system:bootstrappers"])
    vkubelet = Vkubelet(
        Credentials(directory / "written.kubeconfig", control_plane.authority_file),
        admin,
        directory,
        provider="memory",
        node_name="renewed",
        arguments=["--bootstrap-kubeconfig", str(bootstrap)],
    )
    short_lived.vkubelets.append(vkubelet)
    vkubelet.start()
    vkubelet.wait_ready(serving=False)
    approve_all(admin, vkubelet)
    wait_until_served(vkubelet)
    return vkubelet


def approve_all(admin: Kubectl, vkubelet: Vkubelet) -> None:
    pending_request(vkubelet)
    for name in requests_in_log(vkubelet):
        admin.try_run("certificate", "approve", name)


def client_certificate(vkubelet: Vkubelet) -> x509.Certificate:
    pem = vkubelet.root_dir / "pki" / "kubelet-client-current.pem"
    return x509.load_pem_x509_certificate(pem.read_bytes())


def test_a_bootstrapped_node_has_an_identity_of_its_own(bootstrapped: Vkubelet, short_lived: Cluster) -> None:
    written = (short_lived.control_plane.directory / "renewed" / "written.kubeconfig").read_text()
    assert str(bootstrapped.root_dir / "pki" / "kubelet-client-current.pem") in written
    subject = client_certificate(bootstrapped).subject.rfc4514_string()
    assert subject == "CN=system:node:renewed,O=system:nodes"
    users = {
        (each["spec"]["signerName"].rpartition("/")[2], each["spec"]["username"])
        for each in short_lived.kubectl.items("certificatesigningrequests")
    }
    assert ("kube-apiserver-client-kubelet", "newcomer") in users
    assert ("kubelet-serving", "system:node:renewed") in users


def test_certificates_are_renewed_while_streams_go_on(bootstrapped: Vkubelet, short_lived: Cluster) -> None:
    admin = short_lived.kubectl
    with own_namespace(admin, "renewed") as kubectl:
        late = f"echo early; sleep {SHORT_LIFE_S + 20}; echo late; sleep 3600"
        run_pod(kubectl, "talks", "renewed", ["sh", "-c", late])
        with kubectl.popen("logs", "--follow", "talks") as logs, kubectl.popen(*CAT) as echo:
            try:
                assert logs.stdout is not None
                assert logs.stdout.readline() == b"early\n"
                assert said_back(echo, b"before\n") == b"before\n"
                wait_until_both_are_others(admin, bootstrapped)
                assert said_back(echo, b"after\n") == b"after\n"
                assert logs.stdout.readline() == b"late\n"
            finally:
                logs.terminate()
                echo.terminate()
        assert node_condition(bootstrapped.node(), "Ready") == "True"
        run_pod(kubectl, "later", "renewed", ["sh", "-c", "echo with new certificates; sleep 3600"])
        assert kubectl.run("logs", "later") == "with new certificates\n"


CAT = ("exec", "--stdin", "talks", "--", "cat")


def said_back(echo: subprocess.Popen[bytes], line: bytes) -> bytes:
    assert echo.stdin is not None
    assert echo.stdout is not None
    echo.stdin.write(line)
    echo.stdin.flush()
    return echo.stdout.readline()


def wait_until_both_are_others(admin: Kubectl, vkubelet: Vkubelet) -> None:
    """Return when what it shows now has expired and others are shown in its place."""
    serving, client = certificate_of(vkubelet), client_certificate(vkubelet)
    expired_at = max(serving.not_valid_after_utc, client.not_valid_after_utc)

    def are_others() -> bool:
        approve_all(admin, vkubelet)
        return (
            datetime.datetime.now(datetime.UTC) > expired_at
            and certificate_of(vkubelet) != serving
            and client_certificate(vkubelet) != client
        )

    wait_until(
        are_others,
        timeout_s=2 * SHORT_LIFE_S,
        describe="certificates to be renewed",
        seen=lambda: processes.tail(vkubelet.log_file),
    )
