"""TextEncoder: what BertModel gives, without a pooler, from a config or a local folder."""

import pytest
import torch
from transformers import BertConfig, BertModel

from medssml.config import build, describe
from medssml.encoders import TextEncoder


def text(lengths: tuple[int, ...] = (7, 4), width: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 60, (len(lengths), width), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(width) < torch.tensor(lengths).unsqueeze(1)).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(60, 24, 2, 3, 16).eval()


def test_is_bert_and_the_mean_of_the_real_tokens():
    net, inputs = encoder(), text()
    direct = BertModel(net.bert.config, add_pooling_layer=False).eval()
    direct.load_state_dict(net.bert.state_dict())
    states = direct(**inputs).last_hidden_state
    encoded = net(inputs)
    assert torch.allclose(encoded.tokens, states, atol=1e-6)
    assert torch.allclose(encoded.pooled[1], states[1, :4].mean(0), atol=1e-5)
    assert encoded.mask.sum() == 11 and net.dim == 24 and net.vocab_size == 60


def test_padding_moves_nothing():
    net, inputs = encoder(), text()
    longer = {name: torch.nn.functional.pad(value, (0, 5)) for name, value in inputs.items()}
    longer["input_ids"][:, 7:] = 33
    assert torch.allclose(net(inputs).pooled, net(longer).pooled, atol=1e-5)


def test_an_empty_text_is_zero_and_every_parameter_gets_a_gradient():
    net, inputs = encoder(), text((7, 0))
    encoded = net(inputs)
    assert encoded.pooled[1].abs().sum() == 0
    encoded.pooled.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_a_local_folder_is_loaded_and_not_named_in_the_config(tmp_path):
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
    )
    bert = BertModel(config)
    bert.save_pretrained(tmp_path / "bert")
    net = TextEncoder(local_folder=str(tmp_path / "bert")).eval()
    inputs = {name: value % 50 for name, value in text().items()}
    expected = bert.eval()(**inputs).last_hidden_state
    assert torch.allclose(net(inputs).tokens, expected, atol=1e-5)
    assert (net.dim, net.vocab_size, net.max_length) == (16, 50, 20)

    node = describe(net)
    assert str(tmp_path) not in str(node)
    again = build(node, TextEncoder).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(inputs).tokens, net(inputs).tokens)


def test_pickled_weights_are_refused(tmp_path):
    encoder().bert.config.save_pretrained(tmp_path)
    torch.save(encoder().bert.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        TextEncoder(local_folder=str(tmp_path))


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="max_length is 16"):
        encoder()(text((20,), 20))
    with pytest.raises(ValueError, match="without `keep`"):
        encoder()(text(), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="dict of input_ids"):
        encoder()(torch.zeros(1, 3))


def test_special_ids():
    net = TextEncoder(60, 24, 1, 3, 16, pad_token_id=3, special_ids={"mask": 9})
    assert net.special_ids == {"pad": 3, "unk": 1, "cls": 2, "sep": 3, "mask": 9, "deid": 5}
