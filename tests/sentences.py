"""What a message to the user must be: one sentence that says what, where, and what to do."""

import re

from rspnet_cli.errors import InputError, RspnetError


def one_sentence(error: RspnetError, *words: str) -> str:
    """Check that an error is one line for a user (and contains the words); return it."""
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 700, "too long to read"
    assert not re.search(r"Traceback|Errno|object at 0x|errors\.pydantic", text), text
    for word in words:
        assert word in text, f"'{word}' is not in: {text}"
    return text


def refused(error: RspnetError, *words: str) -> str:
    """The same for wrong input: exit code 2."""
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    return one_sentence(error, *words)
