"""The model families (`model_type` in config.json) whose slices were verified, and why others are refused.

A family is listed only if its greedy tokens over three slices, in ragged batches, equal those of `generate()`, and its
logits alone those in company. The test suite rebuilds the list from every architecture that transformers can build and
compares. What is not listed is refused, by the reason below or because nobody has verified it.
"""

from __future__ import annotations

VERIFIED_WITH = "5.24"  # the transformers release whose every architecture was tried; later ones may have more

VERIFIED: tuple[str, ...] = (
    "afmoe", "apertus", "apertus1p5_text", "arcee", "aria_text", "axk1", "beam", "biogpt", "bitnet", "bloom",
    "codegen", "cohere", "cohere2", "cohere2_moe", "cohere_compass_text", "cwm", "dbrx", "deepseek_v2", "deepseek_v3",
    "diffllama", "doge", "dots1", "ernie4_5", "ernie4_5_moe", "exaone", "exaone4", "exaone_moe", "falcon",
    "flex_olmo", "flint", "fuyu", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma4_unified", "gemma4_unified_text",
    "glm", "glm4", "glm4_moe", "glm4_moe_lite", "got_ocr2", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox",
    "gpt_neox_japanese", "gpt_oss", "gptj", "granite", "granite_swa", "granitemoe", "granitemoe_swa",
    "granitemoeshared", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "hyperclovax", "internlm3",
    "iquestcoder", "jais2", "kolibri1", "laguna", "llama", "llama4_text", "mellum", "mimo_v2_flash", "minicpm3",
    "minimax_m2", "minimax_m3_vl_text", "ministral", "ministral3", "mistral", "mixtral", "modernbert-decoder",
    "moss_transcribe_diarize", "mpt", "nanochat", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon",
    "phi", "phi3", "phi4_multimodal", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "sarvam_mla",
    "sarvam_moe", "seed_oss", "smollm3", "solar_open", "stablelm", "starcoder2", "vaultgemma", "xglm", "youtu",
)  # fmt: skip

# Models that join a text model with others for images, sound or video, and whose text part was verified inside them: it alone is
# loaded. It must be of a family that is verified by itself, or one of TEXT_PARTS, which exist only there.
WRAPPERS: tuple[str, ...] = (
    "aria", "aya_vision", "cohere2_vision", "deepseek_vl", "exaone4_5", "glm4v", "hyperclovax_vision_v2", "idefics2", "internvl",
    "kimi_k25", "lighton_ocr", "llava", "llava_next", "llava_next_video", "llava_onevision", "minimax_m3_vl", "mistral3", "ovis2",
    "pp_chart2table", "qianfan_ocr", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "smolvlm", "video_llama_3", "video_llava",
    "vipllava",
)  # fmt: skip
TEXT_PARTS: tuple[str, ...] = ("glm4v_text", "qwen2_5_vl_text", "qwen2_vl_text", "qwen3_vl_moe_text", "qwen3_vl_text")
# The same, but transformers has a class for the text part alone and loads a whole folder into it.
TEXT_CLASSES: tuple[str, ...] = ("llama4",)

# Encoders, and the decoder halves of encoder-decoder models.
NOT_DECODER_ONLY: tuple[str, ...] = (
    "bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "camembert",
    "data2vec-text", "electra", "ernie", "git", "marian", "mbart", "megatron-bert", "musicgen", "musicgen_melody", "mvp",
    "pegasus", "plbart", "prophetnet", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer",
    "trocr", "whisper", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod",
)  # fmt: skip

# Their state is not keys and values per token, so it can neither be cut at a token nor moved in part.
RECURRENT: tuple[str, ...] = (
    "bailing_hybrid", "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "inkling2_text", "inkling_text", "jamba",
    "kimi_linear", "lfm2", "lfm2_moe", "lfm3", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5",
    "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "qwen4_exp", "qwen4_exp_text", "recurrent_gemma",
    "rwkv", "xlstm", "zamba", "zamba2", "zaya",
)  # fmt: skip

# They choose the tokens to attend to with an indexer that keeps a state of its own.
INDEXED: tuple[str, ...] = (
    "axk2", "deepseek_v32", "dots3_note", "dots3_note_text", "glm_moe_dsa", "hy_v4",
)  # fmt: skip

REFUSED: dict[str, str] = {
    **dict.fromkeys(NOT_DECODER_ONLY, "it is not a decoder-only language model"),
    **dict.fromkeys(RECURRENT, "it keeps a recurrent or convolution state instead of keys and values"),
    **dict.fromkeys(INDEXED, "its attention keeps an indexer state besides keys and values"),
    "blt": "it groups bytes into patches over several stacks of blocks, not one chain",
    "cpmant": "it adds its own prompt tokens and a position bias that every block needs",
    "ctrl": "its position table is not part of its weights, so it cannot be built without reading them all",
    "deepseek_v4": "its blocks pass several hidden vectors per token",
    "paligemma": "its prompts attend to later tokens",
    "emu3": "a folder of it wraps a text model in an image model",
    "gemma3n": "every block needs embeddings of its own, not only the hidden states",
    "gemma3n_text": "every block needs embeddings of its own, not only the hidden states",
    "gemma4": "every block needs embeddings of its own, not only the hidden states",
    "gemma4_text": "every block needs embeddings of its own, not only the hidden states",
    "gemma4_assistant": "it drafts for another model and reads that model's keys and values",
    "gemma4_unified_assistant": "it drafts for another model and reads that model's keys and values",
    "gpt-sw3": "its folders say model_type gpt2, which is supported",
    "hrm_text": "it runs its blocks in a loop, not once in a chain",
    "jetmoe": "its attention routes tokens to experts before the keys are known, so it cannot be traced without weights",
    "longcat_flash": "each of its blocks attends twice",
    "mllama": "a folder of it wraps a text model in an image model",
    "moshi": "it generates audio and text together",
    "openai-gpt": "it keeps no keys and values, so every token costs the whole text again",
}
