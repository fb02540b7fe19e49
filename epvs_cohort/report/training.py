"""The page of one training: curves, predicted against counted, heatmaps of validation scans."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image as Pillow

from epvs_cohort.data.files import write_whole
from epvs_cohort.data.names import shown
from epvs_cohort.model.bundle import CARD_FILE, load_bundle
from epvs_cohort.report.charts import Axis, Series, Words, chart, linear_axis, log_axis, number_words
from epvs_cohort.report.page import Table, render
from epvs_cohort.train.journal import (
    PICTURES_FOLDER,
    JournalData,
    PictureLine,
    StepLine,
    ValidationLine,
    read_journal,
)

PAGE_FILE: Final = "training.html"
#: Points of the curve of the loss; neighbours are drawn as their mean.
MOST_POINTS: Final = 400
#: Rows of the table of the loss.
MOST_ROWS: Final = 50
#: Scans whose pictures are on the page: with 100 kB each it stays a few megabytes.
MOST_PICTURES: Final = 24
#: A loss that falls by more than this is drawn on a logarithmic axis.
_LOG_RATIO: Final = 30.0
#: The strong line is the mean over this part of the points.
_SMOOTH_PART: Final = 20


def training_page(folder: Path) -> Path:
    """Write the page of a training beside its bundle; it needs no other file and no network.

    Parameters
    ----------
    folder : Path
        Of the run: its journal, and its bundle where there is one.

    Returns
    -------
    Path
        The page written, ``training.html``.

    Raises
    ------
    OutputError
        There is no journal, or it is damaged.
    ModelError
        The bundle in the folder is damaged.
    """
    data = read_journal(folder)
    text = render("training.html", _content(folder, data))
    path = folder / PAGE_FILE
    write_whole(path, text.encode())
    return path


def _content(folder: Path, data: JournalData) -> dict[str, Any]:
    name, card = _card(folder)
    best = _best(data.validations)
    over, places = _places(data.validations)
    chosen = _chosen(data.pictures, best)
    pictures = chosen[:MOST_PICTURES]
    return {
        "name": name,
        "card": card,
        "subtitle": _subtitle(data),
        "tiles": _tiles(data, best),
        "loss": _loss(data.steps),
        "over": over + "s",
        "validations": len(data.validations),
        "curves": _curves(data.validations, (over, places), best),
        "validation_table": _validation_table(data.validations),
        "scatters": _scatters(data.validations, best),
        "pictures": [_picture(picture, data.validations) for picture in pictures],
        "left_out": len(chosen) - len(pictures),
        "pictures_folder": PICTURES_FOLDER,
    }


def _card(folder: Path) -> tuple[str, list[tuple[str, str]]]:
    """Name of the bundle and what its card says; without a bundle the folder's name and nothing."""
    if not (folder / CARD_FILE).is_file():
        return shown(folder.resolve().name), []
    bundle = load_bundle(str(folder.resolve()))
    card = bundle.card
    target = "the whole region of interest" if card.count_target == "roi" else "the slice of the commissure"
    said = [
        ("Counts in", target),
        ("Trained on", card.trained_on),
        ("Supervision", card.supervision),
        ("Validated on", card.validated_on),
        ("Must not be used for", card.limits),
        ("Model", f"{card.name}, {bundle.model_id}"),
    ]
    return card.name, [(term, words) for term, words in said if words]


def _best(validations: Sequence[ValidationLine]) -> ValidationLine | None:
    known = [line for line in validations if line.mse is not None]
    return min(known, key=lambda line: line.mse or 0.0, default=None)


def _chosen(pictures: Sequence[PictureLine], best: ValidationLine | None) -> list[PictureLine]:
    """One picture of each scan: of the weights that are kept, those of the best validation, else the latest."""
    found: dict[str, PictureLine] = {}
    for picture in pictures:
        before = found.get(picture.key)
        if best is None or before is None or before.step != best.step:
            found[picture.key] = picture
    return list(found.values())


def _subtitle(data: JournalData) -> str:
    if not data.steps:
        return "Nothing is trained yet."
    last = data.steps[-1]
    return f"{last.step:,} steps, last in epoch {last.epoch}, {_time_words(last.seconds)} of training."


def _tiles(data: JournalData, best: ValidationLine | None) -> list[dict[str, str]]:
    tiles: list[dict[str, str]] = []
    if best is not None:
        last = data.validations[-1]
        named = [("Best", best)] if best is last else [("Best", best), ("Last", last)]
        for name, line in named:
            tiles += [
                {
                    "name": f"{name} validation MSE",
                    "value": _number(line.mse),
                    "more": f"counts², {_when(line)}",
                },
                {"name": "ICC(A,1) there", "value": _icc(line.icc), "more": _scans(line)},
            ]
    if data.steps:
        last_step = data.steps[-1]
        more = f"mean of the last {last_step.steps} steps"
        tiles.append({"name": "Last training loss", "value": _number(last_step.loss), "more": more})
    return tiles


def _loss(lines: Sequence[StepLine]) -> dict[str, Any] | None:
    known = [line for line in lines if line.loss is not None]
    if not known:
        return None
    points = [(float(line.step), line.loss or 0.0) for line in _thinned(known, MOST_POINTS)]
    width = len(points) // _SMOOTH_PART // 2 * 2 + 1
    values = [loss for _, loss in points]
    is_log = min(values) > 0 and max(values) / min(values) > _LOG_RATIO
    y = log_axis("loss, log scale", values) if is_log else linear_axis("loss", values, from_zero=True)
    x = linear_axis("step", [0.0, points[-1][0]], whole=True)
    words = Words(
        "loss",
        "Training loss over steps",
        f"From {_number(values[0])} at step {points[0][0]:,.0f} to {_number(values[-1])} at step "
        f"{points[-1][0]:,.0f}; lowest {_number(min(values))}. The table below holds the values.",
    )
    rows = [
        (f"{line.step:,}", str(line.epoch), _number(line.loss), f"{line.rate:.3g}", _time_words(line.seconds))
        for line in _thinned(known, MOST_ROWS)
    ]
    each = max(line.steps for line in _thinned(known, MOST_POINTS))
    key = [("strong", f"mean of up to {each:,} steps")]
    series = [Series(points)]
    if width > 1:
        key = [("faint", key[0][1]), ("strong", f"running mean of up to {each * width:,} steps")]
        series = [Series(points, "faint"), Series(_running_mean(points, width))]
    return {
        "svg": chart(words, x, y, series, (800, 320)),
        "key": key,
        "table": Table(
            "The loss as a table", "Training loss", ("step", "epoch", "loss", "learning rate", "time"), rows
        ),
    }


def _thinned(lines: Sequence[StepLine], most: int) -> list[StepLine]:
    """At most ``most`` lines, each the mean of its neighbours weighted by their steps."""
    width = -(-len(lines) // most)
    thinned: list[StepLine] = []
    for start in range(0, len(lines), width):
        group = lines[start : start + width]
        steps = sum(line.steps for line in group)
        loss = sum((line.loss or 0.0) * line.steps for line in group) / steps
        last = group[-1]
        thinned.append(StepLine(last.step, last.epoch, loss, last.rate, last.seconds, steps))
    return thinned


def _running_mean(points: Sequence[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    """Mean of each point and its neighbours, ``width`` together and fewer at the ends: the line lags nowhere."""
    found: list[tuple[float, float]] = []
    for n, (x, _) in enumerate(points):
        reach = min(width // 2, n, len(points) - 1 - n)
        near = [y for _, y in points[n - reach : n + reach + 1]]
        found.append((x, sum(near) / len(near)))
    return found


def _places(validations: Sequence[ValidationLine]) -> tuple[str, list[float]]:
    """What validations are drawn over: epochs, or steps where an epoch has several."""
    epochs = [line.epoch for line in validations]
    if len(set(epochs)) == len(epochs):
        return "epoch", [float(epoch) for epoch in epochs]
    return "step", [float(line.step) for line in validations]


def _curves(
    validations: Sequence[ValidationLine], over: tuple[str, Sequence[float]], best: ValidationLine | None
) -> list[str]:
    if best is None:
        return []
    name, places = over
    x = linear_axis(name, places, whole=True)
    best_place = places[list(validations).index(best)]
    drawn: list[str] = []
    for key, title, values in (
        ("mse", "MSE (counts²)", [line.mse for line in validations]),
        ("icc", "ICC(A,1)", [line.icc for line in validations]),
    ):
        points = [(at, value) for at, value in zip(places, values, strict=True) if value is not None]
        if not points:
            continue
        y = _curve_axis(key, title, [value for _, value in points])
        marks = [point for point in points if point[0] == best_place]
        labels = [f"{name} {at:,.0f}: {_number(value, 3)}" for at, value in points]
        words = Words(
            f"validation-{key}",
            f"Validation: {title} over {name}s",
            f"From {_number(points[0][1], 3)} to {_number(points[-1][1], 3)} over {len(points)} validations; "
            f"the MSE is lowest at {name} {best_place:,.0f}. The table below holds the values.",
        )
        dots: Literal["both", "line"] = "both" if len(points) <= 60 else "line"
        series = [Series(points, "strong", dots, labels), Series(marks, "mark", "dots", ["lowest MSE"])]
        drawn.append(chart(words, x, y, series, (480, 300)))
    return drawn


def _curve_axis(key: str, title: str, values: Sequence[float]) -> Axis:
    if key == "icc":
        return linear_axis(title, [*values, 1.0], from_zero=True)
    if min(values) > 0 and max(values) / min(values) > _LOG_RATIO:
        return log_axis(f"{title}, log scale", values)
    return linear_axis(title, values, from_zero=True)


def _validation_table(validations: Sequence[ValidationLine]) -> Table:
    rows = [
        (f"{line.step:,}", str(line.epoch), _number(line.mse, 3), _icc(line.icc), str(len(line.keys)))
        for line in validations
    ]
    heads = ("step", "epoch", "MSE (counts²)", "ICC(A,1)", "scans")
    return Table("The validations as a table", "Validations", heads, rows)


def _scatters(validations: Sequence[ValidationLine], best: ValidationLine | None) -> list[dict[str, Any]]:
    counted = [line for line in validations if _pairs(line)]
    if not counted:
        return []
    last = counted[-1]
    if best is None or best is last or not _pairs(best):
        how = "Last validation, which is also the best" if best is last else "Last validation"
        return [_scatter("last", f"{how} ({_when(last)})", last)]
    return [
        _scatter("best", f"Best validation ({_when(best)})", best),
        _scatter("last", f"Last validation ({_when(last)})", last),
    ]


def _pairs(line: ValidationLine) -> list[tuple[str, float, float]]:
    """Name, counted and predicted of each scan where both are finite."""
    scans = zip(line.keys, line.truth, line.estimate, strict=True)
    return [(key, x, y) for key, x, y in scans if x is not None and y is not None]


def _scatter(name: str, title: str, line: ValidationLine) -> dict[str, Any]:
    pairs = _pairs(line)
    values = [value for _, x, y in pairs for value in (x, y)]
    x, y = (linear_axis(side, values, from_zero=True) for side in ("counted", "predicted"))
    labels = [f"{key}: counted {a:g}, predicted {_number(b)}" for key, a, b in pairs]
    n, left_out = len(pairs), len(line.keys) - len(pairs)
    error = [b - a for _, a, b in pairs]
    caption = (
        f"{n} scan{'s' if n != 1 else ''}, ICC(A,1) {_icc(line.icc)}, MSE {_number(line.mse)}, mean absolute "
        f"error {_number(sum(map(abs, error)) / n)}, mean error {_signed(sum(error) / n)}"
    )
    if left_out:
        caption += f"; {left_out} not shown, for their count is not finite"
    words = Words(f"scatter-{name}", title, f"{caption}. The table below holds the counts.")
    series = [
        Series([(x.low, x.low), (x.high, x.high)], "guide"),
        Series([(a, b) for _, a, b in pairs], "strong", "dots", labels),
    ]
    rows = sorted((key, f"{a:g}", _number(b), _signed(b - a)) for key, a, b in pairs)
    return {
        "title": title,
        "svg": chart(words, x, y, series, (460, 420)),
        "caption": caption + ".",
        "table": Table("The counts as a table", title, ("scan", "counted", "predicted", "difference"), rows),
    }


def _picture(picture: PictureLine, validations: Iterable[ValidationLine]) -> dict[str, Any]:
    name, counts = picture.key, ""
    for line in validations:
        if line.step <= picture.step and picture.key in line.keys:
            number = line.keys.index(picture.key)
            counted, predicted = line.truth[number], line.estimate[number]
            counts = f"counted {_number(counted, 1)}, predicted {_number(predicted, 1)}; "
    with Pillow.open(picture.file) as opened:
        width, height = opened.size
    return {
        "name": name,
        "words": f"{counts}highest heat {picture.top_heat:.3g}, step {picture.step:,}",
        "alt": f"{name}: intensities of an axial slice on the left, the heatmap over them on the right",
        "data": base64.b64encode(picture.file.read_bytes()).decode("ascii"),
        "width": width,
        "height": height,
    }


def _when(line: ValidationLine) -> str:
    return f"epoch {line.epoch}, step {line.step:,}"


def _scans(line: ValidationLine) -> str:
    return f"{len(line.keys)} validation scan{'s' if len(line.keys) != 1 else ''}"


def _number(value: float | None, digits: int = 2) -> str:
    """Value with so many decimals, fewer where it is large and more where it is small; a dash where not known."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return number_words(float(f"{value:.3g}") if abs(value) >= 1e8 else round(value))
    text = f"{value:.{digits}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def _icc(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _signed(value: float) -> str:
    return _number(value) if value < 0 else f"+{_number(value)}"


def _time_words(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
