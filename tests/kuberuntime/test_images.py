"""Pull policies, ErrImagePull, ImagePullBackOff, and pulls that pods share."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.builders import container_json, make_pod
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from vkubelet.errors import ProviderError, ProviderUnavailableError
from vkubelet.model.observations import Running, Waiting
from vkubelet.model.pod import Pod

IMAGE = "registry.example/app:1.0"


def pod_with(name: str = "web", policy: str = "IfNotPresent", image: str = IMAGE) -> Pod:
    return make_pod(name, containers=[container_json(imagePullPolicy=policy, image=image)])


class SlowRegistry:
    """Holds every pull until it is released, and counts them."""

    def __init__(self, engine: Engine) -> None:
        self.pulls = 0
        self.release = asyncio.Event()
        engine.runtime.hook = self._hook

    async def _hook(self, method: str, moment: str) -> None:
        if (method, moment) == ("pull_image", "before"):
            self.pulls += 1
            await self.release.wait()


async def test_a_present_image_is_not_pulled(engine: Engine) -> None:
    pod = await engine.create(pod_with())

    assert engine.events(pod, "Pulled")[0].message == (
        f'Container image "{IMAGE}" already present on machine and can be accessed by the pod'
    )
    assert not engine.events(pod, "Pulling")


async def test_an_absent_image_is_pulled_and_the_container_starts(engine: Engine) -> None:
    engine.runtime.absent_images = {IMAGE}
    pod = await engine.create(pod_with())

    assert isinstance(engine.state(pod), Running)
    assert engine.reasons(pod) == ["Pulling", "Pulled", "Created", "Started"]
    assert engine.events(pod, "Pulling")[0].message == f'Pulling image "{IMAGE}"'
    assert engine.events(pod, "Pulled")[0].message == (
        f'Successfully pulled image "{IMAGE}" in 0s (0s including waiting). Image size: 0 bytes.'
    )


async def test_always_pulls_once_for_each_start(engine: Engine) -> None:
    pod = await engine.create(pod_with(policy="Always"))
    engine.runtime.end_container(pod.key, "main", 1)
    await settle()

    assert isinstance(engine.state(pod), Running)
    assert len(engine.events(pod, "Pulling")) == 2


async def test_never_does_not_pull_and_says_so(engine: Engine) -> None:
    engine.runtime.absent_images = {IMAGE}
    pod = await engine.create(pod_with(policy="Never"))

    message = f'Container image "{IMAGE}" is not present with pull policy of Never'
    assert engine.state(pod) == Waiting("ErrImageNeverPull", message)
    assert [(e.reason, e.message) for e in engine.events(pod)] == [
        ("ErrImageNeverPull", message),
        ("Failed", "Error: ErrImageNeverPull"),
    ]

    engine.runtime.absent_images.clear()
    await engine.clock.advance(10)
    assert isinstance(engine.state(pod), Running)


async def test_a_failed_pull_is_told_and_tried_again_with_back_off(engine: Engine) -> None:
    image = "does-not-exist:1"
    pod = await engine.create(pod_with(image=image))
    words = f'failed to resolve reference "{image}": not found'

    assert engine.state(pod) == Waiting("ErrImagePull", words)
    await engine.clock.advance(1)
    assert engine.state(pod) == Waiting(
        "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {words}'
    )
    assert [(e.reason, e.message) for e in engine.events(pod)] == [
        ("Pulling", f'Pulling image "{image}"'),
        ("Failed", f'Failed to pull image "{image}": {words}'),
        ("Failed", "Error: ErrImagePull"),
        ("BackOff", f'Back-off pulling image "{image}"'),
        ("Failed", "Error: ImagePullBackOff"),
    ]

    pulled_at = [0.0]
    while len(pulled_at) < 7:
        due = engine.clock.next_due_s()
        assert due is not None
        await engine.clock.advance(due)
        if len(engine.events(pod, "Pulling")) > len(pulled_at):
            pulled_at.append(engine.clock.monotonic())
    waits = [later - earlier for earlier, later in itertools.pairwise(pulled_at)]
    assert waits == [10, 20, 40, 80, 160, 300]


async def test_an_image_that_appears_ends_the_back_off_with_the_next_try(engine: Engine) -> None:
    engine.runtime.broken_images = {IMAGE: "unauthorized"}
    pod = await engine.create(pod_with())
    engine.runtime.broken_images.clear()
    await engine.clock.advance(1)

    assert isinstance(engine.state(pod), Running)


async def test_another_image_is_tried_at_once(engine: Engine) -> None:
    pod = await engine.create(pod_with(image="does-not-exist:1"))

    await engine.provider.update_pod(pod_with(), engine.no_references)
    await settle()

    assert isinstance(engine.state(pod), Running)


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        pytest.param("bad image", "invalid reference format", id="space"),
        pytest.param(
            "a" * 64,
            f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings",
            id="looks like an id",
        ),
        pytest.param(
            "Upper/Case:1",
            "invalid reference format: repository name (Upper/Case) must be lowercase",
            id="upper case",
        ),
    ],
)
async def test_an_invalid_name_is_refused_in_the_kubelets_words(
    engine: Engine, image: str, cause: str
) -> None:
    pod = await engine.create(pod_with(image=image))

    message = f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {cause}'
    assert engine.state(pod) == Waiting("InvalidImageName", message)
    assert engine.reasons(pod) == ["InspectFailed", "Failed"]


async def test_pods_that_want_the_same_image_share_one_pull(engine: Engine) -> None:
    engine.runtime.absent_images = {IMAGE}
    registry = SlowRegistry(engine)
    pods = [await engine.create(pod_with(name)) for name in ("a", "b", "c")]
    assert registry.pulls == 1
    assert engine.seen(pods[0]).containers == ()

    registry.release.set()
    await settle()

    assert registry.pulls == 1
    assert all(isinstance(engine.state(pod), Running) for pod in pods)


async def test_a_pod_that_waits_for_a_pull_can_be_terminated_at_once(engine: Engine) -> None:
    engine.runtime.absent_images = {IMAGE}
    registry = SlowRegistry(engine)
    pod = await engine.create(pod_with())

    await engine.terminate(pod)
    assert engine.seen(pod).terminated
    await engine.provider.delete_pod(pod.key)
    registry.release.set()
    await settle()

    assert engine.runtime.pods() == ()
    assert IMAGE in engine.runtime.absent_images, "nobody wanted it any more"


async def test_the_time_spent_waiting_is_part_of_the_message(engine: Engine) -> None:
    engine.runtime.absent_images = {IMAGE}
    registry = SlowRegistry(engine)
    pod = await engine.create(pod_with())
    await engine.clock.advance(1.25)
    registry.release.set()
    await settle()

    assert "in 1.25s (1.25s including waiting)" in engine.events(pod, "Pulled")[0].message


async def test_missing_pull_secrets_are_told_and_the_pull_is_tried_all_the_same(engine: Engine) -> None:
    engine.runtime.absent_images = {IMAGE}
    pod = await engine.create(imagePullSecrets=[{"name": "registry"}])

    assert isinstance(engine.state(pod), Running)
    (event,) = engine.events(pod, "FailedToRetrieveImagePullSecret")
    assert event.message == (
        "Unable to retrieve some image pull secrets (registry); attempting to pull the image may not succeed."
    )


async def test_an_engine_that_does_not_answer_is_not_a_failed_pull(engine: Engine) -> None:
    engine.runtime.absent_images = {IMAGE}
    failing = True

    async def hook(method: str, moment: str) -> None:
        if failing and method == "image_status":
            raise ProviderUnavailableError("no answer")

    engine.runtime.hook = hook
    pod = await engine.create(pod_with())
    assert pod.key not in engine.host.observations
    failing = False
    await engine.clock.advance(1)

    assert isinstance(engine.state(pod), Running)
    assert not engine.events(pod, "Failed")


async def test_an_image_that_cannot_be_inspected_is_told_and_tried_again(engine: Engine) -> None:
    failures = [ProviderError("broken layer")]

    async def hook(method: str, moment: str) -> None:
        if method == "image_status" and failures:
            raise failures.pop()

    engine.runtime.hook = hook
    pod = await engine.create(pod_with())

    message = f'Failed to inspect image "{IMAGE}": broken layer'
    assert engine.state(pod) == Waiting("ImageInspectError", message)
    assert engine.reasons(pod) == ["InspectFailed", "Failed"]
    await engine.clock.advance(10)
    assert isinstance(engine.state(pod), Running)


async def test_what_waits_for_a_pull_is_forgotten_with_its_pod(engine: Engine) -> None:
    engine.runtime.absent_images = {IMAGE}
    registry = SlowRegistry(engine)
    one, two = await engine.create(pod_with("one")), await engine.create(pod_with("two"))
    await engine.terminate(one)
    await engine.provider.delete_pod(one.key)

    registry.release.set()
    await settle()

    assert isinstance(engine.state(two), Running)
    assert not engine.events(one, "Pulled")
