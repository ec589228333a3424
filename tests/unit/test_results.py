"""Rows to disk and back; what a killed run, a full disk or another schema does to a folder."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from points import rate_point

from fcbench.core.errors import FcbenchError
from fcbench.core.files import write_atomically
from fcbench.results import folder as folder_module
from fcbench.results import provenance, row, table
from fcbench.results.folder import ResultsFolder, load_provenance
from fcbench.results.row import RatePoint
from fcbench.results.samples import SampleTable, load_samples, pack, sample_files

N = len(row.COLUMNS)
SAMPLES = SampleTable(["a", "b"], [10, None], np.array([[1.0, 2.0], [3.0, 4.5]]))


def write(path: Path, *points: RatePoint) -> None:
    with ResultsFolder(path) as folder:
        for p in points:
            folder.append([p], SAMPLES if p.status == "ok" else None)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_VALUES: dict[Any, Any] = {
    int: st.integers(-(2**63), 2**63 - 1),
    int | None: st.none() | st.integers(0, 2**62),
    float | None: st.none() | st.floats(allow_nan=False),
    bool: st.booleans(),
    bool | None: st.none() | st.booleans(),
    str: _TEXT | st.sampled_from(["NA", "nan", "None", "", '{"a": "b,c"}', "x\r\ny"]),
}
_POINTS = st.builds(
    RatePoint,
    **{
        name: ({"schema": st.just(row.SCHEMA), "point": st.just("p"), "status": st.just("ok")}).get(
            name, _VALUES[column.type]
        )
        for name, column in row.COLUMNS.items()
    },
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(_POINTS, min_size=1, max_size=3))
def test_points_come_back_as_they_were(tmp_path: Path, points: list[RatePoint]) -> None:
    with ResultsFolder(tmp_path) as folder:
        folder.append(points, SAMPLES)
    assert table.load_points(tmp_path) == points


def test_columns_are_the_fields(tmp_path: Path) -> None:
    write(tmp_path, rate_point())
    header = next(csv.reader(open(tmp_path / "rates.csv")))
    assert header == [f.name for f in fields(RatePoint)]


def test_frame_has_the_right_dtypes_and_missing_stays_missing(tmp_path: Path) -> None:
    empty = rate_point(point="p1", n_bytes=None, bpp=None, rate_alarm=None, commit="NA", codec="")
    write(tmp_path, rate_point(), empty)
    df = table.load(tmp_path)
    kinds = {"n_bytes": "Int64", "bpp": "float64", "rate_alarm": "boolean"}
    kinds |= {"seed": "int64", "primary": "bool", "commit": "object"}
    assert {c: str(df[c].dtype) for c in kinds} == kinds
    assert df.loc[1, ["n_bytes", "bpp", "rate_alarm"]].isna().all()
    assert (df.loc[1, "commit"], df.loc[1, "codec"]) == ("NA", "")
    assert df.loc[0, "n_bytes"] == 800


def test_nan_is_a_missing_value(tmp_path: Path) -> None:
    write(tmp_path, rate_point(value=float("nan"), ci_high=math.inf))
    (p,) = table.load_points(tmp_path)
    assert p.value is None and p.ci_high == math.inf


def test_samples_come_back_and_are_one_parquet_data_set(tmp_path: Path) -> None:
    wide = SampleTable(["a", "b"], [1, 2], np.arange(10.0).reshape(2, 5))
    with ResultsFolder(tmp_path) as folder:
        folder.append([rate_point(point="p1")], SAMPLES)
        folder.append([rate_point(point="p2")], wide)
    found = load_samples(tmp_path, "p1")
    assert (found.ids, found.n_bytes) == (["a", "b"], [10, None])
    assert found.stats.dtype == np.float64 and (found.stats == SAMPLES.stats).all()
    assert (load_samples(tmp_path, "p2").stats == wide.stats).all()
    df = pd.read_parquet(tmp_path / "samples.parquet")
    assert sorted(df.columns) == ["n_bytes", "point", "sample", "stats"]
    assert df["point"].tolist() == ["p1", "p1", "p2", "p2"]


def test_packed_samples_are_the_samples(tmp_path: Path) -> None:
    stated = SampleTable(["a", "b"], [1, 2], np.arange(10.0).reshape(2, 5), log_likelihood=np.array([-1.0, -2.0]))
    with ResultsFolder(tmp_path) as folder:
        folder.append([rate_point(point="p1")], SAMPLES)
        folder.append([rate_point(point="p2")], stated)
    before = [load_samples(tmp_path, point) for point in ("p1", "p2")]
    assert pack(tmp_path).name == "samples.zstd.parquet"
    shutil.rmtree(tmp_path / "samples.parquet")
    for point, one in zip(("p1", "p2"), before):
        found = load_samples(tmp_path, point)
        assert (found.ids, found.n_bytes) == (one.ids, one.n_bytes) and (found.stats == one.stats).all()
        assert np.array_equal(found.log_likelihood, one.log_likelihood)  # type: ignore[arg-type]
    with pytest.raises(FcbenchError, match="no samples of point 'p9'"):
        load_samples(tmp_path, "p9")
    with pytest.raises(FcbenchError, match="no samples in"):
        pack(tmp_path / "empty")


def test_packing_again_keeps_what_is_packed(tmp_path: Path) -> None:
    """A run goes on in a folder of which only the packed samples were kept."""
    for point in ("p1", "p2"):
        with ResultsFolder(tmp_path) as folder:
            folder.append([rate_point(point=point)], SAMPLES)
        pack(tmp_path)
        shutil.rmtree(tmp_path / "samples.parquet")
    assert [load_samples(tmp_path, point).ids for point in ("p1", "p2")] == [["a", "b"]] * 2
    assert list(sample_files(tmp_path)) == ["p1", "p2"]


def test_done_and_resume(tmp_path: Path) -> None:
    both = [rate_point(), rate_point(metric="pixel_accuracy", primary=False)]
    with ResultsFolder(tmp_path) as folder:
        assert not folder.done("p0")
        folder.append(both, SAMPLES)
        assert folder.done("p0")
    with ResultsFolder(tmp_path) as folder:
        assert folder.done("p0") and not folder.done("p1")
        assert folder.points == both


def test_a_failed_point_is_a_row_and_is_tried_again(tmp_path: Path) -> None:
    failed = rate_point(point="p1", status="out of memory", value=None)
    write(tmp_path, rate_point(), failed, rate_point(point="p2"))
    with ResultsFolder(tmp_path) as folder:
        assert not folder.done("p1")
        folder.append([replace(failed, status="ok", value=0.5)], SAMPLES)
        assert folder.done("p1")
    df = table.load(tmp_path)
    assert sorted(df["point"]) == ["p0", "p1", "p2"] and set(df["status"]) == {"ok"}


def test_killed_between_samples_and_rows_lacks_the_point_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, rate_point())
    before = (tmp_path / "rates.csv").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with ResultsFolder(tmp_path) as folder:
        monkeypatch.setattr(folder_module, "append_durably", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.append([rate_point(point="p1")], SAMPLES)
        monkeypatch.undo()
    assert (tmp_path / "samples.parquet/p1.parquet").exists()
    assert (tmp_path / "rates.csv").read_bytes() == before
    with ResultsFolder(tmp_path) as folder:
        assert folder.done("p0") and not folder.done("p1")
        folder.append([rate_point(point="p1")], SAMPLES)
    assert not list(tmp_path.rglob(".*.tmp"))
    assert len(pd.read_parquet(tmp_path / "samples.parquet")) == 4


@pytest.mark.parametrize("failed_first", [True, False])
def test_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed_first: bool
) -> None:
    """Whether its samples' file cannot be written, or its rows (a failed point has no samples)."""
    write(tmp_path, rate_point())
    before = (tmp_path / "rates.csv").read_bytes()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with ResultsFolder(tmp_path) as folder:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(FcbenchError, match="No space left.*free some space"):
            row = rate_point(point="p1", status="boom" if failed_first else "ok")
            folder.append([row], None if failed_first else SAMPLES)
        assert not folder.done("p1")
        monkeypatch.undo()
    assert (tmp_path / "rates.csv").read_bytes() == before
    assert [p.point for p in table.load_points(tmp_path)] == ["p0"]
    assert not list(tmp_path.rglob(".*.tmp"))


def test_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FcbenchError, match="Not a directory; choose another --out"):
        ResultsFolder(tmp_path / "file" / "out")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_forbidden_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FcbenchError, match="Permission denied"):
        ResultsFolder(tmp_path / "out")


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys; from fcbench.results.folder import ResultsFolder\n"
        "from fcbench.core.errors import FcbenchError\n"
        "try: ResultsFolder(sys.argv[1])\n"
        "except FcbenchError as e: sys.exit(str(e))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with ResultsFolder(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 1 and "in use by another process" in second.stderr
    assert subprocess.run(command).returncode == 0


# ---------------------------------------------------------------------------------- damaged folders
def damage(path: Path, old: str, new: str) -> None:
    file = path / "rates.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_another_schema_is_refused_and_kept(tmp_path: Path) -> None:
    write(tmp_path, rate_point())
    damage(tmp_path, f"\n{row.SCHEMA},", "\n99,")
    before = (tmp_path / "rates.csv").read_bytes()
    with pytest.raises(FcbenchError, match="schema 99, this version reads"):
        ResultsFolder(tmp_path)
    assert (tmp_path / "rates.csv").read_bytes() == before


def test_other_columns_are_named(tmp_path: Path) -> None:
    write(tmp_path, rate_point())
    damage(tmp_path, '"bpfp"', '"bits"')
    with pytest.raises(FcbenchError, match="missing: bpfp; unknown: bits"):
        ResultsFolder(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("65536", "many", "many"),
        (",True,", ",yes,", "bool"),
        (',"abc","2025-01-31T12:00:00Z"\n', "\n", f"line 2 has {N - 2} cells, expected {N}"),
        ('12:00:00Z"\n', '12:00:00Z",7\n', f"line 2 has {N + 1} cells, expected {N}"),
        ('00Z"', "00Z", "unexpected end of data"),
    ],
)
def test_damaged_rows_are_one_line(tmp_path: Path, old: str, new: str, what: str) -> None:
    write(tmp_path, rate_point())
    damage(tmp_path, old, new)
    with pytest.raises(FcbenchError, match=f"rates.csv is damaged: .*{what}") as caught:
        table.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n_lost", [1, 30, 600, 1100])
def test_a_last_line_that_is_cut_off_is_left_out_and_measured_again(
    tmp_path: Path, n_lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    both = [rate_point(point="p1"), rate_point(point="p1", metric="pixel_accuracy", primary=False)]
    with ResultsFolder(tmp_path) as folder:
        folder.append([rate_point()], SAMPLES)
        folder.append(both, SAMPLES)
    file = tmp_path / "rates.csv"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    cut = lines[-1][: max(8, len(lines[-1]) - n_lost)]
    file.write_bytes(b"".join(lines[:-1]) + cut)
    assert [p.point for p in table.load_points(tmp_path)] == ["p0"]
    assert "cut off" in caplog.text
    with ResultsFolder(tmp_path) as folder:
        assert folder.done("p0") and not folder.done("p1")
        folder.append(both, SAMPLES)
    assert file.read_bytes() == whole


def test_a_point_counts_only_once_all_of_its_rows_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a kill or a power cut ends the write, between two rows as well."""
    both = [rate_point(point="p1"), rate_point(point="p1", metric="pixel_accuracy", primary=False)]
    write(tmp_path, rate_point())
    file, seen = tmp_path / "rates.csv", list[bytes]()
    before = file.read_bytes()
    with ResultsFolder(tmp_path) as folder:
        monkeypatch.setattr(os, "fsync", lambda handle: seen.append(file.read_bytes()))
        folder.append(both, SAMPLES)
        monkeypatch.undo()
    unfinished, whole = list(dict.fromkeys(seen))[-2:]
    assert whole == file.read_bytes() and len(unfinished) == len(whole) and table.whole_points(whole) == whole
    for n in range(len(before), len(whole) + 1):
        assert table.whole_points(unfinished[:n]) == before
    file.write_bytes(unfinished)
    with ResultsFolder(tmp_path) as folder:
        assert folder.done("p0") and not folder.done("p1")
    assert file.read_bytes() == before


def test_a_killed_run_leaves_replaced_rows_which_do_not_count(tmp_path: Path) -> None:
    failed = rate_point(point="p1", status="boom", metric="", value=None)
    folder = ResultsFolder(tmp_path)
    for point in (rate_point(), failed, rate_point(point="p2"), replace(failed, status="ok", metric="miou", value=0.5)):
        folder.append([point], SAMPLES if point.status == "ok" else None)
    assert len((tmp_path / "rates.csv").read_bytes().splitlines()) == 1 + 4
    assert [(p.point, p.status) for p in table.load_points(tmp_path)] == [("p0", "ok"), ("p2", "ok"), ("p1", "ok")]
    folder.close()
    assert len((tmp_path / "rates.csv").read_bytes().splitlines()) == 1 + 3


def test_many_points_take_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are added, not all written anew, and looking a point up does not go through all of them."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # what a disk takes is not ours
    n_whole, whole = 0, write_atomically

    def counted(*arguments: Any) -> None:
        nonlocal n_whole
        n_whole += 1
        whole(*arguments)

    monkeypatch.setattr(folder_module, "write_atomically", counted)
    began = time.monotonic()
    with ResultsFolder(tmp_path) as folder:
        for i in range(2000):
            folder.append([rate_point(point=f"p{i}", status="boom")], None)
            assert not folder.done(f"p{i}") and not folder.done(f"p{i + 1}")
    assert len(table.load(tmp_path)) == 2000
    assert n_whole == 1
    assert time.monotonic() - began < 30  # about one second


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    write(tmp_path, rate_point())
    file = tmp_path / "rates.csv"
    file.write_bytes(file.read_bytes().replace(b"hiera", b"\xff\xfe"))
    with pytest.raises(FcbenchError, match="is damaged: .*utf-8"):
        table.load(tmp_path)


@pytest.mark.parametrize("point", ["../out", "/tmp/out", "a/b", "..", ""])
def test_a_point_that_would_leave_the_folder_is_damage(tmp_path: Path, point: str) -> None:
    write(tmp_path, rate_point(point="p0"))
    damage(tmp_path, '"p0"', f'"{point}"')
    with pytest.raises(FcbenchError, match="is damaged: a point cannot be called"):
        table.load(tmp_path)


def test_a_refused_folder_is_not_left_locked(tmp_path: Path) -> None:
    write(tmp_path, rate_point())
    damage(tmp_path, f"\n{row.SCHEMA},", "\n99,")
    with pytest.raises(FcbenchError):
        ResultsFolder(tmp_path)
    damage(tmp_path, "\n99,", f"\n{row.SCHEMA},")
    with ResultsFolder(tmp_path) as folder:
        assert folder.done("p0")


def test_damaged_or_absent_samples_and_tables(tmp_path: Path) -> None:
    write(tmp_path, rate_point())
    part = tmp_path / "samples.parquet/p0.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(FcbenchError, match="p0.parquet is damaged"):
        load_samples(tmp_path, "p0")
    with pytest.raises(FcbenchError, match="no samples of point 'p9'"):
        load_samples(tmp_path, "p9")
    with pytest.raises(FcbenchError, match="no rates.csv"):
        table.load(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("rows", "samples", "what"),
    [
        ([], SAMPLES, "0 points"),
        ([rate_point(), rate_point(point="p1")], SAMPLES, r"2 points \(p0, p1\)"),
        ([rate_point(point="../p")], SAMPLES, "point key"),
        ([rate_point(schema=7)], SAMPLES, "schema 7"),
        ([rate_point()], None, "without samples"),
        ([rate_point()], SampleTable([], [], np.ones((0, 2))), "0 sample ids"),
        ([rate_point()], SampleTable(["a"], [1], np.ones((2, 2))), "1 sample ids"),
        ([rate_point()], SampleTable(["a"], [1], np.ones(1)), r"statistics \[1\]"),
    ],
)
def test_append_refuses_what_is_not_one_point(
    tmp_path: Path, rows: list[RatePoint], samples: SampleTable | None, what: str
) -> None:
    with ResultsFolder(tmp_path) as folder:
        with pytest.raises(FcbenchError, match=what):
            folder.append(rows, samples)
    assert not (tmp_path / "rates.csv").exists()


# ------------------------------------------------------------------------------------- older schemas
def as_schema(n: int, path: Path) -> None:
    """Make rates.csv what an older schema wrote."""
    old = [name for name, column in row.COLUMNS.items() if column.since <= n]
    frame = table.load(path).assign(schema=n)[old].astype(object)
    with (path / "rates.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(old)
        writer.writerows(frame.where(frame.notna(), None).to_numpy().tolist())


NEW = {name: column for name, column in row.COLUMNS.items() if column.since > 2}


@pytest.mark.parametrize("n", [2, 3, 5])
def test_rows_of_older_schemas_are_read_and_lack_what_is_new(n: int, tmp_path: Path) -> None:
    write(tmp_path, rate_point(), rate_point(point="p1"))
    as_schema(n, tmp_path)
    frame = table.load(tmp_path)
    assert list(frame) == list(row.COLUMNS) and dict(frame.dtypes.astype(str)) == table.COLUMNS
    points = table.load_points(tmp_path)
    nothing: dict[str, Any] = {k: "" if c.type is str else None for k, c in NEW.items() if c.since > n}
    assert points == [replace(rate_point(point=p, schema=n), **nothing) for p in ("p0", "p1")]


def test_a_folder_of_schema_2_takes_new_rows_and_keeps_the_old_ones(tmp_path: Path) -> None:
    write(tmp_path, rate_point())
    as_schema(2, tmp_path)
    with ResultsFolder(tmp_path) as folder:
        assert folder.done("p0")
        folder.append([rate_point(point="p1")], SAMPLES)
    old, new = table.load_points(tmp_path)
    assert (old.schema, old.threads, old.cpu) == (2, None, "")
    assert new == rate_point(point="p1")


RESULTS = Path(__file__).resolve().parents[2] / "results"


@pytest.mark.skipif(not RESULTS.exists(), reason="needs the source tree")
def test_folders_of_this_repository_are_read() -> None:
    files = sorted(RESULTS.rglob("rates.csv"))
    assert len(files) > 5
    for file in files:
        frame = table.load(file.parent)
        assert len(frame) and set(frame["schema"]) <= set(row.READ_SCHEMAS)


def test_every_column_says_what_it_holds() -> None:
    assert list(row.COLUMNS) == [f.name for f in fields(RatePoint)]
    for name, column in row.COLUMNS.items():
        assert column.text and column.text != name and column.since in row.READ_SCHEMAS
    required = {f.name for f in fields(RatePoint) if f.default is MISSING}
    assert not required & set(NEW)  # rows of schema 2 have none


# --------------------------------------------------------------------------------------- provenance
def test_provenance_keeps_every_run(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path) as folder:
        folder.add_provenance({"name": "first"})
        folder.add_provenance({"name": "second"})
    runs = load_provenance(tmp_path)
    assert [r["suite"]["name"] for r in runs] == ["first", "second"]
    assert runs[0]["versions"]["numpy"] == np.__version__
    assert runs[0]["command"] == [provenance.portable(a) for a in sys.argv] and runs[0]["utc"].endswith("Z")
    assert json.loads((tmp_path / "provenance.json").read_text())["schema"] == row.SCHEMA


def test_rows_name_the_run_that_wrote_them(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path) as folder:
        folder.append([rate_point()], SAMPLES)
        folder.add_provenance({})
        folder.append([rate_point(point="p1")], SAMPLES)
        folder.append([rate_point(point="p2", run="of another folder")], SAMPLES)
    with ResultsFolder(tmp_path) as folder:
        folder.add_provenance({})
        folder.append([rate_point(point="p3")], SAMPLES)
    first, second = (r["run"] for r in load_provenance(tmp_path))
    assert first != second
    assert table.load(tmp_path)["run"].tolist() == ["", first, "of another folder", second]


def test_provenance_names_packages_as_pip_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, origin in (
        ("from-git", {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "1f2e"}}),
        ("from-folder", {"url": "file:///home/me/x", "dir_info": {"editable": True}}),
    ):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = provenance.packages.__wrapped__()  # without its cache
    assert f"numpy=={np.__version__}" in found and found == sorted(found, key=str.lower)
    assert "from-git @ git+https://host/x.git@1f2e" in found and "from-folder==1.0" in found


def test_provenance_keeps_variables_that_change_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"OMP_NUM_THREADS": "3", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NVIDIA_TF32_OVERRIDE": "0"}
    for name, value in {**kept, "SOME_TOKEN": "secret", "FCBENCH_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    found = provenance.record({})
    assert found["environment"].items() >= {**kept, "FCBENCH_CACHE": "cache"}.items()
    assert "secret" not in json.dumps(found) and found["machine"]["cpu"]


def test_damaged_provenance_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("{")
    with ResultsFolder(tmp_path) as folder:
        with pytest.raises(FcbenchError, match="provenance.json"):
            folder.add_provenance({})
