"""A job: what it is doing, its figures, its results."""

import os
import time

import grpc

from .errors import JobFailed, TundraError, translated
from .files import sha256
from .progress import Progress
from .v1 import artifact_pb2, job_pb2
from .values import to_dict

_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
# How long a service that went away is waited for.
_PATIENCE_SECONDS = 120


class Job:
    """Made by Client.submit, job and jobs. `data` is the job as it was last seen, a dict."""

    def __init__(self, client, data):
        self.client = client
        self.data = data

    def __repr__(self):
        return f"<tundra.Job {self.name} {self.state} step {self.data['step']}/{self.data['total_steps']}>"

    @property
    def address(self):
        return self.client.address

    @property
    def name(self):
        return self.data["name"]

    @property
    def state(self):
        """When last seen: "QUEUED", "RUNNING", "SUCCEEDED", …"""
        return self.data["state"]

    @property
    def ended(self):
        return self.state in _ENDED

    @translated
    def refresh(self):
        self.data = to_dict(self.client.stubs.jobs.GetJob(job_pb2.GetJobRequest(name=self.name),
                                                          timeout=self.client.timeout))
        return self

    def cancel(self):
        return self._ask(self.client.stubs.jobs.CancelJob, job_pb2.CancelJobRequest)

    def pause(self):
        return self._ask(self.client.stubs.jobs.PauseJob, job_pb2.PauseJobRequest)

    def resume(self):
        return self._ask(self.client.stubs.jobs.ResumeJob, job_pb2.ResumeJobRequest)

    @translated
    def delete(self):
        """An ended job, with its metrics, checkpoints and adapter."""
        self.client.stubs.jobs.DeleteJob(job_pb2.DeleteJobRequest(name=self.name), timeout=self.client.timeout)

    @translated
    def _ask(self, method, request):
        self.data = to_dict(method(request(name=self.name), timeout=self.client.timeout))
        return self

    def watch(self, after_sequence=0):
        """Yields ("event", dict) and ("metrics", dict), from the beginning or after a sequence number, each once, until
        the job has ended. Goes on where it was when the connection breaks. A paused job is waited for."""
        lost = None
        while True:
            try:
                request = job_pb2.WatchJobRequest(name=self.name, after_sequence=after_sequence)
                for message in self.client.stubs.jobs.WatchJob(request):
                    lost = None
                    if message.HasField("job"):
                        self.data = to_dict(message.job)
                    kind = message.WhichOneof("item")
                    if kind is None:
                        continue
                    item = to_dict(getattr(message, kind))
                    after_sequence = item["sequence"]
                    yield kind, item
                self.refresh()
                return
            except grpc.RpcError as error:
                lost = lost or time.monotonic()
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() - lost > _PATIENCE_SECONDS:
                    raise TundraError(error.code().name, error.details() or "the connection broke") from None
                time.sleep(0.5)

    def follow(self, progress=True, out=None):
        """Shows events and progress until the job has ended; returns it. Raises JobFailed when it did not succeed."""
        shown = Progress(out) if progress else None
        try:
            for kind, item in self.watch():
                if shown and kind == "event":
                    shown.event(item)
                elif shown:
                    shown.step(self.data, item)
        finally:
            if shown:
                shown.close()
        if self.state != "SUCCEEDED":
            raise JobFailed(self.data)
        return self

    def wait(self, timeout=None):
        """Until the job has ended; returns it, however it ended. TimeoutError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.refresh().ended:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is {self.state} after {timeout} s")
            time.sleep(0.5)
        return self

    @translated
    def metrics(self, after_sequence=0):
        """Those of every step so far, oldest first: a list of dicts (StepMetrics). With the "sequence" of the last one that
        is there already, only what is new."""
        request = job_pb2.ListMetricsRequest(parent=self.name, after_sequence=after_sequence)
        return self.client.pages(self.client.stubs.jobs.ListMetrics, request, "metrics")

    @translated
    def events(self, after_sequence=0):
        """What happened, oldest first; `after_sequence` as of metrics()."""
        request = job_pb2.ListEventsRequest(parent=self.name, after_sequence=after_sequence)
        return self.client.pages(self.client.stubs.jobs.ListEvents, request, "events")

    @translated
    def checkpoints(self):
        """Those that are kept, newest first."""
        request = artifact_pb2.ListCheckpointsRequest(parent=self.name)
        return self.client.pages(self.client.stubs.artifacts.ListCheckpoints, request, "checkpoints")

    @translated
    def download(self, folder, checkpoint=None):
        """The adapter's files into a folder, which is made; returns its path. Files that are there already and whole are
        kept. `checkpoint`: the step of one that is kept, instead of the finished adapter."""
        if checkpoint is None:
            adapter = self.refresh().data.get("adapter")
            if not adapter:
                raise TundraError("FAILED_PRECONDITION", f"{self.name} is {self.state} and has no adapter yet; "
                                  "wait for it, or name the step of a checkpoint")
        else:
            found = [c for c in self.checkpoints() if c["step"] == checkpoint]
            if not found:
                raise TundraError("NOT_FOUND", f"{self.name} keeps no checkpoint of step {checkpoint}")
            adapter = found[0]["adapter"]
        os.makedirs(folder, exist_ok=True)
        for file in adapter["files"]:
            self._download_file(adapter["name"], file, os.path.join(folder, os.path.basename(file["filename"])))
        return folder

    def _download_file(self, name, file, path):
        if os.path.exists(path) and sha256(path) == file["sha256"]:
            return
        part = path + ".part"
        request = artifact_pb2.DownloadFileRequest(name=name, filename=file["filename"])
        with open(part, "wb") as out:
            for message in self.client.stubs.artifacts.DownloadFile(request):
                out.write(message.chunk)
        if sha256(part) != file["sha256"]:
            os.remove(part)
            raise TundraError("DATA_LOSS", f"{file['filename']} arrived with other bytes than it has; try again")
        os.replace(part, path)
