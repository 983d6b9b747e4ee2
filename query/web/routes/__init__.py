"""The JSON API, a router for each topic."""

from fastapi import APIRouter

from . import index, pictures, searches, selections, why

router = APIRouter()
for topic in (pictures, searches, why, selections, index):
    router.include_router(topic.router)
