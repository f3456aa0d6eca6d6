"""Data files of every form: what is learned, what is dropped, what is refused."""

import json
import resource
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st
from tiny_models import make_tiny_tokenizer

from lmoe_studio.errors import DataError
from lmoe_studio.text_rows import read_rows
from lmoe_studio.training import row_files as row_files_module
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.data import MixedSkills, SkillData, collate, load_skills
from lmoe_studio.training.events import SkillReport
from lmoe_studio.training.examples import IGNORED, Example, Examples, text_rows
from lmoe_studio.training.preview import preview

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def tokenizer():
    return make_tiny_tokenizer()


def settings_for(path, *, held_out=(), **options):
    skill = {"name": "skill", "train": [str(path)], "held_out": [str(p) for p in held_out]}
    values = {"name": "x", "out": "out", "skills": [skill], "sequence_length": 32, "steps": 4}
    return TrainingConfig.parse(values | options, source="config")


def load(path, tokenizer, **options):
    [skill] = load_skills(settings_for(path, **options), tokenizer)
    return skill


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def learned_text(tokenizer, example):
    kept = [token for token in example.labels if token != IGNORED]
    return tokenizer.decode(kept)


def test_of_a_pair_only_the_response_is_learned(tmp_path, tokenizer):
    path = jsonl(tmp_path / "a.jsonl", [{"prompt": "2+2?", "response": "4"}] * 2)
    [row, _] = text_rows(path)
    example = Examples(tokenizer, "plain").of(row)
    assert tokenizer.decode(example.ids) == "2+2?\n4</s>"
    assert learned_text(tokenizer, example) == "4</s>"


def test_of_a_conversation_only_the_assistant_is_learned(tmp_path, tokenizer):
    tokenizer.chat_template = TEMPLATE
    turns = [
        {"role": "system", "content": "S"}, {"role": "user", "content": "U"},
        {"role": "assistant", "content": "one"}, {"role": "user", "content": "V"},
        {"role": "assistant", "content": "two"},
    ]  # fmt: skip
    [row] = text_rows(jsonl(tmp_path / "a.jsonl", [{"messages": turns}]))
    example = Examples(tokenizer, "chat").of(row)
    assert tokenizer.decode(example.ids) == tokenizer.apply_chat_template(turns, tokenize=False)
    assert learned_text(tokenizer, example) == "one</assistant>two</assistant>"
    pair = jsonl(tmp_path / "b.jsonl", [{"prompt": "U", "response": "one"}])
    example = Examples(tokenizer, "chat").of(next(text_rows(pair)))
    assert tokenizer.decode(example.ids) == "<user>U</user><assistant>one</assistant>"


def test_a_chat_template_that_is_missing_or_rewrites_turns_is_refused(tmp_path, tokenizer):
    turns = [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
    [row] = text_rows(jsonl(tmp_path / "a.jsonl", [{"messages": turns * 2}]))
    with pytest.raises(DataError, match="no chat template"):
        Examples(tokenizer, "chat").of(row)
    tokenizer.chat_template = "{{ messages | length }}" + TEMPLATE
    with pytest.raises(DataError, match="rewrites earlier turns"):
        Examples(tokenizer, "chat").of(row)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".txt"])
def test_every_form_of_file_gives_the_same_sequences(tmp_path, tokenizer, suffix):
    texts = [f"text number {i}, with 'quotes' and ü" for i in range(20)]
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        jsonl(path, [{"text": text} for text in texts])
    elif suffix == ".csv":
        pd.DataFrame({"text": texts, "other": 1}).to_csv(path, index=False)
    elif suffix == ".parquet":
        pd.DataFrame({"text": texts, "other": 1}).to_parquet(path)
    else:
        path.write_text("\n".join(texts))
    reference = load(jsonl(tmp_path / "r.jsonl", [{"text": t} for t in texts]), tokenizer)
    found = load(path, tokenizer)
    assert (found.train, found.held_out) == (reference.train, reference.held_out)
    assert len(found.train) == 16
    assert all(len(example) == 32 for example in found.train)


def test_conversations_are_read_from_parquet(tmp_path, tokenizer):
    tokenizer.chat_template = TEMPLATE
    turns = [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
    pd.DataFrame({"messages": [turns] * 3}).to_parquet(tmp_path / "a.parquet")
    jsonl(tmp_path / "a.jsonl", [{"messages": turns}] * 3)
    rows = [[r.parts for r in text_rows(tmp_path / f"a.{kind}")] for kind in ("parquet", "jsonl")]
    assert rows[0] == rows[1]


def test_plain_texts_stand_apart_by_blank_lines_or_are_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\none\ntwo\n\n \nthree\n")
    assert [row.parts[0][1] for row in text_rows(path)] == ["one\ntwo", "three"]
    path.write_text("\none\ntwo\nthree\n\n")
    assert [r.parts[0][1] for r in text_rows(path) if not r.is_blank] == ["one", "two", "three"]


def test_texts_are_held_out_by_the_seed_and_their_copies_are_not_trained_on(tmp_path, tokenizer):
    texts = [f"{'abcdefghij'[i % 10] * 40}" for i in range(100)]  # ten copies of each of ten texts
    path = jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    skill = load(path, tokenizer, held_out_share=0.01, steps=50)
    [held] = {tokenizer.decode(example.ids)[0] for example in skill.held_out}
    letters = {letter for example in skill.train for letter in tokenizer.decode(example.ids)}
    assert held not in letters - set("</s>")
    assert skill.report.dropped == {"copy of a held-out text": 9}
    again = load(path, tokenizer, held_out_share=0.01, steps=50)
    assert again.train == skill.train
    other = load(path, tokenizer, held_out_share=0.01, steps=50, seed=3)
    assert other.train != skill.train


def test_what_is_left_out_is_counted(tmp_path, tokenizer):
    rows = [
        {"prompt": "p", "response": "fine"}, {"prompt": "p", "response": " "},
        {"prompt": "long " * 20, "response": "x"}, {"prompt": "p", "response": "y" * 90},
        {"prompt": "p", "response": "\ud800!"},
    ]  # fmt: skip
    held = jsonl(tmp_path / "h.jsonl", rows[:1])
    skill = load(
        jsonl(tmp_path / "a.jsonl", [*rows[1:], {"prompt": "q", "response": "z"}]),
        tokenizer, held_out=[held], steps=50,
    )  # fmt: skip
    assert skill.report.dropped == {
        "blank": 1, "prompt too long": 1, "response cut": 1, "broken characters replaced": 1,
    }  # fmt: skip
    assert (skill.report.texts, skill.report.held_out_texts) == (4, 1)
    assert all(len(example) <= 32 for example in skill.train)
    assert sum(example.learned for example in skill.train) > 0


def test_whole_pairs_share_a_sequence(tmp_path, tokenizer):
    pairs = [{"prompt": f"q{i}", "response": f"a{i}"} for i in range(40)]
    skill = load(jsonl(tmp_path / "a.jsonl", pairs), tokenizer, steps=100)
    sequences = [tokenizer.decode(example.ids) for example in skill.train]
    assert all(text.startswith("q") and text.endswith("</s>") for text in sequences)
    assert sum(text.count("</s>") for text in sequences) == 38
    assert max(map(len, skill.train)) <= 32


def test_the_preview_marks_what_is_not_learned(tmp_path, tokenizer):
    path = jsonl(tmp_path / "a.jsonl", [{"prompt": "ab", "response": "cd"}] * 5)
    config = settings_for(path, held_out=[jsonl(tmp_path / "h.jsonl", [{"text": "other"}])])
    [skill] = preview(config, tokenizer, count=1)
    tokens = skill.sequences[0][:6]
    assert tokens == [
        ("a", False), ("b", False), ("\n", False), ("c", True), ("d", True), ("</s>", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "Skill 'skill' has no text in .*a.jsonl; give it two or more"),
        ("a.jsonl", b"\n \n", "has no text"),
        ("a.jsonl", b'{"text": "only"}', "has one text .* two or more, or a held-out file"),
        ("a.jsonl", b'{"text": "ok"}\n{"text": ', "line 2: no JSON"),
        ("a.jsonl", b'{"prompt": "x"}', "line 1: expected `text`, or `prompt` and `response`"),
        ("a.jsonl", b'{"txt": "x"}', "got txt"),
        ("a.jsonl", b"[1, 2]", "line 1: expected an object with columns, got list"),
        ("a.jsonl", b'{"text": 3}', "line 1: 'text' is int, not text"),
        ("a.jsonl", b'{"messages": "hi"}', "'messages' is str; expected a list"),
        ("a.jsonl", b'{"messages": [{"role": "bot"}]}', "message 1: expected `role`"),
        ("a.jsonl", b'{"text": "' + b"x" * 1_000_001 + b'"}', "line 1: longer than 1,000,000"),
        ("a.jsonl", '{"text": "ä"}'.encode("utf-16"), "not UTF-8"),
        ("a.jsonl", b"a\0b", "binary file"),
        ("a.csv", b"body\nx\ny\n", "line 2: expected `text`.*got body"),
        ("a.csv", b"text\na,b\n", "more cells"),
        ("a.parquet", b"PAR1", "no Parquet file"),
        ("a.pdf", b"%PDF", r"expected a .jsonl, .csv, .parquet or .txt file, not '.pdf'"),
    ],
)
def test_an_unsound_file_is_refused_in_one_sentence(tmp_path, tokenizer, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path / name, tokenizer)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_missing_file_and_an_empty_held_out_file_are_named(tmp_path, tokenizer):
    with pytest.raises(DataError, match=r"none.jsonl cannot be read"):
        load(tmp_path / "none.jsonl", tokenizer)
    path = jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(DataError, match=r"no text in .*h.jsonl"):
        load(path, tokenizer, held_out=[jsonl(tmp_path / "h.jsonl", [])])


def test_rows_that_all_exceed_the_sequence_are_refused(tmp_path, tokenizer):
    rows = [{"prompt": "x" * 100, "response": "y"}] * 4
    with pytest.raises(DataError, match="no room for the response within sequence_length 32"):
        load(jsonl(tmp_path / "a.jsonl", rows), tokenizer)


def test_a_parquet_column_of_another_name_is_refused_with_the_names(tmp_path, tokenizer):
    pd.DataFrame({"body": ["x"], "label": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="got body, label"):
        load(tmp_path / "a.parquet", tokenizer)


def test_a_bomb_stops_before_it_is_unpacked(tmp_path, tokenizer, monkeypatch):
    path = tmp_path / "bomb.parquet"
    texts = pa.array(["x" * 900_000]).dictionary_encode().take(pa.array([0] * 5000))
    pq.write_table(pa.table({"text": texts}), path)
    monkeypatch.setattr(row_files_module, "MAX_CHARACTERS", 50_000_000)
    with pytest.raises(DataError, match="more than 50,000,000 characters"):
        load(path, tokenizer)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux counts it")
def test_a_large_file_needs_little_memory(tmp_path, tokenizer):
    path = tmp_path / "large.jsonl"
    line = json.dumps({"text": "word " * 2000}) + "\n"
    with path.open("w") as file:
        for _ in range(20_000):  # 200 MB
            file.write(line)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = jsonl(tmp_path / "h.jsonl", [{"text": "held out"}])
    load(path, tokenizer, held_out=[held])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60_000  # kilobytes


def test_skills_take_turns_and_every_sequence_is_seen_once_a_round():
    def skill(name, count):
        rows = [Example([i], [i], [-1]) for i in range(count)]
        return SkillData(name, rows, [], SkillReport(name, count, 0, count, count, {}))

    data = MixedSkills([skill("a", 5), skill("b", 3)], 30, seed=3)
    rows = [data[i] for i in range(30)]
    assert all({rows[i]["skill"], rows[i + 1]["skill"]} == {0, 1} for i in range(0, 30, 2))
    first = [row["example"].ids[0] for row in rows if row["skill"] == 0]
    assert sorted(first[:5]) == sorted(first[5:10]) == list(range(5))
    assert [data[i] for i in range(30)] == rows  # no hidden state


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["text", "prompt", "response"]), st.text(max_size=60), min_size=1
        ),
        max_size=12,
    )
)
def test_any_rows_give_sound_sequences_or_one_sentence(tmp_path_factory, rows):
    path = jsonl(tmp_path_factory.mktemp("rows") / "a.jsonl", rows)
    try:
        skill = load(path, make_tiny_tokenizer(), steps=1)
    except DataError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
    if message:
        return
    for example in (*skill.train, *skill.held_out):
        assert 0 < example.learned < len(example) <= 32
        assert all(b in (a, IGNORED) for a, b in zip(example.ids, example.labels, strict=True))
    batch = collate([{"example": e, "skill": 0} for e in skill.train])
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()


def test_rows_say_where_they_stand(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,b\n"two\nlines",1\nx,2\n')
    assert [where for where, _ in read_rows(path)] == [f"{path}, line 3", f"{path}, line 4"]


def test_a_skill_needs_a_file():
    with pytest.raises(ValueError, match="at least 1"):
        SkillConfig(name="x", train=())
