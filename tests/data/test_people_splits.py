# SPDX-License-Identifier: Apache-2.0
"""People are trained on or held out, whatever they were recorded in."""

import pytest

from pointillist_hf.data.tokens.people_splits import (
    check_leakage,
    choose_splits,
    find_person,
    read_names,
)

SEQUENCES = ("EMO-1", "EXP-2", "SEN-01")
RECORDINGS = [f"{i:03d}_{s}_v16_DS4" for i in range(17, 57) for s in SEQUENCES]


def people_of(splits, split):
    return {find_person(name) for name, found in splits.items() if found == split}


def test_a_person_is_on_one_side_with_all_recordings():
    splits = choose_splits(RECORDINGS, 5)
    train, test = people_of(splits, "train"), people_of(splits, "test")
    assert len(test) == 5
    assert len(train) == 35
    assert not train & test
    assert sum(split == "test" for split in splits.values()) == 5 * len(SEQUENCES)


def test_the_papers_number_of_people_is_a_list_by_seed():
    """25 of 419, whatever the order and the sequences that there are."""
    names = [f"{i:03d}_EXP-1_v16" for i in range(18, 437)]
    assert len(names) == 419
    first = people_of(choose_splits(names, 25), "test")
    assert len(first) == 25
    more = [*names[::-1], *(f"UNION10_{name[:3]}_EMO1234EXP234589_v16" for name in names)]
    assert people_of(choose_splits(more, 25), "test") == first
    other = people_of(choose_splits(names, 25, seed=1), "test")
    assert len(other) == 25
    assert other != first
    assert sorted(first)[:3] == ["057", "063", "149"]  # the same on every machine


def test_names_of_people():
    assert find_person("074_EMO-1_v16_DS4_whiteBg") == "074"
    assert find_person("UNION10_306_EMO1234EXP234589_v16") == "306"
    for name in ("anna", "person_12", "074", "1000000", "12_EXP-1"):
        assert find_person(name) == name
    names = ["anna-talks", "anna-smiles", "bert-talks"]
    splits = choose_splits(names, 1, pattern="(?P<person>[a-z]+)-.*")
    assert splits["anna-talks"] == splits["anna-smiles"] != splits["bert-talks"]


def test_people_are_held_out_by_name(tmp_path, caplog):
    path = tmp_path / "held_out.txt"
    path.write_text("# the paper's\n 020  # a comment\n\n031\n999\n")
    names = read_names(path)
    assert names == ("020", "031", "999")
    splits = choose_splits(RECORDINGS, test_people=names)
    assert people_of(splits, "test") == {"020", "031"}
    assert "No fit is of 999" in caplog.text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_test": 40}, "`num_test` must be less than the number of people, 40"),
        ({"test_people": [f"{i:03d}" for i in range(17, 57)]}, "somebody must be left"),
        ({"test_people": ["nobody"]}, "`test_people` must name people of the fits"),
        ({"pattern": "(?P<who>.*)"}, "must have a group called person"),
        ({"pattern": "("}, "must be a regular expression"),
        ({"pattern": "(?P<person>x).*"}, "does not match '017_EMO-1_v16_DS4'"),
    ],
)
def test_splits_that_cannot_be(options, problem):
    with pytest.raises(ValueError, match=problem.replace("(", r"\(").replace(")", r"\)")):
        choose_splits(RECORDINGS, **options)


def test_files_of_names_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="`test_people` must be a file"):
        read_names(tmp_path / "nothing.txt")
    for text in ("", "# nobody\n", "anna\nanna\n"):
        path = tmp_path / "names.txt"
        path.write_text(text)
        with pytest.raises(ValueError, match="each once and one a line"):
            read_names(path)


def test_leaks_are_refused():
    check_leakage(["a", "b"], ["c"])
    with pytest.raises(ValueError, match="1 are in both, for instance 'b'"):
        check_leakage(["a", "b"], ["c", "b"])
