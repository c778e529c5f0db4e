"""
What ``vkubelet run`` is told: flag over environment over file over default.

`options` declares every option once, as a field of `Settings`. `sources` reads flags, variables and the file;
`parsers` and `taints` turn what they give into values; `checks` looks at the machine (are the files there,
do certificate and key fit?); `resolve` puts it together and reports everything that is wrong at once.
"""

from __future__ import annotations

from vkubelet.settings.options import AuthorizationMode, LogFormat, LogLevel, OperatingSystem, Settings
from vkubelet.settings.taints import Taint, TaintEffect

__all__ = [
    "AuthorizationMode",
    "LogFormat",
    "LogLevel",
    "OperatingSystem",
    "Settings",
    "Taint",
    "TaintEffect",
]
