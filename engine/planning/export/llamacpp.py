"""llama.cpp: `--tensor-split` with one number for each device, in the order of `--device`.

llama.cpp (src/llama-model.cpp, load_tensors) counts the blocks and the output layer as n_layer + 1 places and sums the numbers up to split
points between 0 and 1; place i goes to the first device whose split point lies above i / (n_layer + 1), computed in float32. With whole
numbers that add up to n_layer + 1 both sides of this comparison are the same division, so the cut lies exactly where it is wanted. The
embedding always stays on the CPU of the program itself; places fall to that CPU, too, unless `--n-gpu-layers` covers all of them.
Remote devices are called RPC0, RPC1, ... in the order of `--rpc` (tools/rpc/README.md).
"""

from __future__ import annotations

from engine.planning.export.exported import Command, Exported, Wish, commands_text, in_the_plan

RPC_PORT = 50052  # rpc-server's default


def for_llamacpp(wish: Wish) -> Exported:
    """One `rpc-server` on every node without a device of its own, and `llama-server` on the machine that serves."""
    shares = wish.shares
    remote = [share.node_id for share in shares if share.node_id not in wish.devices]
    names = [wish.devices.get(share.node_id) or f"RPC{remote.index(share.node_id)}" for share in shares]
    counts = [share.num_blocks + (share is shares[-1]) for share in shares]
    places = sum(counts)
    rpc = ("--rpc", ",".join(f"{node_id}:{RPC_PORT}" for node_id in remote)) if remote else ()
    split = ("--device", ",".join(names), "--tensor-split", ",".join(map(str, counts)), "--split-mode", "layer")
    main = ("llama-server", "-m", wish.model or "MODEL.gguf", "--n-gpu-layers", str(places), *rpc, *split)
    servers = tuple(Command(node_id, ("rpc-server", "-H", "0.0.0.0", "-p", str(RPC_PORT))) for node_id in remote)
    commands = (*servers, Command("the machine that serves", main))
    settings = {"tensor_split": counts, "device": names, "n_gpu_layers": places, "rpc": [f"{node_id}:{RPC_PORT}" for node_id in remote]}
    return Exported("llamacpp", settings, commands_text(commands), shares, commands, _left_out(wish, remote))


def _left_out(wish: Wish, remote: list[str]) -> tuple[str, ...]:
    said = [] if wish.model else ["the model is not known here: put a GGUF file where MODEL.gguf stands"]
    if wish.model and not wish.model.endswith(".gguf"):
        said.append(f"llama.cpp reads GGUF files: convert {wish.model[:80]} to one first")
    first = wish.shares[0]
    if first.has_embedding:
        said.append(f"the embedding stays on the CPU of the machine that serves; the plan has it on {first.node_id}")
    if remote:
        named = ", ".join(remote[:8])
        said.append(f"{named}: node ids are taken as host names, each with one device; name local ones with --device NODE=DEVICE")
        said.append("rpc-server asks nobody who they are: run it in a network of your own only")
        said.append(
            f"hidden states go over the machine that serves at every cut, not from node to node: expect less than {in_the_plan(wish.plan)}"
        )
    return tuple(said)
