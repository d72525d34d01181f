"""The training loop: the only one. Stages, epochs, steps; straight down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch
from lightning_fabric import Fabric
from torch import LongTensor, Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from contrapose.data.batches import Batch, Data, seeded
from contrapose.distributed import any_process, average_gradients
from contrapose.training.checkpoint import load_weights, read_checkpoint, section, write_checkpoint
from contrapose.training.finite import naming_step, naming_terms, refuse_non_finite, refuse_non_finite_gradient
from contrapose.training.health import Health, embedding_figures
from contrapose.training.interrupts import Stopped, interrupts
from contrapose.training.memory import plan_memory
from contrapose.training.method import Method, Stage, StageRecord, Update
from contrapose.training.optimisers import build_optimisers, learning_rate, load_state_tensors, state_tensors, trainable
from contrapose.training.plan import plan, refuse_without_negatives
from contrapose.training.position import Position
from contrapose.training.progress import Reporter, Silent, figures_line
from contrapose.training.run_folder import RunFolder
from contrapose.training.settings import MethodSettings
from contrapose.training.setup import make_fabric, precision_said, seed_everything, share_of
from contrapose.training.stages import Create, RunContext, Select, build_model, finished_model


def fit(
    create: Create,
    method: type[Method],
    settings: MethodSettings,
    data: Data,
    folder: RunFolder,
    *,
    select: Select | None = None,
    fabric: Fabric | None = None,
    reporter: Reporter | None = None,
) -> Method:
    """Train every stage of a method, from the start or from the folder's newest checkpoint, and give back the last one's model.

    `select` scores the development data every `select_every` steps; the best weights are kept, and `patience` stops early.
    Raises Stopped after SIGINT or SIGTERM with the state saved, NonFinite for a NaN, NoNegatives before the first step.
    """
    fabric = fabric or make_fabric(settings.precision)
    tensors, facts = folder.last_checkpoint() or ({}, None)
    position = Position.of(facts) if facts else Position()
    if fabric.is_global_zero:
        folder.forget_metrics(after=position.total_step)
    with interrupts() as asked, torch.random.fork_rng():
        told = reporter if reporter is not None and fabric.is_global_zero else Silent()
        run = RunContext(create, method(settings), data, folder, fabric, select, told, position, asked)
        while (stage := run.root.next_stage(position.finished)) is not None:
            train_stage(run, stage, tensors)
            if number := any_process(asked.requested):  # while the stage was closed; it is saved
                raise Stopped(number, position.total_step)
            tensors = {}
        model = finished_model(run, position.finished[-1].name)
        if late := any_process(asked.requested):  # a signal after the last step must not be lost
            raise Stopped(late, position.total_step)
        return model


def train_stage(run: RunContext, stage: Stage, tensors: dict[str, Tensor]) -> None:
    """One stage to its end. `tensors` are those of the checkpoint in the middle of this stage, or empty."""
    position, folder, fabric = run.position, run.folder, run.fabric
    number = len(position.finished)
    model = build_model(run, stage)
    settings = model.settings
    data = run.data if stage.rows is None else run.data.take(stage.rows(run.data))
    refuse_without_negatives(model, data)

    before = stage.previous or (position.finished[-1].name if position.finished else None)
    previous = finished_model(run, before) if before else None
    if stage.start != "initial":
        load_weights(model, read_checkpoint(folder.stage_file(stage.start))[0], folder.stage_file(stage.start))
    seed_everything(settings.seed, number, 0)
    model.prepare(data, previous)
    updates = model.updates()
    optimisers = build_optimisers(model, updates)
    if tensors:  # resume in the middle
        load_weights(model, section(tensors, "model"), folder.checkpoint_files()[-1])
        load_state_tensors(model, optimisers, section(tensors, "optimiser"))
        batches = list(tensors["batches:rows"].split(tensors["batches:lengths"].tolist()))
        model.watched |= position.watched
    else:
        position.stage, position.step, position.epoch, position.best, position.stale = stage.name, 0, 0, None, 0
        position.terms = {}  # a stage that stopped early may have left some that no line told
        position.health = Health()
        batches = list(model.batches(data, 0, seeded(settings.seed, number, 1, 0)))
        position.batch, position.steps = 0, stage.steps or settings.steps or math.ceil(settings.epochs * len(batches))
    position.watched = model.watched  # one dict, so that a checkpoint keeps it

    memory = plan_memory(run, model, data, batches[position.batch % len(batches)], updates)
    if not tensors:  # other rows may measure otherwise when the run goes on
        position.chunk, position.memory = (memory.chunk, memory.expected) if memory else (None, None)
    model.chunk_size = position.chunk
    run.reporter.say(plan(model, data, position.steps, precision_said(fabric), memory))
    run.reporter.begin(stage.name, position.step, position.steps)
    model.clock.lap()
    try:
        while position.step < position.steps and not (settings.patience and position.stale >= settings.patience):
            if position.batch == len(batches):
                position.epoch, position.batch = position.epoch + 1, 0
                batches = list(model.batches(data, position.epoch, seeded(settings.seed, number, 1, position.epoch)))
            rows = batches[position.batch]
            seed_everything(settings.seed, number, 2, position.step, fabric.global_rank)
            batch = share_of(rows, data, position.step, seeded(settings.seed, number, 3, position.step), fabric)
            model.train()
            with torch.enable_grad(), naming_step(position.step, folder):
                train_step(run, model, updates, optimisers, batch)
            position.step, position.batch = position.step + 1, position.batch + 1
            position.total_step += 1
            model.clock.rows += len(rows)

            chance = model.chance(batch.whole)
            verdicts = position.health.follow(position.step, model.embeddings, position.terms, chance)
            for verdict in verdicts:
                run.reporter.say(f"Step {position.step:,}: {verdict}")
            if verdicts or position.step % settings.log_every == 0 or position.step == position.steps:
                log(run, model, batch)
            run.reporter.step(position.step, None)
            if run.select and (position.step % settings.select_every == 0 or position.step == position.steps):
                score_on_development_data(run, model)
            asked = any_process(run.asked.requested)
            if asked or (position.step % settings.checkpoint_every == 0 and position.step < position.steps):
                save(run, model, optimisers, batches)
            if asked:
                raise Stopped(asked, position.total_step)
    finally:
        run.reporter.end()
    if position.step < position.steps:
        run.reporter.say(f"Stopped early: {position.stale} scores without a better one than {position.best:.4f}.")
    close_stage(run, model, stage, data)


def train_step(run: RunContext, model: Method, updates: Sequence[Update], optimisers: dict, batch: Batch) -> None:
    """Every update of one step. Of a term that several updates share, the first value counts: the weights are the step's."""
    step, settings, seen = batch.step, model.settings, {}
    model.before_step(batch)
    for update in updates:
        if step % update.every:
            continue
        model.zero_grad(set_to_none=True)
        with run.fabric.autocast(), naming_terms(model.term_names):
            terms = update.loss(batch)
        if not terms:
            run.position.skipped += 1
            continue
        refuse_non_finite(terms)
        refuse_non_finite({f"view '{name}'": rows for name, rows in model.embeddings.items()})
        model.term_names |= dict.fromkeys(terms)
        seen |= {name: float(term.detach()) for name, term in terms.items() if name not in seen}
        mine = trainable(update, model)
        with model.clock("backward"):
            model.backward(terms)
            average_gradients(mine)
        if all(parameter.grad is None for parameter in mine):  # a rule on gradients that kept nothing
            run.position.skipped += 1
            continue
        with model.clock("update"):
            norm = get_total_norm([parameter.grad for parameter in mine if parameter.grad is not None])
            refuse_non_finite_gradient(norm, terms, model)  # before clipping spreads it over all parameters
            clip_grads_with_norm_(mine, settings.clip_norm or math.inf, norm)
            optimiser = optimisers[update.optimiser]
            for parameter in set(model.parameters()) - set(mine):
                parameter.grad = None  # an optimiser that is shared moves this update's parameters alone
            for group in optimiser.param_groups:
                peak = settings.learning_rate if update.lr is None else update.lr
                group["lr"] = learning_rate(peak, step, run.position.steps, settings)
            optimiser.step()
    with torch.no_grad(), run.fabric.autocast():
        model.after_step(model.embeddings, batch.whole)
    run.position.terms |= seen


def close_stage(run: RunContext, model: Method, stage: Stage, data: Data) -> None:
    """Go back to the best weights, finish, and write the stage down."""
    position, folder = run.position, run.folder
    figures = {}
    if position.best is not None:
        load_weights(model, read_checkpoint(folder.best_file)[0], folder.best_file)
        figures["selected"] = position.best
    seed_everything(model.settings.seed, len(position.finished), 4)
    figures |= {name: float(value) for name, value in model.eval().finish(data).items()}
    position.finished.append(StageRecord(stage.name, position.step, figures))
    position.stage = None
    if run.writes:
        write_checkpoint(folder.stage_file(stage.name), model.state_dict(), {"stage": stage.name, "figures": figures})
        folder.write_checkpoint(position.total_step, {}, asdict(position))
    run.fabric.barrier()


def score_on_development_data(run: RunContext, model: Method) -> None:
    """Ask `select`; keep the weights when they are the best yet."""
    position = run.position
    with torch.no_grad():
        score = float(run.select(model.eval()))
    better = position.best is None or score > position.best
    position.best, position.stale = (score, 0) if better else (position.best, position.stale + 1)
    if run.writes:
        run.folder.append_metrics({"stage": position.stage, "total_step": position.total_step, "selected": score})
        if better:
            write_checkpoint(run.folder.best_file, model.state_dict(), {"step": position.step, "score": score})


def save(run: RunContext, model: Method, optimisers: dict, batches: Sequence[LongTensor]) -> None:
    """A checkpoint: weights, optimisers, the epoch's batches, the position. Random state is a function of the step and needs no saving."""
    floating = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    with naming_step(run.position.step - 1, run.folder):
        refuse_non_finite(floating)
    if not run.writes:
        return
    tensors = {f"model:{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"optimiser:{name}": tensor for name, tensor in state_tensors(model, optimisers).items()}
    tensors["batches:rows"] = torch.cat(list(batches))
    tensors["batches:lengths"] = torch.tensor([len(rows) for rows in batches])
    run.folder.write_checkpoint(run.position.total_step, tensors, asdict(run.position))


def log(run: RunContext, model: Method, batch: Batch) -> None:
    """A line of metrics.jsonl, the loggers' figures and the line that people read."""
    position, settings = run.position, model.settings
    lap = model.clock.lap()
    metrics = {
        "stage": position.stage,
        "step": position.step,
        "total_step": position.total_step,
        "epoch": position.epoch,
        "terms": position.terms,
        "chance": model.chance(batch.whole),
        "learning_rate": learning_rate(settings.learning_rate, batch.step, position.steps, settings),
        "geometry": embedding_figures(model.embeddings),
        "verdicts": dict(position.health.verdicts),
        "watched": dict(model.watched),
        "skipped": position.skipped,
        "memory": position.memory,
        "clock": {"seconds": lap.seconds, "rows_per_second": lap.rows / lap.seconds, "share": lap.share},
    }
    position.terms = {}
    if run.writes:
        run.folder.append_metrics(metrics)
        run.reporter.step(position.step, figures_line(metrics))
        figures = metrics["terms"] | metrics["geometry"] | metrics["watched"]
        run.fabric.log_dict(figures | {"learning_rate": metrics["learning_rate"]}, step=position.total_step)
