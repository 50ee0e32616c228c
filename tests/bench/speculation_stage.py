"""What speculation saves on a stage alone, in CPU time: `python -m tests.bench.speculation_stage FOLDER`. Load hardly changes it.

One process runs a whole instruct model on one thread, each answer twice: token by token, and with what `--speculate auto` proposes at
the prices that this process sees. One JSON line per prompt: seconds without, divided by those with, for the stage alone and with
the links of three workers 20 ms apart added to every step (counted, not measured); and whether the tokens are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

from engine.control.sessions.guessing.speculation import Speculation
from engine.control.sessions.guessing.step_price import StepPrice
from engine.control.sessions.session import Session, SessionState
from engine.control.sessions.stage_sessions import Append, StageSession
from engine.data.generation import GenerateRequest, Segment, StageTiming
from engine.data.sampling import Sampling
from engine.model.running.stage import StageModel
from engine.service.worker.steps.rows import Row, sample
from tests.bench.speculation import DELAY_S, KINDS

FAR_HOPS = 4  # coordinator, three workers, and back


@dataclass
class Answer:
    """One answer and what its steps after the first token took, in CPU seconds."""

    token_ids: list[int]
    compute_s: float
    num_steps: int
    num_proposed: int
    num_accepted: int

    def spent_s(self, wire_s: float) -> float:
        return self.compute_s + self.num_steps * wire_s


def generate(
    stage: StageModel, prompt: tuple[int, ...], sampling: Sampling, num_tokens: int, price: StepPrice | None, wire_s: float
) -> Answer:
    """As one worker does it, without a network. `wire_s` is what the policy sees beside the computing; it needs a price to propose."""
    request = GenerateRequest(prompt_ids=prompt, max_new_tokens=num_tokens)
    session = Session("s", prompt, request, 0.0, num_tokens, sampling, SessionState.DECODE)
    here, speculation = StageSession(1, sampling), Speculation("auto" if price else "off")
    speculation.price = price or speculation.price
    stage.open("s", session.reserve_tokens)
    compute_s, num_steps = 0.0, 0
    while len(session.generated) < num_tokens and not {*session.generated} & {*sampling.stop_token_ids}:
        segment = _next(session, speculation)
        begun_s = time.process_time()
        reply = _run(stage, here, segment)
        spent_s = time.process_time() - begun_s
        if session.generated:
            compute_s, num_steps = compute_s + spent_s, num_steps + 1
            speculation.price.observe(len(segment.token_ids), (StageTiming("w", spent_s, 0.0, 0.0, 0.0),), spent_s + wire_s)
        session.landed(segment, len(reply))
        for token_id in reply:
            speculation.came(session, token_id)
            session.generated.append(token_id)
        speculation.answered(session, segment, len(reply))
    stage.close("s")
    return Answer(session.generated, compute_s, num_steps, *speculation.counts("s"))


def _next(session: Session, speculation: Speculation) -> Segment:
    if session.generated:
        return session.next_token(speculation.proposals(session, 1))
    return session.cut_chunk(len(session.prompt_ids))


def _run(stage: StageModel, here: StageSession, segment: Segment) -> list[int]:
    if len(here.token_ids) > segment.position:
        stage.kv.truncate("s", segment.position)
        here.cut(segment.position)
    row = Row(segment, Append(here, opens=False), 0)
    logits = stage.forward([("s", segment.token_ids)], None, [row.num_logits])
    sample([row], logits, "the stage", None)
    here.token_ids.extend(segment.token_ids)
    return [sampled.token_id for sampled in row.reply]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--prompts", type=int, default=4, help="of each kind, at most 4")
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.folder)
    weights = json.loads((options.folder / "config.json").read_text())
    stage = StageModel.load(options.folder, 0, weights["num_hidden_layers"] + 2, kv_budget_bytes=10**9)
    same, prices = (
        True,
        {"alone": (StepPrice(), 0.0), "far": (StepPrice(), FAR_HOPS * DELAY_S)},
    )  # known from answer to answer, as in a cluster
    for kind in options.kinds.split(","):
        prompts, temperature = KINDS[kind]
        for number, text in enumerate(prompts[: options.prompts]):
            chat = [{"role": "user", "content": text}]
            prompt = tuple(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])
            sampling = Sampling(temperature=temperature, seed=number, stop_token_ids=(tokenizer.eos_token_id,))
            plain = generate(stage, prompt, sampling, options.tokens, None, 0.0)
            facts: dict[str, object] = {"kind": kind, "prompt_tokens": len(prompt), "tokens": len(plain.token_ids)}
            for name, (price, wire_s) in prices.items():
                guessed = generate(stage, prompt, sampling, options.tokens, price, wire_s)
                same = same and guessed.token_ids == plain.token_ids
                facts[name] = round(plain.spent_s(wire_s) / guessed.spent_s(wire_s), 2)
                facts[f"{name}_accepted"] = f"{guessed.num_accepted} of {guessed.num_proposed}"
                facts["same"] = guessed.token_ids == plain.token_ids
            facts["step_s"] = round(plain.compute_s / plain.num_steps, 4)
            print(json.dumps(facts | {"load": [round(x, 1) for x in os.getloadavg()]}), flush=True)
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
