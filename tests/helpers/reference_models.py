"""Checkpoints in the key layouts that open_clip and torchvision publish, and their forward passes in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]

# --- BiomedCLIP: open_clip's key layout, and its forward pass in plain torch ---

BIOMED = {"layers": 2, "d": 16, "heads": 2, "dim": 10, "hidden": 13, "words": 40}


def norm_(state: State, key: str, d: int) -> None:
    state[f"{key}.weight"], state[f"{key}.bias"] = 1 + torch.randn(d) * 0.1, torch.randn(d) * 0.1


def linear_(state: State, key: str, n_in: int, n_out: int, bias: bool = True) -> None:
    state[f"{key}.weight"] = torch.randn(n_out, n_in) * 0.2
    if bias:
        state[f"{key}.bias"] = torch.randn(n_out) * 0.1


def biomedclip_state() -> State:
    d, dim = BIOMED["d"], BIOMED["dim"]
    state: State = {"logit_scale": torch.tensor(4.4)}
    state["visual.trunk.cls_token"] = torch.randn(1, 1, d)
    state["visual.trunk.pos_embed"] = torch.randn(1, 17, d)
    state["visual.trunk.patch_embed.proj.weight"] = torch.randn(d, 3, 8, 8) * 0.1
    state["visual.trunk.patch_embed.proj.bias"] = torch.randn(d) * 0.1
    for i in range(BIOMED["layers"]):
        block = f"visual.trunk.blocks.{i}"
        norm_(state, f"{block}.norm1", d)
        linear_(state, f"{block}.attn.qkv", d, 3 * d)
        linear_(state, f"{block}.attn.proj", d, d)
        norm_(state, f"{block}.norm2", d)
        linear_(state, f"{block}.mlp.fc1", d, 24)
        linear_(state, f"{block}.mlp.fc2", 24, d)
    norm_(state, "visual.trunk.norm", d)
    linear_(state, "visual.head.proj", d, dim, bias=False)
    bert = "text.transformer"
    state[f"{bert}.embeddings.position_ids"] = torch.arange(12).unsqueeze(0)
    for table, n in (("word", BIOMED["words"]), ("position", 12), ("token_type", 2)):
        state[f"{bert}.embeddings.{table}_embeddings.weight"] = torch.randn(n, d)
    norm_(state, f"{bert}.embeddings.LayerNorm", d)
    for i in range(BIOMED["layers"]):
        layer = f"{bert}.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear_(state, f"{layer}.attention.self.{part}", d, d)
        linear_(state, f"{layer}.attention.output.dense", d, d)
        norm_(state, f"{layer}.attention.output.LayerNorm", d)
        linear_(state, f"{layer}.intermediate.dense", d, 24)
        linear_(state, f"{layer}.output.dense", 24, d)
        norm_(state, f"{layer}.output.LayerNorm", d)
    linear_(state, "text.proj.0", d, BIOMED["hidden"], bias=False)
    linear_(state, "text.proj.2", BIOMED["hidden"], dim, bias=False)
    return state


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, keep: Tensor | None = None) -> Tensor:
    b, n, d = q.shape
    q, k, v = (t.view(b, n, heads, d // heads).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(2, 3) / (d // heads) ** 0.5
    if keep is not None:
        scores = scores.masked_fill(~keep[:, None, None], float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d)


def biomedclip_image(state: State, x: Tensor) -> Tensor:
    def norm(key: str, h: Tensor) -> Tensor:
        return F.layer_norm(h, h.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"], 1e-6)

    def linear(key: str, h: Tensor) -> Tensor:
        return F.linear(h, state[f"{key}.weight"], state.get(f"{key}.bias"))

    trunk = "visual.trunk"
    patches = F.conv2d(x, state[f"{trunk}.patch_embed.proj.weight"], state[f"{trunk}.patch_embed.proj.bias"], stride=8)
    h = torch.cat([state[f"{trunk}.cls_token"].expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
    h = h + state[f"{trunk}.pos_embed"]
    for i in range(BIOMED["layers"]):
        block = f"{trunk}.blocks.{i}"
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", h)).chunk(3, -1)
        h = h + linear(f"{block}.attn.proj", attention(q, k, v, BIOMED["heads"]))
        h = h + linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", h))))
    return linear("visual.head.proj", norm(f"{trunk}.norm", h)[:, 0])


def biomedclip_text(state: State, ids: Tensor) -> Tensor:
    def norm(key: str, h: Tensor) -> Tensor:
        return F.layer_norm(h, h.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"], 1e-12)

    def linear(key: str, h: Tensor) -> Tensor:
        return F.linear(h, state[f"{key}.weight"], state.get(f"{key}.bias"))

    bert = "text.transformer"
    h = state[f"{bert}.embeddings.word_embeddings.weight"][ids]
    h = h + state[f"{bert}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    h = norm(f"{bert}.embeddings.LayerNorm", h + state[f"{bert}.embeddings.token_type_embeddings.weight"][0])
    for i in range(BIOMED["layers"]):
        layer = f"{bert}.encoder.layer.{i}"
        q, k, v = (linear(f"{layer}.attention.self.{part}", h) for part in ("query", "key", "value"))
        attended = linear(f"{layer}.attention.output.dense", attention(q, k, v, BIOMED["heads"], ids != 0))
        h = norm(f"{layer}.attention.output.LayerNorm", attended + h)
        made = linear(f"{layer}.output.dense", F.gelu(linear(f"{layer}.intermediate.dense", h)))
        h = norm(f"{layer}.output.LayerNorm", made + h)
    return linear("text.proj.2", F.gelu(linear("text.proj.0", h[:, 0])))


# --- TorchXRayVision: torchvision's key layouts for one channel, and their forward passes in plain torch ---


def batch_norm_(state: State, key: str, d: int) -> None:
    norm_(state, key, d)
    state[f"{key}.running_mean"], state[f"{key}.running_var"] = torch.randn(d) * 0.1, 1 + torch.rand(d)
    state[f"{key}.num_batches_tracked"] = torch.tensor(0)


def batch_norm(state: State, key: str, x: Tensor) -> Tensor:
    mean, var = state[f"{key}.running_mean"], state[f"{key}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{key}.weight"], state[f"{key}.bias"], eps=1e-5)


DENSE_BLOCKS = (2, 1)


def densenet_state() -> State:
    state: State = {"features.conv0.weight": torch.randn(8, 1, 7, 7) * 0.1}
    batch_norm_(state, "features.norm0", 8)
    d = 8
    for b, n in enumerate(DENSE_BLOCKS, start=1):
        for layer in (f"features.denseblock{b}.denselayer{i}" for i in range(1, n + 1)):
            batch_norm_(state, f"{layer}.norm1", d)
            state[f"{layer}.conv1.weight"] = torch.randn(16, d, 1, 1) * 0.2
            batch_norm_(state, f"{layer}.norm2", 16)
            state[f"{layer}.conv2.weight"] = torch.randn(4, 16, 3, 3) * 0.1
            d += 4
        if b < len(DENSE_BLOCKS):
            batch_norm_(state, f"features.transition{b}.norm", d)
            state[f"features.transition{b}.conv.weight"] = torch.randn(d // 2, d, 1, 1) * 0.2
            d //= 2
    batch_norm_(state, "features.norm5", d)
    linear_(state, "classifier", d, 18)
    state["op_threshs"] = torch.rand(18)
    return state


def densenet_features(state: State, x: Tensor) -> Tensor:
    x = F.conv2d(x[:, :1], state["features.conv0.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(batch_norm(state, "features.norm0", x)), 3, 2, 1)
    for b, n in enumerate(DENSE_BLOCKS, start=1):
        for layer in (f"features.denseblock{b}.denselayer{i}" for i in range(1, n + 1)):
            y = F.conv2d(F.relu(batch_norm(state, f"{layer}.norm1", x)), state[f"{layer}.conv1.weight"])
            y = F.conv2d(F.relu(batch_norm(state, f"{layer}.norm2", y)), state[f"{layer}.conv2.weight"], padding=1)
            x = torch.cat([x, y], 1)
        if b < len(DENSE_BLOCKS):
            x = F.relu(batch_norm(state, f"features.transition{b}.norm", x))
            x = F.avg_pool2d(F.conv2d(x, state[f"features.transition{b}.conv.weight"]), 2)
    return F.relu(batch_norm(state, "features.norm5", x)).mean((2, 3))


def resnet_state() -> State:
    state: State = {"conv1.weight": torch.randn(8, 1, 7, 7) * 0.1}
    batch_norm_(state, "bn1", 8)
    widths = ((8, 16), (16, 32))
    for s, (d_in, d_out) in enumerate(widths, start=1):
        block, mid = f"layer{s}.0", d_out // 4
        for k, (n_in, n_out, side) in enumerate(((d_in, mid, 1), (mid, mid, 3), (mid, d_out, 1)), start=1):
            state[f"{block}.conv{k}.weight"] = torch.randn(n_out, n_in, side, side) * 0.2
            batch_norm_(state, f"{block}.bn{k}", n_out)
        state[f"{block}.downsample.0.weight"] = torch.randn(d_out, d_in, 1, 1) * 0.2
        batch_norm_(state, f"{block}.downsample.1", d_out)
    linear_(state, "fc", 32, 18)
    return state


def resnet_features(state: State, x: Tensor) -> Tensor:
    x = F.conv2d(x[:, :1], state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(batch_norm(state, "bn1", x)), 3, 2, 1)
    for s in (1, 2):
        block, stride = f"layer{s}.0", 1 if s == 1 else 2
        y = F.relu(batch_norm(state, f"{block}.bn1", F.conv2d(x, state[f"{block}.conv1.weight"])))
        y = F.conv2d(y, state[f"{block}.conv2.weight"], stride=stride, padding=1)
        y = F.conv2d(F.relu(batch_norm(state, f"{block}.bn2", y)), state[f"{block}.conv3.weight"])
        past = F.conv2d(x, state[f"{block}.downsample.0.weight"], stride=stride)
        x = F.relu(batch_norm(state, f"{block}.bn3", y) + batch_norm(state, f"{block}.downsample.1", past))
    return x.mean((2, 3))
