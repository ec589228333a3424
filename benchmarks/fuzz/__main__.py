"""Hostile bytes by the thousand: every one is refused in one line, or changes nothing.

    python -m benchmarks.fuzz --minutes 60 --seed 1 --out results/trust

Over every codec with its checkpoint, every image and label coder, results folders and caches. Files are damaged at
random; where checksums stand before what decodes, they are also made right again: then any finite features of the
claimed shape are right as well, since the payload *is* another valid stream. Cases run many to a process, within 2 GiB
of memory and 10 s of the processor each. A library that is not ours may end its process behind corrected checksums
(``contained``): ``fcbench decode`` gives it one of its own for that. Everything else is a failure, made smaller and
kept in ``tests/hostile/cases``, whose files the tests run again. Case N of a seed is the same in every run.
"""

from __future__ import annotations

import argparse
import csv
import gc
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import torch

from benchmarks._scratch import scratch
from benchmarks.fuzz import children, pictures
from benchmarks.fuzz.cases import FAILURES, Case, Outcome, Subject, kept, read
from benchmarks.fuzz.folders import CacheSubject, ResultsSubject
from benchmarks.fuzz.streams import StreamSubject
from fcbench.core import registry

CASES = Path(__file__).resolve().parents[2] / "tests" / "hostile" / "cases"
Table = Counter[tuple[str, str, Outcome]]  # Number of cases by subject, kind and outcome
BATCH = 3000
_SMALLER = 60  # Attempts to make a failing case smaller


def main(arguments: Sequence[str] | None = None) -> int:
    """Run cases; the exit status is 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="stop after so long [1]")
    parser.add_argument("--cases", type=int, default=1 << 62, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subject", action="append", help="only subjects whose names begin so (repeatable)")
    parser.add_argument("--out", type=Path, help="folder for fuzz.csv; counts are added to those there")
    parser.add_argument("--keep", type=Path, default=CASES, help="folder for failing cases")
    parser.add_argument("--replay", type=Path, help="run the cases of a folder, and no others")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable()
    with scratch("fuzz") as folder:
        begins = tuple(options.subject or [""])
        subjects = [s for s in _subjects(Path(folder)) if s.name.startswith(begins)]
        gc.freeze()  # a fork then copies less
        if options.replay:
            return _replayed(subjects, sorted(options.replay.glob("*.json")))
        return _fuzzed(subjects, options)


def _subjects(folder: Path) -> list[Subject]:
    streams = [StreamSubject(name, folder) for name in registry.names("codec")]
    return [*streams, *pictures.subjects(), ResultsSubject(folder), CacheSubject(folder)]


def _case(subjects: Sequence[Subject], seed: int, number: int) -> tuple[Subject, Case]:
    rng = Random(f"{seed}:{number}")
    (subject,) = rng.choices(subjects, [s.weight for s in subjects])
    return subject, subject.draw(rng)


def _judged(subject: Subject, case: Case, result: children.Result) -> Outcome:
    """Outcome of a case. Where a library may have damaged the process, a failure counts that comes again in a fresh
    one."""
    outcome = result.outcome
    if outcome not in FAILURES or not subject.contains(case):
        return outcome
    if outcome in (Outcome.TRACEBACK, Outcome.WRONG):
        (again,) = children.results(lambda _: subject.run(case), [0])
        outcome = again.outcome
    return Outcome.CONTAINED if outcome in (Outcome.CRASH, Outcome.HANG, Outcome.MEMORY) else outcome


def _fuzzed(subjects: Sequence[Subject], options: argparse.Namespace) -> int:
    began, number, table = time.monotonic(), 0, Table()
    before = _read(options.out / "fuzz.csv") if options.out else Table()
    while number < options.cases and time.monotonic() - began < 60 * options.minutes:
        numbers = range(number, min(number + BATCH, options.cases))
        cases = {n: _case(subjects, options.seed, n) for n in numbers}
        for contained in (False, True):  # a library that damaged the heap fails later: apart from what may not fail
            lane = [n for n, (subject, case) in cases.items() if subject.contains(case) == contained]
            for result in children.results(lambda n: cases[n][0].run(cases[n][1]), lane):
                subject, case = cases[result.number]
                outcome = _judged(subject, case, result)
                table[subject.name, case.kind, outcome] += 1
                if outcome in FAILURES:
                    _keep(subject, case, result, options)
        number = numbers.stop
        if options.out:
            _write(before + table, options.out / "fuzz.csv")
    outcomes = Counter[Outcome]()
    for (_, _, outcome), n in table.items():
        outcomes[outcome] += n
    seconds = time.monotonic() - began
    told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items(), key=lambda x: -x[1]))
    print(f"{number} cases, seed {options.seed}, {seconds:.0f} s: {told}")
    return int(any(outcomes[o] for o in FAILURES))


def _read(path: Path) -> Table:
    """The counts of a table; none where there is no file."""
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    return Table({(r["subject"], r["kind"], outcome): int(r[outcome]) for r in rows for outcome in Outcome})


def _write(table: Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = sorted({key[:2] for key in table})
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["subject", "kind", "cases", *Outcome])
        for name, kind in rows:
            counts = [table[name, kind, outcome] for outcome in Outcome]
            writer.writerow([name, kind, sum(counts), *counts])


def _keep(subject: Subject, case: Case, result: children.Result, options: argparse.Namespace) -> None:
    """Tell of a failing case, and keep a smaller one that fails the same way."""
    small = _smaller(subject, case, result.outcome)
    options.keep.mkdir(parents=True, exist_ok=True)
    name = f"{subject.name.replace(':', '-')}-{case.kind}-{result.outcome}-{options.seed}-{result.number}.json"
    (options.keep / name).write_text(kept(small))
    print(f"FAILED {name}: {result.detail.strip().splitlines()[-1:]}", flush=True)
    print(result.detail, file=sys.stderr, flush=True)


def _smaller(subject: Subject, case: Case, outcome: Outcome) -> Case:
    """The case with its bytes cut and zeroed as long as it ends the same way."""
    fields = [k for k, v in case.data.items() if isinstance(v, bytes)]
    if not fields or outcome == Outcome.HANG:
        return case
    for edit in _edits(len(case.data[fields[0]])):
        changed = edit(case.data[fields[0]])
        if changed == case.data[fields[0]]:
            continue
        less = replace(case, data={**case.data, fields[0]: changed})
        (again,) = children.results(lambda _: subject.run(less), [0])
        if again.outcome == outcome:
            case = less
    return case


def _edits(n_bytes: int) -> Iterator[Callable[[bytes], bytes]]:
    n, size = 0, max(1, n_bytes // 2)
    while n < _SMALLER:
        yield partial(_cut, size)
        for at in range(0, n_bytes, size):
            yield partial(_zeroed, at, size)
            n += 1
        if size == 1:
            return
        size //= 2


def _cut(size: int, data: bytes) -> bytes:
    return data[:-size] if size < len(data) else data


def _zeroed(at: int, size: int, data: bytes) -> bytes:
    return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]


def _replayed(subjects: Sequence[Subject], files: Sequence[Path]) -> int:
    by_name, failed = {s.name: s for s in subjects}, 0
    cases = [read(file) for file in files]
    for result in children.results(lambda n: by_name[cases[n].subject].run(cases[n]), range(len(cases))):
        case = cases[result.number]
        outcome = _judged(by_name[case.subject], case, result)
        failed += outcome in FAILURES
        print(f"{files[result.number].name}: {outcome} {result.detail.strip().splitlines()[-1:]}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
