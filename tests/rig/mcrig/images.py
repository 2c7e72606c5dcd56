"""Container images made from folders of this machine: no registry, no Docker.

Each image is a tar in the `docker save` form, which `ctr images import` reads.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from mcrig import binaries
from mcrig.binaries import RigUnavailable

PAUSE = "registry.rig/pause:1"
COREDNS = "registry.rig/coredns:1"
APP = "registry.rig/app:1"
PYTHON = "docker.io/library/python:3-slim"
_APP = Path(__file__).resolve().parent.parent / "app"
_SKIPPED = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}
_SKIPPED |= {"site-packages", "dist-packages"}
_TOOLS = ("sh", "cat", "ls", "sleep", "env", "id", "true", "false", "tail", "head", "grep", "mkdir", "tar")
_ETC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass(slots=True)
class Root:
    """A root folder as it will be in the image: path without a leading slash to a file of this machine or to text."""

    files: dict[str, Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)

    def add(self, path: Path) -> None:
        """Takes a file of this machine at its own place, together with the shared libraries it is linked to."""
        real = path.resolve()
        self.files[str(path)[1:]] = real
        with real.open("rb") as stream:
            if stream.read(4) != b"\x7fELF":
                return
        for library in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", real], capture_output=True, text=True).stdout):
            self.files.setdefault(library[1:], Path(library).resolve())

    def layer(self) -> bytes:
        """The folder as a tar that is the same for the same content."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            names = {*self.files, *self.links, *self.texts, *self.folders}
            parents = {str(parent) for name in names for parent in Path(name).parents if str(parent) != "."}
            for name in sorted(parents | set(self.folders)):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, self.folders.get(name, 0o755)
                tar.addfile(entry)
            for name, source in sorted(self.files.items()):
                entry = tarfile.TarInfo(name)
                # World-readable, so that any numeric user can run it.
                entry.size, entry.mode = source.stat().st_size, 0o755 if os.access(source, os.X_OK) else 0o644
                with source.open("rb") as stream:
                    tar.addfile(entry, stream)
            for name, text in sorted(self.texts.items()):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(text.encode()), 0o644
                tar.addfile(entry, io.BytesIO(text.encode()))
            for name, target in sorted(self.links.items()):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                tar.addfile(entry)
        return buffer.getvalue()


def archive(
    target: Path, tag: str, layers: list[bytes], entrypoint: list[str], env: list[str], *, user: str = ""
) -> None:
    """Writes an image: its layers, each a tar, from the lowest up. `user`: as USER in a Containerfile says it."""
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Env": env, "Entrypoint": entrypoint, **({"User": user} if user else {})},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    text = json.dumps(config).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    members = {f"{index}/layer.tar": layer for index, layer in enumerate(layers)}
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": list(members)}]).encode()
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        for path, content in {**members, name: text, "manifest.json": manifest}.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    partial.rename(target)


def layers(image: Path) -> list[bytes]:
    """The layers of an image that `archive` wrote, from the lowest up."""
    with tarfile.open(image) as tar:

        def content(name: str) -> bytes:
            member = tar.extractfile(name)
            assert member is not None
            return member.read()

        return [content(name) for name in json.loads(content("manifest.json"))[0]["Layers"]]


def _interpreter() -> Path:
    """A Python of this machine to put into images: the distribution's own is the smallest."""
    for path in (Path("/usr/bin/python3.11"), Path("/usr/bin/python3"), Path(sys.executable)):
        if path.exists():
            return path.resolve()
    raise RigUnavailable("no Python interpreter found to make an image from")


def _python_root() -> Root:
    root = Root(folders={"tmp": 0o1777, "root": 0o755, "var/tmp": 0o1777}, texts=dict(_ETC))
    interpreter = _interpreter()
    root.add(interpreter)
    query = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    answer = subprocess.run([interpreter, "-I", "-c", query], capture_output=True, text=True, check=True)
    library = Path(answer.stdout.strip())
    for folder, names, files in os.walk(library):
        names[:] = [name for name in names if name not in _SKIPPED and not name.startswith("config-")]
        for file in files:
            path = Path(folder) / file
            if path.suffix == ".so":
                root.add(path)
            elif path.exists():
                root.files[str(path)[1:]] = path.resolve()
    version = re.sub(r"^python", "", interpreter.name)
    for link in ("python", "python3", f"python{version}"):
        root.links[f"usr/local/bin/{link}"] = str(interpreter)
        if link != interpreter.name:
            root.links[f"usr/bin/{link}"] = interpreter.name
    for tool in _TOOLS:
        if found := shutil.which(tool):
            real = Path(found).resolve()
            root.add(real)
            root.links[f"bin/{tool}" if str(real) != f"/bin/{tool}" else f"usr/local/bin/{tool}"] = str(real)
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        root.files[str(certificates)[1:]] = certificates
    # Debian's merged /usr: a layer must not hold both a folder and a link of one name.
    for store in (root.files, root.links):
        for name in [name for name in store if name.split("/", 1)[0] in {"bin", "sbin", "lib", "lib64"}]:
            moved = f"usr/{name}"
            value = store.pop(name)
            if moved not in root.files:
                store.setdefault(moved, value)  # type: ignore[arg-type]
    for top in ("bin", "sbin", "lib", "lib64"):
        root.links[top] = f"usr/{top}"
    root.folders.setdefault("usr/sbin", 0o755)
    links = root.links.items()
    root.links = {name: target for name, target in links if name not in root.files and f"/{name}" != target}
    return root


def archives() -> dict[str, Path]:
    """Image name to the tar it is imported from."""
    folder = binaries.cache() / "images"
    app = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_APP.glob("*.py")))).hexdigest()[:12]
    return {
        PAUSE: folder / "pause.tar",
        COREDNS: folder / "coredns.tar",
        PYTHON: folder / "python.tar",
        APP: folder / f"app-{app}.tar",
    }


def ensure(progress: binaries.Progress) -> None:
    """Makes the images that the cache does not hold. Needs the programs of `binaries`."""
    targets = archives()
    next(iter(targets.values())).parent.mkdir(parents=True, exist_ok=True)
    path = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    for tag, program in ((PAUSE, "pause"), (COREDNS, "coredns")):
        if not targets[tag].exists():
            progress(f"image {tag}")
            root = Root(files={program: binaries.need(program)}, texts=dict(_ETC))
            archive(targets[tag], tag, [root.layer()], [f"/{program}"], path)
    if not targets[PYTHON].exists() or not targets[APP].exists():
        progress(f"images {PYTHON} and {APP}")
        python = _python_root().layer()
        archive(targets[PYTHON], PYTHON, [python], [], [*path, "LANG=C.UTF-8"])
        app = Root(files={f"app/{file.name}": file for file in _APP.glob("*.py")})
        command = ["/usr/bin/python3", "/app/server.py"]
        archive(targets[APP], APP, [python, app.layer()], command, [*path, "LANG=C.UTF-8", "PYTHONUNBUFFERED=1"])
