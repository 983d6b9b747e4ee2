"""The app answers as its own OpenAPI description says, whatever is asked: schemathesis, within the process."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
import webs
from conftest import random_picture
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from indexing import build, draw
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.schemas import BaseSchema
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from diffsim.query.web import schemas

PICTURES = 12
SETTINGS = settings(
    max_examples=20,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
HEADERS = {"Authorization": f"Bearer {webs.TOKEN}", "Host": "127.0.0.1:8765"}
# What the schema cannot tell is refused too: a weight of 0, a folder that the index does not know.
EXCLUDED = [positive_data_acceptance]

OPERATIONS = {  # and what each must have answered in this test, lest it never gets past the door
    "GET /thumbnails/{content_id}": {200, 422},
    "GET /previews/{content_id}": {200, 422},
    "GET /full/{content_id}": {200, 422},
    "GET /originals/{content_id}": {200, 422},
    "GET /api/pictures": {200, 422},
    "POST /api/pictures": {200, 422},
    "GET /api/pictures/{content_id}": {200, 422},
    "GET /api/folders": {200},
    "POST /api/search": {200, 422},
    "GET /api/why": {200, 422},
    "GET /api/why/attention": {200, 422},
    "POST /api/uploads": {201, 422},
    "POST /api/uploads/address": {403, 422},
    "GET /uploads/{name}": {200, 410},
    "POST /api/zip": {200, 422},
    "POST /api/sheet": {200, 422},
    "GET /api/index": {200},
    "POST /api/runs": {404, 422},
    "POST /api/runs/prune": {201, 409},
    "DELETE /api/runs/current": set(),  # 200 or 409: another test may have started a run
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("openapi")
    draw(folder / "pictures", range(PICTURES))
    build(folder / "index", folder / "pictures")
    with webs.client(folder / "index") as client:
        yield client


@pytest.fixture(scope="module")
def schema(client: TestClient) -> BaseSchema:
    async def started(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # the client starts and ends the app; schemathesis would do so after each test
            await client.app(scope, receive, send)

    return schemathesis.openapi.from_asgi("/api/openapi.json", started, headers=HEADERS)


@pytest.fixture(scope="module")
def upload(client: TestClient, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    path = tmp_path_factory.mktemp("upload") / "picture.png"
    random_picture(99).save(path)
    return client.post("/api/uploads", content=path.read_bytes()).json()["picture"], path.read_bytes()


def test_the_operations_are_those_of_the_description(schema):
    assert {operation.ok().label for operation in schema.get_all_operations()} == set(OPERATIONS)


def real(value: Any, upload: str) -> Any:
    """Ids that exist in the place of made-up ones, anywhere in a request; one in thirteen does not."""
    if isinstance(value, dict):
        return {name: real_field(name, each, upload) for name, each in value.items()}
    return [real(each, upload) for each in value] if isinstance(value, list) else value


def real_field(name: str, value: Any, upload: str) -> Any:
    if value is None:
        return None
    if name in ("content_id", "picture", "a", "b", "name", "only", "pictures"):
        if isinstance(value, list):
            return [real_field(name, each, upload) for each in value]
        if name == "name" or (isinstance(value, str) and not value.isdecimal()):
            return upload if len(value) % 13 else value
        number = int(value) % (PICTURES + 1) or PICTURES + 1
        return str(number) if isinstance(value, str) else number
    if name in ("space", "spaces", "compare"):
        return None if name == "space" else []
    if name == "folders":
        return []
    if name in ("row", "column"):
        return int(value) % 3
    return real(value, upload)


def with_pictures(asked: dict[str, Any]) -> None:
    """A search by pictures alone: a picture and a text exclude each other, which the description cannot tell."""
    for one in (asked, *(asked.get("examples") or ())):
        one["picture"] = one.get("picture") or 1
        one.pop("text", None)


@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_as_described(schema, upload, label):
    operation = next(found.ok() for found in schema.get_all_operations() if found.ok().label == label)
    seen: Counter[int] = Counter()

    def check(case: schemathesis.Case, *excluded: Any) -> None:
        answer = case.call(headers=HEADERS)
        seen[answer.status_code] += 1
        case.validate_response(answer, excluded_checks=[*EXCLUDED, *excluded], headers=HEADERS)
        kind = answer.headers["content-type"][0]
        if answer.status_code >= 400:
            assert kind == "application/problem+json"
            problem = schemas.Problem.model_validate_json(answer.content)
            assert problem.detail.endswith(".") and len(problem.detail.splitlines()) == 1, problem
        elif kind == "application/x-ndjson":
            stages = [schemas.AnswerOut.model_validate_json(line).stage for line in answer.text.splitlines()]
            assert stages in (["recalled", "ranked"], ["ranked"]), stages

    def examples(mode: GenerationMode, test: Callable[[schemathesis.Case], None]) -> None:
        """Run a test on examples, if there are any of this kind."""
        case = operation.as_strategy(generation_mode=mode)
        with suppress(Unsatisfiable):
            SETTINGS(seed(2334)(given(case=case)(test)))()

    def right(case: schemathesis.Case) -> None:
        if label != "POST /api/runs":  # that would index
            check(case)
        for part in ("path_parameters", "query", "body"):
            if isinstance(getattr(case, part), dict):
                setattr(case, part, real(getattr(case, part), upload[0]))
        if label == "POST /api/search":
            with_pictures(case.body)
        if label == "POST /api/sheet":
            with_pictures(case.body["search"])
        if label == "POST /api/uploads":
            case.body = upload[1]
        if label == "POST /api/runs":
            case.body = {"root": 10**6}
        check(case, negative_data_rejection)

    examples(GenerationMode.POSITIVE, right)
    examples(GenerationMode.NEGATIVE, check)
    assert seen.keys() >= OPERATIONS[label], seen
