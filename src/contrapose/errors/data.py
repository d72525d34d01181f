"""Data that cannot be read, or that a method cannot learn from."""

from __future__ import annotations

from contrapose.errors.base import ContraposeError


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


class TargetsInvalid(ContraposeError):
    """Labels or scores that a method cannot learn from: none, one class alone, two columns that could both be meant, a mark that is neither 0 nor 1,
    a score out of its range.

    **Why it matters.** A guess would train on the wrong column; one class teaches that everything is that class.

    **Example.** `dse` on a file with both `score` and `label`.

    **Mend.** The message names the column; `--set task=regression` or `task=classification` says which is meant.
    """

    code = "CL-DATA-016"


class CurationEmpty(ContraposeError):
    """Curation left no triplet: by their scores, every positive is too unlike or every negative too like its sentence.

    **Why it matters.** There is nothing to train on.

    **Example.** `multicsr` on scores from 0 to 1, with lines meant for 0 to 5.

    **Mend.** The message says how many were dropped and why. Scale the scores to 0 to 5, move `positive_line` and `negative_line`, or
    leave the scores unused: `--set curate=false`.
    """

    code = "CL-DATA-017"


class PromptInvalid(ContraposeError):
    """A folder of prompts lacks a file, or a prompt lacks the place for what it asks about.

    **Why it matters.** Without `{premise}` the generator is asked the same thing for every sentence.

    **Example.** `--set prompts=my_prompts`, whose `entail.txt` says "Sentence: {sentence}".

    **Mend.** `entail.txt` and `contradict.txt` hold `{premise}`, `score.txt` also `{hypothesis}`; `write_prompts("my_prompts")` writes
    the packaged ones to begin with.
    """

    code = "CL-DATA-018"


class DictionaryInvalid(ContraposeError):
    """A dictionary that a method cannot learn from: an entry without definition, fewer than two entries, or fewer than a transform needs.

    **Why it matters.** An entry without definition has no vector. With one entry alone every prediction is right whatever the encoder does,
    and independent components cannot be told apart from fewer entries than dimensions.

    **Example.** `defsent_plus` with `isotropy=ica` on a glossary of 300 entries, for an encoder of 384 dimensions.

    **Mend.** The message names the line or the entry, or what is lacking: write the definition, leave the entry out, give more entries, or set
    `isotropy=normalise`.
    """

    code = "CL-DATA-019"


class ImageInvalid(ContraposeError):
    """An image that cannot be read, or a value given as an image that is none.

    **Why it matters.** It has no vector. One that is cut off half way would be learned with its lower half grey.

    **Example.** A `.jpg` whose download stopped; a table whose column `image` names a file that is not there; pixels from 0 to 16.

    **Mend.** The message names the file or the row and what is wrong with it. Replace it, or leave it out. Pixels are integers from 0 to 255
    or floats from 0 to 1.
    """

    code = "CL-DATA-030"


class ImagesDiffer(ContraposeError):
    """Arrays of images that are not of one shape, or images in several forms.

    **Why it matters.** Files and PIL images are brought to one size; arrays never are, because nothing says which of their sides is which.

    **Example.** A list of arrays of which the fourth is 28 x 30 x 3 and the others are 28 x 28 x 3.

    **Mend.** The message names the first row that differs. Give arrays of one shape, or PIL images or files.
    """

    code = "CL-DATA-031"


class ModalitiesTooFew(ContraposeError):
    """A method for several modalities is left with fewer than two columns.

    **Why it matters.** What it learns is how the modalities of a row belong together; a single one has nothing to belong to.

    **Example.** `symile` on a file whose only column beside `group_id` is `picture`.

    **Mend.** Give the other modalities as columns of the same rows, and name at least two: `--encoder picture=vectors,sound=vectors`.
    """

    code = "CL-DATA-060"


class VectorsInvalid(ContraposeError):
    """A column of vectors whose rows are no numbers, or not all of one shape.

    **Why it matters.** An encoder of vectors has one weight for each place; a row with more or fewer places was cut or joined somewhere.

    **Example.** `{"sound": [0.1, 0.2]}` after `{"sound": [0.3, 0.1, 0.7]}`.

    **Mend.** The message names the first such row and both shapes. A row without a value is left empty (null), not shorter.
    """

    code = "CL-DATA-061"


class SequenceInvalid(ContraposeError):
    """A sequence of items that cannot be used: it is empty, of a user who stands twice, or holds an item number that there is not.

    **Why it matters.** An empty sequence says nothing about what comes next, and item 0 is the padding, which no user has chosen.

    **Example.** `model.encode([[]])`; a table whose `item` column holds `[]` for a user; sequences without a single next item to learn from.

    **Mend.** The message names the row. Leave such users out, or give at least two interactions of a user.
    """

    code = "CL-DATA-080"


class UserTooShort(ContraposeError):
    """A user has too few interactions for the last of them to be held out.

    **Why it matters.** Leave-one-out takes a user's last interaction as the test and the one before as the development data; with fewer than
    three, nothing would be left to go by, and the user would count as a failure of every encoder.

    **Example.** A user with one purchase, with `--on next_item=purchases.csv`.

    **Mend.** The message names the first such user and how many there are. Leave them out, or keep the users and items with at least five
    interactions: `contrapose.sequence.data.core(table, 5)`.
    """

    code = "CL-DATA-081"
