"""tests/gpu/run: what it makes of skips and targets, and what it asks the machine for. No GPU is needed."""

import importlib.machinery
import importlib.util
import os
import sys
import unittest
from unittest import mock

sys.dont_write_bytecode = True
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run")
loader = importlib.machinery.SourceFileLoader("gpu_run", PATH)
gpu_run = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_run", loader))
loader.exec_module(gpu_run)

SMALL, LARGE = [{"name": "small", "memory_bytes": 24 << 30}], [{"name": "large", "memory_bytes": 139 << 30}]


def skips(error):
    def part(_):
        """A part that is skipped."""
        raise error

    return part


class Outcomes(unittest.TestCase):
    def test_a_skip_is_a_failure_of_the_parts_that_must_run(self):
        for name in ("ops", "sanitizer"):
            outcome = gpu_run.outcome_of(name, skips(gpu_run.Skip("no backend")), LARGE)
            self.assertEqual(outcome["result"], "FAILED")
            self.assertIn("no backend", outcome["why"])
        self.assertEqual(gpu_run.outcome_of("peft", skips(gpu_run.Skip("no torch")), LARGE)["result"], "skipped")

    def test_the_sanitizer_is_skipped_only_where_it_is_not_installed(self):
        with mock.patch.object(gpu_run.shutil, "which", return_value=None), \
                mock.patch.object(gpu_run.os.path, "exists", return_value=False):
            outcome = gpu_run.outcome_of("sanitizer", gpu_run.part_sanitizer, LARGE)
        self.assertEqual((outcome["result"], outcome["why"]), ("skipped", "compute-sanitizer is not installed"))

    def test_a_program_that_skips_itself_fails_ops(self):
        script = [sys.executable, "-c", "import sys; print('skipped: there is no CUDA backend'); sys.exit(77)"]
        outcome = gpu_run.outcome_of("ops", lambda _: gpu_run.run(*script), LARGE)
        self.assertEqual(outcome["result"], "FAILED")
        self.assertIn("there is no CUDA backend", outcome["why"])

    def test_a_program_without_tests_fails_ops(self):
        with mock.patch.object(gpu_run, "test_program", return_value="x"), \
                mock.patch.object(gpu_run, "run", return_value="[  PASSED  ] 0 tests.\n"):
            self.assertEqual(gpu_run.outcome_of("ops", gpu_run.part_ops, LARGE)["result"], "FAILED")

    def test_programs_find_the_backend(self):
        out = gpu_run.run(sys.executable, "-c", "import os; print(os.environ['TUNDRA_CUDA_LIBRARY'])")
        self.assertTrue(os.path.isabs(out.strip()), out)


class Targets(unittest.TestCase):
    def test_a_figure_meets_or_misses_its_target(self):
        for seen, limits, result in ((0.8, {"least": 0.8}, "met"), (0.79, {"least": 0.8}, "missed"),
                                     (0.02, {"most": 0.02}, "met"), (0.021, {"most": 0.02}, "missed")):
            self.assertEqual(gpu_run.target("x", seen, **limits)["result"], result)

    def test_a_missed_target_fails_nothing(self):
        part = lambda _: {"targets": [gpu_run.target("x", 1, least=2)]}  # noqa: E731
        self.assertEqual(gpu_run.outcome_of("bench", part, LARGE)["result"], "ok")

    def test_the_bench_is_held_against_products_without_the_adapters(self):
        product = {"flops": 50, "calls_per_step": 2}
        report = {"model": {"name": "m"}, "step_seconds": {"median": 2}, "best_frozen_flops_per_second": 125,
                  "profiled_step_seconds": 4, "phase_seconds": {"exact_sums": 0.04, "all_reduce": 0, "optimizer": 0.08},
                  "products": [product | {"kind": kind} for kind in ("frozen_forward", "attention", "lora_up")]}
        rate, update = gpu_run.bench_targets(report)
        self.assertEqual((rate["seen"], rate["result"]), (0.8, "met"))
        self.assertEqual((update["seen"], update["result"]), (0.03, "missed"))

    def test_peft_is_its_fastest_side_that_ran(self):
        sides = {"tundra": {"tundra_is_faster_by": 1}, "peft weights": {"tundra_is_faster_by": 1.7},
                 "peft autocast": {"failed": "out of memory"}}
        report = {"shape": "s", "cases": [{"precision": "bf16", "tokens": 4096, "sides": sides}]}
        (aim,) = gpu_run.peft_targets(report)
        self.assertEqual((aim["seen"], aim["result"]), (1.7, "missed"))
        self.assertIn("peft weights", aim["what"])


class WhatFits(unittest.TestCase):
    def test_gpus_are_read(self):
        self.assertEqual(gpu_run.parse_gpus("NVIDIA A100, 81920\nNVIDIA GB10, [N/A]\n\n"),
                         [{"name": "NVIDIA A100", "memory_bytes": 80 << 30}, {"name": "NVIDIA GB10", "memory_bytes": 0}])

    def test_shape_and_sides_follow_the_cards_memory(self):
        self.assertEqual(gpu_run.shape_for(SMALL), "llama3.2-1b")
        self.assertEqual(gpu_run.shape_for(LARGE), "llama3-8b")
        h100 = [{"name": "h", "memory_bytes": 81559 << 20}]
        for found, shape, sides in ((SMALL, "llama3.2-1b", "both"), (h100, "llama3-8b", "weights"),
                                    (LARGE, "llama3-8b", "both")):
            command = gpu_run.peft_command(found, "python", "x.json")
            self.assertEqual(command[command.index("--shape") + 1], shape)
            self.assertEqual(command[command.index("--peft-bf16") + 1], sides)


if __name__ == "__main__":
    unittest.main(verbosity=2)
