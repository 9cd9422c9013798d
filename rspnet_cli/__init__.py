"""RSPNet (AAAI 2021): motion and appearance features from unlabelled video, as a command line and as a library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rspnet_cli.encoder.load import load_encoder as load_encoder

__version__ = "0.1.0"
__all__ = ["__version__", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name == "load_encoder":  # torch is imported when it is first asked for
        from rspnet_cli.encoder.load import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
