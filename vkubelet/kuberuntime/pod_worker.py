"""
One pass over one pod: look at the runtime, ask `actions` what is next, do it, until nothing is; then report.

A pass never waits for what takes its time: image pulls and stops within a grace period are tasks of their
own that wake the pod when they are done. So a pass is short, a pod that does nothing has no task, and a
shorter grace period is heard at once. The queue of passes (one at a time for a pod) is `provider`'s.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections.abc import Callable
from typing import Literal, assert_never

import structlog

from vkubelet.errors import InvalidPodError, PodNotFoundError, ProviderError, ProviderUnavailableError
from vkubelet.kuberuntime import actions, delays, termination_message
from vkubelet.kuberuntime.container_starter import ContainerStarter
from vkubelet.kuberuntime.contract import ContainerRuntime, RuntimePod
from vkubelet.kuberuntime.observe import observe
from vkubelet.kuberuntime.plan import (
    Action,
    CreateSandbox,
    KillContainer,
    Plan,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    StopSandbox,
)
from vkubelet.kuberuntime.pod_memory import NOTHING_REMEMBERED, PodMemory, Stopping, VolumeState
from vkubelet.kuberuntime.spawn import Spawn
from vkubelet.kuberuntime.volumes import MountError, VolumeManager
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodFailure
from vkubelet.model.pod import Pod
from vkubelet.provider import ProviderContext

__all__ = ["PodWorker"]

log = structlog.get_logger(__name__)

_MAX_ROUNDS = 100
_MIN_GRACE_PERIOD_S = 2.0
"""What a process always gets to hear its stop signal (kubelet: minimumGracePeriodInSeconds)."""

_DEFAULT_GRACE_PERIOD_S = 30.0


class PodWorker:
    """
    What all passes share.

    Args:
        runtime: performs the steps.
        context: the host that is told, the clock, the node's addresses.
        starter: starts containers.
        volumes: makes and removes the files of volumes.
        spawn: for what outlasts a pass.
        wake: queues a pass for a pod.
        slots: bounds how many sandboxes and containers are being made at the same time.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        context: ProviderContext,
        starter: ContainerStarter,
        volumes: VolumeManager,
        *,
        spawn: Spawn,
        wake: Callable[[PodKey], None],
        slots: asyncio.Semaphore,
    ) -> None:
        self._runtime = runtime
        self._host = context.host
        self._clock = context.clock
        self._node_ips = context.node_ips
        self._starter = starter
        self._volumes = volumes
        self._spawn = spawn
        self._wake = wake
        self._slots = slots

    async def sync(self, memory: PodMemory) -> None:
        """
        One pass.

        What must not be missed is reported before it is acted on: how attempts ended that have vanished,
        and how a pod was found that an earlier vkubelet has left.

        Raises:
            ProviderError: the runtime cannot be asked, or refuses a step.
        """
        memory.sandbox = None
        for round_number in range(_MAX_ROUNDS):
            if memory.is_closed:
                return
            await self._prepare_volumes(memory)
            status = await self._runtime.pod_status(memory.key)
            now = self._clock.now()
            plan = actions.next_actions(memory, status, now)
            is_found = round_number == 0 and memory.observation is None and bool(status.containers)
            if plan.has_losses or is_found:
                await self._read_messages(memory, status)
                self.report(memory, status, plan, now)
            if plan.failure is not None:
                self._fail(memory, plan.failure, "Normal")
            elif not await self._perform(memory, status, plan, now):
                break
        else:
            raise ProviderError(f"{memory.key}: no rest after {_MAX_ROUNDS} rounds")
        memory.sandbox = None
        self._tell_back_offs(memory, plan)
        await self._read_messages(memory, status)
        self.report(memory, status, plan, now)
        self._look_again(memory, plan, now)

    async def _read_messages(self, memory: PodMemory, status: RuntimePod) -> None:
        """Before each report: the end of a container is told with its message or not at all."""
        await termination_message.read_all(memory, status, self._runtime, self._volumes.pods_dir)

    def report(self, memory: PodMemory, status: RuntimePod, plan: Plan, now: datetime.datetime) -> None:
        """Tell the host how the pod is, if that is news."""
        observation = observe(memory, status, plan, now, host_network_ips=self._node_ips)
        if observation != memory.observation:
            memory.observation = observation
            memory.remembered = NOTHING_REMEMBERED
            self._host.pod_changed(observation)

    # --- volumes, back-off, failure -------------------------------------------------------------------

    async def _prepare_volumes(self, memory: PodMemory) -> None:
        pod, volumes = memory.pod, memory.volumes
        if pod is None or volumes.ready or memory.stop_by is not None or pod.is_terminal:
            return
        now = self._clock.now()
        if volumes.retry_at is not None and now < volumes.retry_at:
            return
        references = memory.references
        try:
            await self._volumes.set_up(pod, references)
        except MountError as error:
            if str(error) != volumes.error:
                self._host.record_event(memory.key, "Warning", "FailedMount", str(error))
            retry_at = now + datetime.timedelta(seconds=delays.SYNC_RETRY_S)
            memory.volumes = VolumeState(retry_at=retry_at, error=str(error))
        else:
            if memory.pod is pod and memory.references is references:
                memory.volumes = VolumeState(ready=True)

    def _tell_back_offs(self, memory: PodMemory, plan: Plan) -> None:
        for name, attempt in plan.backing_off.items():
            if memory.backing_off.get(name) == attempt:
                continue
            memory.backing_off[name] = attempt
            key = memory.key
            self._host.record_event(
                key,
                "Warning",
                "BackOff",
                f"Back-off restarting failed container {name} in pod {key.name}_{key.namespace}({key.uid})",
                name,
            )

    def _fail(self, memory: PodMemory, failure: PodFailure, event_type: Literal["Normal", "Warning"]) -> None:
        """End the pod as a whole."""
        memory.failure = failure
        self._host.record_event(memory.key, event_type, failure.reason, failure.message)
        memory.stop_no_later_than(self._clock.now() + datetime.timedelta(seconds=_grace_period_s(memory.pod)))

    def _look_again(self, memory: PodMemory, plan: Plan, now: datetime.datetime) -> None:
        if memory.timer is not None:
            memory.timer.cancel()
            memory.timer = None
        due = [at for at in (plan.wake_at, memory.volumes.retry_at) if at is not None]
        if due and not plan.over:
            key = memory.key
            delay_s = max((min(due) - now).total_seconds(), 0.0)
            memory.timer = self._clock.call_later(delay_s, lambda: self._wake(key))

    # --- performing -----------------------------------------------------------------------------------

    async def _perform(
        self, memory: PodMemory, status: RuntimePod, plan: Plan, now: datetime.datetime
    ) -> bool:
        """Take the steps; True when the pod must be looked at again before anything is concluded."""
        starts = [a for a in plan.actions if isinstance(a, StartContainer)]
        performed = bool(starts)
        for action in plan.actions:
            if not isinstance(action, StartContainer):
                performed |= await self._take(memory, action, now)
        if len(starts) == 1:
            await self._start(memory, status, starts[0])
        elif starts:
            await self._start_all(memory, status, starts)
        if any(self._failed_to_run(memory, action) for action in starts):
            status = await self._runtime.pod_status(memory.key)
            await self._read_messages(memory, status)
            self.report(memory, status, plan, now)
        return performed

    def _failed_to_run(self, memory: PodMemory, action: StartContainer) -> bool:
        """Its reason is shown for a moment, before its next attempt or back-off takes its place."""
        blocked = memory.blocked.get(action.container.name)
        return blocked is not None and blocked.waiting.reason == "RunContainerError"

    async def _start_all(self, memory: PodMemory, status: RuntimePod, starts: list[StartContainer]) -> None:
        """At the same time; all have ended, one way or the other, before an error is raised."""
        outcomes = await asyncio.gather(
            *(self._start(memory, status, action) for action in starts), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _take(self, memory: PodMemory, action: Action, now: datetime.datetime) -> bool:
        match action:
            case CreateSandbox():
                await self._create_sandbox(memory, action)
            case StopSandbox(sandbox_id):
                await self._runtime.stop_pod_sandbox(sandbox_id)
            case RemoveSandbox(sandbox_id):
                await self._runtime.remove_pod_sandbox(sandbox_id)
            case RemoveContainer(container_id):
                await self._runtime.remove_container(container_id)
                memory.messages.pop(container_id, None)
            case KillContainer():
                self._kill(memory, action, now)
                return False
            case StartContainer():
                raise AssertionError("starts are taken together")
            case _:
                assert_never(action)
        return True

    async def _create_sandbox(self, memory: PodMemory, action: CreateSandbox) -> None:
        assert memory.pod is not None
        if action.replaces:
            message = "Pod sandbox changed, it will be killed and re-created."
            self._host.record_event(memory.key, "Normal", "SandboxChanged", message)
        config = memory.sandbox = self._starter.sandbox_config(memory.pod, action.attempt)
        try:
            async with self._slots:
                await self._runtime.run_pod_sandbox(config)
        except ProviderUnavailableError:
            raise
        except InvalidPodError as error:
            self._fail(memory, PodFailure(error.reason, str(error)), "Warning")
        except ProviderError as error:
            message = f"Failed to create pod sandbox: {error}"
            self._host.record_event(memory.key, "Warning", "FailedCreatePodSandBox", message)
            memory.sandbox_retry_at = self._clock.now() + datetime.timedelta(seconds=delays.SYNC_RETRY_S)
        else:
            memory.sandbox_retry_at = None

    async def _start(self, memory: PodMemory, status: RuntimePod, action: StartContainer) -> None:
        try:
            await self._starter.start(memory, status, action)
        except InvalidPodError as error:
            self._fail(memory, PodFailure(error.reason, str(error)), "Warning")

    # --- stopping -------------------------------------------------------------------------------------

    def _kill(self, memory: PodMemory, action: KillContainer, now: datetime.datetime) -> None:
        """See to it that the container stops in time; an earlier deadline replaces a later one."""
        under_way = memory.stopping.get(action.container_id)
        if under_way is not None and (action.deadline is None or under_way.deadline <= action.deadline):
            return
        if action.restart:
            memory.restarting |= {action.name}
        if under_way is None:
            self._host.record_event(memory.key, "Normal", "Killing", action.message, action.name)
        elif under_way.task is not None:
            under_way.task.cancel()
        grace = datetime.timedelta(seconds=_grace_period_s(memory.pod))
        stopping = Stopping(action.deadline or now + grace)
        memory.stopping[action.container_id] = stopping
        work = self._stop(memory, action.container_id, stopping)
        stopping.task = self._spawn(work, f"stop {action.container_id}")

    async def _stop(self, memory: PodMemory, container_id: str, stopping: Stopping) -> None:
        for attempt in itertools.count(1):
            left_s = (stopping.deadline - self._clock.now()).total_seconds()
            try:
                await self._runtime.stop_container(container_id, max(left_s, _MIN_GRACE_PERIOD_S))
            except PodNotFoundError:
                break
            except ProviderError as error:
                log.warning("container was not stopped", container_id=container_id, error=str(error))
                await self._clock.sleep(delays.unavailable_retry_s(attempt, None))
            else:
                break
        if memory.stopping.get(container_id) is stopping:
            del memory.stopping[container_id]
            self._wake(memory.key)


def _grace_period_s(pod: Pod | None) -> float:
    return float(pod.termination_grace_period_s) if pod is not None else _DEFAULT_GRACE_PERIOD_S
