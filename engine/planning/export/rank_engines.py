"""vLLM and SGLang: a variable with the number of blocks of every rank.

Both read it in `get_pp_indices(num_hidden_layers, pp_rank, pp_size)`: as many whole numbers as there are ranks, which add up to the model's
hidden layers; rank r holds the blocks from the sum of the first r numbers on. The embedding is on rank 0 and the final norm with the
head on the last rank, beside the blocks that are counted (a tied table on both).
vLLM 0.33 (vllm/distributed/utils.py): VLLM_PP_LAYER_PARTITION. SGLang 0.5.23 (sglang/srt/distributed/utils.py): SGLANG_PP_LAYER_PARTITION.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.planning.export.exported import Command, Exported, Wish, commands_text, in_the_plan

VLLM_VARIABLE, SGLANG_VARIABLE = "VLLM_PP_LAYER_PARTITION", "SGLANG_PP_LAYER_PARTITION"


def partition(wish: Wish) -> str:
    """`9,9,8`: the blocks of every rank."""
    return ",".join(str(share.num_blocks) for share in wish.shares)


def for_vllm(wish: Wish) -> Exported:
    """One `vllm serve` on each node; ranks follow the order of `--node-rank`, and those behind the first serve no HTTP."""
    size = len(wish.shares)
    rest = ("--pipeline-parallel-size", str(size))

    def words(rank: int) -> tuple[str, ...]:
        where = ("--nnodes", str(size), "--node-rank", str(rank), "--master-addr", wish.shares[0].node_id) if size > 1 else ()
        return ("vllm", "serve", wish.model_name, *rest, *where, *(("--headless",) if rank else ()))

    return _exported("vllm", VLLM_VARIABLE, wish, words)


def for_sglang(wish: Wish) -> Exported:
    """One `sglang.launch_server` on each node, the rank of which is `--node-rank`."""
    size = len(wish.shares)

    def words(rank: int) -> tuple[str, ...]:
        where = ("--nnodes", str(size), "--node-rank", str(rank), "--dist-init-addr", f"{wish.shares[0].node_id}:5000")
        launch = ("python", "-m", "sglang.launch_server", "--model-path", wish.model_name)
        return (*launch, "--pp-size", str(size), *(where if size > 1 else ()))

    return _exported("sglang", SGLANG_VARIABLE, wish, words)


def _exported(engine: str, variable: str, wish: Wish, words: Callable[[int], tuple[str, ...]]) -> Exported:
    counts = partition(wish)
    commands = tuple(Command(share.node_id, words(rank), {variable: counts}) for rank, share in enumerate(wish.shares))
    settings = {variable: counts, "pipeline_parallel_size": len(wish.shares)}
    return Exported(engine, settings, commands_text(commands), wish.shares, commands, (*wish.common, *_left_out(engine, wish)))


def _left_out(engine: str, wish: Wish) -> list[str]:
    said = []
    for rank, share in enumerate(wish.shares):
        if share.num_blocks == 0:
            said.append(f"rank {rank} on {share.node_id} has no block: some models of {engine} do not load like that, so give it one")
    if len(wish.shares) > 1:
        said.append(
            f"{engine} takes node ids as host names here, and one GPU each; for GPUs of one machine leave the options of nodes out and "
            "order CUDA_VISIBLE_DEVICES like the stages"
        )
        said.append(f"{engine} gives every rank as much KV as the poorest one has; {in_the_plan(wish.plan)} takes each node as it is")
        said.append("every rank runs one build: nodes of different kinds (CPU beside CUDA) cannot stand in one pipeline")
    return said
