"""Tiny GPT-2 and BERT from their configurations: kernels against an oracle, and real training."""

import inspect
import string

import numpy as np
import pytest
import torch

import ntkstats as nts
from ntkstats import collectors
from ntkstats.torch import on_probe
from tests.torch.oracle import dense_jacobian, gram_of, relative

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")

CHARACTERS = "\n" + " " + string.ascii_letters + string.digits + string.punctuation
LENGTH = 16


def text(module=string):
    """Source text of the standard library as character tokens."""
    source = inspect.getsource(module)
    return np.array([CHARACTERS.index(c) for c in source if c in CHARACTERS])


def windows(n, length=LENGTH):
    tokens = text()
    starts = np.linspace(0, len(tokens) - length - 1, n).astype(int)
    return torch.tensor(np.stack([tokens[s : s + length] for s in starts]))


def gpt2(**options):
    config = transformers.GPT2Config(
        vocab_size=len(CHARACTERS),
        n_positions=LENGTH,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        **options,
    )
    return transformers.GPT2LMHeadModel(config)


def bert(**options):
    config = transformers.BertConfig(
        vocab_size=len(CHARACTERS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        num_labels=3,
        **options,
    )
    return transformers.BertForSequenceClassification(config)


def log_likelihood(out, batch):
    """Mean log-probability of each sequence's own tokens, ``(N,)``."""
    scores = out.logits[:, :-1].log_softmax(-1)
    return scores.gather(-1, batch["input_ids"][:, 1:, None])[..., 0].mean(1)


def last_logits(out):
    return out.logits[:, -1, :4]


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_kernels_against_plain_autograd_in_float64(kind, attention, padded):
    module = (gpt2 if kind == "gpt2" else bert)(attn_implementation=attention)
    x = {"input_ids": windows(4)}
    if padded:
        x["attention_mask"] = torch.ones_like(x["input_ids"])
        x["attention_mask"][::2, 11:] = 0
    heads = {"picked": last_logits} if kind == "gpt2" else {"picked": lambda out: out.logits}
    model, probe = on_probe(nts.as_model(module, heads=heads), nts.Probe(x))
    params, state = model.split(module)
    pick = last_logits if kind == "gpt2" else (lambda out: out.logits)
    jacobian, sizes = dense_jacobian(module, lambda twin: pick(twin(**x)))
    # Embeddings and output matrix of GPT-2 are one parameter.
    assert sum(leaf.size for leaf in params.values()) == sum(sizes.values())
    assert relative(gram_of(model, module), jacobian @ jacobian.T) < 1e-5
    if kind == "gpt2" and attention == "sdpa" and padded:
        kernel = nts.empirical_ntk(model, params, state, probe, outputs="full")
        assert kernel.method == "structured"
        assert relative(np.array(kernel.matrix), jacobian @ jacobian.T) < 1e-5


def test_a_head_may_see_the_inputs():
    module, ids = gpt2(), windows(5)
    model = nts.as_model(module, heads={"score": log_likelihood})
    model, _ = on_probe(model, nts.Probe({"input_ids": ids}))
    jacobian, _ = dense_jacobian(
        module, lambda twin: log_likelihood(twin(input_ids=ids), {"input_ids": ids})
    )
    assert relative(gram_of(model, module), jacobian @ jacobian.T) < 1e-5


def test_a_tokenizers_batch_is_a_probe():
    batch = transformers.BatchEncoding({"input_ids": windows(3)})
    assert nts.Probe(batch).n == 3


def trainer_of(model, rows, tmp_path, callback, **options):
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        use_cpu=True,
        seed=0,
        **options,
    )
    return transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, callbacks=callback and [callback]
    )


def rows_of(ids, labels):
    return [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)]


def run_language_model(tmp_path, record, **options):
    from ntkstats.torch import HuggingFaceCallback

    torch.manual_seed(0)
    model, ids = gpt2(), windows(32)
    callback = None
    if record:
        callback = HuggingFaceCallback(
            tmp_path / "run",
            nts.as_model(model, heads={"score": log_likelihood}),
            nts.Probe({"input_ids": windows(6)}),
            collectors.ntk_spectrum(),
            at=nts.RecordAt.every(2),
            strict=True,
        )
    trainer_of(model, rows_of(ids, ids), tmp_path, callback, **options).train()
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_gpt2_in_the_trainer_is_recorded_and_trains_as_without(tmp_path):
    pytest.importorskip("accelerate")
    recorded = run_language_model(tmp_path, record=True, gradient_accumulation_steps=2)
    run = nts.open_run(tmp_path / "run")
    assert run.step.values.tolist() == [0, 2, 4, 6]
    assert run.attrs["status"] == "finished"
    assert not run.attrs["failures"]
    assert np.isfinite(run.entropy.values).all()
    assert len(np.unique(run.trace.values)) == 4
    alone = run_language_model(tmp_path, record=False, gradient_accumulation_steps=2)
    assert all(torch.equal(value, alone[name]) for name, value in recorded.items())


def test_bert_in_the_trainer_ends_with_the_kernel_of_the_trained_weights(tmp_path):
    pytest.importorskip("accelerate")
    from ntkstats.torch import HuggingFaceCallback

    model, ids = bert(), windows(32)
    labels = torch.tensor([int(i[0]) % 3 for i in ids])
    probe = nts.Probe({"input_ids": windows(5)}, np.arange(5) % 3)
    callback = HuggingFaceCallback(
        tmp_path / "run",
        model,
        probe,
        [collectors.ntk_spectrum(), collectors.loss("cross_entropy")],
        at=nts.RecordAt.every(3),
        strict=True,
    )
    trainer_of(model, rows_of(ids, labels), tmp_path, callback, bf16=True).train()
    run = nts.open_run(tmp_path / "run")
    assert run.step.values.tolist() == [0, 3, 6]
    jacobian, _ = dense_jacobian(model, lambda twin: twin(input_ids=windows(5)).logits)
    # bfloat16 of the training does not enter the measurement.
    assert relative(run.trace.values[-1], np.trace(jacobian @ jacobian.T)) < 1e-5


def test_an_exception_in_the_trainer_marks_the_run(tmp_path):
    pytest.importorskip("accelerate")
    from ntkstats.torch import HuggingFaceCallback

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise RuntimeError("out of patience")

    model, ids = gpt2(), windows(16)
    callback = HuggingFaceCallback(
        tmp_path / "run",
        nts.as_model(model, heads={"score": log_likelihood}),
        nts.Probe({"input_ids": windows(3)}),
        collectors.param_norm(),
        at=nts.RecordAt.every(1),
    )
    trainer = trainer_of(model, rows_of(ids, ids), tmp_path, callback)
    trainer.add_callback(Stop())
    with pytest.raises(RuntimeError, match="out of patience"), callback:
        trainer.train()
    run = nts.open_run(tmp_path / "run")
    assert run.attrs["status"] == "interrupted"
    assert run.step.values.tolist() == [0, 1, 2]


def test_only_the_first_process_opens_the_run(tmp_path):
    from ntkstats.torch import HuggingFaceCallback

    class State:
        is_world_process_zero = False
        global_step = 0

    model = gpt2()
    callback = HuggingFaceCallback(
        tmp_path / "run", model, nts.Probe({"input_ids": windows(3)}), collectors.param_norm()
    )
    callback.on_train_begin(None, State, None)
    callback.on_pre_optimizer_step(None, State, None, model=model)
    callback.on_train_end(None, State, None, model=model)
    assert not list(tmp_path.iterdir())
