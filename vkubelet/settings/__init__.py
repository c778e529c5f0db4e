"""
What ``vkubelet run`` is told: flag over environment over file over default.

`options` declares every option once, as a field of `Settings`. `sources` reads flags, variables and the file;
`parsers` and `taints` turn what they give into values; `checks` looks at the machine (are the files there,
do certificate and key fit?); `resolve` puts it together and reports everything that is wrong at once.
`installed` finds providers by their entry points.
"""

from __future__ import annotations

from vkubelet.settings.files import load_provider_config
from vkubelet.settings.installed import installed_providers, installed_version
from vkubelet.settings.options import AuthorizationMode, LogFormat, LogLevel, OperatingSystem, Settings
from vkubelet.settings.resolve import load_settings
from vkubelet.settings.taints import Taint, TaintEffect

__all__ = [
    "AuthorizationMode",
    "LogFormat",
    "LogLevel",
    "OperatingSystem",
    "Settings",
    "Taint",
    "TaintEffect",
    "installed_providers",
    "installed_version",
    "load_provider_config",
    "load_settings",
]
