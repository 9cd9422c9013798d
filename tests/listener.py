"""A reporter that keeps what a stage says."""

from __future__ import annotations

from rspnet_cli.progress import Reporter


class Listener(Reporter):
    """Silent; `said` holds every note, and every warning after "warning: "."""

    def __init__(self) -> None:
        super().__init__("silent")
        self.said: list[str] = []

    def info(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(f"warning: {text}")

    def heard(self, words: str) -> bool:
        """Whether something said contains the words."""
        return any(words in text for text in self.said)
