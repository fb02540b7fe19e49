"""Table and drawing of a learning curve."""

from __future__ import annotations

from typing import Any, Literal

from epvs_cohort.report.charts import Axis, Series, Words, chart

WORDS = {
    "scratch": "random weights",
    "init": "from the bundled model",
    "hydra-scratch": "random weights, sums over sets",
    "hydra-init": "from the bundled model, sums over sets",
    "shuffled": "random weights, counts shuffled",
    "untrained": "the bundled model as it is",
}
#: Colours that differ in lightness too; class of `report.charts`, so that one style sheet serves all.
STYLE = """
.chart{font:13px sans-serif;background:#fff}.grid{stroke:#e3e3e3}.axis{stroke:#444}.tick,.name{fill:#333}
.line{fill:none;stroke-width:2}.line.strong,.line.mark{stroke-width:2.2}.strong{stroke:#0b5fa5}.dot.strong{fill:#0b5fa5}
.faint{stroke:#9aa7b3}.line.faint{stroke-width:1.4}.dot.faint{fill:#9aa7b3}
.mark{stroke:#c2570c}.dot.mark{fill:#c2570c}.guide{stroke:#666;stroke-dasharray:5 4}.dot.guide{fill:#666}
"""


def table_of(record: dict[str, Any]) -> str:
    """Markdown table of the points."""
    others = "other people" if record["held_out"] else "**the same person's map: NOT held out**"
    lines = [
        f"Simulated scans, difficulty `{record['images_id']}`, seed {record['seed']}; at most {record['minutes']:g} "
        f"minutes of training from the bundled model and {record['random_minutes']:g} from random weights "
        f"({record['device']}, threads {record['threads']}); counts of the simulated reader {record['reader']}, a "
        f"fifth of them for early stopping; {record['points'][0]['test_scans']} test "
        f"volumes of {others}{_coarser(record['coarser'])}. No figure here is an accuracy on scans of people.",
        "",
        "| counted scans | start | ICC(A,1) with the truth | with the reader | ICC(C,1) | r | MAE | bias | steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for point in record["points"]:
        steps = (point["training"] or {}).get("steps", "")
        lines.append(
            f"| {point['scans']} | {WORDS[point['start']]} | {_interval(point['icc'])} | "
            f"{_interval(point['icc_reader'])} | {point['icc_consistency']:.3f} | {point['r']:.3f} | "
            f"{point['mae']:.2f} | {point['bias']:+.2f} | {steps} |"
        )
    return "\n".join(lines) + "\n"


def _coarser(factor: int) -> str:
    words = _voxels(factor)
    return f"; trainings of random weights and their tests{words}" if words else ""


def _voxels(factor: int) -> str:
    return "" if factor == 1 else f" on voxels {factor} times as long along each axis"


def _interval(found: dict[str, float | None]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def drawing_of(results: list[dict[str, Any]], coarser: int = 1) -> str:
    """The curve as a picture of its own."""
    sizes = sorted({point["scans"] for point in results if point["scans"]})
    ends = (sizes[0] / 1.25, sizes[-1] * 1.25)
    series: list[Series] = []
    untrained = next(point for point in results if point["start"] == "untrained")["icc"]["value"]
    series.append(Series([(end, max(0.0, untrained)) for end in ends], "guide"))
    styles: dict[str, Literal["strong", "faint", "mark", "guide"]] = {
        "scratch": "mark",
        "init": "strong",
        "hydra-scratch": "faint",
        "hydra-init": "faint",
        "shuffled": "guide",
    }
    for start, style in styles.items():
        own = sorted((p for p in results if p["start"] == start), key=lambda point: int(point["scans"]))
        for point in own:
            bar = [(point["scans"], _shown(point["icc"][end])) for end in ("low", "high")]
            series.append(Series(bar, style))
        places = [(point["scans"], _shown(point["icc"]["value"])) for point in own]
        labels = [f"{WORDS[start]}, {p['scans']} scans: ICC {p['icc']['value']:.3f}" for p in own]
        series.append(Series(places, style, "both", labels))
    sets = "Light grey: sums over sets. " if any(p["start"].startswith("hydra") for p in results) else ""
    words = Words(
        "learning-curve",
        "ICC(A,1) with the truth by the number of counted scans",
        f"Blue: trained from the bundled model. Orange: from random weights{_voxels(coarser)}. "
        f"{sets}Dashed: the bundled model as it is; the dark grey dot: shuffled counts. Bars: 95 % intervals.",
    )
    x = Axis("counted scans", *ends, tuple(float(size) for size in sizes), log=True)
    y = Axis("ICC(A,1)", 0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    drawn = chart(words, x, y, series)
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        "</desc>", f"</desc><style>{STYLE}</style>", 1
    )


def _shown(icc: float) -> float:
    """Below zero there is no agreement either."""
    return min(1.0, max(0.0, icc))
