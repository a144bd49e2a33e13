"""Exports tiny random BLIP-2 parts to ONNX by both of PyTorch's exporters, beside their parameters as safetensors.

The readers' tests recover the parameters from the ONNX files and compare them bit for bit.

    pip install torch==2.15.0 transformers==5.23.0 onnx==1.23.2 onnxscript==0.7.2 safetensors
    python scripts/reference/onnx_export.py model/tests/fixtures/checkpoints/onnx

Stack traces, which the newer exporter notes at every node, are removed to keep the files small; nothing else is changed.
"""

import sys
from pathlib import Path

import onnx
import torch
from safetensors.torch import save_file
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

IDS = torch.tensor([[2, 5, 6, 7], [2, 8, 9, 1]])
HIDDEN = 8


class Decoder(torch.nn.Module):
    """A causal LM as a function of its ids; the wrapper's name goes before every parameter's."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids=input_ids, use_cache=False).logits


class Queries(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, query_embeds, encoder_hidden_states):
        return self.model(query_embeds=query_embeds, encoder_hidden_states=encoder_hidden_states).last_hidden_state


class Seq2Seq(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, decoder_input_ids):
        return self.model(input_ids=input_ids, decoder_input_ids=decoder_input_ids, use_cache=False).logits


def t5(**options):
    sizes = dict(vocab_size=19, d_model=HIDDEN, d_kv=4, d_ff=12, num_layers=2, num_decoder_layers=2, num_heads=2)
    config = T5Config(**sizes, relative_attention_num_buckets=8, decoder_start_token_id=0, **options)
    return T5ForConditionalGeneration(config), Seq2Seq, (IDS, IDS)


def parts():
    vision = Blip2VisionConfig(
        hidden_size=HIDDEN, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    yield "vit", Blip2VisionModel(vision), None, (torch.randn(2, 3, 8, 8),)
    qformer = Blip2QFormerConfig(
        hidden_size=HIDDEN, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, encoder_hidden_size=10
    )
    yield "qformer", Blip2QFormerModel(qformer), Queries, (torch.randn(2, 3, HIDDEN), torch.randn(2, 5, 10))
    yield "t5", *t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    yield "t5_tied", *t5(feed_forward_proj="relu", tie_word_embeddings=True)
    opt = OPTConfig(
        vocab_size=19, hidden_size=HIDDEN, ffn_dim=12, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, word_embed_proj_dim=HIDDEN,
    )
    yield "opt", OPTForCausalLM(opt), Decoder, (IDS,)
    llama = LlamaConfig(
        vocab_size=19, hidden_size=HIDDEN, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16,
    )
    yield "llama", LlamaForCausalLM(llama), Decoder, (IDS,)




def export(model, inputs, path, dynamo, external):
    if dynamo:
        torch.onnx.export(model, inputs, path, dynamo=True, external_data=external, verbose=False)
    else:
        torch.onnx.export(model, inputs, path, dynamo=False, opset_version=17)
    exported = onnx.load(path, load_external_data=False)
    for node in exported.graph.node:
        kept = [entry for entry in node.metadata_props if "stack_trace" not in entry.key]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(exported, path)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    only = sys.argv[2:]
    for seed, (name, model, wrapper, inputs) in enumerate(parts()):
        if only and name not in only:
            continue
        torch.manual_seed(seed)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        model.eval()
        tensors = {}
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                tensors[key] = value.clone().contiguous()
        save_file(tensors, folder / f"{name}.safetensors")
        if wrapper is not None:
            model = wrapper(model)
        for exporter in ("torchscript", "dynamo"):
            path = folder / f"{name}.{exporter}.onnx"
            export(model, inputs, str(path), exporter == "dynamo", external=name == "llama")
            print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
