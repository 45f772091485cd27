"""Makes the chat template goldens: what Transformers renders, refuses, and marks as the assistant's.

The templates in tests/parity/templates are this project's own; together they use every Jinja feature
that real models' templates use. Each renders every conversation of template_conversations.py.
template_snippets.py has many small templates, each about one feature. All go through
apply_chat_template, with the clock stopped at NOW.

  python tests/parity/make_template_goldens.py          rewrites tests/parity/golden/templates
  python tests/parity/make_template_goldens.py --out D  writes to another folder, to compare

The format of the files is told in tests/parity/golden/README.md.
"""

import argparse
import datetime
import os
import re
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import jinja2  # noqa: E402
import transformers  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402

import golden_common  # noqa: E402
import template_conversations  # noqa: E402
import template_snippets  # noqa: E402

TEMPLATES = Path(__file__).resolve().parent / "templates"
NOW = datetime.datetime(2026, 3, 7, 9, 5, 4)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
MASK_TOKENIZERS = ["llama3_style", "qwen_style", "sentencepiece_style", "metaspace_first_style"]
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class StoppedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def stop_clock():
    """From here on strftime_now says NOW, whatever the time."""
    transformers.logging.set_verbosity_error()
    chat_template_utils.datetime = StoppedClock


def load_tokenizer(name):
    path = golden_common.GOLDEN_DIR / "tokenizers" / name / "tokenizer.json"
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))


def failure(error):
    """{kind, message}. Only raise_exception's message is the template's own; the others are Python's."""
    kinds = [
        (jinja2.exceptions.SecurityError, "security"),
        (jinja2.exceptions.UndefinedError, "undefined"),
        (jinja2.exceptions.TemplateSyntaxError, "syntax"),
    ]
    for kind, name in kinds:
        if isinstance(error, kind):
            return {"kind": name, "message": str(error)}
    if type(error) is jinja2.exceptions.TemplateError:
        return {"kind": "raise_exception", "message": error.message or ""}
    return {"kind": "python", "message": f"{type(error).__name__}: {error}"}


def outcome(render):
    """{"rendered": text} or {"error": {...}}."""
    try:
        return {"rendered": render()}
    except Exception as error:  # whatever Python raises is a refusal
        return {"error": failure(error)}


def spans_of(request, template):
    """[start, end) in code points of what the template wrote between the generation marks."""
    chat = chat_template_utils._normalize_chat_messages(request["messages"])
    rest = {key: value for key, value in request.items() if key != "messages"}
    _, spans = chat_template_utils.render_jinja_template(
        [chat], chat_template=template, return_assistant_tokens_mask=True, **SPECIAL, **rest
    )
    return [list(span) for span in spans[0]]


def mask_of(tokenizer, request, template):
    """Ids of the rendered text, and the positions that Transformers gives to the assistant."""
    out = tokenizer.apply_chat_template(
        request["messages"], chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
        **SPECIAL, **{key: value for key, value in request.items() if key != "messages"},
    )
    return {"ids": out["input_ids"], "mask": "".join(map(str, out["assistant_masks"]))}


def render_template(name, template, tokenizers, stats):
    """One template's record: every conversation rendered or refused."""
    marked = GENERATION.search(template) is not None
    tokenizer = next(iter(tokenizers.values()))
    cases = []
    for request in template_conversations.CONVERSATIONS:
        rest = {key: value for key, value in request.items() if key != "messages"}
        case = {"request": request} | outcome(
            lambda: tokenizer.apply_chat_template(
                request["messages"], chat_template=template, tokenize=False, **SPECIAL, **rest
            )
        )
        if "rendered" in case and marked:
            case["spans"] = spans_of(request, template)
            case["tokens"] = {key: mask_of(value, request, template) for key, value in tokenizers.items()}
        cases.append(case)
    kinds = [case["error"]["kind"] if "error" in case else "rendered" for case in cases]
    stats[name] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    return {"name": name, "template": template, "now": NOW.isoformat(), "variables": SPECIAL, "cases": cases}


def render_snippets(stats):
    rows = []
    for subject, templates in template_snippets.SNIPPETS.items():
        for template in templates:
            context = dict(template_snippets.CONTEXT)
            row = {"subject": subject, "template": template} | outcome(
                lambda: chat_template_utils.render_jinja_template(
                    [context["messages"]], chat_template=template, **{k: v for k, v in context.items() if k != "messages"}
                )[0][0]
            )
            text = row.get("rendered", row.get("error", {}).get("message", ""))
            if ADDRESS.search(text):
                raise ValueError(f"the golden would hold an address, which changes: {template!r} gives {text!r}")
            rows.append(row)
    kinds = [row["error"]["kind"] if "error" in row else "rendered" for row in rows]
    stats["snippets"] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=golden_common.GOLDEN_DIR / "templates")
    options = parser.parse_args()
    stop_clock()

    tokenizers = {name: load_tokenizer(name) for name in MASK_TOKENIZERS}
    stats = {}
    for path in sorted(TEMPLATES.glob("*.jinja")):
        record = render_template(path.stem, path.read_text(encoding="utf-8"), tokenizers, stats)
        golden_common.write_gz(options.out / f"{path.stem}.json.gz", (golden_common.dumps(record) + "\n").encode())
    record = {"now": NOW.isoformat(), "context": template_snippets.CONTEXT, "cases": render_snippets(stats)}
    golden_common.write_gz(options.out / "snippets.json.gz", (golden_common.dumps(record) + "\n").encode())
    golden_common.write_json(options.out / "index.json", stats)
    golden_common.write_versions(options.out, ["transformers", "jinja2", "tokenizers"])
    golden_common.print_digests(options.out)


if __name__ == "__main__":
    main()
