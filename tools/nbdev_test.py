"""nbdev_test with a count of the assertions that ran: `python tools/nbdev_test.py` takes all its options.

Every assertion of a cell (`assert`, `test_eq(…)`, `assert_close(…)`, `with expect_fail(…)`, …) is counted once it has
been passed: one for each place in a notebook, however often a loop comes by, and none for a branch never reached.
"""

import ast
import inspect
import json
import os
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

import nbdev.test
from execnb.shell import CaptureShell
from fastcore.script import anno_parser

TICK = "__assertion_passed__"
REPORTS = "PIANOAMT_TEST_REPORTS"
RAISERS = {"expect_fail", "ExceptionExpected", "raises", "assertRaises"}


def name_of(node: ast.expr) -> str:
    """The last part of the name that a call uses, '' when it has none."""
    func = node.func if isinstance(node, ast.Call) else node
    return getattr(func, "attr", getattr(func, "id", ""))


def checks(node: ast.expr) -> bool:
    """Whether an expression is a call of a function that asserts something."""
    return isinstance(node, ast.Call) and name_of(node).startswith(("test_", "assert_"))


class Ticker(ast.NodeTransformer):
    """Adds a tick after every assertion of a cell."""

    def __init__(self):
        self.sites = 0

    def ticked(self, node: ast.stmt) -> list[ast.stmt]:
        """The statement and, behind it, the tick that only a passed assertion reaches."""
        self.generic_visit(node)
        self.sites += 1
        tick = ast.Expr(ast.Call(ast.Name(TICK, ast.Load()), [ast.Constant(self.sites)], []))
        return [node, ast.fix_missing_locations(ast.copy_location(tick, node))]

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        """A plain assertion."""
        return self.ticked(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.stmt]:
        """A call of a test function."""
        return self.ticked(node) if checks(node.value) else self.generic_visit(node)

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.stmt]:
        """A block that must fail."""
        expected = any(name_of(item.context_expr) in RAISERS for item in node.items)
        return self.ticked(node) if expected else self.generic_visit(node)


class CountingShell(CaptureShell):
    """The shell that nbdev runs notebooks in, counting assertions on the way."""

    def __init__(self, path, *args, **kwargs):
        super().__init__(path, *args, **kwargs)
        self.passed: set[int] = set()
        self.user_ns[TICK] = self.passed.add
        self.ast_transformers.append(Ticker())


def test_alone(fn: Path, report: Path, **kwargs) -> None:
    """nbdev's own test of one notebook, with a report of it."""
    shells: list[CountingShell] = []

    def shell(*args, **kw) -> CountingShell:
        shells.append(CountingShell(*args, **kw))
        return shells[-1]

    nbdev.test.CaptureShell = shell
    ok, seconds = TEST_NB(fn, **kwargs)
    assertions = len(shells[-1].passed) if shells else 0
    values = {"name": fn.name, "ok": ok, "seconds": seconds, "assertions": assertions}
    report.write_text(json.dumps(values), encoding="utf-8")


def counted_test_nb(fn: Path, **kwargs) -> tuple[bool, float]:
    """A test in a process of its own: what a notebook changes or keeps reaches no other one."""
    report = Path(os.environ[REPORTS]) / f"{fn.name}.json"
    context = get_context("fork" if os.name == "posix" else "spawn")
    process = context.Process(target=test_alone, args=(fn, report), kwargs=kwargs)
    process.start()
    process.join()
    if not report.exists():
        print(f"{fn.name}: its process ended with exit code {process.exitcode}", flush=True)
        values = {"name": fn.name, "ok": False, "seconds": 0.0, "assertions": 0}
        report.write_text(json.dumps(values), encoding="utf-8")
    found = json.loads(report.read_text(encoding="utf-8"))
    return found["ok"], found["seconds"]


TEST_NB = nbdev.test.test_nb


def options() -> dict[str, object]:
    """The options of nbdev_test on the command line."""
    function = inspect.unwrap(nbdev.test.nbdev_test)
    given = vars(anno_parser(function).parse_args())
    return {name: value for name, value in given.items() if name not in ("pdb", "xtra")}


def main() -> int:
    """Run nbdev_test with this process's arguments, then say what ran."""
    import nbdev_test as importable  # a notebook's shell takes the place of __main__, where workers would look for it

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # notebooks that run side by side share the cores
    with tempfile.TemporaryDirectory() as folder:
        os.environ[REPORTS] = folder
        nbdev.test.test_nb = importable.counted_test_nb
        try:
            nbdev.test.nbdev_test(**options())
        except SystemExit as stop:
            if stop.code and not any(Path(folder).iterdir()):
                raise
        files = sorted(Path(folder).iterdir())
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    for report in reports:
        result = "ok" if report["ok"] else "FAILED"
        counts = f"{report['assertions']:4} assertions {report['seconds']:6.1f} s"
        print(f"{report['name']:28} {result:6} {counts}")
    failed = sum(not report["ok"] for report in reports)
    assertions = sum(report["assertions"] for report in reports)
    passed = f"{len(reports) - failed} notebooks passed, {failed} failed"
    print(f"nbdev_test: {passed}, {assertions} assertions ran")
    return 1 if failed or not reports else 0


if __name__ == "__main__":
    sys.exit(main())
