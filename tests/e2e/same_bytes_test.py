"""The same job gives the same bytes: on any number of ranks, shards and threads,
however shards are gathered, and through the loss of a rank or the coordinator."""

import os
import signal
import unittest

from service import Service, adapter_sha256, wait_until, write_job

STEPS = 30


class SameBytes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """One undisturbed run on one rank: what all others must equal."""
        with Service() as service:
            service.start_coordinator().start_worker(devices=1, threads=1)
            cls.reference = adapter_sha256(
                service.succeed(service.submit(write_job(service.dir, max_steps=STEPS))))
        print("reference", cls.reference)

    def run_once(self, devices, shards, threads=0, flags=()):
        with Service() as service:
            service.start_coordinator().start_worker(devices=devices, threads=threads, flags=flags)
            path = write_job(service.dir, devices=devices, shards=shards, max_steps=STEPS)
            job = service.succeed(service.submit(path))
            self.assertEqual(adapter_sha256(job), self.reference)

    def test_ranks_and_shards(self):
        for devices, shards in ((2, 1), (2, 2), (3, 1), (3, 3)):
            with self.subTest(devices=devices, shards=shards):
                self.run_once(devices, shards)

    def test_threads(self):
        for threads in (2, 4):
            with self.subTest(threads=threads):
                self.run_once(1, 1, threads=threads)

    def test_gather_over_the_network(self):
        self.run_once(2, 2, flags=("--gather", "network"))

    def test_two_workers(self):
        with Service() as service:
            service.start_coordinator()
            service.start_worker("one").start_worker("two")
            path = write_job(service.dir, devices=2, shards=2, max_steps=STEPS)
            self.assertEqual(adapter_sha256(service.succeed(service.submit(path))), self.reference)

    def test_rank_killed_half_way(self):
        for shards in (1, 2):
            with self.subTest(shards=shards), Service() as service:
                service.start_coordinator().start_worker(devices=2)
                path = write_job(service.dir, devices=2, shards=shards, max_steps=STEPS)
                job_id = service.submit(path)
                service.wait_for_step(job_id, STEPS // 2)
                os.kill(service.rank_pid(1), signal.SIGKILL)
                job = service.succeed(job_id)
                self.assertEqual(adapter_sha256(job), self.reference)
                self.assertGreater(int(job["attempt"]), 1, "the kill came too late to matter")

    def test_coordinator_killed_half_way(self):
        with Service() as service:
            service.start_coordinator().start_worker(devices=2)
            path = write_job(service.dir, devices=2, max_steps=STEPS)
            job_id = service.submit(path)
            service.wait_for_step(job_id, STEPS // 2)
            service.coordinator.kill()
            service.start_coordinator()
            job = service.succeed(job_id)
            self.assertEqual(adapter_sha256(job), self.reference)
            steps = [int(m.get("step", 0)) for m in service.metrics(job_id)]
            self.assertEqual(steps, list(range(0, STEPS + 1)), "metrics lost or doubled")

    def test_worker_killed_half_way(self):
        with Service() as service:
            service.start_coordinator("--heartbeat-seconds", "1", "--lease-seconds", "3").start_worker(devices=2)
            path = write_job(service.dir, devices=2, max_steps=STEPS)
            job_id = service.submit(path)
            service.wait_for_step(job_id, STEPS // 2)
            service.workers.pop("worker").kill()
            service.start_worker(devices=2)
            self.assertEqual(adapter_sha256(service.succeed(job_id)), self.reference)


if __name__ == "__main__":
    unittest.main(verbosity=2)
