"""Names for output files: an id for each source, whatever its own name is.

A source may be called anything: 500 characters, no UTF-8, a newline, "[bold]", `a.mp4` beside `a.avi`, `A.mp4` beside `a.mp4` on a disk
that takes them for one. An id is ASCII letters, digits and `.`, `_`, `-`, at most 100 of them; it is readable where the name is.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

MAX_ID_LENGTH = 100
_HASH_LENGTH = 12
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_LOOKS_HASHED = re.compile(rf"-[0-9a-f]{{{_HASH_LENGTH}}}$")


def make_ids(paths: Iterable[str]) -> dict[str, str]:
    """An id for each path (relative, with forward slashes; distinct). "Walk/v_Walk_g01_c01.avi" -> "Walk__v_Walk_g01_c01".

    Where that would lose something or could be mistaken for another's, also on a disk that ignores case, twelve digits of the path's
    sha256 follow.
    """
    slugs = {path: "__".join((*PurePosixPath(path).parts[:-1], PurePosixPath(path).stem)) for path in paths}
    times = Counter(slug.casefold() for slug in slugs.values())
    return {path: slug if _is_safe(slug) and times[slug.casefold()] == 1 else _hashed(slug, path) for path, slug in slugs.items()}


def _is_safe(slug: str) -> bool:
    return (
        not _UNSAFE.search(slug)
        and len(slug) <= MAX_ID_LENGTH
        and slug[0] not in ".-"  # hidden files, options
        and slug[-1] != "."
        and not _LOOKS_HASHED.search(slug.lower())  # so that no name can be made to equal another's id
    )


def _hashed(slug: str, path: str) -> str:
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:_HASH_LENGTH]
    readable = re.sub(r"_{3,}", "__", _UNSAFE.sub("_", slug))[: MAX_ID_LENGTH - 1 - _HASH_LENGTH].strip("._-")
    return f"{readable or 'video'}-{digest}"
