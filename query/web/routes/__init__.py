"""The JSON API, a router for each topic."""

from fastapi import APIRouter

from . import index, pictures, searches, selections, whys

router = APIRouter()
for topic in (pictures, searches, whys, selections, index):
    router.include_router(topic.router)
