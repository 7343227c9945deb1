//! Chapter 21: templates.

mod support;

use glasshouse::web::syntax::SyntaxFault;
use glasshouse::web::template::{
    Context, TemplateEngine, TemplateError, TemplateFault, TemplateLimits, Templates, Value,
};
use glasshouse::web::value;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::template_cases::{SAMPLE, broken_templates};
use support::watchdog::watchdog;

/// Renders one template from memory.
fn try_render(source: &str, context: &Context) -> Result<String, TemplateError> {
    Templates::in_memory(false).with("page.html", source).render("page.html", context)
}

#[track_caller]
fn check(source: &str, context: &Context, want: &str) {
    match try_render(source, context) {
        Ok(got) => assert_eq!(got, want, "{source}"),
        Err(error) => panic!("{source}\n{error}"),
    }
}

#[track_caller]
fn check_error(source: &str, line: usize, words: &str) {
    let error = try_render(source, &context()).expect_err(source);
    assert_eq!(error.to_string(), format!("page.html, line {line}: {words}"), "{source}");
}

fn user(name: &str, age: i64) -> Context {
    Context::new().with("name", name).with("age", age)
}

fn context() -> Context {
    Context::new()
        .with("name", "Ada")
        .with("count", 3)
        .with("ratio", 0.5)
        .with("yes", true)
        .with("no", false)
        .with("empty", "")
        .with("none", Value::Nothing)
        .with("letters", vec!["a", "b", "c"])
        .with("nobody", Vec::<String>::new())
        .with("user", user("Grace", 85))
        .with("users", vec![user("Ada", 36), user("Alan", 41)])
}

// Values and their names.

#[test]
fn a_value_takes_its_place() {
    check("<p>Hello {{ name }}!</p>\n", &context(), "<p>Hello Ada!</p>\n");
    check("{{name}}{{  count  }}{{ ratio }}{{ yes }}{{ none }}", &context(), "Ada30.5true");
    check("", &context(), "");
}

#[test]
fn dots_walk_into_maps_and_lists() {
    check("{{ user.name }} {{ users.1.name }} {{ letters.0 }}", &context(), "Grace Alan a");
    check("[{{ users.7.name }}{{ letters.x }}{{ name.x }}{{ user.x.y }}]", &context(), "[]");
}

#[test]
fn a_name_that_is_missing_is_nothing() {
    check("[{{ nobody_knows }}{{ a.b.c|upper }}]", &Context::new(), "[]");
    check("{% if gone %}a{% else %}b{% endif %}", &Context::new(), "b");
    check("{% for x in gone %}a{% empty %}b{% endfor %}", &Context::new(), "b");
}

#[test]
fn a_name_that_is_missing_is_an_error_in_debug_mode() {
    let render = |source: &str| {
        Templates::in_memory(true).with("page.html", source).render("page.html", &context())
    };
    let error = render("\n<p>{{ user.nmae|upper }}").expect_err("a typo");
    assert_eq!(error.fault, TemplateFault::UnknownName("user.nmae".to_string()));
    assert_eq!(
        error.to_string(),
        "page.html, line 2: nothing is called `user.nmae`; if that is right, give it a default"
    );
    assert_eq!(render("{{ gone|default:\"x\"|upper }}{{ none }}").as_deref(), Ok("X"));
    assert_eq!(render("{% if gone %}a{% endif %}").as_deref(), Ok(""));
    assert_eq!(
        render("{% for x in letters %}{{ forloop.counter }}{% endfor %}").as_deref(),
        Ok("123")
    );
}

#[test]
fn filters_change_a_value_from_left_to_right() {
    for (source, want) in [
        ("{{ name|upper }}", "ADA"),
        ("{{ name | lower }}", "ada"),
        ("{{ name|length }} {{ letters|length }} {{ user|length }} {{ count|length }}", "3 3 2 0"),
        ("{{ empty|default:\"x\"|upper }}", "X"),
        ("{{ gone|default:name }}", "Ada"),
        ("{{ no|default:-1.5 }}", "-1.5"),
        ("{{ letters|join:\", \" }}", "a, b, c"),
        ("{{ letters|join:'|' }}", "a|b|c"),
        ("{{ name|join:\"-\" }}", "Ada"),
        (
            "{{ ratio|floatformat:2 }} {{ count|floatformat:1 }} {{ ratio|floatformat:0 }}",
            "0.50 3.0 0",
        ),
        ("[{{ name|floatformat:1 }}]", "[]"),
        (
            "{{ ratio|floatformat:-5 }} {{ count|floatformat:999999999999 }}",
            "0 3.00000000000000000",
        ),
        ("{{ \"a b/é&\"|urlencode }}", "a%20b%2F%C3%A9%26"),
        ("{{ \"|:}\"|lower }}", "|:}"),
    ] {
        check(source, &context(), want);
    }
}

// Choices, loops.

#[test]
fn a_condition_is_or_of_and_of_not() {
    for (condition, want) in [
        ("name", true),
        ("empty", false),
        ("none", false),
        ("gone", false),
        ("count", true),
        ("0", false),
        ("0.0", false),
        ("nobody", false),
        ("letters", true),
        ("user", true),
        ("not gone", true),
        ("not not gone", false),
        ("yes and no", false),
        ("yes or no", true),
        ("no and no or yes", true),
        ("yes or no and no", true),
        ("not no and yes", true),
        ("not yes or no", false),
        ("count == 3", true),
        ("count==3", true),
        ("count == 3.0", true),
        ("count != 3", false),
        ("not count == 3", false),
        ("count > 2 and count < 4", true),
        ("count >= 3 and count <= 3", true),
        ("count >= 2 and count <= 4", true),
        ("count >= 4 or count <= 2", false),
        ("ratio < count", true),
        ("name == \"Ada\"", true),
        ("name == 'or'", false),
        ("\"or\" == \"or\"", true),
        ("name < \"B\"", true),
        ("name|lower == \"ada\"", true),
        ("letters|length > 2", true),
        ("user.age > 84", true),
        ("none == gone", true),
        ("yes == true", true),
        ("no == false", true),
        // These two cannot be compared, so they are neither equal nor less nor more.
        ("count == \"3\"", false),
        ("count != \"3\"", true),
        ("count < \"4\"", false),
        ("letters == letters", false),
        ("count == 9223372036854775807", false),
    ] {
        let source = format!("{{% if {condition} %}}true{{% else %}}false{{% endif %}}");
        check(&source, &context(), &want.to_string());
    }
}

#[test]
fn the_first_branch_that_holds_is_taken() {
    let source = "{% if n < 1 %}a{% elif n < 2 %}b{% elif n < 3 %}c{% else %}d{% endif %}";
    for (n, want) in [(0, "a"), (1, "b"), (2, "c"), (3, "d")] {
        check(source, &Context::new().with("n", n), want);
    }
    check("{% if no %}a{% elif no %}b{% endif %}", &context(), "");
}

#[test]
fn a_loop_knows_where_it_is() {
    check(
        "{% for user in users %}{% if not forloop.first %}, {% endif %}{{ forloop.counter }} \
         {{ user.name }}{% if forloop.last %}.{% endif %}{% endfor %}",
        &context(),
        "1 Ada, 2 Alan.",
    );
    check("{% for x in letters %}{{ forloop.counter0 }}{% endfor %}", &context(), "012");
    check("{% for x in nobody %}a{% empty %}none{% endfor %}", &context(), "none");
    check("{% for x in letters %}{{ x }}{% empty %}none{% endfor %}", &context(), "abc");
}

#[test]
fn an_inner_loop_hides_the_outer_one_until_it_ends() {
    check(
        "{% for x in letters %}{% for x in users %}{{ x.name }}{{ forloop.counter }}{% endfor %}\
         {{ x }}{{ forloop.counter }};{% endfor %}{{ x }}",
        &context(),
        "Ada1Alan2a1;Ada1Alan2b2;Ada1Alan2c3;",
    );
}

#[test]
fn a_loop_over_what_is_no_list_is_an_error() {
    for name in ["name", "count", "user"] {
        let source = format!("\n{{% for x in {name} %}}{{% endfor %}}");
        check_error(&source, 2, "a list was expected, but here is a value that is none");
    }
    check("{% for x in none %}a{% empty %}b{% endfor %}", &context(), "b");
}

#[test]
fn a_bar_chart_is_a_loop_over_maps_of_numbers() {
    let bars = vec![
        Context::new().with("x", 0).with("height", 12.345).with("label", "Mon & Tue"),
        Context::new().with("x", 20).with("height", 7.0).with("label", "<Wed>"),
    ];
    check(
        "<svg>{% for bar in bars %}<rect x=\"{{ bar.x }}\" height=\"{{ bar.height|floatformat:1 }}\">\
         <title>{{ bar.label }}</title></rect>{% endfor %}</svg>",
        &Context::new().with("bars", bars),
        "<svg><rect x=\"0\" height=\"12.3\"><title>Mon &amp; Tue</title></rect>\
         <rect x=\"20\" height=\"7.0\"><title>&lt;Wed&gt;</title></rect></svg>",
    );
}

// Escaping.

const ATTACKS: &[&str] = &[
    "<script>alert(1)</script>",
    "\" onmouseover=\"alert(1)",
    "' onmouseover='alert(1)",
    "</title></textarea><img src=x onerror=alert(1)>",
    "{{ x|safe }}{% include \"x\" %}",
    "&lt;script&gt;",
    "&#60;script&#62;",
    "\u{212a}<\0>\u{feff}'\u{2028}\"&",
];

/// No byte of HTML's own, other than the five escapes.
#[track_caller]
fn check_harmless(source: &str, page: &str) {
    let mut rest = page.to_string();
    for entity in ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"] {
        rest = rest.replace(entity, "");
    }
    assert!(!rest.contains(['<', '>', '&', '"', '\'']), "{source} became {page}");
}

#[test]
fn no_path_into_a_page_lets_html_through() {
    for attack in ATTACKS {
        let context = Context::new()
            .with("x", *attack)
            .with("html", Value::Safe(attack.to_string()))
            .with("map", Context::new().with("x", *attack))
            .with("maps", vec![Context::new().with("x", *attack)])
            .with("list", vec![*attack, *attack])
            .with("safes", vec![Value::Safe(attack.to_string())])
            .with("one", 1);
        for source in [
            "{{ x }}",
            "{{ map.x }}{{ maps.0.x }}{{ list.1 }}",
            "{{ x|upper }}{{ x|lower }}{{ x|length }}{{ x|urlencode }}",
            "{{ x|floatformat:1 }}{{ one|floatformat:x }}",
            "{{ gone|default:x }}{{ x|default:\"\" }}{{ gone|default:x|upper }}",
            "{{ gone|default:\"<b>'&amp;'</b>\" }}{{ '<b a=\"b\">' }}",
            "{{ list|join:x }}{{ safes|join:html }}{{ list|join:\"<br>\" }}{{ x|join:x }}",
            "{{ x|safe|upper }}{{ x|safe|lower }}{{ html|upper }}{{ x|safe|urlencode }}",
            "{% for y in list %}{{ y }}{% endfor %}{% for y in maps %}{{ y.x }}{% endfor %}",
            "{% if x == x %}{{ x }}{% elif x %}{{ x }}{% endif %}",
            "{% block a %}{{ x }}{% endblock %}{% include \"part\" %}",
        ] {
            let templates =
                Templates::in_memory(false).with("page", source).with("part", "{{ x }}");
            let page = templates.render("page", &context).expect(source);
            check_harmless(source, &page);
        }
    }
}

#[test]
fn a_value_is_escaped_once() {
    let context = Context::new().with("x", "<a href='#'>\"R&amp;D\"</a>");
    check("{{ x }}", &context, "&lt;a href=&#39;#&#39;&gt;&quot;R&amp;amp;D&quot;&lt;/a&gt;");
}

#[test]
fn safe_is_the_only_way_past_escaping_and_must_come_last() {
    let context = Context::new().with("x", "<b>").with("html", Value::Safe("<i>".to_string()));
    check("{{ x|safe }}{{ html }}{{ x|upper|safe }}", &context, "<b><i><B>");
    check("{{ gone|default:html }}", &context, "<i>");
    check("{{ x|safe|upper }}{{ html|lower }}", &context, "&lt;B&gt;&lt;i&gt;");
}

#[test]
fn a_value_is_never_read_as_a_template() {
    let context = Context::new().with("x", "{{ y }}{% include \"z\" %}").with("y", "secret");
    check("{{ x|safe }}", &context, "{{ y }}{% include \"z\" %}");
}

// Several templates.

#[test]
fn an_included_template_sees_the_same_names() {
    let templates = Templates::in_memory(false)
        .with("page.html", "{% for user in users %}{% include \"parts/a_b-c.html\" %}{% endfor %}")
        .with("parts/a_b-c.html", "<li>{{ forloop.counter }} {{ user.name }} of {{ name }}</li>");
    let page = templates.render("page.html", &context());
    assert_eq!(page.as_deref(), Ok("<li>1 Ada of Ada</li><li>2 Alan of Ada</li>"));
}

fn family() -> Templates {
    Templates::in_memory(false)
        .with("base.html", "<h1>{% block title %}Base{% endblock %}</h1>{% block body %}{% endblock %}.")
        .with(
            "middle.html",
            "{% extends \"base.html\" %}\n\n{# body has two halves #}\n\
             {% block body %}[{% block left %}l{% endblock left %}|{% block right %}r{% endblock %}]{% endblock %}\n",
        )
        .with(
            "page.html",
            "{% extends 'middle.html' %}{% block title %}{{ name }}{% endblock %}\
             {% block right %}R{% endblock %}",
        )
}

#[test]
fn the_template_that_extends_all_others_fills_their_blocks() {
    let render = |name: &str| family().render(name, &context()).expect(name);
    assert_eq!(render("base.html"), "<h1>Base</h1>.");
    assert_eq!(render("middle.html"), "<h1>Base</h1>[l|r].");
    assert_eq!(render("page.html"), "<h1>Ada</h1>[l|R].");
}

#[test]
fn an_included_template_has_a_family_of_its_own() {
    let templates = family()
        .with("both.html", "{% block title %}mine{% endblock %} {% include \"page.html\" %}");
    let page = templates.render("both.html", &context());
    assert_eq!(page.as_deref(), Ok("mine <h1>Ada</h1>[l|R]."));
}

// Errors.

#[test]
fn a_value_of_the_wrong_kind_is_an_error_on_its_line() {
    for (source, line, words) in [
        ("{{ letters }}", 1, "text or a number was expected, but here is a list"),
        ("\n{{ user|upper }}", 2, "text or a number was expected, but here is a map"),
        ("\n{{ users|join:1 }}", 2, "text or a number was expected, but here is a map"),
        (
            "{% if no %}\n{% elif letters|upper %}\n{% endif %}",
            2,
            "text or a number was expected, but here is a list",
        ),
        (
            "\n{% for x in name %}{% endfor %}",
            2,
            "a list was expected, but here is a value that is none",
        ),
        ("\n{{ name", 2, "}} was expected, but here is the end of the line"),
    ] {
        check_error(source, line, words);
        check_error(&source.replace('\n', "\r\n"), line, words);
    }
}

#[test]
fn an_error_names_the_file_in_which_it_is() {
    let templates = Templates::in_memory(false)
        .with("page.html", "{% extends \"base.html\" %}\n{% block a %}\n{{ list }}{% endblock %}")
        .with("base.html", "\n\n\n{% block a %}{% endblock %}")
        .with("outer.html", "\n{% include \"inner.html\" %}")
        .with("inner.html", "\n\n{% if %}")
        .with("lost.html", "\n\n{% if true %}\n{% include \"gone.html\" %}{% endif %}")
        .with("orphan.html", "\n{% extends \"gone.html\" %}");
    let context = Context::new().with("list", vec![1]);
    for (name, place) in [
        ("page.html", "page.html, line 3: text or a number was expected, but here is a list"),
        ("outer.html", "inner.html, line 3: one value was expected, but here is nothing"),
        ("lost.html", "lost.html, line 4: there is no template `gone.html`"),
        ("orphan.html", "orphan.html, line 2: there is no template `gone.html`"),
        ("gone.html", "gone.html: there is no template `gone.html`"),
    ] {
        let error = templates.render(name, &context).expect_err(name);
        assert_eq!(error.to_string(), place);
    }
}

// Limits.

fn limited(limits: TemplateLimits) -> Templates {
    Templates::in_memory(false).with_limits(limits)
}

/// Runs on a thread with the stack that the server's threads have.
fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(work);
    thread.expect("a thread").join().expect("no panic")
}

/// A template with so many levels inside each other.
fn nested(levels: usize) -> String {
    let mut source = String::from("{{ x|upper|default:\"y\" }}");
    for level in 0..levels {
        source = match level % 3 {
            0 => format!("{{% if no %}}{{% else %}}{source}{{% endif %}}"),
            1 => format!("{{% for x in list %}}{source}{{% endfor %}}"),
            _ => format!("{{% block b{level} %}}{source}{{% endblock %}}"),
        };
    }
    source
}

#[test]
fn the_deepest_template_fits_on_a_small_stack() {
    let depth = TemplateLimits::default().depth;
    on_a_small_stack(move || {
        let context = Context::new().with("list", vec!["a"]);
        let deep = |levels: usize| try_render(&nested(levels), &context);
        assert_eq!(deep(depth).as_deref(), Ok("A"));
        let too_deep = TemplateFault::Syntax(SyntaxFault::TooDeep(depth));
        assert_eq!(deep(depth + 1).map_err(|error| error.fault), Err(too_deep.clone()));
        assert_eq!(deep(5_000).map_err(|error| error.fault), Err(too_deep.clone()));
        // All levels in one block of a template that is included and extends.
        let templates = Templates::in_memory(false)
            .with("page", "{% include \"child\" %}")
            .with(
                "child",
                &format!(
                    "{{% extends \"base\" %}}{{% block all %}}{}{{% endblock %}}",
                    nested(depth - 2)
                ),
            )
            .with("base", "{% block all %}{% endblock %}");
        assert_eq!(templates.render("page", &context).as_deref(), Ok("A"));
        // The deepest include finds a template that has yet to be parsed.
        let mut templates = Templates::in_memory(false).with("t32", &nested(5_000));
        for level in 0..32 {
            let next = format!("{{% include \"t{}\" %}}", level + 1);
            templates = templates.with(&format!("t{level}"), &next);
        }
        let error = templates.render("t0", &context).expect_err("too deep");
        assert_eq!((error.template.as_str(), error.fault), ("t32", too_deep));
        let mut templates = Templates::in_memory(false).with("e33", "the end");
        for level in 0..33 {
            let next = format!("{{% extends \"e{}\" %}}", level + 1);
            templates = templates.with(&format!("e{level}"), &next);
        }
        assert_eq!(templates.render("e1", &context).as_deref(), Ok("the end"));
        assert!(templates.render("e0", &context).is_err());
    });
}

#[test]
fn a_value_of_any_depth_is_rendered_on_a_small_stack() {
    on_a_small_stack(|| {
        let mut deep = Value::from("the end");
        for _ in 0..10_000 {
            deep = Value::from(Context::new().with("next", vec![deep]));
        }
        let context = Context::new().with("deep", deep);
        check(
            "{% if deep %}{{ deep|length }}{% endif %}{{ deep|default:\"x\"|length }}\
             {% for x in deep.next %}{{ x.next.0.next|length }}{{ x|join:\"\"|length }}{% endfor %}\
             {% if deep == deep.next %}a{% else %}b{% endif %}",
            &context,
            "1111b",
        );
    });
}

#[test]
fn a_template_that_includes_itself_ends_in_a_clear_error() {
    on_a_small_stack(|| {
        let templates = Templates::in_memory(false)
            .with("self", "a\n{% include \"self\" %}")
            .with("ping", "{% include \"pong\" %}")
            .with("pong", "{% if true %}{% include \"ping\" %}{% endif %}")
            .with("parent", "{% extends \"parent\" %}")
            .with("left", "{% extends \"right\" %}")
            .with("right", "\n{% extends \"left\" %}")
            .with(
                "block",
                "{% extends \"base\" %}{% block a %}{% include \"block\" %}{% endblock %}",
            )
            .with("base", "{% block a %}{% endblock %}");
        for name in ["self", "ping", "parent", "left", "block"] {
            let error = templates.render(name, &Context::new()).expect_err(name);
            assert_eq!(error.fault, TemplateFault::TooDeep(32), "{name}");
            assert!(error.line > 0, "{error}");
        }
        let error = templates.render("self", &Context::new()).expect_err("endless");
        assert_eq!(
            error.to_string(),
            "self, line 2: more than 32 levels; does a template include itself?"
        );
    });
}

#[test]
fn a_tree_may_include_itself_as_deep_as_its_data() {
    let leaf = || Context::new().with("name", "leaf");
    let tree = Context::new().with("name", "root").with("branches", vec![leaf(), leaf()]);
    let templates = Templates::in_memory(false)
        .with("page", "{% for branch in trees %}{% include \"branch\" %}{% endfor %}")
        .with(
            "branch",
            "({{ branch.name }}{% for branch in branch.branches %}{% include \"branch\" %}{% endfor %})",
        );
    let page = templates.render("page", &Context::new().with("trees", vec![tree]));
    assert_eq!(page.as_deref(), Ok("(root(leaf)(leaf))"));
}

#[test]
fn a_page_takes_at_most_so_many_steps() {
    let _dog = watchdog(60, "a page takes at most so many steps");
    let numbers: Vec<i64> = (0..1_000).collect();
    let context = Context::new().with("list", numbers).with("long", "x".repeat(1 << 20));
    let loops = "{% for a in list %}".repeat(8) + &"{% endfor %}".repeat(8);
    let filters =
        format!("{{% for a in list %}}{{{{ a{} }}}}{{% endfor %}}", "|upper".repeat(2_000));
    let tests = format!(
        "{{% for a in list %}}{{% if no{} %}}{{% endif %}}{{% endfor %}}",
        " or no".repeat(2_000)
    );
    let each = |inside: &str| format!("{{% for a in list %}}{inside}{{% endfor %}}");
    let (lengths, joins) = (each("{{ long|length }}"), each("{% if list|join:\"\" %}{% endif %}"));
    for source in [loops, filters, tests, lengths, joins] {
        let error = try_render(&source, &context).expect_err("too much");
        assert_eq!(error.fault, TemplateFault::TooManySteps(1_000_000));
    }
    // 2 to the 32nd includes, none deeper than allowed.
    let templates =
        Templates::in_memory(false).with("twice", "{% include \"twice\" %}".repeat(2).as_str());
    let error = templates.render("twice", &context).expect_err("too much");
    assert_eq!(error.fault, TemplateFault::TooDeep(32));
    let mut templates = Templates::in_memory(false).with("t31", "x");
    for level in 0..31 {
        let next = format!("{{% include \"t{}\" %}}", level + 1);
        templates = templates.with(&format!("t{level}"), &next.repeat(2));
    }
    let error = templates.render("t0", &context).expect_err("too much");
    assert_eq!(error.fault, TemplateFault::TooManySteps(1_000_000));
}

#[test]
fn each_part_of_a_page_takes_its_steps() {
    let context = Context::new()
        .with("list", vec!["a", "b", "c"])
        .with("short", "x".repeat(255))
        .with("long", "x".repeat(256));
    for (source, steps) in [
        // A file and a node.
        ("a", 2),
        // And a value.
        ("{{ short }}", 3),
        ("{% if short %}a{% endif %}", 4),
        // And a filter.
        ("{{ short|upper }}", 4),
        ("{{ list|length }}", 4),
        ("{{ long|safe|upper }}", 7),
        ("{{ list|join:\"\" }}", 8),
        // For each turn the turn itself and a node.
        ("{% for x in list %}a{% endfor %}", 8),
        ("{% block a %}a{% endblock %}", 3),
        ("{% include \"part\" %}", 4),
        ("{% extends \"part\" %}", 3),
    ] {
        for (steps, fits) in [(steps, true), (steps - 1, false)] {
            let templates = limited(TemplateLimits { steps, ..TemplateLimits::default() })
                .with("page", source)
                .with("part", "a");
            assert_eq!(templates.render("page", &context).is_ok(), fits, "{source} in {steps}");
        }
    }
}

#[test]
fn a_page_has_at_most_so_many_bytes() {
    let limits = TemplateLimits { output: 10, ..TemplateLimits::default() };
    let context =
        Context::new().with("x", "12345").with("lt", "<<<").with("list", vec!["", "", ""]);
    let render = |source: &str| {
        limited(limits.clone())
            .with("page", source)
            .render("page", &context)
            .map_err(|error| error.fault)
    };
    assert_eq!(render("{{ x }}12345").as_deref(), Ok("1234512345"));
    let too_much = Err(TemplateFault::TooMuchOutput(10));
    assert_eq!(render("{{ x }}123456"), too_much);
    assert_eq!(render("{{ x }}{{ x }}{{ x|safe }}"), too_much);
    assert_eq!(render("{{ lt }}"), too_much);
    // The text would not be printed; it is not made either.
    assert_eq!(render("{{ list|join:\"123456\"|length }}"), too_much);
    assert_eq!(render("{{ list|join:\"12345\" }}").as_deref(), Ok("1234512345"));
}

#[test]
fn a_source_has_at_most_so_many_bytes() {
    let limits = TemplateLimits { source: 10, ..TemplateLimits::default() };
    let memory = limited(limits.clone()).with("fits", "1234567890").with("long", "12345678901");
    assert!(memory.render("fits", &Context::new()).is_ok());
    let error = memory.render("long", &Context::new()).expect_err("too long");
    assert_eq!(error.to_string(), "long: it is longer than 10 bytes");
    let folder = folder("long");
    write(&folder, "ok", "1234567890");
    write(&folder, "long", "12345678\u{e9}\u{e9}");
    let templates =
        Templates::new(&folder, false).with_limits(limits).with("page", "\n{% include \"long\" %}");
    assert_eq!(templates.render("ok", &Context::new()).as_deref(), Ok("1234567890"));
    let error = templates.render("page", &Context::new()).expect_err("the page itself is too long");
    assert_eq!(error.template, "page");
    let error = templates.render("long", &Context::new()).expect_err("too long");
    assert_eq!((error.template.as_str(), error.fault), ("long", TemplateFault::TooLong(10)));
}

// The folder.

/// An empty folder of this test.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("templates-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("parts")).expect("a folder below the target folder");
    folder
}

fn write(folder: &std::path::Path, name: &str, source: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), source).expect("a file in the folder");
}

#[test]
fn a_file_is_read_once() {
    let folder = folder("once");
    write(&folder, "page.html", "one {% include \"parts/a.html\" %}");
    write(&folder, "parts/a.html", "two");
    let templates = Templates::new(&folder, false);
    for _ in 0..2 {
        assert_eq!(templates.render("page.html", &Context::new()).as_deref(), Ok("one two"));
        write(&folder, "page.html", "{% broken");
        std::fs::remove_file(folder.join("parts/a.html")).unwrap_or_default();
    }
}

#[test]
fn a_file_that_changes_is_read_again_in_debug_mode() {
    let folder = folder("debug");
    let templates = Templates::new(&folder, true).with("page.html", "from memory");
    let render = || templates.render("page.html", &Context::new());
    assert_eq!(render().as_deref(), Ok("from memory"));
    // The same length, within one tick of the file system's clock.
    for source in ["one", "two", "six"] {
        write(&folder, "page.html", source);
        assert_eq!(render().as_deref(), Ok(source));
    }
    write(&folder, "page.html", "{% if %}");
    assert!(render().is_err());
    write(&folder, "page.html", "mended");
    assert_eq!(render().as_deref(), Ok("mended"));
    std::fs::remove_file(folder.join("page.html")).expect("the file is there");
    assert_eq!(render().as_deref(), Ok("from memory"));
}

#[test]
fn the_folder_comes_before_memory() {
    let folder = folder("before");
    write(&folder, "a.html", "file {% include \"b.html\" %}");
    let templates =
        Templates::new(&folder, false).with("a.html", "memory").with("b.html", "memory");
    assert_eq!(templates.render("a.html", &Context::new()).as_deref(), Ok("file memory"));
    let nowhere = Templates::new("no/such/folder", false).with("a.html", "memory");
    assert_eq!(nowhere.render("a.html", &Context::new()).as_deref(), Ok("memory"));
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let folder = folder("inside");
    write(&folder, "secret.html", "secret");
    write(&folder, "parts/page.html", "page");
    write(&folder, "parts/.hidden", "secret");
    let templates = Templates::new(folder.join("parts"), false);
    assert_eq!(templates.render("page.html", &Context::new()).as_deref(), Ok("page"));
    let absolute = folder.join("secret.html").to_string_lossy().into_owned();
    for name in [
        absolute.as_str(),
        "../secret.html",
        "./page.html",
        "x/../../secret.html",
        "..",
        ".",
        "",
        "/page.html",
        "//page.html",
        "page.html/",
        "..\\secret.html",
        "page.html\0",
        "C:page.html",
        "page.html/x",
        "%2e%2e/secret.html",
        ".hidden",
        "p\u{e4}ge.html",
    ] {
        let error = templates.render(name, &Context::new()).expect_err(name);
        assert_eq!(error.fault, TemplateFault::Missing(name.to_string()));
        let including = format!("{{% include \"{name}\" %}}");
        let templates = Templates::new(folder.join("parts"), false).with("outer", &including);
        let error = templates.render("outer", &Context::new()).expect_err(name);
        assert_eq!(error.fault, TemplateFault::Missing(name.to_string()));
    }
}

#[test]
fn a_file_that_is_no_text_is_told_as_such() {
    let folder = folder("bytes");
    write(&folder, "bytes.html", b"a\xff");
    write(&folder, "mark.html", "\u{feff}{% extends \"base.html\" %}");
    write(&folder, "base.html", "\u{feff}base");
    let templates = Templates::new(&folder, false);
    let error = templates.render("bytes.html", &Context::new()).expect_err("not UTF-8");
    assert_eq!(error.fault, TemplateFault::Unreadable(ErrorKind::InvalidData));
    assert!(error.to_string().starts_with("bytes.html: the file cannot be read: "));
    let error = templates.render("parts", &Context::new()).expect_err("a folder");
    assert!(matches!(error.fault, TemplateFault::Unreadable(_)), "{error}");
    assert_eq!(templates.render("mark.html", &Context::new()).as_deref(), Ok("base"));
}

#[test]
fn many_threads_render_at_once() {
    let _dog = watchdog(60, "many threads render at once");
    let folder = folder("threads");
    write(&folder, "base.html", "<{% block a %}{% endblock %}>");
    write(&folder, "page.html", "{% extends \"base.html\" %}{% block a %}{{ n }}{% endblock %}");
    let engine: Arc<dyn TemplateEngine> = Arc::new(Templates::new(&folder, true));
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let engine = Arc::clone(&engine);
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let page = engine.render("page.html", &Context::new().with("n", n));
                    assert_eq!(page, Ok(format!("<{n}>")));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
}

// Broken templates.

/// Renders it inside small limits; the result is a page or an error with a line of the source.
fn try_any(source: &str, context: &Context) -> bool {
    let limits = TemplateLimits { source: 2_000, depth: 8, steps: 500, output: 2_000 };
    let templates = limited(limits)
        .with("page", source)
        .with("base", "<{% block a %}{% endblock %}{% block b %}{% endblock %}>")
        .with("part", "{{ name }}{% for x in letters %}{{ x }}{% endfor %}");
    match templates.render("page", context) {
        Ok(page) => assert!(page.len() <= 2_000),
        Err(error) if error.template == "page" => {
            assert!(error.line <= source.lines().count().max(1), "{error} in {source:?}");
            assert!(error.to_string().len() < 400, "{error}");
            return false;
        }
        Err(_) => return false,
    }
    true
}

#[test]
fn a_template_cut_anywhere_is_a_page_or_an_error() {
    assert!(try_any(SAMPLE, &context()));
    for end in 0..SAMPLE.len() {
        try_any(&SAMPLE[..end], &context());
        try_any(&SAMPLE[end..], &context());
    }
}

#[test]
fn a_hundred_thousand_broken_templates_break_nothing() {
    let started = Instant::now();
    let context = context();
    let mut pages = 0;
    for mutant in broken_templates(19).take(100_000) {
        pages += usize::from(try_any(&mutant, &context));
    }
    assert!(
        (10_000..90_000).contains(&pages),
        "{pages} of 100000 are pages: the mutations are off"
    );
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
    println!("{pages} pages in {:?}", started.elapsed());
}

#[test]
fn every_fault_is_a_sentence() {
    use TemplateFault::*;
    let expected = SyntaxFault::Expected { wanted: "a".to_string(), found: "b".to_string() };
    for fault in [
        Missing("x".to_string()),
        Unreadable(ErrorKind::PermissionDenied),
        TooLong(1),
        Syntax(expected),
        Syntax(SyntaxFault::Misplaced("it is in the wrong place")),
        TemplateFault::Unfit(value::Unfit { wanted: "a", found: "b" }),
        UnknownName("x".to_string()),
        TooDeep(1),
        TooManySteps(1),
        TooMuchOutput(1),
    ] {
        let error = TemplateError { template: "a.html".to_string(), line: 3, fault };
        assert!(error.to_string().starts_with("a.html, line 3: "), "{error}");
        assert!(error.fault.to_string().contains(' '), "{error}");
    }
}

// Exercises.

#[test]
#[ignore = "exercise 21.2"]
fn exercise_21_2_a_loop_counts_down_too() {
    check(
        "{% for x in letters %}{{ forloop.revcounter }}{{ forloop.revcounter0 }} {% endfor %}",
        &context(),
        "32 21 10 ",
    );
}

#[test]
#[ignore = "exercise 21.4"]
fn exercise_21_4_an_inner_loop_can_ask_the_outer_one() {
    check(
        "{% for x in letters %}{% for y in letters %}{{ forloop.parentloop.counter }}{{ forloop.counter }} \
         {% endfor %}{% endfor %}",
        &Context::new().with("letters", vec!["a", "b"]),
        "11 12 21 22 ",
    );
    check(
        "{% for x in letters %}[{{ forloop.parentloop.counter }}]{% endfor %}",
        &context(),
        "[][][]",
    );
}

#[test]
fn the_exercises_start_red() {
    support::exercises_start_red();
}
