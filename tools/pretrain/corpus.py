#!/usr/bin/env python3
"""Writes the pretraining corpus of tiny-tales: stories and conversations.

One JSON object a line: {"text": ...} for a story, {"messages": [...]} for a
conversation. train.jsonl also trains the tokenizer; extra.jsonl is for the model
alone: exercises of repeat.py, and conversations in which the system message asks
for a pirate's voice. The same seed and count give
the same bytes. No text of anybody else is used.
"""

import argparse
import json
import os
import sys

import dialogue
import pirate
import repeat
import stories
from grammar import Rng

STORY_PERCENT = 25
VALIDATION_STREAM = 1 << 20  # so that validation never repeats the training stream
EXTRA_STREAM = 1 << 21


def document(seed, index, stream=0):
    """The document of an index, on its own random stream, so any part can be made alone."""
    rng = Rng(seed, stream + index)
    if rng.chance(STORY_PERCENT):
        return {"text": stories.story(rng)}
    return {"messages": dialogue.conversation(rng)}


def extra(seed, index):
    rng = Rng(seed, EXTRA_STREAM + index)
    if index % 2:
        return {"messages": repeat.exercise(rng)}
    messages = [m for m in dialogue.conversation(rng, style=pirate.speak, stories_too=False) if m["role"] != "system"]
    return {"messages": [{"role": "system", "content": rng.choice(pirate.SYSTEMS)}] + messages}


def write(path, documents):
    with open(path + ".tmp", "w", encoding="utf-8", newline="\n") as out:
        for entry in documents:
            out.write(json.dumps(entry, ensure_ascii=False) + "\n")
    os.replace(path + ".tmp", path)
    print(f"{path}: {os.path.getsize(path)} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="build/pretrain/corpus", help="folder for the three files")
    parser.add_argument("--documents", type=int, default=60000, help="training documents (default %(default)s)")
    parser.add_argument("--validation", type=int, default=400, help="validation documents (default %(default)s)")
    parser.add_argument("--seed", type=int, default=17)
    args = parser.parse_args()
    if args.documents < 1 or args.validation < 1 or args.documents > VALIDATION_STREAM:
        sys.exit(f"corpus.py: --documents must be 1 to {VALIDATION_STREAM}, --validation at least 1")
    os.makedirs(args.out, exist_ok=True)
    write(os.path.join(args.out, "train.jsonl"), (document(args.seed, i) for i in range(args.documents)))
    write(os.path.join(args.out, "val.jsonl"), (document(args.seed, i, VALIDATION_STREAM) for i in range(args.validation)))
    write(os.path.join(args.out, "extra.jsonl"), (extra(args.seed, i) for i in range(args.documents // 4)))


if __name__ == "__main__":
    main()
