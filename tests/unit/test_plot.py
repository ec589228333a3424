"""Figures: what is drawn, what is left out, what is refused, and that nothing is cut off or overlaps."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from points import end, rate_point, sweep, to_frame

from fcbench.analysis import situations, variants
from fcbench.cli import plot as verb
from fcbench.core.errors import FcbenchError
from fcbench.reports import curves_figure, style
from fcbench.results.folder import ResultsFolder
from fcbench.results.row import RatePoint
from fcbench.results.samples import SampleTable

TASKS = {"segmentation": ("miou", True), "depth": ("rmse", False), "pose": ("pck", True), "captioning": ("cider", True)}


def suite(n_tasks: int, encoders: int = 2, codecs: int = 2) -> list[RatePoint]:
    """Coded points and both ends of every task, encoder, codec."""
    rows = []
    for (task, (metric, higher)), e in itertools.product(list(TASKS.items())[:n_tasks], range(encoders)):
        what = {"task": task, "metric": metric, "higher_is_better": higher}
        what["encoder"] = f"encoder_{e}"
        key = f"{task}{e}"
        for c in range(codecs):
            rows += sweep(5, f"{key}{c}-", codec=f"codec_{c}", **what)
        rows += [end("ceiling", 0.45 + 0.02 * e, **what), end("floor", 0.1, **what)]
    return rows


def draw(rows: list[RatePoint], **options: object) -> Figure:
    return curves_figure.figure(to_frame(rows), **options)  # type: ignore[arg-type]


def curves_of(ax: Axes) -> list[np.ndarray]:
    """[P, 2] of each curve (what has a marker and more than two points)."""
    drawn = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    return [np.asarray(line.get_xydata()) for line in drawn]


def level_lines(ax: Axes) -> list[float]:
    return [float(np.asarray(line.get_ydata())[0]) for line in ax.lines if line.get_marker() in ("None", "")]


def texts(fig: Figure) -> list[Text]:
    """Every text that is shown."""
    return [t for t in fig.findobj(Text) if isinstance(t, Text) and t.get_visible() and t.get_text().strip()]


# ------------------------------------------------------------------------------------- what is drawn
@pytest.mark.parametrize("x", list(style.X_LABELS))
def test_a_curve_is_the_rows_in_order_of_rate(x: str) -> None:
    rows = sweep(5)
    (ax,) = draw(rows[::-1], x=x).axes
    (drawn,) = curves_of(ax)
    assert drawn.tolist() == [[getattr(r, x), r.value] for r in rows]
    assert ax.get_xscale() == "log"


def test_band_is_the_interval() -> None:
    (ax,) = draw(sweep(5)).axes
    (band,) = ax.collections
    y = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert (y.min(), y.max()) == (0.15, 0.5)


def test_ceiling_and_floor_are_lines_of_every_encoder() -> None:
    for ax in draw(suite(2)).axes:
        assert sorted(level_lines(ax)) == pytest.approx([0.1, 0.1, 0.45, 0.47])
        assert len(curves_of(ax)) == 4


def test_failed_points_are_counted_and_not_drawn() -> None:
    failed = rate_point(point="bad", status="out of memory", value=None, bpp=None)
    fig = draw([*sweep(4), failed])
    (drawn,) = curves_of(fig.axes[0])
    assert len(drawn) == 4
    assert any("not drawn: 1" in t.get_text() for t in texts(fig))
    assert not any("not drawn" in t.get_text() for t in texts(draw(sweep(4))))


def test_seeds_are_a_mean_line_and_their_points() -> None:
    rows = sweep(4, "a", seed=0, value=0.3) + sweep(4, "b", seed=1, value=0.5)
    (ax,) = draw(rows).axes
    points, line = curves_of(ax)
    assert len(points) == 8
    assert line[:, 1].tolist() == [0.4] * 4


def test_metric_may_be_chosen_and_primary_is_drawn_otherwise() -> None:
    other = sweep(4, metric="pixel_accuracy", primary=False, value=0.9)
    rows = sweep(4) + other
    assert draw(rows).axes[0].get_ylabel() == "mIoU"
    (ax,) = draw(rows, metric="pixel_accuracy").axes
    assert ax.get_ylabel() == "Pixel accuracy"
    assert set(curves_of(ax)[0][:, 1]) == {0.9}


def test_lower_is_better_is_said() -> None:
    rows = sweep(4, metric="rmse", higher_is_better=False)
    assert draw(rows).axes[0].get_ylabel() == "RMSE (m), lower is better"
    assert draw(sweep(4, metric="new")).axes[0].get_ylabel() == "new"


def test_codecs_and_encoders_differ_without_colour() -> None:
    (ax,) = draw(suite(1)).axes
    styles = {
        (line.get_marker(), line.get_markerfacecolor() == "white")
        for line in ax.lines
        if line.get_marker() not in ("None", "")
    }
    assert len(styles) == 4


def test_what_varies_is_told_apart() -> None:
    rows = sweep(4, "a", objective="mse") + sweep(4, "b", objective="task")
    rows += sweep(4, "c", neck="neck_4L") + sweep(4, "d", dataset="camvid")
    fig = draw(rows)
    assert [ax.get_title() for ax in fig.axes] == ["segmentation, scenes", "segmentation, camvid"]
    legend = {t.get_text() for t in fig.legends[0].get_texts()} - {" "}
    assert {"hyperprior, mse", "hyperprior, task"} < legend
    assert {"hiera_nano, neck_2L", "hiera_nano, neck_4L"} < legend


def test_fifteen_codecs_differ_without_colour() -> None:
    (ax,) = draw(suite(1, encoders=1, codecs=15)).axes
    drawn = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    assert len({line.get_marker() for line in drawn}) == 15
    looks = [(line.get_color(), line.get_fillstyle(), line.get_markerfacecolor()) for line in drawn]
    assert len(set(looks)) == 15


def is_grey(colour: object) -> bool:
    red, green, blue = to_rgb(colour)  # type: ignore[arg-type]
    return red == green == blue != 0


@pytest.mark.parametrize("encoders", [1, 2])
def test_codecs_that_had_not_converged_are_drawn_with_gaps(encoders: int) -> None:
    rows = suite(1, encoders=encoders)
    converged, still_open = ([replace(r, codec_stop=stop) for r in rows] for stop in ("plateau", "steps"))
    styles = []
    for some in (converged, still_open):
        fig = draw(some)
        texts = [t.get_text() for t in fig.legends[0].get_texts()]
        assert ("not converged" in texts) == (some is still_open)
        lines = [line for ax in fig.axes for line in ax.lines if line.get_marker() not in ("None", "")]
        styles.append([line._unscaled_dash_pattern for line in lines])  # type: ignore[attr-defined]
    assert len(styles[0]) == len(styles[1]) > 0
    assert all(a != b and b[1] for a, b in zip(*styles)) and len(set(map(str, styles[1]))) == encoders


def test_anchors_are_grey_and_come_last_in_the_legend() -> None:
    fig = draw(suite(2, codecs=3), anchors=["codec_0"])
    names = [t.get_text() for t in fig.legends[0].get_texts()]
    assert [n for n in names if n.startswith("codec")] == ["codec_1", "codec_2", "codec_0"]
    for ax in fig.axes:
        drawn = [line for line in ax.lines if line.get_marker() not in ("None", "")]
        assert sum(is_grey(line.get_color()) for line in drawn) == 2  # of two encoders
        assert len(ax.collections) == 4  # bands of the others only


def test_remote_names_all_that_code_images() -> None:
    rows = sweep(4) + [
        p for c in ("image:jpeg", "image:webp") for p in sweep(4, c, codec=c, kind="remote", objective="")
    ]
    (ax,) = draw(rows, anchors=["remote"]).axes
    assert [is_grey(line.get_color()) for line in ax.lines].count(True) == 2
    assert len(curves_of(ax)) == 3


def test_codecs_may_be_chosen_and_the_ends_stay() -> None:
    rows = sweep(4) + sweep(4, "w", codec="image:webp", kind="remote", objective="")
    df = to_frame(rows + [end("ceiling", 0.5, codec="uncoded")])
    assert set(situations.choose_codecs(df, ["remote"]).codec) == {"image:webp", "uncoded"}
    assert len(situations.choose_codecs(df, [])) == len(df)
    with pytest.raises(FcbenchError, match="Did you mean 'image:webp'"):
        situations.choose_codecs(df, ["image:web"])


def test_a_run_of_too_many_codecs_says_why_it_has_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ResultsFolder(tmp_path) as folder:
        for row in [p for i in range(16) for p in sweep(1, f"k{i}", codec=f"codec{i}")]:
            folder.append([row], SampleTable(["a"], [1], np.ones((1, 2))))
    verb.draw(tmp_path, tmp_path / "curves.png")
    assert "at most 15 can be told apart" in capsys.readouterr().out
    assert not (tmp_path / "curves.png").exists()


def test_label_coding_is_a_star_on_a_line_or_a_curve() -> None:
    one = rate_point(kind="label", codec="label:png", params="{}", point="l", bpp=0.02)
    fig = draw([*sweep(4), one])
    (ax,) = fig.axes
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert np.asarray(star.get_xydata()).tolist() == [[0.02, 0.4]]
    assert ax.get_xlim()[0] < 0.02
    (down,) = [line for line in ax.lines if line.get_marker() in ("None", "")]
    assert list(np.asarray(down.get_xdata())) == [0.02, 0.02]
    assert "label:png" in {t.get_text() for t in fig.legends[0].get_texts()}
    several = sweep(3, "l", kind="label", codec="label:jxl")
    (ax,) = draw([*sweep(4), *several]).axes
    assert sorted(len(c) for c in curves_of(ax)) == [3, 4]
    assert level_lines(ax) == []


# --------------------------------------------------------------------------------------------- grid
def test_many_curves_get_a_panel_for_each_task_and_encoder() -> None:
    fig = draw(suite(3, encoders=2, codecs=4))
    assert len(fig.axes) == 6
    assert all(len(curves_of(ax)) == 4 for ax in fig.axes)
    assert {"encoder_0", "encoder_1"} <= {t.get_text() for t in texts(fig)}
    above, below = fig.axes[0], fig.axes[3]
    assert above.get_ylim() == below.get_ylim()
    assert level_lines(above) == pytest.approx([0.45, 0.1])
    assert level_lines(below) == pytest.approx([0.47, 0.1])


def test_few_curves_share_a_panel_unless_a_grid_is_asked_for() -> None:
    assert len(draw(suite(3)).axes) == 3
    assert len(draw(suite(3), grid=True).axes) == 6
    assert len(draw(suite(3, codecs=4), grid=False).axes) == 3


def test_grid_of_one_task_is_a_row_of_encoders() -> None:
    fig = draw(suite(1, encoders=3, codecs=3))
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == [f"segmentation, encoder_{i}" for i in range(3)]


def test_panel_without_points_is_left_out() -> None:
    rows = [r for r in suite(2, codecs=4) if not (r.encoder == "encoder_1" and r.task == "depth" and r.kind == "coded")]
    shown = [ax for ax in draw(rows).axes if ax.get_visible()]
    assert len(shown) == 3


# ------------------------------------------------------------------------------------------- costs
def test_complexity_is_a_column_a_cost_and_a_row_a_task() -> None:
    rows = [
        replace(p, task=task, encode_ms=1.0 + i, decode_ms=3.0, peak_mb=None, kmac_per_px="", point=f"{task}{i}")
        for i, p in enumerate(sweep(4))
        for task in ("segmentation", "pose")
    ]
    fig = curves_figure.complexity(to_frame(rows))
    assert len(fig.axes) == 2 * 3
    (rate,) = curves_of(fig.axes[0])  # once, not once a task
    assert rate.tolist() == [[1.0 + i, r.bpp] for i, r in enumerate(rows[::2])]
    (accuracy,) = curves_of(fig.axes[2])
    assert accuracy.tolist() == [[1.0 + i, r.value] for i, r in enumerate(rows[::2])]


def test_complexity_has_the_files_of_each_task() -> None:
    rows = [
        replace(p, encode_ms=ms + i, point=f"{p.task}{i}")
        for task, ms in (("segmentation", 1.0), ("pose", 9.0))
        for i, p in enumerate(sweep(4, task=task, objective="task"))
    ]
    drawn = [curve[:, 0].tolist() for curve in curves_of(curves_figure.complexity(to_frame(rows)).axes[0])]
    assert drawn == [[1.0, 2.0, 3.0, 4.0], [9.0, 10.0, 11.0, 12.0]]


def test_operations_are_drawn_where_they_were_counted() -> None:
    kmac = json.dumps({"encoder": 9.0, "encode": 1.5, "decode": 2.5})
    fig = curves_figure.complexity(to_frame(sweep(4, kmac_per_px=kmac)))
    assert len(fig.axes) == 5 * 2
    assert set(curves_of(fig.axes[2])[0][:, 0]) == {1.5}
    none = json.dumps({"encoder": 9.0, "encode": 0.0})
    assert len(curves_figure.complexity(to_frame(sweep(4, kmac_per_px=none, peak_mb=None))).axes) == 2 * 2
    nothing = sweep(4, encode_ms=None, decode_ms=None, peak_mb=None, kmac_per_px="")
    with pytest.raises(FcbenchError, match="no row has a time"):
        curves_figure.complexity(to_frame(nothing))


def networks_of(ax: Axes) -> list[float]:
    return sorted(float(np.asarray(line.get_xdata())[0]) for line in ax.lines if line.get_marker() in ("None", ""))


def test_networks_are_lines_beside_their_side_of_the_codec() -> None:
    kmac = json.dumps({"encoder": 9.0, "neck": 1.0, "head": 2.0, "encode": 0.5, "decode": 0.4})
    one = sweep(4, kmac_per_px=kmac, encoder_ms=12.0, neck_ms=1.0, head_ms=0.5)
    rows = one + sweep(4, "pose", task="pose", kmac_per_px=kmac, encoder_ms=12.0, neck_ms=1.0, head_ms=4.0)
    fig = curves_figure.complexity(to_frame(rows))
    assert [networks_of(ax) for ax in fig.axes[:5]] == [[12.0, 12.0], [1.5, 5.0], [9.0, 9.0], [3.0, 3.0], []]
    assert [networks_of(ax) for ax in fig.axes[10:12]] == [[12.0], [5.0]]
    assert style.NETWORKS[0] in [t.get_text() for t in texts(fig)]
    none = sweep(4, kmac_per_px="", encoder_ms=None, neck_ms=None, head_ms=None)
    assert style.NETWORKS[0] not in [t.get_text() for t in texts(curves_figure.complexity(to_frame(none)))]


# ------------------------------------------------------------------------------------------- layout
LAYOUTS = {
    "one panel": (suite(1), {}),
    "two panels": (suite(2), {}),
    "four panels": (suite(4), {}),
    "grid": (suite(4, codecs=15), {"anchors": ["codec_3"]}),
    "column of many": (suite(1, encoders=1, codecs=15), {}),
    "long names": ([replace(r, encoder="timm:tf_efficientnet_lite0") for r in suite(1, 1, 4)], {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_cut_off_small_or_overlapping(layout: str) -> None:
    rows, options = LAYOUTS[layout]
    fig = draw(rows, **options)
    width, height = fig.get_size_inches()
    assert width == (style.COLUMN_IN if len(fig.axes) == 1 else style.PAGE_IN)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    renderer = canvas.get_renderer()
    frame = fig.bbox.padded(1)
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in _inside(fig)]
    for text, box in boxes:
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1, text
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1, text
    for (a, box_a), (b, box_b) in itertools.combinations(boxes, 2):
        assert not box_a.padded(-1).overlaps(box_b.padded(-1)), (a, b)
    assert min(float(t.get_fontsize()) for t in texts(fig)) >= 7
    legend = fig.legends[0].get_window_extent(renderer)
    assert frame.x0 <= legend.x0 and legend.x1 <= frame.x1
    for ax in fig.axes:
        assert not legend.overlaps(ax.get_window_extent(renderer))


def _inside(fig: Figure) -> list[Text]:
    """Texts that are shown, less the tick labels beyond an axis' limits, which matplotlib keeps but hides."""
    hidden = set()
    for ax in fig.axes:
        for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low <= tick.get_loc() <= high:
                    hidden |= {id(tick.label1), id(tick.label2)}
    return [t for t in texts(fig) if id(t) not in hidden]


@pytest.mark.parametrize("span", [1.0, 1.5, 4.0, 30.0, 1e4])
def test_rate_axis_has_a_few_plain_numbers(span: float) -> None:
    rows = [rate_point(point=str(i), bpp=0.07 * span**i, seed=i) for i in (0, 1)]
    (ax,) = draw(rows).axes
    low, high = ax.get_xlim()
    shown = [t.get_text() for t in ax.get_xticklabels()]
    assert 1 <= len(shown) <= 5 and all(low <= float(t) <= high for t in shown)


# --------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")])
def test_saved_as_the_suffix_says_and_the_same_twice(tmp_path: Path, name: str, magic: bytes) -> None:
    first = style.save(draw(sweep(4)), tmp_path / name).read_bytes()
    assert first.startswith(magic)
    assert style.save(draw(sweep(4)), tmp_path / name).read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_png_is_of_300_dpi(tmp_path: Path) -> None:
    from PIL import Image

    fig = draw(sweep(4))
    path = style.save(fig, tmp_path / "a.png")
    assert Image.open(path).size == tuple((fig.get_size_inches() * 300).astype(int))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.svg.gz"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FcbenchError, match=r"one of \.png, \.svg, \.pdf"):
        style.save(draw(sweep(4)), tmp_path / name)


def test_unwritable_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FcbenchError, match="(File exists|Not a directory); choose another -o"):
        style.save(draw(sweep(4)), tmp_path / "file" / "a.svg")


# ------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("rows", "options", "what"),
    [
        ([], {}, "no rows to draw"),
        ([rate_point(status="boom")], {}, "all 1 failed"),
        (sweep(4), {"x": "bp"}, "unknown rate axis 'bp'. Did you mean 'bpp'"),
        (sweep(4), {"metric": "mio"}, "unknown metric 'mio'. Did you mean 'miou'"),
        ([end("ceiling", 0.5)], {}, "no coded points"),
        (sweep(4, value=None), {}, "4 measured rows have no finite value"),
        ([*sweep(4), rate_point(bpp=None)], {}, "1 measured rows have no positive bpp"),
        ([rate_point(bpp=0.0)], {}, "no positive bpp"),
        (sweep(4) + sweep(4, "again", suite="b"), {}, "4 rows that the figure cannot tell from others .* again0"),
        (suite(1, codecs=16), {}, "16 codecs .* at most 15"),
        (suite(1, encoders=5), {"grid": False}, "5 encoders .* at most 4"),
        (suite(1), {"anchors": ["codec_l"]}, "unknown anchor 'codec_l'. Did you mean"),
    ],
)
def test_refusals(rows: list[RatePoint], options: dict, what: str) -> None:
    with pytest.raises(FcbenchError, match=what):
        draw(rows, **options)


def test_runs_side_by_side_are_curves_with_ceilings_of_their_own() -> None:
    runs = [
        [replace(row, commit=c, value=(row.value or 0) + d) for row in suite(1, 1, 1)] for c, d in (("x", 0), ("y", 1))
    ]
    fig = curves_figure.figure(variants.add(to_frame([*runs[0], *runs[1]]), "commit"))
    assert len(curves_of(fig.axes[0])) == 2
    assert sorted(level_lines(fig.axes[0])) == pytest.approx([0.1, 0.45, 1.1, 1.45])
    assert {"codec_0, x", "codec_0, y"} <= {t.get_text() for t in texts(fig)}
