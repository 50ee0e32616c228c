"""Sessions without end beside whatever else happens to a cluster; each answer is compared with single-process generation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.data.errors import NoodleError
from engine.data.generation import GenerateRequest
from engine.service.client import Client


@dataclass
class GoodSessions:
    """`expected` are the tokens by request."""

    client: Client
    expected: Mapping[GenerateRequest, list[int]]
    num_answers: int = 0
    num_tokens: int = 0
    wrong: list[str] = field(default_factory=list)
    is_going: bool = True

    async def keep_busy(self, request: GenerateRequest) -> None:
        """One client that asks the same again and again."""
        while self.is_going:
            await self.ask(request)

    async def ask(self, request: GenerateRequest) -> None:
        """Once: the same tokens, each once and in order."""
        got: list[int] = []
        try:
            async for chunk in self.client.generate(request):
                if chunk.index >= 0:
                    got.append(chunk.token_id)
                    self.num_tokens += 1
                await asyncio.sleep(0)
        except NoodleError as e:
            self.wrong.append(f"{e}, after {len(got)} tokens")
            await asyncio.sleep(0.1)
            return
        self.num_answers += 1
        if got != self.expected[request]:
            self.wrong.append(f"{got} for {request.prompt_ids[:8]}, expected {self.expected[request]}")
