"""The Corefile parser: blocks, zones, forwarders, snippets, imports, comments, and what is broken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcdoctor_checks.dns.corefile import clean, forwards, parse, within


def test_the_default_of_kubernetes_is_read() -> None:
    from worlds import COREFILE

    config = parse(COREFILE)
    assert config.problems == () and config.imports == ()
    (server,) = config.servers
    assert server.zones == (".",)
    assert [p.name for p in server.plugins] == ["errors", "health", "ready", "kubernetes", "forward", "cache", "loop"]
    assert server.all("kubernetes")[0].options[-1] == ("ttl", "30")
    assert forwards(server, "example.com") == ("/etc/resolv.conf",)


def test_zones_have_schemes_ports_commas_and_cases() -> None:
    config = parse("dns://Example.ORG:1053, b.example.,\n  tls://c.example:853 :5353 {\n  whoami\n}\n")
    assert config.servers[0].zones == ("example.org", "b.example", "c.example", ".")
    assert config.problems == ()


def test_the_longest_zone_answers() -> None:
    config = parse(
        ". {\n forward . 192.0.2.1\n}\nexample {\n forward . 192.0.2.2\n}\nb.example {\n forward . 192.0.2.3\n}\n"
    )
    for name, wanted in (
        ("x.b.example", "192.0.2.3"),
        ("xb.example", "192.0.2.2"),
        ("example", "192.0.2.2"),
        ("com", "192.0.2.1"),
    ):
        server = config.server_for(name)
        assert server is not None and forwards(server, name) == (wanted,), name
    assert config.zone_of("a.b.example.") == "b.example"
    assert parse("example {\n}\n").server_for("com") is None
    assert parse("example {\n}\n").zone_of("com") is None


def test_comments_quotes_and_variables() -> None:
    text = '# head\n. { # root\n  template IN A { # block\n    answer "{{ .Name }} 60 IN A 192.0.2.1 # no comment \\" here"\n  }\n  forward . {$UPSTREAM}#tail\n}\n'
    config = parse(text)
    assert config.problems == ()
    template, forward = config.servers[0].plugins
    assert template.options == (("answer", '{{ .Name }} 60 IN A 192.0.2.1 # no comment " here'),)
    assert forward.args == (".", "{$UPSTREAM}")


def test_nested_options_belong_to_their_plugin() -> None:
    config = parse(". {\n rewrite stop {\n  name regex a b {\n   answer auto\n  }\n }\n cache\n}\n")
    rewrite, cache = config.servers[0].plugins
    assert rewrite.options == (("name", "regex", "a", "b"), ("answer", "auto")) and cache.name == "cache"


def test_snippets_are_put_in_and_files_that_are_missing_are_named() -> None:
    text = "(shared) {\n  errors\n  cache 30\n}\nimport custom/*.server\n. {\n  import shared\n  import custom/*.override\n  import\n}\nimport\n"
    config = parse(text)
    assert [p.name for p in config.servers[0].plugins] == ["errors", "cache"]
    assert config.imports == ("custom/*.server", "custom/*.override")
    assert len(config.problems) == 2


def test_imports_take_the_files_of_the_config_map() -> None:
    files = {
        "stub.server": "corp.example {\n  forward . 192.0.2.53\n}\n",
        "log.override": "log\nhosts {\n 192.0.2.1 a\n}\n",
    }
    config = parse("import custom/*.server\n. {\n  import /etc/coredns/custom/*.override\n}\n", files)
    assert config.imports == ()
    assert [s.zones for s in config.servers] == [("corp.example",), (".",)]
    assert [p.name for p in config.servers[1].plugins] == ["log", "hosts"]


def test_files_that_import_themselves_end() -> None:
    config = parse("import a.server\n", {"a.server": "import a.server\n"})
    assert config.servers == () and config.imports == ("a.server",)
    assert parse(". {\n import x\n}\n", {"x": "import x\n"}).imports == ("x",)


def test_a_file_without_braces_is_one_block() -> None:
    config = parse("example.org\nforward . 192.0.2.1\ncache 30\n")
    assert config.servers[0].zones == ("example.org",) and [p.name for p in config.servers[0].plugins] == [
        "forward",
        "cache",
    ]


def test_what_is_broken_is_told_with_its_line_and_the_rest_is_read() -> None:
    for text, line, zones in (
        (". {\n  errors\n", 1, 1),
        (". {\n  health {\n    lameduck 5s\n", 2, 1),
        ("}\n. {\n}\n", 1, 1),
        (". {\n  errors\n} trailing\n", 3, 1),
        ('. {\n  log "open\n', 2, 1),
        ("{\n  errors\n}\n", 1, 0),
        (". {\n  {\n  }\n}\n", 2, 1),
        ("a { b {\n}\n", 1, 1),
        ("a\nerrors\n}\n", 3, 1),
    ):
        config = parse(text)
        assert any(f"line {line}:" in p for p in config.problems), (text, config.problems)
        assert len(config.servers) == zones, text


def test_forwarders_hold_for_their_own_zone() -> None:
    server = parse(
        ". {\n  forward corp.example 192.0.2.1 tls://192.0.2.2\n  proxy . 192.0.2.3\n  forward\n}\n"
    ).servers[0]
    assert forwards(server, "a.corp.example.") == ("192.0.2.1", "tls://192.0.2.2", "192.0.2.3")
    assert forwards(server, "example.com") == ("192.0.2.3",)


def test_names_within_zones() -> None:
    assert within("a.Example.", "example") and within("anything", ".") and within("example", "example.")
    assert not within("notexample", "example") and clean(".") == "."


@given(st.text(alphabet='ab.{}"#\\\n ()$*import', max_size=120))
def test_no_text_breaks_the_parser(text: str) -> None:
    config = parse(text, {"a": text})
    for server in config.servers:
        assert server.zones
        forwards(server, "a.b")
    config.zone_of("a.b")
