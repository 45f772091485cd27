#!/usr/bin/env python3
"""Trains examples/pirate-support with PyTorch and PEFT, as its job.yaml says.

The reference for the example: shows that the settings teach the style, and what
loss and speed to expect. Loss is per target token, targets are what the
assistant wrote (content and end marker). Prints the validation loss before and
after, and each sample prompt answered by the base and by base + adapter.
"""

import argparse
import json
import math
import os
import time

import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from grammar import Rng
from pretrain import loss_of


def encode(tokenizer, path, limit):
    """Rows of (ids, labels); labels are -100 outside the assistant's turns."""
    rows = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            out = tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=True, return_dict=True,
                                                return_assistant_tokens_mask=True)
            ids = out["input_ids"]
            if len(ids) > limit:
                raise SystemExit(f"{path}:{number}: {len(ids)} tokens, over max_seq_length {limit}")
            rows.append((ids, [i if m else -100 for i, m in zip(ids, out["assistant_masks"])]))
    return rows


def tensors(rows):
    width = max(len(ids) for ids, _ in rows)
    pad = lambda values, fill: values + [fill] * (width - len(values))
    return torch.tensor([pad(i, 2) for i, _ in rows]), torch.tensor([pad(l, -100) for _, l in rows])


def targets(row):
    """Labels that are predicted: all but those of the first position."""
    return sum(label != -100 for label in row[1][1:])


@torch.no_grad()
def validation_loss(model, rows):
    rows = sorted(rows, key=lambda row: len(row[0]))
    total = count = 0
    for i in range(0, len(rows), 16):
        loss, n = loss_of(model, *tensors(rows[i:i + 16]))
        total, count = total + loss.item(), count + n
    return total / count


@torch.no_grad()
def answer(model, tokenizer, prompt, limit=80):
    ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                        return_dict=True, return_tensors="pt")
    out = model.generate(**ids, do_sample=False, max_new_tokens=limit)[0, ids["input_ids"].shape[1]:]
    ended = out[-1].item() == tokenizer.eos_token_id
    return tokenizer.decode(out, skip_special_tokens=True) + ("" if ended else " [no end]")


def fit(model, rows, settings):
    """AdamW over the rows in shuffled batches, cosine schedule with warm-up. Returns the steps' losses."""
    batch_size = settings["batch_size"]
    steps = math.ceil(len(rows) / batch_size) * settings["epochs"]
    warmup = math.ceil(steps * settings["warmup_ratio"])
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings["learning_rate"], weight_decay=settings["weight_decay"])
    losses = []
    for epoch in range(settings["epochs"]):
        order = list(range(len(rows)))
        Rng(settings["seed"], epoch).shuffle(order)
        for i in range(0, len(order), batch_size):
            step = len(losses)
            scale = (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
            for group in optimizer.param_groups:
                group["lr"] = settings["learning_rate"] * scale
            # Rows of like length together: less padding, the same gradient.
            batch = sorted((rows[j] for j in order[i:i + batch_size]), key=lambda row: len(row[0]))
            n = sum(targets(row) for row in batch)
            total = 0.0
            for k in range(0, len(batch), 4):
                loss, _ = loss_of(model, *tensors(batch[k:k + 4]))
                (loss / n).backward()
                total += loss.item() / n
            torch.nn.utils.clip_grad_norm_(parameters, settings["max_grad_norm"])
            optimizer.step()
            optimizer.zero_grad()
            losses.append(total)
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="examples/bases/tiny-tales")
    parser.add_argument("--example", default="examples/pirate-support")
    parser.add_argument("--save", help="folder for the adapter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", action="append", default=[], help="another prompt to answer; may be repeated")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with open(os.path.join(args.example, "job.yaml"), encoding="utf-8") as file:
        job = yaml.safe_load(file)
    settings, lora = job["training"], job["lora"]
    settings = {k: float(v) if isinstance(v, str) and k in ("learning_rate", "weight_decay") else v for k, v in settings.items()}
    torch.manual_seed(settings["seed"])
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    model = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32)
    prompts = job["eval"]["samples"] + args.prompt
    plain = [answer(model, tokenizer, p) for p in prompts]
    train = encode(tokenizer, os.path.join(args.example, job["dataset"]["train"]), settings["max_seq_length"])
    validation = encode(tokenizer, os.path.join(args.example, job["dataset"]["validation"]), settings["max_seq_length"])
    model = get_peft_model(model, LoraConfig(
        r=lora["rank"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], use_rslora=lora["use_rslora"],
        target_modules=lora["target_modules"], task_type="CAUSAL_LM"))
    model.print_trainable_parameters()
    before = validation_loss(model, validation)
    started = time.monotonic()
    losses = fit(model, train, settings)
    seconds = time.monotonic() - started
    after = validation_loss(model, validation)
    print(f"{len(losses)} steps in {seconds:.0f} s; training loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    print(f"validation loss {before:.4f} -> {after:.4f} ({100 * (1 - after / before):.0f} % lower)")
    for prompt, old in zip(prompts, plain):
        print(f"\n> {prompt}\n  base    : {old}\n  adapter : {answer(model, tokenizer, prompt)}")
    if args.save:
        model.save_pretrained(args.save)


if __name__ == "__main__":
    main()
