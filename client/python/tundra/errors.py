"""What goes wrong."""

import functools

import grpc


class TundraError(Exception):
    """An error of the service. `code` is the name of a gRPC status code, for example "NOT_FOUND"."""

    def __init__(self, code, message):
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


class JobFailed(TundraError):
    """A job ended otherwise than well. `job` is the job as it stands."""

    def __init__(self, job):
        failure = job.get("failure", {})
        super().__init__(failure.get("code", job["state"]), failure.get("message") or f"{job['name']} is {job['state']}")
        self.job = job


def from_rpc(error, address):
    """The TundraError of a grpc.RpcError."""
    code = error.code().name
    message = error.details() or "no details"
    if code == "UNAVAILABLE":
        # The service says so itself when it is busy or stops; gRPC, when nobody answers.
        message = f"{address}: {message}; if no Tundra service runs there, start it or set TUNDRA_ADDRESS"
    return TundraError(code, message)


def translated(method):
    """For methods of objects with `address`: errors of gRPC become TundraErrors."""

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from None

    return call
