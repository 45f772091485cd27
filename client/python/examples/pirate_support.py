"""The example job from Python, cell by cell: open it in an editor that knows `# %%`, or run it whole.

    tundra local up --detach --base-dir examples/bases
    python client/python/examples/pirate_support.py
"""

# %% Connect
from pathlib import Path

from tundra import Client

data = Path(__file__).resolve().parents[3] / "examples" / "pirate-support"
client = Client()
for base in client.bases():
    print(base["display_name"], base["name"])

# %% Look at the data as training will see it
report = client.validate(data / "train.jsonl", base="tiny-tales", max_seq_length=512)
print(f"{report['rows']} rows, {report['target_tokens']} of {report['tokens']} tokens are trained on")

# %% Train
job = client.submit(
    base="tiny-tales",
    train=data / "train.jsonl",
    validation=data / "val.jsonl",
    name="pirate-support",
    lora={"rank": 8, "alpha": 16},
    training={"max_steps": 60, "batch_size": 16, "max_seq_length": 512, "learning_rate": 2e-3, "seed": 17},
    eval={"every_steps": 20, "samples": ["Where is my parcel?"]},
)
job.follow()

# %% Its losses
losses = [(m["step"], m["train_loss"]) for m in job.metrics() if "train_loss" in m]
print(f"loss {losses[0][1]:.3f} -> {losses[-1][1]:.3f} after {losses[-1][0]} steps")

# %% Before and after
for sample in job.data["samples"]:
    print(f"{sample['prompt']}\n  before: {sample['before']}\n  after:  {sample['after']}")

# %% The adapter, for PEFT
print(job.download("pirate-support-adapter"))
