import pytest

from train.evaluation.goals import goals_table


def row(name, **figures):
    return {"name": name, **figures, "intervals": {each: [x - 0.01, x + 0.01] for each, x in figures.items()}}


@pytest.fixture
def report():
    """Every figure at its goal."""
    model = row("model", char_f1_micro=0.95, frame_acc=0.88, bg_acc=0.95, frame_acc_2_and_3=0.88, fjd=40.0)
    rows = [row("real", fjd=20.0), model, row("reconstructed", psnr=28.0)]
    captions = {"sampled": row("", complete=0.995, faithful=0.6), "real": row("", faithful=0.63)}
    return {"rows": rows, "captions": captions}


def judged(path, right):
    lines = [f"| {i} | A caption. | yes | yes | {'yes' if i <= right else 'no'} | |" for i in range(1, 51)]
    path.write_text("| | caption | place | cast | action | |\n|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n")
    return path


def test_goals_that_are_just_met(report, tmp_path):
    text = goals_table(report, judged(tmp_path / "unseen.md", 40))
    assert text.count("| met |") == 9 and "missed" not in text
    assert "| Char-F1 micro | at least 95.0% | 95.0% (94.0% to 96.0%) | met |" in text
    assert "| at most 40.0 | 40.0 (40.0 to 40.0) | met |" in text and "| 40 of 50 | met |" in text


def test_goals_that_are_just_missed(report, tmp_path):
    for each in (*report["rows"], report["captions"]["sampled"]):
        for name in set(each) - {"name", "intervals"}:
            each[name] += 0.001 if name == "fjd" and each["name"] == "model" else -0.001
    text = goals_table(report, judged(tmp_path / "unseen.md", 39))
    assert text.count("| missed |") == 9 and "| met |" not in text


def test_what_was_not_measured_is_left_out(report, tmp_path):
    del report["captions"], report["rows"][2]
    report["rows"][1]["frame_acc_2_and_3"] = None
    text = goals_table(report, tmp_path / "unseen.md")
    assert text.count("| met |") == 4 and "PSNR" not in text and "captions" not in text
