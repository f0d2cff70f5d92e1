"""Which names of files in a store are copied to the disk: those that stay in their folder.

Who may write into a bucket chooses its names, and a name may be anything. A name that is refused
leaves its version out: half of a version is no version.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from batcher.core.error_text import brief
from batcher.core.names import name_fault

MAX_DEPTH = 32
"""Folders inside each other in a version: more than any model has."""


def file_fault(name: str) -> str:
    """Return why no file may be written under `name`, relative to a version; empty if one may."""
    steps = name.split("/")
    if name.startswith("/"):
        return "it is an absolute path"
    if len(steps) > MAX_DEPTH:
        return f"it has more than {MAX_DEPTH} folders inside each other"
    for step in steps:
        if not step:
            return "it has a folder without a name"
        if step == "..":
            return "it leads out of its folder"
        if "\\" in step or ":" in step:
            return "it has a backslash or a colon, which some systems take for a path"
        if step != step.strip():
            return "it begins or ends with a space"
        if fault := name_fault(step):
            return fault
    return ""


def names_fault(names: Iterable[str]) -> str:
    """Return what is wrong with the `names` of all files of a version; empty if nothing is."""
    names = sorted(names)
    if twice := [name for name, next_ in pairwise(names) if name == next_]:
        return f"expected each file once; got {brief(twice[0], 200)} twice"
    folders = {"/".join(name.split("/")[:depth]) for name in names for depth in _depths(name)}
    for name in names:
        if fault := file_fault(name):
            return f"expected names of files that can be copied; got {brief(name, 200)}: {fault}"
        if name in folders:
            return f"expected either a file or a folder; got both with the name {brief(name, 200)}"
    return ""


def _depths(name: str) -> range:
    return range(1, min(name.count("/"), MAX_DEPTH) + 1)
