"""Questions over a Ray cluster: the answers of one process, and what is said where a shard does not answer.

All tests that start Ray are in this module, and share one cluster.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import TINY, random_picture
from hypothesis import HealthCheck, Phase, given, settings
from indexing import FAST, diffsim, draw, problem
from test_query_shards import as_asked, assert_same, different_pictures, queries

from diffsim.indexer.build import index_folders
from diffsim.indexer.index_folder import BadCluster, IndexFolder, NoIndex
from diffsim.indexer.requests import requested_spaces
from diffsim.query.query import Answer, Query, Unanswered
from diffsim.query.search import Searcher
from diffsim.query.shards import NoShardAnswers

SHARDS = {1: 1000, 2: 22, 3: 15, 7: 7}
SPACES = ("style", "instance", "look")
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures in an index of one shard, of two, three and seven, each with a link to be asked over Ray."""
    work = tmp_path_factory.mktemp("cluster")
    draw(work / "pictures" / "a", range(20))
    draw(work / "pictures" / "b", range(20, 36))
    draw(work / "pictures" / "c", range(36, 42))
    random_picture(77).save(work / "outside.png")
    for shards, capacity in SHARDS.items():
        options = replace(FAST, shard_pictures=capacity)
        requests = requested_spaces(str(TINY), SPACES, size=64, tier="fp32")
        index_folders(IndexFolder.create(work / f"index{shards}"), [work / "pictures"], requests, options)
    return work


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray cluster of this process, with a token of its own."""
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    from diffsim.query import cluster

    cluster.OPENING_S = 300  # tests may share the machine with others
    cluster.start_local(
        num_cpus=2, object_store_memory=100_000_000, log_to_driver=False, logging_level="error", configure_logging=False
    )
    yield
    cluster.ray.shutdown()


@pytest.fixture(scope="module")
def alone(work: Path, cluster: None) -> Iterator[dict[int, Searcher]]:
    """Searchers in this process, of the index of one shard and of that of two."""
    yield {shards: Searcher(work / f"index{shards}", "cpu") for shards in SHARDS}


@pytest.fixture(scope="module")
def over_ray(work: Path, alone: object) -> Iterator[dict[int, Searcher]]:
    searchers = {}
    for shards in SHARDS:
        index = IndexFolder.open(work / f"index{shards}").use_cluster("local")
        searchers[shards] = Searcher(index.path, "cpu", shard_timeout=60)
    yield searchers
    for searcher in searchers.values():
        searcher.close()


@pytest.fixture
def two(work: Path, over_ray: object) -> Iterator[Searcher]:
    """An index of two shards, each in a process of its own."""
    with Searcher(work / "index2", "cpu", shard_timeout=60) as searcher:
        searcher.search(1)
        assert len(searcher.collection._shards._hosts) == 2
        yield searcher


def process(searcher: Searcher, shard: int) -> psutil.Process:
    """The process that holds a shard."""
    from diffsim.query import cluster

    (host,) = [host for host in searcher.collection._shards._hosts if shard in host.shards]
    return psutil.Process(cluster.ray.get(host.actor.pid.remote()))


def until_whole(searcher: Searcher, query: Query) -> Answer:
    """Ask until all shards have a part in the answer."""
    end = time.monotonic() + PATIENCE_S
    while True:
        answer = searcher.answer(query)
        if not answer.unanswered:
            return answer
        assert time.monotonic() < end, answer.unanswered
        time.sleep(0.5)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(query=queries.filter(different_pictures))
def test_any_question_over_ray(
    query: Query, work: Path, alone: dict[int, Searcher], over_ray: dict[int, Searcher]
) -> None:
    asked = as_asked(query, work)
    expected = alone[1].answer(asked)
    for searcher in over_ray.values():
        assert_same(searcher.answer(asked), expected)


def test_many_questions_and_two_steps(work: Path, alone: dict[int, Searcher], over_ray: dict[int, Searcher]) -> None:
    asking = [Query(work / "outside.png", k=5), Query(3, spaces=SPACES), Query([3, 9], fold=True)]
    expected = alone[1].search_many(asking)
    for ours, theirs in zip(over_ray[3].search_many(asking), expected, strict=True):
        assert_same(ours, theirs)
    for ours, theirs in zip(over_ray[2].answers(asking[0]), alone[1].answers(asking[0]), strict=True):
        assert_same(ours, theirs)
    ours, theirs = over_ray[7].embeddings("style"), alone[1].embeddings("style")
    assert ours.paths == theirs.paths and (ours.descriptors == theirs.descriptors).all()


def test_what_a_run_commits_is_found_by_the_next_question(work: Path, over_ray: dict[int, Searcher]) -> None:
    before = over_ray[3].answer(Query(1, k=100, spaces=["style"]))
    draw(work / "more", [60])
    index_folders(IndexFolder.open(work / "index3"), [work / "more"], (), FAST)
    after = over_ray[3].answer(Query(1, k=100, spaces=["style"]))
    assert after.pictures == before.pictures + 1 and not after.unanswered
    with Searcher(work / "index3", "cpu") as anew:
        assert_same(after, anew.answer(Query(1, k=100, spaces=["style"])))


# A shard that does not answer


def assert_of_the_first_shard(answer: Answer, expected: Answer) -> None:
    """Complete for what it says that it is about: shard 0 holds the contents 1 to 22."""
    kept = [hit for hit in expected.hits if hit.content_id <= 22]
    assert [hit.content_id for hit in answer.hits] == [hit.content_id for hit in kept]
    for ours, theirs in zip(answer.hits, kept, strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=1e-5)
        assert ours.by_chance is None or ours.by_chance <= 22
    assert answer.pictures == 22 and answer.notes[0] == str(answer.unanswered[0])


def test_a_dead_shard_is_named_and_comes_back(two: Searcher, alone: dict[int, Searcher]) -> None:
    query = Query(1, k=100, exact=True, include_self=True)
    expected = alone[2].answer(query)
    process(two, 1).kill()
    answer = two.answer(query)
    reason = "its process ended; another one takes its place"
    assert answer.unanswered == (Unanswered(1, 20, reason),)
    assert_of_the_first_shard(answer, expected)
    at_once = two.answer(query)
    assert not at_once.unanswered or at_once.unanswered[0].reason == "its process is being started"
    assert_same(until_whole(two, query), expected)


def test_a_shard_that_dies_in_the_middle_of_a_question(
    two: Searcher, alone: dict[int, Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it has recalled candidates: what is answered is as if it had had no part from the start."""
    query = Query(1, k=100, include_self=True)
    expected = alone[2].answer(Query(1, k=100, exact=True, include_self=True))
    score, dying = two.collection.score, [process(two, 1)]

    def dies(*arguments: object) -> object:
        while dying:
            dying.pop().kill()
        return score(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(two.collection, "score", dies)
    answer = two.answer(query)
    assert [shard.shard for shard in answer.unanswered] == [1] and answer.recalled == 22
    assert_of_the_first_shard(answer, expected)
    assert not any("readable features" in note for note in answer.notes)


def test_a_late_shard_is_named_and_comes_back(two: Searcher, alone: dict[int, Searcher]) -> None:
    query = Query(1, k=100, exact=True, include_self=True)
    expected = alone[2].answer(query)
    stopped = process(two, 1)
    two.collection._shards._timeout = 3.0
    stopped.send_signal(signal.SIGSTOP)
    try:
        answer = two.answer(query)
        assert answer.unanswered == (Unanswered(1, 20, "it gave no answer within 3 s"),)
        assert_of_the_first_shard(answer, expected)
        again = two.answer(query)
        assert again.unanswered[0].reason == "its process is still at work on an earlier question"
    finally:
        stopped.send_signal(signal.SIGCONT)
    two.collection._shards._timeout = 60.0
    assert_same(until_whole(two, query), expected)


def test_a_process_that_hangs_is_replaced(two: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffsim.query import cluster

    monkeypatch.setattr(cluster, "HUNG_S", 0.0)
    hung = process(two, 1)
    two.collection._shards._timeout = 3.0
    hung.send_signal(signal.SIGSTOP)
    assert two.answer(Query(1)).unanswered and two.answer(Query(1)).unanswered
    two.collection._shards._timeout = 60.0
    until_whole(two, Query(1))
    assert process(two, 1).pid != hung.pid


def test_no_shard_answers(two: Searcher, work: Path) -> None:
    for shard in (0, 1):
        process(two, shard).kill()
    with pytest.raises(NoShardAnswers, match=r"None of the 2 shards of the index answered .*; ask again in a minute"):
        two.answer(Query(work / "outside.png"))
    until_whole(two, Query(work / "outside.png"))


def test_a_shard_whose_files_are_gone_is_named(work: Path, over_ray: object, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(work / "index2", tmp_path / "index")
    for space in (tmp_path / "index" / "spaces").iterdir():
        shutil.rmtree(space / "shards" / "0001")
    with Searcher(tmp_path / "index", "cpu") as searcher:
        answer = searcher.answer(Query(1, k=100))
        assert [(shard.shard, shard.pictures) for shard in answer.unanswered] == [(1, 20)]
        assert answer.pictures == 22 and "0001" in answer.unanswered[0].reason
        with pytest.raises(NoShardAnswers, match="The features of picture 40 are in no shard that answered"):
            searcher.answer(Query(40))


def test_the_command_over_a_cluster_of_its_own(work: Path, over_ray: object, tmp_path: Path) -> None:
    """`local`: Ray begins and ends with the command. A shard that is gone is named in every form of the answer."""
    import shutil

    index = tmp_path / "index"
    shutil.copytree(work / "index2", index)
    for space in (index / "spaces").iterdir():
        shutil.rmtree(space / "shards" / "0001")
    code = "from diffsim.query.cli import main; main()"
    asked = ["query", str(work / "outside.png"), "--index", str(index), "--format", "json", "--strict", "-k", "3"]
    ran = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, timeout=200)
    assert ran.returncode == 1, ran
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(rows) == 3 and all(row["unanswered"][0]["pictures"] == 20 for row in rows)
    assert "Shard 1 with 20 pictures had no part in this answer" in ran.stderr
    assert "Error: The answer lacks 1 of the shards, and --strict wants all of them" in ran.stderr


def test_nothing_listens_beyond_loopback(over_ray: object) -> None:
    """Of all processes of Ray that this one started."""
    listening = [
        connection.laddr.ip
        for child in psutil.Process().children(recursive=True)
        for connection in child.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3 and set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert os.environ["RAY_AUTH_MODE"] == "token" and os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


# Without Ray


def test_the_files_of_the_page_are_sound() -> None:
    page = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text(encoding="utf-8")
    compose, launcher = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    services = compose["services"]
    assert set(services) == {"head", "worker"}
    for service in services.values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token" and service["command"].startswith("ray start ")
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service["secrets"]) <= set(compose["secrets"])
    assert {"cluster_name", "provider", "auth"} <= set(launcher)
    for role in ("head", "worker"):
        stop, start = launcher[f"{role}_start_ray_commands"]
        assert stop == "ray stop" and start.startswith("RAY_AUTH_MODE=token ")


def test_the_cluster_of_an_index_is_remembered(tmp_path: Path) -> None:
    index = IndexFolder.create(tmp_path / "index")
    assert index.cluster is None
    assert index.use_cluster("head.example:6379").cluster == "head.example:6379"
    assert IndexFolder.open(index.path).use_cluster("auto").catalog_url == index.catalog_url
    with pytest.raises(BadCluster, match="'ray://x' is not the address of a Ray cluster; give auto"):
        index.use_cluster("ray://x")
    assert IndexFolder.open(index.path).cluster == "auto"
    assert index.use_cluster("none").cluster is None
    (index.path / "index.toml").write_text('format = 1\ncatalog = "sqlite:///catalog.sqlite"\ncluster = 7\n')
    with pytest.raises(NoIndex, match="cannot be understood"):
        IndexFolder.open(index.path)


def test_without_the_extra_one_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    draw(tmp_path / "pictures", range(2))
    made = ("index", tmp_path / "pictures", "--index", tmp_path / "index", "--model", TINY, "--size", "64")
    assert diffsim(*made, "--cluster", "local", "--device", "cpu").code == 0

    def no_ray() -> None:
        sys.modules.pop("diffsim.query.cluster", None)
        sys.modules["ray"] = None  # type: ignore[assignment]

    text = problem(diffsim("query", tmp_path / "pictures" / "00.png", "--index", tmp_path / "index", before=no_ray))
    assert text.endswith("install it with: pip install 'diffsim-search[cluster]'.")
