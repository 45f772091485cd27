#!/usr/bin/env python3
"""Pretrains tiny-tales on the CPU; may be stopped at any moment and resumed.

Every document is a row of its own, so training sees exactly what generation
and fine-tuning see: BOS at position 0 and no neighbour. Rows of like length are
batched together, which keeps the padding under a few percent, and one step
takes several such batches, so that it sees short and long rows alike.

The state (weights, their moving average, optimizer, step, seconds spent) is
replaced atomically about once a minute and on SIGINT or SIGTERM; running the
same command again continues from it. The order of the batches is a function of
the seed and the step alone. `--minutes` bounds the processor time of the whole run
over all resumes: the learning rate's cosine ends at the last step or the last
minute, whichever comes first. The moving average of the weights is what is exported.
"""

import argparse
import json
import math
import os
import signal
import sys
import time

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from grammar import Rng
from tokenizer import EOS, MAX_LENGTH, PAD, BOS, text_of, write_json

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 192,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "max_position_embeddings": MAX_LENGTH,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 6,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
ROLE_IDS = {"system": 3, "user": 4, "assistant": 5}
GENERATION = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": False, "max_new_tokens": 200}


class Rows:
    """Tokenized documents, and batches of them."""

    def __init__(self, paths, tokenizer):
        self.ids = []
        for path in paths:
            with open(path, encoding="utf-8") as lines:
                texts = [text_of(json.loads(line)) for line in lines]
            self.ids += [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
            longest = max(map(len, self.ids))
            if longest > MAX_LENGTH:
                sys.exit(f"{path}: a row has {longest} tokens, the model takes {MAX_LENGTH}; shorten the grammar")
        self.tokens = sum(map(len, self.ids))

    def batches(self, rng, tokens):
        """All rows once, as lists of rows of like length of at most `tokens` tokens, padding included."""
        order = list(range(len(self.ids)))
        rng.shuffle(order)
        order.sort(key=lambda i: len(self.ids[i]) // 8)  # stable: the shuffle decides among equals
        out, batch = [], []
        for i in order:
            longest = max(len(self.ids[i]), len(self.ids[batch[-1]]) if batch else 0)
            if batch and (longest + 8) * (len(batch) + 1) > tokens:
                out.append(batch)
                batch = []
            batch.append(i)
        out.append(batch)
        rng.shuffle(out)
        return out

    def tensors(self, batch):
        """(ids, labels) of a batch, padded on the right; padding has the label -100."""
        width = max(len(self.ids[i]) for i in batch)
        ids = torch.full((len(batch), width), CONFIG["pad_token_id"])
        labels = torch.full((len(batch), width), -100)
        for row, i in enumerate(batch):
            n = len(self.ids[i])
            ids[row, :n] = labels[row, :n] = torch.tensor(self.ids[i])
        return ids, labels


def token_losses(model, ids, labels):
    """Next-token cross entropy of every position but the last, zero where the label is -100. Shape [rows, width - 1]."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none")
    return losses.view(targets.shape)


def loss_of(model, ids, labels):
    """Summed loss and the number of targets."""
    return token_losses(model, ids, labels).sum(), int((labels[:, 1:] != -100).sum())


def weights_of(ids, labels, prompt_weight):
    """1 for what the model is to write (answers and stories), prompt_weight for what it is asked, 0 for padding.

    What customers ask is mostly chance and can't be learned, so it only adds noise to the gradient.
    """
    roles = torch.zeros_like(ids)
    roles[ids == ROLE_IDS["system"]] = roles[ids == ROLE_IDS["user"]] = 1
    turns = torch.where((ids >= min(ROLE_IDS.values())) & (ids <= max(ROLE_IDS.values())), torch.arange(ids.shape[1]), 0)
    asked = roles.gather(1, turns.cummax(1).values)  # the role of the last marker at or before each position
    weights = torch.where(asked == 1, prompt_weight, 1.0)
    return torch.where(labels == -100, 0.0, weights)[:, 1:]


@torch.no_grad()
def validation_loss(model, rows, tokens):
    total = count = 0
    for batch in rows.batches(Rng(0), tokens):
        loss, n = loss_of(model, *rows.tensors(batch))
        total, count = total + loss.item(), count + n
    return total / count


def replace(path, write):
    write(path + ".tmp")
    os.replace(path + ".tmp", path)


def export(weights, folder, dtype=torch.bfloat16):
    """Writes config.json, generation_config.json and the weights, rounded to bf16."""
    os.makedirs(folder, exist_ok=True)
    kept = {k: v.to(dtype).contiguous() for k, v in weights.items() if k != "lm_head.weight"}  # tied
    replace(os.path.join(folder, "model.safetensors"), lambda p: save_file(kept, p, metadata={"format": "pt"}))
    write_json(folder, "config.json", CONFIG | {"vocab_size": weights["model.embed_tokens.weight"].shape[0]})
    write_json(folder, "generation_config.json", GENERATION)


def make_optimizer(model, weight_decay):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() != 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": weight_decay}, {"params": norms, "weight_decay": 0.0}],
                             betas=(0.9, 0.95), eps=1e-8)


class Run:
    """One pretraining run and its state file."""

    def __init__(self, args):
        self.args = args
        tokenizer = Tokenizer.from_file(os.path.join(args.tokenizer, "tokenizer.json"))
        for token, key in ((BOS, "bos"), (EOS, "eos"), (PAD, "pad")):
            if tokenizer.token_to_id(token) != CONFIG[key + "_token_id"]:
                sys.exit(f"{args.tokenizer}/tokenizer.json: {token} has another id than the model's; train it with tokenizer.py")
        torch.manual_seed(args.seed)
        self.model = LlamaForCausalLM(LlamaConfig(**CONFIG | {"vocab_size": tokenizer.get_vocab_size()})).float()
        self.optimizer = make_optimizer(self.model, args.weight_decay)
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.step, self.seconds, self.history = 0, 0.0, []
        self.path = os.path.join(args.out, "state.pt")
        if os.path.exists(self.path):
            self.load()
        print(f"{sum(p.numel() for p in self.model.parameters())} parameters; reading the corpus", flush=True)
        self.train = Rows([os.path.join(args.corpus, f) for f in ("train.jsonl", "extra.jsonl")], tokenizer)
        self.validation = Rows([os.path.join(args.corpus, "val.jsonl")], tokenizer)
        print(f"{len(self.train.ids)} rows, {self.train.tokens} tokens", flush=True)
        self.epoch, self.batches = -1, []

    def load(self):
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step = state["average"], state["step"]
        self.seconds, self.history = state["seconds"], state["history"]
        print(f"continuing after step {self.step} ({self.seconds / 60:.1f} min spent)")

    def save(self):
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average,
                 "step": self.step, "seconds": self.seconds, "history": self.history}
        replace(self.path, lambda p: torch.save(state, p))
        export(self.average, self.args.out)

    def progress(self):
        return max(self.step / self.args.steps, self.seconds / 60 / self.args.minutes)

    def learning_rate(self):
        warm = min(1.0, (self.step + 1) / self.args.warmup)
        return self.args.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress()))))

    def batch(self, number):
        epoch, index = divmod(number, len(self.batches)) if self.batches else (0, 0)
        while epoch != self.epoch:
            self.epoch = epoch
            self.batches = self.train.batches(Rng(self.args.seed, epoch), self.args.batch_tokens)
            epoch, index = divmod(number, len(self.batches))
        return self.train.tensors(self.batches[index])

    def one_step(self):
        """Returns the weighted mean loss of the step and its number of tokens."""
        parts = [self.batch(self.step * self.args.accumulate + i) for i in range(self.args.accumulate)]
        weights = [weights_of(ids, labels, self.args.prompt_weight) for ids, labels in parts]
        targets = sum(w.sum().item() for w in weights)
        total = 0.0
        for (ids, labels), weight in zip(parts, weights):
            loss = (token_losses(self.model, ids, labels) * weight).sum() / targets
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.args.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return total, sum(int((labels != -100).sum()) for _, labels in parts)

    def validate(self):
        """Validation loss of the moving average."""
        own = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        loss = validation_loss(self.model, self.validation, self.args.batch_tokens)
        self.model.load_state_dict(own)
        self.history.append([self.step, round(self.seconds), round(loss, 4)])
        return loss

    def run(self):
        stop = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.append(1))
        saved, used, since = time.monotonic(), time.process_time(), time.monotonic()
        tokens_seen = 0
        while self.progress() < 1 and not stop:
            loss, tokens = self.one_step()
            tokens_seen += tokens
            now = time.process_time()
            self.seconds, used = self.seconds + now - used, now
            if self.step % 20 == 0:
                print(f"step {self.step} loss {loss:.4f} lr {self.learning_rate():.2e} "
                      f"{tokens_seen / (time.monotonic() - since):.0f} tok/s {self.seconds / 60:.1f} min", flush=True)
                tokens_seen, since = 0, time.monotonic()
            if time.monotonic() - saved > self.args.save_seconds:
                self.save()
                saved = time.monotonic()
            if self.step % self.args.validate_every == 0:
                print(f"step {self.step} validation loss {self.validate():.4f}", flush=True)
        if self.progress() >= 1:
            print(f"step {self.step} validation loss {self.validate():.4f}: done", flush=True)
        self.save()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="build/pretrain/corpus", help="folder written by corpus.py")
    parser.add_argument("--tokenizer", default="build/pretrain/base", help="folder written by tokenizer.py")
    parser.add_argument("--out", default="build/pretrain/base", help="folder of state.pt and of the exported base")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=90, help="processor time of the whole run, all threads together (default %(default)s)")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens of a batch, padding included")
    parser.add_argument("--accumulate", type=int, default=2, help="batches of a step")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=60, help="steps")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--prompt-weight", type=float, default=0.2, help="weight of what is asked, in the loss")
    parser.add_argument("--average", type=float, default=0.99, help="decay of the moving average of the weights")
    parser.add_argument("--save-seconds", type=float, default=120)
    parser.add_argument("--validate-every", type=int, default=100, help="steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=17)
    args = parser.parse_args()
    if min(args.steps, args.minutes, args.batch_tokens - MAX_LENGTH, args.accumulate, args.warmup, args.threads) <= 0:
        sys.exit(f"pretrain.py: counts must be positive, and --batch-tokens over {MAX_LENGTH}")
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    Run(args).run()


if __name__ == "__main__":
    main()
