"""How calls are secured: TLS, and the token that goes with each."""

import collections
import ipaddress
import json
import os

import grpc

_Call = collections.namedtuple("_Call", ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"))


class _Details(_Call, grpc.ClientCallDetails):
    pass


class _TokenInterceptor(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor,
                        grpc.StreamUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds the token to every call. gRPC's call credentials work on encrypted channels only, and loopback has none."""

    def __init__(self, token):
        self._header = ("authorization", f"Bearer {token}")

    def _with_token(self, details):
        return _Details(details.method, details.timeout, [*(details.metadata or ()), self._header], details.credentials,
                        getattr(details, "wait_for_ready", None), getattr(details, "compression", None))

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(self._with_token(details), request)

    def intercept_unary_stream(self, continuation, details, request):
        return continuation(self._with_token(details), request)

    def intercept_stream_unary(self, continuation, details, requests):
        return continuation(self._with_token(details), requests)

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(self._with_token(details), requests)


def local_service():
    """What `tundra local up` noted of the service it runs; {} where it runs none."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    home = os.environ.get("TUNDRA_HOME") or os.path.join(data, "tundra")
    try:
        with open(os.path.join(home, "local.json"), encoding="utf-8") as file:
            state = json.load(file)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _runs(local):
    """Whether the coordinator that was noted still runs: else its port may be somebody else's."""
    try:
        process = local["processes"][0]
        with open(f"/proc/{int(process['pid'])}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19] == process["start_time"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return False


def _read(path):
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def find_token(address):
    """$TUNDRA_TOKEN, else what $TUNDRA_TOKEN_FILE holds, else, for the service that `tundra local up` runs, its own;
    None where there is none."""
    if os.environ.get("TUNDRA_TOKEN"):
        return os.environ["TUNDRA_TOKEN"].strip()
    if os.environ.get("TUNDRA_TOKEN_FILE"):
        return _read(os.environ["TUNDRA_TOKEN_FILE"])
    local = local_service()
    if local.get("address") == address and isinstance(local.get("token_file"), str) and _runs(local):
        try:
            return _read(local["token_file"])
        except OSError:
            return None
    return None


def is_loopback(address):
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_channel(address, token, tls, tls_ca, insecure, options):
    """`tls_ca`: a PEM file that the service's certificate must chain to; it turns TLS on. `tls`: with the system's
    roots. Raises ValueError for an address beyond loopback without TLS, unless `insecure`."""
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("the token has signs in it that no token has")
    tls_ca = tls_ca or os.environ.get("TUNDRA_TLS_CA")
    if tls or tls_ca:
        roots = None
        if tls_ca:
            with open(tls_ca, "rb") as file:
                roots = file.read()
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)
    elif insecure or is_loopback(address):
        # Else $http_proxy would be handed calls and token, in the clear.
        channel = grpc.insecure_channel(address, [*options, ("grpc.enable_http_proxy", 0)])
    else:
        raise ValueError(f"{address} is not on loopback, and nothing would be encrypted: give tls_ca (or tls=True for the "
                         "system's roots), or insecure=True if the network is yours alone")
    return grpc.intercept_channel(channel, _TokenInterceptor(token)) if token else channel, channel
