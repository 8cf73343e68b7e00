"""Writing an activation store, from one process or several at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file

from medsae_plugin.errors import MedSAEError
from medsae_plugin.files import move_into_place, refuse_other_content, sha256_of
from medsae_plugin.store import layout
from medsae_plugin.store.layout import Manifest
from medsae_plugin.text import differences


class StoreWriter:
    """The shards still to be written in a store's folder.

    A shard is claimed by a lock that the system releases when its process ends, however it ends, so several processes
    can share the work and none waits for a dead one.

    Raises:
        MedSAEError: the folder holds something else, or a store whose manifest disagrees.
    """

    def __init__(self, folder: Path, manifest: Manifest, images: pd.DataFrame) -> None:
        self.folder, self.manifest = folder, manifest
        self._partial = folder / layout.PARTIAL
        self._names = manifest.shard_names
        self._claims: dict[int, FileLock] = {}
        refuse_other_content(folder, "activation store", _is_store)
        if (folder / layout.MANIFEST).exists():
            self._check_manifest()
        if self.is_complete:
            return
        with self._locked():
            self._begin(images)

    @property
    def is_complete(self) -> bool:
        return (self.folder / layout.CHECKSUMS).exists() and not self.missing()

    def missing(self) -> list[int]:
        """The shards that are not there yet."""
        present = {entry.name for entry in self.folder.iterdir()}
        return [shard for shard, name in enumerate(self._names) if name not in present]

    def shard_images(self, shard: int) -> range:
        """The ids of a shard's images."""
        count, per_shard = self.manifest.images.count, self.manifest.images.per_shard
        return range(shard * per_shard, min(count, (shard + 1) * per_shard))

    def claim(self, shard: int) -> bool:
        """Take a missing shard to write; False where another writer has it or has written it."""
        lock = FileLock(self._partial / f"{self._names[shard]}.lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except (Timeout, FileNotFoundError):  # the folder of locks goes when another writer has finished the store
            return False
        if (self.folder / self._names[shard]).exists():
            lock.release()
            return False
        self._claims[shard] = lock
        return True

    def claims(self) -> Iterator[int]:
        """Claim one missing shard after the other, each when it is asked for."""
        for shard in self.missing():
            if self.claim(shard):
                yield shard

    def release(self, shard: int) -> None:
        self._claims.pop(shard).release()

    def release_all(self) -> None:
        for shard in list(self._claims):
            self.release(shard)

    def write(self, shard: int, tensors: Mapping[str, torch.Tensor], failures: Sequence[tuple[int, str]]) -> None:
        """Write a claimed shard, its checksum first, so that no shard is there without one."""
        name = self._names[shard]
        temporary = self._partial / name
        # One metadata key: safetensors writes several in no fixed order.
        save_file(dict(tensors), temporary, metadata={"failures": json.dumps(failures, ensure_ascii=False)})
        self._write_text(f"{sha256_of(temporary)}  {name}\n", self._checksum_file(name))
        move_into_place(temporary, self.folder / name)

    def finish(self) -> None:
        """Write `failures.csv` and `SHA256SUMS`; call when no shard is missing.

        Raises:
            MedSAEError: not one image could be read.
        """
        if self.is_complete and not self._partial.exists():
            return
        with self._locked():
            if not self.is_complete:
                self._write_failures()
                self._write_checksums()
            shutil.rmtree(self._partial, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self._partial / "store.lock")
        while not lock.is_locked:
            self._partial.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a writer that has just finished the store removed the folder
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _check_manifest(self) -> None:
        there = layout.read_manifest(self.folder)
        if lines := differences(there.to_json(), self.manifest.to_json(), "the store"):
            raise MedSAEError(
                "\n".join([f"{self.folder} holds another extraction; choose another folder or mend:", *lines])
            )

    def _begin(self, images: pd.DataFrame) -> None:
        if (self.folder / layout.MANIFEST).exists():
            self._check_manifest()
        else:
            columns = images[["image_id", "path", "patient", "split"]]
            self._write_text(columns.to_csv(index=False, lineterminator="\n"), self.folder / layout.IMAGES)
            self._write_text(self.manifest.text(), self.folder / layout.MANIFEST)
        if (self.folder / layout.CHECKSUMS).exists() and self.missing():
            # A complete store that lost shards: it is unfinished again, and the other shards keep their checksums.
            for name, digest in layout.read_checksums(self.folder).items():
                if name in self._names:
                    self._write_text(f"{digest}  {name}\n", self._checksum_file(name))
            (self.folder / layout.CHECKSUMS).unlink()

    def _write_failures(self) -> None:
        rows = [row for name in self._names for row in layout.shard_failures(self.folder / name)]
        if len(rows) == self.manifest.images.count:
            raise MedSAEError(
                f"none of the {len(rows)} images could be read (the first: {rows[0][1]}); "
                f"check the image root, delete {self.folder} and extract again"
            )
        frame = pd.DataFrame(rows, columns=["image_id", "reason"])
        paths = pd.read_csv(self.folder / layout.IMAGES, dtype=str, keep_default_na=False)["path"]
        frame.insert(1, "path", [paths[image] for image in frame["image_id"]])
        self._write_text(frame.to_csv(index=False, lineterminator="\n"), self.folder / layout.FAILURES)

    def _write_checksums(self) -> None:
        lines = []
        for name in (layout.FAILURES, layout.IMAGES, layout.MANIFEST):
            lines.append(f"{sha256_of(self.folder / name)}  {name}\n")
        lines += [self._checksum_file(name).read_text("utf-8") for name in self._names]
        self._write_text("".join(lines), self.folder / layout.CHECKSUMS)

    def _checksum_file(self, name: str) -> Path:
        return self._partial / f"{name}.sha256"

    def _write_text(self, text: str, target: Path) -> None:
        # Whoever writes a file holds its lock, so the temporary name is nobody else's.
        temporary = self._partial / f"{target.name}.new"
        temporary.write_text(text, "utf-8", newline="\n")
        move_into_place(temporary, target)


def _is_store(folder: Path) -> bool:
    """Whether a folder is a store, or what a start leaves that was cut before the manifest was written."""
    begun = {layout.PARTIAL, layout.IMAGES}
    return (folder / layout.MANIFEST).exists() or all(entry.name in begun for entry in folder.iterdir())
