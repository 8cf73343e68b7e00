"""A tiny random Gemma 3 with a SigLIP image encoder, its processor, tokenizer and chat template, made here."""

from pathlib import Path

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor, GemmaTokenizer
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
CONTROL = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
IMAGE_TOKENS = 4

# Gemma's own form: turns between control tokens, an image as one token that the processor widens.
CHAT_TEMPLATE = """{{ bos_token }}{% for message in messages -%}
<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{% for part in message['content'] -%}
{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] | trim }}{% endif %}
{%- endfor %}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""


def build_tokenizer() -> GemmaTokenizer:
    """Bytes and control tokens: every text has ids, and every id a text."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *CONTROL, *(f"<0x{b:02X}>" for b in range(256))])}
    vocab["▁"] = len(vocab)
    return GemmaTokenizer(
        vocab=vocab,
        merges=[],
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    )


def save_tiny_gemma(folder: Path, seed: int = 0) -> Path:
    """Write the model and its processor, as a folder of the Hub holds them."""
    tokenizer = build_tokenizer()
    config = Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "sliding_window": 64,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
        },
        mm_tokens_per_image=IMAGE_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Gemma3ForConditionalGeneration(config)
        # It begins at zero, so that pictures would make no difference.
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    model.generation_config.eos_token_id = 1
    model.save_pretrained(folder)
    images = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    Gemma3Processor(images, tokenizer, chat_template=CHAT_TEMPLATE, image_seq_length=IMAGE_TOKENS).save_pretrained(
        folder
    )
    return folder
