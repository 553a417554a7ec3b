"""What the requests API takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.api.fields import STRICT, ModelField, PriorityField


class GenerateRequest(BaseModel):
    """``POST /generate``."""

    model_config = STRICT

    prompt: Annotated[str, Field(json_schema_extra={"pattern": r"\S"})]
    model: ModelField = None
    priority: PriorityField = 0
    system: str | None = None
    options: dict[str, Any] | None = None


class ListQuery(BaseModel):
    """Which page of which requests."""

    page: int = Field(default=1, ge=1, le=1_000_000_000)
    per_page: int = Field(default=10, ge=1, le=100)
    status: Literal["pending", "completed", "failed"] | None = None
