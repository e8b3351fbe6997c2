"""What instructor, which has a model call a tool for each structured answer, makes of the answers of `/v1`."""

from __future__ import annotations

import sys
from typing import Any

import instructor
import openai
import pydantic

client = instructor.from_openai(openai.OpenAI(base_url=f"{sys.argv[2]}/v1", api_key="any"))


class Country(pydantic.BaseModel):
    """A country."""

    name: str
    capital: str
    languages: list[str]


def structured(model: str, text: str) -> Any:
    return client.chat.completions.create(
        model=model, response_model=Country, messages=[{"role": "user", "content": text}], max_retries=0
    ).model_dump()
