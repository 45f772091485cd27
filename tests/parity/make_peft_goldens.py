"""Makes the training goldens: what Transformers and PEFT compute on tiny Llama models.

For each model of MODELS: a base folder in Hugging Face layout with random weights; rows of tokens
with labels; LoRA adapters (written by PEFT itself) with random non-zero B, and their logits, losses,
gradients and greedy continuations; and runs of 20 AdamW steps from PEFT's initialisation. Also the
learning rates of Transformers' schedules.

Everything is computed in float32 on one thread, row by row (no padding), and then again with float64
weights (Transformers keeps norms and softmax in float32), to be sure that rounding stays far below the
tolerances that a test against these files uses.

  python tests/parity/make_peft_goldens.py          rewrites tests/parity/golden/peft
  python tests/parity/make_peft_goldens.py --out D  writes to another folder, to compare

The same versions on the same kind of CPU give the same bytes (versions.json names both).
The format of the files is told in tests/parity/golden/README.md.
"""

import argparse
import json
import math
import os
import random
import shutil
import tempfile
import warnings
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch  # noqa: E402
import transformers  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

import golden_common  # noqa: E402

LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
STEPS = 20
LOGIT_ROWS = [0, 1, 4, 8, 10]  # the rows whose logits are kept: the files stay small


def model(heads, kv, layers, hidden, inter, vocab, tied, **rest):
    return dict(heads=heads, kv=kv, layers=layers, hidden=hidden, inter=inter, vocab=vocab, tied=tied, **rest)


def adapter(rank, alpha, targets, rslora=False, **rest):
    return dict(rank=rank, alpha=alpha, targets=targets, rslora=rslora, **rest)


def run(scheduler, warmup, decay, lr, lora):
    return dict(scheduler=scheduler, warmup=warmup, decay=decay, lr=lr, lora=lora)


# layout: "classic" has rope_theta and rope_scaling at the top of config.json, as nearly all released
# checkpoints have; "new" is what Transformers 5 writes (rope_parameters).
MODELS = {
    "mha_untied": dict(
        model=model(4, 4, 2, 32, 64, 160, False, theta=10000.0, layout="classic"),
        adapters={
            "q_v": adapter(4, 8, ["q_proj", "v_proj"]),
            "all_linear": adapter(8, 16, "all-linear"),
            "with_lm_head": adapter(4, 4, ["q_proj", "lm_head"], optional="lm_head is a target"),
        },
        runs={"linear": run("linear", 3, 0.0, 1e-2, adapter(8, 16, "all-linear"))},
    ),
    "gqa_tied_llama3": dict(
        model=model(6, 2, 3, 48, 80, 144, True, theta=500000.0, rope=LLAMA3_ROPE, layout="classic"),
        adapters={
            "all_linear_rslora": adapter(4, 8, "all-linear", True),
            "k_o_down": adapter(6, 3, ["k_proj", "o_proj", "down_proj"]),
            "upper_layers": adapter(4, 8, ["layers.1.self_attn.v_proj", "layers.2.mlp.down_proj"]),
        },
        runs={"cosine": run("cosine", 2, 0.01, 8e-3, adapter(4, 8, "all-linear", True))},
    ),
    "gqa_untied_head_dim": dict(
        model=model(4, 2, 2, 48, 64, 128, False, head_dim=16, theta=10000.0, layout="new", files=3),
        adapters={"all_linear": adapter(5, 10, "all-linear"), "gate_up_rslora": adapter(8, 8, ["gate_proj", "up_proj"], True)},
        runs={"constant": run("constant_with_warmup", 4, 0.01, 6e-3, adapter(8, 8, ATTENTION))},
    ),
    "mqa_tied_llama3": dict(
        model=model(4, 1, 2, 40, 56, 136, True, head_dim=12, theta=10000.0, rope=LLAMA3_ROPE, layout="new"),
        adapters={"all_linear": adapter(4, 16, "all-linear"), "attention": adapter(7, 7, ATTENTION)},
        runs={"linear_no_warmup": run("linear", 0, 0.0, 1e-2, adapter(4, 4, ["q_proj", "v_proj", "up_proj"]))},
    ),
    "gqa_tied_bf16": dict(
        model=model(4, 2, 2, 32, 48, 128, True, theta=10000.0, layout="classic", dtype="bfloat16"),
        adapters={"all_linear": adapter(4, 8, "all-linear")},
        runs={"linear": run("linear", 2, 0.0, 8e-3, adapter(4, 8, "all-linear"))},
    ),
    "gqa_tied_geglu": dict(
        model=model(4, 2, 2, 32, 48, 128, True, theta=10000.0, layout="classic", act="gelu_pytorch_tanh"),
        adapters={"all_linear": adapter(4, 8, "all-linear")},
        runs={"linear": run("linear", 2, 0.0, 8e-3, adapter(4, 8, "all-linear"))},
    ),
    "gqa_untied_bias": dict(
        model=model(4, 2, 2, 32, 48, 128, False, theta=10000.0, layout="classic", bias=True),
        optional="attention_bias and mlp_bias are true",
        adapters={"all_linear": adapter(4, 8, "all-linear")},
        runs={},
    ),
}


def generator(*key):
    """A torch generator whose seed follows from the key alone."""
    return torch.Generator().manual_seed(random.Random("/".join(map(str, key))).getrandbits(60))


def config_of(m):
    """(LlamaConfig, the classic config.json or None)."""
    fields = dict(
        vocab_size=m["vocab"], hidden_size=m["hidden"], intermediate_size=m["inter"], num_hidden_layers=m["layers"],
        num_attention_heads=m["heads"], num_key_value_heads=m["kv"], hidden_act=m.get("act", "silu"), max_position_embeddings=256,
        initializer_range=0.02, rms_norm_eps=1e-5, use_cache=True, bos_token_id=1, eos_token_id=2, tie_word_embeddings=m["tied"],
        attention_bias=m.get("bias", False), mlp_bias=m.get("bias", False), attention_dropout=0.0,
    )
    if "head_dim" in m:
        fields["head_dim"] = m["head_dim"]
    if m["layout"] == "classic":
        record = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": m.get("dtype", "float32")}
        record.update(fields, rope_theta=m["theta"], rope_scaling=m.get("rope"), pretraining_tp=1, transformers_version="4.43.0")
        return LlamaConfig.from_dict(record), dict(sorted(record.items()))
    rope = dict(m.get("rope", {"rope_type": "default"}), rope_theta=m["theta"])
    return LlamaConfig(rope_parameters=rope, architectures=["LlamaForCausalLM"], dtype="float32", **fields), None


def random_weights(name, shapes, m):
    """{tensor name: values}: norms near 1, matrices scaled so that activations stay near 1."""
    dtype = getattr(torch, m.get("dtype", "float32"))
    out = {}
    for key, shape in shapes.items():
        gen = generator(name, key)
        if "norm" in key:
            value = 1.0 + 0.3 * (2 * torch.rand(shape, generator=gen) - 1)
        elif key.endswith("bias"):
            value = 0.2 * torch.randn(shape, generator=gen)
        elif "embed" in key:
            value = (0.35 if m["tied"] else 1.0) * torch.randn(shape, generator=gen)
        else:
            value = 1.3 / math.sqrt(shape[1]) * torch.randn(shape, generator=gen)
        out[key] = value.to(dtype).contiguous()
    return out


def write_base(folder, name, m):
    """Writes the base folder: config.json, generation_config.json, weights in one file or several."""
    folder.mkdir(parents=True)
    config, classic = config_of(m)
    if classic is not None:
        golden_common.write_json(folder / "config.json", classic)
    else:
        config.to_json_file(folder / "config.json", use_diff=False)
    golden_common.write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "do_sample": False})
    shapes = {key: tuple(value.shape) for key, value in LlamaForCausalLM(config).state_dict().items()}
    if m["tied"]:
        shapes.pop("lm_head.weight")
    weights = random_weights(name, shapes, m)
    files = m.get("files", 1)
    if files == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    keys = sorted(weights)
    index = {"metadata": {"total_size": sum(w.numel() * w.element_size() for w in weights.values())}, "weight_map": {}}
    for i in range(files):
        part = keys[i * len(keys) // files : (i + 1) * len(keys) // files]
        file = f"model-{i + 1:05d}-of-{files:05d}.safetensors"
        save_file({key: weights[key] for key in part}, folder / file, metadata={"format": "pt"})
        index["weight_map"].update({key: file for key in part})
    golden_common.write_json(folder / "model.safetensors.index.json", index)


def load_base(folder, dtype):
    """The base below folder; the name that PEFT writes into adapter_config.json says no path."""
    net = LlamaForCausalLM.from_pretrained(folder / "base", dtype=dtype, attn_implementation="eager").eval()
    net.name_or_path = f"tiny/{folder.name}"
    return net


def make_rows(name, m):
    """12 rows of 2 to 70 tokens with something to learn: runs of t, t+k, t+2k…; some are ignored."""
    rng = random.Random(f"rows/{name}")
    rows = []
    for length in (70, 5, 33, 48, 2, 17, 64, 29, 11, 40, 23, 57):
        ids, token, stride = [1], rng.randrange(3, m["vocab"]), rng.choice([1, 2, 5])
        while len(ids) < length:
            if rng.random() < 0.12:
                token = rng.randrange(3, m["vocab"])
            ids.append(token)
            token = 3 + (token - 3 + stride) % (m["vocab"] - 3)
        labels = list(ids)
        if length > 10:
            prompt = rng.randint(1, length // 3)
            labels[:prompt] = [-100] * prompt
            hole = rng.randint(prompt, length - 4)
            labels[hole : hole + 3] = [-100] * 3
            ids[-1] = labels[-1] = 2
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def summed_loss(net, row):
    """(sum over target tokens of the cross-entropy, number of them, logits [T, V])."""
    logits = net(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0]
    labels = torch.tensor(row["labels"][1:])
    loss = torch.nn.functional.cross_entropy(logits[:-1], labels, ignore_index=-100, reduction="sum")
    return loss, int((labels != -100).sum()), logits


def lora_config(a, model_name):
    return LoraConfig(
        task_type="CAUSAL_LM", base_model_name_or_path=f"tiny/{model_name}", r=a["rank"], lora_alpha=a["alpha"], lora_dropout=0.0,
        target_modules=a["targets"], use_rslora=a["rslora"], bias="none",
    )


def attach(base, a, key):
    """A PeftModel with PEFT's own initialisation, drawn from a seed that follows from the key."""
    torch.manual_seed(random.Random("/".join(key)).getrandbits(60))
    net = get_peft_model(base, lora_config(a, key[0]))
    net.eval()
    return net


def trained_parameters(net):
    """{name in adapter_model.safetensors: parameter}, in that file's order."""
    found = {name.replace(".default", ""): p for name, p in net.named_parameters() if p.requires_grad}
    return dict(sorted(found.items()))


def adapter_tensors(net):
    return {k: v.detach().clone().contiguous() for k, v in sorted(get_peft_model_state_dict(net, save_embedding_layers=False).items())}


def save_adapter(net, folder):
    """adapter_config.json and adapter_model.safetensors as PEFT writes them (not its model card)."""
    with tempfile.TemporaryDirectory() as temp:
        net.save_pretrained(temp, save_embedding_layers=False)
        folder.mkdir(parents=True)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(Path(temp) / file, folder / file)
    record = json.loads((folder / "adapter_config.json").read_text())
    if isinstance(record["target_modules"], list):  # PEFT keeps a set, whose order changes from run to run
        record["target_modules"] = sorted(record["target_modules"])
    (folder / "adapter_config.json").write_text(json.dumps(record, indent=2, sort_keys=True))


def evaluate(net, rows):
    """Logits of LOGIT_ROWS end to end, summed loss, targets, and the gradients of the summed loss."""
    net.zero_grad(set_to_none=True)
    total, targets, logits, row_losses = 0.0, 0, [], []
    for row in rows:
        loss, count, row_logits = summed_loss(net, row)
        loss.backward()
        total += loss.item()
        row_losses.append(loss.item())
        targets += count
        logits.append(row_logits.detach())
    grads = {name: p.grad.detach().clone() for name, p in trained_parameters(net).items()}
    return torch.cat([logits[i] for i in LOGIT_ROWS]), total, targets, grads, row_losses


def greedy(net, prompt, count):
    """(greedy continuation, smallest gap between the best and the second logit on the way)."""
    ids, gap = list(prompt), math.inf
    with torch.no_grad():
        for _ in range(count):
            top = net(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
            gap = min(gap, (top.values[0] - top.values[1]).item())
            ids.append(int(top.indices[0]))
    return ids[len(prompt) :], gap


def largest_relative(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def make_adapter_case(folder, name, case, a, rows):
    """One adapter with random B: its folder, its golden tensors, and its record for golden.json."""
    net = attach(load_base(folder, torch.float32), a, (name, case, "adapter"))
    gen = generator(name, case, "B")
    for key, p in trained_parameters(net).items():
        if "lora_B" in key:
            p.data.copy_(0.3 * torch.randn(p.shape, generator=gen) / math.sqrt(a["rank"]))
    save_adapter(net, folder / "adapters" / case)
    logits, total, targets, grads, row_losses = evaluate(net, rows)
    exact = PeftModel.from_pretrained(load_base(folder, torch.float64), folder / "adapters" / case, is_trainable=True)
    logits64, total64, _, grads64, _ = evaluate(exact.double().eval(), rows)
    worst = max(largest_relative(grads[key], grads64[key]) for key in grads)
    assert largest_relative(logits, logits64) < 1e-5 and abs(total / total64 - 1) < 1e-6 and worst < 1e-5, (name, case, worst)

    tensors = {"logits": logits} | {f"grad.{key}": value for key, value in grads.items()}
    save_file(dict(sorted(tensors.items())), folder / "adapters" / case / "golden.safetensors")
    for row in rows:  # the first prompt where rounding cannot choose another token
        prompt = row["input_ids"][:6]
        continuation, gap = greedy(net, prompt, 24)
        if gap > 0.02:
            break
    assert gap > 0.02, (name, case, gap)
    record = {"name": case} | ({"optional": a["optional"]} if "optional" in a else {})
    record.update(
        rank=a["rank"], alpha=a["alpha"], use_rslora=a["rslora"], target_modules=a["targets"], loss_sum=total, target_tokens=targets,
        loss_mean=total / targets, row_loss_sums=row_losses,
        greedy=dict(prompt=prompt, continuation=continuation, smallest_gap=gap),
        tensors={key: list(value.shape) for key, value in sorted(adapter_tensors(net).items())},
    )
    return record


def step_plan(name, rows):
    """For each step its micro-batches, each a list of rows: 5 rows a step, the epoch's last has 2."""
    rng = random.Random(f"plan/{name}")
    plan = []
    while len(plan) < STEPS:
        order = list(range(len(rows)))
        rng.shuffle(order)
        for start in (0, 5, 10):
            taken = order[start : start + 5]
            cut = rng.randint(1, len(taken) - 1)
            plan.append([taken[:cut], taken[cut:]])
    return plan[:STEPS]


def scheduler_of(kind, optimizer, warmup, steps):
    if kind == "constant":
        return transformers.get_constant_schedule(optimizer)
    if kind == "constant_with_warmup":
        return transformers.get_constant_schedule_with_warmup(optimizer, warmup)
    make = {"linear": transformers.get_linear_schedule_with_warmup, "cosine": transformers.get_cosine_schedule_with_warmup}[kind]
    return make(optimizer, warmup, steps)


def train(net, rows, plan, r):
    """One record a step: loss per target token before the update, rate used, norm before clipping."""
    parameters = list(trained_parameters(net).values())
    optimizer = torch.optim.AdamW(parameters, lr=r["lr"], betas=(0.9, 0.999), eps=1e-8, weight_decay=r["decay"])
    scheduler = scheduler_of(r["scheduler"], optimizer, r["warmup"], STEPS)
    records = []
    for micro_batches in plan:
        optimizer.zero_grad(set_to_none=True)
        targets = sum(sum(label != -100 for label in rows[i]["labels"][1:]) for batch in micro_batches for i in batch)
        total = 0.0
        for batch in micro_batches:
            for i in batch:
                loss, _, _ = summed_loss(net, rows[i])
                (loss / targets).backward()
                total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
        record = {"micro_batches": micro_batches, "target_tokens": targets, "loss": total / targets}
        records.append(record | {"learning_rate": scheduler.get_last_lr()[0], "grad_norm": norm})
        optimizer.step()
        scheduler.step()
    return records


def make_run(folder, name, case, r, rows):
    """One training run of STEPS steps: the initial adapter as PEFT writes it, and the steps."""
    net = attach(load_base(folder, torch.float32), r["lora"], (name, case, "run"))
    save_adapter(net, folder / "runs" / case)
    plan = step_plan(f"{name}/{case}", rows)
    exact = PeftModel.from_pretrained(load_base(folder, torch.float64), folder / "runs" / case, is_trainable=True)
    steps = train(net, rows, plan, r)
    steps64 = train(exact.double().eval(), rows, plan, r)
    final, final64 = (sum(summed_loss(n, row)[0].item() for row in rows) for n in (net, exact))
    gap = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(steps, steps64))
    norms = max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in zip(steps, steps64))
    clipped = sum(s["grad_norm"] > 1 for s in steps)
    print(f"{name}/{case}: loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}, {clipped} of {STEPS} steps clipped; "
          f"float32 against float64: loss {gap:.1e}, norm {norms:.1e}, final {abs(final / final64 - 1):.1e}")
    assert gap < 1e-5, (name, case, gap)
    lora = r["lora"]
    return {
        "name": case, "rank": lora["rank"], "alpha": lora["alpha"], "use_rslora": lora["rslora"], "target_modules": lora["targets"],
        "scheduler": r["scheduler"], "warmup_steps": r["warmup"], "total_steps": STEPS, "learning_rate": r["lr"],
        "weight_decay": r["decay"], "betas": [0.9, 0.999], "eps": 1e-8, "max_grad_norm": 1.0, "steps": steps,
        "final_loss_sum_of_all_rows": final,
    }


def make_model(folder, name, entry):
    m = entry["model"]
    write_base(folder / "base", name, m)
    rows = make_rows(name, m)
    with torch.no_grad():
        base = load_base(folder, torch.float32)
        found = [summed_loss(base, row) for row in rows]
    save_file({"logits": torch.cat([found[i][2] for i in LOGIT_ROWS])}, folder / "base_golden.safetensors")
    record = {"name": name} | ({"optional": entry["optional"]} if "optional" in entry else {})
    record.update(rows=rows, logit_rows=LOGIT_ROWS, base_loss_sum=sum(x[0].item() for x in found), target_tokens=sum(x[1] for x in found))
    record["adapters"] = [make_adapter_case(folder, name, case, a, rows) for case, a in entry["adapters"].items()]
    record["runs"] = [make_run(folder, name, case, r, rows) for case, r in entry["runs"].items()]
    golden_common.write_bytes(folder / "golden.json", (golden_common.dumps(record) + "\n").encode())


def make_schedules(out):
    """multipliers[i] scales the learning rate of step i (from 0), as Transformers' schedules give it."""
    cases = []
    for kind in ("constant", "constant_with_warmup", "linear", "cosine"):
        for steps, warmup in ((20, 0), (20, 3), (1, 0), (1, 1), (7, 7), (100, 10), (3, 1), (50, 49)):
            if kind == "constant" and warmup:
                continue
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
            scheduler = scheduler_of(kind, optimizer, warmup, steps)
            values = []
            for _ in range(steps):
                values.append(scheduler.get_last_lr()[0])
                optimizer.step()
                scheduler.step()
            cases.append({"scheduler": kind, "total_steps": steps, "warmup_steps": warmup, "multipliers": values})
    ratios = []
    for ratio in (0.0, 0.03, 0.1, 0.5, 0.999):
        for steps in (1, 2, 10, 20, 33, 100, 1000):
            arguments = transformers.TrainingArguments(output_dir="unused", warmup_steps=ratio, use_cpu=True)
            ratios.append({"warmup_ratio": ratio, "total_steps": steps, "warmup_steps": arguments.get_warmup_steps(steps)})
    golden_common.write_bytes(out / "schedules.json", (golden_common.dumps({"schedules": cases, "warmup": ratios}) + "\n").encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=golden_common.GOLDEN_DIR / "peft")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if options.out.exists():
        shutil.rmtree(options.out)
    for name, entry in MODELS.items():
        make_model(options.out / name, name, entry)
    golden_common.write_json(options.out / "index.json", [{"name": n} | {k: e[k] for k in ("optional",) if k in e} for n, e in MODELS.items()])
    make_schedules(options.out)
    golden_common.write_versions(options.out, ["torch", "transformers", "peft", "safetensors"], cpu_capability=torch.backends.cpu.get_cpu_capability())
    golden_common.print_digests(options.out)


if __name__ == "__main__":
    main()
