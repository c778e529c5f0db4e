"""
Every error that vkubelet raises on purpose.

::

    VirtualKubeletError
    ├── ConfigurationError            an option, file or environment variable is wrong; exit code 2
    ├── ApiError                      the API server answered with an error
    │   ├── NotFoundError             404
    │   ├── ConflictError             409: the object changed, exists already, or has another uid
    │   ├── GoneError                 410: the resource version is too old to watch from
    │   ├── UnauthorizedError         401: our credentials are not accepted
    │   ├── ForbiddenError            403: our credentials lack a permission
    │   ├── InvalidObjectError        400, 422: the API server will never take this request
    │   └── ApiUnavailableError       no answer, 429 or 5xx: try again, after `retry_after_s` if given
    ├── PodReferenceError             a pod names an object or key that cannot be read (`model.references`)
    ├── ProviderError                 a provider could not do what it was asked; its kind says what is next
    │   ├── PodNotFoundError          the provider has no such pod or container: for a deletion, success
    │   ├── InvalidPodError           this pod can never run here: phase Failed with reason and message
    │   │   └── UnsupportedFeatureError   it uses a field this provider does not serve
    │   ├── ProviderUnavailableError  try again later, after `retry_after_s` if given
    │   └── StreamError               exec, attach or logs cannot be served; carries the HTTP status
    └── ProtocolError                 a stream protocol was violated
        ├── LocalProtocolError        by us: a bug
        └── RemoteProtocolError       by the peer: the connection is closed

Foreign exceptions (aiohttp, the Docker engine, Azure's SDK) become one of these in the one module that
meets them, with ``raise ... from``, so that no loop needs to know them.
"""

from __future__ import annotations

__all__ = [
    "ApiError",
    "ApiUnavailableError",
    "ConfigurationError",
    "ConflictError",
    "ForbiddenError",
    "GoneError",
    "InvalidObjectError",
    "InvalidPodError",
    "LocalProtocolError",
    "NotFoundError",
    "PodNotFoundError",
    "PodReferenceError",
    "ProtocolError",
    "ProviderError",
    "ProviderUnavailableError",
    "RemoteProtocolError",
    "StreamError",
    "UnauthorizedError",
    "UnsupportedFeatureError",
    "VirtualKubeletError",
]


class VirtualKubeletError(Exception):
    """The root of the tree: anything that vkubelet raises on purpose."""


class ConfigurationError(VirtualKubeletError):
    """
    A setting is wrong. The message is one sentence that names the option and what to do.

    `vkubelet` prints it and ends with exit code 2.
    """


# --- the API server ---------------------------------------------------------------------------------------


class ApiError(VirtualKubeletError):
    """
    The API server refused a request.

    Attributes:
        code: the HTTP status, 0 when there was no answer.
        reason: `metav1.Status.reason` such as "AlreadyExists", or "".
    """

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class NotFoundError(ApiError):
    """404: there is no such object."""


class ConflictError(ApiError):
    """409: the object exists already, has changed since it was read, or carries another uid."""


class GoneError(ApiError):
    """410: the resource version is older than what the API server remembers; list again."""


class UnauthorizedError(ApiError):
    """401: the API server does not accept our credentials."""


class ForbiddenError(ApiError):
    """403: our credentials lack the permission that the message names."""


class InvalidObjectError(ApiError):
    """400 or 422: repeating the request cannot help."""


class ApiUnavailableError(ApiError):
    """No answer, 429 or 5xx: worth a retry."""

    def __init__(
        self, message: str, *, code: int = 0, reason: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, code=code, reason=reason)
        self.retry_after_s = retry_after_s


class PodReferenceError(VirtualKubeletError):
    """
    A ConfigMap, Secret, key or token that a pod refers to cannot be used.

    The message is the kubelet's, such as ``configmap "app" not found``.
    """


# --- providers --------------------------------------------------------------------------------------------


class ProviderError(VirtualKubeletError):
    """A provider could not do what it was asked. Raised bare: retried with back-off."""


class PodNotFoundError(ProviderError):
    """The provider is certain that it has no such pod or container. Nothing else may lead to a create."""


class InvalidPodError(ProviderError):
    """
    This pod can never run on this provider: its phase becomes Failed.

    Attributes:
        reason: CamelCase, for `status.reason` and the Event.
    """

    def __init__(self, message: str, *, reason: str = "InvalidPod") -> None:
        super().__init__(message)
        self.reason = reason


class UnsupportedFeatureError(InvalidPodError):
    """
    The pod uses fields that this provider does not serve.

    Attributes:
        fields: paths in the pod, such as ``spec.containers[0].lifecycle.postStart``.
    """

    def __init__(self, fields: tuple[str, ...], *, provider: str) -> None:
        listed = ", ".join(fields)
        super().__init__(
            f"the {provider} provider does not support {listed}: remove "
            f"{'it' if len(fields) == 1 else 'them'} or run the pod on another node",
            reason="UnsupportedPodFeature",
        )
        self.fields = fields


class ProviderUnavailableError(ProviderError):
    """The platform does not answer or asks us to wait; nothing is known to have happened."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StreamError(ProviderError):
    """
    Logs, exec or another stream cannot be served.

    Attributes:
        status: the HTTP status for the client, such as 400 or 501.
    """

    def __init__(self, message: str, *, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


# --- stream protocols -------------------------------------------------------------------------------------


class ProtocolError(VirtualKubeletError):
    """A rule of SPDY, WebSocket or the remote command protocol was broken."""


class LocalProtocolError(ProtocolError):
    """We tried to do what the protocol's state does not allow: a bug in the caller."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol does not allow; the connection cannot go on."""
