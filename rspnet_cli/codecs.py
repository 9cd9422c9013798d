"""The kinds of frame stores, and what they are unless somebody says otherwise."""

from __future__ import annotations

from typing import Literal

Codec = Literal["h264", "jpeg", "raw"]
ENDINGS: dict[Codec, str] = {"h264": ".mp4", "jpeg": "", "raw": ".safetensors"}
"""How the name of a stored video ends; a jpeg store is a folder."""
DEFAULT_CRF = 20
"""Quality of h264."""
DEFAULT_FRAMES_FPS = 25.0
"""Frames per second of folders of frames."""
