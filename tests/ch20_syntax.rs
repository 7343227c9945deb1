//! Chapter 20: the syntax of templates.

mod support;

use glasshouse::web::syntax::{
    Condition, Expression, Filter, Kind, Node, Operator, Part, Source, SyntaxFault, Template,
};
use glasshouse::web::value::Value;
use support::template_cases::{SAMPLE, broken_templates};

const DEPTH: usize = 32;

/// The tree in one line: `if(a: "text")`.
fn outline(nodes: &[Node]) -> String {
    let parts: Vec<String> = nodes.iter().map(|node| one(&node.kind)).collect();
    parts.join(" ")
}

fn one(kind: &Kind) -> String {
    let part = |part: &Part| {
        let condition = part.condition.as_ref().map_or("else".to_string(), condition);
        format!("{condition}: {}", outline(&part.nodes))
    };
    match kind {
        Kind::Text(text) => format!("{text:?}"),
        Kind::Output(output) => expression(output),
        Kind::If(parts) => format!("if({})", parts.iter().map(part).collect::<Vec<_>>().join("; ")),
        Kind::For(repetition) => {
            let (nodes, empty) = (outline(&repetition.nodes), outline(&repetition.empty));
            format!("for({} in {}: {nodes}; {empty})", repetition.name, repetition.list.join("."))
        }
        Kind::Include(name) => format!("include({name})"),
        Kind::Block(name) => format!("block({name})"),
    }
}

/// `(a and not b) or (c)`, with all parentheses.
fn condition(condition: &Condition) -> String {
    let mut any = Vec::new();
    for tests in condition {
        let mut all = Vec::new();
        for test in tests {
            let mut text = expression(&test.left);
            if let Some((operator, right)) = &test.right {
                text = format!("{text} {operator:?} {}", expression(right));
            }
            all.push(if test.negated { format!("not {text}") } else { text });
        }
        any.push(format!("({})", all.join(" and ")));
    }
    any.join(" or ")
}

fn expression(expression: &Expression) -> String {
    let mut text = source(&expression.source);
    for filter in &expression.filters {
        let name = match filter {
            Filter::Default(other) => format!("Default {}", source(other)),
            Filter::Join(between) => format!("Join {}", source(between)),
            Filter::FloatFormat(places) => format!("FloatFormat {}", source(places)),
            alone => format!("{alone:?}"),
        };
        text = format!("{text} | {name}");
    }
    text
}

fn source(source: &Source) -> String {
    match source {
        Source::Literal(Value::Text(text)) => format!("{text:?}"),
        Source::Literal(value) => format!("{value:?}"),
        Source::Path(path) => path.join("."),
    }
}

#[track_caller]
fn parse(source: &str) -> Template {
    match Template::parse(source, DEPTH) {
        Ok(template) => template,
        Err(error) => panic!("{source}\n{error}"),
    }
}

#[track_caller]
fn check(source: &str, want: &str) {
    assert_eq!(outline(&parse(source).nodes), want, "{source}");
}

#[track_caller]
fn check_error(source: &str, line: usize, words: &str) {
    let error = Template::parse(source, DEPTH).expect_err(source);
    assert_eq!(error.to_string(), format!("line {line}: {words}"), "{source}");
}

// Tokens.

#[test]
fn a_page_becomes_a_tree() {
    check("", "");
    check("<p>{{ a }}</p>\n", r#""<p>" a "</p>\n""#);
    check(
        "{% if a %}1{% elif b %}{{ c }}{% else %}{% for x in y %}2{% endfor %}{% endif %}3",
        r#"if((a): "1"; (b): c; else: for(x in y: "2"; )) "3""#,
    );
    check("{% for x in a.b %}{{ x }}{% empty %}none{% endfor %}", r#"for(x in a.b: x; "none")"#);
    check("{%include\"a/b.html\"%}{% include'c' %}", "include(a/b.html) include(c)");
}

#[test]
fn single_braces_are_text() {
    for text in ["a { b } c", "@media { p { x: y } }", "}} %} #} { { { % {", "{", "\u{e9}{\u{e9}"] {
        check(text, &format!("{text:?}"));
    }
}

#[test]
fn a_comment_is_nothing_even_over_several_lines() {
    check("a{# {{ b }} {% if #}c{#\n\n#}d{##}", r#""a" "c" "d""#);
    check_error("{#\n\n#}\n{{ 1 2 }}", 4, "one value was expected, but here is `1 2`");
}

#[test]
fn a_mark_is_written_as_a_text() {
    check("{{ \"{{\" }} {{ '{%' }} }}", r#""{{" " " "{%" " }}""#);
}

#[test]
fn the_mark_before_a_file_is_no_part_of_it() {
    check("\u{feff}a", r#""a""#);
    let template = parse("\u{feff}{% extends \"base\" %}");
    assert_eq!(template.extends, Some(("base".to_string(), 1)));
}

#[test]
fn each_node_knows_its_line() {
    let template = parse("a\n{{ b }}{# c\n\n #}{% if d %}\n{% endif %}\n\ne");
    let lines: Vec<usize> = template.nodes.iter().map(|node| node.line).collect();
    assert_eq!(lines, [1, 2, 4, 5]);
    let Kind::If(parts) = &parse("{% if a %}\n{% elif b %}\n\n{% else %}{% endif %}").nodes[0].kind
    else {
        panic!("a choice");
    };
    assert_eq!(parts.iter().map(|part| part.line).collect::<Vec<_>>(), [1, 2, 4]);
}

// Expressions.

#[test]
fn a_value_is_a_literal_or_a_path() {
    for (written, want) in [
        ("a", "a"),
        ("_a1.b.0", "_a1.b.0"),
        ("\"a b\"", r#""a b""#),
        ("'\"'", r#""\"""#),
        ("\"or\"", r#""or""#),
        ("true", "Bool(true)"),
        ("-12", "Integer(-12)"),
        ("9223372036854775808", "Float(9.223372036854776e18)"),
        ("0.50", "Float(0.5)"),
        ("truer", "truer"),
    ] {
        check(&format!("{{{{ {written} }}}}"), want);
        check(&format!("{{{{{written}}}}}"), want);
    }
}

#[test]
fn filters_follow_a_value_from_left_to_right() {
    check("{{ a|upper }}{{ a | lower|safe }}", "a | Upper a | Lower | Safe");
    check("{{ a|default:b.0|length }}", "a | Default b.0 | Length");
    check("{{ a|join:\", \" }}{{ a|join:'|' }}", r#"a | Join ", " a | Join "|""#);
    check("{{ a|floatformat:-5|urlencode }}", "a | FloatFormat Integer(-5) | UrlEncode");
    check("{{ \"|:}\"|lower }}", r#""|:}" | Lower"#);
}

#[test]
fn a_condition_is_or_of_and_of_not() {
    for (written, want) in [
        ("a", "(a)"),
        ("not a", "(not a)"),
        ("not not a", "(a)"),
        ("a or b and c", "(a) or (b and c)"),
        ("a and b or not c", "(a and b) or (not c)"),
        ("a == 'or'", "(a Equal \"or\")"),
        ("a==b", "(a Equal b)"),
        ("a!=b", "(a NotEqual b)"),
        ("a<=b", "(a LessOrEqual b)"),
        ("a>=b", "(a GreaterOrEqual b)"),
        ("a < b and c>d", "(a Less b and c Greater d)"),
        ("not a|length == 3", "(not a | Length Equal Integer(3))"),
    ] {
        check(&format!("{{% if {written} %}}{{% endif %}}"), &format!("if({want}: )"));
    }
    assert_ne!(Operator::Less, Operator::LessOrEqual);
}

// Blocks.

#[test]
fn what_stands_in_a_block_lies_apart() {
    let template = parse(
        "{% extends 'base' %}\n\n{# two halves #}\n{% block body %}[{% block left %}l{% endblock left %}\
         ]{% endblock %}\n{% block title %}{% endblock %}",
    );
    assert_eq!(template.extends, Some(("base".to_string(), 1)));
    assert_eq!(outline(&template.nodes), r#""\n\n" "\n" block(body) "\n" block(title)"#);
    let blocks: Vec<String> =
        template.blocks.iter().map(|(name, nodes)| format!("{name}: {}", outline(nodes))).collect();
    assert_eq!(blocks, [r#"body: "[" block(left) "]""#, r#"left: "l""#, "title: "]);
}

#[test]
fn what_a_page_would_lose_is_an_error() {
    let outside = "a template that extends another shows its blocks only, and this is outside";
    for lost in ["text", "{{ name }}", "{% if yes %}\n\n{% endif %}", "{% include \"x\" %}"] {
        check_error(
            &format!("{{% extends \"x\" %}}\n {lost}"),
            1 + usize::from(lost != "text"),
            outside,
        );
    }
    let late = "{% extends %} must come before all else";
    for early in ["text", "{{ name }}", "{% block a %}{% endblock %}", "{% if yes %}"] {
        check_error(&format!("\n{early}{{% extends \"x\" %}}"), 2, late);
    }
    check_error("{% extends \"x\" %}\n{% extends \"y\" %}", 2, late);
    let twice = "this file has a block of that name already";
    check_error(
        "{% block a %}\n{% block b %}{% endblock %}\n{% endblock %}\n{% block b %}{% endblock %}",
        4,
        twice,
    );
    check_error("{% block a %}\n{% block a %}{% endblock %}{% endblock %}", 2, twice);
}

// Errors.

/// A template, the line of its error, and the error.
const ERRORS: &[(&str, usize, &str)] = &[
    ("a\n{{ name", 2, "}} was expected, but here is the end of the line"),
    ("{{ name\n}}", 1, "}} was expected, but here is the end of the line"),
    ("\n\n{% if a\n%}", 3, "%} was expected, but here is the end of the line"),
    ("\n{# a\n\n", 2, "#} was expected, but here is the end of the file"),
    ("{{ }}", 1, "one value was expected, but here is nothing"),
    ("{{ name }", 1, "}} was expected, but here is the end of the line"),
    ("{{ a b }}", 1, "one value was expected, but here is `a b`"),
    ("{{ a-b }}", 1, "a value was expected, but here is `a-b`"),
    ("{{ a..b }}", 1, "a value was expected, but here is `a..b`"),
    ("{{ _a.é }}", 1, "a value was expected, but here is `_a.é`"),
    ("{{ 1.2.3 }}", 1, "a value was expected, but here is `1.2.3`"),
    ("{{ 1e9 }}", 1, "a value was expected, but here is `1e9`"),
    ("{{ .5 }}", 1, "a value was expected, but here is `.5`"),
    ("{{ 5. }}", 1, "a value was expected, but here is `5.`"),
    ("{{ rows.+1 }}", 1, "a value was expected, but here is `rows.+1`"),
    ("{{ \"a }}", 1, "\" was expected, but here is the end of the tag"),
    ("{{ name| }}", 1, "a filter was expected, but here is nothing"),
    ("{{ |upper }}", 1, "one value was expected, but here is nothing"),
    ("{{ name|uper }}", 1, "a filter was expected, but here is `uper`"),
    ("{{ name|default: }}", 1, "one value was expected, but here is nothing"),
    ("{% %}", 1, "a tag was expected, but here is {%  %}"),
    ("{% fi a %}", 1, "a tag was expected, but here is {% fi a %}"),
    ("{% if %}{% endif %}", 1, "one value was expected, but here is nothing"),
    ("{% if a = b %}{% endif %}", 1, "one value was expected, but here is `a = b`"),
    ("{% if a and %}{% endif %}", 1, "one value was expected, but here is nothing"),
    ("{% if a == b == c %}{% endif %}", 1, "one value was expected, but here is `b == c`"),
    (
        "{% for x of y %}{% endfor %}",
        1,
        "{% for NAME in LIST %} was expected, but here is {% for x of y %}",
    ),
    (
        "{% for x.y in z %}{% endfor %}",
        1,
        "{% for NAME in LIST %} was expected, but here is {% for x.y in z %}",
    ),
    ("{% include name %}", 1, "the name of a template, in quotes, was expected, but here is name"),
    ("{% block a-b %}", 1, "{% block NAME %} was expected, but here is {% block a-b %}"),
    ("\n{% endif %}", 2, "the end of the file was expected, but here is {% endif %}"),
    ("\n{% elif a %}", 2, "the end of the file was expected, but here is {% elif %}"),
    (
        "{% block a %}\n{% if b %}",
        2,
        "{% endif %} for the tag of line 2 was expected, but here is the end of the file",
    ),
    (
        "\n{% for x in a %}\n{% if x %}\n{% endfor %}\n{% endif %}",
        4,
        "{% endif %} for the tag of line 3 was expected, but here is {% endfor %}",
    ),
    (
        "<html>\n{% block a %}\n{% if a %}\n{% endif %}\n</html>\n",
        5,
        "{% endblock %} for the tag of line 2 was expected, but here is the end of the file",
    ),
];

#[test]
fn an_error_names_its_line_and_what_was_expected() {
    for (source, line, words) in ERRORS {
        check_error(source, *line, words);
        let windows = source.replace('\n', "\r\n");
        check_error(&windows, *line, words);
    }
}

#[test]
fn an_open_tag_waits_for_its_own_end() {
    for (open, end, wrong) in [
        ("{% if a %}", "endif", "{% empty %}"),
        ("{% if a %}", "endif", "{% endblock a %}"),
        ("{% if a %}{% else %}", "endif", "{% else %}"),
        ("{% for x in a %}", "endfor", "{% else %}"),
        ("{% for x in a %}{% empty %}", "endfor", "{% empty %}"),
        ("{% block a %}", "endblock", "{% else %}"),
        ("{% block a %}", "endblock", "{% endblock b %}"),
    ] {
        let words =
            format!("{{% {end} %}} for the tag of line 1 was expected, but here is {wrong}");
        check_error(&format!("{open}\n{wrong}"), 2, &words);
    }
}

#[test]
fn a_word_of_the_language_is_no_name() {
    for word in ["and", "or", "not", "in", "true", "false"] {
        let words = format!("a value was expected, but here is `a.{word}`");
        check_error(&format!("{{{{ a.{word} }}}}"), 1, &words);
    }
}

#[test]
fn a_tag_or_a_filter_in_another_form_is_told_its_own() {
    for form in [
        "for NAME in LIST",
        "block NAME",
        "include \"NAME\"",
        "extends \"NAME\"",
        "else",
        "empty",
        "endif",
        "endfor",
        "endblock NAME",
    ] {
        let name = form.split(' ').next().unwrap_or_default();
        let tag = format!("{{% {name} a b c d %}}");
        check_error(&tag, 1, &format!("{{% {form} %}} was expected, but here is {tag}"));
    }
    for name in ["default", "join", "floatformat"] {
        let words = format!("`{name}:VALUE` was expected, but here is `{name}`");
        check_error(&format!("{{{{ a|{name} }}}}"), 1, &words);
    }
    for name in ["upper", "lower", "length", "urlencode", "safe"] {
        let words = format!("`{name}` alone was expected, but here is `{name} : 1`");
        check_error(&format!("{{{{ a|{name}:1 }}}}"), 1, &words);
    }
}

#[test]
fn an_error_is_short_whatever_the_template_holds() {
    let long = "x".repeat(100_000);
    for source in
        [format!("{{{{ {long}-y }}}}"), format!("{{% {long} %}}"), format!("{{{{ x|{long} }}}}")]
    {
        let error = Template::parse(&source, DEPTH).expect_err("nonsense");
        assert!(error.to_string().len() < 200, "{error}");
    }
}

#[test]
fn many_open_tags_take_no_stack_and_are_refused() {
    let open = |levels: usize| "{% if a %}".repeat(levels) + &"{% endif %}".repeat(levels);
    let work = move || {
        assert!(Template::parse(&open(DEPTH), DEPTH).is_ok());
        for levels in [DEPTH + 1, 50_000] {
            let error = Template::parse(&open(levels), DEPTH).expect_err("too deep");
            assert_eq!(error.fault, SyntaxFault::TooDeep(DEPTH));
            assert_eq!(error.to_string(), "line 1: more than 32 tags are open");
        }
    };
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(work);
    thread.expect("a thread").join().expect("no panic");
}

/// A tree, or an error with a line of the source.
fn try_any(source: &str) -> bool {
    match Template::parse(source, 8) {
        Ok(_) => true,
        Err(error) => {
            assert!(error.line <= source.lines().count().max(1), "{error} in {source:?}");
            assert!(error.to_string().len() < 400, "{error}");
            false
        }
    }
}

#[test]
fn a_template_cut_anywhere_is_a_tree_or_an_error() {
    assert!(try_any(SAMPLE));
    for end in 0..SAMPLE.len() {
        try_any(&SAMPLE[..end]);
        try_any(&SAMPLE[end..]);
    }
}

#[test]
fn a_hundred_thousand_broken_templates_break_nothing() {
    let mut trees = 0;
    for mutant in broken_templates(20).take(100_000) {
        trees += usize::from(try_any(&mutant));
    }
    assert!((10_000..90_000).contains(&trees), "{trees} of 100000: the mutations are off");
}

// Exercises.

#[test]
#[ignore = "exercise 20.2"]
fn exercise_20_2_else_if_is_another_way_to_write_elif() {
    let elif = parse("{% if a %}1{% elif b or c %}2{% else %}3{% endif %}");
    let else_if = Template::parse("{% if a %}1{% else if b or c %}2{% else %}3{% endif %}", DEPTH);
    assert_eq!(else_if, Ok(elif));
    let late = Template::parse("{% if a %}{% else %}{% else if b %}{% endif %}", DEPTH);
    assert!(late.is_err(), "nothing comes after else");
}

#[test]
#[ignore = "exercise 20.4"]
fn exercise_20_4_the_end_of_a_loop_may_name_its_variable() {
    let plain = parse("{% for x in a %}{% for y in x %}{{ y }}{% endfor %}{% endfor %}");
    let named = "{% for x in a %}{% for y in x %}{{ y }}{% endfor y %}{% endfor x %}";
    assert_eq!(Template::parse(named, DEPTH), Ok(plain));
    check_error(
        "{% for x in a %}\n{% endfor y %}",
        2,
        "{% endfor %} for the tag of line 1 was expected, but here is {% endfor y %}",
    );
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
