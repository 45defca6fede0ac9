"""The regression guard's verdicts. (Its counts are those of callgrind.)"""

import pytest

guard = pytest.importorskip("benchmarks.guard.__main__", reason="needs the checkout's benchmarks")


@pytest.mark.parametrize(
    ("now", "faults"),
    [
        ({"product": 1000, "gate": 500}, []),
        ({"product": 1099, "gate": 300}, []),
        ({"product": 1101, "gate": 500}, ["avx2: product needs 10.1% more instructions"]),
        ({"product": 1000}, ["avx2: gate is gone"]),
        ({"product": 1000, "gate": 500, "new": 1}, ["avx2: new is not on record"]),
    ],
)
def test_more_than_ten_percent_is_a_fault(now, faults, capsys):
    assert guard.compare(now, {"product": 1000, "gate": 500}, "avx2") == faults
    assert len(capsys.readouterr().out.splitlines()) == len(now | {"product": 0, "gate": 0})


def test_a_profile_in_which_nothing_was_counted_is_an_error(tmp_path):
    profile = tmp_path / "out.1"
    profile.write_text("events: Ir\nsummary: 0\n")
    with pytest.raises(SystemExit, match="nothing was counted"):
        guard.total(profile)
    profile.write_text("events: Ir\nsummary: 123\n")
    assert guard.total(profile) == 123
