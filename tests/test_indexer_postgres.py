"""An index whose catalog is in a PostgreSQL database: the real command on a real server."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from conftest import TINY
from indexing import FAST, Ran, build, diffsim, draw, listing, problem
from postgres import Server, running
from sqlalchemy import make_url

import diffsim as package
from benchmarks.kills import in_child
from diffsim.db.catalog import Catalog
from diffsim.db.database import CatalogUnavailable
from diffsim.indexer.build import IndexOptions
from diffsim.indexer.index_folder import IndexBusy, IndexFolder, NoIndex
from diffsim.indexer.maintain import verify_index

SPACE = "--model", TINY, "--by", "look", "--size", "64", "--device", "cpu"
MANY_COMMITS = IndexOptions(workers=1, batch_size=1, device="cpu", commit_seconds=0)


def index(folder: Path, where: Path, url: str, before: Callable[[], object] = lambda: None) -> Ran:
    return diffsim("index", folder, "--index", where, "--catalog", url, *SPACE, before=before)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """One that may be stopped."""
    with running() as server:
        yield server


@pytest.fixture
def restarted(own_server: Server) -> Iterator[str]:
    """The URL of an empty schema on it; it runs again afterwards."""
    with own_server.schema() as url:
        try:
            yield url
        finally:
            if not (own_server.folder / "data/postmaster.pid").exists():
                own_server.start()


def whole(where: Path, folder: Path) -> None:
    """Every picture of the folder is in the index once, with sound features, and nothing else is."""
    index = IndexFolder.open(where)
    with index.catalog(readonly=True) as catalog:
        (space,) = catalog.spaces()
        known = catalog.indexed(space.id)
        files = [file.path for files in catalog.files_of(known.ids.tolist()).values() for file in files]
        assert list(catalog.pending([space.id])) == []
    assert sorted(files) == sorted(os.fsencode(path) for path in folder.rglob("*.png"))
    with index.store(space.fingerprint, 0, readonly=True) as store:
        assert store.check(known.hashes()) == []
    found = verify_index(index, 2**28)
    assert [check.damaged for check in found.spaces] == [[]] and found.strays == []


def test_the_whole_life_of_an_index(pictures: Path, tmp_path: Path, database: str) -> None:
    where, url = tmp_path / "index", database.replace("+psycopg", "")
    made = index(pictures, where, url)
    assert (made.code, made.err.count("Error")) == (0, 0), made
    assert b"12 pictures extracted" in made.out
    assert not (where / "catalog.sqlite").exists()
    again = index(pictures, where, url)
    assert again.code == 0 and b"0 pictures extracted" in again.out and b"12 unchanged" in again.out
    local = diffsim("index", pictures, "--index", tmp_path / "local", *SPACE)
    assert local.code == 0
    for question in (("--top", "5"), ("--folder", pictures / "sub"), ("--min-side", "80"), ("--after", "2001-01-01")):
        asked = [
            diffsim("query", pictures / "03.png", "--index", each, *question) for each in (where, tmp_path / "local")
        ]
        assert asked[0].code == 0 and asked[0].out == asked[1].out, asked
    (pictures / "00.png").unlink()
    (pictures / "01.png").rename(pictures / "moved.png")
    before = listing(where)
    dry = diffsim("index", "--index", where, "--dry-run")
    assert dry.code == 0 and b"11 pictures on disk, 11 of them indexed" in dry.out, dry
    state = diffsim("status", "--index", where)
    assert state.code == 0 and f"catalog  {make_url(url).set(drivername='postgresql+psycopg')}" in state.out.decode()
    assert listing(where) == before
    assert diffsim("index", "--index", where).code == 0
    pruned = diffsim("prune", "--index", where)
    assert pruned.out == b"forgot 1 missing files and 1 pictures\n", pruned
    checked = diffsim("verify", "--index", where)
    assert checked.code == 0 and checked.out.endswith(b"clean\n"), checked
    whole(where, pictures)


def test_python_too(pictures: Path, tmp_path: Path, database: str) -> None:
    spaces = package.Space(model=TINY, by="look", size=64)
    report = package.index(tmp_path / "index", pictures, spaces=spaces, options=FAST, catalog=database)
    assert report.extracted == 12
    with package.open(tmp_path / "index", device="cpu") as searcher:
        assert len(searcher.search(pictures / "03.png", k=20)) == 11


def test_a_password_is_refused_and_never_shown(pictures: Path, tmp_path: Path, server: Server) -> None:
    for address in (
        "postgresql://locked:hunter2@/postgres",
        "postgresql://locked@/postgres?password=hunter2",
        "postgresql://locked:hunter2@host:port/x",
        "mysql://locked:hunter2@host/x",
        "hunter2",
    ):
        said = problem(index(pictures, tmp_path / "index", address))
        assert "hunter2" not in said and not (tmp_path / "index").exists(), said
    (tmp_path / "made").mkdir()
    lines = 'format = 1\ncatalog = "postgresql+psycopg://locked:hunter2@/postgres"\nidentity = "a"\n'
    (tmp_path / "made/index.toml").write_text(lines)
    assert "hunter2" not in problem(diffsim("status", "--index", tmp_path / "made"))


def without_driver() -> None:
    sys.modules["psycopg"] = None  # type: ignore[assignment]


@pytest.mark.parametrize("wrong", ["user", "database", "schema", "server", "parameter", "encoding", "rights", "driver"])
def test_what_cannot_be_used_leaves_no_trace(pictures: Path, tmp_path: Path, server: Server, wrong: str) -> None:
    url, said, before = server.url(), "", lambda: None
    match wrong:
        case "user":
            url, said = server.url(user="locked"), "password"
        case "database":
            url, said = server.url("nobody"), 'database "nobody" does not exist'
        case "schema":
            url, said = server.url(options="-csearch_path=nobody"), "CREATE SCHEMA"
        case "server":
            url, said = f"postgresql://diffsim@/x?host={tmp_path}", "could not be used"
        case "parameter":
            url, said = server.url(autocommit="1"), "the parameter 'autocommit'"
        case "encoding":
            url, said = server.url(server.new_database("ENCODING LATIN1 TEMPLATE template0")), "its encoding is LATIN1"
        case "rights":
            server.execute("CREATE ROLE weak LOGIN")
            server.execute("CREATE SCHEMA closed")
            server.execute("GRANT USAGE ON SCHEMA closed TO weak")
            url, said = server.url(user="weak", options="-csearch_path=closed"), "permission denied for schema closed"
        case "driver":
            before, said = without_driver, "pip install 'diffsim-search[postgres]'"
    assert said in problem(index(pictures, tmp_path / "index", url, before))
    assert not (tmp_path / "index").exists()


def test_a_password_from_the_environment(pictures: Path, tmp_path: Path, server: Server) -> None:
    server.execute("CREATE SCHEMA of_locked AUTHORIZATION locked")
    url = server.url(user="locked", options="-csearch_path=of_locked")
    made = index(pictures, tmp_path / "index", url, lambda: os.environ.update(PGPASSWORD="secret"))
    assert made.code == 0, made
    said = problem(diffsim("query", pictures / "03.png", "--index", tmp_path / "index"))
    assert "no password supplied" in said
    wrong = diffsim("status", "--index", tmp_path / "index", before=lambda: os.environ.update(PGPASSWORD="wr0ng"))
    assert "password authentication failed" in problem(wrong) and "wr0ng" not in wrong.err
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"secret" not in file.read_bytes()


def test_one_database_holds_one_index(pictures: Path, tmp_path: Path, database: str) -> None:
    assert index(pictures, tmp_path / "first", database).code == 0
    before = dump(database)
    assert "holds the catalog of another index" in problem(index(pictures, tmp_path / "second", database))
    assert not (tmp_path / "second").exists()
    lines = (tmp_path / "first/index.toml").read_text()
    (tmp_path / "third").mkdir()
    identity = IndexFolder.open(tmp_path / "first").identity
    assert identity
    (tmp_path / "third/index.toml").write_text(lines.replace(identity, "f" * 32))
    for command in (("index", pictures, *SPACE), ("status",), ("verify",), ("prune",)):
        said = problem(diffsim(*command, "--index", tmp_path / "third"))
        assert "holds the catalog of another index" in said
    assert "stays there" in problem(index(pictures, tmp_path / "first", database.replace("?", "s?")))
    assert dump(database) == before


def dump(database: str) -> dict[str, list[tuple]]:
    url = make_url(database)
    with psycopg.connect(
        host=url.query["host"], user=url.username, dbname=url.database, options=url.query["options"]
    ) as connection:
        names = connection.execute(
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = current_schema()"
        ).fetchall()
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall()) for (name,) in names}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "tables",
    [
        "CREATE TABLE files (name text)",
        "CREATE TABLE schema_version (version int)",
        "CREATE TABLE schema_version (version int, name text); INSERT INTO schema_version VALUES (1, 'of_others')",
        "CREATE TABLE schema_version (version int, name text)",
    ],
)
def test_tables_of_others_are_refused_before_anything_is_written(
    pictures: Path, tmp_path: Path, server: Server, database: str, tables: str
) -> None:
    schema = make_url(database).query["options"].partition("=")[2]  # type: ignore[union-attr]
    server.execute(f"SET search_path = {schema}; {tables}")
    before = dump(database)
    assert "tables that are none of a diffsim-search catalog" in problem(index(pictures, tmp_path / "index", database))
    assert dump(database) == before and not (tmp_path / "index").exists()


def test_a_run_that_cannot_begin_leaves_a_database_that_can_be_used(
    pictures: Path, tmp_path: Path, database: str
) -> None:
    ran = diffsim("index", tmp_path / "typo", "--index", tmp_path / "index", "--catalog", database, *SPACE)
    assert "typo" in problem(ran) and not (tmp_path / "index").exists()
    assert index(pictures, tmp_path / "index", database).code == 0


def test_a_catalog_that_is_gone_is_not_begun_anew(pictures: Path, tmp_path: Path, server: Server) -> None:
    with server.schema() as database:
        assert index(pictures, tmp_path / "index", database).code == 0
        schema = make_url(database).query["options"].partition("=")[2]  # type: ignore[union-attr]
        server.execute(f"DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema}")
        before = listing(tmp_path / "index/spaces")
        for command in (("index",), ("prune",), ("verify",), ("status",)):
            said = problem(diffsim(*command, "--index", tmp_path / "index"))
            assert "holds no catalog any more; restore it from a backup" in said
        assert listing(tmp_path / "index/spaces") == before


def test_a_second_machine_cannot_write(pictures: Path, tmp_path: Path, database: str, monkeypatch) -> None:
    """Its own copy of the folder has a lock of its own: it is the database that knows."""
    monkeypatch.setattr("diffsim.db.postgres.LOCK_PATIENCE_S", 0.3)
    build(IndexFolder.create(tmp_path / "index", database).path, pictures)
    shutil.copytree(tmp_path / "index", tmp_path / "copy")
    index_here, index_there = (IndexFolder.open(tmp_path / name) for name in ("index", "copy"))
    with index_here.writing(), index_here.catalog() as catalog:
        with pytest.raises(IndexBusy, match=rf"is being written by process {os.getpid()} on .* since 20"):
            build(tmp_path / "copy", pictures)
        with index_there.catalog(readonly=True) as reader:
            assert reader.generation() == catalog.generation()
    build(tmp_path / "copy", pictures)


def test_another_schema_may_be_written_meanwhile(pictures: Path, tmp_path: Path, server: Server) -> None:
    with server.schema() as one, server.schema() as other:
        index_here = IndexFolder.create(tmp_path / "one", one)
        with index_here.writing(), index_here.catalog(create=True):
            assert build(IndexFolder.create(tmp_path / "other", other).path, pictures).extracted == 12


def test_kills_at_every_commit(tmp_path: Path, database: str) -> None:
    draw(tmp_path / "pictures", range(4))
    where = IndexFolder.create(tmp_path / "index", database).path
    for step in range(1, 12):
        seen: list[str] = []

        def die(name: str, seen: list[str] = seen, step: int = step) -> None:
            seen.append(name)
            if len(seen) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        child = in_child(lambda: build(where, tmp_path / "pictures", options=MANY_COMMITS, on_step=die))
        status = os.waitpid(child, 0)[1]
        if os.waitstatus_to_exitcode(status) == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    build(where, tmp_path / "pictures")
    whole(where, tmp_path / "pictures")


@pytest.mark.parametrize(("how", "step"), [("immediate", "mark_indexed"), ("fast", "set_recall_file")])
def test_the_server_goes_away_in_mid_run(
    pictures: Path, tmp_path: Path, own_server: Server, restarted: str, how: str, step: str
) -> None:
    where = tmp_path / "index"

    def stop_before() -> None:
        real = getattr(Catalog, step)

        def stopped(*given: object) -> object:
            own_server.stop(how)
            return real(*given)

        setattr(Catalog, step, stopped)

    broken = index(pictures, where, restarted, stop_before)
    said = [line for line in broken.err.splitlines() if line.startswith("Error: ")]
    assert broken.code == 1 and len(said) == 1 and "Traceback" not in broken.err, broken
    assert "what was committed is kept" in said[0]
    assert "could not be used" in problem(diffsim("status", "--index", where))
    own_server.start()
    resumed = index(pictures, where, restarted)
    assert resumed.code == 0 and b"12 unchanged" in resumed.out, resumed
    whole(where, pictures)


def test_a_reader_goes_on_when_the_server_is_back(
    pictures: Path, tmp_path: Path, own_server: Server, restarted: str
) -> None:
    where = IndexFolder.create(tmp_path / "index", restarted).path
    build(where, pictures)
    with package.open(where, device="cpu") as searcher:
        before = searcher.search(pictures / "03.png")
        own_server.stop()
        with pytest.raises(CatalogUnavailable, match="see that the server runs"):
            searcher.search(pictures / "03.png")
        own_server.start()
        assert searcher.search(pictures / "03.png") == before


def test_an_index_of_another_kind_is_not_opened(tmp_path: Path) -> None:
    for line in ('"mysql://root@host/x"', '"postgresql+asyncpg://u@h/x"', '"sqlite:////etc/passwd"'):
        (tmp_path / "index.toml").write_text(f'format = 1\ncatalog = {line}\nidentity = "a"\n')
        with pytest.raises(NoIndex):
            IndexFolder.open(tmp_path)


def test_a_damaged_row_is_named_by_verify(pictures: Path, tmp_path: Path, database: str) -> None:
    where = IndexFolder.create(tmp_path / "index", database).path
    build(where, pictures)
    with closing(Catalog.open(database)) as catalog, catalog._database.writing() as connection:
        connection.exec_driver_sql("UPDATE contents SET width = width + 1 WHERE id = 3")
    said = problem(diffsim("verify", "--index", where))
    assert "the checksum of content 3 is wrong" in said and "only catalogs in files can be rebuilt" in said
