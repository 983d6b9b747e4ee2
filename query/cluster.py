"""The shards of an index in processes of a Ray cluster, which are all asked at the same time.

A process holds some of the shards of its machine, at most as many processes as this has cores. Tokens of the gallery
stay there; what travels is the query, ids and scores. The machines are those that see the folder of the index by the
same path. A process that ends is started anew by the next question, which
does not wait for it. The catalog and the networks stay with the process that asks.
"""

import os
import pickle
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffsim.retrieval.devices import choose_device
from diffsim.retrieval.kit import SpaceKit
from diffsim.retrieval.shard.shard import LocalShard

from .errors import QueryError

# Ray reads these when it is imported.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

try:
    import ray
    from ray.exceptions import AuthenticationError, RayActorError, RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as NodeAffinity
except ImportError as problem:
    raise QueryError(
        "This index is asked over Ray, which is not installed; install it with: pip install 'diffsim-search[cluster]'."
    ) from problem

OPENING_S = 60.0
"""For as long as this, the first question waits until processes have started and opened their shards."""

HUNG_S = 60.0
"""A process that is late by as much as this is ended, and another one takes its place."""

_LARGE = 100_000
"""Bytes from which on a message is put into Ray's object store, so that each machine receives it once."""


class NoCluster(QueryError):
    """There is no Ray cluster at this address, or it does not let this program in."""


class ShardHost:
    """The process that holds some shards of a machine."""

    def __init__(self, device: str, threads: int) -> None:
        import faiss
        import torch

        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
        self._device = choose_device(device)
        self._shards: dict[int, LocalShard] = {}

    def pid(self) -> int:
        """Of this process; the first answer of a process that has started."""
        return os.getpid()

    def open(self, calls: Mapping[int, tuple[Any, ...]], kit: bytes) -> bytes:
        """Open spaces of shards, see LocalShard.open: by shard the space, its folder, and the digest."""
        known: SpaceKit = pickle.loads(kit).to(self._device)
        return self._answers(
            "open", {n: (space, Path(folder), known, digest) for n, (space, folder, digest) in calls.items()}
        )

    def each(self, method: str, calls: bytes) -> bytes:
        """Call a method of shards, each with its own arguments."""
        return self._answers(method, pickle.loads(calls))

    def all(self, method: str, numbers: Sequence[int], arguments: bytes) -> bytes:
        """Call a method of shards with the same arguments."""
        return self._answers(method, dict.fromkeys(numbers, pickle.loads(arguments)))

    def _answers(self, method: str, calls: Mapping[int, tuple[Any, ...]]) -> bytes:
        """What each shard returns, by number; an error in its place, which must not keep the other shards from
        answering. Pickled here, because arrays that Ray passes on itself cannot be written to."""
        answers: dict[int, Any] = {}
        for number, arguments in calls.items():
            shard = self._shards.setdefault(number, LocalShard())
            try:
                answers[number] = getattr(shard, method)(*arguments)
            except Exception as problem:
                answers[number] = _Failed(str(problem).rstrip(".") or type(problem).__name__)
        return pickle.dumps(answers, protocol=5)


def _sees(folder: str) -> bool:
    """Whether a machine sees the index."""
    return Path(folder, "index.toml").is_file()


@dataclass(frozen=True)
class _Failed:
    reason: str


@dataclass(eq=False)
class _Host:
    """A process from the side that asks. starting: until it has answered for the first time. late: a call that was not
    answered in time, and since when."""

    actor: Any
    node: str
    shards: list[int]
    starting: Any
    late: Any = None
    since: float = field(default_factory=time.monotonic)


class ClusterShards:
    """Shards in processes of a cluster, as query/shards.py describes. Raises NoCluster."""

    def __init__(self, folder: Path, address: str, device: str, timeout: float) -> None:
        connect(address)
        self._folder = folder.absolute()
        self.unanswered: dict[int, str] = {}
        self.bytes_sent = 0
        self._device, self._timeout = device, timeout
        self._hosts: list[_Host] = []
        self._probes: dict[str, Any] = {}  # by machine, whether it sees the folder
        self._cores: dict[str, int] = {}
        self._kits: dict[str, Any] = {}

    def begin(self, numbers: Collection[int]) -> set[int]:
        self.unanswered = {}
        known = {number for host in self._hosts for number in host.shards}
        fresh = set(numbers) - known
        first = not known
        self._start(sorted(fresh))
        self._look_after(OPENING_S if first else 0.0)
        return fresh

    def _start(self, numbers: Sequence[int]) -> None:
        """Start processes for shards: spread over the machines that see the index, at most one a core."""
        if not numbers:
            return
        nodes = self._nodes()
        for host in self._hosts:
            if host.node in nodes:
                nodes[host.node] -= 1
        most = max([1, *nodes.values()])
        places = [node for turn in range(most) for node, free in nodes.items() if free > turn] or list(nodes)
        places = places[: len(numbers)]
        gpus = 0.001 if self._device.startswith("cuda") else 0
        for place, node in enumerate(places):
            threads = max(1, self._cores[node] // places.count(node))
            options = ray.remote(ShardHost).options(
                num_cpus=0, num_gpus=gpus, max_restarts=0, scheduling_strategy=NodeAffinity(node, soft=False)
            )
            actor = options.remote(self._device, threads)
            self._hosts.append(_Host(actor, node, list(numbers[place :: len(places)]), actor.pid.remote()))

    def _nodes(self) -> dict[str, int]:
        """The machines that see the folder of the index by the same path, and how many cores each has: this one, and
        those that have said so."""
        here = ray.get_runtime_context().get_node_id()
        alive = {node["NodeID"]: int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"]}
        self._cores = {node: max(1, cores) for node, cores in alive.items()}
        for node in alive:
            if node != here and node not in self._probes:
                strategy = NodeAffinity(node, soft=False)
                probe = ray.remote(_sees).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
                self._probes[node] = probe.remote(str(self._folder))
        asked = [probe for node, probe in self._probes.items() if node in alive]
        if asked:
            ray.wait(asked, num_returns=len(asked), timeout=0.0 if self._hosts else OPENING_S)
        return {node: cores for node, cores in self._cores.items() if node == here or self._has_seen(node)}

    def _has_seen(self, node: str) -> bool:
        probe = self._probes[node]
        try:
            return bool(ray.wait([probe], timeout=0)[0]) and bool(ray.get(probe))
        except RayError:
            del self._probes[node]  # it is tried again
            return False

    def _look_after(self, patience: float) -> None:
        """Find out which processes can be asked: those that have started, and are not at work on an earlier call."""
        waiting = {host.starting or host.late: host for host in self._hosts if host.starting or host.late}
        if not waiting:
            return
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=patience)
        for call, host in waiting.items():
            if call in done:
                try:
                    ray.get(call)
                    # What it did too late may not be known here: its shards are opened anew.
                    host.starting = host.late = None
                except RayError as problem:
                    self._lose(host, problem)
            elif host.starting:
                self._leave_out(host, "its process is being started")
            elif time.monotonic() - host.since > HUNG_S:
                ray.kill(host.actor)
                self._forget(host, "its process answered no more and was ended; another one takes its place")
            else:
                self._leave_out(host, "its process is still at work on an earlier question")

    def call(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        sent = {}
        for host in self._hosts:
            calls = {n: arguments[n] for n in host.shards if n in arguments and n not in self.unanswered}
            if not calls:
                continue
            if method == "open":
                space, _, kit, _ = next(iter(calls.values()))
                plain = {n: (space, str(folder.absolute()), digest) for n, (space, folder, _, digest) in calls.items()}
                sent[host.actor.open.remote(plain, self._kit(space, kit))] = host
            else:
                sent[host.actor.each.remote(method, self._message(calls))] = host
        return self._gathered(sent, OPENING_S)

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        message = self._message(arguments)
        sent = {}
        for host in self._hosts:
            numbers = [number for number in host.shards if number not in self.unanswered]
            if numbers:
                sent[host.actor.all.remote(method, numbers, message)] = host
        self.bytes_sent += self._size * max(0, len(sent) - 1)
        found = self._gathered(sent, self._timeout)
        return [found[number] for number in sorted(found)]

    def _message(self, arguments: Any) -> Any:
        data = pickle.dumps(arguments, protocol=5)
        self._size = len(data)
        self.bytes_sent += len(data)
        return ray.put(data) if len(data) > _LARGE else data

    def _kit(self, space: str, kit: SpaceKit) -> Any:
        if space not in self._kits:
            self._kits[space] = ray.put(pickle.dumps(kit.to("cpu"), protocol=5))
        return self._kits[space]

    def _gathered(self, sent: Mapping[Any, _Host], patience: float) -> dict[int, Any]:
        """The answers by shard. Who does not answer has no further part in this question."""
        found: dict[int, Any] = {}
        if not sent:
            return found
        done, _ = ray.wait(list(sent), num_returns=len(sent), timeout=patience)
        for call, host in sent.items():
            if call not in done:
                host.late, host.since = call, time.monotonic()
                self._leave_out(host, f"it gave no answer within {patience:g} s")
                continue
            try:
                answers = pickle.loads(ray.get(call))
            except RayError as problem:
                self._lose(host, problem)
                continue
            for number, answer in answers.items():
                if isinstance(answer, _Failed):
                    self.unanswered[number] = answer.reason
                else:
                    found[number] = answer
        return found

    def _leave_out(self, host: _Host, reason: str) -> None:
        self.unanswered |= dict.fromkeys(host.shards, reason)

    def _lose(self, host: _Host, problem: RayError) -> None:
        if isinstance(problem, RayTaskError) or not isinstance(problem, RayActorError):
            reason = str(problem).strip().splitlines()[-1].rstrip(".")
        else:
            reason = "its process ended; another one takes its place"
        self._forget(host, reason)

    def _forget(self, host: _Host, reason: str) -> None:
        """The next question starts another process for these shards."""
        self._leave_out(host, reason)
        self._hosts.remove(host)

    def close(self) -> None:
        for host in self._hosts:
            ray.kill(host.actor)
        self._hosts.clear()
        self._kits.clear()


def connect(address: str) -> None:
    """Join the cluster at this address, or for `local` start one that is reached from this machine alone and ends with
    this process. One process has one cluster. Raises NoCluster."""
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    try:
        if address == "local":
            start_local(**quiet)
        else:
            ray.init(address=address, **quiet)
    except AuthenticationError as problem:
        raise NoCluster(
            f"The Ray cluster {address} wants a token that this machine lacks or that differs from its own; copy "
            "~/.ray/auth_token from the machine that runs the head."
        ) from problem
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as problem:
        reason = str(problem).strip().splitlines()[0].rstrip(".")
        raise NoCluster(
            f"There is no Ray cluster at {address} ({reason}); start one with `ray start --head`, or name another "
            "with `diffsim index --cluster ADDRESS`."
        ) from problem


def start_local(**settings: Any) -> None:
    """Start Ray in this process, bound to 127.0.0.1."""
    # Ray replaces 127.0.0.1 by an address that others reach unless it is told that there are no others.
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for the processes that it starts
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.setdefault("RAY_worker_niceness", "0")  # somebody waits for what they do
    ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **settings)
