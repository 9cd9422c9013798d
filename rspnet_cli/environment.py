"""Facts about machine and libraries that a manifest notes and no digest depends on."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from typing import Any


def describe_environment() -> dict[str, Any]:
    """Facts about machine and libraries that no digest depends on. Only libraries already imported are asked about torch."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
    }
    facts["libraries"] = dict(_library_versions())
    facts["cpus"] = os.cpu_count()
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch_threads"] = torch.get_num_threads()
    return facts


@cache
def _library_versions() -> dict[str, str]:
    versions = {}
    for library in ("torch", "av", "numpy", "pandas", "scikit-learn", "safetensors"):
        with suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    return versions
