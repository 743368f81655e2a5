"""The wire of the lab's EC2: faults, client tokens, counts and capacity in front of moto, by HTTP as the SDK speaks it.

What moto does not know is put right here: a client token gives the same answer again, `MaxCount` is what one gets, a
zone may have no room, a group in use cannot be deleted, an answer can be lost, a caller can be cut off.
"""

import hashlib
import io
import json
import random
import re
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Protocol

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

HTTP = {
    "UnauthorizedOperation": 403,
    "AccessDeniedException": 400,
    "AuthFailure": 401,
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
    "InternalError": 500,
    "InsufficientInstanceCapacity": 500,
}
DROP = "drop"
"""The code of a fault by which the connection is closed without an answer."""

type Answer = tuple[int, list[tuple[str, str]], bytes]
type Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came: when, in monotonic time, its action and parameters, and the access key and region of it."""

    at: float
    action: str
    params: Params
    key: str
    region: str


@dataclass(slots=True)
class Fault:
    """What goes wrong with calls of an action, the first `times` for which `match` holds, or a `share` of them.

    `code` is what is answered instead, `delay` the seconds before, `do` what happens then; `after`: once the call was
    carried out, so that its answer is lost.
    """

    action: str
    code: str = ""
    times: float = 1
    delay: float = 0.0
    after: bool = False
    share: float = 1.0
    match: Callable[[Call], bool] = lambda _: True
    do: Callable[[Call], object] = lambda _: None
    message: str = "the lab says no"
    hits: int = 0


class Model(Protocol):
    """What the wire must know of the cloud behind it."""

    def zone_of(self, params: Params) -> str: ...
    def room(self, zone: str, kind: str, market: str) -> float: ...
    def groups_in_use(self) -> set[str]: ...
    def forgotten(self, params: Params) -> list[str]: ...
    def has_living(self, machines: Sequence[str]) -> bool: ...
    def wrong_architecture(self, params: Params) -> str: ...
    def answer(self, action: str, params: Params) -> tuple[str, bytes] | None: ...


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Say nothing."""

    def connection_dropped(self, error: BaseException, environ: object = None) -> None:
        """Hang up at once."""
        self.close_connection = True


class Endpoint:
    """An HTTP server at `address`, with moto behind it.

    Attributes
    ----------
    url
        Where it is.
    calls
        Every call that came.
    ahead
        Seconds that its clock is ahead of the one here.
    """

    def __init__(self, address: str, model: Model) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._model = model
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._launching = threading.Lock()
        self._random = random.Random(5)
        self._tokens: dict[str, tuple[bytes, Answer]] = {}
        self._cut: set[str] = set()
        self.ahead = 0.0
        self.faults: list[Fault] = []
        self.calls: deque[Call] = deque(maxlen=50_000)
        self._server: BaseWSGIServer = make_server(address, 0, self._serve, threaded=True, request_handler=_Quiet)
        self.url = f"http://{address}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="endpoint", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()

    def fail(self, action: str, code: str = "", **more: Any) -> Fault:
        """Have calls of this action go wrong; `*` is all of them. See `Fault`."""
        self.faults.append(fault := Fault(action, code, **more))
        return fault

    def cut(self, key: str) -> None:
        """Let nothing through that comes with this access key."""
        self._cut.add(key)

    def mend(self, key: str) -> None:
        """Let it through again."""
        self._cut.discard(key)

    def count(self, action: str) -> int:
        """How often an action was called."""
        return sum(call.action == action for call in self.calls)

    # ---------------------------------------------------------------- one call

    def _serve(self, environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/checkip":
            start("200 OK", [("Content-Type", "text/plain")])
            return [f"{environ['REMOTE_ADDR']}\n".encode()]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        target = environ.get("HTTP_X_AMZ_TARGET", "")  # of the services that speak JSON
        params: Params = (
            json.loads(body or b"{}") if target else dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        )
        action = target.rpartition(".")[2] or str(params.get("Action", ""))
        found = re.search(r"Credential=([^/]+)/[^/]+/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        call = Call(time.monotonic(), action, params, *(found.groups() if found else ("", "")))
        self.calls.append(call)
        status, headers, text = self._suffer(call, environ, body, _speaker(bool(target)))
        kept = [each for each in headers if each[0].lower() not in ("content-length", "date")]
        date = formatdate(time.time() + self.ahead, usegmt=True)
        start(f"{status} Lab", [*kept, ("Date", date), ("Content-Length", str(len(text)))])
        return [text]

    def _suffer(self, call: Call, environ: dict[str, Any], body: bytes, say: "Speaker") -> Answer:
        """Carry a call out, with what goes wrong before and after."""
        fault = self._fault(call)
        if fault is not None:
            time.sleep(fault.delay)
        if call.key in self._cut:
            raise ConnectionAbortedError("cut off")
        if fault is not None and not fault.after:
            fault.do(call)
            if fault.code:
                return _refuse(fault, say)
            if call.key in self._cut:
                raise ConnectionAbortedError("cut off")
        answer = self._carry_out(call, environ, body, say)
        if fault is not None and fault.after:
            fault.do(call)
            if fault.code:
                return _refuse(fault, say)
        if call.key in self._cut:
            raise ConnectionAbortedError("cut off")
        return answer

    def _fault(self, call: Call) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.action in (call.action, "*") and fault.hits < fault.times and fault.match(call):
                    if fault.share < 1 and self._random.random() >= fault.share:
                        continue
                    fault.hits += 1
                    return fault
        return None

    def _carry_out(self, call: Call, environ: dict[str, Any], body: bytes, say: "Speaker") -> Answer:
        if (known := self._model.answer(call.action, call.params)) is not None:
            return 200, [("Content-Type", known[0])], known[1]
        match call.action:
            case "DeleteSecurityGroup" if call.params.get("GroupId") in self._model.groups_in_use():
                return say("DependencyViolation", f"resource {call.params['GroupId']} has a dependent object")
            case "TerminateInstances" if unknown := self._model.forgotten(call.params):
                return say("InvalidInstanceID.NotFound", f"The instance ID '{unknown[0]}' does not exist")
            case "RunInstances":
                with self._launching:
                    return self._launch(call, environ, say)
        return self._forward(environ, body)

    def _launch(self, call: Call, environ: dict[str, Any], say: "Speaker") -> Answer:
        params = {name: value for name, value in call.params.items() if name != "ClientToken"}
        token = call.params.get("ClientToken")
        digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).digest()
        known, answer = self._tokens.get(token or "", (None, None))
        if answer is not None:
            if known != digest:
                return say("IdempotentParameterMismatch", "other parameters than before")
            if not self._model.has_living(re.findall(r"<instanceId>(.+?)</instanceId>", answer[2].decode())):
                return say("IdempotentInstanceTerminated", "the token is associated with a terminated instance")
            return answer
        if wrong := self._model.wrong_architecture(params):
            return say("InvalidParameterValue", wrong)
        zone, kind = self._model.zone_of(params), params["InstanceType"]
        market = params.get("InstanceMarketOptions.MarketType", "on-demand")
        room = self._model.room(zone, kind, market)
        if room < int(params["MinCount"]):
            text = (
                f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone})."
            )
            return say("InsufficientInstanceCapacity", text)
        count = min(int(params["MaxCount"]), room)
        body = urllib.parse.urlencode({**params, "MinCount": int(count), "MaxCount": int(count)}).encode()
        answer = self._forward(environ, body)
        if token and answer[0] == 200:
            self._tokens[token] = digest, answer
        return answer

    def _forward(self, environ: dict[str, Any], body: bytes) -> Answer:
        seen: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], error: object = None) -> Callable[[bytes], object]:
            seen.extend((int(status.split(maxsplit=1)[0]), headers))
            return lambda _: None

        more = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        text = b"".join(self._moto({**environ, **more}, start))
        return seen[0], seen[1], text


type Speaker = Callable[[str, str], Answer]
"""Says an error, as the service in question does."""


def _speaker(as_json: bool) -> Speaker:
    def say(code: str, message: str) -> Answer:
        if as_json:
            text = json.dumps({"__type": code, "message": message})
            return HTTP.get(code, 400), [("Content-Type", "application/x-amz-json-1.1")], text.encode()
        text = f"<Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        text = f"<Response>{text}<RequestID>lab</RequestID></Response>"
        return HTTP.get(code, 400), [("Content-Type", "text/xml")], text.encode()

    return say


def _refuse(fault: Fault, say: Speaker) -> Answer:
    if fault.code == DROP:
        raise ConnectionAbortedError("dropped")
    return say(fault.code, fault.message)
