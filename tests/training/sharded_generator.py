# SPDX-License-Identifier: Apache-2.0
"""Run by test_sharding.py in two processes: a sharded generator beside a whole one."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from tiny_generators import build_generator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from pointillist_hf.training.ema import WeightAverage
from pointillist_hf.training.sharding import gather_weights, unsharded

DEPTH = {"point_head": "depth", "loss_head": "typed"}


def build_batch(layout):
    torch.manual_seed(2)
    body = [torch.randint(*layout.slot_range(slot), (2, 5)) for slot in range(4)]
    starts = torch.full((2, 4), layout.bos_token_id)
    ids = torch.cat([starts, torch.stack(body, dim=2).flatten(1)], dim=1)
    labels = ids.clone()
    labels[:, :4] = -100
    return {"input_ids": ids, "labels": labels, "encoder_hidden_states": torch.randn(2, 5, 24)}


def train(model, average, batch, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=True)
    for step in range(steps):
        model(**batch, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        average.update(step)


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    for head in ({}, DEPTH):
        plain, sharded = build_generator(**head), build_generator(**head)
        batch = build_batch(plain.config.layout)
        for module in sharded.modules():
            if type(module).__name__ in sharded._no_split_modules:
                fully_shard(module, mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        averages = [WeightAverage(model, 0.6) for model in (plain, sharded)]
        for model, average in zip((plain, sharded), averages, strict=True):
            train(model, average, batch, steps=4)
        assert all(isinstance(p, DTensor) for p in sharded.parameters())

        averages[1].save(folder, is_main=dist.get_rank() == 0)
        dist.barrier()
        averages[0].load(folder)
        averages[1].load(folder)
        inputs = {name: batch[name] for name in ("input_ids", "encoder_hidden_states")}
        with averages[0].applied(), torch.no_grad():
            expected = plain.model(**inputs, use_cache=False).last_hidden_state
        with averages[1].applied(), unsharded(sharded), torch.no_grad():
            found = sharded.model(**inputs, use_cache=False).last_hidden_state
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)

        gather_weights(sharded)
        for (name, weight), other in zip(
            plain.named_parameters(), sharded.parameters(), strict=True
        ):
            assert not isinstance(other, DTensor), name
            torch.testing.assert_close(other, weight, atol=1e-4, rtol=1e-3)
        if dist.get_rank() == 0:
            sharded.save_pretrained(folder / "model")
            again = type(sharded).from_pretrained(folder / "model")
            assert torch.equal(again.lm_head.weight, sharded.lm_head.weight)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
