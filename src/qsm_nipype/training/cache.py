"""Simulated training cases in a folder: those already there are kept, several made at a time."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qsm_nipype.errors import UsageError
from qsm_nipype.system.files import atomic

#: Makes the arrays of the case with this number.
Maker = Callable[[int], Mapping[str, np.ndarray]]

_maker: Maker


def fill_cache(
    folder: Path,
    name: str,
    count: int,
    make: Maker,
    *,
    made_with: Mapping[str, Any],
    workers: int = 0,
    compress: bool = False,
) -> list[Path]:
    """`NAME-0000.npz` and so on in `folder`, `count` of them; what is missing is made.

    `make` is given the number of the case and must depend on nothing else but what `made_with`
    describes (seed, voxel size …), which is kept beside the cases; it runs in `workers` processes
    of one thread each (0: in this one). A file appears only when it is whole. Raises UsageError
    where the folder holds cases that were made with anything else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, name, made_with)
    paths = [folder / f"{name}-{number:04d}.npz" for number in range(count)]
    missing = [(number, path) for number, path in enumerate(paths) if not path.exists()]
    save = np.savez_compressed if compress else np.savez
    if workers < 1:
        for number, path in missing:
            write(path, make(number), save)
        return paths
    fork = multiprocessing.get_context("fork")  # what the maker holds is not copied
    with ProcessPoolExecutor(workers, fork, initializer=_adopt, initargs=(make,)) as pool:
        jobs = [pool.submit(_make, number, path, save) for number, path in missing]
        for job in jobs:
            job.result()
    return paths


def _claim(folder: Path, name: str, made_with: Mapping[str, Any]) -> None:
    """Write `made_with` beside the cases, or compare it with what stands there."""
    note = folder / f"{name}.json"
    text = json.dumps(made_with, sort_keys=True)
    if not note.exists() and not any(folder.glob(f"{name}-[0-9]*.npz")):
        note.write_text(text)
    elif not note.exists() or note.read_text() != text:
        before = note.read_text() if note.exists() else "settings that nobody wrote down"
        raise UsageError(
            f"{folder} holds cases made with {before}, not with {text}; give another --cache"
        )


def _adopt(make: Maker) -> None:
    global _maker
    torch.set_num_threads(1)
    _maker = make


def _make(number: int, path: Path, save: Callable[..., None]) -> None:
    write(path, _maker(number), save)


def write(
    path: Path, arrays: Mapping[str, np.ndarray], save: Callable[..., None] = np.savez
) -> None:
    """One npz file, under its name only when complete."""
    with atomic(path) as partial, partial.open("wb") as stream:
        save(stream, **arrays)
