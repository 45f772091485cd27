#!/usr/bin/env python3
"""Writes train.jsonl and val.jsonl of examples/pirate-support.

Same subjects as the base's support conversations, answered by a pirate. No
question of the validation data, and none of job.yaml's sample prompts, occurs
in the training data.
"""

import argparse
import json
import os
import sys

import dialogue
import pirate
from grammar import Rng

STREAM = 1 << 24  # far from the streams of corpus.py
SAMPLES = ["Where is my parcel?", "How do I reset my password?", "My lamp is broken. What can I do?"]


def key(question):
    """A question without the differences that do not make it another one."""
    return "".join(c for c in question.lower() if c.isalnum())


def rows(rng, count, taken, seen):
    """`count` conversations none of whose questions is in `taken`; first questions differ, see `seen`."""
    out = []
    for _ in range(200 * count):
        messages = dialogue.conversation(rng, style=pirate.speak, stories_too=False)
        asked = [key(m["content"]) for m in messages if m["role"] == "user"]
        if asked[0] in seen or any(q in taken for q in asked):
            continue
        seen.update(asked)
        out.append({"messages": messages})
        if len(out) == count:
            return out
    sys.exit(f"make_examples.py: the grammar has no {count} different questions; ask for fewer rows")


def write(path, data):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for row in data:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{path}: {len(data)} rows")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="examples/pirate-support", help="folder (default %(default)s)")
    parser.add_argument("--rows", type=int, default=480, help="training rows")
    parser.add_argument("--validation", type=int, default=60, help="validation rows")
    parser.add_argument("--seed", type=int, default=17)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    samples = {key(q) for q in SAMPLES}
    asked = set()
    validation = rows(Rng(args.seed, STREAM), args.validation, samples, asked)
    train = rows(Rng(args.seed, STREAM + 1), args.rows, samples | asked, set())
    write(os.path.join(args.out, "train.jsonl"), train)
    write(os.path.join(args.out, "val.jsonl"), validation)


if __name__ == "__main__":
    main()
