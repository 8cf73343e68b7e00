"""State dicts into modules: every key is accounted for."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medsae_plugin import MedSAEError
from medsae_plugin.encoders.checkpoints import check_keys, listed, load_exactly, read_checkpoint, read_shapes


def test_each_kind_of_misfit_is_refused_alone():
    sound = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    fits = nn.Linear(3, 2)
    load_exactly(fits, sound, "it")
    assert (fits.weight == 1).all()
    for state, said in (
        ({**sound, "extra": torch.zeros(1)}, "left over: extra$"),
        ({"weight": sound["weight"]}, "missing: bias$"),
        ({**sound, "bias": torch.ones(3)}, r"bias is \(3,\), should be \(2,\)$"),
        ({**sound, "bias": torch.ones(1)}, r"bias is \(1,\), should be \(2,\)$"),
    ):
        with pytest.raises(MedSAEError, match=said):
            check_keys(nn.Linear(3, 2), state, "it")
        with pytest.raises(MedSAEError, match=f"does not fit it; keys .*{said}"):
            load_exactly(nn.Linear(3, 2), state, "it")


def test_the_wanted_tensors_are_read_and_no_others(tmp_path):
    state = {"a.x": torch.arange(3.0), "b.x": torch.zeros(2, 2)}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.bin")
    for name in ("w.safetensors", "w.bin"):
        assert read_checkpoint(tmp_path / name).keys() == read_shapes(tmp_path / name).keys() == state.keys()
        wanted = read_checkpoint(tmp_path / name, lambda key: key.startswith("a."))
        assert list(wanted) == ["a.x"] and torch.equal(wanted["a.x"], state["a.x"])
        shapes = read_shapes(tmp_path / name, lambda key: key.startswith("b."))
        assert list(shapes) == ["b.x"] and shapes["b.x"].shape == (2, 2) and shapes["b.x"].is_meta
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
        for read in (read_checkpoint, read_shapes):
            with pytest.raises(MedSAEError, match=name):
                read(tmp_path / name)
    for held in ([1, 2], {"a": 1}, {"a": torch.zeros(1), "b": "text"}):
        torch.save(held, tmp_path / "other.bin")
        with pytest.raises(MedSAEError, match="something other than named tensors"):
            read_checkpoint(tmp_path / "other.bin")


_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)  # of torch's older format
_REBUILD = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "held",
    [  # each makes torch raise something else
        pickle.dumps(print),
        b"PK\x03\x04zzzz",
        b"",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"hello\n",
        b"\x80\x02.",
        _REBUILD + b")R.",
        _REBUILD + b"()K\x00))\x89)tR.",
        _MAGIC + b"".join(pickle.dumps(part, 2) for part in (1001, {}, {}, ["a"])),
    ],
)
def test_damaged_bytes_are_told_in_one_line_whatever_torch_makes_of_them(tmp_path, held):
    (tmp_path / "w.bin").write_bytes(held)
    with pytest.raises(Exception) as theirs:
        torch.load(tmp_path / "w.bin", map_location="cpu", weights_only=True)
    with pytest.raises(MedSAEError, match="so it is not loaded") as ours:
        read_checkpoint(tmp_path / "w.bin")
    reason = str(theirs.value).splitlines()[0] if str(theirs.value) else type(theirs.value).__name__
    assert str(ours.value).endswith(f": {reason}")


def test_long_lists_of_keys_are_cut():
    assert listed(["a", "b"]) == "a, b" and listed(list("abcde"), most=2) == "a, b and 3 more"
    assert listed([str(k) for k in range(20)]).count(",") == 19 and "more" not in listed([str(k) for k in range(20)])
