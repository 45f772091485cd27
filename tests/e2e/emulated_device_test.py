"""A whole job on CUDA ranks without a GPU: the CUDA backend's kernels run on the CPU by emulation, in the same
library interface that a card's backend has. One rank, two replicas and two shards give the same bytes, with dropout
and without, when layers are launched as graphs."""

import os
import unittest

from service import Service, adapter_sha256, write_job

os.environ["TUNDRA_CUDA_LIBRARY"] = os.environ["TUNDRA_CUDA_EMULATED"]

# Emulated threads are slow: a short row each, few of them.
ROWS = "\n".join(
    '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "%s"}]}' % pair
    for pair in (("Hi", "Ahoy!"), ("Where?", "At sea."), ("Who?", "Me, matey."), ("When?", "At dawn.")))


class EmulatedDevice(unittest.TestCase):
    def train(self, devices, ranks, shards, flags=(), dropout=0.1, max_steps=2):
        """The adapter's hash, the losses, and how many layers all ranks launched as graphs."""
        with Service() as service:
            service.start_coordinator().start_worker(devices=devices, threads=1,
                                                     flags=("--log-level", "debug", *flags))
            data = os.path.join(service.dir, "rows.jsonl")
            with open(data, "w", encoding="utf-8") as file:
                file.write(ROWS + "\n")
            path = write_job(service.dir, devices=ranks, shards=shards, max_steps=max_steps, every_steps=max_steps,
                             dropout=dropout)
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
            with open(path, "w", encoding="utf-8") as file:
                for line in lines:
                    if line.startswith("dataset:"):
                        line = f"dataset: {{train: {data}}}"
                    line = line.replace("batch_size: 16", "batch_size: 2").replace(": 512", ": 128")
                    file.write(line.replace("all-linear", "[q_proj, down_proj]") + "\n")
            job_id = service.submit(path)
            job = service.succeed(job_id, timeout=900)
            self.assertIn("cuda", service.workers["worker"].text())
            losses = [float(m["train_loss"]) for m in service.metrics(job_id) if "train_loss" in m]
            return adapter_sha256(job), losses, service.graph_layers(ranks)

    def test_one_rank_two_replicas_and_two_shards_give_the_same_bytes(self):
        reference, losses, _ = self.train("cuda:0", 1, 1)
        self.assertEqual(len(losses), 2, losses)
        self.assertTrue(all(0 < loss < 20 for loss in losses), losses)
        for shards, flags in ((1, ()), (2, ("--gather", "network"))):
            with self.subTest(shards=shards, flags=flags):
                self.assertEqual(self.train("cuda:0,0", 2, shards, flags)[0], reference)

    def test_without_dropout_layers_are_launched_as_graphs(self):
        # Work is captured when it comes the third time.
        reference, _, graphs = self.train("cuda:0", 1, 1, dropout=0, max_steps=3)
        self.assertGreater(graphs, 0)
        sharded, _, graphs = self.train("cuda:0,0", 2, 2, dropout=0, max_steps=3)
        self.assertGreater(graphs, 0)
        self.assertEqual(sharded, reference)


if __name__ == "__main__":
    unittest.main(verbosity=2)
