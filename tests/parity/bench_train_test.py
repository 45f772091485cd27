"""bench_train.py when a side fails: the others' figures stay. Neither torch nor the bench is needed."""

import argparse
import contextlib
import io
import os
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bench_train  # noqa: E402

ARGS = argparse.Namespace(peft_bf16="both", rounds=2)
TURN = {"step_seconds": [2.0, 2.0], "process_peak_bytes": 1, "device_peak_bytes": 1, "first_loss": 10.0}


def case_of(**sides):
    """A finished case: of each side the seconds of a step, or the error that its turns raise."""
    case = bench_train.Case(ARGS, "bf16", 512, "base", "rows")
    taken = []
    for side in case.sides:
        given = sides[side.replace(" ", "_")]

        def take(last, side=side, given=given):
            taken.append(side)
            if isinstance(given, Exception):
                raise given
            return TURN | {"step_seconds": [given], "profile": {"efficiency": 0.5, "device": {"name": "d"}}}

        case.sides[side] = take
    case.run()
    return case.result() | {"on_gpu": False}, taken


class AFailedSide(unittest.TestCase):
    def test_of_peft_is_told_and_the_others_are_compared(self):
        error = bench_train.Failed("peft\nfailed:\nCUDA out of memory")
        case, taken = case_of(tundra=1.0, peft_weights=1.5, peft_autocast=error)
        self.assertEqual(taken.count("peft autocast"), 1, "it is not tried again")
        self.assertEqual(taken.count("peft weights"), 2)
        self.assertEqual(case["sides"]["peft weights"]["tundra_is_faster_by"], 1.5)
        self.assertIn("out of memory", case["sides"]["peft autocast"]["failed"])
        self.assertEqual(bench_train.failures(case), [])
        self.assertIsNone(bench_train.loss_fault(case))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            bench_train.print_table([case])
        self.assertIn("failed: CUDA out of memory", out.getvalue())
        self.assertIn("1.50", out.getvalue())

    def test_of_tundra_is_a_failure_and_the_peers_figures_stay(self):
        case, _ = case_of(tundra=bench_train.Failed("no device"), peft_weights=1.5, peft_autocast=1.7)
        self.assertEqual(case["sides"]["peft weights"]["step_seconds_median"], 1.5)
        self.assertIn("no device", bench_train.failures(case)[0])
        with contextlib.redirect_stdout(io.StringIO()) as out:
            bench_train.print_table([case])
        self.assertIn("failed: no device", out.getvalue())

    def test_of_all_peers_is_a_failure(self):
        error = bench_train.Failed("out of memory")
        case, _ = case_of(tundra=1.0, peft_weights=error, peft_autocast=error)
        self.assertEqual(len(bench_train.failures(case)), 2)
        self.assertEqual(case["sides"]["tundra"]["step_seconds_median"], 1.0)

    def test_none_compares_losses(self):
        case, _ = case_of(tundra=1.0, peft_weights=1.5, peft_autocast=1.5)
        self.assertEqual(bench_train.failures(case), [])
        case["sides"]["peft weights"]["first_loss"] = 11.0
        self.assertIn("peft weights", bench_train.loss_fault(case))


class Output(unittest.TestCase):
    def test_a_programs_failure_says_what_it_said(self):
        with self.assertRaisesRegex(bench_train.Failed, "(?s)failed:.*out of memory"):
            bench_train.output_of([sys.executable, "-c", "import sys; sys.exit('out of memory')"])
        with self.assertRaisesRegex(bench_train.Failed, "ended by signal 9"):
            bench_train.output_of([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
        with self.assertRaises(bench_train.Failed):
            bench_train.output_of(["/no/such/program"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
