"""The connection to a service, and what is asked of it as a whole."""

import os
import types
import uuid

from .errors import TundraError, from_rpc, translated
from .files import chunks, sha256
from .job import Job
from .security import find_token, local_service, open_channel
from .v1 import (artifact_pb2_grpc, base_pb2, base_pb2_grpc, dataset_pb2, dataset_pb2_grpc, generate_pb2,
                 generate_pb2_grpc, job_pb2, job_pb2_grpc, job_spec_pb2)
from .values import fill, fill_resources, to_dict

_DEFAULT_ADDRESS = "127.0.0.1:7700"
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def find_address():
    """$TUNDRA_ADDRESS, else the service that `tundra local up` runs, else 127.0.0.1:7700."""
    if os.environ.get("TUNDRA_ADDRESS"):
        return os.environ["TUNDRA_ADDRESS"]
    address = local_service().get("address")
    return address if isinstance(address, str) and address else _DEFAULT_ADDRESS


class Client:
    """A connection to a Tundra service; a context manager. Threads may share a client.

    `address`: HOST:PORT, by default find_address(). `token`: the text of a token; by default $TUNDRA_TOKEN, what
    $TUNDRA_TOKEN_FILE holds, or the one that `tundra local up` made. `tls_ca`: a PEM file that the service's certificate
    must chain to ($TUNDRA_TLS_CA by default); `tls`: check it by the system's roots. An address beyond loopback needs one
    of these, or `insecure`. `timeout`: of short calls, in seconds."""

    def __init__(self, address=None, timeout=60, token=None, tls_ca=None, tls=False, insecure=False):
        self.address = address or find_address()
        self.timeout = timeout
        channel, self._channel = open_channel(
            self.address, token or find_token(self.address), tls, tls_ca, insecure,
            options=[("grpc.max_receive_message_length", 16 << 20), ("grpc.keepalive_time_ms", 10_000)])
        self.stubs = types.SimpleNamespace(
            jobs=job_pb2_grpc.JobServiceStub(channel),
            datasets=dataset_pb2_grpc.DatasetServiceStub(channel),
            bases=base_pb2_grpc.BaseServiceStub(channel),
            artifacts=artifact_pb2_grpc.ArtifactServiceStub(channel),
            generate=generate_pb2_grpc.GenerateServiceStub(channel))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._channel.close()

    def pages(self, method, request, field, limit=None):
        """The items of a List call over all its pages, as dicts."""
        items = []
        while True:
            answer = method(request, timeout=self.timeout)
            items += [to_dict(item) for item in getattr(answer, field)]
            request.page_token = answer.next_page_token
            if not answer.next_page_token or (limit is not None and len(items) >= limit):
                return items[:limit]

    @translated
    def bases(self):
        """The bases that jobs can name."""
        return self.pages(self.stubs.bases.ListBases, base_pb2.ListBasesRequest(), "bases")

    @translated
    def datasets(self):
        """Newest first; an admin gets those of every tenant, named in each one's "tenant"."""
        return self.pages(self.stubs.datasets.ListDatasets, dataset_pb2.ListDatasetsRequest(), "datasets")

    @translated
    def upload(self, path):
        """A file of rows (.jsonl, .jsonl.gz, .jsonl.zst); returns the data set. One that is there already is not kept
        twice."""
        if not str(path).endswith(_SUFFIXES):
            raise ValueError(f"{path}: the name must end in {', '.join(_SUFFIXES)}")
        metadata = dataset_pb2.UploadDatasetRequest.Metadata(
            display_name=os.path.basename(path), size_bytes=os.path.getsize(path), sha256=sha256(path))

        def messages():
            yield dataset_pb2.UploadDatasetRequest(metadata=metadata)
            for chunk in chunks(path):
                yield dataset_pb2.UploadDatasetRequest(chunk=chunk)

        return to_dict(self.stubs.datasets.UploadDataset(messages()))

    @translated
    def validate(self, data, base, **options):
        """Reads every row as training would; returns the report. `data`: a file, or the name of a data set. `options`:
        max_seq_length, truncate, loss_on, preview_rows. "valid" in the report says whether a job may train on it."""
        request = dataset_pb2.ValidateDatasetRequest(name=self._dataset(data), base=base)
        fill(request, options, "validate")
        return to_dict(self.stubs.datasets.ValidateDataset(request))

    @translated
    def submit(self, base, train, validation=None, name=None, lora=None, training=None, checkpoint=None, eval=None,
               resources=None, labels=None, request_id=None):
        """Uploads the data, validates it, and makes a job.

        `train` and `validation` are files or names of data sets. The other parts are dicts with the keys of a job file:
        lora={"rank": 16}, training={"epochs": 3, "learning_rate": 2e-4, "precision": "bf16"},
        resources={"devices": 2, "shards": "auto"}, checkpoint={"every_steps": 50}, eval={"samples": ["Hello?"]}.
        `request_id` makes the call repeatable: the same one with the same request is the same job, for 24 hours.
        Raises ValueError for a key that there is not, TundraError for data or values that won't do, with every fault."""
        spec = job_spec_pb2.JobSpec(base=base)
        for part, values in (("lora", lora), ("training", training), ("checkpoint", checkpoint), ("eval", eval)):
            fill(getattr(spec, part), values or {}, part)
        fill_resources(spec.resources, resources or {})
        spec.dataset.train = self._checked(train, base, spec.training)
        if validation is not None:
            spec.dataset.validation = self._checked(validation, base, spec.training)
        job = job_pb2.Job(display_name=name or os.path.splitext(os.path.basename(str(train)))[0], spec=spec,
                          labels=labels or {})
        request = job_pb2.CreateJobRequest(job=job, request_id=request_id or str(uuid.uuid4()))
        return Job(self, to_dict(self.stubs.jobs.CreateJob(request, timeout=self.timeout)))

    def _dataset(self, data):
        return data if str(data).startswith("datasets/") else self.upload(data)["name"]

    def _checked(self, data, base, training):
        dataset = self._dataset(data)
        request = dataset_pb2.ValidateDatasetRequest(name=dataset, base=base, max_seq_length=training.max_seq_length,
                                                     truncate=training.truncate, loss_on=training.loss_on)
        report = to_dict(self.stubs.datasets.ValidateDataset(request))
        if not report["valid"]:
            lines = [f"{data}:{e['line']}: {e['message']}" for e in report["errors"]]
            more = report["error_count"] - len(lines)
            raise TundraError("INVALID_ARGUMENT", "\n".join(lines + ([f"and {more} more"] if more > 0 else [])))
        return dataset

    @translated
    def job(self, name):
        """By "jobs/ID" or ID. Display names need not be unique: jobs() finds those of one."""
        name = name if name.startswith("jobs/") else f"jobs/{name}"
        return Job(self, to_dict(self.stubs.jobs.GetJob(job_pb2.GetJobRequest(name=name), timeout=self.timeout)))

    @translated
    def jobs(self, filter="", limit=None):
        """Newest first. `filter`: for example 'state = RUNNING AND labels.team = "search"'. An admin gets those of every
        tenant, which each job's data["tenant"] names; 'tenant = "search"' in the filter takes those of one."""
        request = job_pb2.ListJobsRequest(filter=filter)
        return [Job(self, data) for data in self.pages(self.stubs.jobs.ListJobs, request, "jobs", limit)]

    def generate(self, **request):
        """Yields an answer piece by piece, while it is made: dicts with "text", "tokens" and, in the last,
        "finish_reason". Keywords are the fields of GenerateRequest: base="tiny-tales", prompt="Hello",
        adapter=job.name + "/adapter", max_tokens=64."""
        message = generate_pb2.GenerateRequest()
        fill(message, request, "generate")
        try:
            for answer in self.stubs.generate.Generate(message):
                yield to_dict(answer)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from None
