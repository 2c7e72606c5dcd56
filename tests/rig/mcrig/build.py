"""Builds a Containerfile without Docker: its RUN lines in a root folder, what they changed as one more layer.

It knows FROM (an image of `images`), RUN, ENV and USER, which is what ours has, and refuses anything else.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from mcrig import images
from mcrig.binaries import RigUnavailable

_FOUND = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(slots=True)
class Recipe:
    """What a Containerfile says."""

    base: str = ""
    runs: list[str] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    user: str = ""


def read(text: str) -> Recipe:
    """The instructions. Raises ValueError for one that this builder does not know."""
    recipe = Recipe()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        match word:
            case "FROM":
                recipe.base = rest.strip()
            case "RUN":
                recipe.runs.append(rest.strip())
            case "ENV":
                recipe.env.append(rest.strip())
            case "USER":
                recipe.user = rest.strip()
            case _:
                raise ValueError(f"unknown instruction: {line}")
    return recipe


def build(containerfile: Path, tag: str) -> Path:
    """The tar of the image, from the cache where file and base are the same. Raises RigUnavailable without the base,
    RuntimeError for a recipe that cannot be followed: that is a fault of the recipe, not of the machine.
    """
    recipe = read(containerfile.read_text())
    base = images.archives().get(recipe.base)
    if base is None or not base.exists():
        raise RigUnavailable(f"the base image {recipe.base} is not in the cache")
    made_of = hashlib.sha256(containerfile.read_bytes() + base.name.encode() + str(base.stat().st_mtime_ns).encode())
    target = base.with_name(f"{tag.rpartition('/')[2].partition(':')[0]}-{made_of.hexdigest()[:12]}.tar")
    if not target.exists():
        below = images.layers(base)
        with tempfile.TemporaryDirectory(prefix="mcdoctor-build-", dir=base.parent) as folder:
            added = _changed(Path(folder), below, recipe)
        path = f"PATH={':'.join(_FOUND)}"
        images.archive(target, tag, [*below, added], [], [path, "LANG=C.UTF-8", *recipe.env], user=recipe.user)
    return target


def _changed(root: Path, below: list[bytes], recipe: Recipe) -> bytes:
    """Runs the recipe over the layers in `root`; a tar of the files it added or changed."""
    for index, layer in enumerate(below):
        part = root.with_name(f"{root.name}-{index}.tar")
        try:
            part.write_bytes(layer)
            with tarfile.open(part) as tar:
                tar.extractall(root, filter="fully_trusted")  # our own image, whose links are absolute
        finally:
            part.unlink(missing_ok=True)
    before = _files(root)
    environment = {"PATH": ":".join(_FOUND), "LANG": "C.UTF-8"} | dict(e.split("=", 1) for e in recipe.env)
    for line in recipe.runs:
        command = ["chroot", str(root), "/bin/sh", "-c", line]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        if done.returncode:
            raise RuntimeError(f"RUN {line} ended with {done.returncode}: {done.stderr or done.stdout}")
    after = _files(root)
    added = images.Root(files={name: root / name for name, stamp in after.items() if before.get(name) != stamp})
    if gone := before.keys() - after.keys():
        raise RuntimeError(f"this builder cannot remove files: {sorted(gone)[:3]}")
    return added.layer()


def _files(root: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            status = path.lstat()
            if not path.is_symlink():
                found[str(path.relative_to(root))] = (status.st_mtime_ns, status.st_size)
    return found
