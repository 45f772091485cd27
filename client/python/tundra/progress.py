"""A progress bar on a terminal, lines elsewhere."""

import sys
import time

_WIDTH = 28
_LINE_SECONDS = 10
# What a terminal might obey; line breaks and tabs among them, since a message is one line.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7f, 0xa0))}


def printable(text):
    """Text of others for a terminal: control characters as "\\x1b", so that they are seen and do nothing."""
    return text.translate(_CONTROL)


class Progress:
    """Of one job, on `out`."""

    def __init__(self, out=None):
        self.out = out if out is not None else sys.stderr
        self.live = self.out.isatty()
        self.last_line = 0.0
        self.drawn = 0

    def event(self, event):
        self._clear()
        mark = "!" if event.get("warning") else " "
        print(f"{mark} {printable(event['message'])}", file=self.out, flush=True)

    def step(self, job, metrics):
        total = job.get("total_steps", 0)
        done = metrics["step"]
        text = f"step {done}/{total}" if total else f"step {done}"
        if "train_loss" in metrics:
            text += f"  loss {metrics['train_loss']:.4f}"
        if "validation_loss" in metrics:
            text += f"  validation {metrics['validation_loss']:.4f}"
        if metrics.get("step_seconds"):
            text += f"  {metrics['tokens'] / metrics['step_seconds']:.0f} tokens/s"
        if job.get("time_left"):
            text += f"  {job['time_left']:.0f} s left"
        if self.live:
            part = int(_WIDTH * done / total) if total else 0
            self._clear()
            line = f"[{'#' * part}{'.' * (_WIDTH - part)}] {text}"
            self.out.write(line)
            self.out.flush()
            self.drawn = len(line)
        elif time.monotonic() - self.last_line > _LINE_SECONDS or "validation_loss" in metrics or done == total:
            self.last_line = time.monotonic()
            print(text, file=self.out, flush=True)

    def close(self):
        if self.drawn:
            self.out.write("\n")
            self.drawn = 0

    def _clear(self):
        if self.drawn:
            self.out.write("\r" + " " * self.drawn + "\r")
            self.drawn = 0
