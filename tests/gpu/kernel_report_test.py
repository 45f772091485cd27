"""kernel_report reads what ptxas tells and finds every fault it is there for."""

import importlib.machinery
import importlib.util
import os
import unittest

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernel_report")
loader = importlib.machinery.SourceFileLoader("kernel_report", PATH)
report = importlib.util.module_from_spec(importlib.util.spec_from_loader("kernel_report", loader))
loader.exec_module(report)

TOLD = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstv' for 'sm_80'
ptxas info    : Function properties for _Z5firstv
    16 bytes stack frame, 24 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes cumulative stack size, 512 bytes smem, 520 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6secondv' for 'sm_90a'
ptxas info    : Function properties for _Z6secondv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 520 bytes cmem[0]
"""


def kernel(name="Product<1>", arch="80", **figures):
    return report.Kernel(symbol="_Z", arch=arch, name=name, **{"tensor": 1, **figures})


class KernelReport(unittest.TestCase):
    def faults(self, *kernels, excused=None):
        return report.faults_of(list(kernels), ["Product"], excused or {})

    def test_reads_every_figure(self):
        first, second = report.parse_ptxas(TOLD)
        self.assertEqual((first.symbol, first.arch), ("_Z5firstv", "80"))
        self.assertEqual(first.figures(), (255, 24, 28, 16, 512, 0))
        self.assertEqual((second.symbol, second.arch), ("_Z6secondv", "90a"))
        self.assertEqual(second.figures(), (40, 0, 0, 0, 0, 0))

    def test_nothing_is_wrong_with_good_kernels(self):
        self.assertEqual(self.faults(kernel(), kernel("Other", tensor=0)), [])

    def test_a_spill_is_a_fault(self):
        for spill in ({"spill_stores": 4}, {"spill_loads": 4}, {"stack": 8}):
            self.assertEqual(len(self.faults(kernel(**spill))), 1, spill)

    def test_an_excuse_holds_for_its_kernel_and_architectures_alone(self):
        spills = [kernel(arch=arch, stack=8) for arch in ("80", "90a")]
        self.assertEqual(self.faults(*spills, excused={"Product<1>": (["80", "90a"], "")}), [])
        self.assertEqual(len(self.faults(*spills, excused={"Product<1>": (["80"], "")})), 1)
        self.assertEqual(len(self.faults(kernel(stack=8), excused={"Product<2>": (["80"], "")})), 2)

    def test_an_excuse_that_nothing_needs_is_a_fault(self):
        self.assertEqual(len(self.faults(kernel(), excused={"Product<1>": (["80"], "")})), 1)

    def test_a_product_without_tensor_cores_is_a_fault(self):
        self.assertEqual(len(self.faults(kernel(tensor=0))), 1)

    def test_tensor_cores_in_a_kernel_that_is_not_listed_are_a_fault(self):
        self.assertEqual(len(self.faults(kernel(), kernel("Other"))), 1)

    def test_a_listed_name_without_a_kernel_is_a_fault(self):
        self.assertEqual(len(self.faults(kernel("Other", tensor=0))), 1)

    def test_an_architecture_that_is_missing_is_a_fault(self):
        self.assertEqual(len(self.faults(kernel(), kernel("Other", tensor=0), kernel(arch="90a"))), 1)

    def test_instructions_of_tensor_cores_are_known(self):
        for line in ("HMMA.16816.F32.BF16 R4, R8, R12, R4 ;", "HGMMA.64x64x16.F32.BF16 R24 ;",
                     "UTCHMMA gdesc[UR4] ;", "IMMA.16832.S8.S8 R4 ;"):
            self.assertTrue(report.TENSOR_SASS.search(line), line)
        self.assertFalse(report.TENSOR_SASS.search("FFMA R4, R8, R12, R4 ;"))


if __name__ == "__main__":
    unittest.main()
