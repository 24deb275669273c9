"""The API's documentation to read and try, without asking anybody else's server for anything."""

from fastapi import APIRouter, Response

from allocator.service import Here

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs(service: Here) -> Response:
    """The page that shows /openapi.json."""
    return service.templates.page("docs.html")
