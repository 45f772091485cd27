"""Golden values for worker/train's optimizer, clipping and schedules.

Runs torch.optim.AdamW, torch.nn.utils.clip_grad_norm_ and transformers'
schedules, and writes worker/train/testdata/optimizer_golden.json.
Run it with the interpreter that tests/parity/setup makes:

    python tests/parity/make_optimizer_golden.py
"""
import json
import pathlib

import torch
import transformers
from transformers import get_scheduler

OUT = pathlib.Path(__file__).parents[2] / "worker/train/testdata/optimizer_golden.json"


def adamw_case(seed, sizes, steps, lr, weight_decay, max_norm, scheduler, warmup, scale):
    torch.manual_seed(seed)
    weights = [torch.nn.Parameter(torch.randn(n)) for n in sizes]
    start = [w.detach().tolist() for w in weights]
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay, foreach=False)
    schedule = get_scheduler(scheduler, optimizer, warmup, steps)
    grads, norms, rates = [], [], []
    for _ in range(steps):
        step = [torch.randn(n) * scale for n in sizes]
        grads.append([g.tolist() for g in step])
        for w, g in zip(weights, step):
            w.grad = g.clone()
        norms.append(float(torch.nn.utils.clip_grad_norm_(weights, max_norm)))
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return {
        "steps": steps, "lr": lr, "weight_decay": weight_decay, "max_norm": max_norm,
        "scheduler": scheduler, "warmup": warmup, "start": start, "grads": grads,
        "norms": norms, "rates": rates, "end": [w.detach().tolist() for w in weights],
        "exp_avg": [optimizer.state[w]["exp_avg"].tolist() for w in weights],
        "exp_avg_sq": [optimizer.state[w]["exp_avg_sq"].tolist() for w in weights],
    }


def schedule_case(name, warmup, total):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    schedule = get_scheduler(name, optimizer, warmup, total)
    factors = []
    for _ in range(total + 3):  # a few beyond the end
        factors.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return {"name": name, "warmup": warmup, "total": total, "factors": factors}


def main():
    warmups = []
    for ratio in (0.0, 0.03, 0.1, 0.5, 1.0 / 3.0, 1.0):
        for total in (1, 7, 20, 100, 333):
            args = transformers.TrainingArguments(output_dir="unused", warmup_steps=ratio) \
                if 0 < ratio < 1 else None
            steps = args.get_warmup_steps(total) if args else (total if ratio == 1.0 else 0)
            warmups.append({"ratio": ratio, "total": total, "steps": steps})
    golden = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "adamw": [
            adamw_case(1, [5, 3], 12, 1e-2, 0.0, 1.0, "linear", 2, 0.3),
            adamw_case(2, [9], 10, 2e-4, 0.1, 0.5, "cosine", 3, 10.0),
            adamw_case(3, [4, 4, 1], 8, 1e-3, 0.01, 1.0, "constant", 0, 1e-6),
        ],
        "schedules": [
            schedule_case(name, warmup, total)
            for name in ("constant", "constant_with_warmup", "linear", "cosine")
            for warmup, total in ((0, 10), (3, 20), (1, 1), (20, 20))
        ],
        "warmup_steps": warmups,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
