"""The main job, whole: submit, train on two ranks, deliver, generate."""

import hashlib
import json
import os
import unittest

from service import BASES, EXAMPLE, Service, write_job


def folder_hash(path):
    digest = hashlib.sha256()
    for name in sorted(os.listdir(path)):
        with open(os.path.join(path, name), "rb") as file:
            digest.update(name.encode() + b"\0" + file.read())
    return digest.hexdigest()


class MainJob(unittest.TestCase):
    def test_example_trains_delivers_and_answers(self):
        base = os.path.join(BASES, "tiny-tales")
        before = folder_hash(base)
        with Service() as service:
            service.start_coordinator().start_worker(devices=2)
            job_id = service.submit(os.path.join(EXAMPLE, "job.yaml"))
            job = service.succeed(job_id)
            fall = 1 - job["validation_loss"] / job["initial_validation_loss"]
            print(f"validation loss {job['initial_validation_loss']:.4f} -> "
                  f"{job['validation_loss']:.4f}: fell by {100 * fall:.1f} %")
            self.assertGreaterEqual(fall, 0.3)
            self.assertEqual(int(job["step"]), int(job["total_steps"]))
            self.assertTrue(job["samples"])
            for sample in job["samples"]:
                self.assertNotEqual(sample["before"], sample["after"])

            target = os.path.join(service.dir, "adapter")
            service.ok("download", job_id, "--to", target)
            with open(os.path.join(target, "adapter_config.json"), encoding="utf-8") as file:
                config = json.load(file)
            self.assertEqual(config["peft_type"], "LORA")
            self.assertEqual(config["r"], 8)
            for file in job["adapter"]["files"]:
                with open(os.path.join(target, file["filename"]), "rb") as downloaded:
                    self.assertEqual(hashlib.sha256(downloaded.read()).hexdigest(),
                                     file["sha256"])

            prompt = job["samples"][0]["prompt"]
            ask = ["generate", "--base", "tiny-tales", "--prompt", prompt]
            self.assertEqual(service.ok(*ask).strip(), job["samples"][0]["before"].strip())
            for adapter in (job_id, target):
                self.assertEqual(service.ok(*ask, "--adapter", adapter).strip(),
                                 job["samples"][0]["after"].strip())
        self.assertEqual(folder_hash(base), before, "the base's files changed")

    def test_only_adapters_travel_and_shards_are_slices(self):
        with Service() as service:
            service.start_coordinator().start_worker(devices=2)
            job_id = service.submit(write_job(service.dir, devices=2, shards=2))
            service.succeed(job_id)
            target = os.path.join(service.dir, "adapter")
            service.ok("download", job_id, "--to", target)
            with open(os.path.join(target, "adapter_model.safetensors"), "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
            header.pop("__metadata__", None)
            parameters = sum(t["shape"][0] * t["shape"][1] for t in header.values())
            tensors = len(header)
            for metrics in service.metrics(job_id):
                if metrics.get("step", "0") == "0":
                    continue
                sent = int(metrics["allreduce_bytes"])
                # Beside the sums: a few scalars a tensor.
                self.assertGreaterEqual(sent, 8 * parameters)
                self.assertLessEqual(sent, 8 * parameters + 64 * tensors)
            print(f"{parameters} parameters in {tensors} tensors: {sent} bytes reduced a step")

    def test_pause_keeps_the_state_and_resume_gives_the_same_bytes(self):
        from service import adapter_sha256, wait_until
        with Service() as service:
            service.start_coordinator().start_worker(devices=1)
            path = write_job(service.dir, max_steps=40, every_steps=100)
            whole = adapter_sha256(service.succeed(service.submit(path)))
            job_id = service.submit(path)
            service.wait_for_step(job_id, 5)
            service.ok("pause", job_id)
            wait_until(lambda: service.get(job_id)["state"] == "PAUSED", "the job is paused")
            paused_at = service.step(job_id)
            self.assertLess(paused_at, 40)
            service.ok("resume", job_id)
            self.assertEqual(adapter_sha256(service.succeed(job_id)), whole)
            cancelled = service.submit(path)
            service.wait_for_step(cancelled, 1)
            service.ok("cancel", cancelled)
            result, state = service.wait(cancelled)
            self.assertEqual(state["state"], "CANCELLED")
            self.assertEqual(result.returncode, 1)
            service.ok("delete", cancelled)
            self.assertEqual(service.run("get", cancelled).returncode, 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
