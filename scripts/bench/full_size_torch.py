"""Times transformers on a full-size BLIP-2 with random weights, the peer of `experiments/benches/full_size.rs`.

    pip install torch transformers
    python scripts/bench/full_size_torch.py [--batch 8] [--frames 8] [--tokens 16] [--rounds 5] [--device cuda]

FLAN-T5-XL's sizes; ViT and language model in bf16, the rest in f32; the tokens of all frames are joined before the
Q-Former. Cases as there: beam-5 captioning with 20 new tokens and no end, the ViT alone, and a training step of the
Q-Former, its queries, the norm before it and the projection.
"""

import argparse
import statistics
import time

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, T5Config


def build(device):
    text = T5Config(
        vocab_size=32128, d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_decoder_layers=24, num_heads=32,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, dropout_rate=0.0,
    )
    qformer = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = Blip2Config(text_config=text.to_dict(), qformer_config=qformer, num_query_tokens=32)
    with torch.device(device):
        model = Blip2ForConditionalGeneration(config)
    model.vision_model.bfloat16()
    model.vision_model.post_layernorm.float()
    model.language_model.bfloat16()
    return model.eval()


def projected(model, frames, is_vit_trained=False):
    b, f = frames.shape[:2]
    with torch.no_grad():
        vision = model.vision_model
        hidden = vision.embeddings(frames.flatten(0, 1).bfloat16())
        hidden = vision.encoder(inputs_embeds=hidden).last_hidden_state
    image = vision.post_layernorm(hidden.float()).reshape(b, -1, hidden.shape[-1])
    queries = model.qformer(
        query_embeds=model.query_tokens.expand(b, -1, -1), encoder_hidden_states=image
    ).last_hidden_state
    return model.language_projection(queries).bfloat16()


def measure(name, rounds, batch, act, device):
    times = []
    for index in range(rounds + 1):
        start = time.perf_counter()
        act()
        if device == "cuda":
            torch.cuda.synchronize()
        if index:
            times.append(time.perf_counter() - start)
    median = statistics.median(times)
    print(f"transformers {name}: {min(times):.3f} s least, {median:.3f} s median, {batch / median:.2f} clips a second", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    torch.manual_seed(0)
    model = build(given.device)
    print(f"torch {torch.__version__}, parameters: {sum(p.numel() for p in model.parameters())}")
    frames = torch.randn(given.batch, given.frames, 3, 224, 224, device=given.device)
    labels = torch.arange(5, 5 + given.batch * given.tokens, device=given.device).reshape(given.batch, -1)

    @torch.no_grad()
    def caption():
        model.language_model.generate(
            inputs_embeds=projected(model, frames), num_beams=5, max_new_tokens=20, eos_token_id=None, do_sample=False
        )

    @torch.no_grad()
    def vit():
        model.vision_model.encoder(inputs_embeds=model.vision_model.embeddings(frames.flatten(0, 1).bfloat16()))

    trained = [model.query_tokens, *model.qformer.parameters(), *model.language_projection.parameters()]
    trained += list(model.vision_model.post_layernorm.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=1e-5, eps=1e-8, weight_decay=0.05)

    def train():
        output = model.language_model(inputs_embeds=projected(model, frames), labels=labels)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    measure("caption", given.rounds, given.batch, caption, given.device)
    measure("caption_vit", given.rounds, given.batch, vit, given.device)
    measure("train_qformer", given.rounds, given.batch, train, given.device)
    if given.device == "cuda":
        print(f"transformers peak memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
