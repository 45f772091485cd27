#!/usr/bin/env python3
"""Writes the pretraining corpus of tiny-tales: stories and conversations.

One JSON object a line: {"text": ...} for a story, {"messages": [...]} for a
conversation. The same seed and count give the same bytes. No text of anybody
else is used.
"""

import argparse
import json
import os
import sys

import dialogue
import stories
from grammar import Rng

STORY_PERCENT = 25
VALIDATION_STREAM = 1 << 20  # so that validation never repeats the training stream


def document(seed, index, stream=0):
    """The document of an index, on its own random stream, so any part can be made alone."""
    rng = Rng(seed, stream + index)
    if rng.chance(STORY_PERCENT):
        return {"text": stories.story(rng)}
    return {"messages": dialogue.conversation(rng)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="build/pretrain/corpus", help="folder for train.jsonl and val.jsonl")
    parser.add_argument("--documents", type=int, default=60000, help="training documents (default %(default)s)")
    parser.add_argument("--validation", type=int, default=400, help="validation documents (default %(default)s)")
    parser.add_argument("--seed", type=int, default=17)
    args = parser.parse_args()
    if args.documents < 1 or args.validation < 1 or args.documents > VALIDATION_STREAM:
        sys.exit(f"corpus.py: --documents must be 1 to {VALIDATION_STREAM}, --validation at least 1")
    os.makedirs(args.out, exist_ok=True)
    for name, count, stream in (("train", args.documents, 0), ("val", args.validation, VALIDATION_STREAM)):
        path = os.path.join(args.out, name + ".jsonl")
        with open(path + ".tmp", "w", encoding="utf-8", newline="\n") as out:
            for i in range(count):
                out.write(json.dumps(document(args.seed, i, stream), ensure_ascii=False) + "\n")
        os.replace(path + ".tmp", path)
        print(f"{path}: {count} documents, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
