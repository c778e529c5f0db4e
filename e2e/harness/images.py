"""
The container images that tests and the demo use, built here since no registry can be assumed.

- `PAUSE_IMAGE` holds one static program, `e2e/controlplane/pause`: the sandbox container of a pod.
- `BUSYBOX_IMAGE` holds a static busybox with its applets as links: a shell and small tools.

They are imported as file system archives through the Engine API, which needs neither a Docker client nor
BuildKit. Each carries a digest of its archive as a label, so that an image that is there is not made again.
"""

from __future__ import annotations

import hashlib
import http
import io
import os
import shutil
import subprocess
import tarfile
import urllib.parse
from pathlib import Path

from e2e.harness import docker_engine, go
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.errors import HarnessError

__all__ = ["BUSYBOX_IMAGE", "PAUSE_IMAGE", "ensure_images"]

PAUSE_IMAGE = "vkubelet.local/pause:1"
BUSYBOX_IMAGE = "vkubelet.local/busybox:1"
_DIGEST_LABEL = "vkubelet.local/archive-sha256"

_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"


def ensure_images(engine: DockerEngine) -> None:
    """
    Make sure that the engine has both images.

    Raises:
        HarnessError: something they are made of is not to be had.
    """
    _ensure(engine, PAUSE_IMAGE, _pause_archive(), ["ENTRYPOINT", '["/pause"]'])
    _ensure(
        engine,
        BUSYBOX_IMAGE,
        _busybox_archive(_static_busybox()),
        ["ENV", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        ["CMD", '["sh"]'],
    )


def _ensure(engine: DockerEngine, image: str, archive: bytes, *changes: list[str]) -> None:
    digest = hashlib.sha256(archive + repr(changes).encode()).hexdigest()
    status, answer = engine.request("GET", f"/images/{image}/json")
    labels = (answer.get("Config") or {}).get("Labels") or {} if status == http.HTTPStatus.OK else {}
    if labels.get(_DIGEST_LABEL) == digest:
        return
    repository, _, tag = image.rpartition(":")
    query: list[tuple[str, str]] = [("fromSrc", "-"), ("repo", repository), ("tag", tag)]
    query += [("changes", " ".join(change)) for change in [*changes, ["LABEL", f"{_DIGEST_LABEL}={digest}"]]]
    status, answer = engine.request("POST", f"/images/create?{urllib.parse.urlencode(query)}", archive)
    if status != http.HTTPStatus.OK or not answer or "error" in answer:
        raise HarnessError(f"the Docker engine did not take the image {image}: {answer}")


def _pause_archive() -> bytes:
    with _Archive() as archive:
        archive.add_file("pause", go.build_pause().read_bytes(), 0o755)
    return archive.content()


def _busybox_archive(busybox: Path) -> bytes:
    listing = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    with _Archive() as archive:
        for directory in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "var"):
            archive.add_directory(directory, 0o755)
        archive.add_directory("tmp", 0o1777)
        archive.add_file("bin/busybox", busybox.read_bytes(), 0o755)
        for applet in sorted(set(listing.stdout.split()) - {"busybox"}):
            archive.add_link(f"bin/{applet}", "busybox")
        archive.add_file("etc/passwd", _PASSWD, 0o644)
        archive.add_file("etc/group", _GROUP, 0o644)
    return archive.content()


def _static_busybox() -> Path:
    """
    A statically linked busybox: the one on PATH, else Debian's.

    Raises:
        HarnessError: there is none and it cannot be installed.
    """
    found = _busybox_on_path()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        docker_engine.apt_install("busybox-static")
        found = _busybox_on_path()
    if found is None:
        raise HarnessError("the test images need a statically linked busybox: install busybox-static")
    return found


def _busybox_on_path() -> Path | None:
    found = shutil.which("busybox")
    return Path(found) if found and _is_static(Path(found)) else None


def _is_static(program: Path) -> bool:
    """Whether the ELF file names no interpreter; the path of one is in the first kilobytes if there is."""
    head = program.read_bytes()[:4096]
    return head.startswith(b"\x7fELF") and b"/ld-" not in head


class _Archive:
    """A tar archive whose bytes depend on its contents alone: no times, no owners of this machine."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.GNU_FORMAT)

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def content(self) -> bytes:
        return self._buffer.getvalue()

    def add_file(self, name: str, content: bytes, mode: int) -> None:
        entry = self._entry(name, mode)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))

    def add_directory(self, name: str, mode: int) -> None:
        entry = self._entry(name, mode)
        entry.type = tarfile.DIRTYPE
        self._tar.addfile(entry)

    def add_link(self, name: str, target: str) -> None:
        entry = self._entry(name, 0o777)
        entry.type = tarfile.SYMTYPE
        entry.linkname = target
        self._tar.addfile(entry)

    @staticmethod
    def _entry(name: str, mode: int) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(name)
        entry.mode = mode
        return entry
