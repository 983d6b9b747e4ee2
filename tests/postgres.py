"""A PostgreSQL server of the tests: one for each test process, on a socket in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from psycopg import sql

NO_POSTGRES = "there is no PostgreSQL; install it with: apt-get install postgresql"


@cache
def programs() -> Path | None:
    """The folder of initdb and its kin: Debian keeps them off $PATH."""
    found = shutil.which("initdb")
    installed = [Path(found).resolve()] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class Server:
    """user: of the database, who may do everything. folder: of its socket."""

    user = "diffsim"

    def __init__(self, folder: Path) -> None:
        found = programs()
        assert found
        self._programs = found
        self.folder = folder
        # initdb and the server refuse root.
        self._as = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        folder.chmod(0o755)
        self._run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={self.user}")
        rule = "local all locked scram-sha-256\n"
        rules = folder / "data/pg_hba.conf"
        rules.write_text(rule + rules.read_text())
        self.start()
        self.execute("CREATE ROLE locked LOGIN PASSWORD 'secret'")

    def start(self) -> None:
        settings = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=50"
        self._run("pg_ctl", "start", "-w", "-l", f"{self.folder}/log", "-o", settings)

    def stop(self, how: str = "immediate") -> None:
        """immediate: as in a power cut; what is committed is found again at the next start."""
        self._run("pg_ctl", "stop", "-w", "-m", how)

    def _run(self, program: str, *arguments: str) -> None:
        line = [self._programs / program, "-D", self.folder / "data", *arguments]
        # Not a pipe, which the server would keep open.
        with tempfile.TemporaryFile() as out:
            ran = subprocess.run(line, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT, **self._as)  # type: ignore[call-overload]
            out.seek(0)
            assert ran.returncode == 0, out.read().decode()

    def execute(self, statement: str, database: str = "postgres") -> list[tuple]:
        with psycopg.connect(host=str(self.folder), user=self.user, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(sql.SQL(statement))  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def new_database(self, more: str = "") -> str:
        """Make an empty database; its name."""
        name = f"d{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} {more}")
        return name

    def url(self, database: str = "postgres", user: str | None = None, **more: str) -> str:
        address = sqlalchemy.URL.create(
            "postgresql+psycopg", user or self.user, database=database, query={"host": str(self.folder), **more}
        )
        return address.render_as_string()

    @contextmanager
    def schema(self) -> Iterator[str]:
        """The URL of an empty schema, which takes a moment where a database takes a second."""
        name = f"s{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE SCHEMA {name}")
        yield self.url(options=f"-csearch_path={name}")
        self.execute(f"DROP SCHEMA {name} CASCADE")


@contextmanager
def running() -> Iterator[Server]:
    """A server of one's own."""
    if programs() is None:
        if os.environ.get("DIFFSIM_REQUIRE_POSTGRES"):
            pytest.fail(NO_POSTGRES)
        pytest.skip(NO_POSTGRES)
    with tempfile.TemporaryDirectory(prefix="diffsim-pg-", dir="/tmp") as name:
        server = Server(Path(name))
        try:
            yield server
        finally:
            if (server.folder / "data/postmaster.pid").exists():
                server.stop()
