"""Build hook: a wheel that contains compiled renderers gets a platform tag in its name."""

import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelTag(BuildHookInterface):
    """Run by hatchling, see pyproject.toml. The libraries do not use Python's ABI, so the tag allows any version."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if any(Path(self.root, "ext", "predgsplat", "prebuilt").glob("*.so")):
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform.system().lower()}_{platform.machine()}"
