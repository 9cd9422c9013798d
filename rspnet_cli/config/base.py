"""What every config is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# ImageNet's mean and deviation of R, G, B in [0, 1]: what clips are normalised by in training and after it.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# A container with times in milliseconds gives 29.999 frames per second for 30; NTSC's 29.97 is further away and stays what it is.
RATE_TOLERANCE = 2e-4

# The names of checkpoints.
CHECKPOINT = r"^(last|best|epoch_\d+)$"

Unit = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of settings: immutable, and unknown names are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
