"""
Images: when they are pulled, with what, and how long after a failure again.

`ensure` answers at once: with the image, or with the reason why the container waits. A pull is a task of its
own that wakes its pods when it has ended; pods that want the same image with the same credentials share one.
Reasons, messages and Events are the kubelet's image manager's.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vkubelet.clock import Clock
from vkubelet.errors import ProviderError, ProviderUnavailableError
from vkubelet.kuberuntime import delays, image_credentials, image_names
from vkubelet.kuberuntime.contract import ContainerRuntime, Image, RegistryCredentials
from vkubelet.kuberuntime.pod_memory import NOTHING_YET, Blocked
from vkubelet.kuberuntime.spawn import Spawn
from vkubelet.model import backoff
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import Waiting
from vkubelet.model.pod import Container, Pod
from vkubelet.model.references import References, SecretData
from vkubelet.provider import PodHost

__all__ = ["ImageManager"]

_BACK_OFF_SHOWN_AFTER = datetime.timedelta(seconds=1)
"""For so long a failed pull is shown as ErrImagePull, then as ImagePullBackOff."""


class _Want(NamedTuple):
    """Which container of which pod needs an image."""

    key: PodKey
    container: str


class _PullKey(NamedTuple):
    image: str
    credentials: tuple[RegistryCredentials, ...]


@dataclass(slots=True)
class _Pull:
    """A pull that is under way: for whom, and since when each of them waits."""

    waiting: dict[_Want, datetime.datetime] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Failures:
    """Failed pulls in a row of one image for one pod."""

    count: int
    at: datetime.datetime
    message: str

    def until(self) -> datetime.datetime:
        return self.at + datetime.timedelta(seconds=backoff.image_pull_delay_s(self.count))


class ImageManager:
    """
    All pulls of a node.

    Args:
        spawn: for pulls.
        pull_ended: called for each pod and container that waited for a pull.
        parallel: how many images are pulled at the same time.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        host: PodHost,
        clock: Clock,
        *,
        spawn: Spawn,
        pull_ended: Callable[[PodKey, str], None],
        parallel: int = 5,
    ) -> None:
        self._runtime = runtime
        self._host = host
        self._clock = clock
        self._spawn = spawn
        self._pull_ended = pull_ended
        self._slots = asyncio.Semaphore(parallel)
        self._pulls: dict[_PullKey, _Pull] = {}
        self._pulled: dict[_Want, Image] = {}
        self._failures: dict[tuple[PodKey, str], _Failures] = {}

    async def ensure(self, pod: Pod, container: Container, references: References) -> Image | Blocked:
        """
        The image for a start, or why there is none (yet).

        Raises:
            ProviderUnavailableError: the runtime cannot be asked.
        """
        want = _Want(pod.key, container.name)
        if any(want in pull.waiting for pull in self._pulls.values()):
            return Blocked(NOTHING_YET, None)
        image = self._pulled.pop(want, None)
        if image is not None:
            return image
        if not image_names.is_valid(container.image):
            return self._invalid_name(want, container.image)
        if container.image_pull_policy != "Always":
            present = await self._present(want, container)
            if present is not None:
                return present
        failures = self._failures.get((pod.key, container.image))
        if failures is not None and (waits := self._back_off(want, container, failures)) is not None:
            return waits
        self._pull(pod, container, references)
        return Blocked(NOTHING_YET, None)

    def forget(self, key: PodKey) -> None:
        """The pod is gone; a pull that nobody waits for any more is given up."""
        for pull in self._pulls.values():
            for want in [w for w in pull.waiting if w.key == key]:
                del pull.waiting[want]
            if not pull.waiting and pull.task is not None:
                pull.task.cancel()
        for want in [w for w in self._pulled if w.key == key]:
            del self._pulled[want]
        for entry in [e for e in self._failures if e[0] == key]:
            del self._failures[entry]

    # --- without a pull -------------------------------------------------------------------------------

    def _invalid_name(self, want: _Want, image: str) -> Blocked:
        cause = f'couldn\'t parse image name "{image}": {image_names.why_invalid(image)}'
        message = f'Failed to apply default image tag "{image}": {cause}'
        self._tell(want, "Warning", "InspectFailed", message)
        return self._fails(want, "InvalidImageName", message)

    async def _present(self, want: _Want, container: Container) -> Image | Blocked | None:
        try:
            image = await self._runtime.image_status(container.image)
        except ProviderUnavailableError:
            raise
        except ProviderError as error:
            message = f'Failed to inspect image "{container.image}": {error}'
            self._tell(want, "Warning", "InspectFailed", message)
            return self._fails(want, "ImageInspectError", message)
        if image is not None:
            message = f'Container image "{container.image}" already present on machine'
            self._tell(want, "Normal", "Pulled", f"{message} and can be accessed by the pod")
            return image
        if container.image_pull_policy == "Never":
            message = f'Container image "{container.image}" is not present with pull policy of Never'
            self._tell(want, "Warning", "ErrImageNeverPull", message)
            return self._fails(want, "ErrImageNeverPull", message)
        return None

    def _fails(self, want: _Want, reason: str, message: str) -> Blocked:
        self._tell(want, "Warning", "Failed", f"Error: {reason}")
        retry_at = self._clock.now() + datetime.timedelta(seconds=delays.SYNC_RETRY_S)
        return Blocked(Waiting(reason, message), retry_at)

    def _back_off(self, want: _Want, container: Container, failures: _Failures) -> Blocked | None:
        now = self._clock.now()
        if now < failures.at + _BACK_OFF_SHOWN_AFTER:
            return Blocked(Waiting("ErrImagePull", failures.message), failures.at + _BACK_OFF_SHOWN_AFTER)
        if now >= failures.until():
            return None
        message = f'Back-off pulling image "{container.image}"'
        self._tell(want, "Normal", "BackOff", message)
        self._tell(want, "Warning", "Failed", "Error: ImagePullBackOff")
        shown = Waiting("ImagePullBackOff", f"{message}: ErrImagePull: {failures.message}")
        return Blocked(shown, failures.until())

    # --- pulling --------------------------------------------------------------------------------------

    def _pull(self, pod: Pod, container: Container, references: References) -> None:
        want = _Want(pod.key, container.name)
        self._tell(want, "Normal", "Pulling", f'Pulling image "{container.image}"')
        secrets = self._secrets(pod, references)
        key = _PullKey(container.image, image_credentials.credentials_for(container.image, secrets))
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = _Pull()
            pull.task = self._spawn(self._run(key, pull), f"pull {container.image}")
        pull.waiting[want] = self._clock.now()

    def _secrets(self, pod: Pod, references: References) -> list[SecretData]:
        found = {name: references.secrets.get(name) for name in pod.image_pull_secrets}
        missing = [name for name, secret in found.items() if not isinstance(secret, SecretData)]
        if missing:
            self._host.record_event(
                pod.key,
                "Warning",
                "FailedToRetrieveImagePullSecret",
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed.",
            )
        return [secret for secret in found.values() if isinstance(secret, SecretData)]

    async def _run(self, key: _PullKey, pull: _Pull) -> None:
        try:
            async with self._slots:
                started_at = self._clock.monotonic()
                image = await self._runtime.pull_image(key.image, key.credentials)
            self._succeeded(key, pull, image, self._clock.monotonic() - started_at)
        except ProviderError as error:
            self._failed(key, pull, str(error))
        finally:
            del self._pulls[key]
        for want in pull.waiting:
            self._pull_ended(want.key, want.container)

    def _succeeded(self, key: _PullKey, pull: _Pull, image: Image, took_s: float) -> None:
        now = self._clock.now()
        for want, since in pull.waiting.items():
            waited_s = (now - since).total_seconds()
            self._tell(
                want,
                "Normal",
                "Pulled",
                f'Successfully pulled image "{key.image}" in {delays.go_duration(took_s)} '
                f"({delays.go_duration(waited_s)} including waiting). Image size: {image.size_bytes} bytes.",
            )
            self._failures.pop((want.key, key.image), None)
            self._pulled[want] = image

    def _failed(self, key: _PullKey, pull: _Pull, message: str) -> None:
        now = self._clock.now()
        counted: set[PodKey] = set()
        for want in pull.waiting:
            self._tell(want, "Warning", "Failed", f'Failed to pull image "{key.image}": {message}')
            self._tell(want, "Warning", "Failed", "Error: ErrImagePull")
            if want.key not in counted:
                counted.add(want.key)
                earlier = self._failures.get((want.key, key.image))
                count = earlier.count + 1 if earlier is not None else 1
                self._failures[want.key, key.image] = _Failures(count, now, message)

    def _tell(self, want: _Want, event_type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self._host.record_event(want.key, event_type, reason, message, want.container)
