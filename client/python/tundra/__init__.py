"""Client of Tundra, a self-hosted LoRA fine-tuning service.

    from tundra import Client

    with Client() as client:
        job = client.submit(base="tiny-tales", train="train.jsonl", training={"epochs": 3})
        job.follow()                          # a progress bar; raises JobFailed
        losses = [m["train_loss"] for m in job.metrics()]
        job.download("my-adapter")            # loads with peft.PeftModel.from_pretrained

Every call is synchronous. Resources are dicts with the field names of the API (proto/tundra/v1), numbers as numbers,
times as datetime in UTC, durations as seconds.
"""

from .client import Client, find_address
from .errors import JobFailed, TundraError
from .job import Job

__all__ = ["Client", "Job", "JobFailed", "TundraError", "find_address"]
