"""Times training in Tundra and in PEFT side by side: one model, rows, adapter, precision, and number of threads.

For each precision and number of tokens: a base folder of the shape with random weights and the rows of one step
are written; then `tundra-bench-train` and PEFT train on both in turns, --rounds of them, in processes of their
own. What counts is the median step of each over all rounds, and their ratio; interleaving keeps a machine that
grows slower or faster from favouring one. Both must find the same loss before the first update, else it exits with 1.
A side that fails (of memory, say) is told with its reason, in the table and the JSON, and the others go on; it exits
with 1 if Tundra failed, or all of PEFT's.

  build/parity-venv/bin/python tests/parity/bench_train.py --shape smollm2-135m --precision f32 bf16 --tokens 512 2048
  … --device cuda       PEFT on the GPU and Tundra with the same --device
  … --json FILE         all figures, with versions

PEFT runs as its users run it: Transformers' model, torch's scaled-dot-product attention, no recomputation, AdamW
in torch. In bf16 the base is loaded in bf16 (--peft-bf16 weights) or in f32 under autocast (--peft-bf16 autocast);
the default runs both and compares with the faster.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Largest difference of the two losses, relative to PEFT's, before the first update.
LOSS_TOLERANCE = {"f32": 1e-4, "bf16": 5e-3}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="smollm2-135m", help="one that tundra-bench-train knows")
    parser.add_argument("--precision", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[512, 2048], help="of a step, in one micro-batch")
    parser.add_argument("--row-tokens", type=int, default=0, help="of a row; 0: one row a step")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--target-modules", default="all-linear", help="all-linear, or names with commas between")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each, on a CPU")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--steps", type=int, default=4, help="measured steps of a turn")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before them")
    parser.add_argument("--peft-bf16", choices=["both", "weights", "autocast"], default="both")
    parser.add_argument("--attention", default="sdpa", help="PEFT's: sdpa, eager, flash_attention_2")
    parser.add_argument("--bench", type=Path, default=ROOT / "build/release/bin/tundra-bench-train")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--peft-turn", help=argparse.SUPPRESS)  # a turn of PEFT, in a process of its own
    return parser.parse_args()


# ---- a turn of PEFT ------------------------------------------------------------------


def peft_turn(task):
    """Trains as the task says; prints step times, the first loss and peak memory as JSON."""
    import resource

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(task["threads"])
    torch.manual_seed(1)
    device = torch.device(task["device"])
    dtype = torch.bfloat16 if task["mode"] == "weights" else torch.float32
    base = AutoModelForCausalLM.from_pretrained(task["base"], dtype=dtype, attn_implementation=task["attention"]).to(device)
    base.config.use_cache = False
    targets = task["target_modules"]
    config = LoraConfig(
        task_type="CAUSAL_LM", r=task["rank"], lora_alpha=2 * task["rank"], lora_dropout=0.0,
        target_modules=targets if targets == "all-linear" else targets.split(","), bias="none",
    )
    net = get_peft_model(base, config).train()
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0)
    rows = torch.tensor([json.loads(line) for line in open(task["rows"], encoding="utf-8")], device=device)

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    losses, seconds = [], []
    for _ in range(task["warm_up"] + task["steps"]):
        wait()
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=task["mode"] == "autocast"):
            loss = net(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        wait()
        seconds.append(time.perf_counter() - start)
    peak_device = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    print(json.dumps({
        "first_loss": losses[0],
        "step_seconds": seconds[task["warm_up"] :],
        "trained_parameters": sum(p.numel() for p in trained),
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_peak_bytes": peak_device,
    }))


# ---- the comparison ------------------------------------------------------------------


def show_progress(text):
    """Replaces the line on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


class Failed(Exception):
    """A program failed; its command and what it said last."""


def output_of(command, environment=None):
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=environment)
    except OSError as error:
        raise Failed(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        # One that the kernel killed, mostly for memory, says nothing.
        said = "\n".join(done.stderr.strip().splitlines()[-30:]) or "nothing was said"
        ended = f"was ended by signal {-done.returncode}" if done.returncode < 0 else "failed"
        raise Failed(f"{' '.join(str(c) for c in command)}\n{ended}:\n{said}")
    return done.stdout


def last_line(text):
    return text.strip().splitlines()[-1] if text.strip() else text


def write_base(args, folder):
    """The shape's config.json, and weights as Transformers initialises them; returns the config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = json.loads(output_of([args.bench, args.shape, "--print-config"]))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    net = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    net.save_pretrained(folder, max_shard_size="8GB")
    (folder / "config.json").write_text(json.dumps(config))  # as published, not as saved
    return config


def write_rows(path, tokens, row_tokens, vocab):
    import random

    draw = random.Random(tokens)
    length = row_tokens or tokens
    if tokens % length:
        sys.exit(f"--tokens {tokens} is no whole number of rows of {length}")
    rows = [[draw.randrange(vocab) for _ in range(length)] for _ in range(tokens // length)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Case:
    """One precision and number of tokens: the turns of all sides, interleaved."""

    def __init__(self, args, precision, tokens, base, rows):
        self.args, self.precision, self.tokens = args, precision, tokens
        self.base, self.rows = base, rows
        self.sides = {"tundra": self.tundra}
        modes = ["f32"] if precision == "f32" else ["weights", "autocast"] if args.peft_bf16 == "both" else [args.peft_bf16]
        for mode in modes:
            self.sides["peft" if mode == "f32" else f"peft {mode}"] = lambda last, mode=mode: self.peft(mode)
        self.turns = {side: [] for side in self.sides}
        self.failed = {}  # by side, the reason

    def tundra(self, last):
        # Products are profiled in the last turn only.
        best = 150 if last else 0
        result = json.loads(output_of([
            self.args.bench, self.base, "--rows", self.rows, "--precision", self.precision, "--threads", self.args.threads,
            "--device", self.args.device, "--rank", self.args.rank, "--target-modules", self.args.target_modules,
            "--steps", self.args.steps, "--warm-up", self.args.warm_up, "--profiled-steps", 1, "--best-rate-ms", best, "-o", "json",
        ]))
        return result | {"step_seconds": result["step_seconds"]["all"], "profile": result} | result["memory"]

    def peft(self, mode):
        task = {key: getattr(self.args, key) for key in ("threads", "device", "rank", "target_modules", "steps", "warm_up", "attention")}
        task |= {"mode": mode, "base": str(self.base), "rows": str(self.rows)}
        environment = dict(os.environ, OMP_NUM_THREADS=str(self.args.threads))
        return json.loads(output_of([sys.executable, __file__, "--peft-turn", json.dumps(task)], environment).splitlines()[-1])

    def run(self):
        for turn in range(self.args.rounds):
            for side, take in self.sides.items():
                if side in self.failed:
                    continue  # it would fail again
                show_progress(f"{self.precision}, {self.tokens} tokens: turn {turn + 1} of {self.args.rounds}, {side}")
                try:
                    self.turns[side].append(take(turn + 1 == self.args.rounds))
                except (Failed, LookupError, ValueError) as error:
                    self.failed[side] = str(error)
        show_progress("")

    def result(self):
        sides = {}
        for side, turns in self.turns.items():
            if side in self.failed:
                sides[side] = {"failed": self.failed[side], "turns": [turn["step_seconds"] for turn in turns]}
                continue
            steps = [s for turn in turns for s in turn["step_seconds"]]
            sides[side] = {
                "step_seconds_median": statistics.median(steps),
                "step_seconds_fastest": min(steps),
                "tokens_per_second": self.tokens / statistics.median(steps),
                "process_peak_bytes": max(turn["process_peak_bytes"] for turn in turns),
                "device_peak_bytes": max(turn["device_peak_bytes"] for turn in turns),
                "first_loss": turns[0]["first_loss"],
                "turns": [turn["step_seconds"] for turn in turns],
            }
        result = {"precision": self.precision, "tokens": self.tokens, "sides": sides, "profile": None}
        if "tundra" in self.failed:
            return result
        ours = sides["tundra"]["step_seconds_median"]
        for side, figures in sides.items():
            if "failed" in figures:
                continue
            figures["tundra_is_faster_by"] = figures["step_seconds_median"] / ours
            # Of turns taken one after the other.
            figures["by_turn"] = [statistics.median(t) / statistics.median(o["step_seconds"])
                                  for t, o in zip(figures["turns"], self.turns["tundra"])]
        return result | {"profile": self.turns["tundra"][-1]["profile"]}


def failures(case):
    """Sentences when Tundra failed, or all of PEFT's sides; one side of PEFT's may."""
    failed = [side for side, figures in case["sides"].items() if "failed" in figures]
    where = f"{case['precision']}, {case['tokens']} tokens: "
    told = [f"{where}{side}: {case['sides'][side]['failed']}" for side in failed]
    if "tundra" in failed:
        return told
    return told if len(failed) == len(case["sides"]) - 1 else []


def loss_fault(case):
    """A sentence when the sides did not compute the same, else None."""
    losses = {side: figures["first_loss"] for side, figures in case["sides"].items() if "failed" not in figures}
    if "tundra" not in losses:
        return None
    ours = losses.pop("tundra")
    for side, loss in losses.items():
        if abs(ours - loss) > LOSS_TOLERANCE[case["precision"]] * abs(loss):
            return f"{case['precision']}, {case['tokens']} tokens: Tundra's first loss is {ours:.6f}, that of {side} {loss:.6f}"
    return None


def print_table(cases):
    print(f"{'precision':10}{'tokens':>7}  {'side':15}{'tokens/s':>9}{'step ms':>9}{'fastest':>9}{'memory MB':>11}{'Tundra faster by':>18}  by turn")
    for case in cases:
        for side, f in case["sides"].items():
            if "failed" in f:
                print(f"{case['precision']:10}{case['tokens']:>7}  {side:15}failed: {last_line(f['failed'])[:150]}")
                continue
            compared = side != "tundra" and "tundra_is_faster_by" in f  # not when Tundra failed
            ratio = f"{f['tundra_is_faster_by']:.2f}" if compared else ""
            span = "" if not compared else f"{min(f['by_turn']):.2f} to {max(f['by_turn']):.2f}"
            memory = f["device_peak_bytes" if case["on_gpu"] else "process_peak_bytes"]
            print(f"{case['precision']:10}{case['tokens']:>7}  {side:15}{f['tokens_per_second']:>9.1f}{1e3 * f['step_seconds_median']:>9.1f}"
                  f"{1e3 * f['step_seconds_fastest']:>9.1f}{memory / 1e6:>11.0f}{ratio:>18}  {span}")
        if case["profile"]:
            print(f"{'':17}  efficiency {100 * case['profile']['efficiency']:.1f} %; first loss "
                  + ", ".join(f"{side} {f['first_loss']:.5f}" for side, f in case["sides"].items() if "failed" not in f))


def versions():
    import peft
    import torch
    import transformers

    packages = {package.__name__: package.__version__ for package in (torch, transformers, peft)}
    return packages | {"python": platform.python_version()}


def main():
    args = arguments()
    if args.peft_turn:
        return peft_turn(json.loads(args.peft_turn))
    if not args.bench.exists():
        sys.exit(f"{args.bench} is not there: build it (ninja -C build/release tundra-bench-train) or give --bench")
    cases = []
    with tempfile.TemporaryDirectory() as temp:
        base = Path(temp) / "base"
        try:
            config = write_base(args, base)
        except Failed as error:
            sys.exit(str(error))
        for precision in args.precision:
            for tokens in args.tokens:
                rows = Path(temp) / f"rows-{tokens}.jsonl"
                write_rows(rows, tokens, args.row_tokens, config["vocab_size"])
                case = Case(args, precision, tokens, base, rows)
                case.run()
                cases.append(case.result() | {"on_gpu": args.device != "cpu"})
                if args.json:  # now: a comparison takes long, and may be broken off
                    args.json.write_text(json.dumps({"shape": args.shape, "versions": versions(), "cases": cases}, indent=1))
    device = next((case["profile"]["device"]["name"] for case in cases if case["profile"]), args.device)
    print(f"{args.shape}, rank {args.rank} on {args.target_modules}, {args.threads} threads, {device}; "
          + ", ".join(f"{name} {version}" for name, version in versions().items()))
    print_table(cases)
    failed = [told for case in cases for told in failures(case)]
    faults = [fault for case in cases if (fault := loss_fault(case))]
    if faults:
        failed.append("not the same computation:\n" + "\n".join(faults))
    if failed:
        sys.exit("\n".join(failed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
