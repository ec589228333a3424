"""What a run will cost: counted as the run does it, timed without a trace, estimated by plain sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from fcbench.cli.main import main
from fcbench.cli.plan_table import table
from fcbench.cli.say import size
from fcbench.core import registry
from fcbench.core.cache import Cache
from fcbench.core.errors import FcbenchError
from fcbench.core.progress import Eta, duration
from fcbench.features import extract
from fcbench.features.feature_set import FeatureSet, SampleInfo
from fcbench.features.source import Readable, Source, Split, split_points_of
from fcbench.measure import expected as expected_works
from fcbench.measure import forecast, graph, plan, rows, run
from fcbench.measure.forecast import Rates
from fcbench.measure.plan import Counts, Family
from fcbench.measure.points import jobs, starts_of
from fcbench.measure.study import Study, open_data, open_study
from fcbench.measure.suite import Suite
from fcbench.results import table as table_module
from fcbench.testing.fake_data import FakeDataset
from fcbench.training import loop
from fcbench.training.options import Budget

CPU = torch.device("cpu")
LMBDAS = ({"lmbda": 0.5}, {"lmbda": 5.0})
SUITE = Suite(
    name="plan",
    codecs=("uniform", "factorized", "gained_hyperprior", "image:jpeg", "label"),
    tasks=("depth",),
    weights="random",
    n_train=20,
    n_test=6,
    image_size_px=(64, 64),
    params={
        "uniform": ({"bits": 6},),
        "factorized": LMBDAS,
        "gained_hyperprior": LMBDAS,
        "image:jpeg": ({"quality": 30},),
    },
    budget=Budget(task_steps=2, task_batch=4, codec_steps=2, codec_batch=4, width=32),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the scenes alone."""
    path = tmp_path_factory.mktemp("cache")
    open_data(SUITE, path)
    return path


def study(suite: Suite, cache: Path) -> Study:
    return open_study(suite, cache, CPU)


def models(cache: Path) -> set[str]:
    return {p.name for p in (cache / "models").glob("*")}


def test_images_tell_nothing_of_codecs(cache: Path) -> None:
    """Image coders 100 times slower than expected leave the forecast of codecs alone, and raise that of images."""
    found = study(SUITE, cache)
    expected = expected_works.works(graph.build(found, lambda _: False), found)
    eta, before = Eta(expected), Eta(expected).left_s(0)
    images = {key: work for key, work in expected.items() if work.pools[0] == "point image:jpeg"}
    assert len(images) == 2
    slow, *rest = images
    eta.finish(slow, took := 100 * images[slow].expected_s)
    alone = before + sum(99 * images[key].expected_s for key in rest) - images[slow].expected_s
    assert eta.left_s(took) == pytest.approx(alone)


def test_a_slow_tail_tells_nothing_of_trainings(cache: Path) -> None:
    """Uncoded points that take 100 times as long as expected leave the forecast of trainings alone before a tail."""
    found = study(SUITE, cache)
    built = graph.build(found, lambda _: False)

    def left_s(head: Any) -> float:
        """What remains for trainings after a slow uncoded point."""
        expected = expected_works.works(built, found.of(replace(SUITE, head=head)))
        ceiling = next(key for key, work in expected.items() if work.pools[0] == "ceiling")
        eta = Eta({key: work for key, work in expected.items() if "codecs" in work.pools or key == ceiling})
        eta.finish(ceiling, took := 100 * expected[ceiling].expected_s)
        return eta.left_s(took) / sum(work.expected_s for work in expected.values() if "codecs" in work.pools)

    assert left_s("tail") == pytest.approx(1) and left_s("trained") == pytest.approx(100)


# --------------------------------------------------------------------------------------------- counts
def test_counts_are_what_the_run_does(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points, trainings, features: foreseen, then done, then found done."""
    out, trained = tmp_path / "out", Counter[str]()
    optimize = loop.optimize

    def counted(module: Any, *args: Any, **named: Any) -> Any:
        trained["readouts" if hasattr(module, "neck") else "codecs"] += 1
        return optimize(module, *args, **named)

    before = plan.count(study(SUITE, cache), out)
    assert not out.exists() and models(cache) == set()
    assert not (cache / "features").exists()
    each = {"uncoded and mean": 2, "uniform": 1, "factorized": 2, "gained_hyperprior": 2, "image:jpeg": 1, "label": 1}
    n_encoders = 2
    assert {n: f.n_points for n, f in before.families.items()} == {n: k * n_encoders for n, k in each.items()}
    n_trained = {n: f.trained.total() for n, f in before.families.items()}
    assert n_trained["factorized"] == 4 and n_trained["gained_hyperprior"] == 2
    assert before.readouts == {"depth": 2}
    assert before.nulls == {"depth": 1}  # encoders share it
    assert before.images == {"hiera_nano": 26, "sam2_nano": 26}

    monkeypatch.setattr(loop, "optimize", counted)
    done = run.measure(study(SUITE, cache), out)
    assert done.failures == () and done.n_measured == before.n_points
    assert trained == {"readouts": before.n_readouts, "codecs": before.n_codecs}
    arrays = [p for p in (cache / "features").rglob("*.npy")]
    on_disk = sum(p.stat().st_size for p in arrays)
    assert 0 <= on_disk - before.feature_bytes <= 1024 * len(arrays)  # their heads

    after = plan.count(study(SUITE, cache), out)
    assert after.n_found == after.n_points == before.n_points
    assert after.n_readouts == after.n_codecs == after.feature_bytes == 0
    assert after.left(SUITE) is None

    elsewhere = plan.count(study(SUITE, cache), tmp_path / "other")
    assert elsewhere.n_found == 0 and elsewhere.feature_bytes == 0
    assert elsewhere.n_readouts == elsewhere.n_codecs == 0
    assert sum(f.made.total() for f in elsewhere.families.values()) == 0
    longer = replace(SUITE, budget=replace(SUITE.budget, codec_steps=3))
    anew = plan.count(study(longer, cache), tmp_path / "other")
    assert (anew.n_readouts, anew.n_codecs) == (0, before.n_codecs)

    failed = [replace(p, status="broke") if p.codec == "uniform" else p for p in table_module.load_points(out)]
    monkeypatch.setattr(table_module, "load_points", lambda _: failed)
    again = plan.count(study(SUITE, cache), out)
    assert again.n_points - again.n_found == 2
    assert again.left(SUITE) == replace(SUITE, codecs=("uniform",))


def test_what_is_left_names_codecs_and_tasks() -> None:
    suite = Suite(codecs=("raw", "pq"), tasks=("pose", "depth"))
    families = {n: Family(n, read=Counter(depth=n == "pq")) for n in suite.codecs}
    for family in families.values():
        family.read += Counter()  # zeros go
    left = Counts(10, families).left(suite)
    assert left == replace(suite, codecs=("pq",), tasks=("depth",))
    families["pq"].read.clear()
    families[plan.ENDS_NAME] = Family(plan.ENDS_NAME, read=Counter(pose=1))
    assert Counts(10, families).left(suite) == replace(suite, tasks=("pose",))


@pytest.mark.parametrize("name", ["hiera_nano", "timm:tf_efficientnet_lite0"])
@pytest.mark.parametrize("size_px", [(64, 64), (72, 104)])
def test_foreseen_features_are_the_extracted_ones(
    name: str, size_px: tuple[int, int], tmp_path: Path, cache: Path
) -> None:
    encoder = registry.build_encoder(name, "random", CPU)
    data = open_data(replace(SUITE, n_train=2, image_size_px=size_px), cache)["train"]
    names = split_points_of(encoder, None)
    kept = Cache(tmp_path)
    found, expected = graph.expected_set(data, encoder, names, kept)
    assert not found and not any(tmp_path.iterdir())
    made = extract.extract(data, encoder, names, kept)
    for what in ("key", "grids", "specs", "image_px", "n_scalars"):
        assert getattr(made, what) == getattr(expected, what), what
    assert graph.expected_set(data, encoder, names, kept)[0]


def test_bad_input_is_refused_as_by_the_run(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FcbenchError, match="split point"):
        plan.count(study(replace(SUITE, split_point="stage9"), cache), tmp_path)


# ---------------------------------------------------------------------------------------------- probe
def test_probe_times_all_and_leaves_no_trace(cache: Path, tmp_path: Path) -> None:
    wrong = {**SUITE.params, "uniform": ({"bits": 99},)}
    suite = replace(SUITE, params=wrong, encoders=("hiera_nano",))
    kept, sets = models(cache), set(cache.glob("features/*"))
    rates = forecast.probe(study(suite, cache))
    assert models(cache) == kept and set(cache.glob("features/*")) == sets
    assert list(rates.failed) == ["uniform"] and "99" in rates.failed["uniform"]
    tasks = {"depth"}
    learned = {("factorized", None), ("gained_hyperprior", None)}
    coded = learned | {("image:jpeg", None), *(("label", t) for t in tasks)}
    for timed, keys in (
        (rates.image_s, {"hiera_nano"}),
        (rates.readout_s, tasks),
        (rates.readout_bytes, tasks),
        (rates.read_s, tasks),
        (rates.row_s, tasks),
        (rates.row_bytes, tasks),
        (rates.train_s, learned),
        (rates.make_s, learned),
        (rates.make_bytes, learned),
        (rates.code_s, coded),
    ):
        assert set(timed) == keys and all(v > 0 for v in timed.values())
    assert rates.train_bytes["factorized", None] == 0
    assert rates.train_bytes["gained_hyperprior", None] > 0  # what its sweep shares
    assert rates.n_test == 6 and rates.encoder == "hiera_nano"
    counts = plan.count(study(suite, cache), tmp_path)
    text = table(counts, rates)
    assert next(r for r in text.splitlines() if "uniform" in r).endswith("unknown")
    assert "uniform could not be timed" in text


def test_timed_is_the_point_that_starts_from_scratch() -> None:
    """In whatever order a sweep is given: `plan` takes the other points for shorter."""
    suite = Suite(codecs=("hyperprior",), params={"hyperprior": tuple({"lmbda": v} for v in (20, 6, 2, 0.8))})
    (job,) = forecast._one_each(jobs(suite))
    assert starts_of(suite, job.point) == ()


# ------------------------------------------------------------------------------------------- estimate
def test_estimate_is_a_plain_sum() -> None:
    which = "hyperprior", None
    family = Family("hyperprior", n_points=8, n_found=2)
    family.coded[which], family.made[which], family.trained[which] = 3, 2, 1
    family.read.update({"depth": 6})
    counts = Counts(10, {"hyperprior": family}, feature_bytes=1000)
    counts.readouts["depth"], counts.nulls["depth"] = 2, 1
    counts.images.update({"a": 100, "b": 100})
    rates = Rates(
        "a",
        10,
        image_s={"a": 0.5},
        readout_s={"depth": 20.0},
        readout_bytes={"depth": 100},
        train_s={which: 60.0},
        train_bytes={which: 7},
        make_s={which: 2.0},
        make_bytes={which: 30},
        code_s={which: 0.1},
        read_s={"depth": 0.01},
        row_s={"depth": 1.0},
        row_bytes={"depth": 50},
    )
    found = plan.estimate(counts, rates)
    assert found.features_s == pytest.approx(100.0)  # b is taken for as fast as a
    assert found.readouts_s == pytest.approx(40.0)
    assert found.nulls_s == pytest.approx(20.0 + 10 * 0.01)
    coded_s, read_s = 3 * 10 * 0.1, 6 * (10 * 0.01 + 1.0)
    assert found.families_s["hyperprior"] == pytest.approx(60 + 2 * 2 + coded_s + read_s)
    assert found.total_s == pytest.approx(100 + 40 + 20.1 + 64 + coded_s + read_s)
    assert found.model_bytes == 3 * 100 + 7 + 2 * 30
    assert (found.feature_bytes, found.result_bytes) == (1000, 300)
    rows = {r[:12].strip(): r.split() for r in table(counts, rates).splitlines()}
    assert rows["hyperprior"][1:] == ["8", "2", "1", "74", "s"]
    assert rows["total"][1:] == ["8", "2", "4", "4", "min"]
    assert "busy" not in table(counts, rates)
    assert "busy (load 3.0 per core)" in table(counts, replace(rates, load=3.0))


def test_sizes_and_durations_are_rounded() -> None:
    assert [duration(s) for s in (0.2, 99.0, 120.0, 5400.0)] == ["0 s", "99 s", "2 min", "1.5 h"]
    assert [size(n) for n in (40_000, 52_300_000, 1_500_000_000)] == ["0.0 MB", "52 MB", "1.5 GB"]


# ------------------------------------------------------------------------------------------------ verb
def test_plan_option_measures_nothing(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (
        f"run --plan --n-train 20 --n-test 6 --image-size 64 --task depth --codec factorized --encoder hiera_nano "
        f"--weights random --batch 4 --device cpu --keep-streams --out {out} --cache-dir {cache}"
    )
    kept = models(cache)
    result = CliRunner().invoke(main, options.split())
    assert result.exit_code == 0, result.output
    assert not out.exists() and models(cache) == kept
    lines = {line.split("  ")[0]: line.split() for line in result.output.splitlines()}
    n = len(registry.get("codec", "factorized").sweep("mse"))
    assert lines["factorized"][1:4] == [str(n), "0", str(n)]
    assert lines["total"][1:4] == [str(n + 2), "0", str(n + 2)]  # a readout, its null
    assert "disk: about" in result.output and "--keep-streams" in result.output


def test_float16_features_are_half_the_size_and_other_points(cache: Path, tmp_path: Path) -> None:
    of_float16 = replace(SUITE, features_dtype="float16", codecs=("uniform",), encoders=("hiera_nano",))
    of_float32 = replace(of_float16, features_dtype="float32")
    before = [plan.count(study(s, tmp_path / "none"), tmp_path / "out") for s in (of_float32, of_float16)]
    assert before[0].feature_bytes == 2 * before[1].feature_bytes
    keys = [set(graph.build(study(s, cache), lambda key: False).nodes) for s in (of_float32, of_float16)]
    assert not keys[0] & keys[1]
    assert run.measure(study(of_float16, cache), tmp_path / "out").failures == ()
    assert {r.features_dtype for r in table_module.load_points(tmp_path / "out")} == {"float16"}


def test_a_point_is_another_one_after_its_task_model_was_trained_again(cache: Path, tmp_path: Path) -> None:
    def key(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        suite = replace(SUITE, head="frozen", task_weights={"depth": str(tmp_path / name)})
        found = study(suite, cache)
        return rows.key_of(found, found.encoder("hiera_nano"), 0, jobs(suite)[0], "depth")

    assert key("a", b"one") == key("b", b"one") != key("a", b"two")


def test_a_node_asks_for_the_memory_of_its_features(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = graph.build(study(SUITE, cache), lambda key: False)
    train, test = (found.sources["sam2_nano"].train.features, found.sources["sam2_nano"].test.features)
    for limit in (1 << 30, test.n_bytes):  # what is larger stays on the disk
        monkeypatch.setattr(graph, "RAM_LIMIT_BYTES", limit)
        found = graph.build(study(SUITE, cache), lambda key: False)
        of_train, of_test = min(train.n_bytes, limit), test.n_bytes
        for node in (n for n in found.nodes.values() if n.encoder == "sam2_nano"):
            sets = {"train": of_train, "test": of_test}.get(node.split, of_train + of_test)
            assert node.memory_bytes == graph.PROCESS_BYTES + sets


@pytest.mark.parametrize(("size_px", "expected"), [((64, 64), ""), ((48, 64), "stretched")])
def test_rows_name_how_images_were_brought_to_one_size(size_px: tuple[int, int], expected: str) -> None:
    features = FeatureSet("key", (SampleInfo("a", 0, size_px),), (), (64, 64), {}, {}, {})
    split = Split(Readable(FakeDataset(1), [0]), features)

    encoder: Any = SimpleNamespace(resizing="")
    assert rows._resizing(Source(encoder, (), "", split, split, {})) == expected
    encoder.resizing = "network: 320x320"
    both = f"{expected}; network: 320x320" if expected else "network: 320x320"
    assert rows._resizing(Source(encoder, (), "", split, split, {})) == both
