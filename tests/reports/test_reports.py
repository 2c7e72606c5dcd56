"""What is printed: golden files at 80 columns, the schema, and nothing that a cluster could smuggle in."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from importlib.resources import files
from itertools import product
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mcdoctor.models.ids import Certainty, Hop, Risk, Severity, Verdict
from mcdoctor.models.playbook import Library
from mcdoctor.models.report import Report
from mcdoctor.reports import FORMATS, clean, render, words

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = ("black-hole", "healthy", "warned", "silent-port", "static", "hostile")
SCHEMA = json.loads((files("mcdoctor.reports") / "report.schema.json").read_text("utf-8"))
SUFFIX = {"text": "txt", "markdown": "md", "json": "json"}


@pytest.mark.parametrize(
    ("name", "format", "language"),
    [(n, f, x) for n, f, x in product(SAMPLES, SUFFIX, ("en", "ko")) if f != "json" or x == "en"],
)
def test_golden(name: str, format: str, language: str, samples: dict[str, Report], library: Library) -> None:
    """MCDOCTOR_GOLDEN=write writes them anew: then read the difference."""
    printed = render(samples[name], format, language, library=library, width=80)
    file = GOLDEN / f"{name}.{language}.{SUFFIX[format]}"
    if os.environ.get("MCDOCTOR_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(printed, "utf-8")
    assert printed == file.read_text("utf-8")


@pytest.mark.parametrize(("name", "language"), list(product(SAMPLES, ("en", "ko"))))
def test_every_report_fits_the_schema(name: str, language: str, samples: dict[str, Report], library: Library) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    document = json.loads(render(samples[name], "json", language, library=library))
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
    facts = len(document["facts"])
    told = [e for c in document["causes"] for key in ("evidence", "proof", "explains", "against") for e in c[key]]
    assert all(i < facts for e in told for i in e["facts"])


@pytest.mark.parametrize("name", SAMPLES)
def test_yaml_and_json_say_the_same(name: str, samples: dict[str, Report], library: Library) -> None:
    as_json = json.loads(render(samples[name], "json", library=library))
    as_yaml = yaml.safe_load(render(samples[name], "yaml", library=library))
    if name != "hostile":
        assert as_yaml == as_json
    assert as_yaml["verdict"] == as_json["verdict"]
    assert [c["id"] for c in as_yaml["causes"]] == [c["id"] for c in as_json["causes"]]


@pytest.mark.parametrize(("format", "language"), list(product(FORMATS, ("en", "ko"))))
def test_nothing_hidden_reaches_the_reader(
    format: str, language: str, samples: dict[str, Report], library: Library
) -> None:
    printed = render(samples["hostile"], format, language, library=library, verbose=True)
    hidden = [c for c in printed if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") and c != "\n"]
    assert hidden == []
    if format in ("text", "markdown"):
        assert not any(row.startswith("HEALTHY") for row in printed.splitlines())
    if format == "markdown":
        outside = re.sub(r"(?<![\\`])(`+)(?!`).*?(?<!`)\1(?!`)", "", printed)
        assert "<script>" not in outside
        assert not re.search(r"(?<!\\)\]\(", outside)


def test_rich_markup_of_the_cluster_is_text(samples: dict[str, Report], library: Library) -> None:
    assert "[bold red]" in render(samples["hostile"], "text", library=library, color=True)


@pytest.mark.parametrize(("name", "width"), list(product(SAMPLES, (40, 80, 120))))
def test_lines_fit_the_terminal(name: str, width: int, samples: dict[str, Report], library: Library) -> None:
    for language in ("en", "ko"):
        printed = render(samples[name], "text", language, library=library, width=width, verbose=True)
        wide = [row for row in printed.splitlines() if cell_len(row) > max(width, 80)]
        assert all(row.lstrip().startswith("$ ") for row in wide), wide


def test_colour_only_when_asked(samples: dict[str, Report], library: Library) -> None:
    plain = render(samples["black-hole"], "text", library=library)
    coloured = render(samples["black-hole"], "text", library=library, color=True)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [r.rstrip() for r in bare.splitlines()] == plain.splitlines()


def test_first_line_is_the_answer(samples: dict[str, Report], library: Library) -> None:
    firsts = {n: render(samples[n], "text", library=library, width=200).splitlines()[0] for n in SAMPLES}
    assert firsts["black-hole"].startswith("DEGRADED: Packets over 1400 bytes vanish between cluster-a and cluster-b")
    assert firsts["healthy"] == "HEALTHY: deployment/frontend reaches backend.demo.svc.clusterset.local."
    assert firsts["silent-port"].startswith("BROKEN: Nobody answers connections to 10.2.0.9:8443")
    assert "Not settled between: cloud-firewall-blocks-port, netpol-ingress-not-allowed." in firsts["silent-port"]
    assert firsts["static"].startswith("INCONCLUSIVE: ")


def test_facts_only_when_verbose(samples: dict[str, Report], library: Library) -> None:
    assert "\nFacts" not in render(samples["black-hole"], "text", library=library)
    assert "\nFacts" in render(samples["black-hole"], "text", library=library, verbose=True)


def test_korean_reports_have_no_english_words_of_ours(samples: dict[str, Report], library: Library) -> None:
    printed = render(samples["black-hole"], "text", "ko", library=library)
    for key in ("path", "root-cause", "evidence", "proof", "remedy", "checks", "limits", "table"):
        assert words.WORDS[key].ko in printed
        assert f"\n{words.WORDS[key].en}" not in printed


@pytest.mark.parametrize("table", ["VERDICTS", "CERTAINTIES", "HOPS", "OUTCOMES", "SEVERITIES", "RISKS", "RESULTS"])
def test_every_word_has_both_languages(table: str) -> None:
    assert all(t.en and t.ko for t in getattr(words, table).values())


def test_closed_lists_are_covered() -> None:
    assert set(words.VERDICTS) == set(Verdict)
    assert set(words.CERTAINTIES) == set(Certainty)
    assert set(words.HOPS) == set(Hop)
    assert set(words.SEVERITIES) == set(Severity)
    assert set(words.RISKS) == set(Risk)
    slot = re.compile(r"\{(\w+)\}")
    assert all(set(slot.findall(t.en)) == set(slot.findall(t.ko)) for t in words.WORDS.values())


def test_schema_lists_are_the_models() -> None:
    from mcdoctor.models.ids import Symptom

    assert SCHEMA["$defs"]["symptom"]["enum"] == [s.value for s in Symptom]
    assert SCHEMA["$defs"]["hop"]["enum"] == [h.value for h in Hop]


class TestClean:
    @given(st.text())
    def test_a_line_is_one_line_without_anything_hidden(self, text: str) -> None:
        out = clean.line(text)
        assert not [c for c in out if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")]
        assert "\n" not in out

    @pytest.mark.parametrize(
        ("text", "out"),
        [
            ("a\x1b[31mred\x1b[0mb", "aredb"),
            ("a\x1b]0;title\x07b", "ab"),
            ("a\x9b31mb", "ab"),
            ("a\r\nb\tc", "a b c"),
            ("a\u202eb\u2066c\u200bd\ufeff", "abcd"),
            ("한국어 🙂", "한국어 🙂"),
        ],
    )
    def test_line(self, text: str, out: str) -> None:
        assert clean.line(text) == out

    def test_very_long_text_is_cut(self) -> None:
        assert len(clean.line("x" * 10_000)) == 2000

    @pytest.mark.parametrize(
        ("template", "value", "out"),
        [
            ("dig {v}", "a.b.c", "dig a.b.c"),
            ("dig {v}", "a; rm -rf /", "dig 'a; rm -rf /'"),
            ("dig {v}", "$(id)", "dig '$(id)'"),
            ("dig {v}", "a'b", "dig 'a'\"'\"'b'"),
            ("sh -c 'dig {v}'", "x' ; id; '", "sh -c 'dig <v>'"),
            ('sh -c "dig {v}"', "$(id)", 'sh -c "dig <v>"'),
            ("dig {v}", "-f/etc/passwd", "dig <v>"),
            ("dig {v}", "", "dig <v>"),
            ("kubectl get -o jsonpath='{.status}' -o go-template='{{v}}' {v}", "x",
             "kubectl get -o jsonpath='{.status}' -o go-template='{{v}}' x"),
        ],
    )  # fmt: skip
    def test_commands_stay_one_command(self, template: str, value: str, out: str) -> None:
        assert clean.command(template, {"v": value}) == out

    @given(st.text())
    def test_a_value_is_one_word_to_the_shell(self, value: str) -> None:
        import shlex

        parts = shlex.split(clean.command("dig {v} +short", {"v": value}))
        assert (len(parts), parts[0], parts[-1]) == (3, "dig", "+short")

    def test_open_slots_stay_visible(self) -> None:
        assert clean.fill("to {host} on {port}", {"host": "b\x1b[1m", "port": ""}) == "to b on <port>"
        assert clean.unfilled("{host}", {})
        assert not clean.unfilled("{host}", {"host": 0})

    @pytest.mark.parametrize(
        ("text", "value", "out"),
        [
            ("포트 {v}이(가)", 8443, "포트 8443이"),
            ("포트 {v}을(를)", 8442, "포트 8442를"),
            ("{v}(으)로", 8081, "8081로"),
            ("{v}(으)로", 8080, "8080으로"),
            ("`{v}`은(는)", "파드", "`파드`는"),
            ("{v}과(와)", "서울", "서울과"),
            ("{v}(으)로", "서울", "서울로"),
            ("{v}이(가)", "backend", "backend이(가)"),
        ],
    )
    def test_korean_particles(self, text: str, value: object, out: str) -> None:
        assert clean.fill(text, {"v": value}) == out  # type: ignore[dict-item]

    def test_manifests_keep_their_lines(self) -> None:
        assert clean.fill_lines("a:\n{v}", {"v": "  b: 1\n  c: \x1b[1m2"}) == "a:\n  b: 1\n  c: 2"

    @given(st.text(alphabet="`|ab \n", max_size=20))
    def test_code_spans_close(self, text: str) -> None:
        span = clean.code(text)
        ticks = re.match(r"`+", span)
        assert ticks is not None
        inner = span[len(ticks[0]) : -len(ticks[0])]
        assert span.endswith(ticks[0])
        assert ticks[0] not in re.findall(r"`+", inner)

    def test_a_fence_cannot_be_closed_from_inside(self) -> None:
        assert clean.fence("a\n```\nb").startswith("````\n")

    @given(st.text())
    def test_escaped_json_is_the_same_json(self, text: str) -> None:
        raw = json.dumps({"a": text}, ensure_ascii=False)
        escaped = clean.escape_json(raw)
        assert json.loads(escaped) == json.loads(raw)
        assert not [c for c in escaped if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")]


class TestTerminal:
    @pytest.mark.parametrize(
        ("terminal", "environment", "colored"),
        [
            (True, {}, True),
            (True, {"NO_COLOR": "1"}, False),
            (True, {"NO_COLOR": ""}, True),
            (True, {"TERM": "dumb"}, False),
            (False, {}, False),
        ],
    )
    def test_colour(
        self,
        terminal: bool,
        environment: dict[str, str],
        colored: bool,
        samples: dict[str, Report],
        library: Library,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
        assert ("\x1b[" in render(samples["healthy"], library=library)) == colored

    @pytest.mark.parametrize(("columns", "widest"), [("20", 50), ("60", 60), ("100", 100), ("300", 120)])
    def test_width(
        self, columns: str, widest: int, samples: dict[str, Report], library: Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        printed = render(samples["black-hole"], library=library)
        found = max(cell_len(row) for row in printed.splitlines() if not row.lstrip().startswith("$"))
        assert widest - 4 <= found <= widest
        assert ("┃" in printed) is (widest >= 80)  # a narrow terminal gets a list

    def test_eighty_columns_into_a_pipe(
        self, samples: dict[str, Report], library: Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("COLUMNS", raising=False)
        monkeypatch.setattr("sys.stdout.isatty", lambda: False)
        assert render(samples["healthy"], library=library) == render(samples["healthy"], library=library, width=80)

    def test_an_unknown_format(self, samples: dict[str, Report], library: Library) -> None:
        with pytest.raises(ValueError, match="'html' is none of text, json, yaml, markdown"):
            render(samples["healthy"], "html", library=library)
