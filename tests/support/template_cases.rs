//! A template with everything in it, and the ways to break it. One chapter parses them, the next
//! renders them.

use super::mutator::Mutator;

pub const SAMPLE: &str = "{% extends \"base\" %}\n{# a comment #}\n{% block a %}\n\
    {% if name == \"Ada\" and not count > 5 or ratio|floatformat:1 %}<p title='{{ name|upper }}'>\n\
    {% elif letters.0 %}{{ user.name|default:\"x\"|safe }}{% else %}{% include \"part\" %}{% endif %}\n\
    {% for u in users %}{{ forloop.counter }}:{{ u.age }}{% empty %}none{% endfor %}\n{% endblock a %}\n";

const PIECES: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{% if x %}",
    "{% endif %}",
    "{% for x in letters %}",
    "{% endfor %}",
    "{% else %}",
    "{% empty %}",
    "{% block b %}",
    "{% endblock %}",
    "{% include \"page\" %}",
    "{% include \"part\" %}",
    "{% extends \"page\" %}",
    "|safe",
    "|join:",
    "\"",
    "'",
    " and ",
    " not ",
    " == ",
    ".",
    ":",
    "|",
    "{{ x }}",
    "\n",
    "-9223372036854775808",
];

/// Broken samples, without end. Equal seeds give equal ones.
pub fn broken_templates(seed: u64) -> impl Iterator<Item = String> {
    let mut mutator = Mutator::new(seed);
    (0_u64..).map(move |round| {
        let mut mutant = SAMPLE.as_bytes().to_vec();
        if round % 2 == 0 {
            mutant = mutator.mutate(&mutant);
        }
        for _ in 0..mutator.below(4) {
            let at = mutator.below(mutant.len() + 1);
            let end = (at + mutator.below(12)).min(mutant.len());
            mutant.splice(at..end, PIECES[mutator.below(PIECES.len())].bytes());
        }
        String::from_utf8_lossy(&mutant).into_owned()
    })
}
