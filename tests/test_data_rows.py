"""Conditions on rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae_plugin import MedSAEError, read_table
from medsae_plugin.data.rows import where

FRAME = pd.DataFrame(
    {
        "view": ["Frontal", "Lateral", "Frontal", "", "Frontal"],
        "age": [61.0, 20.0, np.nan, 40.0, 17.5],
        "Follow-up #": ["0", "1", "2", "3", ""],
        "Edema": [1.0, 0.0, np.nan, 1.0, 0.0],
    }
)


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ("view == 'Frontal' and age > 18", [0]),
        ("view == 'Frontal' or age > 18", [0, 1, 2, 3, 4]),
        ("not view == 'Frontal'", [1]),
        ("view != 'Frontal'", [1]),
        ("not (view == 'Frontal' and age > 18)", [1, 4]),
        ("18 <= age < 61", [1, 3]),
        ("61 > age", [1, 3, 4]),
        ("view in ('Frontal', 'Lateral') and Edema == 0", [1, 4]),
        ("age not in [61, 20]", [3, 4]),
        ("follow_up >= 2", [2, 3]),
        ("age > -1", [0, 1, 3, 4]),
        ("VIEW == 'Lateral'", [1]),
    ],
)
def test_rows_for_which_a_condition_holds(wanted, rows):
    holds, notes = where(dict(FRAME.items()), wanted)
    assert np.flatnonzero(holds).tolist() == rows
    assert notes[0] == f"--where {wanted}: {len(rows)} of 5 images"
    assert ("age" in wanted) == any("1 images without age" in note for note in notes)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("__import__('os').system('id')", "is not understood here"),
        ("view.upper() == 'X'", "is not understood here"),
        ("view", "is not understood here"),
        ("age + 1 > 3", "is not understood here"),
        ("age > (lambda: 3)()", "is not understood here"),
        ("view == view", "is not understood here"),
        ("age == True", "is not understood here"),
        ("view in []", "is not understood here"),
        ("age is None", "is not understood here"),
        ("age > 1; age", "cannot be read"),
        ("(" * 5000, "cannot be read"),
        ("sight == 'Frontal'", "there is no column 'sight'"),
        ("veiw == 'Frontal'", "did you mean view?"),
        ("age == '61'", "age is of numbers, and '61' is text"),
        ("view > 3", "view holds no numbers"),
        (
            "view == 'frontal'",
            "holds for none of the 5 images.*no image has view 'frontal'; it has 'Frontal', 'Lateral'",
        ),
    ],
)
def test_what_is_no_condition_is_told(wanted, said):
    with pytest.raises(MedSAEError, match=said.replace("?", r"\?").replace("(", r"\(") if ".*" not in said else said):
        where(dict(FRAME.items()), wanted)


numbers = st.lists(st.integers(-3, 3) | st.just(None), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(numbers, st.integers(-3, 3), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.booleans())
def test_comparisons_are_those_of_pandas_where_there_is_a_number(cells, value, sign, negated):
    frame = pd.DataFrame({"a": pd.array(cells, dtype="Int64")})
    wanted = f"a {sign} {value}"
    asked = f"not ({wanted})" if negated else wanted
    known = frame.dropna()
    expected = known.query(asked, engine="python").index.tolist()
    columns = {"a": frame["a"].astype("float64")}
    if not expected:
        with pytest.raises(MedSAEError):
            where(columns, asked)
        return
    assert np.flatnonzero(where(columns, asked)[0]).tolist() == expected


def test_a_table_takes_the_rows_that_are_wanted(tmp_path):
    text = "path,patient,sex,age,nodule,ward\na.png,1,F,61,1,x\nb.png,2,M,30,0,y\nc.png,3,F,,0,y\n"
    (tmp_path / "t.csv").write_text(text)
    table = read_table(tmp_path / "t.csv", where="sex == 'F' and ward == 'y'")
    assert table.frame["path"].tolist() == ["c.png"] and table.labels.tolist() == [[0]]
    assert "--where sex == 'F' and ward == 'y': 1 of 3 images" in table.describe()
    whole = read_table(tmp_path / "t.csv")
    assert whole.where("nodule == 1").frame["image_id"].tolist() == [0]
    assert whole.where("age < 40 and patient == '2'").frame["path"].tolist() == ["b.png"]
    with pytest.raises(MedSAEError, match="there is no column 'image_id'"):
        whole.where("image_id == 1")
