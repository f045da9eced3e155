"""Tables of `benchmarks/quality.py`: faults × detection, good maps, ranges of training heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qsm_nipype.core.quality import look, measured, turn_of
from qsm_nipype.ranges import judged, limits, worst


def seen_as(case: Mapping[str, Any]) -> dict[str, float]:
    """The measures of a stored case."""
    maps = {name: volume.float() for name, volume in case["maps"].items()}
    turn = turn_of(case["echo_times"], case["b0"])
    seen = look(maps, case["masks"], case["size"], case["b0_dir"], turn=turn, b0=case["b0"])
    found = {} if seen is None else measured(seen)
    whole, inside = (case["masks"][name] for name in ("mask", "mask_chi"))
    litre = float(np.prod(case["size"])) / 1000
    found["mask_volume"] = litre * float(whole.sum())
    found["mask_kept"] = 100 * float((whole & inside).sum()) / max(float(whole.sum()), 1.0)
    return found


def read(out: Path) -> list[dict[str, Any]]:
    """Every case that is made: head, kind, strength, measures (None: refused)."""
    rows = []
    for path in sorted(out.glob("head-*/*.pt")):
        case = torch.load(path, weights_only=True)
        kind, _, strength = path.stem.rpartition("_")
        good = path.stem.startswith("good_")
        rows.append(
            {
                "head": int(path.parent.name[5:]),
                "kind": "good" if good else kind,
                "name": path.stem,
                "strength": 0.0 if good else float(strength),
                "values": None if "refused" in case else seen_as(case),
            }
        )
    return rows


def score(row: Mapping[str, Any]) -> tuple[float, str]:
    """How bad the worst measure is, and which; what was refused is worst of all."""
    return (np.inf, "refused") if row["values"] is None else worst(row["values"])


def light(row: Mapping[str, Any]) -> str:
    """The light that the measures alone would give."""
    if row["values"] is None:
        return "refused"
    found = {judged(name, value).get("judgement") for name, value in row["values"].items()}
    return "red" if "bad" in found else "yellow" if "unusual" in found else "green"


def area(bad: Sequence[float], good: Sequence[float]) -> float:
    """Share of pairs in which the bad one scores higher (a tie counts half)."""
    a, b = np.asarray(bad)[:, None], np.asarray(good)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def tables(
    out: Path,
    names: Mapping[str, str],
    training: int,
    colin: Sequence[int],
    *,
    ranges: bool = False,
) -> None:
    """Print what the measures find in OUT; `names` are the faults' words by kind."""
    rows = read(out)
    for row in rows:
        row["score"], row["why"] = score(row)
        row["light"] = light(row)
    unseen = [r for r in rows if r["head"] >= training]
    good = [r["score"] for r in unseen if r["kind"] == "good"]
    print(f"{sum(r['kind'] in names for r in rows)} faulty and "
          f"{sum(r['kind'] == 'good' for r in rows)} good maps; unseen heads below")  # fmt: skip
    print("| fault | maps | AUC | of Colin27 | red | yellow | green | mostly by | best alone |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, words in names.items():
        own = [r for r in unseen if r["kind"] == kind]
        if not own or not good:
            continue
        real = [r["score"] for r in own if r["head"] in colin]
        cells = [words, str(len(own)), f"{area([r['score'] for r in own], good):.3f}"]
        cells.append(f"{area(real, good):.3f}" if real else "")
        cells += lights(own)
        why = [r["why"] for r in own]
        cells.append(", ".join(sorted(set(why), key=why.count, reverse=True)[:3]))
        cells.append(best_of(own, [r for r in unseen if r["kind"] == "good"]))
        print("| " + " | ".join(cells) + " |")
    print(
        "\n| good maps | maps | red | yellow | green | why not green |\n|---|---|---|---|---|---|"
    )
    for title, own in (
        ("heads before", [r for r in rows if r["head"] < training and r["kind"] == "good"]),
        (
            "unseen, procedural",
            [r for r in unseen if r["head"] not in colin and r["kind"] == "good"],
        ),
        ("unseen, Colin27", [r for r in unseen if r["head"] in colin and r["kind"] == "good"]),
        ("with bleeds and lesions", [r for r in rows if r["kind"] == "patient"]),
    ):
        why = sorted(
            {f"{r['name'].removeprefix('good_')} {r['why']}" for r in own if r["light"] != "green"}
        )
        print("| " + " | ".join([title, str(len(own)), *lights(own), ", ".join(why)]) + " |")
    if ranges:
        ranges_of([r for r in rows if r["head"] < training and r["values"]])


def lights(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Shares of red (with what was refused), yellow and green, in %."""
    found = [r["light"] for r in rows]
    counts = [found.count("red") + found.count("refused"), found.count("yellow")]
    counts.append(found.count("green"))
    return [f"{100 * n / max(len(rows), 1):.0f} %" for n in counts]


def ranges_of(rows: Sequence[Mapping[str, Any]]) -> None:
    """What each measure is in good and in faulty maps: least, median, largest."""
    kinds = ["good", *sorted({r["kind"] for r in rows} - {"good"})]
    print("\n| measure | usual | " + " | ".join(kinds) + " |\n|" + "---|" * (len(kinds) + 2))
    for name, known in limits().items():
        cells = []
        for kind in kinds:
            v = [r["values"][name] for r in rows if r["kind"] == kind and name in r["values"]]
            cells.append(f"{min(v):.3g} {np.median(v):.3g} {max(v):.3g}" if v else "")
        print(f"| {name} | {known.usual} | " + " | ".join(cells) + " |")


def best_of(rows: Sequence[Mapping[str, Any]], good: Sequence[Mapping[str, Any]]) -> str:
    """The measure that alone parts `rows` from `good` best, and its area under the curve."""
    found = []
    for name in limits():
        pair = [[r["values"][name] for r in group if r["values"] and name in r["values"]]
                for group in (rows, good)]  # fmt: skip
        if all(pair):
            share = area(*pair)
            found.append((max(share, 1 - share), name))
    return "{1} {0:.3f}".format(*max(found)) if found else ""
